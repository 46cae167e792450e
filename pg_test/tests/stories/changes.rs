//! A node gets another port, another host, another password: told once, everything that
//! connects to it follows, and nothing is dropped on the way.

use pg_test::names::literal;
use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

/// Passwords that break careless quoting: in SQL, in a conninfo, in a passfile.
const OLD: &str = r#"old:pass'word \ "x" $$"#;
const NEW: &str = r#"new:pass'wörd \\ "y" =1"#;

/// Everything on paris that connects elsewhere or hangs from what does.
const OBJECTS: &str = "
    SELECT format('subscription %s %s', subname, oid) FROM pg_subscription
    UNION ALL SELECT format('server %s %s', srvname, oid) FROM pg_foreign_server
    UNION ALL SELECT format('mapping %s %s', usename, umid) FROM pg_user_mappings
    UNION ALL SELECT format('table %s %s', ftrelid::regclass, ftrelid) FROM pg_foreign_table
    ORDER BY 1";

fn alter_node(trio: &Trio, node: &str, conninfo: &str) {
    let mut client = trio.paris.client("app");
    client.query("SELECT nodes.alter_node($1, $2)", &[&node, &conninfo]).expect("alter_node");
}

/// What the plan would do, after a look that it destroys nothing and tells no secret.
fn harmless_plan(trio: &Trio) -> Vec<String> {
    let plan = trio.paris.query_texts("app", "SELECT p::text FROM nodes.plan() AS p");
    for row in &plan {
        for word in ["DROP ", "drop_replication_slot", "CREATE ", ":pass"] {
            assert!(!row.contains(word), "{word} in {row}");
        }
    }
    plan
}

/// Applies a change and proves that the same objects carry rows by new connections.
fn apply_keeps_objects(trio: &Trio, id: u32) {
    let before = trio.paris.query_texts("app", OBJECTS);
    assert_eq!(before.len(), 4, "{before:?}");
    assert!(!harmless_plan(trio).is_empty(), "the others must be told");
    trio.apply();
    assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
    assert_eq!(trio.paris.query_texts("app", OBJECTS), before, "none was dropped");

    let hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    for server in [&trio.paris, &trio.london] {
        server.sql("app", hang_up);
    }
    trio.london.sql("app", &format!("INSERT INTO orders VALUES ({id}, 'new')"));
    let count = format!("SELECT count(*)::text FROM orders WHERE id = {id}");
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order to arrive", LONG, || server.query_one_text("app", &count) == "1");
    }
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM stock.items"), "2");
}

fn end(trio: &Trio) {
    trio.paris.sql("app", "CALL nodes.teardown()");
    for server in [&trio.paris, &trio.london] {
        server.assert_no_residue("app");
    }
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
}

fn primary_conninfo(trio: &Trio) -> String {
    trio.oslo.query_one_text("app", "SHOW primary_conninfo")
}

#[test]
fn port_and_host_are_told_once() {
    let mut trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();

    trio.london.move_to_another_port();
    let silent = harmless_plan(&trio);
    assert!(silent.iter().any(|row| row.contains("did not answer")), "{silent:?}");
    alter_node(&trio, "london", &trio.london.conninfo("app"));
    apply_keeps_objects(&trio, 2001);

    trio.paris.move_to_another_port();
    alter_node(&trio, "paris", &trio.paris.conninfo("app"));
    apply_keeps_objects(&trio, 2002);
    let port = format!("port={}", trio.paris.port());
    assert!(primary_conninfo(&trio).contains(&port), "{}", primary_conninfo(&trio));

    for (node, server) in [("london", &trio.london), ("paris", &trio.paris)] {
        let socket = server.socket_dir().display().to_string();
        alter_node(&trio, node, &server.conninfo("app").replace("127.0.0.1", &socket));
    }
    apply_keeps_objects(&trio, 2003);
    let socket = trio.london.socket_dir().display().to_string();
    let hosts = "SELECT subconninfo FROM pg_subscription
                 UNION ALL SELECT srvoptions::text FROM pg_foreign_server";
    for conninfo in trio.paris.query_texts("app", hosts) {
        assert!(conninfo.contains(&socket), "{conninfo}");
    }
    let socket = trio.paris.socket_dir().display().to_string();
    assert!(primary_conninfo(&trio).contains(&socket), "{}", primary_conninfo(&trio));
    end(&trio);
}

/// What stands in the way of one thing is no reason to leave connections wrong.
#[test]
fn a_refused_link_follows_all_the_same() {
    let mut trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    trio.london.sql("app", "ALTER TABLE customers DROP CONSTRAINT customers_pkey");
    trio.london.move_to_another_port();
    alter_node(&trio, "london", &trio.london.conninfo("app"));
    let refused = trio.paris.psql("app", "CALL nodes.apply()");
    assert!(!refused.ok && refused.output.contains("no replica identity"), "{refused}");
    let port = format!("port={}", trio.london.port());
    let conninfo = trio.paris.query_one_text("app", "SELECT subconninfo FROM pg_subscription");
    assert!(conninfo.contains(&port), "{conninfo}");
    trio.london.sql("app", "INSERT INTO orders VALUES (2001, 'new')");
    let count = "SELECT count(*)::text FROM orders WHERE id = 2001";
    wait_until("the order to arrive", LONG, || trio.paris.query_one_text("app", count) == "1");

    trio.paris.sql("app", "SELECT nodes.pause_link('orders_feed')");
    assert!(!trio.paris.psql("app", "CALL nodes.apply()").ok, "still refused");
    let enabled = "SELECT subenabled::text FROM pg_subscription";
    assert_eq!(trio.paris.query_one_text("app", enabled), "false");
    end(&trio);
}

#[test]
fn a_password_is_told_once() {
    let with_password = |name: &str| Server::builder(name).password(OLD);
    let oslo = Server::builder("oslo").hba("host all all 127.0.0.1/32 scram-sha-256");
    let trio = Trio::start_with(with_password("paris"), with_password("london"), oslo);
    trio.register();
    set_passwords(&trio, &["paris", "london", "oslo"], OLD);
    trio.link();
    trio.apply();
    assert!(!primary_conninfo(&trio).contains(":pass"), "{}", primary_conninfo(&trio));

    // What paris is told, oslo learns by replication.
    let change = format!("ALTER ROLE postgres PASSWORD {}", literal(NEW));
    trio.london.sql("app", &change);
    set_passwords(&trio, &["london"], NEW);
    apply_keeps_objects(&trio, 2001);
    trio.paris.sql("app", &change);
    set_passwords(&trio, &["paris", "oslo"], NEW);
    apply_keeps_objects(&trio, 2002);
    end(&trio);
}

fn set_passwords(trio: &Trio, nodes: &[&str], password: &str) {
    let mut client = trio.paris.client("app");
    for node in nodes {
        client.query("SELECT nodes.set_password($1, $2)", &[node, &password]).expect("password");
    }
}

/// Who may read neither a subscription's conninfo nor a mapping of somebody else sees by the
/// marks that they are old.
#[test]
fn a_password_changed_by_a_role_without_superuser() {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password(OLD).start();
    let subscribes = Server::major() >= 16;
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    london.sql("app", "CREATE TABLE orders (id integer PRIMARY KEY)");
    paris.sql(
        "app",
        "CREATE EXTENSION pg_nodes; CREATE EXTENSION postgres_fdw; CREATE ROLE link LOGIN;
         GRANT CREATE ON DATABASE app TO link;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO link;
         CREATE TABLE orders (id integer PRIMARY KEY); ALTER TABLE orders OWNER TO link",
    );
    let own = paris.conninfo("app");
    let mut client = paris.client("app");
    let link = own.replace("postgres", "link");
    client.query("SELECT nodes.add_node('paris', $1, $2)", &[&own, &link]).expect("paris");
    let london_is = london.conninfo("app");
    let add = "SELECT nodes.add_node('london', $1, password => $2)";
    client.query(add, &[&london_is, &OLD]).expect("london");
    let foreign =
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris')";
    paris.sql("app", foreign);
    if subscribes {
        paris.sql("app", "GRANT pg_create_subscription TO link");
        paris.sql("app", "SELECT nodes.add_subscription('feed', 'london', 'paris', '{orders}')");
    }
    pg_test::trio::apply(&paris);
    assert_eq!(pg_test::trio::plan(&paris), [""; 0]);

    london.sql("app", &format!("ALTER ROLE postgres PASSWORD {}", literal(NEW)));
    client.query("SELECT nodes.set_password('london', $1)", &[&NEW]).expect("set_password");
    let plan = pg_test::trio::plan(&paris);
    let altered = |what: &str| plan.iter().filter(|row| row.starts_with(what)).count();
    assert_eq!(altered("alter user mapping on paris"), 2, "{plan:#?}");
    assert_eq!(altered("alter subscription on paris"), usize::from(subscribes), "{plan:#?}");
    pg_test::trio::apply(&paris);
    assert_eq!(pg_test::trio::plan(&paris), [""; 0], "after apply the plan is empty");

    let id = "SELECT id::text FROM stock.items";
    assert_eq!(paris.query_one_text("app", id), "1", "by the mapping of postgres");
    if subscribes {
        london.sql("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
        london.sql("app", "INSERT INTO orders VALUES (1)");
        wait_until("the order to arrive", LONG, || {
            paris.query_texts("app", "SELECT id::text FROM orders") == ["1"]
        });
    }
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

/// She is to keep neither the old password nor, for a moment, the new one.
#[test]
fn a_role_is_taken_off_while_the_password_changes() {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password(OLD).start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE ROLE alice");
    let mut client = paris.client("app");
    let add = "SELECT nodes.add_node('paris', $1), nodes.add_node('london', $2, password => $3)";
    let (own, other) = (paris.conninfo("app"), london.conninfo("app"));
    client.query(add, &[&own, &other, &OLD]).expect("add_node");
    paris.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris');
         SELECT nodes.alter_link('stock', roles => '{postgres,alice}')",
    );
    pg_test::trio::apply(&paris);
    let items = "SELECT id FROM stock.items";
    paris.caller("alice").allowed(items);

    london.sql("app", &format!("ALTER ROLE postgres PASSWORD {}", literal(NEW)));
    client.query("SELECT nodes.set_password('london', $1)", &[&NEW]).expect("set_password");
    paris.sql("app", "SELECT nodes.alter_link('stock', roles => '{postgres}')");
    let plan = pg_test::trio::plan(&paris);
    let of_alice: Vec<&String> = plan.iter().filter(|row| row.contains("\"alice\"")).collect();
    assert_eq!(of_alice.len(), 3, "{plan:#?}");
    let harmless = |row: &&String| row.contains("REVOKE") || row.contains("DROP USER MAPPING");
    assert!(of_alice.iter().all(harmless), "{of_alice:#?}");
    pg_test::trio::apply(&paris);
    assert_eq!(pg_test::trio::plan(&paris), [""; 0], "after apply the plan is empty");
    let mapped = "SELECT usename FROM pg_user_mappings";
    assert_eq!(paris.query_texts("app", mapped), ["postgres"]);
    paris.caller("alice").refused(items, "42501", "permission denied");
    assert_eq!(paris.query_texts("app", items), ["1"]);
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}
