//! A primary with two standbys, and a server beside them, as the stories of failovers want them.

use crate::Server;
use crate::trio::add_node;

/// Paris with its standbys oslo and rome; london is in no group.
pub struct Quartet {
    pub paris: Server,
    pub oslo: Server,
    pub rome: Server,
    pub london: Server,
}

impl Quartet {
    /// Starts them with these settings. Paris, and so its standbys, has pg_nodes and this schema in
    /// the database `app`, which is empty on london.
    pub fn start(settings: &[(&str, &str)], schema: &str) -> Quartet {
        let builder = |name| {
            let builder = Server::builder(name);
            settings.iter().fold(builder, |builder, (name, value)| builder.conf(name, value))
        };
        let (paris, london) = (builder("paris").start(), builder("london").start());
        for server in [&paris, &london] {
            server.create_db("app");
        }
        paris.sql("app", &format!("CREATE EXTENSION pg_nodes; {schema}"));
        let [oslo, rome] = ["oslo", "rome"].map(|name| paris.clone_standby_with(builder(name)));
        Quartet { paris, oslo, rome, london }
    }

    /// Registers all, and who follows whom.
    pub fn register(&self, registry: &Server) {
        for server in [&self.paris, &self.oslo, &self.rome, &self.london] {
            add_node(registry, server.name(), server);
        }
        registry.sql(
            "app",
            "SELECT nodes.add_standby('oslo', primary_node => 'paris');
             SELECT nodes.add_standby('rome', primary_node => 'paris')",
        );
    }
}
