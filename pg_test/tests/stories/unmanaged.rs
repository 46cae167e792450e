//! A group that somebody else manages, here a person by hand: what is refused there, and how links
//! follow where no worker has them follow.

use pg_test::names::literal;
use pg_test::trio::{add_node, apply, ends, plan};
use pg_test::{LONG, Server, wait_until};

struct Cluster {
    paris: Server,
    oslo: Server,
    /// Has the registry, and no worker.
    london: Server,
}

fn cluster() -> Cluster {
    let (paris, london) = (Server::builder("paris").start(), Server::builder("london").start());
    for server in [&paris, &london] {
        server.create_db("app");
    }
    paris.sql("app", "CREATE VIEW here AS SELECT current_setting('port')::integer AS port");
    let oslo = paris.clone_standby("oslo");
    let conninfo = literal(&paris.conninfo("postgres"));
    oslo.sql("app", &format!("ALTER SYSTEM SET primary_conninfo = {conninfo}"));
    oslo.reload();
    london.sql("app", "CREATE EXTENSION pg_nodes");
    for (name, server) in [("paris", &paris), ("oslo", &oslo), ("london", &london)] {
        add_node(&london, name, server);
    }
    london.sql(
        "app",
        "SELECT nodes.add_standby('oslo', primary_node => 'paris', managed => false);
         SELECT nodes.add_foreign_schema('stock', node => 'paris')",
    );
    apply(&london);
    Cluster { paris, oslo, london }
}

/// What pg_nodes has made on a server: slots, and settings beyond those that came with it.
fn made_on(server: &Server) -> Vec<String> {
    server.query_texts(
        "postgres",
        "SELECT slot_name::text FROM pg_replication_slots UNION ALL
         SELECT format('%s = %s', name, setting) FROM pg_file_settings
         WHERE sourcefile LIKE '%auto.conf'",
    )
}

fn port(london: &Server) -> String {
    london.query_one_text("app", "SELECT port::text FROM stock.here")
}

#[test]
fn one_call_has_links_follow_who_was_promoted() {
    let mut cluster = cluster();
    let Cluster { paris, oslo, london } = &mut cluster;
    let follows = format!("primary_conninfo = {}", paris.conninfo("postgres"));
    assert_eq!(made_on(paris), [""; 0]);
    assert_eq!(made_on(oslo), std::slice::from_ref(&follows));
    assert_eq!(plan(london), [""; 0], "nothing is left to do");
    london.await_link("oslo", "streaming");
    assert_eq!(port(london), paris.port().to_string());
    paris.crash();
    let promote = "CALL nodes.promote('oslo')";
    let said = london.psql("app", promote);
    assert!(!said.ok && said.output.contains("Have the failover manager promote it"), "{said}");
    oslo.sql("postgres", "SELECT pg_promote()");
    let told = |line: &String| line.contains("\"oslo\" is a primary now");
    assert!(plan(london).iter().any(told), "{:?}", plan(london));
    let said = london.psql("app", promote);
    assert!(said.ok, "{said}");
    assert_eq!(ends(london), ["oslo: oslo to paris", "stock: oslo to london"]);
    assert_eq!(port(london), oslo.port().to_string());
    let listed = "SELECT option_value FROM information_schema.foreign_server_options
        WHERE option_name = 'port'";
    let ports = format!("{},{}", oslo.port(), paris.port());
    wait_until("oslo is listed first", LONG, || london.query_one_text("app", listed) == ports);
    assert_eq!(made_on(oslo), [follows]);
}

#[test]
fn what_a_failover_manager_does_is_refused() {
    let Cluster { paris: _paris, oslo, london } = cluster();
    let rome = Server::builder("rome").start();
    rome.create_db("app");
    add_node(&london, "rome", &rome);
    let manager = "somebody else manages the group of";
    for call in [
        "CALL nodes.switchover('oslo')",
        "CALL nodes.rejoin('oslo')",
        "CALL nodes.promote('oslo', force => true)",
        "CALL nodes.clone_standby('bergen', 'paris', '/nonexistent/bergen')",
        "SELECT nodes.add_standby('rome', primary_node => 'paris')",
        "SELECT nodes.add_standby('rome', primary_node => 'oslo')",
    ] {
        let said = london.psql("app", call);
        assert!(!said.ok && said.output.contains(manager), "{call}: {said}");
    }
    for change in ["slot => true", "synchronous => true", "options => '{}'"] {
        let said = london.psql("app", &format!("SELECT nodes.alter_link('oslo', {change})"));
        assert!(!said.ok && said.output.contains("for what manages the group"), "{said}");
    }
    london.sql("app", "SELECT nodes.add_standby('rome', primary_node => 'london')");
    let mixed = "SELECT nodes.add_standby('london', primary_node => 'oslo', managed => false)";
    let said = london.psql("app", mixed);
    assert!(!said.ok && said.output.contains("is managed by this registry"), "{said}");
    // It leaves as it came.
    london.sql("app", "SELECT nodes.remove_link('rome'), nodes.remove_link('oslo')");
    apply(&london);
    assert_eq!(ends(&london), ["stock: paris to london"]);
    let streams = "SELECT count(*)::text FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    assert_eq!(oslo.query_one_text("app", streams), "1");
}
