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
          WHEN 'interval' THEN '''1s''' WHEN 'integer' THEN '1' ELSE '''{}''' END, ', ' ORDER BY n)
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
        "TABLE nodes.headroom",
        "TABLE nodes.failover_ready",
        "TABLE nodes.failover_slots",
        "TABLE nodes.events",
        "TABLE nodes.step_log",
        "TABLE nodes.node",
    ] {
        watcher.allowed(read);
    }
    watcher.allowed("SELECT id, system_identifier FROM nodes.registry");
    for secret in ["TABLE nodes.secret", "SELECT key FROM nodes.registry"] {
        watcher.refused(secret, "42501", "permission denied");
    }
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

    for call in [
        "CALL nodes.promote('paris')",
        "CALL nodes.switchover('paris')",
        "CALL nodes.rejoin('paris')",
        "SELECT nodes.move_links('london', 'paris')",
        "SELECT nodes.demote_step('restart', '{}')",
    ] {
        manager.refused(call, "42501", "superuser");
    }

    // The owner vouches for paris: now the manager's link is made, for the manager.
    let vouch = format!("SELECT nodes.alter_node('paris', '{}')", paris.conninfo("app"));
    paris.sql("app", &vouch);
    manager.allowed("CALL nodes.apply()");
    manager.allowed("SELECT * FROM stock.items");
    manager.allowed("CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

/// What the owner's passwords are is read where they stand: not on a server of the manager's.
#[test]
fn a_manager_learns_nobodys_password() {
    let World { paris, london } = world();
    let mine = Server::builder("mine").password("mine").start();
    mine.create_db("app");
    mine.sql("app", "CREATE ROLE manager");
    let (lon, par) = (london.conninfo("app"), paris.conninfo("app"));
    let own = mine.conninfo("app");
    paris.sql(
        "app",
        &format!(
            "SELECT nodes.add_node('london', '{lon} password=s3cret');
             SELECT nodes.add_node('open', '{par}');
             SELECT nodes.add_node('paris', '{par}')"
        ),
    );
    let mut manager = paris.caller("manager");
    manager.allowed(&format!("SELECT nodes.add_node('mine', '{own} password=mine')"));
    let words = "only a superuser may take the password of node \"london\" to node \"mine\"";
    for link in [
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'mine')",
        "SELECT nodes.add_subscription('feed', 'london', 'mine')",
        "SELECT nodes.add_standby('mine', 'london')",
    ] {
        manager.refused(link, "42501", words);
        // One without a password may get one later.
        manager.refused(&link.replace("london", "open"), "42501", "node \"open\" to node \"mine\"");
    }
    // Nor by moving a node to which a password goes already.
    paris.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris')",
    );
    for change in [
        format!("conninfo => '{own} password=mine'"),
        format!("admin_conninfo => '{own} password=mine', password => 'mine'"),
        "password => 'mine'".to_owned(),
    ] {
        let alter = format!("SELECT nodes.alter_node('paris', {change})");
        manager.refused(&alter, "42501", "node \"london\" to node \"paris\"");
    }
    // What is the manager's own goes wherever the manager wants.
    manager.allowed(&format!("SELECT nodes.add_node('yours', '{own} password=mine')"));
    manager.allowed("SELECT nodes.add_foreign_schema('own', 'yours', on_node => 'mine')");
    manager.allowed("SELECT nodes.add_foreign_schema('other', 'yours', on_node => 'paris')");
    let told = "SELECT nodes.set_password('yours', 'mine')";
    let told = paris.query_one_text("app", told);
    assert!(told.ends_with("stand on \"mine\" too, which no superuser vouches for"), "{told}");
    // A superuser may do as he likes, and is not taken in by who says that it is this server.
    paris.sql(
        "app",
        "SELECT nodes.remove_node('paris', cascade => true), nodes.remove_node('open')",
    );
    paris.sql("app", "CALL nodes.apply()");
    manager.allowed(&format!("SELECT nodes.add_node('false', '{par}', password => 'x')"));
    let said = paris.psql("app", "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory')");
    assert!(said.output.contains("no superuser vouches for \"false\""), "{said}");
    let link = "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'mine')";
    paris.sql("app", link);
    paris.sql("app", "CALL nodes.apply()");
    let passwords =
        "SELECT count(*)::text FROM pg_user_mappings WHERE umoptions::text LIKE '%s3cret%'";
    assert_eq!(mine.query_one_text("app", passwords), "1");
    paris.sql("app", "CALL nodes.teardown()");
    for server in [&paris, &london, &mine] {
        server.assert_no_residue("app");
    }
}
