//! A group that Patroni manages: pg_nodes watches it, changes nothing of Patroni's, and has all
//! links follow when Patroni makes another member the primary.

use pg_test::patroni::{Member, Pair};
use pg_test::trio::{add_node, apply, ends, plan};
use pg_test::watcher::watching;
use pg_test::writer::Writer;
use pg_test::{LONG, Server, wait_until};
use std::collections::BTreeSet;

/// The view tells where a session on the group is: the port of the server that answers.
const PAIR: &str = "
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer PRIMARY KEY);
    CREATE VIEW inventory.here AS SELECT current_setting('port')::integer AS port;";

/// Without a key a row that comes twice is there twice.
const READER: &str = "
    CREATE EXTENSION pg_nodes;
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer);";

const LINKS: &str = "
    SELECT nodes.add_standby('oslo', primary_node => 'paris', managed => false);
    SELECT nodes.add_subscription('items', publisher => 'paris', tables => '{inventory.items}');
    SELECT nodes.add_foreign_schema('stock', node => 'paris', remote_schema => 'inventory');";

const ITEMS: &str = "SELECT id FROM inventory.items ORDER BY id";

/// London has the registry and reads from the pair.
fn cluster() -> (Pair, Server) {
    // While the one of two that is named is down, subscriptions wait: so oslo names nobody.
    let guard: &[_] = match Server::major() {
        17.. => &[("synchronized_standby_slots", "oslo")],
        _ => &[],
    };
    let (pair, london) = (Pair::start(guard), watching("london").start());
    pair.paris.server.create_db("app");
    pair.paris.server.sql("app", PAIR);
    london.create_db("app");
    london.sql("app", READER);
    for server in [&pair.paris.server, &pair.oslo.server, &london] {
        add_node(&london, server.name(), server);
    }
    (pair, london)
}

/// From 17 on; before, no slot of ours survives a failover.
fn await_slot(pair: &Pair, london: &Server) {
    let mut found = Vec::new();
    let ready = "SELECT format('%s %s', ready, reasons) FROM nodes.failover_ready";
    wait_until("oslo has the slot", LONG, || {
        pair.paris.server.sql("app", "SELECT pg_log_standby_snapshot()");
        found = london.query_texts("app", ready);
        found == ["t {}"]
    });
}

fn place(london: &Server) -> String {
    london.query_one_text("app", "SELECT port::text FROM stock.here")
}

/// What is ours on a member: the slot of the subscription, where it is.
fn slots(member: &Member) -> Vec<String> {
    member.server.query_texts(
        "postgres",
        "SELECT format('%s %s', slot_type, database) FROM pg_replication_slots
         WHERE slot_name LIKE 'nodes\\_%'",
    )
}

#[test]
fn all_follow_the_primary_that_patroni_chooses() {
    let (mut pair, london) = cluster();
    let keeps_slots = Server::major() >= 17;
    let before = [&pair.paris, &pair.oslo].map(Member::belongings);
    london.sql("app", LINKS);
    london.await_link("oslo", "streaming");
    london.await_link("items", "streaming");
    london.await_link("stock", "up");
    let writer = Writer::start(&[&pair.paris.server, &pair.oslo.server], "inventory.items");
    if keeps_slots {
        await_slot(&pair, &london);
    }
    assert_eq!(plan(&london), [""; 0], "nothing is left to do");
    assert_eq!(place(&london), pair.paris.server.port().to_string());
    let after = [&pair.paris, &pair.oslo].map(Member::belongings);
    assert_eq!(before, after, "Patroni's is as it was");
    let said = london.psql("app", "CALL nodes.promote('oslo')");
    assert!(!said.ok && said.output.contains("somebody else manages the group"), "{said}");

    pair.paris.crash();
    wait_until("Patroni has promoted oslo", LONG, || pair.oslo.is_primary());
    let turned = ["oslo: oslo to paris", "items: oslo to london", "stock: oslo to london"];
    wait_until("all links follow oslo", LONG, || ends(&london) == turned);
    assert_eq!(london.events("oslo").iter().filter(|kind| *kind == "primary changed").count(), 1);
    london.await_link("stock", "up");
    assert_eq!(place(&london), pair.oslo.server.port().to_string());
    if !keeps_slots {
        let missed = "missed, and more until a new slot is made";
        wait_until("it is told", LONG, || plan(&london).iter().any(|line| line.contains(missed)));
        london.sql("app", "SELECT nodes.resync('items')");
    }
    london.await_link("items", "streaming");
    goes_on(&pair.oslo.server, &london, writer);
    assert_eq!(slots(&pair.oslo), ["logical app"]);
    assert_eq!(pair.oslo.file("postgresql.auto.conf"), pair.paris.file("postgresql.auto.conf"));

    pair.paris.start();
    london.await_link("oslo", "streaming");
    if !keeps_slots {
        // The subscription was made anew while nobody knew whether paris belongs to the group.
        apply(&london);
    }
    // From 17 on paris gets a copy of the slot instead of its own old one.
    wait_until("nothing is left to do", LONG, || plan(&london).is_empty());
}

/// Nothing that was acknowledged is lost, and london has each row once.
fn goes_on(oslo: &Server, london: &Server, writer: Writer) {
    let count = "SELECT count(*)::text FROM inventory.items";
    let then = oslo.query_one_text("app", count);
    wait_until("oslo is written to", LONG, || oslo.query_one_text("app", count) != then);
    let acknowledged = writer.finish().numbers;
    let there = oslo.query_texts("app", ITEMS);
    let kept: BTreeSet<&String> = there.iter().collect();
    let lost = acknowledged.iter().filter(|number| !kept.contains(&number.to_string())).count();
    assert_eq!(lost, 0, "of {} that were acknowledged", acknowledged.len());
    let mut here = Vec::new();
    wait_until("london has all rows", LONG, || {
        here = london.query_texts("app", ITEMS);
        here.len() >= there.len()
    });
    assert!(here == there, "london has {} rows, not {}", here.len(), there.len());
}
