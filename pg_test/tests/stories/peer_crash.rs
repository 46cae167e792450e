//! A server on which steps run dies, whole or by the crash of one process: a standby, a remote
//! subscriber, the remote target of a foreign schema. The run ends soon and harms nothing else,
//! the next one ends where an undisturbed one does, and a teardown leaves nothing.

use pg_test::gate::{count_stops, open_gate, stop_at_node};
use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};
use std::time::{Duration, Instant};

/// A run that waits for a dead server takes longer.
const SOON: Duration = Duration::from_secs(10);
const APPLY: &str = "CALL nodes.apply()";
const TEARDOWN: &str = "CALL nodes.teardown()";

/// Paris keeps the registry and has the data; london subscribes to it and shows a schema of it.
fn start() -> Trio {
    let trio = Trio::start();
    const VISITORS: &str = "CREATE TABLE visitors (id int PRIMARY KEY);
                            CREATE TABLE pages (id int PRIMARY KEY)";
    trio.london.sql("app", VISITORS);
    trio.paris.sql(
        "app",
        &format!(
            "{VISITORS}; INSERT INTO visitors SELECT generate_series(1, 1000);
             CREATE SCHEMA ledger; CREATE TABLE ledger.sales AS SELECT 7 AS amount"
        ),
    );
    trio
}

const ADD_VISITS: &str = "SELECT nodes.add_subscription('visits', publisher => 'paris',
    subscriber => 'london', tables => '{visitors,pages}')";

fn link(trio: &Trio) {
    trio.register();
    trio.paris.sql(
        "app",
        &format!(
            "SELECT nodes.add_standby('oslo', primary_node => 'paris'); {ADD_VISITS};
             SELECT nodes.add_foreign_schema('books', 'paris', 'ledger', on_node => 'london')"
        ),
    );
}

fn objects(trio: &Trio) -> Vec<String> {
    let servers = [&trio.paris, &trio.london, &trio.oslo].into_iter();
    servers.flat_map(|server| server.link_objects("app")).collect()
}

/// What an undisturbed run makes, once every table is copied.
fn undisturbed(trio: &Trio) -> Vec<String> {
    let mut made = Vec::new();
    wait_until("both tables stream", LONG, || {
        made = objects(trio);
        made.iter().filter(|line| line.starts_with("copied") && line.ends_with(" r")).count() == 2
    });
    made
}

fn assert_all_work(trio: &Trio, expected: &[String]) {
    assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
    let started = Instant::now();
    while objects(trio) != expected && started.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(objects(trio), expected);
    trio.paris.sql("app", "INSERT INTO visitors SELECT max(id) + 1 FROM visitors");
    let count = "SELECT count(*)::text FROM visitors";
    let wanted = trio.paris.query_one_text("app", count);
    for server in [&trio.london, &trio.oslo] {
        wait_until("the visitor arrives", LONG, || server.query_one_text("app", count) == wanted);
    }
    assert_eq!(trio.london.query_texts("app", "SELECT amount FROM books.sales"), ["7"]);
}

fn assert_nothing_left(trio: &Trio) {
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    trio.oslo.await_no_standby_residue("app");
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM nodes.node"), "0");
    // What was replicated stays; the next run copies again.
    trio.london.sql("app", "TRUNCATE visitors, pages");
}

/// Once in hundreds of crashes of a subscriber Postgres loses that a copy is done: see
/// `stuck.rs`. Then, and only then, the link starts over.
fn apply_again(trio: &Trio) {
    let said = trio.paris.psql("app", APPLY);
    if said.ok {
        return;
    }
    assert!(said.output.contains("does not go on"), "apply failed:\n{said}");
    trio.paris.sql("app", "SELECT nodes.remove_link('visits')");
    trio.apply();
    trio.london.sql("app", "TRUNCATE visitors, pages");
    trio.paris.sql("app", ADD_VISITS);
    trio.apply();
}

#[derive(Debug, Clone, Copy)]
enum Crash {
    /// `kill -9` of the process that works for pg_nodes; its server restarts all others.
    Backend,
    /// `kill -9` of the postmaster.
    Server,
}

fn server<'a>(trio: &'a mut Trio, node: &str) -> &'a mut Server {
    match node {
        "london" => &mut trio.london,
        _ => &mut trio.oslo,
    }
}

impl Crash {
    fn happen(self, server: &mut Server) {
        match self {
            Crash::Server => server.crash(),
            Crash::Backend => kill_backend(server),
        }
    }

    fn end(self, server: &mut Server) {
        match self {
            Crash::Server => server.start_again(),
            Crash::Backend => {}
        }
    }
}

fn kill_backend(server: &Server) {
    let pid = "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'pg_nodes'
               AND backend_type = 'client backend'";
    server.kill_backend(server.query_one_text("app", pid).parse().expect("a process id"));
    wait_until("the server is back", LONG, || {
        server.try_client("app").is_ok_and(|mut client| client.simple_query("").is_ok())
    });
}

/// The first place, one in the middle and the last one, each with another kind of crash.
fn places(stops: u32) -> [(u32, Crash); 3] {
    assert!(stops >= 4, "it hardly stops");
    [(1, Crash::Server), (stops.div_ceil(2), Crash::Backend), (stops, Crash::Server)]
}

/// Crashes a node while a run is stopped; returns whether the run got so far.
fn disturb(trio: &mut Trio, node: &str, (n, crash): (u32, Crash), call: &str) -> bool {
    let Some(stopped) = stop_at_node(&trio.paris, node, n, call) else { return false };
    crash.happen(server(trio, node));
    let started = Instant::now();
    let said = stopped.go_on();
    let took = started.elapsed();
    assert!(took < SOON, "{call} took {took:?} after {crash:?} of {node} at {n}:\n{said}");
    open_gate(&trio.paris);
    crash.end(server(trio, node));
    true
}

/// What there is after a run that nobody disturbs; then nothing is.
fn what_is_made(trio: &Trio) -> Vec<String> {
    link(trio);
    trio.apply();
    let made = undisturbed(trio);
    trio.paris.sql("app", TEARDOWN);
    assert_nothing_left(trio);
    made
}

#[test]
fn a_run_goes_on_where_a_server_crashed() {
    let mut trio = start();
    let expected = what_is_made(&trio);
    for node in ["london", "oslo"] {
        link(&trio);
        let applying = places(count_stops(&trio.paris, node, APPLY));
        let removing = places(count_stops(&trio.paris, node, TEARDOWN));
        assert_nothing_left(&trio);
        let mut crashed = 0;
        for (apply_at, teardown_at) in applying.into_iter().zip(removing) {
            link(&trio);
            crashed += u32::from(disturb(&mut trio, node, apply_at, APPLY));
            apply_again(&trio);
            assert_all_work(&trio, &expected);
            crashed += u32::from(disturb(&mut trio, node, teardown_at, TEARDOWN));
            trio.paris.sql("app", TEARDOWN);
            assert_nothing_left(&trio);
        }
        assert!(crashed >= 4, "{node} crashed only {crashed} times");
    }
}

/// The statement has begun there, and nobody will ever tell how it ended.
#[test]
fn a_server_crashes_within_a_statement() {
    let mut trio = start();
    let expected = what_is_made(&trio);
    for catalog in ["pg_subscription", "pg_foreign_server"] {
        link(&trio);
        crash_within(&mut trio, catalog, APPLY);
        apply_again(&trio);
        assert_all_work(&trio, &expected);
        crash_within(&mut trio, catalog, TEARDOWN);
        trio.paris.sql("app", TEARDOWN);
        assert_nothing_left(&trio);
    }
}

/// A lock on a catalog lets everybody look, and stops who wants to change it.
fn crash_within(trio: &mut Trio, catalog: &str, call: &str) {
    let mut holder = trio.london.client("app");
    holder.batch_execute(&format!("BEGIN; LOCK {catalog} IN SHARE MODE")).expect("a lock");
    let running = trio.paris.psql_in_background("app", call);
    let waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_nodes'
        AND wait_event_type = 'Lock'";
    wait_until("a step waits for the lock", LONG, || {
        !trio.london.query_texts("app", waits).is_empty()
    });
    trio.london.crash();
    let started = Instant::now();
    let said = running.join().expect("psql ran");
    assert!(started.elapsed() < SOON, "{call} took {:?}:\n{said}", started.elapsed());
    let told = said.output.contains("\"visits\"") || said.output.contains("\"books\"");
    assert!(told, "it says what is missing:\n{said}");
    trio.london.start_again();
}

/// The subscriber crashes in the middle of a copy: the run ends, the copy starts anew.
#[test]
fn a_subscriber_crashes_while_it_copies() {
    let mut trio = start();
    trio.london.make_copies_holdable("app", "visitors");
    for crash in [Crash::Backend, Crash::Server] {
        link(&trio);
        let held = trio.london.hold_copies("app");
        let running = trio.paris.psql_in_background("app", APPLY);
        trio.london.await_held_copy("app");
        let follows = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_nodes'
            AND query LIKE '%srsubstate%pg_stat_get_progress_info%'";
        wait_until("the run follows it", LONG, || {
            !trio.london.query_texts("app", follows).is_empty()
        });
        // Else the crash may lose that the other copy is done: see `stuck.rs`.
        let other = "SELECT srsubstate::text FROM pg_subscription_rel
            WHERE srrelid = 'pages'::regclass";
        wait_until("pages streams", LONG, || trio.london.query_one_text("app", other) == "r");
        trio.london.sql("app", "CHECKPOINT");
        crash.happen(&mut trio.london);
        let started = Instant::now();
        let said = running.join().expect("psql ran");
        assert!(started.elapsed() < SOON, "it took {:?}:\n{said}", started.elapsed());
        let told = "link \"visits\": the initial copy could not be followed";
        assert!(!said.ok && said.output.contains(told), "{said}");
        crash.end(&mut trio.london);
        drop(held);
        trio.apply();
        assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
        let rows = "SELECT count(*)::text FROM visitors";
        assert_eq!(trio.london.query_one_text("app", rows), "1000", "once each");
        trio.paris.sql("app", TEARDOWN);
        assert_nothing_left(&trio);
    }
}
