//! The harness itself: what every other story relies on.
use pg_test::tls::Authority;
use pg_test::{Install, LONG, Server, is_gone, names, wait_until};

#[test]
fn a_server_starts_crashes_and_starts_again() {
    let mut server = Server::builder("one").conf("work_mem", "5MB").start();
    assert_eq!(
        server.query_one_text("postgres", "SHOW server_version_num")[..2],
        Server::major().to_string()
    );
    assert_eq!(server.query_one_text("postgres", "SHOW work_mem"), "5MB");
    server.sql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (7)");
    let backends = server.query_texts("postgres", "SELECT pid FROM pg_stat_activity");
    let postmaster = server.pid();

    server.crash();
    assert!(server.try_client("postgres").is_err());
    assert!(is_gone(postmaster));
    for pid in backends {
        assert!(is_gone(pid.parse().expect("a process id")));
    }

    server.start_again();
    assert_eq!(server.query_one_text("postgres", "SELECT a FROM t"), "7");
    assert!(server.log().contains("was not properly shut down"));

    let port = server.port();
    server.restart();
    assert_eq!(server.port(), port);
    server.move_to_another_port();
    assert_eq!(server.query_one_text("postgres", "SELECT a FROM t"), "7");
}

#[test]
fn servers_differ_in_identity_and_a_clone_does_not() {
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").start();
    let of = |server: &Server| server.query_one_text("postgres", identity);
    assert_ne!(of(&paris), of(&london));

    let oslo = paris.clone_standby("oslo");
    assert_eq!(of(&paris), of(&oslo));
    let in_recovery = "SELECT pg_is_in_recovery()";
    assert_eq!(oslo.query_one_text("postgres", in_recovery), "t");

    let conninfo = paris.conninfo("postgres");
    oslo.sql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'"));
    oslo.reload();
    paris.sql("postgres", "CREATE TABLE t AS SELECT 7 AS a");
    wait_until("the table is on oslo", LONG, || {
        oslo.query_one_text("postgres", "SELECT to_regclass('t')") == "t"
    });

    oslo.promote();
    assert_eq!(oslo.query_one_text("postgres", in_recovery), "f");
}

#[test]
fn a_clone_by_a_shell_command() {
    let paris = Server::builder("paris").start();
    let oslo = Server::from_command(Server::builder("oslo"), |data| {
        format!(
            "pg_basebackup -d '{}' -c fast -R -D '{}'",
            paris.conninfo("postgres"),
            data.display()
        )
    });
    wait_until("oslo streams from paris", LONG, || {
        paris.query_one_text("postgres", "SELECT count(*) FROM pg_stat_replication") == "1"
    });
    drop(oslo);
}

#[test]
fn a_paused_server_keeps_its_connections_and_stays_silent() {
    let mut server = Server::builder("one").start();
    let mut client = server.client("postgres");
    server.pause();
    let (answer, answered) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        let row = client.query_one("SELECT 7", &[]).expect("an answer");
        answer.send(row.get::<_, i32>(0)).expect("a listener");
    });
    let silence = std::time::Duration::from_millis(300);
    assert!(answered.recv_timeout(silence).is_err());
    server.resume();
    assert_eq!(answered.recv_timeout(LONG).expect("an answer"), 7);
    asking.join().expect("the answer was sent");
}

#[test]
fn killing_a_backend_restarts_the_server_from_within() {
    let server = Server::builder("one").start();
    let mut victim = server.client("postgres");
    let row = victim.query_one("SELECT pg_backend_pid()", &[]);
    let pid: i32 = row.expect("a row").get(0);
    let mut other = server.client("postgres");
    server.kill_backend(pid.try_into().expect("a process id"));
    wait_until("the other session was ended too", LONG, || other.simple_query("").is_err());
    wait_until("connections are accepted again", LONG, || server.try_client("postgres").is_ok());
}

#[test]
fn psql_shows_results_and_errors_in_their_order() {
    let server = Server::builder("one").start();
    for name in names::HOSTILE {
        let quoted = server.psql_with(
            "postgres",
            &["-At", "-v", &format!("name={name}")],
            "SELECT :'name';",
        );
        assert_eq!(quoted.output.trim_end(), name);
    }
    let script = "SELECT 'before';\nSELECT 1/0;\nSELECT 'never';";
    let psql = server.psql_with("postgres", &["-At"], script);
    assert!(!psql.ok);
    assert_eq!(psql.output, "before\nERROR:  division by zero\n");
}

#[test]
fn a_password_is_asked_for_over_tcp_only() {
    let server = Server::builder("one").password("it is secret").start();
    let conninfo = server.conninfo("postgres");
    let connect =
        |more: &str| postgres::Client::connect(&format!("{conninfo} {more}"), postgres::NoTls);
    assert!(connect("").is_err());
    assert!(connect("password='it is secret'").is_ok());
    assert_eq!(server.query_one_text("postgres", "SELECT 7"), "7");
}

#[test]
fn a_program_that_the_server_runs_may_read_the_installation() {
    let server = Server::builder("one").start();
    let program = Install::get().program("pg_config");
    server.sql(
        "postgres",
        &format!("CREATE TABLE t (a text); COPY t FROM PROGRAM '{} --version'", program.display()),
    );
    let version = server.query_one_text("postgres", "SELECT a FROM t");
    assert!(version.starts_with("PostgreSQL "), "{version}");
}

#[test]
fn residue_is_found() {
    let server = Server::builder("one").start();
    server.assert_no_residue("postgres");
    server.sql(
        "postgres",
        "CREATE PUBLICATION p FOR ALL TABLES;
         COMMENT ON PUBLICATION p IS 'managed by pg_nodes: registry x'",
    );
    assert_eq!(
        server.residue("postgres"),
        ["publications: p", "comments with our mark: managed by pg_nodes: registry x"]
    );
}

#[test]
fn a_certificate_counts_for_its_name_only() {
    if !Server::supports_tls() {
        return;
    }
    let authority = Authority::new();
    let server = Server::builder("one")
        .tls(&authority, "one.test")
        .hba("hostssl all all 127.0.0.1/32 cert")
        .start();
    let client = authority.client("postgres");
    let root = server.write_file("root.crt", &authority.pem());
    let certificate = server.write_file("client.crt", &client.certificate);
    let key = server.write_file("client.key", &client.key);
    // The server's user owns these files, so it is a connection of the server that can use them.
    server.sql("postgres", "CREATE EXTENSION dblink");
    let connect = |host: &str| {
        let query = format!(
            "SELECT a FROM dblink('host={host} hostaddr=127.0.0.1 port={} dbname=postgres \
                user=postgres sslmode=verify-full sslrootcert={} sslcert={} sslkey={}', \
                'SELECT 7') AS t(a int)",
            server.port(),
            root.display(),
            certificate.display(),
            key.display()
        );
        server.client("postgres").query_one(&query, &[]).map(|row| row.get::<_, i32>(0))
    };
    assert_eq!(connect("one.test").expect("the right name"), 7);
    let error = connect("two.test").expect_err("another name");
    let message = error.as_db_error().and_then(|e| e.detail()).unwrap_or_default().to_owned();
    assert!(message.contains("does not match host name"), "{message}");
}
