//! Links follow a group by themselves: connection strings list all its members.

use pg_test::quartet::Quartet;
use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};

/// The view tells where a session on the group is: the port of the server that answers.
const PARIS: &str = "
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.items (id integer PRIMARY KEY);
    CREATE VIEW inventory.here AS SELECT current_setting('port')::integer AS port;";

const STOCK: &str = "SELECT nodes.add_foreign_schema('stock', node => 'paris',
    remote_schema => 'inventory', on_node => 'london')";

const WATCHING: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_nodes"),
    ("pg_nodes.heartbeat_interval", "100ms"),
    ("pg_nodes.node_timeout", "1s"),
    ("pg_nodes.inventory_interval", "1s"),
];

/// What each foreign server lists.
const SERVER_PORTS: &str = "SELECT option_value FROM pg_foreign_server,
    pg_options_to_table(srvoptions) WHERE option_name = 'port'";

/// London reads both ways.
fn cluster() -> Quartet {
    let cluster = Quartet::start(&[], PARIS);
    let paris = &cluster.paris;
    cluster.register(paris);
    paris.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', node => 'paris', remote_schema => 'inventory',
             on_node => 'london');
         SELECT nodes.add_foreign_schema('shelf', node => 'paris', remote_schema => 'inventory',
             on_node => 'london', writable => false)",
    );
    apply(paris);
    assert_eq!(plan(paris), [""; 0], "nothing is left to do");
    cluster
}

/// The ports that the foreign server of a link lists, and the server's oid.
fn listed(london: &Server, server: &str) -> String {
    london.query_one_text(
        "app",
        &format!(
            "SELECT format('%s %s', (SELECT option_value FROM pg_options_to_table(srvoptions)
                 WHERE option_name = 'port'), oid)
             FROM pg_foreign_server WHERE srvname = '{server}'"
        ),
    )
}

fn ports(servers: &[&Server]) -> String {
    servers.iter().map(|server| server.port().to_string()).collect::<Vec<_>>().join(",")
}

/// The port of the server that a foreign schema reads from now.
fn here(london: &Server, schema: &str) -> u16 {
    let port = london.query_one_text("app", &format!("SELECT port::text FROM {schema}.here"));
    port.parse().expect("a port")
}

/// Nothing of pg_nodes runs between the crash and the answers.
#[test]
fn foreign_schemas_find_the_new_primary_by_themselves() {
    let Quartet { mut paris, oslo, rome, london } = cluster();
    assert_eq!(here(&london, "stock"), paris.port());
    assert_eq!(here(&london, "shelf"), oslo.port(), "a standby, the first that is listed");
    let mut session = london.client("app");
    session.batch_execute("INSERT INTO stock.items VALUES (1)").expect("paris takes it");
    paris.await_replay("app", &[&oslo, &rome]);
    paris.crash();
    oslo.promote();
    // A session from before notices and connects anew, and so does a fresh one.
    session.batch_execute("INSERT INTO stock.items VALUES (2)").expect("oslo takes it");
    assert_eq!(here(&london, "stock"), oslo.port());
    assert_eq!(here(&london, "shelf"), rome.port(), "the one that is a standby still");
    let items = "SELECT count(*)::text FROM stock.items";
    assert_eq!(london.query_one_text("app", items), "2");
    let refused = london.psql("app", "INSERT INTO shelf.items VALUES (3)");
    assert!(!refused.ok && refused.output.contains("does not allow inserts"), "{refused}");
    // The registry is told, and the lists follow.
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow \"oslo\""), "{said}");
    assert_eq!(plan(&oslo), [""; 0], "nothing is left to do");
    assert!(listed(&london, "stock").starts_with(&format!("{} ", ports(&[&oslo, &rome]))));
}

#[test]
fn the_lists_follow_who_joins_and_leaves() {
    let Quartet { paris, oslo, rome, london } = cluster();
    let oid = |text: &str| text.split(' ').nth(1).map(str::to_owned);
    let before = listed(&london, "stock");
    assert!(before.starts_with(&format!("{} ", ports(&[&paris, &oslo, &rome]))), "{before}");
    paris.sql("app", "SELECT nodes.remove_link('oslo')");
    apply(&paris);
    let after = listed(&london, "stock");
    assert!(after.starts_with(&format!("{} ", ports(&[&paris, &rome]))), "{after}");
    assert_eq!(oid(&before), oid(&after), "altered in place");
    // Who is down is listed still.
    let mut rome = rome;
    rome.stop();
    paris.sql("app", "SELECT nodes.alter_link('stock', writable => true)");
    apply(&paris);
    assert_eq!(listed(&london, "stock"), after);
    // Who is reached otherwise cannot be.
    rome.start_again();
    paris.sql("app", "SELECT nodes.set_password('rome', 'another')");
    let warned = plan(&paris);
    let left_out = "\"rome\" is not in the connection string of link \"stock\"";
    assert!(warned.iter().any(|line| line.contains(left_out)), "{warned:?}");
    apply(&paris);
    let alone = listed(&london, "stock");
    assert!(alone.starts_with(&format!("{} ", paris.port())), "{alone}");
    paris.sql("app", "CALL nodes.teardown()");
    london.assert_no_residue("app");
}

/// A link that is made while a member is down lists it when it is back.
#[test]
fn who_was_down_when_a_link_was_made_is_listed_with_the_next_apply() {
    let cluster = Quartet::start(&[], PARIS);
    cluster.register(&cluster.paris);
    let Quartet { paris, oslo, mut rome, london } = cluster;
    apply(&paris);
    rome.stop();
    paris.sql("app", STOCK);
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(said.output.contains("\"rome\" did not answer"), "{said}");
    let without = listed(&london, "stock");
    assert!(without.starts_with(&format!("{} ", ports(&[&paris, &oslo]))), "{without}");
    rome.start_again();
    apply(&paris);
    let all = listed(&london, "stock");
    assert!(all.starts_with(&format!("{} ", ports(&[&paris, &oslo, &rome]))), "{all}");
    assert_eq!(plan(&paris), [""; 0]);
}

/// With a worker nobody has to call anything, whoever joins, leaves or comes back; and what people
/// have changed by hand stays as it is.
#[test]
fn the_worker_has_lists_follow() {
    let cluster = Quartet::start(WATCHING, PARIS);
    cluster.register(&cluster.paris);
    let Quartet { paris, oslo, mut rome, london } = cluster;
    for link in ["oslo", "rome"] {
        paris.await_link(link, "streaming");
    }
    rome.stop();
    paris.await_health("rome", "down");
    london.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    paris.sql(
        "app",
        &format!(
            "CREATE TABLE public.parts (id integer PRIMARY KEY); {STOCK};
             SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
                 tables => '{{public.parts}}')"
        ),
    );
    let feed = "SELECT (regexp_match(subconninfo, 'port=''?([0-9,]+)'))[1] FROM pg_subscription";
    let await_lists = |servers: &[&Server]| {
        let wanted = ports(servers);
        wait_until(&format!("{wanted} is listed"), LONG, || {
            let server = london.query_texts("app", SERVER_PORTS);
            [server, london.query_texts("app", feed)] == [[wanted.clone()], [wanted.clone()]]
        });
    };
    await_lists(&[&paris, &oslo]);
    let settled = "SELECT name FROM nodes.link WHERE pending AND name IN ('stock', 'feed')";
    wait_until("both are made", LONG, || paris.query_texts("app", settled).is_empty());
    london.sql(
        "app",
        "ALTER SUBSCRIPTION feed DISABLE; ALTER SERVER stock OPTIONS (ADD fetch_size '7')",
    );
    rome.start_again();
    await_lists(&[&paris, &oslo, &rome]);
    paris.sql("app", "SELECT nodes.remove_link('rome')");
    await_lists(&[&paris, &oslo]);
    paris.sql("app", "SELECT nodes.add_standby('rome', primary_node => 'paris')");
    await_lists(&[&paris, &oslo, &rome]);
    let by_hand = "SELECT format('%s %s', subenabled, srvoptions::text LIKE '%fetch_size=7%')
        FROM pg_subscription, pg_foreign_server";
    assert_eq!(london.query_texts("app", by_hand), ["f t"], "left alone");
}

/// From 17 on the slot of a subscription is copied by a standby that joins later.
#[test]
fn the_worker_has_slots_copied_by_who_joins() {
    if Server::major() < 17 {
        return;
    }
    let Quartet { paris, oslo, rome: _rome, london } = Quartet::start(WATCHING, PARIS);
    for (name, server) in [("paris", &paris), ("oslo", &oslo), ("london", &london)] {
        add_node(&paris, name, server);
    }
    for server in [&paris, &london] {
        server.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    }
    paris.sql(
        "app",
        "SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    paris.await_link("feed", "streaming");
    let settled = "SELECT name FROM nodes.link WHERE pending";
    wait_until("it is made", LONG, || paris.query_texts("app", settled).is_empty());
    let state = "SELECT format('%s %s', subfailover, subenabled) FROM pg_subscription";
    assert_eq!(london.query_texts("app", state), ["f t"]);
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    wait_until("its slot is to be copied", LONG, || london.query_texts("app", state) == ["t t"]);
    let ready = "SELECT ready::text FROM nodes.failover_ready";
    wait_until("oslo is ready", LONG, || {
        paris.sql("app", "SELECT pg_log_standby_snapshot()");
        paris.query_texts("app", ready) == ["true"]
    });
}

/// London is subscribed to the group while somebody writes: no row is lost or comes twice.
#[test]
fn a_subscription_goes_on_at_the_new_primary() {
    if Server::major() < 17 {
        return;
    }
    let Quartet { mut paris, oslo, rome, london } = cluster();
    paris.sql(
        "app",
        "CREATE TABLE public.parts (id bigint PRIMARY KEY, written timestamptz DEFAULT now());
         SELECT nodes.add_subscription('parts', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    // Without a key a row that comes twice would be there twice.
    london.sql("app", "CREATE TABLE public.parts (id bigint, written timestamptz)");
    apply(&paris);
    let mut next = 0;
    let mut write = |server: &Server| {
        next += 1;
        server.sql("app", &format!("INSERT INTO parts VALUES ({next})"));
    };
    let ready = "SELECT count(*)::text FROM nodes.failover_ready WHERE ready";
    wait_until("both standbys have the slot", LONG, || {
        write(&paris);
        paris.sql("app", "SELECT pg_log_standby_snapshot()");
        paris.query_one_text("app", ready) == "2"
    });
    assert_eq!(plan(&paris), [""; 0], "nothing is left to do");
    (0..100).for_each(|_| write(&paris));
    paris.await_replay("app", &[&oslo, &rome]);
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow \"oslo\""), "{said}");
    assert_eq!(plan(&oslo), [""; 0], "nothing is left to do");
    (0..100).for_each(|_| write(&oslo));
    let parts = "SELECT format('%s %s', count(*), count(DISTINCT id)) FROM parts";
    let all = oslo.query_one_text("app", parts);
    wait_until("london has every row once", LONG, || london.query_one_text("app", parts) == all);
    let slot = "SELECT format('%s %s', failover, active) FROM pg_replication_slots
        WHERE slot_type = 'logical'";
    assert_eq!(oslo.query_texts("app", slot), ["t t"], "the slot that it was");
    wait_until("rome could be next", LONG, || {
        oslo.sql("app", "SELECT pg_log_standby_snapshot()");
        write(&oslo);
        oslo.query_one_text("app", ready) == "1"
    });
}
