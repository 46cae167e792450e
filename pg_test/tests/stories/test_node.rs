//! `nodes.test_node()` names the factor that keeps us from a node, with the words of who refused,
//! says that all before it work, and that nothing after it was tested.

use pg_test::tls::Authority;
use pg_test::{Server, is_port_free};

const FACTORS: [&str; 13] = [
    "dns",
    "tcp",
    "tls",
    "authentication",
    "session",
    "version",
    "rights",
    "role",
    "replication",
    "wal_level",
    "replication slots",
    "walsenders",
    "postgres_fdw",
];

const PASSWORD: &str = "open sesame";

struct World {
    paris: Server,
    london: Server,
}

/// One factor.
#[derive(Debug)]
struct Row {
    factor: String,
    ok: Option<bool>,
    detail: String,
    hint: Option<String>,
}

impl World {
    fn start() -> World {
        let paris = Server::builder("paris").start();
        let london = Server::builder("london").password(PASSWORD).start();
        for server in [&paris, &london] {
            server.create_db("app");
        }
        paris.sql("app", "CREATE EXTENSION pg_nodes; SELECT nodes.add_node('london', 'host=x')");
        World { paris, london }
    }

    /// What is found when london is reached in this way.
    fn test(&self, conninfo: &str, password: Option<&str>) -> Vec<Row> {
        let mut client = self.paris.client("app");
        let alter = "SELECT nodes.alter_node('london', $1, password => $2)";
        client.query(alter, &[&conninfo, &password.unwrap_or_default()]).expect("alter_node");
        let rows = client.query("SELECT * FROM nodes.test_node('london')", &[]);
        let read = |row: &postgres::Row| Row {
            factor: row.get("factor"),
            ok: row.get("ok"),
            detail: row.get("detail"),
            hint: row.get("hint"),
        };
        rows.expect("test_node").iter().map(read).collect()
    }

    fn place(&self) -> String {
        format!("host=127.0.0.1 port={}", self.london.port())
    }

    fn good(&self) -> String {
        format!("{} user=postgres dbname=app", self.place())
    }
}

fn find<'a>(rows: &'a [Row], factor: &str) -> &'a Row {
    rows.iter().find(|row| row.factor == factor).unwrap_or_else(|| panic!("{factor}: {rows:#?}"))
}

/// All work, and are told of in their order.
#[track_caller]
fn assert_all_work(rows: &[Row]) {
    let factors: Vec<&str> = rows.iter().map(|row| row.factor.as_str()).collect();
    assert_eq!(factors, FACTORS);
    assert!(rows.iter().all(|row| row.ok == Some(true) && row.hint.is_none()), "{rows:#?}");
}

/// All before a factor work, this one fails with these words, none after it is tested.
#[track_caller]
fn assert_stops(rows: &[Row], factor: &str, words: &str) {
    let at = FACTORS.iter().position(|known| *known == factor).expect("a factor");
    assert_eq!(rows.iter().map(|row| row.factor.as_str()).collect::<Vec<_>>(), FACTORS);
    for (place, row) in rows.iter().enumerate() {
        let expected = (place <= at).then_some(place < at);
        assert_eq!(row.ok, expected, "{}: {rows:#?}", row.factor);
        assert_eq!(row.detail == "not tested", place > at, "{rows:#?}");
        assert_eq!(row.hint.is_some(), place == at, "{rows:#?}");
        assert!(!row.detail.contains("sesame"), "{rows:#?}");
    }
    assert!(rows[at].detail.contains(words), "{words}: {:#?}", rows[at]);
}

#[test]
fn all_factors_work() {
    let world = World::start();
    let rows = world.test(&world.good(), Some(PASSWORD));
    assert_all_work(&rows);
    let detail = |factor| find(&rows, factor).detail.as_str();
    assert_eq!(detail("dns"), "not needed: no host is given by name");
    assert!(detail("tcp").contains(&format!("port {}", world.london.port())), "{rows:#?}");
    assert_eq!(detail("tls"), "not used");
    assert_eq!(detail("authentication"), "with a password");
    assert_eq!(detail("role"), "postgres in database app");

    let socket = world.good().replace("127.0.0.1", &world.london.socket_dir().to_string_lossy());
    let rows = world.test(&socket, None);
    assert_all_work(&rows);
    assert!(find(&rows, "tcp").detail.contains("server on \"/"), "{rows:#?}");
    assert_eq!(find(&rows, "authentication").detail, "without a password");

    let rows = world.test(&world.good().replace("127.0.0.1", "localhost"), Some(PASSWORD));
    assert_all_work(&rows);
    let addresses = &find(&rows, "dns").detail;
    assert!(addresses.starts_with("localhost is ") && addresses.contains("127.0.0.1"), "{rows:#?}");
}

#[test]
fn the_factor_that_fails_is_named() {
    let mut world = World::start();
    let good = world.good();
    let rows = world.test(&good.replace("127.0.0.1", "nowhere.invalid"), Some(PASSWORD));
    assert_stops(&rows, "dns", "could not translate host name \"nowhere.invalid\" to address");

    let rows = world.test(&good, Some("wrong sesame"));
    assert_stops(&rows, "authentication", "password authentication failed for user \"postgres\"");
    let rows = world.test(&good, None);
    assert_stops(&rows, "authentication", "no password supplied");
    let rows = world.test(&format!("{} user=postgres dbname=nope", world.place()), Some(PASSWORD));
    assert_stops(&rows, "session", "database \"nope\" does not exist");
    let rows = world.test(&format!("{good} target_session_attrs=standby"), Some(PASSWORD));
    assert_stops(&rows, "session", "server is not in hot standby mode");

    world.london.pause();
    let silent = format!("{good} connect_timeout=1 sslmode=disable gssencmode=disable");
    let rows = world.test(&silent, Some(PASSWORD));
    assert_stops(&rows, "authentication", "did not answer within 1000 ms");
    world.london.resume();
    world.london.stop();
    assert!(is_port_free(world.london.port()));
    let rows = world.test(&good, Some(PASSWORD));
    assert_stops(&rows, "tcp", "Connection refused");
}

/// One address of several works: that is told, and what is wrong with the others.
#[test]
fn several_addresses() {
    let mut world = World::start();
    let port = world.london.port();
    let conninfo = format!(
        "host=nowhere.invalid,127.0.0.1,127.0.0.1 port={port},1,{port} user=postgres dbname=app"
    );
    let rows = world.test(&conninfo, Some(PASSWORD));
    let bad: Vec<&str> =
        rows.iter().filter(|row| row.ok != Some(true)).map(|row| row.factor.as_str()).collect();
    assert_eq!(bad, ["dns"], "{rows:#?}");
    let tcp = &find(&rows, "tcp").detail;
    assert!(tcp.contains(&format!("port {port}")) && tcp.contains("in vain"), "{rows:#?}");
    assert!(tcp.contains("Connection refused"), "{rows:#?}");

    world.london.stop();
    let rows = world.test(
        &conninfo.replace("nowhere.invalid,", "").replace(&format!("{port},1"), "1"),
        Some(PASSWORD),
    );
    assert_stops(&rows, "tcp", "Connection refused");
}

#[test]
fn tls_that_is_not_as_wanted() {
    let world = World::start();
    let rows = world.test(&format!("{} sslmode=require", world.good()), Some(PASSWORD));
    if !Server::supports_tls() {
        let row = find(&rows, "conninfo");
        assert!(row.ok == Some(false) && row.detail.contains("sslmode"), "{rows:#?}");
        let untested = rows.iter().filter(|row| row.ok.is_none()).count();
        assert_eq!(untested, FACTORS.len() - 1, "all but the name: {rows:#?}");
        return;
    }
    assert_stops(&rows, "tls", "server does not support SSL, but SSL was required");

    let authority = Authority::new();
    let london = Server::builder("london").tls(&authority, "london.test").start();
    london.create_db("app");
    let world = World { london, ..world };
    let rows = world.test(&format!("{} sslmode=require", world.good()), None);
    assert_all_work(&rows);
    assert!(find(&rows, "tls").detail.starts_with("TLSv1"), "{rows:#?}");
    let root = world.paris.write_file("root.crt", &authority.pem());
    let verified = format!("{} sslmode=verify-full sslrootcert={}", world.good(), root.display());
    let rows = world.test(&verified, None);
    let words = "does not match host name \"127.0.0.1\"";
    assert_stops(&rows, "tls", words);
}

/// A node that a role without superuser registered must have asked for the password.
#[test]
fn a_password_that_was_not_asked_for() {
    let world = World::start();
    let guest = Server::builder("guest").start();
    world.paris.sql(
        "app",
        "CREATE ROLE guest; GRANT USAGE ON SCHEMA nodes TO guest;
         GRANT EXECUTE ON FUNCTION nodes.add_node(text, text, text, text, jsonb) TO guest",
    );
    let add = format!(
        "SELECT nodes.add_node('guest', '{}', password => 'x')",
        guest.conninfo("postgres")
    );
    world.paris.caller("guest").allowed(&add);
    let query = "SELECT concat(factor, ' ', ok, ' ', detail) FROM nodes.test_node('guest')";
    let rows = world.paris.query_texts("app", query);
    assert_eq!(
        rows[3], "authentication f node \"guest\" did not ask for the password",
        "{rows:#?}"
    );
    assert!(rows[4..].iter().all(|row| row.ends_with("not tested")), "{rows:#?}");
}
