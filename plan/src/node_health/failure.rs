//! How asking a node fails, and what to do about it.

use serde::{Deserialize, Serialize};

/// How a connection attempt or a heartbeat failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The name does not resolve.
    NoAddress,
    /// Connection refused, or no such socket.
    NobodyListens,
    /// No answer in time, to a connection attempt or a query.
    Silent,
    /// A server answers and does not let us in, or proves to be nobody whom we trust.
    Rejected,
    /// Nobody listens while a call has the server restarted.
    Restarting,
    /// A server answers that it is starting up, shutting down or recovering.
    NotReady,
    /// An administrator or a crash ended our session.
    ShutDown,
    /// The connection was reset or closed.
    Lost,
    /// What answers is no Postgres, or cannot answer the heartbeat.
    Faulty,
    /// We could not even try: this server is out of descriptors or memory.
    NoResources,
}

impl FailureKind {
    pub const ALL: [FailureKind; 10] = [
        FailureKind::NoAddress,
        FailureKind::NobodyListens,
        FailureKind::Silent,
        FailureKind::Rejected,
        FailureKind::Restarting,
        FailureKind::NotReady,
        FailureKind::ShutDown,
        FailureKind::Lost,
        FailureKind::Faulty,
        FailureKind::NoResources,
    ];

    /// What a server means that refuses a connection with this SQLSTATE.
    pub fn of_connect(sqlstate: &str) -> Self {
        match sqlstate {
            "57P03" => FailureKind::NotReady,
            "57P01" | "57P02" => FailureKind::ShutDown,
            // too_many_connections, database_dropped
            "53300" | "57P04" => FailureKind::Rejected,
            _ => match sqlstate.get(..2) {
                // Authorization, no such database, options, rights, a database that takes no
                // connections, a feature that is not there.
                Some("28" | "3D" | "22" | "42" | "55" | "0A") => FailureKind::Rejected,
                Some(_) | None => FailureKind::Faulty,
            },
        }
    }

    /// What a server means that answers a heartbeat with this SQLSTATE.
    pub fn of_query(sqlstate: &str) -> Self {
        match sqlstate {
            "57P01" | "57P02" => FailureKind::ShutDown,
            "57P03" => FailureKind::NotReady,
            "57P04" => FailureKind::Rejected,
            // idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout
            "57P05" | "25P03" | "25P04" => FailureKind::Lost,
            _ => FailureKind::Faulty,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The server's or libpq's words, without secrets.
    pub message: String,
    /// Where a server has spoken.
    pub sqlstate: Option<String>,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), sqlstate: None }
    }

    /// What it means of a server that a call has restarted just now.
    pub fn of_restarting(self) -> Failure {
        match self.kind {
            FailureKind::NobodyListens => Failure { kind: FailureKind::Restarting, ..self },
            _ => self,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            FailureKind::NoAddress => {
                "Correct its host with nodes.alter_node(), or see to the name service of this \
                 server."
            }
            FailureKind::NobodyListens => {
                "Start that server, or correct its host and port with nodes.alter_node()."
            }
            FailureKind::Silent => {
                "See whether that machine runs and the network lets its port through; \
                 nodes.test_node() shows how far one gets."
            }
            FailureKind::Rejected if self.message.contains("certificate") => {
                "See whether its certificate is still valid, is for the host of its conninfo and \
                 is signed by sslrootcert, and whether the client's is."
            }
            FailureKind::Rejected => rejection_hint(self.sqlstate.as_deref()),
            FailureKind::Restarting => "Wait for the call that has it restarted.",
            FailureKind::NotReady => {
                "Wait until its recovery is done; its server log says how far it is."
            }
            FailureKind::ShutDown => "Its server log says who stopped it; start it again.",
            FailureKind::Lost => {
                "See its server log for a crash; nodes.test_node() tries again step by step."
            }
            FailureKind::Faulty => {
                "See whether a PostgreSQL server answers at that address: nodes.test_node() says \
                 what it finds."
            }
            FailureKind::NoResources => {
                "This server is short of resources, not that one: raise max_files_per_process \
                 here."
            }
        }
    }
}

/// What to do about a pooler that keeps no sessions.
pub const NO_SESSIONS: &str = "Let its conninfo lead to the server itself, or to a pool that keeps \
     a session for each client (pgbouncer: pool_mode = session).";

fn rejection_hint(sqlstate: Option<&str>) -> &'static str {
    match sqlstate {
        Some("28P01") => {
            "Set the right password with nodes.set_password(), then CALL nodes.apply()."
        }
        Some("28000") => {
            "Let this server in with a line in pg_hba.conf there, or correct the role with \
             nodes.alter_node()."
        }
        Some("3D000") => "Create that database there, or correct dbname with nodes.alter_node().",
        Some("0A000") => NO_SESSIONS,
        Some("42501") => "Grant that role CONNECT on the database there.",
        Some("53300") => "End sessions there that are not needed, or raise max_connections.",
        Some(_) | None => {
            "Correct role or database with nodes.alter_node(), the password with \
             nodes.set_password(), or pg_hba.conf there."
        }
    }
}
