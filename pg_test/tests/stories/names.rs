//! A whole life cycle in which every name is hostile: nodes, links, databases, roles, schemas,
//! tables and columns are called what breaks careless quoting, each in turn.

use pg_test::names::{HOSTILE, conninfo_value, ident, literal};
use pg_test::{LONG, Server, wait_until};

/// What things are called in one round. Names of one kind must differ where they meet.
struct Names {
    db: &'static str,
    role: &'static str,
    schema: &'static str,
    local_schema: &'static str,
    table: &'static str,
    column: &'static str,
    nodes: [&'static str; 3],
    links: [&'static str; 3],
}

impl Names {
    fn of_round(round: usize) -> Names {
        let name = |shift: usize| HOSTILE[(round + shift) % HOSTILE.len()];
        Names {
            db: name(0),
            role: name(0),
            schema: name(0),
            local_schema: name(1),
            table: name(0),
            column: name(0),
            nodes: [name(0), name(1), name(2)],
            links: [name(3), name(0), name(1)],
        }
    }

    fn table(&self) -> String {
        format!("{}.{}", ident(self.schema), ident(self.table))
    }

    fn foreign_table(&self) -> String {
        format!("{}.{}", ident(self.local_schema), ident(self.table))
    }

    /// A database with one table, and a role to own it.
    fn prepare(&self, server: &Server) {
        server.create_db(self.db);
        let role = ident(self.role);
        let script = format!(
            "CREATE ROLE {role} LOGIN SUPERUSER;
             CREATE SCHEMA {schema} AUTHORIZATION {role};
             CREATE DOMAIN {schema}.plain AS text;
             CREATE TABLE {table} ({column} bigint PRIMARY KEY, note {schema}.plain);
             ALTER TABLE {table} OWNER TO {role};",
            schema = ident(self.schema),
            table = self.table(),
            column = ident(self.column),
        );
        server.sql(self.db, &script);
    }

    /// Registers the nodes and the links, as `role` for the other nodes.
    fn register(&self, paris: &Server, london: &Server, oslo: &Server) {
        for (name, server) in self.nodes.iter().zip([paris, london, oslo]) {
            let conninfo = format!(
                "host=127.0.0.1 port={} user={} dbname={}",
                server.port(),
                conninfo_value(self.role),
                conninfo_value(self.db)
            );
            let mut client = paris.client(self.db);
            client.query("SELECT nodes.add_node($1, $2)", &[name, &conninfo]).expect("add_node");
        }
        let [paris_node, london_node, oslo_node] = self.nodes.map(literal);
        let [standby, subscription, foreign] = self.links.map(literal);
        let script = format!(
            "SELECT nodes.add_standby({oslo_node}, {paris_node}, name => {standby},
                 synchronous => true);
             SELECT nodes.add_subscription({subscription}, {london_node},
                 subscriber => {paris_node}, tables => ARRAY[{table}]);
             SELECT nodes.add_foreign_schema({local}, {london_node}, remote_schema => {remote},
                 public => true, name => {foreign});",
            table = literal(&self.table()),
            local = literal(self.local_schema),
            remote = literal(self.schema),
        );
        paris.sql(self.db, &script);
    }

    fn plan(&self, paris: &Server) -> Vec<String> {
        paris.query_texts(self.db, "SELECT action || ': ' || reason FROM nodes.plan()")
    }

    fn apply(&self, paris: &Server, call: &str) {
        let psql = paris.psql(self.db, call);
        assert!(psql.ok, "{call} of {:?} failed:\n{psql}", self.nodes);
    }

    /// A row written in london is seen in paris and oslo, and through the foreign table.
    fn rows_flow(&self, paris: &Server, london: &Server, oslo: &Server) {
        let (table, column) = (self.table(), ident(self.column));
        london.sql(self.db, &format!("INSERT INTO {table} VALUES (2, 'later')"));
        let count = |table: &str| format!("SELECT count({column})::text FROM {table}");
        for server in [paris, oslo] {
            wait_until("the rows to arrive", LONG, || {
                server.query_texts(self.db, &count(&table)) == ["2"]
            });
        }
        assert_eq!(paris.query_one_text(self.db, &count(&self.foreign_table())), "2");
    }
}

#[test]
fn hostile_names_survive_a_life_cycle() {
    let paris = Server::builder("paris").start();
    // Settings that change how names and literals are written there.
    let london = Server::builder("london")
        .conf("quote_all_identifiers", "on")
        .conf("standard_conforming_strings", "off")
        .start();
    let rounds = (0..HOSTILE.len()).map(Names::of_round);
    let rounds: Vec<Names> = rounds.collect();
    for names in &rounds {
        names.prepare(&paris);
        names.prepare(&london);
        london.sql(names.db, &format!("INSERT INTO {} VALUES (1, 'early')", names.table()));
        paris.sql(names.db, "CREATE EXTENSION pg_nodes");
    }
    let oslo = paris.clone_standby("oslo");
    for names in &rounds {
        names.register(&paris, &london, &oslo);
        assert!(!names.plan(&paris).is_empty(), "there is something to do");
        names.apply(&paris, "CALL nodes.apply()");
        assert_eq!(names.plan(&paris), [""; 0], "after apply the plan is empty");
        names.rows_flow(&paris, &london, &oslo);

        names.apply(&paris, "CALL nodes.teardown()");
        paris.assert_no_residue(names.db);
        london.assert_no_residue(names.db);
        wait_until("oslo to forget its primary", LONG, || oslo.residue(names.db).is_empty());
        let left = "SELECT name FROM nodes.node UNION ALL SELECT name FROM nodes.link";
        assert_eq!(paris.query_texts(names.db, left), [""; 0]);
        assert_eq!(london.query_one_text(names.db, &count_of(names)), "2", "tables stay");
        assert_eq!(paris.query_one_text(names.db, &count_of(names)), "2", "replicas stay");
    }
}

fn count_of(names: &Names) -> String {
    format!("SELECT count(*)::text FROM {}", names.table())
}
