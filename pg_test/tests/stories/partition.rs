//! The network parts a primary from its standbys, which make one of them the primary: for a time
//! there are two, and then the old one returns without what it alone has written, and so does a
//! standby that had it already.

use pg_test::trio::{add_node, apply, plan};
use pg_test::writer::Writer;
use pg_test::{Fault, LONG, Proxy, Server, user, wait_until};
use std::fs;
use tempfile::TempDir;

/// Paris with its standbys oslo and rome. Each reaches paris by a way of its own, and rome is
/// reached by a third.
struct Cluster {
    paris: Server,
    oslo: Server,
    rome: Server,
    oslo_to_paris: Proxy,
    rome_to_paris: Proxy,
    to_rome: Proxy,
    _services: TempDir,
}

/// A standby that hears nothing for `silence` sees nobody.
fn cluster(silence: &str) -> Cluster {
    let services = pg_test::temp_dir("services");
    let builder = |name: &str| {
        let file = services.path().join(name);
        Server::builder(name)
            .env("PGSERVICEFILE", &file.to_string_lossy())
            .conf("wal_log_hints", "on")
            .conf("full_page_writes", "on")
            .conf("wal_receiver_timeout", silence)
            .conf("pg_nodes.connect_timeout", "1s")
    };
    let paris = builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let [oslo, rome] = ["oslo", "rome"].map(|name| paris.clone_standby_with(builder(name)));
    let [oslo_to_paris, rome_to_paris] = [&paris, &paris].map(|paris| Proxy::to(paris.port()));
    let to_rome = Proxy::to(rome.port());
    let ways =
        [("paris", paris.port()), ("oslo", oslo_to_paris.port()), ("rome", rome_to_paris.port())];
    for (name, port) in ways {
        let way = format!("[paris]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname=app\n");
        let file = services.path().join(name);
        fs::write(&file, way).expect("a service file");
        user::give(&file);
    }
    add_node(&paris, "oslo", &oslo);
    paris.sql(
        "app",
        &format!(
            "SELECT nodes.add_node('paris', 'service=paris');
             SELECT nodes.add_node('rome', 'host=127.0.0.1 port={} user=postgres dbname=app');
             SELECT nodes.add_standby('oslo', primary_node => 'paris');
             SELECT nodes.add_standby('rome', primary_node => 'paris')",
            to_rome.port()
        ),
    );
    apply(&paris);
    Cluster { paris, oslo, rome, oslo_to_paris, rome_to_paris, to_rome, _services: services }
}

const ORDERS: &str = "SELECT id FROM orders ORDER BY id";

impl Cluster {
    fn await_orders(&self, wanted: &[String]) {
        for server in [&self.paris, &self.oslo, &self.rome] {
            wait_until(&format!("{} has all orders", server.name()), LONG, || {
                server.query_texts("app", ORDERS) == wanted
            });
        }
    }

    /// Until a standby has given up to wait for its primary.
    fn await_end_of_stream(&self, standby: &Server) {
        let receiver = "SELECT status FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        wait_until("the stream ends", LONG, || standby.query_texts("app", receiver).is_empty());
    }
}

#[test]
fn the_side_that_was_cut_off_is_rewound() {
    let on = cluster("1s");
    let writer = Writer::start(&[&on.paris], "orders");
    wait_until("there are orders", LONG, || on.oslo.query_texts("app", ORDERS).len() > 100);
    let written: Vec<String> = writer.finish().numbers.iter().map(i32::to_string).collect();
    on.await_orders(&written);

    // Oslo, where we call, sees paris no more, but rome does.
    let promote = "CALL nodes.promote('oslo')";
    let force = "CALL nodes.promote('oslo', force => true)";
    on.oslo_to_paris.set(Fault::BlackHole);
    on.await_end_of_stream(&on.oslo);
    on.oslo.refuses("app", force, &["\"rome\" sees primary \"paris\": it can connect", "PR02"]);
    on.paris.sql("app", "INSERT INTO orders VALUES (-2)");
    let ahead = "SELECT count(*)::text FROM orders WHERE id = -2";
    wait_until("rome is ahead", LONG, || on.rome.query_one_text("app", ahead) == "1");
    // Then nobody does, but rome cannot say so.
    on.rome_to_paris.set(Fault::BlackHole);
    on.to_rome.set(Fault::BlackHole);
    on.await_end_of_stream(&on.rome);
    on.oslo.refuses("app", promote, &["\"rome\" does not answer, and may have WAL", "PR05"]);
    assert_eq!(on.oslo.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "true");
    let said = on.oslo.psql("app", force);
    assert!(said.ok && said.output.contains("\"oslo\" is a primary"), "{said}");

    // On either side somebody writes.
    on.paris.sql("app", "INSERT INTO orders VALUES (-1)");
    on.oslo.sql("app", "INSERT INTO orders VALUES (1000000)");
    let mut wanted = written;
    wanted.push("1000000".to_owned());
    for way in [&on.to_rome, &on.oslo_to_paris, &on.rome_to_paris] {
        way.set(Fault::None);
    }
    // Neither can follow as it is. Once they do, the same calls find nothing to rewind.
    for name in ["rome", "paris"] {
        let said = on.oslo.psql("app", &format!("CALL nodes.rejoin('{name}')"));
        let done = format!("\"{name}\" is a standby of \"oslo\"");
        let told = ["left timeline 1 at", "is lost", &done];
        assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
        assert!(!said.output.contains("WARNING"), "{said}");
        let said = on.oslo.psql("app", &format!("CALL nodes.rejoin('{name}')"));
        assert!(said.ok && !said.output.contains("rewound"), "{said}");
    }
    on.await_orders(&wanted);
    assert_eq!(plan(&on.oslo), [""; 0], "nothing is left to do");
    let slots = "SELECT format('%s %s', count(*), count(*) FILTER (WHERE active))
        FROM pg_replication_slots";
    for (server, readers) in [(&on.oslo, "2 2"), (&on.paris, "0 0"), (&on.rome, "0 0")] {
        wait_until("all slots are read", LONG, || server.query_one_text("app", slots) == readers);
    }
}

/// The streams seem open for a while: who knows better need not wait for their end.
#[test]
fn a_primary_that_is_cut_off_is_replaced_at_once_by_force() {
    let on = cluster("1h");
    on.rome_to_paris.set(Fault::BlackHole);
    let received = |server: &Server| {
        let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint::text";
        server.query_one_text("app", received).parse::<u64>().expect("a position")
    };
    let has_all = || received(&on.oslo) >= received(&on.rome);
    wait_until("oslo has all that rome has", LONG, has_all);
    on.oslo_to_paris.set(Fault::BlackHole);
    let heard = ["\"rome\" sees primary \"paris\": it streams", "\"oslo\" sees", "PR08"];
    on.oslo.refuses("app", "CALL nodes.promote('oslo')", &heard);
    let said = on.oslo.psql("app", "CALL nodes.promote('oslo', force => true)");
    let told = ["WARNING", "PR08", "\"oslo\" is a primary", "all links follow \"oslo\""];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    on.oslo.sql("app", "INSERT INTO orders VALUES (1)");
    wait_until("rome follows", LONG, || on.rome.query_texts("app", ORDERS) == ["1"]);
}
