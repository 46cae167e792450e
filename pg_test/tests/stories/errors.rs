//! The errors that only a server can bring about: each has its SQLSTATE, says in DETAIL what is
//! and in HINT what to do. (What can be known without any is in regress/.)

use pg_test::Server;
use pg_test::trio::add_node;

/// A registry on paris, and london with a table.
fn pair() -> (Server, Server) {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    (paris, london)
}

/// A statement ends with this error, detail and hint, each as far as it is given.
#[track_caller]
fn refused(server: &Server, sql: &str, error: &str, detail: &str, hint: &str) {
    let said = server.psql_with("app", &["-v", "VERBOSITY=verbose"], sql);
    assert!(!said.ok, "{sql} works:\n{said}");
    for line in [format!("ERROR:  {error}"), format!("DETAIL:  {detail}"), format!("HINT:  {hint}")]
    {
        assert!(said.output.contains(&line), "{sql} does not say {line}:\n{said}");
    }
}

#[test]
fn each_has_its_code_detail_and_hint() {
    let (paris, mut london) = pair();
    let foreign = "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory')";
    add_node(&paris, "london", &london);
    refused(
        &paris,
        foreign,
        "55000: this server is not registered as a node",
        "Asked: \"london\" is another server.",
        "Register it with nodes.add_node(), or name the node in the call.",
    );
    add_node(&paris, "paris", &paris);
    paris.sql("app", foreign);
    let wait = "SELECT nodes.wait_for_link('stock', '100ms')";
    let said = paris.psql_with("app", &["-v", "VERBOSITY=verbose"], wait);
    assert!(said.output.contains("ERROR:  57014: timed out waiting for link \"stock\""), "{said}");
    assert!(said.output.contains("HINT:  nodes.status and nodes.link_status say why."), "{said}");

    paris.sql("app", "CREATE SCHEMA stock; CREATE TABLE stock.other (id integer)");
    refused(
        &paris,
        "CALL nodes.apply()",
        "55000: 1 of 1 links could not be made right",
        "link \"stock\": schema \"stock\" on node \"paris\" exists and holds 1 other tables",
        "Correct the cause and run nodes.apply() again; what is done stays done.",
    );
    paris.sql("app", "DROP SCHEMA stock CASCADE");
    // What fails on a node keeps that node's code.
    london.sql("app", "ALTER TABLE inventory.items ADD COLUMN mood text");
    london.sql("app", "CREATE TYPE mood AS ENUM ('good'); ALTER TABLE inventory.items ALTER COLUMN mood TYPE mood USING NULL");
    refused(
        &paris,
        "CALL nodes.apply()",
        "42704: 1 of 1 links could not be made right",
        "link \"stock\": import tables on node \"paris\" failed: type \"public.mood\" does not exist",
        "Correct the cause and run nodes.apply() again; what is done stays done.",
    );
    london.sql("app", "ALTER TABLE inventory.items DROP COLUMN mood");
    paris.sql("app", "CALL nodes.apply()");

    london.pause();
    let said = paris.psql_with(
        "app",
        &["-v", "VERBOSITY=verbose"],
        "CALL nodes.apply(timeout => '300ms')",
    );
    london.resume();
    assert!(said.output.contains("ERROR:  57014: timed out waiting for nodes.apply()"), "{said}");
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

#[test]
fn a_copy_that_is_passive_says_so() {
    let (paris, london) = pair();
    add_node(&paris, "london", &london);
    paris.sql("app", "UPDATE nodes.registry SET system_identifier = '4711'");
    let here = "SELECT system_identifier::text FROM pg_control_system()";
    let here = paris.query_one_text("app", here);
    for call in ["SELECT nodes.remove_node('london')", "CALL nodes.apply()"] {
        refused(
            &paris,
            call,
            "55000: this registry belongs to another server",
            &format!("It was made on the server with system identifier 4711, this one is {here}."),
            "If this server is to act for the registry, call nodes.take_over().",
        );
    }
}
