//! Servers that crash and runs that are cancelled in the middle: the call ends at once, says
//! what is missing, leaves no process behind on a node, and the next one finishes.

use pg_test::gate::{open_gate, stop_at};
use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};
use std::time::{Duration, Instant};

/// Nobody should wait longer for an answer, or for a process to go.
const SOON: Duration = Duration::from_secs(5);

/// Processes that work for pg_nodes, those that wait for the next statement included.
const PROCESSES: &str = "SELECT format('%s %s %s', pid, state, query) FROM pg_stat_activity
    WHERE application_name = 'pg_nodes'";

fn linked() -> Trio {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio
}

fn assert_nobody_is_left(server: &Server) {
    wait_until("the processes for pg_nodes are gone", SOON, || {
        server.query_texts("app", PROCESSES).is_empty()
    });
}

/// Applies, sees rows in all three places, tears down and finds nothing.
fn finish(trio: &Trio) {
    trio.apply();
    assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
    trio.london.sql("app", "INSERT INTO orders SELECT max(id) + 1, 'new' FROM orders");
    let orders = "SELECT count(*)::text FROM orders";
    let wanted = trio.london.query_one_text("app", orders);
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order arrives", LONG, || server.query_one_text("app", orders) == wanted);
    }
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM stock.items"), "2");
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    let left = "SELECT setting FROM pg_settings WHERE name LIKE 'primary\\_%' AND setting <> ''";
    wait_until("oslo is alone", LONG, || trio.oslo.query_texts("app", left).is_empty());
}

#[test]
fn the_registrys_server_crashes() {
    let mut trio = linked();
    let stopped = stop_at(&trio.paris, 8, "CALL nodes.apply()").expect("there are eight steps");
    trio.paris.crash();
    assert!(!stopped.end().ok, "apply cannot survive its server");
    assert_nobody_is_left(&trio.london);
    trio.paris.start_again();
    open_gate(&trio.paris);
    finish(&trio);
}

#[test]
fn the_publisher_crashes() {
    let mut trio = Trio::start();
    // Before its publication is made, before its slot, and before the tables are copied.
    for n in [3, 8, 13] {
        trio.register();
        trio.link();
        let stopped = stop_at(&trio.paris, n, "CALL nodes.apply()").expect("so many steps");
        trio.london.crash();
        let started = Instant::now();
        let said = stopped.go_on();
        assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
        assert!(said.output.contains("link \"orders_feed\""), "it says what is missing:\n{said}");
        assert!(trio.plan().iter().any(|line| line.contains("london")), "{:?}", trio.plan());
        let standby = "SELECT state FROM nodes.link_status WHERE link = 'oslo'";
        wait_until("the standby, which has nothing to do with it, streams", LONG, || {
            trio.paris.query_one_text("app", standby) == "streaming"
        });
        trio.london.start_again();
        open_gate(&trio.paris);
        finish(&trio);
        trio.paris.sql("app", "TRUNCATE orders, customers");
    }
}

#[test]
fn a_statement_timeout_ends_a_wait_on_a_node() {
    a_wait_ends("SET statement_timeout = '1s'; CALL nodes.apply()", |_| {});
}

#[test]
fn a_cancelled_run_ends_at_once() {
    a_wait_ends("CALL nodes.apply()", |paris| {
        let cancel = "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity
            WHERE query = 'CALL nodes.apply();' OR query = 'CALL nodes.apply()'";
        assert_eq!(paris.query_texts("app", cancel), ["true"]);
    });
}

/// A logical slot cannot be made while a transaction of its server is open. `interrupt` comes
/// when apply waits for that.
fn a_wait_ends(call: &str, interrupt: impl FnOnce(&Server)) {
    let trio = linked();
    let mut writer = trio.london.client("app");
    writer.batch_execute("BEGIN; INSERT INTO customers VALUES (2000, 'slow')").expect("a write");
    let background = trio.paris.psql_in_background("app", call);
    let waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_nodes'
        AND wait_event_type = 'Lock' AND query LIKE '%slot%'";
    wait_until("the slot waits for the transaction", LONG, || {
        !trio.london.query_texts("app", waits).is_empty()
    });
    interrupt(&trio.paris);
    let started = Instant::now();
    let said = background.join().expect("psql ran");
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    assert_nobody_is_left(&trio.london);
    let slots = "SELECT slot_name FROM pg_replication_slots";
    assert_eq!(trio.london.query_texts("app", slots), [""; 0], "the slot was not made");
    writer.batch_execute("COMMIT").expect("the writer goes on");
    finish(&trio);
}
