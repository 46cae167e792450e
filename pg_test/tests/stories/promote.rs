//! `nodes.promote()`: a primary dies, a standby takes its place, and everything follows.

use pg_test::quartet::Quartet;
use pg_test::trio::{apply, plan};
use pg_test::{LONG, Server, wait_until};
use postgres::NoTls;

const SCHEMA: &str = "
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer PRIMARY KEY);
    CREATE TABLE public.orders (id integer PRIMARY KEY);";

/// London reads a schema of paris and is asked for orders. The registry is on paris, and so on its
/// standbys.
fn cluster() -> Quartet {
    let cluster = servers(&[]);
    register(&cluster, &cluster.paris);
    await_replay(&cluster);
    cluster
}

/// All four, with settings of their own.
fn servers(settings: &[(&str, &str)]) -> Quartet {
    let cluster = Quartet::start(settings, SCHEMA);
    cluster.london.sql("app", "CREATE TABLE public.orders (id integer PRIMARY KEY)");
    cluster
}

fn register(cluster: &Quartet, registry: &Server) {
    cluster.register(registry);
    registry.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', node => 'paris', remote_schema => 'inventory',
             on_node => 'london');
         SELECT nodes.add_subscription('orders', publisher => 'london', subscriber => 'paris',
             tables => '{public.orders}')",
    );
    apply(registry);
}

fn await_replay(on: &Quartet) {
    on.paris.await_replay("app", &[&on.oslo, &on.rome]);
}

/// Oslo is the primary: rome follows it, london reads from it and feeds it; nothing is left to
/// do, and every slot has its reader.
fn assert_oslo_leads(on: &Quartet, registry: &Server) {
    assert_eq!(plan(registry), [""; 0], "nothing is left to do");
    on.oslo.sql("app", "INSERT INTO inventory.items SELECT count(*) + 1 FROM inventory.items");
    let items = "SELECT count(*)::text FROM inventory.items";
    let written = on.oslo.query_one_text("app", items);
    wait_until("rome follows", LONG, || on.rome.query_one_text("app", items) == written);
    let stock = "SELECT count(*)::text FROM stock.items";
    assert_eq!(on.london.query_one_text("app", stock), written);
    on.london.sql("app", "INSERT INTO orders SELECT count(*) + 1 FROM orders");
    let orders = "SELECT count(*)::text FROM orders";
    let ordered = on.london.query_one_text("app", orders);
    wait_until("the order arrives", LONG, || on.oslo.query_one_text("app", orders) == ordered);
    for (server, readers) in [(&on.oslo, 1), (&on.london, 1)] {
        let slots = "SELECT format('%s %s', count(*), count(*) FILTER (WHERE active))
            FROM pg_replication_slots";
        wait_until("all slots are read", LONG, || {
            server.query_texts("app", slots) == [format!("{readers} {readers}")]
        });
    }
    let left = "SELECT name FROM pg_settings WHERE name IN ('primary_conninfo',
        'primary_slot_name') AND setting <> ''";
    wait_until("oslo forgets whom it followed", LONG, || {
        on.oslo.query_texts("app", left).is_empty()
    });
}
#[test]
fn a_dead_primary_is_replaced_from_any_standby() {
    let mut cluster = cluster();
    let lives = ["primary \"paris\" answers", "Stop that server first"];
    for force in ["", ", force => true"] {
        cluster.rome.refuses("app", &format!("CALL nodes.promote('oslo'{force})"), &lives);
    }
    cluster.rome.refuses("app", "CALL nodes.promote('london')", &["\"london\" is not a standby"]);
    cluster.rome.refuses(
        "app",
        "BEGIN; CALL nodes.promote('oslo')",
        &["inside a transaction block"],
    );
    // Whoever may do nothing cannot keep others from it.
    cluster.paris.sql("app", "CREATE ROLE guest LOGIN");
    wait_until("oslo has it", LONG, || {
        cluster.oslo.query_texts("app", "SELECT 1 FROM pg_roles WHERE rolname = 'guest'").len() == 1
    });
    let mut guest = cluster.oslo.client_config("app").user("guest").connect(NoTls).expect("trust");
    let lock = "SELECT pg_advisory_lock(hashtext('pg_nodes role')::bigint)";
    guest.execute(lock, &[]).expect("anybody can");
    cluster.paris.crash();
    // Called on the standby that is not promoted.
    let said = cluster.rome.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow \"oslo\""), "{said}");
    assert_oslo_leads(&cluster, &cluster.oslo);
    // Again it finds nothing to do.
    cluster.oslo.refuses("app", "CALL nodes.promote('oslo')", &["\"oslo\" is not a standby"]);
    let told = "SELECT severity || ': ' || message FROM nodes.event WHERE kind = 'primary changed'";
    let told = cluster.oslo.query_texts("app", told);
    assert!(
        told[0].starts_with("warning: \"oslo\" is the primary in place of \"paris\" (links"),
        "{told:?}"
    );
    assert_eq!(told.len(), 1, "{told:?}");
    let ready = "SELECT format('%s %s', standby, ready) FROM nodes.failover_ready";
    wait_until("rome could be next", LONG, || cluster.oslo.query_texts("app", ready) == ["rome t"]);
}

/// Two who hear at the same time that paris is dead, and do not agree on its successor, or do.
#[test]
fn two_calls_at_once_make_one_primary() {
    for second in ["rome", "oslo"] {
        let mut cluster = cluster();
        cluster.paris.crash();
        let calls = [(&cluster.oslo, "oslo"), (&cluster.rome, second)];
        let running = calls
            .map(|(on, to)| on.psql_in_background("app", &format!("CALL nodes.promote('{to}')")));
        let said = running.map(|call| call.join().expect("psql ran"));
        let standby = "SELECT pg_is_in_recovery()::text";
        let is_primary = |server: &&Server| server.query_one_text("app", standby) == "false";
        let servers = [&cluster.oslo, &cluster.rome];
        assert!(servers.iter().copied().filter(is_primary).count() <= 1, "{said:?}");
        for refused in said.iter().filter(|said| !said.ok) {
            let why = ["another call is changing", "is a primary already", "is not a standby"];
            assert!(why.iter().any(|why| refused.output.contains(why)), "{refused}");
        }
        // Each may have refused for the other's sake.
        let leader = servers.into_iter().find(is_primary).unwrap_or(&cluster.oslo);
        if !is_primary(&leader) {
            let again = leader.psql("app", "CALL nodes.promote('oslo')");
            assert!(again.ok, "{again}");
        }
        apply(leader);
        assert_eq!(plan(leader), [""; 0]);
    }
}

/// The registry is on london, which is in another group; a promotion by hand is only told of.
#[test]
fn a_registry_elsewhere_follows() {
    let mut cluster = servers(&[]);
    cluster.london.sql("app", "CREATE EXTENSION pg_nodes");
    register(&cluster, &cluster.london);
    await_replay(&cluster);
    cluster.paris.crash();
    cluster.oslo.promote();
    cluster.london.refuses(
        "app",
        "CALL nodes.promote('rome', force => true)",
        &["\"oslo\" is a primary already"],
    );
    let said = cluster.london.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow \"oslo\""), "{said}");
    assert_oslo_leads(&cluster, &cluster.london);
}

/// Workers watch all four and would do by themselves what is committed. The old primary comes back
/// and leaves the others alone.
#[test]
fn workers_do_not_stand_in_the_way() {
    let mut cluster = servers(&[("shared_preload_libraries", "pg_nodes")]);
    register(&cluster, &cluster.paris);
    await_replay(&cluster);
    cluster.paris.crash();
    let said = cluster.oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow \"oslo\""), "{said}");
    assert_oslo_leads(&cluster, &cluster.oslo);
    cluster.paris.start_again();
    let told = "SELECT severity FROM nodes.event WHERE kind = 'superseded'";
    wait_until("paris knows that its time is over", LONG, || {
        cluster.paris.query_texts("app", told) == ["critical"]
    });
    cluster.paris.stop();
    assert_oslo_leads(&cluster, &cluster.oslo);
}

#[test]
fn the_one_with_less_wal_is_promoted_by_force_only() {
    let mut cluster = cluster();
    cluster.oslo.stop();
    cluster.paris.sql("app", "INSERT INTO inventory.items SELECT generate_series(10, 1000)");
    let position = cluster.paris.query_one_text("app", "SELECT pg_current_wal_lsn()");
    let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{position}')::text");
    wait_until("rome has it", LONG, || cluster.rome.query_one_text("app", &replayed) == "true");
    cluster.paris.crash();
    // Who is silent may have more.
    cluster.rome.refuses(
        "app",
        "CALL nodes.promote('rome')",
        &["standby \"oslo\" does not answer, and may have WAL", "PR05"],
    );
    cluster.oslo.start_again();
    let lost = ["of WAL would be lost that \"rome\" has", "force => true accepts that"];
    cluster.rome.refuses("app", "CALL nodes.promote('oslo')", &lost);
    let said = cluster.rome.psql("app", "CALL nodes.promote('oslo', force => true)");
    assert!(said.ok && said.output.contains(lost[0]), "{said}");
    assert_eq!(cluster.oslo.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
}

/// Rome still sees paris when nobody else does.
#[test]
fn a_primary_that_a_standby_sees_is_not_dead() {
    let cluster = cluster();
    // One that lets nobody in lives.
    cluster.paris.sql(
        "app",
        "UPDATE nodes.node SET admin_conninfo = conninfo || ' user=nobody_there'
         WHERE name = 'paris'",
    );
    await_replay(&cluster);
    cluster.oslo.refuses("app", "CALL nodes.promote('oslo')", &["primary \"paris\" answers"]);
    // The registry is given a wrong address; rome streams on.
    cluster.paris.sql(
        "app",
        "UPDATE nodes.node SET admin_conninfo = 'host=127.0.0.1 port=1 dbname=app'
         WHERE name = 'paris'",
    );
    await_replay(&cluster);
    let heard = ["\"rome\" sees primary \"paris\": it streams from there", "PR08", "force => true"];
    cluster.oslo.refuses("app", "CALL nodes.promote('oslo')", &heard);
    assert_eq!(cluster.oslo.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "true");
}

/// London is subscribed to the group.
fn subscribe(cluster: &Quartet) {
    for server in [&cluster.paris, &cluster.london] {
        server.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    }
    cluster.paris.sql(
        "app",
        "SELECT nodes.add_subscription('parts', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    apply(&cluster.paris);
}

/// A subscriber of the group: from 17 on it goes on where it was; before, it is told that
/// rows may be missing, and nothing is skipped in silence.
#[test]
fn a_subscriber_of_the_group_follows() {
    let mut cluster = cluster();
    subscribe(&cluster);
    if Server::major() >= 17 {
        keep_slots(&cluster);
    }
    cluster.paris.sql("app", "INSERT INTO parts VALUES (-1)");
    let parts = "SELECT count(*)::text FROM parts";
    wait_until("london has it", LONG, || {
        let (here, there) = (&cluster.paris, &cluster.london);
        here.query_one_text("app", parts) == there.query_one_text("app", parts)
    });
    await_replay(&cluster);
    cluster.paris.crash();
    let said = cluster.oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok, "{said}");
    cluster.oslo.sql("app", "INSERT INTO parts VALUES (-2)");
    if Server::major() < 17 {
        let missed = "of subscription \"parts\" is gone: all changes from 0/";
        assert!(said.output.contains(missed), "{said}");
        assert!(plan(&cluster.oslo).iter().any(|line| line.contains(missed)));
        return;
    }
    assert!(said.output.contains("all links follow \"oslo\""), "{said}");
    assert_eq!(plan(&cluster.oslo), [""; 0], "nothing is left to do");
    wait_until("london goes on", LONG, || {
        let (here, there) = (&cluster.oslo, &cluster.london);
        here.query_one_text("app", parts) == there.query_one_text("app", parts)
    });
}

/// What it has received from the old primary alone is lost, and what came on the new timeline is
/// missing: it is told where the two parted, and copies anew. From 17 on nobody gets ahead.
#[test]
fn a_subscriber_that_was_ahead_is_told() {
    if Server::major() >= 17 {
        return;
    }
    let mut cluster = cluster();
    subscribe(&cluster);
    let states = "SELECT srsubstate::text FROM pg_subscription_rel";
    wait_until("its copy is over", LONG, || cluster.london.query_texts("app", states) == ["r"]);
    await_replay(&cluster);
    cluster.oslo.stop();
    cluster.paris.sql("app", "INSERT INTO parts VALUES (1)");
    let parts = "SELECT id::text FROM parts ORDER BY id";
    wait_until("london has it", LONG, || cluster.london.query_texts("app", parts) == ["1"]);
    cluster.paris.crash();
    cluster.rome.crash();
    cluster.oslo.start_again();
    let said = cluster.oslo.psql("app", "CALL nodes.promote('oslo', force => true)");
    assert!(said.ok, "{said}");
    cluster.oslo.sql("app", "INSERT INTO parts VALUES (2)");
    let lines = plan(&cluster.oslo).join("\n");
    let position = |before: &str| {
        let (_, rest) = lines.split_once(before).unwrap_or_else(|| panic!("{before}: {lines}"));
        let end = rest.find([' ', ',', ':']).expect("a word");
        u64::from_str_radix(&rest[..end].replace("0/", ""), 16).expect("a position")
    };
    let left = position("\"oslo\" left timeline 1 at ");
    assert!(left < position("\"london\" has applied up to "), "{lines}");
    assert_eq!(left, position("changes from "), "{lines}");
    let written = cluster.oslo.query_one_text("app", "SELECT pg_current_wal_insert_lsn() - '0/0'");
    let end = position(&format!("changes from 0/{left:X} to "));
    assert!(left < end && end <= written.parse().expect("a number"), "{lines}");
    cluster.oslo.sql("app", "SELECT nodes.resync('parts')");
    let said = cluster.oslo.psql("app", "CALL nodes.apply()");
    assert!(said.output.contains("\"rome\" did not answer"), "{said}");
    wait_until("london is as oslo", LONG, || cluster.london.query_texts("app", parts) == ["2"]);
}

/// Waits until oslo keeps the slot of the subscription.
fn keep_slots(cluster: &Quartet) {
    let paris = &cluster.paris;
    let ready = "SELECT ready::text FROM nodes.failover_ready WHERE standby = 'oslo'";
    let mut next = 0;
    wait_until("oslo has the slot", LONG, || {
        next += 1;
        let write = format!("INSERT INTO parts VALUES ({next}); SELECT pg_log_standby_snapshot()");
        paris.sql("app", &write);
        paris.query_one_text("app", ready) == "true"
    });
}
