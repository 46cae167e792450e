//! Servers that crash and runs that are cancelled in the middle: the call ends at once, says
//! what is missing, leaves no process behind on a node, and the next one finishes.

use pg_test::gate::{open_gate, stop_at};
use pg_test::trio::Trio;
use pg_test::{LONG, Psql, Server, wait_until};
use std::thread::JoinHandle;
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
    trio.oslo.await_no_standby_residue("app");
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

/// How a run is told to end.
#[derive(Clone, Copy)]
enum Interrupt {
    /// By `statement_timeout`.
    Timeout,
    /// By `pg_cancel_backend()`.
    Cancel,
}

impl Interrupt {
    /// Starts a run; it ends at once after [`Interrupt::come`], or by itself after that time.
    fn run(self, trio: &Trio) -> JoinHandle<Psql> {
        let settings = match self {
            Interrupt::Timeout => "SET statement_timeout = '3s'",
            Interrupt::Cancel => "SET statement_timeout = 0",
        };
        let call = format!("SET pg_nodes.connect_timeout = '60s'; {settings}; CALL nodes.apply()");
        trio.paris.psql_in_background("app", &call)
    }

    /// Has the run end and sees that it does.
    fn come(self, trio: &Trio, run: JoinHandle<Psql>) {
        if let Interrupt::Cancel = self {
            let cancel = "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity
                WHERE query LIKE 'CALL nodes.apply()%'";
            assert_eq!(trio.paris.query_texts("app", cancel), ["true"]);
        }
        let started = Instant::now();
        let said = run.join().expect("psql ran");
        assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
        assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    }
}

/// Waits until a statement like this one waits on a server for something of that type.
fn await_wait(server: &Server, wait: &str, query: &str) {
    let waits = format!(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_nodes'
         AND wait_event_type = '{wait}' AND query LIKE '%{query}%'"
    );
    wait_until(&format!("{query} waits for a {wait}"), LONG, || {
        !server.query_texts("app", &waits).is_empty()
    });
}

const APPLYING: &str = "SELECT wait_event_type FROM pg_stat_activity
    WHERE query LIKE 'CALL nodes.apply()%'";

/// A logical slot cannot be made while a transaction of its server is open.
fn while_a_slot_waits(interrupt: Interrupt) {
    let trio = linked();
    let mut writer = trio.london.client("app");
    writer.batch_execute("BEGIN; INSERT INTO customers VALUES (2000, 'slow')").expect("a write");
    let run = interrupt.run(&trio);
    await_wait(&trio.london, "Lock", "slot");
    interrupt.come(&trio, run);
    assert_nobody_is_left(&trio.london);
    let slots = "SELECT slot_name FROM pg_replication_slots";
    assert_eq!(trio.london.query_texts("app", slots), [""; 0], "the slot was not made");
    writer.batch_execute("COMMIT").expect("the writer goes on");
    finish(&trio);
}

/// A step runs for long on another server: somebody holds a lock that it needs.
fn while_a_step_runs(interrupt: Interrupt) {
    let trio = linked();
    let mut holder = trio.london.client("app");
    holder.batch_execute("BEGIN; LOCK pg_publication IN SHARE MODE").expect("a lock");
    let run = interrupt.run(&trio);
    await_wait(&trio.london, "Lock", "CREATE PUBLICATION");
    interrupt.come(&trio, run);
    assert_nobody_is_left(&trio.london);
    holder.batch_execute("COMMIT").expect("the lock is free");
    let publications = "SELECT pubname FROM pg_publication";
    assert_eq!(trio.london.query_texts("app", publications), [""; 0], "it ended before it began");
    finish(&trio);
}

/// A server takes connections, and says nothing.
fn while_a_server_hangs(interrupt: Interrupt) {
    let mut trio = linked();
    trio.london.pause();
    let run = interrupt.run(&trio);
    wait_until("apply waits", LONG, || trio.paris.query_texts("app", APPLYING) == ["Extension"]);
    interrupt.come(&trio, run);
    trio.london.resume();
    for server in [&trio.paris, &trio.london] {
        assert_nobody_is_left(server);
    }
    finish(&trio);
}

/// The copy of a table takes long; it goes on whether anybody waits for it or not.
fn while_a_table_is_copied(interrupt: Interrupt) {
    let trio = linked();
    trio.paris.make_copies_holdable("app", "orders");
    let held = trio.paris.hold_copies("app");
    let run = interrupt.run(&trio);
    trio.paris.await_held_copy("app");
    // As nodes.forget_node() says.
    let identifier = "SELECT system_identifier::text FROM pg_control_system()";
    let slot = format!(
        r"SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pg\_%\_sync\_%\_{}'",
        trio.paris.query_one_text("app", identifier)
    );
    assert!(!trio.london.query_texts("app", &slot).is_empty(), "its slot is called otherwise");
    interrupt.come(&trio, run);
    for server in [&trio.paris, &trio.london] {
        assert_nobody_is_left(server);
    }
    assert!(trio.paris.has_held_copy("app"), "the copy is still there");
    drop(held);
    finish(&trio);
}

#[test]
fn a_timeout_ends_the_wait_for_a_slot() {
    while_a_slot_waits(Interrupt::Timeout);
}

#[test]
fn a_cancel_ends_the_wait_for_a_slot() {
    while_a_slot_waits(Interrupt::Cancel);
}

#[test]
fn a_timeout_ends_a_long_step() {
    while_a_step_runs(Interrupt::Timeout);
}

#[test]
fn a_cancel_ends_a_long_step() {
    while_a_step_runs(Interrupt::Cancel);
}

#[test]
fn a_timeout_ends_the_wait_for_a_hanging_server() {
    while_a_server_hangs(Interrupt::Timeout);
}

#[test]
fn a_cancel_ends_the_wait_for_a_hanging_server() {
    while_a_server_hangs(Interrupt::Cancel);
}

#[test]
fn a_timeout_ends_the_wait_for_a_copy() {
    while_a_table_is_copied(Interrupt::Timeout);
}

#[test]
fn a_cancel_ends_the_wait_for_a_copy() {
    while_a_table_is_copied(Interrupt::Cancel);
}
