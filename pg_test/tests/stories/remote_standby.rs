//! A standby of another server, neither of which has pg_nodes: the registry lives on a third
//! one, which is no node at all. Port, password and host of the primary are told once, the
//! standby follows, and the removal leaves nothing.

use pg_test::names::literal;
use pg_test::trio::{apply, plan};
use pg_test::{LONG, Server, wait_until};
use std::os::unix::fs::PermissionsExt as _;

/// Passwords that break careless quoting, with a word that is in nothing else.
const OLD: &str = r#"old:sesame'word \ "x" $$"#;
const NEW: &str = r#"new:sesame'wörd \\ "y" =1"#;

struct World {
    london: Server,
    paris: Server,
    oslo: Server,
}

fn start() -> World {
    let london = Server::builder("london").start();
    let paris = Server::builder("paris").password(OLD).start();
    for server in [&london, &paris] {
        server.create_db("app");
    }
    paris.sql("app", "CREATE TABLE visitors (id int PRIMARY KEY)");
    london.sql("app", "CREATE EXTENSION pg_nodes");
    let oslo = Server::builder("oslo").hba("host all all 127.0.0.1/32 scram-sha-256");
    let oslo = paris.clone_standby_with(oslo);
    let world = World { london, paris, oslo };
    for (node, server) in [("paris", &world.paris), ("oslo", &world.oslo)] {
        world.call("SELECT nodes.add_node($1, $2, password => $3)", &[node, &address(server), OLD]);
    }
    world
}

fn address(server: &Server) -> String {
    server.conninfo("app")
}

impl World {
    /// A call of the registry with text arguments.
    fn call(&self, call: &str, arguments: &[&str]) {
        let arguments: Vec<&(dyn postgres::types::ToSql + Sync)> =
            arguments.iter().map(|text| text as _).collect();
        self.london.client("app").query(call, &arguments).expect("a call of the registry");
    }

    fn setting(&self, name: &str) -> String {
        self.oslo.query_one_text("app", &format!("SHOW {name}"))
    }

    /// A row reaches oslo through a connection that is made now.
    fn assert_streams(&self, id: u32) {
        self.paris.sql("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
        self.paris.sql("app", &format!("INSERT INTO visitors VALUES ({id})"));
        let count = format!("SELECT count(*)::text FROM visitors WHERE id = {id}");
        wait_until("the visitor arrives", LONG, || self.oslo.query_one_text("app", &count) == "1");
    }

    /// Oslo is told, nothing is dropped, and no place shows a password.
    fn follow(&self, id: u32) {
        let rows = self.london.query_texts("app", "SELECT p::text FROM nodes.plan() AS p");
        assert!(!rows.is_empty(), "oslo must be told");
        for row in &rows {
            let harmless = row.contains("oslo") && !row.contains("drop") && !row.contains("sesame");
            assert!(harmless, "{row}");
        }
        let said = apply(&self.london);
        assert!(!said.contains("sesame"), "{said}");
        assert_eq!(plan(&self.london), [""; 0], "after apply the plan is empty");
        assert!(!self.setting("primary_conninfo").contains("sesame"));
        self.assert_streams(id);
    }
}

#[test]
fn it_follows_and_goes() {
    let mut world = start();
    world.london.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    assert_eq!(world.paris.residue("app"), [""; 0], "planning changes nothing");
    apply(&world.london);
    assert_eq!(plan(&world.london), [""; 0], "after apply the plan is empty");
    world.assert_streams(1);
    let slot = world.setting("primary_slot_name");
    let slots = "SELECT slot_name || ' ' || active FROM pg_replication_slots";
    let used = [format!("{slot} true")];
    wait_until("oslo uses its slot", LONG, || world.paris.query_texts("app", slots) == used);

    world.paris.move_to_another_port();
    world.call("SELECT nodes.alter_node('paris', $1)", &[&address(&world.paris)]);
    world.follow(2);
    let port = format!("port={}", world.paris.port());
    assert!(world.setting("primary_conninfo").contains(&port), "it has the new port");

    world.paris.sql("app", &format!("ALTER ROLE postgres PASSWORD {}", literal(NEW)));
    for node in ["paris", "oslo"] {
        world.call("SELECT nodes.set_password($1, $2)", &[node, NEW]);
    }
    world.follow(3);
    let passfile = world.oslo.data_dir().join("pg_nodes.passfile");
    let mode = std::fs::metadata(&passfile).expect("a passfile").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&passfile).expect("text").contains("new"));

    let socket = world.paris.socket_dir().display().to_string();
    let moved = address(&world.paris).replace("127.0.0.1", &socket);
    world.call("SELECT nodes.alter_node('paris', $1)", &[&moved]);
    world.follow(4);
    assert!(world.setting("primary_conninfo").contains(&socket), "it has the new host");
    assert_eq!(world.setting("primary_slot_name"), slot, "the slot is the same");

    world.london.sql("app", "SELECT nodes.remove_link('oslo')");
    apply(&world.london);
    assert_eq!(plan(&world.london), [""; 0]);
    assert_eq!(world.setting("primary_conninfo"), "");
    world.london.sql("app", "CALL nodes.teardown()");
    for server in [&world.paris, &world.london, &world.oslo] {
        server.assert_no_residue("app");
    }
}

/// The primary is gone when the link is removed, then the standby: the rest waits, and is done.
#[test]
fn it_goes_when_either_was_dead() {
    let mut world = start();
    for dead in ["paris", "oslo"] {
        world.london.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
        apply(&world.london);
        world.assert_streams(if dead == "paris" { 1 } else { 2 });
        let server = if dead == "paris" { &mut world.paris } else { &mut world.oslo };
        server.crash();
        world.london.sql("app", "SELECT nodes.remove_link('oslo')");
        apply(&world.london);
        let waiting = format!("waiting on {dead}: node \"{dead}\" did not answer");
        let rows = plan(&world.london);
        assert!(!rows.is_empty() && rows.iter().all(|row| row.starts_with(&waiting)), "{rows:#?}");
        let living = if dead == "paris" { &world.oslo } else { &world.paris };
        living.assert_no_residue("app");
        let server = if dead == "paris" { &mut world.paris } else { &mut world.oslo };
        server.start_again();
        apply(&world.london);
        assert_eq!(plan(&world.london), [""; 0]);
        for server in [&world.paris, &world.london, &world.oslo] {
            server.assert_no_residue("app");
        }
    }
    world.london.sql("app", "CALL nodes.teardown()");
}
