//! `nodes.clone_standby()`: a standby by one call, the same call interrupted, and what it refuses.

use pg_test::adopted::{Adopted, kill_program, program_runs};
use pg_test::names::literal;
use pg_test::trio::{add_node, plan};
use pg_test::watcher::watching;
use pg_test::writer::Writer;
use pg_test::{Fault, LONG, Phase, Proxy, Psql, Server, wait_until};
use postgres::Client;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::thread::JoinHandle;

fn registry(server: Server) -> Server {
    server.create_db("app");
    server.sql(
        "app",
        "CREATE EXTENSION pg_nodes; CREATE TABLE public.orders (id integer PRIMARY KEY)",
    );
    server
}

/// A primary that is registered as paris, in its own registry.
fn paris() -> Server {
    let paris = registry(Server::builder("paris").start());
    add_node(&paris, "paris", &paris);
    paris
}

/// The call, with more arguments.
fn call(name: &str, place: &Adopted, more: &str) -> String {
    let (data, port) = (literal(&place.data_dir().to_string_lossy()), place.port());
    format!("CALL nodes.clone_standby({}, 'paris', {data}, port => {port}{more})", literal(name))
}

/// So slow that there is time to interrupt it.
const SLOW: &str = ", max_rate => '2MB'";

#[track_caller]
fn clone(registry: &Server, place: &Adopted, more: &str) -> String {
    let said = registry.psql("app", &call("oslo", place, more));
    assert!(said.ok, "{said}");
    said.output
}

/// The standby streams, is ready, is all that is there, and replays what its primary does.
#[track_caller]
fn assert_follows(paris: &Server, place: &Adopted) {
    assert_eq!(plan(paris), [""; 0], "nothing is left to do");
    let data = place.data_dir().file_name().map(|name| name.to_string_lossy().into_owned());
    assert_eq!(place.entries().first(), data.as_ref());
    assert!(!place.data_dir().join("pg_nodes.clone").exists(), "it is a server of its own");
    let ready = "SELECT format('%s %s', ready, array_to_string(reasons, '; ')) \
                 FROM nodes.failover_ready WHERE standby = 'oslo'";
    wait_until("oslo could take over", LONG, || paris.query_texts("app", ready) == ["t "]);
    paris.sql("app", "INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders");
    let count = "SELECT count(*) FROM orders";
    let written = paris.query_one_text("app", count);
    wait_until("the order arrives", LONG, || place.query_one_text("app", count) == written);
}

/// Neither rows nor slots nor files are left of a call that failed.
#[track_caller]
fn assert_nothing_begun(paris: &Server, place: &Adopted) {
    assert_eq!(paris.query_texts("app", "SELECT name FROM nodes.node"), ["paris"]);
    assert_eq!(slots(paris), [""; 0]);
    assert_eq!(place.entries(), [""; 0]);
}

fn slots(server: &Server) -> Vec<String> {
    server.query_texts("app", "SELECT slot_name FROM pg_replication_slots")
}

#[test]
fn a_standby_by_one_call() {
    let secret = "s3cr'et:\\ x";
    let paris = registry(Server::builder("paris").password(secret).start());
    paris
        .client("app")
        .query(
            "SELECT nodes.add_node('paris', $1, password => $2)",
            &[&paris.conninfo("app"), &secret],
        )
        .expect("it is registered");
    let place = Adopted::named("oslo", "dä 'ta=; rm -rf x").password(secret);
    let said = clone(&paris, &place, ", verify => true");
    assert!(said.contains("\"oslo\" is a clone of \"paris\" and follows it"), "{said}");
    assert_follows(&paris, &place);
    let file = place.data_dir().join("pg_nodes.passfile");
    let mode = fs::metadata(file).expect("the password has a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let logs =
        [paris.log(), fs::read_to_string(place.data_dir().join("server.log")).expect("a log")];
    let settings = fs::read_to_string(place.data_dir().join("postgresql.auto.conf"));
    for text in logs.iter().chain([&said, &settings.expect("settings")]) {
        assert!(!text.contains("s3cr"), "{text}");
    }
    // A clone lives on when the server that made it crashes.
    let again = clone(&paris, &place, "");
    assert!(again.contains("running"), "{again}");
    paris.sql("app", "CALL nodes.teardown()");
    assert_eq!(slots(&paris), [""; 0]);
}

/// What was acknowledged before, during and after the copy is there.
#[test]
fn a_primary_that_is_written_to_is_cloned() {
    let paris = paris();
    paris.sql("app", "CREATE TABLE written (id integer PRIMARY KEY)");
    let writer = Writer::start(&[&paris], "written");
    let place = Adopted::place("oslo");
    clone(&paris, &place, "");
    assert_follows(&paris, &place);
    writer.finish().assert_kept(&paris, "written");
    let all = "SELECT format('%s %s', count(*), sum(id)) FROM written";
    let written = paris.query_one_text("app", all);
    wait_until("the clone has all", LONG, || place.query_one_text("app", all) == written);
}

/// Limits for sessions and transactions are for those of applications.
#[test]
fn a_copy_may_take_longer_than_a_transaction() {
    let limited = Server::builder("paris").conf("idle_session_timeout", "500ms");
    let limited = match Server::major() {
        17.. => limited.conf("transaction_timeout", "2s"),
        _ => limited,
    };
    let paris = registry(limited.start());
    add_node(&paris, "paris", &paris);
    let place = Adopted::place("oslo");
    let call = call("oslo", &place, ", max_rate => '8MB'");
    let own = if Server::major() < 17 { "" } else { "SET transaction_timeout = 0;" };
    let said = paris.psql("app", &format!("{own} {call}"));
    assert!(said.ok, "{said}");
    assert_follows(&paris, &place);
}

#[test]
fn another_server_makes_the_clone() {
    // With a worker that would do by itself what is committed.
    let watching = Server::builder("paris").conf("shared_preload_libraries", "pg_nodes");
    let paris = registry(watching.start());
    add_node(&paris, "paris", &paris);
    let london = registry(Server::builder("london").start());
    add_node(&paris, "london", &london);
    let place = Adopted::place("oslo");
    fs::create_dir(place.data_dir()).expect("an empty directory");
    pg_test::user::give(place.data_dir());
    // It crashes: nothing is left but files there, which the next call knows for its own.
    let there = format!("{SLOW}, on_node => 'london'");
    let running = paris.psql_in_background("app", &call("oslo", &place, &there));
    await_copy(&paris, &running);
    let maker = "SELECT pid::text FROM pg_stat_activity
        WHERE application_name = 'pg_nodes' AND state = 'disabled'";
    london.kill_backend(london.query_one_text("app", maker).parse().expect("a process id"));
    let said = running.join().expect("psql ran");
    assert!(!said.ok, "{said}");
    assert_eq!(slots(&paris), [""; 0]);
    london.await_up("app");
    clone(&paris, &place, ", on_node => 'london'");
    assert_follows(&paris, &place);
    // A standby that is down is no clone to be made: it keeps its files and its slot.
    place.crash();
    let (again, slot) = (call("oslo", &place, ", on_node => 'london'"), slots(&paris));
    let said = paris.psql("app", &again);
    assert!(!said.ok && said.output.contains("is not empty"), "{said}");
    assert_eq!((slots(&paris), slot.len()), (slot, 1));
    assert_eq!(place.entries(), ["data"]);
}

/// Debian keeps configuration elsewhere; a tablespace cannot be where the primary has its own.
#[test]
fn what_lies_outside_the_data_directory() {
    let mut paris = paris();
    let elsewhere = Adopted::place("etc");
    let (etc, old) = (elsewhere.directory("etc"), elsewhere.directory("old=space"));
    for name in ["pg_hba.conf", "pg_ident.conf"] {
        fs::rename(paris.data_dir().join(name), etc.join(name)).expect("they move");
    }
    paris.append_conf(&format!(
        "data_directory = '{}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n\
         external_pid_file = '{etc}/pid'",
        paris.data_dir().display(),
        etc = etc.display()
    ));
    paris.restart();
    let old = old.display().to_string();
    paris.sql("app", &format!("CREATE TABLESPACE attic LOCATION '{old}'"));
    paris.sql("app", "ALTER TABLE orders SET TABLESPACE attic");
    let place = Adopted::place("oslo");
    let unmapped = paris.psql("app", &call("oslo", &place, ""));
    assert!(unmapped.output.contains("no place is named for the tablespace"), "{unmapped}");
    assert_nothing_begun(&paris, &place);
    let new = place.data_dir().with_file_name("new=space");
    let map = format!(", tablespaces => '{{\"{old}\": \"{}\"}}'", new.display());
    clone(&paris, &place, &map);
    assert_follows(&paris, &place);
    assert_eq!(place.entries(), ["data", "new=space"]);
    let location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'attic'";
    assert_eq!(place.query_one_text("app", location), new.display().to_string());
    for (setting, file) in [("data_directory", ""), ("hba_file", "/pg_hba.conf")] {
        let wanted = format!("{}{file}", place.data_dir().display());
        assert_eq!(place.query_one_text("app", &format!("SHOW {setting}")), wanted);
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let paris = paris();
    let place = Adopted::place("oslo");
    let refused = |script: &str, why: &str| {
        let said = paris.psql("app", script);
        assert!(!said.ok && said.output.contains(why) && said.output.contains("HINT"), "{said}");
    };
    let at = |directory: &str| format!("CALL nodes.clone_standby('oslo', 'paris', '{directory}')");
    refused(&at("data"), "not an absolute path");
    refused(&at("/tmp/../x"), "not an absolute path");
    refused(&at("/tmp/$(touch x)"), "would give to a shell");
    refused(&at("/no/such/place"), "there is no directory \"/no/such\"");
    refused(&at(&paris.data_dir().join("base/oslo").display().to_string()), "overlaps");
    refused(&at(&paris.data_dir().display().to_string()), "overlaps");
    refused(&call("oslo", &place, "").replace("'paris'", "'rome'"), "node \"rome\" does not exist");
    refused(&call("paris", &place, ""), "node \"paris\" already exists");
    refused(&format!("BEGIN; {}", call("oslo", &place, "")), "inside a transaction block");
    paris.sql(
        "app",
        "CREATE ROLE clerk; GRANT USAGE ON SCHEMA nodes TO clerk;
         GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA nodes TO clerk",
    );
    refused(&format!("SET ROLE clerk; {}", call("oslo", &place, "")), "is for superusers");
    let taken = TcpListener::bind(("127.0.0.1", place.port())).expect("the port is free");
    refused(&call("oslo", &place, ""), &format!("port {} is in use", place.port()));
    drop(taken);
    // It takes no room, and shows as eight terabytes.
    let temporary = paris.data_dir().join("base/pgsql_tmp");
    fs::create_dir_all(&temporary).expect("a directory");
    let large = temporary.join("pgsql_tmp1.1");
    let made = fs::File::create(&large).and_then(|file| file.set_len(8 << 40));
    made.expect("a file with a hole");
    refused(&call("oslo", &place, ""), "the clone needs 8192 GB below");
    fs::remove_file(large).expect("it is there");
    assert_nothing_begun(&paris, &place);
    fs::create_dir(place.data_dir()).expect("a directory");
    fs::write(place.data_dir().join("mine"), "precious").expect("a file");
    pg_test::user::give(place.data_dir());
    refused(&call("oslo", &place, ""), "is not empty");
    assert_eq!(fs::read(place.data_dir().join("mine")).expect("it is there"), b"precious");
    assert_eq!(place.entries(), ["data"]);
    assert_eq!(slots(&paris), [""; 0]);
}

/// Runs a slow call in the background until the copy has begun.
fn begin(paris: &Server, place: &Adopted) -> JoinHandle<Psql> {
    // One that was cut off may still be shown.
    wait_until("no other copy runs", LONG, || paris.query_texts("app", COPYING).is_empty());
    let running = paris.psql_in_background("app", &call("oslo", place, SLOW));
    await_copy(paris, &running);
    running
}

fn await_copy(paris: &Server, running: &JoinHandle<Psql>) {
    wait_until("the copy has begun", LONG, || {
        assert!(!running.is_finished(), "it ended early");
        !paris.query_texts("app", COPYING).is_empty()
    });
}

#[test]
fn a_cancelled_call_is_taken_back() {
    let paris = paris();
    let place = Adopted::place("oslo");
    // What was begun is taken back, and the node stays registered.
    let running = begin(&paris, &place);
    let pid = paris.query_one_text("app", CALLER);
    paris.sql("app", &format!("SELECT pg_cancel_backend({pid})"));
    let said = running.join().expect("psql ran");
    assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    assert_eq!((slots(&paris), place.entries()), (vec![], vec![]));
    assert!(!program_runs(&program(&place)));
    // Who gives up says so.
    paris.sql("app", "SELECT nodes.forget_node('oslo')");
    assert!(paris.psql("app", "CALL nodes.apply()").ok);
    assert_nothing_begun(&paris, &place);
}

/// Whoever looks from another session sees how far it is, whether somebody watches or not.
#[test]
fn link_status_shows_how_far_it_is() {
    for builder in [Server::builder("paris"), watching("paris")] {
        let paris = registry(builder.start());
        add_node(&paris, "paris", &paris);
        let place = Adopted::place("oslo");
        let running = begin(&paris, &place);
        let status = "SELECT concat_ws(' ', state, bytes_copied < bytes_expected,
            copy_time_left > '0 s', substring(reason FROM 'oslo. is copied.*')) FROM nodes.link_status";
        let told = [
            "copying t t oslo\" is copied from \"paris\": streaming database files, ",
            " % (",
            " left",
        ];
        wait_until("its progress is shown", LONG, || {
            let row = paris.query_texts("app", status);
            row.len() == 1 && told.iter().all(|part| row[0].contains(part))
        });
        assert!(!running.is_finished(), "it has been shown while it ran");
        let pid = paris.query_one_text("app", CALLER);
        paris.sql("app", &format!("SELECT pg_cancel_backend({pid})"));
        let said = running.join().expect("psql ran");
        assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    }
}

#[test]
fn a_clone_that_does_not_start_is_kept() {
    let paris = paris();
    let place = Adopted::place("oslo");
    let running = begin(&paris, &place);
    let taken = TcpListener::bind(("127.0.0.1", place.port())).expect("the port is free");
    let said = running.join().expect("psql ran");
    let progress = ["oslo: streaming database files, ", " % ("];
    assert!(progress.iter().all(|part| said.output.contains(part)), "{said}");
    let why = ["did not start", "could not bind", "The copy is complete"];
    assert!(!said.ok && why.iter().all(|why| said.output.contains(why)), "{said}");
    drop(taken);
    let again = clone(&paris, &place, "");
    assert!(again.contains("complete") && again.contains("started"), "{again}");
    assert_follows(&paris, &place);
}

/// A running standby loses nothing to a clone of its name; in place of a dead one, a new one is made.
#[test]
fn a_name_that_is_taken() {
    let paris = paris();
    let (first, second) = (Adopted::place("oslo"), Adopted::place("oslo"));
    clone(&paris, &first, "");
    let refused = |why: &str| {
        let said = paris.psql("app", &call("oslo", &second, ""));
        let told = ["node \"oslo\" is another server already", why];
        assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
        assert_eq!(second.entries(), [""; 0]);
    };
    refused(&format!("It runs in \"{}\".", first.data_dir().display()));
    assert_follows(&paris, &first);
    // The registry cannot reach it, but it lives.
    let moved = literal(
        &paris
            .conninfo("app")
            .replace(&format!("port={}", paris.port()), &format!("port={}", second.port())),
    );
    paris.sql("app", &format!("SELECT nodes.alter_node('oslo', conninfo => {moved})"));
    refused("It streams from its primary.");
    first.crash();
    wait_until("its stream is gone", LONG, || {
        paris.query_texts("app", "SELECT pid::text FROM pg_stat_replication").is_empty()
    });
    clone(&paris, &second, "");
    assert_follows(&paris, &second);
}

const GIVING_UP: [&str; 3] = [
    "SELECT nodes.remove_node('oslo', cascade => true)",
    "SELECT nodes.forget_node('oslo')",
    "CALL nodes.teardown()",
];

/// Nothing is left of a clone that was not finished.
#[track_caller]
fn give_up(paris: &Server, place: &Adopted, statement: &str) {
    let said = paris.psql("app", &format!("{statement}; CALL nodes.apply()"));
    assert!(said.ok && said.output.contains("nothing is left of an unfinished copy"), "{said}");
    assert_eq!((slots(paris), place.entries()), (vec![], vec![]));
    let nodes = paris.query_texts("app", "SELECT name FROM nodes.node WHERE name <> 'paris'");
    assert_eq!(nodes, [""; 0]);
}

/// Whatever the registry's server did not live to take back goes with the node.
#[test]
fn an_unfinished_clone_that_is_given_up_leaves_nothing() {
    for statement in GIVING_UP {
        eprintln!("{statement}");
        let mut paris = paris();
        let place = Adopted::place("oslo");
        let running = begin(&paris, &place);
        paris.crash();
        paris.start_again();
        assert!(!running.join().expect("psql ran").ok);
        assert!(place.entries().len() == 1 && slots(&paris).len() == 1, "something is left");
        let status = "SELECT state || ': ' || hint FROM nodes.link_status";
        let told = &paris.query_texts("app", status)[0];
        assert!(told.starts_with("initializing: If nobody is at it: the same nodes.cl"), "{told}");
        give_up(&paris, &place, statement);
    }
}

/// Who is still copying ends.
#[test]
fn a_clone_that_is_made_is_given_up() {
    for statement in GIVING_UP {
        eprintln!("{statement}");
        let paris = paris();
        let place = Adopted::place("oslo");
        let running = begin(&paris, &place);
        give_up(&paris, &place, statement);
        let said = running.join().expect("psql ran");
        assert!(!said.ok && said.output.contains("pg_basebackup failed"), "{said}");
        assert_eq!((slots(&paris), place.entries()), (vec![], vec![]));
    }
}

/// Who comes second waits for the first, and goes on where that was ended.
#[test]
fn two_calls_at_once() {
    let paris = paris();
    let place = Adopted::place("oslo");
    let both = [(); 2].map(|()| paris.psql_in_background("app", &call("oslo", &place, "")));
    let said = both.map(|call| call.join().expect("psql ran"));
    let fine = |said: &Psql| said.ok || said.output.contains("node \"oslo\" already exists");
    assert!(said.iter().any(|said| said.ok) && said.iter().all(fine), "{}{}", said[0], said[1]);
    assert_follows(&paris, &place);
    remove(&paris);
    for end in ["pg_terminate_backend", "pg_cancel_backend", "kill"] {
        let place = Adopted::place("oslo");
        let first = begin(&paris, &place);
        let second = paris.psql_in_background("app", &call("oslo", &place, ""));
        await_wait(&paris);
        if end == "kill" {
            assert!(kill_program(&program(&place)));
        } else {
            let first = "pg_stat_activity WHERE query LIKE 'CALL%max_rate%'";
            paris.sql("app", &format!("SELECT {end}(pid) FROM {first}"));
        }
        let [first, second] = [first, second].map(|call| call.join().expect("psql ran"));
        let told = "waiting for nodes.clone_standby() of process";
        assert!(!first.ok && second.ok && second.output.contains(told), "{first}{second}");
        assert_follows(&paris, &place);
        remove(&paris);
    }
}

#[track_caller]
fn remove(paris: &Server) {
    paris.sql("app", "SELECT nodes.remove_node('oslo', cascade => true)");
    let said = paris.psql("app", "CALL nodes.apply()");
    assert!(said.ok, "{said}");
    assert_eq!(slots(paris), [""; 0]);
}

fn await_wait(paris: &Server) {
    const WAITING: &str = "SELECT pid::text FROM pg_locks
        WHERE classid = 'nodes.link'::regclass AND NOT granted";
    wait_until("it waits", LONG, || !paris.query_texts("app", WAITING).is_empty());
}

/// Where the server on its machine is gone too, people are told what is left and where.
#[test]
fn what_cannot_be_taken_away_is_told() {
    let paris = paris();
    let mut rome = registry(Server::builder("rome").start());
    add_node(&paris, "rome", &rome);
    let place = Adopted::place("oslo");
    let more = format!(", on_node => 'rome'{SLOW}");
    let running = paris.psql_in_background("app", &call("oslo", &place, &more));
    await_copy(&paris, &running);
    rome.crash();
    assert!(!running.join().expect("psql ran").ok);
    let left = place.entries();
    assert_eq!((left.len(), slots(&paris)), (1, vec![]));
    let said = paris.psql("app", "SELECT nodes.forget_node('oslo'); CALL nodes.apply()");
    let told = [
        "rome: an unfinished copy could not be removed",
        &format!("Remove there what is left of it: \"{}.", place.data_dir().display()),
        &left[0],
    ];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    let nodes = "SELECT name FROM nodes.node ORDER BY name";
    assert_eq!(paris.query_texts("app", nodes), ["paris", "rome"]);
    // It may be somebody's server by now.
    rome.start_again();
    let place = Adopted::place("oslo");
    let running = begin(&paris, &place);
    let taken = TcpListener::bind(("127.0.0.1", place.port())).expect("the port is free");
    assert!(!running.join().expect("psql ran").ok);
    drop(taken);
    let said = paris.psql("app", "SELECT nodes.forget_node('oslo'); CALL nodes.apply()");
    let told = ["a complete clone is left in", "Keep it, or stop the server in it"];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    assert_eq!((place.entries(), slots(&paris)), (vec!["data".to_owned()], vec![]));
}

/// What `add_standby()` takes, the clone has from the start.
#[test]
fn a_clone_that_commits_wait_for() {
    let paris = paris();
    let place = Adopted::place("oslo");
    let more =
        ", synchronous => true, options => '{\"synchronous_method\": \"first\"}', heal => true";
    let wrong = paris.psql("app", &call("oslo", &place, &more.replace("first", "last")));
    assert!(!wrong.ok && wrong.output.contains("It must be any or first"), "{wrong}");
    assert_nothing_begun(&paris, &place);
    clone(&paris, &place, more);
    assert_follows(&paris, &place);
    let names = paris.query_one_text("app", "SHOW synchronous_standby_names");
    assert!(names.starts_with("FIRST 1 ("), "{names}");
    let heals = "SELECT heal::text FROM nodes.link WHERE spec->>'unfinished' IS NULL";
    assert_eq!(paris.query_texts("app", heals), ["true"]);
}

/// Where a call is interrupted.
#[derive(Debug, Clone, Copy)]
enum At {
    /// It writes the first of its rows into this table.
    Row(&'static str),
    /// `pg_basebackup` is so far on its way to the primary.
    Way(Phase),
    Copy,
    /// The directory has its name, and the server in it starts.
    Start,
}

/// What ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `kill -9` of its process, after which the server starts anew.
    Kill,
    Terminate,
    /// `kill -9` of `pg_basebackup`.
    Program,
    /// `kill -9` of the postmaster, which is that of the primary.
    Crash,
}

const INTERRUPTIONS: [(At, End); 13] = [
    (At::Row("link"), End::Kill),
    (At::Way(Phase::Connect), End::Kill),
    (At::Way(Phase::Connect), End::Terminate),
    (At::Way(Phase::Authentication), End::Program),
    (At::Way(Phase::FirstQuery), End::Terminate),
    (At::Way(Phase::SteadyState), End::Crash),
    (At::Copy, End::Program),
    (At::Copy, End::Kill),
    (At::Copy, End::Terminate),
    (At::Copy, End::Crash),
    (At::Start, End::Kill),
    (At::Start, End::Terminate),
    (At::Row("event"), End::Kill),
];

/// The same call goes on wherever it was; a call that lives takes back what it has begun.
#[test]
fn wherever_it_is_interrupted() {
    let mut paris = registry(Server::builder("paris").start());
    let proxy = Proxy::to(paris.port());
    let way = paris.conninfo("app").replace(&paris.port().to_string(), &proxy.port().to_string());
    let [way, direct] = [&way, &paris.conninfo("app")].map(|conninfo| literal(conninfo));
    paris.sql("app", &format!("SELECT nodes.add_node('paris', {way}, admin_conninfo => {direct})"));
    paris.sql("app", "CREATE TABLE written (id integer PRIMARY KEY)");
    let writer = Writer::start(&[&paris], "written");
    for (at, end) in INTERRUPTIONS {
        eprintln!("{at:?}, {end:?}");
        let place = Adopted::place("oslo");
        interrupt(&mut paris, &proxy, &place, at, end);
        if end == End::Program {
            assert_nothing_begun(&paris, &place);
        }
        clone(&paris, &place, "");
        assert_follows(&paris, &place);
        assert_eq!(place.entries(), ["data"]);
        remove(&paris);
        // Else the next crash would undo it.
        paris.sql("app", "CHECKPOINT");
    }
    writer.finish().assert_kept(&paris, "written");
}

fn interrupt(paris: &mut Server, proxy: &Proxy, place: &Adopted, at: At, end: End) {
    let holder = match at {
        At::Row(table) => Some(hold(paris, table)),
        At::Way(phase) => {
            proxy.set_at(phase, Fault::HalfOpen);
            None
        }
        At::Copy | At::Start => None,
    };
    let accepted = proxy.accepted();
    let more = if matches!(at, At::Copy) { SLOW } else { "" };
    let running = paris.psql_in_background("app", &call("oslo", place, more));
    wait_until("it is there", LONG, || {
        assert!(!running.is_finished(), "it ended early");
        match at {
            At::Row(_) => !paris.query_texts("app", HELD).is_empty(),
            At::Way(_) => proxy.accepted() > accepted,
            At::Copy => !paris.query_texts("app", COPYING).is_empty(),
            At::Start => place.data_dir().exists(),
        }
    });
    let pid = || paris.query_one_text("app", CALLER).parse().expect("a process id");
    match end {
        End::Kill => paris.kill_backend(pid()),
        End::Terminate => paris.sql("app", &format!("SELECT pg_terminate_backend({})", pid())),
        End::Program => assert!(kill_program(&program(place))),
        End::Crash => {
            paris.crash();
            paris.start_again();
        }
    }
    let said = running.join().expect("psql ran");
    let why = if end == End::Program { "pg_basebackup failed" } else { "" };
    assert!(!said.ok && said.output.contains(why), "{said}");
    proxy.set(Fault::None);
    drop(holder);
    paris.await_up("app");
    wait_until("the program is gone", LONG, || !program_runs(&program(place)));
    paris.sql("app", "DROP FUNCTION IF EXISTS hold CASCADE");
}

fn program(place: &Adopted) -> String {
    format!("--pgdata={}", place.data_dir().display())
}

const HELD: &str = "SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND objid = 4713 AND NOT granted";

const COPYING: &str = "SELECT phase FROM pg_stat_progress_basebackup WHERE backup_streamed > 0";

const CALLER: &str = "SELECT pid::text FROM pg_stat_activity
    WHERE query LIKE 'CALL nodes.clone_standby%' AND pid <> pg_backend_pid()";

/// Who writes into this table of the registry waits as long as the client is there.
fn hold(paris: &Server, table: &str) -> Client {
    paris.sql(
        "app",
        &format!(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN PERFORM pg_advisory_xact_lock(4713); RETURN NEW; END $$;
             CREATE TRIGGER hold BEFORE INSERT ON nodes.{table}
               FOR EACH ROW EXECUTE FUNCTION hold()"
        ),
    );
    let mut holder = paris.client("app");
    holder.batch_execute("SELECT pg_advisory_lock(4713)").expect("the lock is free");
    holder
}
