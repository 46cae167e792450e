//! The subscriber crashed just when the copy of a table ended: its slot is gone, but that the
//! copy is done was not on disk yet. Postgres cannot finish such a copy. `nodes.apply()` says so
//! instead of waiting for ever, and what it advises works.

use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};
use std::time::Instant;

const TABLES: &str = "
    CREATE TABLE public.orders (id integer PRIMARY KEY, item text);
    CREATE TABLE public.customers (id integer PRIMARY KEY);";

/// Puts the catalogs where that crash leaves them.
const CRASHED: &str = "
    UPDATE pg_subscription_rel SET srsubstate = 'f' WHERE srrelid = 'orders'::regclass;
    INSERT INTO pg_replication_origin (roident, roname)
      SELECT (SELECT max(roident::bigint) + 1 FROM pg_replication_origin)::oid,
        format('pg_%s_%s', srsubid, srrelid)
      FROM pg_subscription_rel WHERE srsubstate = 'f';";

#[test]
fn a_copy_that_cannot_end_is_told_of_and_made_again() {
    let mut paris = Server::builder("paris").start();
    let london = Server::builder("london").start();
    for server in [&paris, &london] {
        server.create_db("app");
        server.sql("app", TABLES);
    }
    london.sql("app", "INSERT INTO orders VALUES (1, 'lamp'); INSERT INTO customers VALUES (1)");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    let tables = "'{public.orders,public.customers}'";
    let add = format!("SELECT nodes.add_subscription('feed', 'london', tables => {tables})");
    paris.sql("app", &add);
    apply(&paris);
    let ready = "SELECT bool_and(srsubstate = 'r')::text FROM pg_subscription_rel";
    wait_until("both are copied", LONG, || paris.query_one_text("app", ready) == "true");
    paris.sql("app", CRASHED);
    paris.restart();

    let started = Instant::now();
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(started.elapsed() < LONG, "it took {:?}", started.elapsed());
    assert!(!said.ok && said.output.contains("copy of public.orders does not go on"), "{said}");
    assert!(said.output.contains("empty the table there"), "{said}");

    paris.sql("app", "SELECT nodes.alter_link('feed', tables => '{public.customers}')");
    apply(&paris);
    paris.sql("app", "TRUNCATE orders");
    paris.sql("app", &format!("SELECT nodes.alter_link('feed', tables => {tables})"));
    apply(&paris);
    assert_eq!(plan(&paris), [""; 0], "after apply the plan is empty");
    london.sql("app", "INSERT INTO orders VALUES (2, 'chair')");
    wait_until("both orders are there", LONG, || {
        paris.query_texts("app", "SELECT item FROM orders ORDER BY id") == ["lamp", "chair"]
    });
    paris.sql("app", "CALL nodes.teardown()");
    for server in [&paris, &london] {
        server.assert_no_residue("app");
    }
}
