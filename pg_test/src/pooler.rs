//! pgbouncer in front of a server.

use crate::server::{Server, free_port};
use crate::user::{self, Life};
use crate::wait::{LONG, wait_until};
use crate::{home, process};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// For how long a session of the server is a client's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Session,
    Transaction,
}

/// A pgbouncer under our control, where every database name leads to the server's database
/// `app`. Dropping it stops it.
pub struct Pooler {
    directory: TempDir,
    port: u16,
    process: Child,
}

impl Pooler {
    /// Starts one that opens up to so many sessions for each database name.
    #[track_caller]
    pub fn start(server: &Server, pooling: Pooling, sessions: usize) -> Pooler {
        let directory = home::temp_dir("pooler");
        let port = free_port();
        let mode = match pooling {
            Pooling::Session => "session",
            Pooling::Transaction => "transaction",
        };
        let users = directory.path().join("users");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} dbname=app\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\nadmin_users = postgres\n\
             pool_mode = {mode}\ndefault_pool_size = {sessions}\nmax_client_conn = 2000\n\
             server_login_retry = 1\n",
            server.port(),
            users.display()
        );
        let file = directory.path().join("pgbouncer.ini");
        for (path, text) in [(&users, "\"postgres\" \"\"\n"), (&file, &settings)] {
            fs::write(path, text).expect("cannot write into a new directory");
            user::give(path);
        }
        let log = File::create(directory.path().join("log")).expect("cannot make the log");
        let mut command = user::daemon(program(), Life::WithUs);
        command.arg(&file).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = process::spawn(command).expect("cannot run pgbouncer");
        let mut pooler = Pooler { directory, port, process };
        wait_until("pgbouncer listens", LONG, || {
            let ended = pooler.process.try_wait().expect("cannot wait for pgbouncer");
            assert!(ended.is_none(), "pgbouncer did not start:\n{}", pooler.log());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        pooler
    }

    /// How other servers reach the database behind it, by any name.
    pub fn conninfo(&self, db: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={db}", self.port)
    }

    /// A new connection to the database behind it, by any name; `pgbouncer` is its console.
    #[track_caller]
    pub fn client(&self, db: &str) -> Client {
        self.conninfo(db)
            .parse::<Config>()
            .and_then(|config| config.connect(NoTls))
            .unwrap_or_else(|error| panic!("cannot connect to {db} through pgbouncer: {error}"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// How many questions it has passed on to the server.
    pub fn questions(&self) -> u64 {
        let rows = self.client("pgbouncer").simple_query("SHOW STATS_TOTALS").expect("it counts");
        let count = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) if row.get("database") != Some("pgbouncer") => {
                row.get("query_count").and_then(|count| count.parse::<u64>().ok())
            }
            _ => None,
        };
        rows.iter().filter_map(count).sum()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It has nothing to lose; newer ones wait at SIGTERM until their clients go.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of pgbouncer:\n{}", self.log());
        }
    }
}

/// `make test` and `make bench` say where it is.
fn program() -> OsString {
    std::env::var_os("PG_NODES_PGBOUNCER").unwrap_or_else(|| {
        panic!("PG_NODES_PGBOUNCER is not set: set it to what scripts/pgbouncer prints")
    })
}
