//! Two people at once, and one who changes her mind: a second apply waits for the first and
//! says for whom; what is rolled back was never said.

use pg_test::trio::Trio;
use pg_test::{LONG, Psql, wait_until};
use std::thread::{Scope, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

const APPLY: &str = "CALL nodes.apply();";

fn registered() -> Trio {
    let trio = Trio::start();
    trio.register();
    trio.link();
    for server in [&trio.paris, &trio.london] {
        server.sql("app", "CREATE TABLE visitors (id int PRIMARY KEY)");
    }
    trio.paris.sql(
        "app",
        "SELECT nodes.add_subscription('back', publisher => 'paris', subscriber => 'london',
             tables => '{visitors}')",
    );
    trio
}

fn end(trio: &Trio) {
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
}

/// The backends that hold (or wait for) the lock of apply.
fn backends(trio: &Trio, granted: bool) -> Vec<String> {
    let query = format!(
        "SELECT pid FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_class'::regclass
         AND objid = 'nodes.registry'::regclass AND granted = {granted}"
    );
    trio.paris.query_texts("app", &query)
}

/// Starts an apply and returns when `waiting` of them wait and one runs.
fn start_apply<'scope>(
    scope: &'scope Scope<'scope, '_>,
    trio: &'scope Trio,
    waiting: usize,
) -> ScopedJoinHandle<'scope, Psql> {
    let apply = scope.spawn(|| trio.paris.psql("app", APPLY));
    wait_until("apply to have the lock or wait for it", LONG, || {
        (backends(trio, true).len(), backends(trio, false).len()) == (1, waiting)
    });
    apply
}

fn cancel(trio: &Trio, backend: &str) {
    trio.paris.sql("app", &format!("SELECT pg_cancel_backend({backend})"));
}

#[test]
fn a_second_apply_waits_and_succeeds() {
    let trio = registered();
    let mut holder = trio.london.client("app");
    scope(|scope| {
        // No publication of a table that somebody has locked: the first apply hangs there.
        let mut lock = holder.transaction().expect("BEGIN");
        lock.batch_execute("LOCK TABLE orders").expect("LOCK TABLE");
        let first = start_apply(scope, &trio, 0);
        let pid = backends(&trio, true).remove(0);
        let second = start_apply(scope, &trio, 1);
        let third = start_apply(scope, &trio, 2);
        let waits = format!("waiting for nodes.apply() of process {pid} (role postgres");

        let impatient = backends(&trio, false).remove(0);
        cancel(&trio, &impatient);
        wait_until("one to give up", LONG, || backends(&trio, false).len() == 1);
        assert_eq!(backends(&trio, true), [pid.as_str()], "the first goes on");
        lock.rollback().expect("ROLLBACK");

        let first = first.join().expect("the first apply");
        assert!(first.ok && !first.output.contains("waiting for"), "{first}");
        let others = [second, third].map(|apply| apply.join().expect("another apply"));
        for other in &others {
            assert!(other.output.contains(&waits), "{other}");
            assert!(!other.output.contains("WARNING"), "{other}");
        }
        let (done, gave_up): (Vec<_>, Vec<_>) = others.iter().partition(|psql| psql.ok);
        assert_eq!((done.len(), gave_up.len()), (1, 1), "{others:?}");
        assert!(gave_up[0].output.contains("canceling statement"), "{}", gave_up[0]);
        assert!(!done[0].output.contains("create"), "nothing was left to do: {}", done[0]);
    });
    assert_eq!(trio.plan(), [""; 0]);
    end(&trio);
}

#[test]
fn the_second_goes_on_where_the_first_was_cancelled() {
    let trio = registered();
    let mut holder = trio.london.client("app");
    scope(|scope| {
        let mut lock = holder.transaction().expect("BEGIN");
        lock.batch_execute("LOCK TABLE orders").expect("LOCK TABLE");
        let first = start_apply(scope, &trio, 0);
        let pid = backends(&trio, true).remove(0);
        let second = start_apply(scope, &trio, 1);
        cancel(&trio, &pid);
        let first = first.join().expect("the first apply");
        assert!(!first.ok && first.output.contains("canceling statement"), "{first}");
        lock.rollback().expect("ROLLBACK");
        let second = second.join().expect("the second apply");
        assert!(second.ok, "{second}");
    });
    assert_eq!(trio.plan(), [""; 0]);
    end(&trio);
}

#[test]
fn a_limit_includes_the_wait_for_another_run() {
    let trio = registered();
    let mut holder = trio.london.client("app");
    scope(|scope| {
        let mut lock = holder.transaction().expect("BEGIN");
        lock.batch_execute("LOCK TABLE orders").expect("LOCK TABLE");
        let first = start_apply(scope, &trio, 0);
        let pid = backends(&trio, true).remove(0);
        for call in ["apply", "teardown"] {
            let started = Instant::now();
            let call = format!("CALL nodes.{call}(timeout => '1s')");
            let said = trio.paris.psql_with("app", &["-v", "VERBOSITY=verbose"], &call);
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            let busy = format!("55006: timed out waiting for nodes.apply() of process {pid}");
            assert!(!said.ok && said.output.contains(&busy), "{said}");
            let own = format!("SET lock_timeout = '100ms'; {call}");
            let said = trio.paris.psql_with("app", &["-v", "VERBOSITY=sqlstate"], &own);
            assert!(said.output.contains("55P03"), "a limit of one's own counts too: {said}");
        }
        assert_eq!(backends(&trio, false), [""; 0]);
        lock.rollback().expect("ROLLBACK");
        let first = first.join().expect("the first apply");
        assert!(first.ok, "{first}");
    });
    end(&trio);
}

/// Any role may take any advisory lock; none of them is ours.
#[test]
fn nobody_can_keep_others_out() {
    let trio = registered();
    trio.paris.sql("app", "CREATE ROLE anybody");
    let mut anybody = trio.paris.caller("anybody");
    anybody.allowed("SELECT pg_advisory_lock(x'6e6f6465735f6170'::bigint)");
    anybody.allowed("BEGIN");
    anybody.refused("LOCK TABLE nodes.registry", "42501", "permission denied");
    trio.apply();
    end(&trio);
}

/// Everything that the registry says.
fn registry(trio: &Trio) -> Vec<String> {
    let tables = ["registry", "node", "link", "event", "step_log"];
    let rows = |table: &str| {
        trio.paris.query_texts("app", &format!("SELECT t::text FROM nodes.{table} AS t ORDER BY 1"))
    };
    tables.into_iter().flat_map(rows).collect()
}

fn rolled_back(trio: &Trio, script: &str) {
    let before = registry(trio);
    let psql = trio.paris.psql("app", &format!("BEGIN; {script}; ROLLBACK;"));
    assert!(psql.ok, "{psql}");
    assert_eq!(registry(trio), before, "rolled back: {script}");
}

#[test]
fn a_rollback_leaves_nothing() {
    let trio = Trio::start();
    let add = |name, conninfo: String| format!("SELECT nodes.add_node('{name}', '{conninfo}');");
    let servers = [("paris", &trio.paris), ("london", &trio.london), ("oslo", &trio.oslo)];
    let nodes: String = servers.map(|(name, server)| add(name, server.conninfo("app"))).concat();
    rolled_back(
        &trio,
        &format!(
            "{nodes} SELECT nodes.add_standby('oslo', 'paris');
             SELECT nodes.add_subscription('feed', 'london', 'paris');
             SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris')"
        ),
    );
    assert_eq!(registry(&trio), [""; 0]);
    assert_eq!(trio.plan(), [""; 0]);
    trio.register();
    trio.link();
    trio.apply();
    rolled_back(
        &trio,
        "SELECT nodes.pause_link('orders_feed'); SELECT nodes.remove_link('orders_feed');
         SELECT nodes.alter_link('stock', writable => false);
         SELECT nodes.set_password('london', 'x'); SELECT nodes.rename_node('oslo', 'bergen');
         SELECT nodes.remove_node('london', cascade => true, keep_data => false)",
    );
    assert_eq!(trio.plan(), [""; 0], "and nothing is to be done");
    let inside = trio.paris.psql("app", "BEGIN; CALL nodes.apply(); COMMIT;");
    assert!(!inside.ok && inside.output.contains("transaction block"), "{inside}");
    end(&trio);
}
