//! What a server should be like before it starts.
use crate::home::Home;
use crate::server::Server;
use crate::tls::Authority;
use crate::user::Life;
use crate::{names, template, tls};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Room for everything a test may start, quick reactions, and no time lost on durability: a
/// killed process loses nothing that the kernel already has.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("shared_buffers", "16MB"),
    ("max_connections", "100"),
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_worker_processes", "40"),
    ("max_logical_replication_workers", "20"),
    ("max_sync_workers_per_subscription", "4"),
    ("max_prepared_transactions", "10"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("wal_receiver_status_interval", "1s"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_checkpoints", "off"),
    ("timezone", "UTC"),
];

/// Everybody may do everything, as the cluster's superuser.
const TRUST: &str = "local all all trust\n\
                     host all all 127.0.0.1/32 trust\n\
                     local replication all trust\n\
                     host replication all 127.0.0.1/32 trust\n";

/// A server to be started: see [`Server::builder`].
#[must_use = "nothing happens before start()"]
pub struct Builder {
    name: String,
    at: Option<PathBuf>,
    port: Option<u16>,
    settings: Vec<(String, String)>,
    hba: String,
    password: Option<String>,
    env: Vec<(String, String)>,
    tls: Option<tls::Identity>,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            at: None,
            port: None,
            settings: Vec::new(),
            hba: TRUST.to_owned(),
            password: None,
            env: Vec::new(),
            tls: None,
        }
    }

    /// A line of `postgresql.conf`; the last one for a setting wins.
    pub fn conf(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces `pg_hba.conf`. The harness keeps its own way in, through the Unix socket.
    pub fn hba(mut self, lines: &str) -> Builder {
        self.hba = format!("local all postgres trust\n{lines}\n");
        self
    }

    /// Over TCP, everybody needs a password; this is the superuser's.
    pub fn password(self, password: &str) -> Builder {
        let mut builder = self.hba(
            "host all all 127.0.0.1/32 scram-sha-256\n\
             host replication all 127.0.0.1/32 scram-sha-256\n\
             local replication postgres trust",
        );
        builder.password = Some(password.to_owned());
        builder
    }

    /// An environment variable of the server, say `PGSERVICEFILE`.
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `ssl = on`, with a certificate for `host_name` from this authority; client certificates
    /// of the authority are recognised. Needs [`Server::supports_tls`].
    pub fn tls(mut self, authority: &Authority, host_name: &str) -> Builder {
        self.tls = Some(authority.server(host_name));
        self
    }

    /// A port instead of any free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = Some(port);
        self
    }

    /// A server that stays: its files lie in `directory`, it outlives us, and it has no Unix
    /// socket, since the path might be too long for one.
    pub fn at(mut self, directory: &Path) -> Builder {
        self.at = Some(directory.to_owned());
        self
    }

    /// Starts it, on a fresh cluster of its own.
    #[track_caller]
    pub fn start(self) -> Server {
        self.start_on(template::copy_to)
    }

    /// Starts it on the cluster that `fill` puts into the data directory.
    #[track_caller]
    pub(crate) fn start_on(self, fill: impl FnOnce(&Path)) -> Server {
        let (home, life) = match &self.at {
            Some(directory) => (Home::fixed(directory), Life::Detached),
            None => (Home::temporary(&self.name), Life::WithUs),
        };
        fill(&home.data());
        home.write("pg_hba.conf", &self.hba);
        if let Some(identity) = &self.tls {
            identity.write_into(&home);
        }
        let settings = self.settings_text();
        let mut server = Server::stopped(self.name, home, life, self.env);
        server.append_conf(&settings);
        server.launch(self.port);
        if let Some(password) = self.password {
            let password = names::literal(&password);
            server.sql("postgres", &format!("ALTER ROLE postgres PASSWORD {password}"));
        }
        server
    }

    fn settings_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''"))
                .expect("a string takes everything");
        };
        for (name, value) in SETTINGS {
            line(name, value);
        }
        if self.tls.is_some() {
            for (name, value) in tls::SETTINGS {
                line(name, value);
            }
        }
        for (name, value) in &self.settings {
            line(name, value);
        }
        text
    }
}
