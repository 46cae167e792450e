//! What is committed is brought about with nobody connected; what people change by hand is
//! reported, and healed only where the link says so.

use pg_test::trio::Trio;
use pg_test::watcher::{preloaded, watching};
use pg_test::{LONG, Server, wait_until};

fn start() -> Trio {
    start_with(&[])
}

fn start_with(settings: &[(&str, &str)]) -> Trio {
    let paris =
        settings.iter().fold(watching("paris"), |paris, (name, value)| paris.conf(name, value));
    let trio = Trio::start_with(paris, Server::builder("london"), Server::builder("oslo"));
    trio.register();
    trio
}

fn await_links(trio: &Trio) {
    for (link, state) in [("oslo", "streaming"), ("orders_feed", "streaming"), ("stock", "up")] {
        trio.paris.await_link(link, state);
    }
}

fn await_clean(trio: &Trio) {
    let left = "SELECT name FROM nodes.node UNION ALL SELECT name FROM nodes.link";
    wait_until("the registry is empty", LONG, || trio.paris.query_texts("app", left).is_empty());
    for server in [&trio.paris, &trio.london, &trio.oslo] {
        wait_until("nothing is left", LONG, || server.residue("app").is_empty());
    }
}

fn remove_all(trio: &Trio) {
    let remove = "SELECT nodes.remove_node(name, cascade => true, keep_data => false)
        FROM nodes.node";
    trio.paris.query_texts("app", remove);
    await_clean(trio);
}

/// An order placed in London is seen in Paris and in Oslo; London's items are seen in Paris.
fn rows_flow(trio: &Trio, id: u32) {
    trio.london.sql("app", &format!("INSERT INTO orders VALUES ({id}, 'new')"));
    let count = format!("SELECT count(*)::text FROM orders WHERE id = {id}");
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order arrives", LONG, || server.query_one_text("app", &count) == "1");
    }
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM stock.items"), "2");
}

#[test]
fn links_are_made_changed_and_removed_at_commit() {
    let mut trio = start();
    trio.link();
    await_links(&trio);
    rows_flow(&trio, 2000);
    assert_eq!(trio.plan(), [""; 0]);
    let pending = "SELECT name FROM nodes.link WHERE pending";
    wait_until("nothing is pending", LONG, || trio.paris.query_texts("app", pending).is_empty());

    trio.london.move_to_another_port();
    trio.paris.await_link("orders_feed", "waiting");
    let conninfo = trio.london.conninfo("app");
    trio.paris.sql("app", &format!("SELECT nodes.alter_node('london', '{conninfo}')"));
    await_links(&trio);
    rows_flow(&trio, 2001);

    trio.paris.sql("app", "SELECT nodes.pause_link('orders_feed')");
    trio.paris.await_link("orders_feed", "paused");
    trio.paris.sql("app", "SELECT nodes.resume_link('orders_feed')");
    trio.paris.await_link("orders_feed", "streaming");
    remove_all(&trio);
    assert_eq!(trio.paris.events("orders_feed").first().map(String::as_str), Some("streaming"));
}

#[test]
fn a_rollback_and_auto_apply_off_do_nothing() {
    let trio = start_with(&[("pg_nodes.auto_apply", "off")]);
    trio.paris
        .sql("app", "BEGIN; SELECT nodes.add_subscription('feed', 'london', 'paris'); ROLLBACK;");
    trio.link();
    trio.paris.await_link("orders_feed", "missing");
    trio.paris.await_link("stock", "missing");
    for server in [&trio.paris, &trio.london] {
        server.assert_no_residue("app");
    }
    trio.apply();
    await_links(&trio);
    rows_flow(&trio, 2000);
    trio.paris.append_conf("pg_nodes.auto_apply = on");
    trio.paris.reload();
    remove_all(&trio);
}

#[test]
fn drift_is_reported_and_healed_only_where_the_link_says_so() {
    let trio = start();
    trio.link();
    await_links(&trio);
    trio.paris.sql("app", "SELECT nodes.alter_link('stock', heal => true)");

    trio.paris.sql("app", "ALTER SUBSCRIPTION orders_feed DISABLE");
    trio.paris.sql("app", "ALTER SERVER stock OPTIONS (ADD fetch_size '7')");
    trio.paris.await_link("orders_feed", "drifted");
    let option =
        "SELECT array_to_string(srvoptions, ' ') LIKE '%fetch_size%' FROM pg_foreign_server";
    wait_until("the server is healed", LONG, || {
        trio.paris.query_one_text("app", &format!("SELECT ({option})::text")) == "false"
    });
    trio.paris.await_link("stock", "up");
    let enabled = "SELECT subenabled::text FROM pg_subscription";
    assert_eq!(trio.paris.query_one_text("app", enabled), "false", "left alone");
    let hint = "SELECT hint FROM nodes.link_status WHERE link = 'orders_feed'";
    assert!(trio.paris.query_one_text("app", hint).contains("nodes.apply()"));
    wait_until("an event", LONG, || {
        trio.paris.events("orders_feed").contains(&"drifted".to_owned())
    });

    trio.paris.sql("app", "SELECT nodes.alter_link('orders_feed', heal => true)");
    trio.paris.await_link("orders_feed", "streaming");
    assert_eq!(trio.paris.query_one_text("app", enabled), "true");
    remove_all(&trio);
}

#[test]
fn what_waits_for_a_dead_node_is_done_when_it_is_back() {
    let mut trio = start();
    trio.link();
    await_links(&trio);
    trio.london.crash();
    trio.paris.await_link("orders_feed", "waiting");
    trio.paris.sql("app", "SELECT nodes.remove_link('orders_feed')");
    let subscriptions = "SELECT subname FROM pg_subscription";
    wait_until("paris is detached", LONG, || {
        trio.paris.query_texts("app", subscriptions).is_empty()
    });
    trio.london.start_again();
    wait_until("london is clean", LONG, || trio.london.residue("app").is_empty());
    trio.paris.await_link("stock", "up");
    remove_all(&trio);
}

#[test]
fn a_failing_step_is_told_once_and_tried_again() {
    let trio = start();
    trio.london.sql("app", "ALTER TABLE orders DROP CONSTRAINT orders_pkey");
    trio.paris.sql(
        "app",
        "SELECT nodes.add_subscription('feed', 'london', 'paris', tables => '{public.orders}')",
    );
    trio.paris.await_link("feed", "broken");
    wait_until("an event", LONG, || trio.paris.events("feed") == ["broken"]);
    let explained = trio.paris.query_texts("app", "SELECT fact FROM nodes.explain('feed')");
    assert!(explained.iter().any(|fact| fact.contains("replica identity")), "{explained:#?}");
    trio.london.sql("app", "ALTER TABLE orders ADD PRIMARY KEY (id)");
    trio.paris.await_link("feed", "streaming");
    remove_all(&trio);
}

#[test]
fn limits_make_a_link_lag() {
    let trio = start();
    trio.link();
    await_links(&trio);
    trio.paris.sql(
        "app",
        "SELECT nodes.alter_link('orders_feed', limits => '{\"max_retained_wal\": \"1MB\"}');
         SELECT nodes.pause_link('orders_feed')",
    );
    trio.paris.await_link("orders_feed", "paused");
    trio.london.sql(
        "app",
        "INSERT INTO orders SELECT i, repeat('x', 1000) FROM generate_series(10000, 14000) i",
    );
    trio.paris.await_link("orders_feed", "lagging");
    let retained = "SELECT (retained_bytes > 1048576)::text FROM nodes.link_status
        WHERE link = 'orders_feed'";
    assert_eq!(trio.paris.query_one_text("app", retained), "true");
    let slot = "SELECT owner || ' ' || danger FROM nodes.slots WHERE link = 'orders_feed'";
    // Its walsender may still be busy with what was written.
    wait_until("the slot is a danger", LONG, || {
        trio.paris.query_one_text("app", slot).starts_with("link nobody reads it")
    });
    trio.paris.sql("app", "SELECT nodes.resume_link('orders_feed')");
    trio.paris.await_link("orders_feed", "streaming");
    remove_all(&trio);
}

#[test]
fn a_foreign_server_that_rejects_the_mapped_role_is_broken() {
    let trio = start();
    trio.link();
    await_links(&trio);
    let probe = "SELECT (probe_ms > 0)::text FROM nodes.link_status WHERE link = 'stock'";
    wait_until("the link is asked", LONG, || trio.paris.query_one_text("app", probe) == "true");
    trio.paris
        .sql("app", "ALTER USER MAPPING FOR postgres SERVER stock OPTIONS (SET user 'nobody')");
    trio.paris.await_link("stock", "drifted");
    trio.apply();
    trio.paris.await_link("stock", "up");
    remove_all(&trio);
}

#[test]
fn two_registries_on_one_server_do_not_mix() {
    let paris = preloaded("paris").conf("max_worker_processes", "16").start();
    for db in ["app", "other"] {
        paris.create_db(db);
        paris.sql(db, "CREATE EXTENSION pg_nodes");
        let conninfo = paris.conninfo(db);
        paris.sql(db, &format!("SELECT nodes.add_node('{db} here', '{conninfo}')"));
    }
    for db in ["app", "other"] {
        let seen = "SELECT node || ' ' || health || ' ' || is_self FROM nodes.status";
        wait_until("each sees its own", LONG, || {
            paris.query_texts(db, seen) == [format!("{db} here up true")]
        });
    }
}
