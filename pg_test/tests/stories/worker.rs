//! The life of the workers: they come with the extension and go with it, follow a database
//! through all that can happen to it, and stand in nobody's way.

use pg_test::trio::add_node;
use pg_test::watcher::watching;
use pg_test::{LONG, Server, is_gone, wait_until};
use std::time::{Duration, Instant};

/// What the issue of a worker may take, with a machine that is busy.
const SOON: Duration = Duration::from_secs(3);

const EXTENSION: &str = "CREATE EXTENSION pg_nodes";

fn paris() -> Server {
    let paris = watching("paris").start();
    paris.create_db("app");
    paris
}

/// Fails unless something happens soon.
#[track_caller]
fn soon(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, SOON, condition);
}

#[test]
fn a_worker_comes_and_goes_with_the_extension() {
    let paris = paris();
    soon("one that looks is gone", || paris.worker("app").is_none());
    paris.sql("app", EXTENSION);
    soon("a worker", || paris.worker("app").is_some());
    paris.sql("app", "DROP EXTENSION pg_nodes; DROP SCHEMA nodes");
    soon("no worker", || paris.worker("app").is_none());
    paris.sql("app", &format!("BEGIN; {EXTENSION}; ROLLBACK"));
    paris.sql("app", EXTENSION);
    soon("a worker again", || paris.worker("app").is_some());
    let launcher = "SELECT count(*)::text FROM pg_stat_activity
        WHERE backend_type = 'pg_nodes launcher'";
    assert_eq!(paris.query_one_text("app", launcher), "1");
}

#[test]
fn however_the_extension_goes_its_worker_goes_too() {
    let paris = paris();
    paris.sql("app", "CREATE ROLE owner SUPERUSER");
    for goes in [
        "DROP EXTENSION pg_nodes CASCADE; DROP SCHEMA nodes",
        "DROP SCHEMA nodes CASCADE",
        "DROP OWNED BY owner CASCADE",
        "BEGIN; DROP EXTENSION pg_nodes; DROP SCHEMA nodes; COMMIT",
    ] {
        paris.sql("app", &format!("SET ROLE owner; {EXTENSION}"));
        let worker = paris.await_worker("app");
        paris.sql("app", goes);
        soon(goes, || is_gone(worker));
    }
}

/// Whoever drops the extension wants locks on all that the worker reads and writes.
#[test]
fn the_extension_is_dropped_while_its_worker_is_busy() {
    let paris = paris();
    for round in 0..20 {
        paris.sql("app", EXTENSION);
        add_node(&paris, "paris", &paris);
        match round % 3 {
            0 => {}
            1 => drop(paris.await_worker("app")),
            _ => paris.await_health("paris", "up"),
        }
        paris.sql("app", "SELECT nodes.rename_node('paris', 'lutetia')");
        let dropped = paris.psql("app", "DROP EXTENSION pg_nodes; DROP SCHEMA nodes");
        assert!(dropped.ok, "round {round}: {dropped}");
    }
    let log = paris.log();
    assert!(!log.contains("deadlock detected"), "somebody met a deadlock:\n{log}");
}

/// A DBA who left a transaction open at lunch.
#[test]
fn rows_that_a_session_has_locked_do_not_stop_the_watch() {
    let paris = paris();
    let mut london = Server::builder("london").start();
    london.create_db("app");
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    london.sql("app", "CREATE TABLE items (id int)");
    let mut session = paris.client("app");
    session
        .batch_execute(
            "BEGIN; SELECT nodes.set_password('london', 'unused');
             LOCK TABLE nodes.node, nodes.link IN EXCLUSIVE MODE",
        )
        .expect("it is the registry's owner");
    paris.await_health("london", "up");
    london.crash();
    paris.await_health("london", "down");
    london.start_again();
    paris.await_health("london", "up");
    session.batch_execute("ROLLBACK").expect("the session goes on");
    let learnt = "SELECT count(*)::text FROM nodes.node WHERE system_identifier IS NULL";
    wait_until("identities are learnt", LONG, || paris.query_one_text("app", learnt) == "0");
}

#[test]
fn workers_are_there_after_a_restart_and_not_elsewhere() {
    let mut paris = paris();
    paris.create_db("other");
    for db in ["app", "other"] {
        paris.sql(db, EXTENSION);
    }
    paris.sql("other", "DROP EXTENSION pg_nodes");
    paris.restart();
    soon("a worker", || paris.worker("app").is_some());
    let workers = "SELECT datname FROM pg_stat_activity WHERE backend_type = 'pg_nodes worker'";
    soon("only one", || paris.query_texts("app", workers) == ["app"]);
}

#[test]
fn a_database_is_renamed_copied_and_dropped_around_its_worker() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    paris.await_health("paris", "up");
    for statement in [
        "ALTER DATABASE app RENAME TO shop",
        "CREATE DATABASE copy TEMPLATE shop",
        "ALTER DATABASE shop RENAME TO app",
        "DROP DATABASE copy",
    ] {
        let started = Instant::now();
        paris.sql("postgres", statement);
        assert!(started.elapsed() < Duration::from_secs(4), "{statement} waited");
    }
    soon("a worker", || paris.worker("app").is_some());
    paris.await_health("paris", "up");
    let refused = paris.psql("postgres", "DROP DATABASE app; SELECT 1");
    assert!(refused.ok, "nobody is in the way: {refused}");
    let log = paris.log();
    assert!(
        !log.contains("terminating background worker \"pg_nodes"),
        "workers go quietly:\n{log}"
    );
}

#[test]
fn a_copy_of_a_database_is_passive_and_a_renamed_one_is_not() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    paris.await_health("paris", "up");
    paris.sql("postgres", "CREATE DATABASE copy TEMPLATE app");
    paris.await_worker("copy");
    let health = "SELECT health FROM nodes.status";
    assert_eq!(paris.query_texts("copy", health), ["passive"]);
    let refused = paris.psql("copy", "CALL nodes.apply()");
    assert!(!refused.ok && refused.output.contains("nodes.take_over()"), "{refused}");
    paris.sql("postgres", "ALTER DATABASE app RENAME TO shop");
    wait_until("the renamed one goes on", LONG, || {
        paris.query_texts("shop", health) == ["refused"]
    });
}

#[test]
fn a_command_that_fails_gives_the_database_back() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    let before = paris.await_worker("app");
    let mut visitor = paris.client("app");
    let failed = paris.psql("postgres", "ALTER DATABASE app RENAME TO shop");
    assert!(!failed.ok, "somebody is connected");
    visitor.simple_query("SELECT 1").expect("the visitor stays");
    soon("a worker again", || paris.worker("app").is_some_and(|worker| worker != before));
}

#[test]
fn a_terminated_worker_comes_back_and_a_failing_one_less_and_less_often() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // As soon as it appears: the launcher may not have seen it yet.
        let worker = paris.await_worker("app");
        let terminate = format!("SELECT pg_terminate_backend({worker})::text");
        let started = Instant::now();
        assert_eq!(paris.query_one_text("postgres", &terminate), "true");
        soon("its end", || is_gone(worker));
        gone.push(started.elapsed());
        wait_until("another one", LONG, || paris.worker("app").is_some_and(|w| w != worker));
        back.push(started.elapsed());
    }
    let slowest = gone.iter().max().expect("there are three");
    assert!(*slowest < Duration::from_secs(1), "a worker took {slowest:?} to go");
    assert!(back[0] < SOON, "another one took {:?}", back[0]);
    assert!(back[2] >= Duration::from_secs(1), "three in a row that failed, then {:?}", back[2]);
}

#[test]
fn kill_9_of_a_worker_leaves_everything_right() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    paris.await_health("paris", "up");
    let worker = paris.await_worker("app");
    paris.kill_backend(worker);
    wait_until("the server is back", LONG, || {
        paris.try_client("app").is_ok_and(|mut client| client.simple_query("").is_ok())
    });
    wait_until("another worker", LONG, || paris.worker("app").is_some_and(|w| w != worker));
    paris.await_health("paris", "up");
}

#[test]
fn a_fast_shutdown_and_a_dead_postmaster_do_not_wait() {
    let mut paris = paris();
    let mut london = Server::builder("london").start();
    london.create_db("app");
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    paris.await_health("london", "up");
    // Who neither answers nor refuses: a heartbeat or an attempt is under way all the time.
    london.pause();
    paris.await_health("london", "down");
    let worker = paris.await_worker("app");
    let started = Instant::now();
    paris.stop();
    assert!(started.elapsed() < SOON, "the shutdown took {:?}", started.elapsed());
    assert!(is_gone(worker));
    paris.start_again();
    let worker = paris.await_worker("app");
    paris.crash();
    assert!(is_gone(worker), "the postmaster's death ends it");
}

#[test]
fn settings_are_read_again() {
    let paris = paris();
    paris.sql("app", EXTENSION);
    add_node(&paris, "paris", &paris);
    paris.await_health("paris", "up");
    paris.append_conf("pg_nodes.heartbeat_interval = '1h'");
    paris.reload();
    let seen = "SELECT last_seen::text FROM nodes.status";
    let mut last = String::new();
    // Two looks at the same answer, more than ten old intervals apart.
    wait_until("heartbeats to stop", LONG, || {
        let now = paris.query_one_text("app", seen);
        std::thread::sleep(Duration::from_millis(1500));
        std::mem::replace(&mut last, now.clone()) == now
    });
    paris.append_conf("pg_nodes.heartbeat_interval = '100ms'");
    paris.reload();
    wait_until("heartbeats", LONG, || paris.query_one_text("app", seen) != last);
}
