//! Kills whoever applies, after each step in turn: the next run ends where an undisturbed one
//! does, and after the teardown nothing is left on any server.

use pg_test::gate::{Stopped, open_gate, stop_at};
use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

/// `kill -9` of who is stopped; returns when the server has recovered.
fn kill(server: &Server, stopped: Stopped) {
    server.kill_backend(stopped.pid);
    assert!(!stopped.end().ok, "nobody survives kill -9");
    server.await_up("app");
    open_gate(server);
}

/// Once in hundreds of crashes of a subscriber Postgres loses that a copy is done: see
/// `stuck.rs`. Then, and only then, the link starts over.
fn apply_again(trio: &Trio) {
    let said = trio.paris.psql("app", "CALL nodes.apply()");
    if said.ok {
        return;
    }
    assert!(said.output.contains("does not go on"), "apply failed:\n{said}");
    trio.paris.sql("app", "SELECT nodes.remove_link('orders_feed')");
    trio.apply();
    trio.paris.sql(
        "app",
        "TRUNCATE orders, customers;
         SELECT nodes.add_subscription('orders_feed', publisher => 'london',
             subscriber => 'paris', tables => '{public.orders,public.customers}')",
    );
    trio.apply();
}

/// What the links are made of, on each of the three, once oslo has replayed that every table
/// is copied.
fn made(trio: &Trio) -> Vec<String> {
    let mut made = Vec::new();
    wait_until("copied tables are streaming", LONG, || {
        let servers = [&trio.paris, &trio.london, &trio.oslo].into_iter();
        made = servers.flat_map(|server| server.link_objects("app")).collect();
        made.iter().filter(|line| line.starts_with("copied") && line.ends_with(" r")).count() == 4
    });
    made
}

fn assert_all_work(trio: &Trio, expected: &[String]) {
    assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
    assert_eq!(made(trio), expected);
    trio.london.sql("app", "INSERT INTO orders SELECT max(id) + 1, 'new' FROM orders");
    let count = "SELECT count(*)::text FROM orders";
    let wanted = trio.london.query_one_text("app", count);
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order arrives", LONG, || server.query_one_text("app", count) == wanted);
    }
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM stock.items"), "2");
}

fn assert_nothing_left(trio: &Trio) {
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    trio.oslo.await_no_standby_residue("app");
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM nodes.node"), "0");
    // What was replicated stays; the next run copies again.
    trio.paris.sql("app", "TRUNCATE orders, customers");
}

#[test]
fn a_killed_run_is_finished_by_the_next() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    let expected = made(&trio);
    trio.paris.sql("app", "CALL nodes.teardown()");
    assert_nothing_left(&trio);
    let mut killed = (0, 0);
    for n in 1.. {
        trio.register();
        trio.link();
        let paris = &trio.paris;
        if let Some(stopped) = stop_at(paris, n, "CALL nodes.apply()") {
            kill(paris, stopped);
            apply_again(&trio);
            assert_all_work(&trio, &expected);
            killed.0 = n;
        }
        if let Some(stopped) = stop_at(paris, n, "CALL nodes.teardown()") {
            kill(paris, stopped);
            paris.sql("app", "CALL nodes.teardown()");
            killed.1 = n;
        }
        assert_nothing_left(&trio);
        if killed.0 < n && killed.1 < n {
            break;
        }
    }
    eprintln!("apply was killed at {} places, teardown at {}", killed.0, killed.1);
    assert!(killed.0 > 10 && killed.1 > 10, "it hardly stopped");
}
