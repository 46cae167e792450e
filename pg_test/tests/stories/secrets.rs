//! Every server logs all it can and asks for a password; through creation, failure, change and
//! teardown the password is seen nowhere but where it must be.

use pg_test::activity::while_watched;
use pg_test::names::literal;
use pg_test::trio::Trio;
use pg_test::{Builder, Install, LONG, Server, wait_until};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const FIRST: &str = "first-sesame";
const WRONG: &str = "wrong-sesame";
const SECOND: &str = "second-sesame";
/// Part of every password, and of nothing else.
const NEEDLE: &str = "sesame";

/// Logs whatever can be logged.
const TALKATIVE: &str = "log_statement = 'all'
    log_min_duration_statement = 0
    log_min_error_statement = debug5
    log_parameter_max_length = -1
    log_parameter_max_length_on_error = -1
    log_replication_commands = on
    debug_print_parse = on
    debug_print_rewritten = on
    debug_print_plan = on
    log_connections = on";

/// What a careful person types before a statement with a password.
const QUIET: &str = "SET log_statement = 'none';
    SET log_min_duration_statement = -1;
    SET log_min_error_statement = 'panic';
    SET debug_print_parse = off; SET debug_print_rewritten = off; SET debug_print_plan = off;
    SET pg_stat_statements.track = 'none';";

const STATEMENTS: &str = "pg_stat_statements";

/// A worker watches all the time and talks of what it sees; only people apply.
fn builder(name: &str) -> Builder {
    let preloaded = match Install::get().has_module(STATEMENTS) {
        true => "pg_stat_statements, pg_nodes",
        false => "pg_nodes",
    };
    Server::builder(name)
        .conf("shared_preload_libraries", preloaded)
        .conf("pg_nodes.auto_apply", "off")
        .conf("pg_nodes.heartbeat_interval", "200ms")
}

fn start() -> Trio {
    let oslo = builder("oslo").hba("host all all 127.0.0.1/32 scram-sha-256");
    let trio =
        Trio::start_with(builder("paris").password(FIRST), builder("london").password(FIRST), oslo);
    servers(&trio).into_iter().for_each(talk);
    for server in [&trio.paris, &trio.london] {
        if Install::get().has_module(STATEMENTS) {
            server.sql("app", "CREATE EXTENSION pg_stat_statements");
            server.query_texts("app", "SELECT pg_stat_statements_reset()");
        }
    }
    trio
}

fn talk(server: &Server) {
    server.append_conf(TALKATIVE);
    server.reload();
    wait_until("the server to log", LONG, || {
        server.query_one_text("app", "SHOW log_statement") == "all"
    });
}

fn servers(trio: &Trio) -> [&Server; 3] {
    [&trio.paris, &trio.london, &trio.oslo]
}

/// Runs a statement with a password.
fn quietly(server: &Server, statement: &str) {
    let mut client = server.client("app");
    client.batch_execute(QUIET).expect("a quiet session");
    client.batch_execute(statement).expect("a statement with a password");
}

fn set_password(trio: &Trio, node: &str, password: &str) {
    quietly(&trio.paris, &format!("SELECT nodes.set_password('{node}', '{password}')"));
}

/// Applies and returns all that psql said.
fn apply(trio: &Trio) -> (bool, String) {
    let psql = trio.paris.psql_with(
        "app",
        &["-v", "VERBOSITY=verbose"],
        "CALL nodes.apply(); TABLE nodes.events;",
    );
    assert!(!psql.output.contains(NEEDLE), "psql shows a password:\n{psql}");
    (psql.ok, psql.output)
}

/// A server repeats the name of a database that it does not have, which may be a password.
#[test]
fn a_peers_words_are_told_without_passwords() {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password(FIRST).start();
    paris.create_db("app");
    let (own, conninfo) = (paris.conninfo("app"), london.conninfo(FIRST));
    paris.sql(
        "app",
        &format!(
            "CREATE EXTENSION pg_nodes;
             SELECT nodes.add_node('london', '{conninfo}', password => '{FIRST}')"
        ),
    );
    let says = |script: &str| {
        let psql = paris.psql_with("app", &["-v", "VERBOSITY=verbose"], script);
        assert!(psql.output.contains("does not exist"), "{script}:\n{psql}");
        assert!(!psql.output.contains(NEEDLE), "{script} shows a password:\n{psql}");
    };
    says("SELECT nodes.add_foreign_schema('stock', 'london')");
    paris.sql(
        "app",
        &format!(
            "SELECT nodes.add_node('paris', '{own}');
             SELECT nodes.add_foreign_schema('stock', 'london', on_node => 'paris')"
        ),
    );
    says("SELECT * FROM nodes.plan()");
    says("SELECT error FROM nodes.status");
    says("TABLE nodes.link_status");
    says("SELECT * FROM nodes.test_node('london')");
    says("CALL nodes.apply()");
    paris.sql("app", "CALL nodes.teardown()");
}

/// Looks everywhere.
fn assert_unseen(trio: &Trio) {
    let views = [
        "node",
        "link",
        "event",
        "events",
        "step_log",
        "status",
        "link_status",
        "slots",
        "headroom",
    ];
    let functions = ["plan()", "topology()", "rules()"];
    for name in views.into_iter().chain(functions) {
        let rows = trio.paris.query_texts("app", &format!("SELECT t::text FROM nodes.{name} AS t"));
        let shown: Vec<_> = rows.iter().filter(|row| row.contains(NEEDLE)).collect();
        assert!(shown.is_empty(), "nodes.{name} shows a password: {shown:#?}");
    }
    for server in servers(trio) {
        let log = server.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(NEEDLE)).collect();
        assert!(lines.is_empty(), "the log of {} shows a password: {lines:#?}", server.name());
        assert!(log.contains("statement:"), "{} logs statements", server.name());
    }
    if Install::get().has_module(STATEMENTS) {
        for server in [&trio.paris, &trio.london] {
            let queries = server.query_texts("app", "SELECT query FROM pg_stat_statements");
            assert!(!queries.is_empty(), "{} counts statements", server.name());
            let kept: Vec<_> = queries.iter().filter(|query| query.contains(NEEDLE)).collect();
            assert!(kept.is_empty(), "pg_stat_statements keeps a password: {kept:#?}");
        }
    }
}

#[test]
fn no_password_is_seen_anywhere() {
    let trio = start();
    malformed(&trio);
    while_watched(&servers(&trio), NEEDLE, || story(&trio));
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
}

fn story(trio: &Trio) {
    register(trio);
    trio.link();
    let (ok, said) = apply(trio);
    assert!(!ok && said.contains("password authentication failed"), "{said}");
    assert_unseen(trio);

    set_password(trio, "london", FIRST);
    assert!(apply(trio).0, "the right password is enough");
    assert_eq!(trio.plan(), [""; 0]);
    let passfile = trio.oslo.data_dir().join("pg_nodes.passfile");
    let mode = std::fs::metadata(&passfile).expect("a passfile").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", passfile.display());
    assert_unseen(trio);

    change_passwords(trio);
    assert!(apply(trio).0, "the new password is enough");
    assert_eq!(trio.plan(), [""; 0]);
    assert_unseen(trio);

    unreachable(trio);
    let teardown = trio.paris.psql("app", "CALL nodes.teardown();");
    assert!(teardown.ok && !teardown.output.contains(NEEDLE), "{teardown}");
    assert_unseen(trio);
}

/// For us London has the right password, for the others a wrong one.
fn register(trio: &Trio) {
    for (node, server) in [("paris", &trio.paris), ("london", &trio.london), ("oslo", &trio.oslo)] {
        let conninfo = server.conninfo("app");
        let admin = literal(&format!("{conninfo} password={FIRST}"));
        let password = if node == "london" { WRONG } else { FIRST };
        let conninfo = literal(&conninfo);
        quietly(
            &trio.paris,
            &format!("SELECT nodes.add_node('{node}', {conninfo}, {admin}, '{password}')"),
        );
    }
}

fn change_passwords(trio: &Trio) {
    for server in [&trio.london, &trio.paris] {
        quietly(server, &format!("ALTER ROLE postgres PASSWORD '{SECOND}'"));
    }
    for (node, server) in [("paris", &trio.paris), ("london", &trio.london), ("oslo", &trio.oslo)] {
        let admin = literal(&format!("{} password={SECOND}", server.conninfo("app")));
        let alter = format!("nodes.alter_node('{node}', admin_conninfo => {admin})");
        quietly(&trio.paris, &format!("SELECT {alter}"));
        set_password(trio, node, SECOND);
    }
}

/// London at an address where nobody listens, given as a URI, and back.
fn unreachable(trio: &Trio) {
    let uri = format!("postgresql://postgres:{WRONG}@127.0.0.1:1/app");
    let alter = "SELECT nodes.alter_node('london', ";
    quietly(&trio.paris, &format!("{alter} '{uri}', '{uri}')"));
    let (_, said) = apply(trio);
    assert!(said.contains("did not answer"), "{said}");
    assert_unseen(trio);
    let conninfo = literal(&trio.london.conninfo("app"));
    let admin = literal(&format!("{} password={SECOND}", trio.london.conninfo("app")));
    quietly(&trio.paris, &format!("{alter} {conninfo}, {admin}, '{SECOND}')"));
    assert!(apply(trio).0);
}

/// What a role was granted is enough; for what it was not, it does not even ask.
#[test]
fn a_role_without_superuser_is_as_quiet_as_it_may() {
    let (paris, london) = (builder("paris").start(), builder("london").password(FIRST).start());
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql(
        "app",
        "CREATE EXTENSION pg_nodes; CREATE EXTENSION postgres_fdw; CREATE ROLE link LOGIN;
         GRANT CREATE ON DATABASE app TO link;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO link;
         GRANT SET ON PARAMETER log_statement, log_min_duration_statement, track_activities TO link",
    );
    talk(&paris);
    let (own, link) = (paris.conninfo("app"), paris.conninfo("app").replace("postgres", "link"));
    let london_is = london.conninfo("app");
    quietly(
        &paris,
        &format!(
            "SELECT nodes.add_node('paris', '{own}', '{link}'),
                    nodes.add_node('london', '{london_is}', password => '{FIRST}'),
                    nodes.add_foreign_schema('stock', 'london', 'inventory', on_node => 'paris')"
        ),
    );
    while_watched(&[&paris], NEEDLE, || drop(pg_test::trio::apply(&paris)));
    let log = paris.log();
    assert!(!log.contains(NEEDLE), "the log shows a password:\n{log}");
    assert!(!log.contains("permission denied"), "it tried what it may not:\n{log}");
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
}

/// What lies in the standby's data directory under the name of our file does not keep the
/// password from its place, nor open it to others; what cannot be overcome is told.
#[test]
fn the_passfile_is_ours_alone_or_a_problem() {
    let trio =
        Trio::start_with(builder("paris").password(FIRST), builder("london"), builder("oslo"));
    trio.register();
    set_password(&trio, "paris", FIRST);
    trio.paris.sql("app", "SELECT nodes.add_standby('oslo', 'paris')");
    let data = trio.oslo.data_dir();
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    };

    chmod(&data, 0o500);
    let (ok, said) = apply(&trio);
    chmod(&data, 0o700);
    let hint = "changes pg_nodes.passfile in its data directory through a shell";
    assert!(!ok && said.contains("write passfile on node \"oslo\" failed"), "{said}");
    assert!(said.contains(hint), "{said}");

    let (passfile, second) = (data.join("pg_nodes.passfile"), data.join("pg_nodes.passfile.new"));
    std::fs::create_dir(&passfile).expect("a directory");
    let (plan, refused) = (trio.plan(), apply(&trio));
    assert!(plan[0].starts_with("problem on oslo: the password for \"paris\" cannot"), "{plan:?}");
    assert!(!refused.0 && refused.1.contains("(ST10)"), "{refused:?}");
    std::fs::remove_dir(&passfile).expect("an empty directory");

    // Where the servers' user may read everything, this one too.
    std::fs::write(&passfile, "not yours").expect("a file");
    chmod(&passfile, 0o000);
    let readable = trio.oslo.psql("app", "SELECT pg_read_binary_file('pg_nodes.passfile')").ok;
    let plan = trio.plan();
    assert!(readable || plan[0].starts_with("problem on oslo: the password for"), "{plan:?}");
    std::fs::remove_file(&passfile).expect("a file");

    trio.oslo.write_file("pg_nodes.passfile.new", "");
    chmod(&second, 0o644);
    std::fs::write(&passfile, b"\xff\xfe not text").expect("a file");
    assert!(apply(&trio).0);
    assert_eq!((mode(&passfile), second.exists()), (0o600, false));
    assert_eq!(trio.plan(), [""; 0]);

    trio.oslo.write_file("pg_nodes.passfile.new", "half of a sesame");
    assert_eq!(trio.plan().len(), 1, "{:?}", trio.plan());
    trio.paris.sql("app", "CALL nodes.teardown()");
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
    trio.paris.assert_no_residue("app");
}

/// libpq's words about what it cannot read may quote a password.
fn malformed(trio: &Trio) {
    for conninfo in [
        "host=london password=open sesame user=postgres".to_owned(),
        format!("host=london password='{FIRST}"),
        format!("postgresql://postgres:{FIRST}%zz@london/app"),
        format!("postgresql://postgres:{FIRST}@[london/app"),
        format!("host=london pasword={FIRST}"),
    ] {
        let script = format!("{QUIET} SELECT nodes.add_node('x', {})", literal(&conninfo));
        let refused = trio.paris.psql("app", &script);
        assert!(!refused.ok && !refused.output.contains(NEEDLE), "{refused}");
    }
    assert_unseen(trio);
}
