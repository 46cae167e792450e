//! Peers that are not as they should be: each gets a line that says what is wrong and what to
//! do, nothing is made on it, and the other links are made all the same.

use pg_test::trio::{add_node, apply, plan};
use pg_test::{Builder, LONG, Server, wait_until};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE public.orders (id integer PRIMARY KEY, item text)";

/// A server with pg_nodes and the table that others publish.
fn registry() -> Server {
    let paris = Server::builder("paris").start();
    paris.create_db("app");
    paris.sql("app", &format!("CREATE EXTENSION pg_nodes; {TABLE}"));
    add_node(&paris, "paris", &paris);
    paris
}

fn publisher(builder: Builder) -> Server {
    let london = builder.start();
    london.create_db("app");
    london.sql("app", TABLE);
    london
}

fn subscribe(paris: &Server, london: &Server) {
    add_node(paris, "london", london);
    paris.sql("app", "SELECT nodes.add_subscription('feed', 'london', 'paris', '{public.orders}')");
}

/// The plan is this one problem, apply refuses, and nothing is made anywhere.
#[track_caller]
fn assert_refused(paris: &Server, london: &Server, problem: &str, hint: &str) {
    let rows = plan(paris);
    assert!(rows.len() == 1 && rows[0].contains(problem) && rows[0].contains(hint), "{rows:#?}");
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(!said.ok && said.output.contains(problem), "{said}");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

fn assert_link_works_and_goes(paris: &Server, london: &Server) {
    apply(paris);
    assert_eq!(plan(paris), [""; 0], "after apply the plan is empty");
    london.sql("app", "INSERT INTO orders VALUES (1, 'lamp')");
    wait_until("the order arrives", LONG, || {
        paris.query_texts("app", "SELECT item FROM orders") == ["lamp"]
    });
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

#[test]
fn a_read_only_publisher() {
    let paris = registry();
    let london = publisher(Server::builder("london"));
    london.append_conf("default_transaction_read_only = on");
    london.reload();
    subscribe(&paris, &london);
    wait_until("london is read-only", LONG, || {
        london.query_one_text("app", "SHOW default_transaction_read_only") == "on"
    });
    let hint = "Turn default_transaction_read_only off there";
    assert_refused(&paris, &london, "node \"london\" is read-only", hint);
    london.append_conf("default_transaction_read_only = off");
    london.reload();
    wait_until("london takes writes", LONG, || {
        london.query_one_text("app", "SHOW default_transaction_read_only") == "off"
    });
    assert_link_works_and_goes(&paris, &london);
}

#[test]
fn a_standby_as_publisher() {
    let paris = registry();
    let primary = publisher(Server::builder("primary"));
    let london = primary.clone_standby("london");
    subscribe(&paris, &london);
    let hint = "Name its primary instead";
    assert_refused(&paris, &london, "node \"london\" is a standby", hint);
    london.promote();
    assert_link_works_and_goes(&paris, &london);
}

#[test]
fn a_publisher_without_logical_decoding() {
    let paris = registry();
    let mut london = publisher(Server::builder("london").conf("wal_level", "replica"));
    subscribe(&paris, &london);
    let hint = "Run ALTER SYSTEM SET wal_level = logical there and restart";
    assert_refused(&paris, &london, "wal_level on node \"london\" is replica", hint);
    london.sql("app", "ALTER SYSTEM SET wal_level = logical");
    london.restart();
    assert_link_works_and_goes(&paris, &london);
}

#[test]
fn a_publisher_without_a_free_slot() {
    let paris = registry();
    let mut london = publisher(Server::builder("london").conf("max_replication_slots", "1"));
    london.sql("app", "SELECT pg_create_physical_replication_slot('mine')");
    subscribe(&paris, &london);
    let rows = plan(&paris);
    let problem = "max_replication_slots on node \"london\" is 1, of which 1 are in use";
    assert!(rows.len() == 1 && rows[0].contains(problem), "{rows:#?}");
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(!said.ok && said.output.contains("Set max_replication_slots to at least"), "{said}");
    london.sql("app", "ALTER SYSTEM SET max_replication_slots = 10");
    london.restart();
    london.sql("app", "SELECT pg_drop_replication_slot('mine')");
    assert_link_works_and_goes(&paris, &london);
}

#[test]
fn a_wrong_password_stops_its_own_link_only() {
    let paris = registry();
    let london = publisher(Server::builder("london").password("s3cret"));
    let rome = publisher(Server::builder("rome"));
    add_node(&paris, "rome", &rome);
    subscribe(&paris, &london);
    paris.sql(
        "app",
        "SELECT nodes.set_password('london', 'wrong');
        SELECT nodes.add_foreign_schema('stock', 'rome')",
    );
    let rows = plan(&paris);
    let failed = "password authentication failed for user \"postgres\"";
    assert!(rows.iter().any(|row| row.contains("london") && row.contains(failed)), "{rows:#?}");
    assert!(
        rows.iter().any(|row| row.contains("or password with nodes.alter_node()")),
        "{rows:#?}"
    );
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(said.output.contains(failed) && !said.output.contains("wrong"), "{said}");
    assert_eq!(paris.query_texts("app", "SELECT * FROM stock.orders"), [""; 0]);
    london.assert_no_residue("app");
    paris.sql("app", "SELECT nodes.set_password('london', 's3cret')");
    assert_link_works_and_goes(&paris, &london);
    rome.assert_no_residue("app");
}

#[test]
fn silent_peers_cost_one_timeout_for_all() {
    let paris = registry();
    let mut peers: Vec<Server> =
        ["london", "rome"].iter().map(|name| publisher(Server::builder(name))).collect();
    subscribe(&paris, &peers[0]);
    add_node(&paris, "rome", &peers[1]);
    paris.sql("app", "SELECT nodes.add_foreign_schema('stock', 'rome')");
    peers.iter_mut().for_each(Server::pause);
    for call in ["SELECT * FROM nodes.plan()", "TABLE nodes.status", "CALL nodes.apply()"] {
        let started = Instant::now();
        let said = paris.psql("app", &format!("SET pg_nodes.connect_timeout = '1s'; {call}"));
        assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
        for peer in &peers {
            let silent = format!("port {} did not answer within 1000 ms", peer.port());
            assert!(said.output.contains(&silent), "{call}:\n{said}");
        }
    }
    peers.iter_mut().for_each(Server::resume);
    assert_link_works_and_goes(&paris, &peers[0]);
    peers[1].assert_no_residue("app");
}

/// Passes bytes on to a server until a client says a certain word: from then on that connection
/// stays open, and silent.
struct Relay {
    port: u16,
    word: Arc<Mutex<Option<&'static str>>>,
}

impl Relay {
    fn to(server: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let word = Arc::new(Mutex::new(None));
        let said = word.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a client");
                let server = TcpStream::connect(("127.0.0.1", server)).expect("the server");
                pass_on(&server, &client, Arc::new(Mutex::new(None)));
                pass_on(&client, &server, said.clone());
            }
        });
        Relay { port, word }
    }

    fn fall_silent_at(&self, word: Option<&'static str>) {
        *self.word.lock().expect("a word") = word;
    }
}

fn pass_on(from: &TcpStream, to: &TcpStream, word: Arc<Mutex<Option<&'static str>>>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a stream");
    let (mut from, mut to) = (clone(from), clone(to));
    std::thread::spawn(move || {
        let (mut bytes, mut silent) = ([0; 16384], false);
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            silent |= word.lock().expect("a word").is_some_and(|word| text.contains(word));
            if !silent && to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn a_peer_that_falls_silent_costs_a_timeout_at_every_point() {
    let paris = registry();
    let london = publisher(Server::builder("london"));
    let relay = Relay::to(london.port());
    let conninfo =
        london.conninfo("app").replace(&london.port().to_string(), &relay.port.to_string());
    paris.sql(
        "app",
        &format!(
            "SELECT nodes.add_node('london', '{conninfo}');
             SELECT nodes.add_subscription('feed', 'london', 'paris', '{{public.orders}}')"
        ),
    );
    let limits = "SET pg_nodes.connect_timeout = '1s'; SET pg_nodes.step_timeout = '1s'";
    // The session's settings, the look at the server, a step.
    for (word, call, said) in [
        ("SET search_path", "SELECT * FROM nodes.plan()", "silent for 1000 ms"),
        ("SET search_path", "TABLE nodes.status", "silent for 1000 ms"),
        ("WITH interest", "SELECT * FROM nodes.plan()", "silent for 1000 ms"),
        ("WITH interest", "SELECT * FROM nodes.test_node('london')", "silent for 1000 ms"),
        ("WITH interest", "CALL nodes.apply()", "silent for 1000 ms"),
        ("CREATE PUBLICATION", "CALL nodes.apply()", "silent for 3000 ms"),
        ("pg_create_logical_replication_slot", "CALL nodes.apply()", "silent for 2000 ms"),
    ] {
        relay.fall_silent_at(Some(word));
        let started = Instant::now();
        let psql = paris.psql("app", &format!("{limits}; {call}"));
        assert!(started.elapsed() < Duration::from_secs(6), "{call}: {:?}", started.elapsed());
        assert!(psql.output.contains(said), "{word}, {call}:\n{psql}");
    }
    relay.fall_silent_at(None);
    assert_link_works_and_goes(&paris, &london);
}

#[test]
fn a_run_commits_by_itself() {
    let paris = registry();
    let london = publisher(Server::builder("london"));
    subscribe(&paris, &london);
    paris.sql(
        "app",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS
        $$BEGIN CALL nodes.apply(); END$$",
    );
    for script in [
        "BEGIN; CALL nodes.apply()",
        "BEGIN; CALL nodes.teardown()",
        "SELECT f()",
        "DO $$BEGIN CALL nodes.apply(); EXCEPTION WHEN division_by_zero THEN NULL; END$$",
    ] {
        let said = paris.psql_with("app", &["-v", "VERBOSITY=sqlstate"], script);
        assert!(!said.ok && said.output.contains("ERROR:  25001"), "{script}: {said}");
    }
    paris.assert_no_residue("app");
    // A procedure or a block that may commit may call it.
    paris.sql("app", "DO $$BEGIN CALL nodes.apply(); END$$");
    assert_link_works_and_goes(&paris, &london);
}
