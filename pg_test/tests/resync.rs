//! `nodes.resync()`: a subscription whose tables are not what they should be starts over.

use pg_test::names::{ident, literal};
use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};

const NAME: &str = "we\"ird; DROP TABLE x--";
const ROWS: &str = "SELECT id || ' ' || note FROM orders ORDER BY id";

/// Two tables that refer to each other, on both servers; london reads from paris.
fn pair() -> (Server, Server) {
    let (paris, london) = (Server::builder("paris").start(), Server::builder("london").start());
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

#[test]
fn a_slot_that_is_gone_stops_the_subscription() {
    let (paris, london) = pair();
    london.sql("app", &format!("ALTER SUBSCRIPTION {} DISABLE", ident(NAME)));
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE NOT active";
    wait_until("its slot is gone", LONG, || {
        paris.query_texts("app", drop);
        paris.query_texts("app", "SELECT slot_name FROM pg_replication_slots").is_empty()
    });
    london.sql("app", &format!("ALTER SUBSCRIPTION {} ENABLE", ident(NAME)));
    paris.sql("app", "INSERT INTO orders VALUES (3, 'c')");
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(!said.ok && said.output.contains("is gone"), "{said}");
    let enabled = "SELECT subenabled::text FROM pg_subscription";
    assert_eq!(london.query_texts("app", enabled), ["false"]);
    wait_until("it is said since when", LONG, || {
        plan(&paris).join("\n").contains("all changes since 0/")
    });
    resync(&paris);
    apply(&paris);
    await_rows(&london, &["1 a", "2 b", "3 c"]);
    assert_eq!(plan(&paris), [""; 0]);
}
