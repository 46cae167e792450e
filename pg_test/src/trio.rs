//! Paris, London and Oslo: the three servers of the README, as most stories want them.

use crate::{Builder, Server};

/// Three servers: paris with pg_nodes, london with the data, oslo a clone of paris.
pub struct Trio {
    pub paris: Server,
    pub london: Server,
    pub oslo: Server,
}

/// What london has: two tables to subscribe to and a schema to look at.
const LONDON: &str = "
    CREATE TABLE public.orders (id bigint PRIMARY KEY, item text NOT NULL);
    CREATE TABLE public.customers (id bigint PRIMARY KEY, name text);
    INSERT INTO public.orders SELECT i, 'item ' || i FROM generate_series(1, 1000) i;
    INSERT INTO public.customers SELECT i, 'customer ' || i FROM generate_series(1, 10) i;
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer PRIMARY KEY, label text NOT NULL, price numeric(10,2));
    INSERT INTO inventory.items VALUES (1, 'lamp', 12.50), (2, 'chair', 49.00);";

const PARIS: &str = "
    CREATE TABLE public.orders (id bigint PRIMARY KEY, item text NOT NULL);
    CREATE TABLE public.customers (id bigint PRIMARY KEY, name text);";

impl Trio {
    /// Starts the servers with `CREATE EXTENSION pg_nodes` done on paris.
    pub fn start() -> Trio {
        let plain = |name: &str| Server::builder(name);
        Trio::start_with(plain("paris"), plain("london"), plain("oslo"))
    }

    /// Like [`Trio::start`], with settings of their own.
    pub fn start_with(paris: Builder, london: Builder, oslo: Builder) -> Trio {
        let (paris, london) = (paris.start(), london.start());
        for server in [&paris, &london] {
            server.create_db("app");
        }
        london.sql("app", LONDON);
        paris.sql("app", PARIS);
        paris.sql("app", "CREATE EXTENSION pg_nodes");
        let oslo = paris.clone_standby_with(oslo);
        Trio { paris, london, oslo }
    }

    /// Registers the three by name.
    pub fn register(&self) {
        let nodes = [("paris", &self.paris), ("london", &self.london), ("oslo", &self.oslo)];
        for (name, server) in nodes {
            add_node(&self.paris, name, server);
        }
    }

    /// The three links of the README.
    pub fn link(&self) {
        self.paris.sql(
            "app",
            "SELECT nodes.add_standby('oslo', primary_node => 'paris');
             SELECT nodes.add_subscription('orders_feed', publisher => 'london',
                 subscriber => 'paris', tables => '{public.orders,public.customers}');
             SELECT nodes.add_foreign_schema('stock', node => 'london',
                 remote_schema => 'inventory');",
        );
    }

    /// `CALL nodes.apply()` on paris; panics with what psql said if it fails.
    pub fn apply(&self) -> String {
        apply(&self.paris)
    }

    /// The plan as `action: command or reason` lines.
    pub fn plan(&self) -> Vec<String> {
        plan(&self.paris)
    }
}

/// Registers a server under a name, in the registry on `registry`.
pub fn add_node(registry: &Server, name: &str, server: &Server) {
    let conninfo = server.conninfo("app");
    registry
        .client("app")
        .query("SELECT nodes.add_node($1, $2)", &[&name, &conninfo])
        .unwrap_or_else(|error| panic!("add_node({name}): {error:?}"));
}

/// `CALL nodes.apply()`; panics with what psql said if it fails.
pub fn apply(registry: &Server) -> String {
    let psql = registry.psql("app", "CALL nodes.apply();");
    assert!(psql.ok, "apply failed:\n{}", psql.output);
    psql.output
}

/// The plan as `action: command or reason` lines.
pub fn plan(registry: &Server) -> Vec<String> {
    registry.query_texts(
        "app",
        "SELECT format('%s on %s: %s', action, node, coalesce(command, reason || ' HINT ' || hint))
         FROM nodes.plan()",
    )
}

/// All links as `name: from to to`, in the order in which they were made.
pub fn ends(registry: &Server) -> Vec<String> {
    registry.query_texts(
        "app",
        "SELECT format('%s: %s to %s', l.name, f.name, t.name) FROM nodes.link l
         JOIN nodes.node f ON f.id = l.from_node JOIN nodes.node t ON t.id = l.to_node
         ORDER BY l.id",
    )
}
