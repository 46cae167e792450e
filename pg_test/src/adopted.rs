//! A server that another one has started, as `nodes.clone_standby()` does: ours to look at and to
//! stop.
use crate::client::OPTIONS;
use crate::wait::{LONG, wait_until};
use crate::{process, user};
use postgres::{Client, NoTls};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The place for a server to come. Dropping it stops the server that is there by then.
pub struct Adopted {
    directory: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    password: Option<String>,
}

impl Adopted {
    /// A data directory that does not exist yet, and a free port.
    pub fn place(name: &str) -> Adopted {
        Adopted::named(name, "data")
    }

    /// The same with a data directory of this name.
    pub fn named(name: &str, data: &str) -> Adopted {
        let directory = crate::temp_dir(name);
        let data = directory.path().join(data);
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
        let port = free.expect("there is a free port").port();
        Adopted { directory, data, port, password: None }
    }

    /// The superuser's, where the server asks for one.
    pub fn password(mut self, password: &str) -> Adopted {
        self.password = Some(password.to_owned());
        self
    }

    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Another directory beside the data directory, which the servers may write into.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {name}: {error}"));
        user::give(&path);
        path
    }

    /// What is there besides the file of the harness, sorted.
    pub fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("it is there").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "owner").collect();
        names.sort();
        names
    }

    #[track_caller]
    pub fn client(&self, db: &str) -> Client {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(db).options(OPTIONS);
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("cannot connect to port {}: {error}", self.port))
    }

    /// The first column of the first row, as text.
    #[track_caller]
    pub fn query_one_text(&self, db: &str, query: &str) -> String {
        let messages = self.client(db).simple_query(query).expect("the query runs");
        let text = messages.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default()),
            _ => None,
        });
        text.unwrap_or_else(|| panic!("no row from {query}")).to_owned()
    }

    /// The postmaster, while there is one.
    fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        (!process::is_gone(pid)).then_some(pid)
    }

    fn end(&self, signal: i32) {
        if let Some(pid) = self.pid() {
            let children = process::children(pid);
            process::signal(pid, signal);
            wait_until("the clone has stopped", LONG, || process::is_gone(pid));
            process::wait_gone(&children);
        }
    }

    /// `kill -9` of the postmaster.
    pub fn crash(&self) {
        self.end(libc::SIGKILL);
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["server.log", "postgresql.auto.conf"] {
                let text = fs::read_to_string(self.data.join(name)).unwrap_or_default();
                eprintln!("{name} of the clone:\n{text}");
            }
            // A failed wait here would end all tests.
            if let Some(pid) = self.pid() {
                process::signal(pid, libc::SIGQUIT);
            }
            return;
        }
        self.end(libc::SIGQUIT);
    }
}

/// Kills the program, one of those that a server under test has started, whose command line
/// holds `text`; false where there is none.
pub fn kill_program(text: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text) && !process::is_gone(*pid)
    };
    let found: Vec<u32> = pids.filter(runs).collect();
    found.into_iter().filter(|pid| process::signal(*pid, libc::SIGKILL)).count() > 0
}

/// Whether such a program runs.
pub fn program_runs(text: &str) -> bool {
    let mut processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    processes.any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}
