//! Every member of a group is ready to be followed by the others.

use pg_test::trio::{add_node, plan};
use pg_test::watcher::watching;
use pg_test::{Builder, LONG, Server, wait_until};

const SEGMENT: &str = "16 * 1024 * 1024";

/// As little WAL is kept as can be.
fn member(name: &str) -> Builder {
    watching(name).conf("min_wal_size", "32MB").conf("wal_keep_size", "0")
}

struct Group {
    paris: Server,
    oslo: Server,
    rome: Server,
}

/// Paris with oslo; rome follows `above`.
fn group(above: &str) -> Group {
    let paris = member("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let [oslo, rome] = ["oslo", "rome"].map(|name| paris.clone_standby_with(member(name)));
    for (name, server) in [("paris", &paris), ("oslo", &oslo), ("rome", &rome)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    paris.sql("app", &format!("SELECT nodes.add_standby('rome', primary_node => '{above}')"));
    for link in ["oslo", "rome"] {
        paris.await_link(link, "streaming");
    }
    Group { paris, oslo, rome }
}

/// The links for whose followers a server keeps a slot that nobody reads.
fn kept(registry: &Server, server: &Server) -> Vec<String> {
    let unread = "SELECT slot_name FROM pg_replication_slots WHERE NOT active ORDER BY slot_name";
    let slots = server.query_texts("app", unread);
    let link = |slot: &String| {
        let id = slot.rsplit('_').next().expect("a slot of ours");
        let name = format!("SELECT name FROM nodes.link WHERE id = {id}");
        // That of a link that is gone may be there for a moment.
        registry.query_texts("app", &name).pop().unwrap_or_else(|| slot.clone())
    };
    slots.iter().map(link).collect()
}

fn await_kept(registry: &Server, server: &Server, links: &[&str]) {
    wait_until(&format!("{} keeps slots for {links:?}", server.name()), LONG, || {
        kept(registry, server) == links
    });
}

/// Four segments of WAL, most of it for nothing.
fn write_much(server: &Server, id: u32) {
    for _ in 0..4 {
        server.sql("app", "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)); SELECT pg_switch_wal()");
    }
    server.sql("app", &format!("INSERT INTO orders VALUES ({id}); CHECKPOINT"));
}

fn await_orders(server: &Server, wanted: &[&str]) {
    let orders = "SELECT id FROM orders ORDER BY id";
    wait_until("the orders are there", LONG, || server.query_texts("app", orders) == wanted);
}

/// Waits until a standby's unread slots keep hardly more than they must.
fn await_moved_on(server: &Server) {
    let behind = format!(
        "SELECT count(*)::text FROM pg_replication_slots WHERE NOT active
         AND pg_last_wal_replay_lsn() - restart_lsn > 2 * {SEGMENT}"
    );
    wait_until("its slots move on", LONG, || server.query_one_text("app", &behind) == "0");
}

#[test]
fn a_sibling_that_was_down_follows_the_new_primary_without_a_new_clone() {
    let Group { mut paris, oslo, mut rome } = group("paris");
    await_kept(&paris, &oslo, &["rome"]);
    await_kept(&paris, &rome, &["oslo"]);
    assert_eq!(kept(&paris, &paris), [""; 0]);
    assert_eq!(plan(&paris), [""; 0]);
    write_much(&paris, 1);
    for standby in [&oslo, &rome] {
        await_orders(standby, &["1"]);
        await_moved_on(standby);
    }

    rome.stop();
    write_much(&paris, 2);
    await_orders(&oslo, &["1", "2"]);
    oslo.sql("app", "CHECKPOINT");
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo', force => true)");
    assert!(said.ok, "{said}");
    oslo.sql("app", "CHECKPOINT; INSERT INTO orders VALUES (3); CHECKPOINT");
    rome.start_again();
    oslo.await_link("rome", "streaming");
    await_orders(&rome, &["1", "2", "3"]);
    assert_eq!(kept(&oslo, &oslo), [""; 0]);
    wait_until("nothing is left to do", LONG, || plan(&oslo).is_empty());
}

#[test]
fn who_keeps_no_slot_for_a_sibling_is_not_ready() {
    let Group { paris, oslo, rome: _rome } = group("paris");
    await_kept(&paris, &oslo, &["rome"]);
    let readiness = "SELECT format('%s %s: %s', standby, ready, array_to_string(reasons, '; '))
        FROM nodes.failover_ready WHERE standby = 'oslo'";
    let await_readiness = |expected: &str| {
        wait_until(expected, LONG, || paris.query_texts("app", readiness) == [expected]);
    };
    await_readiness("oslo t: ");
    paris.append_conf("pg_nodes.auto_apply = off");
    paris.reload();
    let shown = "SHOW pg_nodes.auto_apply";
    wait_until("it is off", LONG, || paris.query_one_text("app", shown) == "off");
    oslo.sql("app", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    await_readiness(
        "oslo f: not done yet on \"oslo\": create slot (lets \"rome\" follow \"oslo\" after a failover)",
    );
    paris.append_conf("pg_nodes.auto_apply = on");
    paris.reload();
    await_readiness("oslo t: ");
    await_kept(&paris, &oslo, &["rome"]);
}

#[test]
fn what_follows_a_standby_has_a_place_at_the_primary() {
    let Group { paris, oslo, rome } = group("oslo");
    await_kept(&paris, &paris, &["rome"]);
    await_kept(&paris, &rome, &["oslo"]);
    assert_eq!(kept(&paris, &oslo), [""; 0]);
    write_much(&paris, 1);
    await_orders(&rome, &["1"]);
    await_moved_on(&rome);

    // Who leaves takes all slots along, as soon as it is known that none is left.
    let mut oslo = oslo;
    paris.sql("app", "SELECT nodes.remove_link('rome')");
    await_kept(&paris, &paris, &[]);
    wait_until("rome is alone", LONG, || {
        paris.query_texts("app", "SELECT name FROM nodes.link") == ["oslo"]
    });
    paris.sql("app", "SELECT nodes.add_standby('rome', primary_node => 'paris')");
    await_kept(&paris, &oslo, &["rome"]);
    oslo.stop();
    paris.sql("app", "SELECT nodes.remove_link('rome')");
    wait_until("it is said who is missing", LONG, || {
        let said =
            "SELECT coalesce(string_agg(reason, ' '), '') FROM nodes.plan() WHERE link = 'rome'";
        paris.query_one_text("app", said).contains("\"oslo\" did not answer: it may keep a slot")
    });
    oslo.start_again();
    wait_until("rome is alone again", LONG, || {
        paris.query_texts("app", "SELECT name FROM nodes.link") == ["oslo"]
    });
    paris.sql("app", "CALL nodes.teardown()");
    for server in [&paris, &oslo, &rome] {
        assert_eq!(
            server.query_texts("app", "SELECT slot_name FROM pg_replication_slots"),
            [""; 0]
        );
    }
}
