//! Servers with pg_nodes preloaded, and what its worker says.

use crate::{Builder, LONG, Server, wait_until};

/// A server that watches: short intervals, so that stories are short too.
pub fn watching(name: &str) -> Builder {
    preloaded(name)
        .conf("pg_nodes.heartbeat_interval", "100ms")
        .conf("pg_nodes.node_timeout", "1s")
        .conf("pg_nodes.inventory_interval", "1s")
        .conf("max_worker_processes", "16")
}

/// A server with the library preloaded and every setting as it comes.
pub fn preloaded(name: &str) -> Builder {
    Server::builder(name).conf("shared_preload_libraries", "pg_nodes")
}

impl Server {
    /// The worker of a database, if it is there.
    pub fn worker(&self, db: &str) -> Option<u32> {
        let query = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_nodes worker'
             AND datname = '{db}'"
        );
        self.query_texts("postgres", &query).first().and_then(|pid| pid.parse().ok())
    }

    /// Waits until a database has a worker.
    #[track_caller]
    pub fn await_worker(&self, db: &str) -> u32 {
        wait_until(&format!("{} watches {db}", self.name()), LONG, || self.worker(db).is_some());
        self.worker(db).expect("it was there a moment ago")
    }

    /// Waits until `nodes.status` says so of a node.
    #[track_caller]
    pub fn await_health(&self, node: &str, health: &str) {
        let query = format!("SELECT health FROM nodes.status WHERE node = '{node}'");
        wait_until(&format!("{} sees that {node} is {health}", self.name()), LONG, || {
            self.query_texts("app", &query) == [health]
        });
    }

    /// Waits until `nodes.link_status` says so of a link.
    #[track_caller]
    pub fn await_link(&self, link: &str, state: &str) {
        let query = format!("SELECT state FROM nodes.link_status WHERE link = '{link}'");
        wait_until(&format!("{} sees that link {link} is {state}", self.name()), LONG, || {
            self.query_texts("app", &query) == [state]
        });
    }

    /// The kinds of all events about a node or link so far, oldest first.
    pub fn events(&self, about: &str) -> Vec<String> {
        let query = format!(
            "SELECT kind FROM nodes.event WHERE coalesce(node, link) = '{about}' ORDER BY id"
        );
        self.query_texts("app", &query)
    }
}
