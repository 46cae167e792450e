//! A registry is dumped and restored: where it was made it goes on as before; on another
//! server it shows what it holds and touches nobody, until it is told to take over.

use pg_test::trio::{Trio, add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};

/// `pg_dump` of paris' registry, as SQL.
fn dump(server: &Server, options: &[&str]) -> String {
    let output =
        server.client_program("pg_dump", "app").args(options).output().expect("pg_dump runs");
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn restore(server: &Server, dump: &str) {
    server.create_db("app");
    // The subscription of the dump would connect; what is restored here is the registry.
    let psql = server.psql_with("app", &["-v", "ON_ERROR_STOP=0", "-q"], dump);
    let registered = server.query_one_text("app", "SELECT count(*)::text FROM nodes.node");
    assert_eq!(registered, "3", "the registry is restored:\n{psql}");
}

/// SQLSTATE of a statement that must fail.
fn sqlstate(server: &Server, sql: &str) -> String {
    let error = server.client("app").batch_execute(sql).expect_err("it is refused");
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// The registry that acts takes all away that it made.
fn end(trio: &Trio) {
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    trio.oslo.await_no_standby_residue("app");
}

#[test]
fn a_copy_elsewhere_is_passive_until_it_takes_over() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    let text = dump(&trio.paris, &[]);
    let elsewhere = Server::builder("elsewhere").start();
    restore(&elsewhere, &text);
    let brought = elsewhere.residue("app");
    let slots = brought.iter().filter(|line| line.starts_with("replication slots")).count();
    assert!(!brought.is_empty() && slots == 0, "{brought:#?}");

    let rows = plan(&elsewhere);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(rows[0].contains("this registry belongs to another server"), "{rows:#?}");
    assert!(rows[0].contains("nodes.take_over()"), "{rows:#?}");
    trio.london.sql("postgres", "ALTER SYSTEM SET log_connections = on");
    trio.london.reload();
    wait_until("london logs who connects", LONG, || {
        trio.london.query_one_text("app", "SHOW log_connections") == "on"
    });
    for refused in [
        "CALL nodes.apply()",
        "CALL nodes.teardown()",
        "SELECT nodes.add_node('x', 'host=127.0.0.1 port=1')",
        "SELECT nodes.alter_node('london', 'host=127.0.0.1 port=1')",
        "SELECT nodes.add_standby('london', 'paris')",
        "SELECT nodes.add_subscription('again', 'london', 'paris')",
        "SELECT nodes.add_foreign_schema('again', 'london', on_node => 'paris')",
        "SELECT nodes.remove_link('stock')",
        "SELECT nodes.wait_for_node('london')",
        "SELECT nodes.wait_for_link('stock')",
    ] {
        assert_eq!(sqlstate(&elsewhere, refused), "55000", "{refused}");
    }
    assert_eq!(plan(&elsewhere).len(), 1);
    let shown = |query| elsewhere.query_texts("app", query);
    let links = "SELECT link || ' ' || state FROM nodes.link_status WHERE hint ~ 'take_over'";
    assert_eq!(shown(links), ["oslo passive", "orders_feed passive", "stock passive"]);
    let nodes = "SELECT node || ' ' || health FROM nodes.status WHERE NOT is_self";
    assert_eq!(shown(nodes), ["paris passive", "london passive", "oslo passive"]);
    assert_eq!(shown("TABLE nodes.slots"), [""; 0]);
    assert_eq!(shown("SELECT factor FROM nodes.test_node('london') WHERE NOT ok"), ["registry"]);
    let picture = shown("SELECT nodes.topology()").concat();
    assert!(picture.starts_with("this registry belongs to another server"), "{picture}");
    assert!(picture.contains("foreign schema \"inventory\" as \"stock\""), "{picture}");
    let log = trio.london.log();
    assert!(log.contains("application_name=harness"), "connections are logged:\n{log}");
    assert!(!log.contains("application_name=pg_nodes"), "no peer was asked:\n{log}");
    assert_eq!(trio.plan(), [""; 0], "the original is untouched");

    let id = "SELECT id::text FROM nodes.registry";
    let old = elsewhere.query_one_text("app", id);
    elsewhere.sql("app", "SELECT nodes.take_over()");
    assert_ne!(elsewhere.query_one_text("app", id), old);
    let rows = plan(&elsewhere);
    let drops = rows.iter().filter(|row| row.starts_with("drop"));
    assert_eq!(drops.count(), 0, "what the original made is not its own: {rows:#?}");
    assert!(rows.iter().any(|row| row.contains("was not made by this registry")), "{rows:#?}");

    // It has made nothing, and takes nothing away: neither there, nor what the dump brought.
    elsewhere.sql("app", "CALL nodes.teardown()");
    assert_eq!(elsewhere.residue("app"), brought);
    assert_eq!(elsewhere.query_texts("app", "SELECT name FROM nodes.node"), [""; 0]);
    assert_eq!(trio.plan(), [""; 0], "the original is untouched");
    end(&trio);
}

/// A standby carries the registry too: it shows, and says why it changes nothing.
#[test]
fn a_standby_shows_and_changes_nothing() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    wait_until("the registry has reached the standby", LONG, || {
        trio.oslo.query_texts("app", "SELECT name FROM nodes.link").len() == 3
    });
    for call in [
        "SELECT nodes.add_node('x', 'host=127.0.0.1 port=1')",
        "SELECT nodes.alter_node('london', 'host=127.0.0.1 port=1')",
        "SELECT nodes.set_password('london', 'x')",
        "SELECT nodes.rename_node('london', 'x')",
        "SELECT nodes.remove_node('london')",
        "SELECT nodes.add_standby('london', 'paris')",
        "SELECT nodes.add_subscription('again', 'london', 'paris')",
        "SELECT nodes.add_foreign_schema('again', 'london')",
        "SELECT nodes.alter_link('stock', writable => false)",
        "SELECT nodes.pause_link('orders_feed')",
        "SELECT nodes.resume_link('orders_feed')",
        "SELECT nodes.remove_link('stock')",
        "SELECT nodes.take_over()",
        "CALL nodes.apply()",
        "CALL nodes.teardown()",
    ] {
        let said = trio.oslo.psql_with("app", &["-v", "VERBOSITY=verbose"], call);
        assert!(said.output.contains("ERROR:  25006: cannot execute nodes."), "{call}: {said}");
        assert!(said.output.contains("HINT:  Call it on the primary"), "{call}: {said}");
    }
    assert_eq!(plan(&trio.oslo), [""; 0]);
    let standby = "SELECT role FROM nodes.status WHERE is_self";
    assert_eq!(trio.oslo.query_texts("app", standby), ["standby"]);
    end(&trio);
}

#[test]
fn restored_where_it_was_made_it_goes_on() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    let text = dump(&trio.paris, &["--extension=pg_nodes", "--schema=nodes"]);
    let registry = trio.paris.query_one_text("app", "SELECT id::text FROM nodes.registry");
    trio.paris.sql("app", "DROP EXTENSION pg_nodes; DROP SCHEMA nodes");
    let psql = trio.paris.psql_with("app", &["-q"], &text);
    assert!(psql.ok, "restore: {psql}");
    assert_eq!(trio.paris.query_one_text("app", "SELECT id::text FROM nodes.registry"), registry);
    assert_eq!(trio.plan(), [""; 0], "everything is as the restored registry wants it");
    trio.paris.sql("app", "SELECT nodes.pause_link('orders_feed')");
    trio.apply();
    trio.paris.sql("app", "SELECT nodes.add_node('later', 'host=127.0.0.1 port=1')");
    trio.paris.sql("app", "SELECT nodes.remove_node('later')");
    end(&trio);
}

#[test]
fn a_database_made_again_on_the_same_server_goes_on() {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    for (name, server) in [("paris", &paris), ("london", &london)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory')");
    apply(&paris);
    let text = dump(&paris, &[]);
    paris.sql("postgres", "DROP DATABASE app WITH (FORCE)");
    paris.create_db("app");
    let psql = paris.psql_with("app", &["-q"], &text);
    assert!(psql.ok, "restore: {psql}");
    assert_eq!(plan(&paris), [""; 0], "the dump brought all of the link along");
    assert_eq!(paris.query_texts("app", "SELECT id FROM stock.items"), ["1"]);
    add_node(&paris, "later", &london);
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}
