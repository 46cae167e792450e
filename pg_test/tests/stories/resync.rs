//! `nodes.resync()`: a subscription whose tables are not what they should be starts over.

use pg_test::names::{ident, literal};
use pg_test::trio::{add_node, apply, plan};
use pg_test::watcher::watching;
use pg_test::{Builder, LONG, Server, wait_until};

const NAME: &str = "we\"ird; DROP TABLE x--";
const ROWS: &str = "SELECT id || ' ' || note FROM orders ORDER BY id";

/// Two tables that refer to each other, on both servers; london reads from paris.
fn pair() -> (Server, Server) {
    pair_with(Server::builder("paris"))
}

fn pair_with(paris: Builder) -> (Server, Server) {
    let (paris, london) = (paris.start(), Server::builder("london").start());
    for server in [&paris, &london] {
        server.create_db("app");
        server.sql(
            "app",
            "CREATE TABLE orders (id integer PRIMARY KEY, note text);
             CREATE TABLE items (id integer PRIMARY KEY, orders integer REFERENCES orders)",
        );
    }
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    paris.sql(
        "app",
        "INSERT INTO orders VALUES (1, 'a'), (2, 'b'); INSERT INTO items VALUES (1, 2)",
    );
    for (name, server) in [("paris", &paris), ("london", &london)] {
        add_node(&paris, name, server);
    }
    let add = format!(
        "SELECT nodes.add_subscription({}, 'paris', 'london', '{{orders,items}}')",
        literal(NAME)
    );
    paris.sql("app", &add);
    apply(&paris);
    await_rows(&london, &["1 a", "2 b"]);
    (paris, london)
}

fn await_rows(london: &Server, wanted: &[&str]) {
    wait_until("the rows are those of paris", LONG, || london.query_texts("app", ROWS) == wanted);
}

fn resync(paris: &Server) {
    paris.sql("app", &format!("SELECT nodes.resync({})", literal(NAME)));
}

#[test]
fn rows_become_those_of_the_publisher() {
    let (paris, london) = pair();
    london.sql(
        "app",
        "DELETE FROM items; UPDATE orders SET note = 'x'; INSERT INTO orders VALUES (9, 'y')",
    );
    resync(&paris);
    let danger = plan(&paris).join("\n");
    assert!(danger.contains("drop subscription") || danger.contains("truncate"), "{danger}");
    apply(&paris);
    await_rows(&london, &["1 a", "2 b"]);
    wait_until("the other table, too", LONG, || {
        london.query_texts("app", "SELECT id::text FROM items") == ["1"]
    });
    paris.sql("app", "INSERT INTO orders VALUES (3, 'c')");
    await_rows(&london, &["1 a", "2 b", "3 c"]);
    assert_eq!(plan(&paris), [""; 0]);
    let slots = "SELECT count(*)::text FROM pg_replication_slots";
    assert_eq!(paris.query_one_text("app", slots), "1", "that of the old one is gone");

    // That was once: a subscription that goes otherwise empties nothing.
    let name = ident(NAME);
    london.sql("app", &format!("ALTER SUBSCRIPTION {name} DISABLE"));
    london.sql("app", &format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"));
    london.sql("app", &format!("DROP SUBSCRIPTION {name}"));
    let lines = plan(&paris).join("\n");
    assert!(lines.contains("is to be copied and is not empty"), "{lines}");
    assert!(!lines.contains("TRUNCATE \""), "{lines}");
}

/// As somebody might by mistake.
fn drop_slot(paris: &Server, london: &Server) {
    london.sql("app", &format!("ALTER SUBSCRIPTION {} DISABLE", ident(NAME)));
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE NOT active";
    wait_until("its slot is gone", LONG, || {
        paris.query_texts("app", drop);
        paris.query_texts("app", "SELECT slot_name FROM pg_replication_slots").is_empty()
    });
}

/// The plan says that changes are missing from this position to where paris is.
fn assert_range(paris: &Server, from: &str) {
    let position = || paris.query_one_text("app", "SELECT pg_current_wal_insert_lsn()::text");
    let number = |lsn: &str| -> u64 {
        let bytes = format!("SELECT ('{lsn}'::pg_lsn - '0/0')::text");
        paris.query_one_text("app", &bytes).parse().expect("a number")
    };
    let before = position();
    let lines = plan(paris).join("\n");
    let after = position();
    let (_, rest) = lines
        .split_once(&format!("all changes from {from} to "))
        .unwrap_or_else(|| panic!("not from {from}: {lines}"));
    let (to, _) = rest.split_once(" have been missed, and more until").expect("where it ends");
    let [before, to, after] = [&before, to, &after].map(number);
    assert!(before <= to && to <= after, "{lines}");
}

/// The worker tells of it, too, and says the same.
#[test]
fn what_is_missed_is_an_event() {
    let (paris, london) = pair_with(watching("paris"));
    paris.await_link(NAME, "streaming");
    paris.sql("app", "INSERT INTO orders VALUES (3, 'c')");
    await_rows(&london, &["1 a", "2 b", "3 c"]);
    drop_slot(&paris, &london);
    paris.sql("app", "INSERT INTO orders VALUES (4, 'd')");
    let told = "SELECT message FROM nodes.event WHERE kind = 'broken' AND link IS NOT NULL";
    wait_until("it is an event", LONG, || !paris.query_texts("app", told).is_empty());
    let applied = "SELECT remote_lsn::text FROM pg_replication_origin_status";
    let applied = london.query_one_text("app", applied);
    let told = paris.query_one_text("app", told);
    assert!(told.contains(&format!("is gone: all changes from {applied} to 0/")), "{told}");
    assert_range(&paris, &applied);
}

#[test]
fn a_slot_that_is_gone_stops_the_subscription() {
    let (paris, london) = pair();
    drop_slot(&paris, &london);
    london.sql("app", &format!("ALTER SUBSCRIPTION {} ENABLE", ident(NAME)));
    paris.sql("app", "INSERT INTO orders VALUES (3, 'c')");
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(!said.ok && said.output.contains("is gone"), "{said}");
    let enabled = "SELECT subenabled::text FROM pg_subscription";
    assert_eq!(london.query_texts("app", enabled), ["false"]);
    // Nothing was applied yet: they are missed from where the first table was copied.
    let copied = "SELECT min(srsublsn)::text FROM pg_subscription_rel";
    assert_range(&paris, &london.query_one_text("app", copied));
    let told = "SELECT message FROM nodes.event WHERE kind = 'apply failed'";
    assert!(paris.query_one_text("app", told).contains("all changes from 0/"));
    resync(&paris);
    apply(&paris);
    await_rows(&london, &["1 a", "2 b", "3 c"]);
    assert_eq!(plan(&paris), [""; 0]);
}
