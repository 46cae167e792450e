//! One Postgres server: its directory, its process, its life and death.
use crate::home::Home;
use crate::tls::Identity;
use crate::user::{self, Life};
use crate::wait::{LONG, wait_until};
use crate::{Builder, Install, names, process};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A Postgres server under our control. Dropping it stops it and removes its files, unless the
/// test is failing: then they stay, and their place is printed.
pub struct Server {
    name: String,
    home: Home,
    life: Life,
    env: Vec<(String, String)>,
    port: u16,
    postmaster: Option<Child>,
    /// What [`Server::pause`] stopped.
    paused: Vec<u32>,
}

impl Server {
    /// A server to configure and start. The name appears in paths and messages.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// The major version under test.
    pub fn major() -> u32 {
        Install::get().major()
    }

    /// Whether `ssl = on` is possible; the private Postgres 18 was built without.
    pub fn supports_tls() -> bool {
        Install::get().supports_tls()
    }

    pub(crate) fn stopped(
        name: String,
        home: Home,
        life: Life,
        env: Vec<(String, String)>,
    ) -> Server {
        Server { name, home, life, env, port: 0, postmaster: None, paused: Vec::new() }
    }

    /// One that somebody else starts and stops, in this home.
    pub(crate) fn managed(name: &str, home: Home, port: u16) -> Server {
        let mut server = Server::stopped(name.to_owned(), home, Life::Manages, Vec::new());
        server.port = port;
        server
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.data()
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    fn socket_directories(&self) -> String {
        match self.life {
            Life::WithUs | Life::Manages => self.home.path().display().to_string(),
            Life::Detached => String::new(),
        }
    }

    /// Where the harness itself connects: the socket, whatever `pg_hba.conf` says about TCP.
    pub(crate) fn own_host(&self) -> String {
        match self.life {
            Life::WithUs | Life::Manages => self.home.path().display().to_string(),
            Life::Detached => "127.0.0.1".to_owned(),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Adds lines to `postgresql.conf`; they count at the next reload or start.
    pub fn append_conf(&self, lines: &str) {
        let path = self.data_dir().join("postgresql.conf");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{}", lines.trim_end()))
            .unwrap_or_else(|error| panic!("cannot append to {}: {error}", path.display()));
    }

    /// Writes a file into the data directory, say `pg_hba.conf` or an `sslrootcert` for the
    /// server's own connections, and returns its path.
    pub fn write_file(&self, name: &str, text: &str) -> PathBuf {
        self.home.write(name, text);
        self.data_dir().join(name)
    }

    /// Another certificate and key, which count from the next reload or start on.
    pub fn set_identity(&self, identity: &Identity) {
        identity.write_into(&self.home);
    }

    /// Has the server read its configuration again.
    pub fn reload(&self) {
        self.signal(libc::SIGHUP);
    }

    /// Starts it on the given port or a free one. The port may be taken between our look and the
    /// server's: then another one is tried.
    #[track_caller]
    pub(crate) fn launch(&mut self, port: Option<u16>) {
        for _ in 0..10 {
            self.port = port.unwrap_or_else(free_port);
            self.append_conf(&format!(
                "unix_socket_directories = '{}'\nport = {}",
                self.socket_directories(),
                self.port
            ));
            match self.try_start() {
                Ok(()) => return,
                Err(log) if port.is_none() && log.contains("could not bind") => {}
                Err(log) => panic!("server {} did not start:\n{log}", self.name),
            }
        }
        panic!("server {}: ten ports in a row were taken", self.name);
    }

    fn try_start(&mut self) -> Result<(), String> {
        let log_start = self.log().len();
        self.spawn();
        let mut ended = false;
        wait_until(&format!("server {} is ready", self.name), LONG, || {
            ended = self.has_ended();
            ended || self.is_ready()
        });
        if ended {
            self.postmaster = None;
            return Err(self.log()[log_start..].to_owned());
        }
        Ok(())
    }

    fn spawn(&mut self) {
        assert!(self.postmaster.is_none(), "server {} runs", self.name);
        // A dead server's file would look like ours being ready, and its lock like that of one that
        // lives, as long as nobody has asked how it ended.
        let _ = fs::remove_file(self.data_dir().join("postmaster.pid"));
        let _ = fs::remove_file(self.home.path().join(format!(".s.PGSQL.{}.lock", self.port)));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("cannot open the log");
        let mut command = user::daemon(Install::get().program("postgres"), self.life);
        command
            .arg("-D")
            .arg(self.data_dir())
            .current_dir("/")
            .env("HOME", self.home.path())
            .env("PGPASSFILE", self.home.path().join("no-passfile"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cannot duplicate the log"))
            .stderr(log);
        self.postmaster = Some(process::spawn(command).expect("cannot run postgres"));
    }

    fn has_ended(&mut self) -> bool {
        let postmaster = self.postmaster.as_mut().expect("a started server");
        postmaster.try_wait().expect("cannot wait for postgres").is_some()
    }

    /// The eighth line of `postmaster.pid` says how far it is.
    fn is_ready(&self) -> bool {
        fs::read_to_string(self.data_dir().join("postmaster.pid"))
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|l| l.trim() == "ready"))
    }

    /// The process id of the postmaster. One that has restarted itself is no child of ours.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match &self.postmaster {
            Some(postmaster) => self.pid_in_file().unwrap_or(postmaster.id()),
            None => panic!("server {} is not running", self.name),
        }
    }

    pub(crate) fn pid_in_file(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        (!process::is_gone(pid)).then_some(pid)
    }

    pub fn is_running(&self) -> bool {
        self.postmaster.is_some()
    }

    fn signal(&self, signal: i32) {
        process::signal(self.pid(), signal);
    }

    /// Fast shutdown.
    #[track_caller]
    pub fn stop(&mut self) {
        self.end(libc::SIGINT);
    }

    /// `kill -9` of the postmaster; returns when no process of the server is left.
    #[track_caller]
    pub fn crash(&mut self) {
        self.end(libc::SIGKILL);
    }

    #[track_caller]
    fn end(&mut self, signal: i32) {
        self.resume();
        let pid = self.pid();
        let children = process::children(pid);
        process::signal(pid, signal);
        let mut postmaster = self.postmaster.take().expect("pid() found it");
        wait_until(&format!("server {} has stopped", self.name), LONG, || {
            postmaster.try_wait().expect("cannot wait for postgres").is_some()
                && process::is_gone(pid)
        });
        process::wait_gone(&children);
    }

    /// Starts a stopped or crashed server again, on the same port.
    #[track_caller]
    pub fn start_again(&mut self) {
        if let Err(log) = self.try_start() {
            panic!("server {} did not start again:\n{log}", self.name);
        }
    }

    /// Starts one again that somebody else has stopped.
    #[track_caller]
    pub fn start_after_its_end(&mut self) {
        wait_until(&format!("server {} has ended", self.name), LONG, || self.has_ended());
        self.postmaster = None;
        self.start_again();
    }

    /// Fast shutdown and start.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Restarts it on another port.
    #[track_caller]
    pub fn move_to_another_port(&mut self) {
        self.stop();
        self.launch(None);
    }

    /// Freezes all its processes: connections stay open, nobody answers.
    pub fn pause(&mut self) {
        let postmaster = self.pid();
        process::signal(postmaster, libc::SIGSTOP);
        // From now on it starts no new ones.
        self.paused = process::children(postmaster);
        self.paused.push(postmaster);
        for &pid in &self.paused {
            process::signal(pid, libc::SIGSTOP);
        }
    }

    /// Undoes [`Server::pause`].
    pub fn resume(&mut self) {
        for pid in std::mem::take(&mut self.paused) {
            process::signal(pid, libc::SIGCONT);
        }
    }

    /// `kill -9` of one process: the server ends all others, as after any crash. Returns when it
    /// has; it lets nobody in until it has recovered.
    #[track_caller]
    pub fn kill_backend(&self, pid: u32) {
        assert!(
            process::children(self.pid()).contains(&pid),
            "{pid} is no process of server {}",
            self.name
        );
        let restarts = || self.log().matches("all server processes terminated").count();
        let before = restarts();
        process::signal(pid, libc::SIGKILL);
        wait_until("the server notices", LONG, || restarts() > before);
    }

    /// Says where the files of a failing test are, and why the server may be the reason.
    fn keep_files(&mut self) {
        let kept = self.home.keep();
        let log = fs::read(kept.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!(
            "files of server {} kept in {}; its log ends:\n{tail}",
            self.name,
            kept.display()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.life == Life::Detached {
            return;
        }
        if let Some(mut postmaster) = self.postmaster.take() {
            self.resume();
            // Immediate shutdown: nothing here is worth a checkpoint.
            let pid = self.pid_in_file().unwrap_or(postmaster.id());
            process::signal(pid, libc::SIGQUIT);
            let _ = postmaster.wait();
        }
        if std::thread::panicking() {
            self.keep_files();
        }
    }
}

/// Whether nobody listens on a port.
pub fn is_port_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A free port outside the range from which the kernel takes ports for clients.
pub(crate) fn free_port() -> u16 {
    (0..1000)
        .map(|_| 12_000 + u16::try_from(names::random_u64() % 20_000).expect("below 20000"))
        .find(|&port| is_port_free(port))
        .expect("no free port found")
}
