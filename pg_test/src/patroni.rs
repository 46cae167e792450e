//! A pair of servers that Patroni manages, with the etcd that it needs: a failover manager which
//! is not ours.
use crate::home::Home;
use crate::process::{self, is_gone, signal, wait_gone};
use crate::server::free_port;
use crate::user::{self, Life};
use crate::{Install, LONG, Server, wait_until};
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where `scripts/patroni` has put both.
fn programs() -> PathBuf {
    let set = std::env::var_os("PG_NODES_PATRONI").map(PathBuf::from);
    set.unwrap_or_else(|| {
        panic!("PG_NODES_PATRONI is not set: run this with `make test TEST=patroni`")
    })
}

/// Paris leads at first, oslo follows.
pub struct Pair {
    pub paris: Member,
    pub oslo: Member,
    // Last: Patroni complains as long as it lives without.
    _etcd: Etcd,
}

impl Pair {
    /// `paris_has` are settings of paris alone.
    #[track_caller]
    pub fn start(paris_has: &[(&str, &str)]) -> Pair {
        let etcd = Etcd::start();
        let mut paris = Member::new("paris", paris_has, &etcd);
        let mut oslo = Member::new("oslo", &[], &etcd);
        paris.start();
        wait_until("paris leads", LONG, || paris.is_primary());
        oslo.start();
        // Only then etcd knows that it may take over without loss.
        wait_until("oslo is the synchronous standby", LONG, || get(oslo.rest, "/sync").is_some());
        wait_until("oslo takes sessions", LONG, || oslo.server.try_client("postgres").is_ok());
        Pair { paris, oslo, _etcd: etcd }
    }
}

struct Etcd {
    process: Child,
    port: u16,
    _home: Home,
}

impl Etcd {
    fn start() -> Etcd {
        let home = Home::temporary("etcd");
        let (port, peers) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
        let clients = format!("http://127.0.0.1:{port}");
        let mut command = user::daemon(programs().join("bin/etcd"), Life::Manages);
        command.arg("--data-dir").arg(home.data());
        for (option, value) in [
            ("--listen-client-urls", &clients),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
            ("--initial-cluster", &format!("default={peers}")),
        ] {
            command.arg(option).arg(value);
        }
        let process = start(command, &home);
        wait_until("etcd answers", LONG, || get(port, "/health").is_some());
        Etcd { process, port, _home: home }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// One server and the Patroni that runs it.
pub struct Member {
    pub server: Server,
    patroni: Option<Child>,
    home: PathBuf,
    rest: u16,
}

impl Member {
    fn new(name: &str, settings: &[(&str, &str)], etcd: &Etcd) -> Member {
        let home = Home::temporary(name);
        let place = home.path().to_owned();
        let (port, rest) = (free_port(), free_port());
        let text = configuration(name, &place, [port, rest, etcd.port], settings);
        fs::write(place.join("patroni.yml"), text).expect("cannot write into a new directory");
        Member { server: Server::managed(name, home, port), patroni: None, home: place, rest }
    }

    /// Starts Patroni, and it the server.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.patroni.is_none(), "Patroni of {} runs", self.server.name());
        let mut command = user::daemon("/usr/bin/python3", Life::Manages);
        command
            .args(["-m", "patroni"])
            .arg(self.home.join("patroni.yml"))
            .env("PYTHONPATH", programs().join("python"));
        self.patroni = Some(start_in(command, &self.home));
    }

    pub fn is_primary(&self) -> bool {
        let Ok(mut client) = self.server.try_client("postgres") else { return false };
        let answer = client.query_one("SELECT NOT pg_is_in_recovery()", &[]);
        answer.is_ok_and(|row| row.get(0))
    }

    /// `kill -9` of Patroni and of the postmaster; returns when neither nor any process of the
    /// server is left.
    #[track_caller]
    pub fn crash(&mut self) {
        let mut patroni = self.patroni.take().expect("Patroni runs");
        let postmaster = self.server.pid_in_file().expect("the server runs");
        let mut all = process::children(postmaster);
        all.push(postmaster);
        signal(patroni.id(), libc::SIGKILL);
        signal(postmaster, libc::SIGKILL);
        patroni.wait().expect("cannot wait for Patroni");
        wait_gone(&all);
    }

    /// What Patroni's part of etcd says, as JSON.
    #[track_caller]
    pub fn dynamic_configuration(&self) -> String {
        get(self.rest, "/config").expect("Patroni answers")
    }

    /// Everything on a member that is Patroni's: its configuration, the server's files, what is
    /// in force of them, and the slots that it keeps.
    #[track_caller]
    pub fn belongings(&self) -> String {
        const IN_FORCE: &str = "
            SELECT string_agg(format('%s = %s (%s)', name, setting, sourcefile), E'\\n' ORDER BY name)
            FROM pg_settings WHERE source = 'configuration file'";
        const SLOTS: &str = "
            SELECT string_agg(format('%s %s', slot_name, slot_type), ', ' ORDER BY slot_name)
            FROM pg_replication_slots WHERE slot_name NOT LIKE 'nodes\\_%'";
        let ask = |query| self.server.query_one_text("postgres", query);
        let files =
            ["postgresql.conf", "postgresql.base.conf", "postgresql.auto.conf", "pg_hba.conf"];
        let mut parts = vec![self.dynamic_configuration(), ask(IN_FORCE), ask(SLOTS)];
        parts.extend(files.map(|file| self.file(file)));
        parts.join("\n---\n")
    }

    /// A file of the data directory; empty: there is none.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.server.data_dir().join(name)).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(mut patroni) = self.patroni.take() else { return };
        let server = self.server.pid_in_file();
        end(&mut patroni);
        if let Some(postmaster) = server {
            signal(postmaster, libc::SIGQUIT);
            wait_until("the server has stopped", LONG, || is_gone(postmaster));
        }
    }
}

/// JSON, which is YAML too.
fn configuration(
    name: &str,
    home: &Path,
    [port, rest, etcd]: [u16; 3],
    settings: &[(&str, &str)],
) -> String {
    let (home, bindir) = (home.display(), Install::get().bindir().display());
    // Before 17 no slot is marked as one that Patroni should leave alone.
    let (ignored, copied) = match Install::get().major() {
        17.. => ("", r#""sync_replication_slots": "on","#),
        _ => (r#""ignore_slots": [{"type": "logical", "plugin": "pgoutput"}],"#, ""),
    };
    let own: String =
        settings.iter().map(|(key, value)| format!(r#", "{key}": "{value}""#)).collect();
    format!(
        r#"{{
"scope": "pair", "name": "{name}",
"restapi": {{"listen": "127.0.0.1:{rest}", "connect_address": "127.0.0.1:{rest}"}},
"etcd3": {{"host": "127.0.0.1:{etcd}"}},
"bootstrap": {{
  "dcs": {{
    "ttl": 20, "loop_wait": 1, "retry_timeout": 3, "synchronous_mode": true, {ignored}
    "postgresql": {{
      "use_pg_rewind": true,
      "parameters": {{
        "shared_preload_libraries": "pg_nodes", {copied}
        "hot_standby_feedback": "on", "wal_level": "logical", "fsync": "off",
        "shared_buffers": "16MB", "max_wal_senders": 20, "max_replication_slots": 20,
        "max_worker_processes": 20, "wal_retrieve_retry_interval": "200ms"
      }}
    }}
  }},
  "initdb": [{{"encoding": "UTF8"}}, {{"locale": "C"}}, "no-sync"]
}},
"postgresql": {{
  "listen": "127.0.0.1:{port}", "connect_address": "127.0.0.1:{port}",
  "data_dir": "{home}/data", "bin_dir": "{bindir}", "pgpass": "{home}/pgpass",
  "authentication": {{
    "superuser": {{"username": "postgres"}}, "replication": {{"username": "postgres"}}
  }},
  "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 trust",
             "host replication all 127.0.0.1/32 trust"],
  "parameters": {{"unix_socket_directories": "{home}", "log_checkpoints": "off"{own}}}
}}
}}"#
    )
}

fn start(command: Command, home: &Home) -> Child {
    start_in(command, home.path())
}

/// Starts a program that writes into the log of a directory.
fn start_in(mut command: Command, home: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(home.join("log"));
    let log = log.expect("cannot open the log");
    command
        .current_dir("/")
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("cannot duplicate the log"))
        .stderr(log);
    process::spawn(command).expect("cannot start a program")
}

fn end(process: &mut Child) {
    signal(process.id(), libc::SIGKILL);
    let _ = process.wait();
}

/// The body of the answer to a request; `None`: nobody answers, or not that all is well.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LONG)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}
