//! What a worker sees of its nodes, whatever happens to them, and what it tells.

use pg_test::trio::add_node;
use pg_test::watcher::watching;
use pg_test::{LONG, Server, wait_until};
use std::time::Duration;

struct Pair {
    paris: Server,
    london: Server,
}

fn pair() -> Pair {
    pair_with(Server::builder("london").start())
}

fn pair_with(london: Server) -> Pair {
    let paris = watching("paris").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    paris.await_health("paris", "up");
    paris.await_health("london", "up");
    Pair { paris, london }
}

impl Pair {
    fn error(&self) -> String {
        self.paris.query_one_text("app", "SELECT error FROM nodes.status WHERE node = 'london'")
    }
}

#[test]
fn status_says_who_and_how() {
    let Pair { paris, london } = pair();
    let row = "SELECT concat_ws('|', node, is_self, role, timeline, lsn IS NOT NULL,
        round_trip_ms > 0, round_trip_p50_ms <= round_trip_p99_ms,
        connected_since <= last_seen, last_seen > now() - interval '5s', error, hint)
        FROM nodes.status ORDER BY 1";
    assert_eq!(
        paris.query_texts("app", row),
        ["london|f|primary|1|t|t|t|t|t", "paris|t|primary|1|t|t|t|t|t"]
    );
    let names = "SELECT application_name FROM pg_stat_activity
        WHERE application_name LIKE 'pg\\_nodes%'";
    wait_until("london sees who watches it", LONG, || {
        london.query_texts("app", names) == ["pg_nodes paris"]
    });
    let monitor = "CREATE ROLE watcher LOGIN IN ROLE pg_monitor";
    paris.sql("app", monitor);
    for view in ["status", "link_status", "slots", "headroom", "events"] {
        paris.sql("app", &format!("SET ROLE watcher; SELECT * FROM nodes.{view}"));
    }
    paris.sql("app", "SET ROLE watcher; SELECT * FROM nodes.explain('london')");
    let activity = "SELECT query FROM pg_stat_activity WHERE backend_type = 'pg_nodes worker'";
    wait_until("the worker says what it does", LONG, || {
        paris.query_one_text("app", activity) == "watching 2 nodes, 2 up"
    });
}

#[test]
fn a_crash_and_the_return_are_one_event_each() {
    let mut pair = pair();
    pair.london.crash();
    pair.paris.await_health("london", "down");
    assert!(pair.error().contains("refused"), "{}", pair.error());
    pair.london.start_again();
    pair.paris.await_health("london", "up");
    assert_eq!(pair.paris.events("london"), ["up", "down", "up"]);
    assert_eq!(pair.paris.events("paris"), ["up"], "paris has nothing to do with it");
}

#[test]
fn a_hung_server_is_down_and_comes_back() {
    let mut pair = pair();
    pair.london.pause();
    pair.paris.await_health("london", "down");
    pair.london.resume();
    pair.paris.await_health("london", "up");
    assert_eq!(pair.paris.events("london"), ["up", "down", "up"]);
}

#[test]
fn a_short_hang_is_no_outage() {
    let mut pair = pair();
    for _ in 0..3 {
        pair.london.pause();
        pair.paris.await_health("london", "suspect");
        pair.london.resume();
        pair.paris.await_health("london", "up");
    }
    assert_eq!(pair.paris.events("london"), ["up"]);
}

#[test]
fn a_server_that_ends_idle_sessions_keeps_ours() {
    let pair = pair_with(Server::builder("london").conf("idle_session_timeout", "30ms").start());
    let session =
        "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'pg_nodes paris'";
    let watched = || pair.london.query_texts("postgres", session);
    wait_until("it is watched", LONG, || !watched().is_empty());
    let first = watched();
    let seen = "SELECT last_seen::text FROM nodes.status WHERE node = 'london'";
    let at = pair.paris.query_one_text("app", seen);
    let later = format!(
        "SELECT last_seen > '{at}'::timestamptz + interval '1s' FROM nodes.status
         WHERE node = 'london'"
    );
    wait_until("ten heartbeats", LONG, || pair.paris.query_texts("app", &later) == ["t"]);
    assert_eq!(watched(), first);
    assert_eq!(pair.paris.events("london"), ["up"]);
}

#[test]
fn flapping_is_one_event() {
    let mut pair = pair();
    for _ in 0..6 {
        pair.london.crash();
        pair.paris.await_health("london", "down");
        pair.london.start_again();
        pair.paris.await_health("london", "up");
    }
    assert_eq!(pair.paris.events("london"), ["up", "down", "up", "down", "up", "flapping"]);
}

#[test]
fn a_changed_password_is_refused_until_it_is_told() {
    let london = Server::builder("london").password("first").start();
    let paris = watching("paris").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    let conninfo = london.conninfo("app");
    paris.sql("app", &format!("SELECT nodes.add_node('london', '{conninfo} password=first')"));
    paris.await_health("london", "up");
    // Committed first: a session that is quick to return would still find the old password.
    london.sql("app", "ALTER ROLE postgres PASSWORD 'second'");
    london.sql(
        "app",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name LIKE 'pg\\_nodes%'",
    );
    paris.await_health("london", "refused");
    let hint = "SELECT hint FROM nodes.status";
    assert!(paris.query_one_text("app", hint).contains("nodes.set_password"));
    paris.sql("app", "SELECT nodes.set_password('london', 'second')");
    paris.await_health("london", "up");
    assert_eq!(paris.events("london"), ["up", "refused", "up"]);
}

#[test]
fn another_server_at_the_same_address_is_not_the_node() {
    let mut pair = pair();
    pair.paris.sql("app", "CREATE TABLE orders (id int PRIMARY KEY)");
    pair.london.sql("app", "CREATE TABLE orders (id int PRIMARY KEY)");
    let port = pair.london.port();
    pair.london.stop();
    let other = Server::builder("other").port(port).start();
    other.create_db("app");
    other.sql("app", "CREATE TABLE orders (id int PRIMARY KEY)");
    pair.paris.await_health("london", "wrong_identity");
    pair.paris.sql("app", "SELECT nodes.add_subscription('feed', 'london', 'paris')");
    pair.paris.await_link("feed", "waiting");
    let plan = "SELECT count(*)::text FROM nodes.plan() WHERE step IS NOT NULL";
    assert_eq!(pair.paris.query_one_text("app", plan), "0", "nothing is done there");
    pair.paris.psql("app", "CALL nodes.apply()");
    other.assert_no_residue("app");

    let conninfo = other.conninfo("app");
    pair.paris.sql("app", &format!("SELECT nodes.alter_node('london', '{conninfo}')"));
    pair.paris.await_health("london", "up");
    pair.paris.await_link("feed", "streaming");
    pair.paris.sql("app", "CALL nodes.teardown()");
}

#[test]
fn a_standby_watches_writes_nothing_and_takes_over_when_promoted() {
    let paris = watching("paris").start();
    let london = Server::builder("london").start();
    for server in [&paris, &london] {
        server.create_db("app");
        server.sql("app", "CREATE TABLE orders (id int PRIMARY KEY)");
    }
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    let oslo = paris.clone_standby_with(watching("oslo"));
    for (name, server) in [("paris", &paris), ("london", &london), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    paris.await_link("oslo", "streaming");
    for node in ["paris", "london", "oslo"] {
        oslo.await_health(node, "up");
    }
    oslo.await_link("oslo", "streaming");
    let me = "SELECT node FROM nodes.status WHERE is_self";
    assert_eq!(oslo.query_texts("app", me), ["oslo"]);
    assert_eq!(paris.query_texts("app", me), ["paris"]);
    let roles = "SELECT node || ' ' || role FROM nodes.status ORDER BY 1";
    wait_until("roles", LONG, || {
        oslo.query_texts("app", roles) == ["london primary", "oslo standby", "paris primary"]
    });

    oslo.promote();
    wait_until("paris knows that it is superseded", LONG, || {
        paris.query_texts("app", "SELECT severity FROM nodes.event WHERE kind = 'superseded'")
            == ["critical"]
    });
    // Nothing is said on paris any more; oslo acts.
    let late = "SELECT nodes.add_subscription('late', 'london', 'paris')";
    let said = paris.psql("app", &format!("SET default_transaction_read_only = off; {late}"));
    assert!(!said.ok && said.output.contains("is superseded"), "{said}");
    oslo.sql("app", "SELECT nodes.remove_link('oslo')");
    oslo.sql("app", "SELECT nodes.add_subscription('feed', 'london', 'oslo')");
    oslo.await_link("feed", "streaming");
    assert_eq!(paris.query_texts("app", "SELECT subname FROM pg_subscription"), [""; 0]);
    oslo.sql("app", "SELECT nodes.remove_link('feed')");
    wait_until("feed is gone", LONG, || {
        london.query_texts("app", "SELECT slot_name FROM pg_replication_slots").is_empty()
    });
}

#[test]
fn a_worker_tells_nothing_twice() {
    let pair = pair();
    let before = pair.paris.worker("app");
    pair.paris.query_texts(
        "app",
        "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
         WHERE backend_type = 'pg_nodes worker'",
    );
    wait_until("another worker", LONG, || {
        pair.paris.worker("app").is_some_and(|worker| Some(worker) != before)
    });
    pair.paris.await_health("london", "up");
    assert_eq!(pair.paris.events("london"), ["up"]);
    assert_eq!(pair.paris.events("paris"), ["up"]);
}

#[test]
fn a_slot_that_nobody_reads_has_so_much_time_left() {
    let Pair { paris, london } = pair();
    for server in [&paris, &london] {
        server.sql("app", "SELECT pg_create_physical_replication_slot('forgotten', true)");
    }
    let free = "SELECT (current_setting('pg_nodes.wal_free_bytes')::bigint > 0)::text";
    assert_eq!(paris.query_one_text("app", free), "true");
    // Only where the library is preloaded is the disk known.
    let growing = "SELECT format('%s %s %s %s', node, owner, danger LIKE 'nobody reads it%',
        time_left > '0'::interval) FROM nodes.slots WHERE bytes_per_second > 1 ORDER BY node";
    wait_until("both slots are seen to grow", LONG, || {
        for server in [&paris, &london] {
            server.sql("app", "SELECT pg_logical_emit_message(false, '', repeat('x', 100000))");
        }
        paris.query_texts("app", growing) == ["london nobody t ", "paris nobody t t"]
    });
    london.sql("app", "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'");
    london.reload();
    wait_until("its slot is to be lost", LONG, || {
        london.sql("app", "SELECT pg_logical_emit_message(false, '', repeat('x', 100000))");
        paris.query_texts("app", growing).first().is_some_and(|row| row == "london nobody t t")
    });
}

#[test]
fn events_are_told_to_listeners_and_kept_for_a_while() {
    let mut pair = pair();
    let mut client = pair.paris.client("app");
    client.batch_execute("LISTEN pg_nodes").expect("LISTEN");
    pair.london.crash();
    let mut told = client.notifications();
    let mut notices = told.timeout_iter(LONG);
    use postgres::fallible_iterator::FallibleIterator;
    let notice = notices.next().expect("a connection").expect("a notification");
    let query = format!(
        "SELECT (to_jsonb(e) = '{}'::jsonb)::text FROM nodes.event e ORDER BY id DESC LIMIT 1",
        notice.payload().replace('\'', "''")
    );
    assert_eq!(pair.paris.query_one_text("app", &query), "true", "{}", notice.payload());
    assert!(notice.payload().contains("\"kind\": \"down\""), "{}", notice.payload());
    let log = pair.paris.log();
    assert_eq!(log.matches("node \"london\" is down").count(), 1, "one line:\n{log}");

    pair.paris.sql("app", "UPDATE nodes.event SET at = at - interval '2 days'");
    pair.paris.append_conf("pg_nodes.event_retention = '1d'");
    pair.paris.restart();
    wait_until("old events are gone", LONG, || pair.paris.events("paris").is_empty());
}

#[test]
fn a_steady_state_writes_no_wal_and_no_log() {
    let Pair { paris, london: _london } = pair();
    // Until everything that came with the start is on disk.
    for statement in ["VACUUM", "CHECKPOINT"] {
        paris.sql("app", statement);
    }
    let written =
        |server: &Server| server.query_one_text("app", "SELECT pg_current_wal_insert_lsn()::text");
    wait_until("two seconds without WAL", LONG, || {
        let (before, log) = (written(&paris), paris.log().len());
        std::thread::sleep(Duration::from_secs(2));
        written(&paris) == before && paris.log().len() == log
    });
}

#[test]
fn without_preload_the_views_say_so() {
    let paris = Server::builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    add_node(&paris, "paris", &paris);
    let row = "SELECT health || ': ' || hint FROM nodes.status";
    let said = paris.query_one_text("app", row);
    assert!(said.starts_with("up: ") && said.contains("shared_preload_libraries"), "{said}");
}
