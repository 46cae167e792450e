//! A role without superuser tries everything: it gets what was granted and not a step further.

use pg_test::Server;
use pg_test::trio::plan;

/// Paris lets everybody in, london asks for a password.
struct World {
    paris: Server,
    london: Server,
}

fn world() -> World {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password("s3cret").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql(
        "app",
        "CREATE EXTENSION pg_nodes;
         CREATE ROLE nobody; CREATE ROLE manager; CREATE ROLE watcher IN ROLE pg_monitor;
         GRANT USAGE ON SCHEMA nodes TO nobody, manager;
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA nodes TO manager;
         GRANT CREATE ON DATABASE app TO manager",
    );
    World { paris, london }
}

#[test]
fn nothing_is_granted_to_everybody() {
    let World { paris, .. } = world();
    let calls =
        "SELECT format('%s nodes.%I(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END,
        proname, (SELECT string_agg(CASE format_type(t, NULL) WHEN 'text' THEN '''x''' WHEN 'boolean' THEN 'true'
          WHEN 'interval' THEN '''1s''' ELSE '''{}''' END, ', ' ORDER BY n)
          FROM unnest(proargtypes) WITH ORDINALITY a(t, n)))
        FROM pg_proc WHERE pronamespace = 'nodes'::regnamespace";
    let reads = "SELECT format('TABLE nodes.%I', relname) FROM pg_class
        WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v')";
    let calls = paris.query_texts("app", calls);
    let reads = paris.query_texts("app", reads);
    assert!(calls.len() >= 20 && reads.len() >= 9, "{calls:?} {reads:?}");
    let mut nobody = paris.caller("nobody");
    for statement in calls.iter().chain(&reads) {
        nobody.refused(statement, "42501", "permission denied");
    }
}

#[test]
fn pg_monitor_reads_all_but_secrets() {
    let World { paris, london } = world();
    let conninfo = format!("{} password=s3cret", london.conninfo("app"));
    paris.sql("app", &format!("SELECT nodes.add_node('london', '{conninfo}')"));
    let mut watcher = paris.caller("watcher");
    for read in [
        "SELECT * FROM nodes.plan()",
        "SELECT * FROM nodes.rules()",
        "SELECT nodes.topology()",
        "TABLE nodes.status",
        "TABLE nodes.link_status",
        "TABLE nodes.slots",
        "TABLE nodes.events",
        "TABLE nodes.step_log",
        "TABLE nodes.node",
    ] {
        watcher.allowed(read);
    }
    watcher.refused("TABLE nodes.secret", "42501", "permission denied");
    for change in [
        "SELECT nodes.add_node('x', 'host=x')",
        "SELECT nodes.take_over()",
        "CALL nodes.apply()",
        "DELETE FROM nodes.step_log",
    ] {
        watcher.refused(change, "42501", "permission denied");
    }
    let health = watcher.0.query_one("SELECT health FROM nodes.status", &[]).expect("one node");
    assert_eq!(health.get::<_, String>(0), "up");
}

#[test]
fn a_manager_must_prove_itself_with_a_password() {
    let World { paris, london } = world();
    let mut manager = paris.caller("manager");
    let add = |conninfo: &str| format!("SELECT nodes.add_node('london', '{conninfo}')");
    let reach = london.conninfo("app");
    manager.refused(&add(&reach), "2F003", "must give a password");
    for option in ["passfile=/x", "service=x", "sslkey=/x", "sslcert=/x", "sslrootcert=/x"] {
        let conninfo = format!("{reach} password=s3cret {option}");
        let word = option.split('=').next().expect("a keyword");
        manager.refused(&add(&conninfo), "42501", word);
        let admin = format!(
            "SELECT nodes.add_node('london', '{reach} password=s3cret',
                             admin_conninfo => '{conninfo}')"
        );
        manager.refused(&admin, "42501", word);
    }
    manager.allowed(&add(&format!("{reach} password=s3cret")));
    manager.allowed(&format!(
        "SELECT nodes.add_node('paris', '{}', password => 'x')",
        paris.conninfo("app")
    ));
    let said = paris.query_texts("app", "SELECT error FROM nodes.status WHERE node = 'paris'");
    assert!(said[0].contains("did not ask for the password"), "{said:?}");

    manager.refused("SELECT nodes.set_password('london', NULL)", "2F003", "password");
    let elsewhere = "SELECT nodes.alter_node('london', 'host=elsewhere.example user=me')";
    manager.refused(elsewhere, "2F003", "password");
    manager.refused("TABLE nodes.secret", "42501", "permission denied");
    let link =
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris')";
    manager.allowed(link);
    manager.allowed("CALL nodes.apply()");
    assert!(plan(&paris)[0].contains("did not ask for the password"), "{:?}", plan(&paris));
    assert_eq!(paris.residue("app"), [""; 0], "nobody was let in without a password");

    // The owner vouches for paris: now the manager's link is made, for the manager.
    let vouch = format!("SELECT nodes.alter_node('paris', '{}')", paris.conninfo("app"));
    paris.sql("app", &vouch);
    manager.allowed("CALL nodes.apply()");
    manager.allowed("SELECT * FROM stock.items");
    manager.allowed("CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}
