//! `nodes.rejoin()`: a primary that was replaced returns as a standby.

use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};

/// Paris and its standby oslo; the registry is on both.
fn pair(settings: &[(&str, &str)]) -> (Server, Server) {
    let builder = |name| {
        let builder = Server::builder(name).conf("full_page_writes", "on");
        settings.iter().fold(builder, |builder, (name, value)| builder.conf(name, value))
    };
    let paris = builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let oslo = paris.clone_standby_with(builder("oslo"));
    for (name, server) in [("paris", &paris), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    apply(&paris);
    paris.sql("app", "INSERT INTO orders VALUES (1)");
    await_orders(&oslo, &["1"]);
    (paris, oslo)
}

fn await_orders(server: &Server, wanted: &[&str]) {
    let orders = "SELECT id FROM orders ORDER BY id";
    wait_until("the orders are there", LONG, || server.query_texts("app", orders) == wanted);
}

/// Paris dies, oslo takes its place, and paris comes back by itself with a write of its own.
fn part(paris: &mut Server, oslo: &Server) {
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow"), "{said}");
    oslo.sql("app", "INSERT INTO orders VALUES (2)");
    paris.start_again();
    paris.sql("app", "INSERT INTO orders VALUES (666)");
}

fn assert_follows(paris: &Server, oslo: &Server) {
    assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "true");
    oslo.sql("app", "INSERT INTO orders VALUES (3)");
    await_orders(paris, &["1", "2", "3"]);
    assert_eq!(plan(oslo), [""; 0], "nothing is left to do");
    let slots = "SELECT format('%s %s', slot_name LIKE 'nodes%', active) FROM pg_replication_slots";
    wait_until("its slot is read", LONG, || oslo.query_texts("app", slots) == ["t t"]);
    assert_eq!(paris.query_texts("app", slots), [""; 0]);
}

#[test]
fn an_old_primary_that_has_diverged_is_rewound() {
    let (mut paris, oslo) = pair(&[("wal_log_hints", "on")]);
    part(&mut paris, &oslo);
    let own = "# a line of paris alone";
    paris.append_conf(own);
    let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
    let told = ["left timeline 1 at", "is lost", "\"paris\" is a standby of \"oslo\""];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    assert_follows(&paris, &oslo);
    let conf = std::fs::read_to_string(paris.data_dir().join("postgresql.conf")).expect("a file");
    assert!(conf.contains(own), "its configuration stays its own");
    let beside = std::fs::read_dir(paris.data_dir().parent().expect("a parent")).expect("files");
    let beside = beside.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_eq!(beside.filter(|name| name.starts_with("data.")).collect::<Vec<_>>(), [""; 0]);
    // Again it finds nothing to do, and it can be the primary once more.
    let again = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(again.ok, "{again}");
    let said = paris.psql("app", "CALL nodes.switchover('paris')");
    assert!(said.ok && said.output.contains("\"paris\" is the primary"), "{said}");
}

#[test]
fn what_cannot_be_rewound_is_left_alone() {
    // The version's own initdb may turn checksums on.
    let (mut paris, oslo) = pair(&[("wal_log_hints", "off")]);
    part(&mut paris, &oslo);
    let said = oslo.psql("app", "CALL nodes.rejoin('rome')");
    assert!(!said.ok && said.output.contains("does not exist"), "{said}");
    let said = oslo.psql("app", "CALL nodes.rejoin('oslo')");
    assert!(!said.ok && said.output.contains("not older than"), "{said}");
    if paris.query_one_text("app", "SHOW data_checksums") == "off" {
        let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
        let told = ["cannot be rewound", "RJ02", "Nothing was changed"];
        assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    }
    assert_eq!(oslo.query_texts("app", "SELECT name FROM nodes.link"), [""; 0]);
    paris.stop();
    let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(!said.ok && said.output.contains("Start that server"), "{said}");
}
