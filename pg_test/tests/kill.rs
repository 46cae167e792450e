//! Kills whoever applies, after each step in turn: the next run ends where an undisturbed one
//! does, and after the teardown nothing is left on any server.

use pg_test::gate::{Stopped, open_gate, stop_at};
use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

/// `kill -9` of who is stopped; returns when the server has recovered.
fn kill(server: &Server, stopped: Stopped) {
    server.kill_backend(stopped.pid);
    assert!(!stopped.end().ok, "nobody survives kill -9");
    wait_until("the server is back", LONG, || {
        server.try_client("app").is_ok_and(|mut client| client.simple_query("").is_ok())
    });
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
/// is copied; marks differ from run to run.
fn made(trio: &Trio) -> Vec<String> {
    const MADE: &str = "
        SELECT regexp_replace(thing, 'nodes_[0-9a-f]+_[0-9]+', 'MARK', 'g') FROM (
        SELECT format('slot %s %s', slot_name, slot_type) FROM pg_replication_slots
        UNION ALL SELECT format('publication %s: %s.%s', pubname, schemaname, tablename)
          FROM pg_publication_tables
        UNION ALL SELECT format('subscription %s %s %s %s', subname, subenabled, subslotname,
          subpublications) FROM pg_subscription
        UNION ALL SELECT format('copied %s %s', srrelid::regclass, srsubstate)
          FROM pg_subscription_rel
        UNION ALL SELECT format('server %s %s', srvname, srvoptions) FROM pg_foreign_server
        UNION ALL SELECT format('mapping %s %s', srvname, umoptions) FROM pg_user_mappings
        UNION ALL SELECT format('table %s', ftrelid::regclass) FROM pg_foreign_table
        UNION ALL SELECT format('%s = %s', name, setting) FROM pg_settings
          WHERE name IN ('primary_slot_name', 'primary_conninfo')) made(thing) ORDER BY 1";
    let mut made = Vec::new();
    wait_until("copied tables are streaming", LONG, || {
        let servers = [&trio.paris, &trio.london, &trio.oslo].into_iter();
        made = servers.flat_map(|server| server.query_texts("app", MADE)).collect();
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
    // Its catalogs are as far as paris' were when it was let go.
    wait_until("oslo forgets its primary", LONG, || {
        let left = trio.oslo.residue("app");
        !left.iter().any(|line| {
            ["replication slots", "settings", "the file"].iter().any(|what| line.starts_with(what))
        })
    });
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
