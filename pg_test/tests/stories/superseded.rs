//! A server that was the primary of a group and has a successor takes no writes.

use pg_test::trio::{add_node, apply, plan};
use pg_test::watcher::watching;
use pg_test::writer::Writer;
use pg_test::{Builder, LONG, Server, wait_until};

const INSERT: &str = "INSERT INTO orders VALUES (666)";

fn member(name: &str) -> Builder {
    watching(name).conf("wal_log_hints", "on").conf("max_prepared_transactions", "5")
}

/// Paris, with settings of its own, and its standby oslo; both know that they are a group.
fn pair(settings: &[(&str, &str)]) -> (Server, Server) {
    let with = |builder: Builder, (name, value): &(&str, &str)| builder.conf(name, value);
    let paris = settings.iter().fold(member("paris"), with).start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let oslo = paris.clone_standby_with(member("oslo"));
    for (name, server) in [("paris", &paris), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    paris.await_link("oslo", "streaming");
    for server in [&paris, &oslo] {
        wait_until("it knows that it is in a group", LONG, || !groups(server).is_empty());
    }
    (paris, oslo)
}

/// The files by which a server knows at its start that it is in a group.
fn groups(server: &Server) -> Vec<String> {
    let files = std::fs::read_dir(server.data_dir()).expect("a data directory").flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("pg_nodes.group.")).collect()
}

fn events(server: &Server, kind: &str) -> Vec<String> {
    let query = format!("SELECT severity || ' ' || message FROM nodes.event WHERE kind = '{kind}'");
    server.query_texts("app", &query)
}

fn superseded_by(server: &Server) -> String {
    server.query_one_text("app", "SHOW pg_nodes.superseded_by")
}

/// What a session says that tries to write and may not.
fn refused(server: &Server, sql: &str) -> String {
    let said = server.psql("app", &format!("SET default_transaction_read_only = off; {sql}"));
    assert!(!said.ok && said.output.contains("this server is superseded"), "{sql}: {said}");
    said.output
}

/// Writes where nobody is to write.
fn insist(server: &Server, sql: &str) {
    let open = "SET default_transaction_read_only = off; SET pg_nodes.allow_superseded_writes = on";
    let said = server.psql("app", &format!("{open}; {sql}"));
    assert!(said.ok, "{sql}: {said}");
}

#[test]
fn an_old_primary_that_returns_by_itself_takes_no_write() {
    let (mut paris, mut oslo) = pair(&[("pg_nodes.startup_check", "10min")]);
    paris.sql("app", "BEGIN; INSERT INTO orders VALUES (7); PREPARE TRANSACTION 'seven'");
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok, "{said}");
    paris.start_again();
    // As early as can be: it waits until the worker knows.
    assert!(refused(&paris, INSERT).contains("oslo\" is on timeline 2"));
    assert!(paris.log().contains("this server starts unconfirmed"));
    assert_eq!(superseded_by(&paris), "oslo (timeline 2)");
    assert_eq!(paris.query_texts("app", "SELECT id FROM orders"), [""; 0]);
    for sql in [
        INSERT,
        "COMMIT PREPARED 'seven'",
        "DROP EXTENSION pg_nodes",
        "SELECT nodes.remove_link('oslo')",
    ] {
        refused(&paris, sql);
    }
    assert!(refused(&paris, "CALL nodes.apply()").contains("nodes.rejoin()"));
    wait_until("an event", LONG, || !events(&paris, "superseded").is_empty());
    let told = events(&paris, "superseded");
    assert!(
        told.len() == 1 && told[0].starts_with("critical this server is superseded"),
        "{told:?}"
    );

    // Who looks for a server to write to finds the other one.
    let either = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=app target_session_attrs=read-write",
        paris.port(),
        oslo.port()
    );
    let said = oslo.psql_with("app", &["-At", "-d", &either], "SHOW port");
    assert_eq!(said.output.trim(), oslo.port().to_string());

    // It does not forget when nobody can be asked.
    oslo.stop();
    paris.restart();
    assert!(paris.log().contains("this server takes no writes"));
    refused(&paris, INSERT);
    assert_eq!(events(&paris, "superseded").len(), 1, "that is no news");
    insist(&paris, INSERT);

    oslo.start_again();
    let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(said.ok && said.output.contains("is a standby of \"oslo\""), "{said}");
    assert_eq!(paris.query_texts("app", "SELECT id FROM orders"), [""; 0]);
    oslo.await_link("paris", "streaming");
    assert_eq!(events(&oslo, "broken"), [""; 0], "its link was new, not broken");
    oslo.sql("app", "COMMIT PREPARED 'seven'");
    let said = paris.psql("app", "CALL nodes.switchover('paris')");
    assert!(said.ok, "{said}");
    assert_eq!(superseded_by(&paris), "");
    paris.sql("app", INSERT);
    assert_eq!(plan(&paris), [""; 0]);
}

/// The promotion of oslo was cut short by a crash: it writes on the timeline of paris.
#[test]
fn a_primary_on_the_same_timeline_is_a_successor_of_who_returns() {
    let (mut paris, mut oslo) = pair(&[("pg_nodes.startup_check", "10min")]);
    paris.crash();
    oslo.stop();
    std::fs::remove_file(oslo.data_dir().join("standby.signal")).expect("it was a standby");
    oslo.append_conf("pg_nodes.startup_check = '10ms'");
    oslo.start_again();
    oslo.sql("app", INSERT);
    paris.start_again();
    assert!(refused(&paris, INSERT).contains("oslo\" is on timeline 1"));
    assert_eq!(superseded_by(&paris), "oslo (timeline 1)");
    oslo.sql("app", "INSERT INTO orders VALUES (8)");
    let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(!said.ok && said.output.contains("not older than that of the other primary"), "{said}");
}

/// Whoever writes all the while is told of no commit that one of the two does not have in the end.
#[test]
fn what_is_acknowledged_is_kept_when_an_old_primary_returns() {
    let (mut paris, oslo) = pair(&[]);
    paris.sql("app", "CREATE TABLE written (id integer PRIMARY KEY)");
    paris.sql("app", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    paris.reload();
    let synchronous = "SELECT sync_state FROM pg_stat_replication";
    wait_until("commits wait", LONG, || paris.query_texts("app", synchronous) == ["sync"]);
    let writer = Writer::start(&[&paris, &oslo], "written");
    let count = |server: &Server| -> usize {
        let rows = server.query_one_text("app", "SELECT count(*) FROM written");
        rows.parse().expect("a number")
    };
    wait_until("it is written to", LONG, || count(&oslo) > 100);
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok, "{said}");
    // Whoever writes asks paris first.
    paris.start_again();
    wait_until("paris knows", LONG, || superseded_by(&paris) == "oslo (timeline 2)");
    let before = count(&oslo);
    wait_until("oslo is written to", LONG, || count(&oslo) > before + 100);
    let said = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(said.ok, "{said}");
    let written = writer.finish();
    written.assert_kept(&oslo, "written");
    wait_until("paris has all", LONG, || count(&paris) == count(&oslo));
    written.assert_kept(&paris, "written");
}

/// Where `pg_rewind` is not possible: a copy takes longer, and is seen by who watches.
#[test]
fn a_superseded_server_is_copied_anew() {
    let (mut paris, oslo) = pair(&[("full_page_writes", "off")]);
    paris.crash();
    assert!(oslo.psql("app", "CALL nodes.promote('oslo')").ok);
    paris.start_again();
    refused(&paris, INSERT);
    insist(&paris, INSERT);
    let running = oslo.psql_in_background("app", "CALL nodes.rejoin('paris', max_rate => '8MB')");
    let status = "SELECT state || ' ' || reason FROM nodes.link_status";
    wait_until("it is copied", LONG, || {
        assert!(!running.is_finished(), "it ended early");
        let row = oslo.query_texts("app", status);
        row.len() == 1 && row[0].starts_with("copying \"paris\" is copied from \"oslo\"")
    });
    let said = running.join().expect("psql ran");
    assert!(said.ok && said.output.contains("returns on the copy"), "{said}");
    assert_eq!(paris.query_texts("app", "SELECT id FROM orders"), [""; 0]);
    assert_eq!(superseded_by(&paris), "");
    oslo.await_link("paris", "streaming");
    assert_eq!(plan(&oslo), [""; 0]);
    let said = paris.psql("app", "CALL nodes.switchover('paris')");
    assert!(said.ok, "{said}");
    paris.sql("app", INSERT);
}

#[test]
fn a_primary_without_a_successor_is_open_as_soon_as_it_has_asked() {
    let (mut paris, oslo) = pair(&[("pg_nodes.startup_check", "10min")]);
    paris.restart();
    paris.sql("app", "INSERT INTO orders VALUES (1)");
    assert!(paris.log().contains("this server starts unconfirmed"));
    // So is one that starts over because a process of it crashed.
    let mut victim = paris.client("app");
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).expect("a row").get(0);
    paris.kill_backend(pid.unsigned_abs());
    wait_until("it is back", LONG, || paris.psql("app", "INSERT INTO orders VALUES (2)").ok);
    assert_eq!(events(&paris, "unconfirmed"), [""; 0]);
    wait_until("all is there", LONG, || {
        oslo.query_texts("app", "SELECT id FROM orders ORDER BY id") == ["1", "2"]
    });
}

#[test]
fn silent_members_are_waited_for_as_long_as_is_said() {
    let (mut paris, mut oslo) = pair(&[("pg_nodes.startup_check", "3s")]);
    oslo.stop();
    paris.restart();
    let waiting = paris.psql_in_background("app", "INSERT INTO orders VALUES (1)");
    let cancelled = "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity
         WHERE query LIKE 'INSERT%' AND wait_event_type = 'Extension'";
    wait_until("it waits", LONG, || paris.query_texts("app", cancelled) == ["true"]);
    let said = waiting.join().expect("psql");
    assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    assert_eq!(
        paris.query_texts("app", "SELECT id FROM orders"),
        [""; 0],
        "who reads does not wait"
    );
    paris.sql("app", "INSERT INTO orders VALUES (2)");
    wait_until("an event", LONG, || !events(&paris, "unconfirmed").is_empty());
    let told = events(&paris, "unconfirmed");
    assert!(told.len() == 1 && told[0].contains("do not answer: \"oslo\""), "{told:?}");

    paris.sql("app", "ALTER SYSTEM SET pg_nodes.startup_check = 0");
    paris.restart();
    paris.sql("app", "INSERT INTO orders VALUES (3)");
    assert!(
        !paris.log().rsplit("starting PostgreSQL").next().unwrap_or("").contains("unconfirmed")
    );
    assert_eq!(events(&paris, "unconfirmed").len(), 1);

    // It is never too late to learn of a successor.
    oslo.start_again();
    oslo.promote();
    wait_until("paris is superseded", LONG, || superseded_by(&paris) == "oslo (timeline 2)");
    refused(&paris, INSERT);
}

#[test]
fn a_primary_that_is_replaced_while_it_runs_ends_what_it_has_begun() {
    let (paris, oslo) = pair(&[]);
    let london = Server::builder("london").start();
    london.create_db("app");
    london.sql("app", "CREATE TABLE feed (id integer PRIMARY KEY)");
    paris.sql("app", "CREATE TABLE feed (id integer PRIMARY KEY)");
    add_node(&paris, "london", &london);
    paris.sql("app", "SELECT nodes.add_subscription('we\"ird', 'london', 'paris', '{feed}')");
    paris.await_link("we\"ird", "streaming");
    let mut session = paris.client("app");
    session.batch_execute(&format!("BEGIN; {INSERT}")).expect("it may still write");
    oslo.promote();
    wait_until("paris is superseded", LONG, || superseded_by(&paris) == "oslo (timeline 2)");
    let error = session.batch_execute("COMMIT").expect_err("it is too late");
    let error = error.as_db_error().expect("the server's own");
    assert_eq!(error.code().code(), "25006", "{error}");
    assert!(error.message().contains("superseded"), "{error}");
    assert_eq!(paris.query_texts("app", "SELECT id FROM orders"), [""; 0]);
    let enabled = "SELECT subenabled::text FROM pg_subscription";
    wait_until("its subscription is disabled", LONG, || {
        paris.query_texts("app", enabled) == ["false"]
    });

    // Who says that there is no group any more has a server of its own.
    insist(&paris, "SELECT nodes.remove_link('oslo'); SELECT nodes.remove_node('oslo')");
    wait_until("paris is open", LONG, || superseded_by(&paris).is_empty());
    paris.sql("app", INSERT);
    assert_eq!(events(&paris, "confirmed").len(), 1);
    apply(&paris);
    assert_eq!(paris.query_texts("app", enabled), ["true"]);
    assert_eq!(groups(&paris), [""; 0]);
}

#[test]
fn what_is_gone_holds_nobody_up() {
    let (mut paris, _oslo) = pair(&[("pg_nodes.startup_check", "10min")]);
    paris.sql("app", "DROP EXTENSION pg_nodes");
    wait_until("its file is gone", LONG, || groups(&paris).is_empty());
    paris.restart();
    paris.sql("app", INSERT);

    // A database that was dropped while nobody could take note.
    paris.write_file("pg_nodes.group.4294967295", "{}");
    paris.restart();
    paris.sql("app", "INSERT INTO orders VALUES (2)");
    assert_eq!(groups(&paris), [""; 0]);
}
