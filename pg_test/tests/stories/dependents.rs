//! Five subscriptions and five foreign schemas hang on a group whose primary dies while it is
//! written to: all of them find the standby that takes its place.

use pg_test::names::literal;
use pg_test::trio::{add_node, apply, plan};
use pg_test::writer::Writer;
use pg_test::{LONG, Server, wait_until};

/// Each is a database of oslo and a node of its own.
const READERS: [&str; 5] = ["bergen", "hamar", "lom", "molde", "voss"];

/// The view tells where a session on the group is: the port of the server that answers.
const PARIS: &str = "
    CREATE EXTENSION pg_nodes;
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer PRIMARY KEY);
    CREATE VIEW inventory.here AS SELECT current_setting('port')::integer AS port;";

/// Without a key a row that comes twice is there twice.
const READER: &str = "CREATE SCHEMA inventory; CREATE TABLE inventory.items (id integer);";

const ITEMS: &str = "SELECT id FROM inventory.items ORDER BY id";

/// Paris with its standby london, and oslo, which reads from them.
struct Cluster {
    paris: Server,
    london: Server,
    oslo: Server,
}

fn cluster() -> Cluster {
    let (paris, oslo) = (Server::builder("paris").start(), Server::builder("oslo").start());
    paris.create_db("app");
    paris.sql("app", PARIS);
    let london = paris.clone_standby("london");
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    paris.sql("app", "SELECT nodes.add_standby('london', primary_node => 'paris')");
    for reader in READERS {
        oslo.create_db(reader);
        oslo.sql(reader, READER);
        let [name, conninfo] = [reader, &oslo.conninfo(reader)].map(literal);
        paris.sql(
            "app",
            &format!(
                "SELECT nodes.add_node({name}, {conninfo});
                 SELECT nodes.add_foreign_schema('stock', node => 'paris', on_node => {name},
                     remote_schema => 'inventory', name => 'stock of ' || {name})"
            ),
        );
        subscribe(&paris, "paris", reader);
    }
    apply(&paris);
    // No commit is acknowledged that london lacks.
    paris.sql("app", "SELECT nodes.alter_link('london', synchronous => true)");
    apply(&paris);
    let waits = "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'quorum'";
    wait_until("london is waited for", LONG, || paris.query_one_text("app", waits) == "1");
    Cluster { paris, london, oslo }
}

fn subscribe(registry: &Server, publisher: &str, reader: &str) {
    let [publisher, reader] = [publisher, reader].map(literal);
    let add = format!(
        "SELECT nodes.add_subscription({reader}, publisher => {publisher}, subscriber => {reader},
             tables => '{{inventory.items}}')"
    );
    registry.sql("app", &add);
}

impl Cluster {
    /// From 17 on; before, no slot survives a failover.
    fn await_slots(&self) {
        let ready = "SELECT ready::text FROM nodes.failover_ready";
        wait_until("london has all slots", LONG, || {
            self.paris.sql("app", "SELECT pg_log_standby_snapshot()");
            self.paris.query_one_text("app", ready) == "true"
        });
    }

    fn assert_sessions_reach(&self, primary: &Server) {
        for reader in READERS {
            let port = self.oslo.query_one_text(reader, "SELECT port::text FROM stock.here");
            assert_eq!(port, primary.port().to_string(), "{reader}");
        }
    }

    /// Every reader has what the primary has, each row once.
    fn await_rows(&self, primary: &Server) {
        for reader in READERS {
            let there = primary.query_texts("app", ITEMS);
            let mut here = Vec::new();
            wait_until(&format!("{reader} has all rows"), LONG, || {
                here = self.oslo.query_texts(reader, ITEMS);
                here.len() >= there.len()
            });
            assert!(here == there, "{reader} has {} rows, not {}", here.len(), there.len());
        }
    }
}

/// Every slot is read, each by a subscription.
fn await_readers(primary: &Server) {
    let slots = "SELECT format('%s %s', count(*), count(*) FILTER (WHERE active AND
        slot_type = 'logical')) FROM pg_replication_slots";
    let all = format!("{0} {0}", READERS.len());
    wait_until("all slots are read", LONG, || primary.query_texts("app", slots) == [all.clone()]);
}

/// From 17 on the slots are there already; before, each subscription is told to have missed
/// something, gets nothing that comes after a gap, and goes on when it has started over.
#[test]
fn all_follow_a_new_primary() {
    let mut cluster = cluster();
    let keeps_slots = Server::major() >= 17;
    let writer = Writer::start(&[&cluster.paris, &cluster.london], "inventory.items");
    if keeps_slots {
        cluster.await_slots();
    }
    cluster.assert_sessions_reach(&cluster.paris);
    cluster.paris.crash();
    let said = cluster.london.psql("app", "CALL nodes.promote('london')");
    let (london, oslo) = (&cluster.london, &cluster.oslo);
    cluster.assert_sessions_reach(london);
    let count = "SELECT count(*)::text FROM inventory.items";
    let before = london.query_one_text("app", count);
    wait_until("london is written to", LONG, || london.query_one_text("app", count) != before);
    if keeps_slots {
        assert!(said.ok && said.output.contains("all links follow \"london\""), "{said}");
        assert_eq!(plan(london), [""; 0], "nothing is left to do");
    } else {
        assert!(said.ok && said.output.contains("not all follow \"london\" yet"), "{said}");
        start_over(london, oslo);
    }
    writer.finish().assert_kept(london, "inventory.items");
    cluster.await_rows(london);
    await_readers(london);
    assert_eq!(plan(london), [""; 0], "nothing is left to do");
}

/// As the plan says.
fn start_over(london: &Server, oslo: &Server) {
    let lines = plan(london);
    let missed = |line: &&String| line.contains("missed, and more until a new slot is made");
    assert_eq!(lines.iter().filter(missed).count(), READERS.len(), "{lines:#?}");
    assert_eq!(lines.len(), READERS.len(), "{lines:#?}");
    let gaps = "SELECT (count(*) <> max(id) OR count(*) <> count(DISTINCT id))::text
        FROM inventory.items";
    for reader in READERS {
        assert_eq!(oslo.query_one_text(reader, gaps), "false", "{reader}");
        let enabled = format!(
            "SELECT subenabled::text FROM pg_subscription JOIN pg_database d ON d.oid = subdbid
             WHERE datname = {}",
            literal(reader)
        );
        assert_eq!(oslo.query_texts(reader, &enabled), ["false"], "it is stopped");
        london.sql("app", &format!("SELECT nodes.resync({})", literal(reader)));
    }
    apply(london);
}
