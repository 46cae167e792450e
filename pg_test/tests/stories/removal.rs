//! Links and nodes are removed while a server is dead: the living side is clean at once, the
//! rest waits in the plan, and is done when the server is back.

use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

const ADD_BACK: &str = "SELECT nodes.add_subscription('back', publisher => 'paris',
    subscriber => 'london', tables => '{visitors}')";

const IDENTIFIER: &str = "SELECT system_identifier::text FROM pg_control_system()";

fn start() -> Trio {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.paris.sql("app", "CREATE TABLE visitors (id int PRIMARY KEY)");
    trio.london.sql("app", "CREATE TABLE visitors (id int PRIMARY KEY)");
    trio.paris.sql("app", ADD_BACK);
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    trio
}

fn links(trio: &Trio) -> Vec<String> {
    trio.paris.query_texts("app", "SELECT name || ' ' || state FROM nodes.link ORDER BY 1")
}

/// The plan consists of waiting for one dead node.
fn waits_for(trio: &Trio, node: &str) {
    let plan = trio.plan();
    let waiting = format!("waiting on {node}: node \"{node}\" did not answer");
    assert!(!plan.is_empty(), "the removal waits for {node}");
    assert!(plan.iter().all(|row| row.starts_with(&waiting)), "{plan:#?}");
}

fn slots(server: &Server) -> Vec<String> {
    server.query_texts("app", "SELECT slot_name FROM pg_replication_slots ORDER BY 1")
}

fn publications(server: &Server) -> Vec<String> {
    server.query_texts("app", "SELECT pubname FROM pg_publication ORDER BY 1")
}

fn subscriptions(server: &Server) -> Vec<String> {
    server.query_texts("app", "SELECT subname FROM pg_subscription ORDER BY 1")
}

/// Runs a statement of the registry and applies; tells of the rest are only WARNINGs.
fn remove(trio: &Trio, statement: &str) {
    trio.paris.sql("app", statement);
    trio.apply();
}

fn end(trio: &Trio) {
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
}

#[test]
fn links_of_a_dead_publisher_and_subscriber() {
    let mut trio = start();
    trio.london.crash();
    remove(&trio, "SELECT nodes.remove_link('orders_feed'), nodes.remove_link('back')");
    assert_eq!(subscriptions(&trio.paris), [""; 0], "detached from the dead publisher");
    assert_eq!(publications(&trio.paris), [""; 0], "nothing offered to the dead subscriber");
    assert_eq!(slots(&trio.paris).len(), 1, "only oslo's slot holds WAL");
    assert_eq!(
        links(&trio),
        ["back removing", "orders_feed removing", "oslo active", "stock active"]
    );
    let status = "SELECT link FROM nodes.link_status WHERE state = 'removing' ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", status), ["back", "orders_feed"]);
    waits_for(&trio, "london");

    trio.london.start_again();
    assert_eq!(subscriptions(&trio.london), ["back"], "nobody could tell it");
    assert_eq!((slots(&trio.london).len(), publications(&trio.london).len()), (1, 1));
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    trio.london.assert_no_residue("app");
    assert_eq!(links(&trio), ["oslo active", "stock active"]);
    end(&trio);
}

#[test]
fn a_name_is_used_again_while_its_removal_waits() {
    let mut trio = start();
    trio.london.crash();
    remove(&trio, "SELECT nodes.remove_link('back')");
    remove(&trio, ADD_BACK);
    let back = |trio: &Trio| links(trio).into_iter().filter(|l| l.starts_with("back")).count();
    assert_eq!(back(&trio), 2, "one waits to go, one to come");

    trio.london.start_again();
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    assert_eq!(back(&trio), 1);
    trio.paris.sql("app", "INSERT INTO visitors VALUES (1)");
    let count = "SELECT count(*)::text FROM visitors";
    wait_until("the visitor to arrive", LONG, || trio.london.query_one_text("app", count) == "1");
    end(&trio);
}

#[test]
fn what_was_renamed_goes_with_its_link() {
    let trio = start();
    trio.paris.sql("app", "ALTER SUBSCRIPTION orders_feed RENAME TO mine");
    trio.london.sql("app", "ALTER PUBLICATION orders_feed RENAME TO mine");
    remove(&trio, "SELECT nodes.remove_link('orders_feed')");
    assert_eq!(subscriptions(&trio.paris), [""; 0]);
    assert_eq!(publications(&trio.london), [""; 0]);
    assert_eq!(slots(&trio.london), [""; 0]);
    assert_eq!(links(&trio), ["back active", "oslo active", "stock active"]);
    end(&trio);
}

#[test]
fn a_dead_standby() {
    let mut trio = start();
    trio.oslo.crash();
    remove(&trio, "SELECT nodes.remove_link('oslo')");
    let physical = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical'";
    assert_eq!(trio.paris.query_texts("app", physical), [""; 0], "no WAL is kept for it");
    waits_for(&trio, "oslo");

    trio.oslo.start_again();
    assert_ne!(trio.oslo.query_one_text("app", "SHOW primary_conninfo"), "");
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    assert_eq!(trio.oslo.query_one_text("app", "SHOW primary_conninfo"), "");
    assert_eq!(links(&trio), ["back active", "orders_feed active", "stock active"]);
    // It has what Paris had, and loses it by following again.
    remove(&trio, "SELECT nodes.add_standby('oslo', 'paris')");
    end(&trio);
}

#[test]
fn a_node_and_all_its_links() {
    let mut trio = start();
    let refused = trio.paris.psql("app", "SELECT nodes.remove_node('london')");
    assert!(!refused.ok && refused.output.contains("cascade"), "{refused}");
    trio.london.stop();
    remove(&trio, "SELECT nodes.remove_node('london', cascade => true, keep_data => false)");
    assert_eq!(subscriptions(&trio.paris), [""; 0]);
    let foreign = "SELECT srvname FROM pg_foreign_server";
    assert_eq!(trio.paris.query_texts("app", foreign), [""; 0]);
    assert_eq!(links(&trio), ["back removing", "orders_feed removing", "oslo active"]);
    waits_for(&trio, "london");

    trio.london.start_again();
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    trio.london.assert_no_residue("app");
    assert_eq!(links(&trio), ["oslo active"]);
    let nodes = "SELECT name FROM nodes.node ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", nodes), ["oslo", "paris"]);
    end(&trio);
}

#[test]
fn a_teardown_with_a_dead_node_is_not_done() {
    let mut trio = start();
    trio.london.crash();
    for _ in 0..2 {
        let verbose = ["-v", "VERBOSITY=verbose"];
        let said = trio.paris.psql_with("app", &verbose, "CALL nodes.teardown()");
        assert!(!said.ok && said.output.contains("ERROR:  55000: something is left"), "{said}");
        let left = "Left: subscription \"orders_feed\" from \"london\" to \"paris\", \
                    subscription \"back\" from \"paris\" to \"london\".";
        assert!(said.output.contains(left), "{said}");
        assert!(said.output.contains("link \"back\": node \"london\" did not answer"), "{said}");
        assert!(said.output.contains("HINT:  Run nodes.teardown() again"), "{said}");
    }
    trio.paris.assert_no_residue("app");
    assert_eq!(links(&trio), ["back removing", "orders_feed removing"]);
    trio.london.start_again();
    end(&trio);
    assert_eq!(links(&trio), [""; 0]);
}

#[test]
fn a_node_that_is_gone_for_good_is_given_up() {
    let mut trio = start();
    trio.london.crash();
    remove(&trio, "SELECT nodes.remove_node('london', cascade => true, keep_data => false)");
    waits_for(&trio, "london");
    trio.paris.sql(
        "app",
        "CREATE ROLE manager; GRANT USAGE ON SCHEMA nodes TO manager;
         GRANT EXECUTE ON FUNCTION nodes.forget_node(text) TO manager",
    );
    let forget = "SELECT nodes.forget_node('london')";
    trio.paris.caller("manager").refused(forget, "42501", "is for superusers");
    let told = trio.paris.query_one_text("app", forget);
    let paris = trio.paris.query_one_text("app", IDENTIFIER);
    let copies =
        format!(r"slots LIKE 'pg\_%\_sync\_%\_{paris}' of tables whose copy had not ended");
    let left = ["publication \"orders_feed\"", "subscription \"back\"", "slot \"nodes_", &copies];
    for left in left {
        assert!(told.contains(left), "{told}");
    }
    assert!(trio.plan().iter().all(|row| row.starts_with("forget")), "{:#?}", trio.plan());
    trio.apply();
    assert_eq!(trio.plan(), [""; 0]);
    assert_eq!(links(&trio), ["oslo active"]);
    let nodes = "SELECT name FROM nodes.node ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", nodes), ["oslo", "paris"]);

    // And with links that were not removed before.
    trio.oslo.crash();
    trio.paris.sql("app", "SELECT nodes.forget_node('oslo')");
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
}

#[test]
fn foreign_data_is_kept_or_dropped() {
    let trio = start();
    for schema in ["gone", "shared"] {
        let add = format!("SELECT nodes.add_foreign_schema('{schema}', 'london', 'inventory')");
        trio.paris.sql("app", &add);
    }
    trio.apply();
    trio.paris.sql("app", "CREATE TABLE shared.mine (id int)");
    remove(
        &trio,
        "SELECT nodes.remove_link('stock'), nodes.remove_link('gone', keep_data => false),
                nodes.remove_link('shared', keep_data => false)",
    );
    assert_eq!(trio.plan(), [""; 0]);
    let tables = "SELECT format('%s.%s', table_schema, table_name) FROM information_schema.tables
                  WHERE table_schema IN ('stock', 'gone', 'shared') ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", tables), ["shared.mine", "stock.items"]);
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname IN ('stock', 'gone', 'shared')
                   ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", schemas), ["shared", "stock"]);
    let kept = "SELECT count(*)::text FROM stock.items";
    assert_eq!(trio.paris.query_one_text("app", kept), "2", "what is kept still works");

    trio.paris.sql("app", "CALL nodes.teardown()");
    assert_eq!(trio.paris.query_one_text("app", kept), "2", "what is kept is not ours any more");
    for server in [&trio.paris, &trio.oslo] {
        wait_until("nothing bears our mark", LONG, || {
            let kept = |line: &String| line.starts_with("foreign servers: stock");
            let kept_for = |line: &String| line.starts_with("user mappings: ");
            let residue = server.residue("app");
            residue.len() == 2 && residue.iter().all(|line| kept(line) || kept_for(line))
        });
    }
    trio.london.assert_no_residue("app");
}
