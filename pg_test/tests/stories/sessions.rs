//! Who looks at a plan most likely applies it: the sessions of the look stay open for a while, in
//! nobody's way, and are used again only where they are what new ones would be.

use pg_test::trio::add_node;
use pg_test::{LONG, Server, wait_until};
use postgres::Client;

const PLAN: &str = "SELECT * FROM nodes.plan()";
const SESSIONS: &str = "SELECT pid::text FROM pg_stat_activity \
    WHERE application_name = 'pg_nodes' AND backend_type = 'client backend'";

struct Pair {
    paris: Server,
    london: Server,
}

impl Pair {
    /// Paris is to show a schema of london's.
    fn start() -> Pair {
        let start = |name| {
            let server = Server::builder(name).start();
            server.create_db("app");
            server
        };
        let (paris, london) = (start("paris"), start("london"));
        london.sql("app", "CREATE SCHEMA stock; CREATE TABLE stock.items (id int PRIMARY KEY)");
        paris.sql("app", "CREATE EXTENSION pg_nodes");
        add_node(&paris, "paris", &paris);
        add_node(&paris, "london", &london);
        paris.sql("app", "SELECT nodes.add_foreign_schema('shown', 'london', 'stock')");
        Pair { paris, london }
    }

    /// Our sessions on london.
    fn sessions(&self) -> Vec<String> {
        self.london.query_texts("postgres", SESSIONS)
    }

    fn await_none(&self, why: &str) {
        wait_until(why, LONG, || self.sessions().is_empty());
    }
}

fn problems(client: &mut Client) -> Vec<String> {
    let rows = client.query("SELECT reason FROM nodes.plan() WHERE step IS NULL", &[]);
    rows.expect("nodes.plan()").iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_session_is_used_again() {
    let pair = Pair::start();
    let mut client = pair.paris.client("app");
    client.batch_execute(PLAN).expect("a plan");
    let first = pair.sessions();
    assert_eq!(first.len(), 1, "the look's session is still there");
    client.batch_execute(PLAN).expect("a plan");
    assert_eq!(pair.sessions(), first, "the same session answers again");
    client.batch_execute("CALL nodes.apply()").expect("nodes.apply()");
    assert_eq!(pair.sessions(), first, "apply() uses it too");
    let imports = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'";
    wait_until("what has imported the tables is gone", LONG, || {
        pair.london.query_one_text("postgres", imports) == "0"
    });
    client.batch_execute("SELECT * FROM shown.items").expect("the schema is shown");
    client.batch_execute("CALL nodes.teardown()").expect("nodes.teardown()");
    pair.paris.assert_no_residue("app");
}

#[test]
fn a_session_ends_with_the_caller_or_when_it_has_idled() {
    let pair = Pair::start();
    let mut client = pair.paris.client("app");
    client.batch_execute(PLAN).expect("a plan");
    drop(client);
    pair.await_none("the caller's session has ended");

    let mut client = pair.paris.client("app");
    client.batch_execute("SET pg_nodes.keep_sessions = 0").expect("a setting");
    client.batch_execute(PLAN).expect("a plan");
    pair.await_none("none is to be kept");

    client.batch_execute("SET pg_nodes.keep_sessions = '100ms'").expect("a setting");
    client.batch_execute(PLAN).expect("a plan");
    pair.await_none("it has idled for too long");
    assert_eq!(problems(&mut client), [""; 0], "a new one takes its place");
    pair.await_none("it has idled for too long");
    let log = pair.london.log();
    assert!(!log.contains("FATAL"), "the end of an idle session is nobody's business: {log}");
}

#[test]
fn a_session_of_a_server_that_was_restarted_is_replaced() {
    let mut pair = Pair::start();
    let mut client = pair.paris.client("app");
    client.batch_execute(PLAN).expect("a plan");
    pair.london.restart();
    assert_eq!(problems(&mut client), [""; 0]);
    pair.london.crash();
    let silent = problems(&mut client);
    assert!(silent.iter().any(|problem| problem.contains("london")), "{silent:?}");
    pair.london.start_again();
    client.batch_execute("CALL nodes.apply()").expect("nodes.apply()");
}

#[test]
fn a_session_is_not_used_for_what_the_node_is_no_more() {
    let pair = Pair::start();
    pair.london.sql("app", "CREATE ROLE watcher LOGIN SUPERUSER");
    let mut client = pair.paris.client("app");
    client.batch_execute(PLAN).expect("a plan");
    let first = pair.sessions();
    let conninfo = format!("{} user=watcher", pair.london.conninfo("app"));
    let alter = "SELECT nodes.alter_node('london', conninfo => $1)";
    client.execute(alter, &[&conninfo]).expect("nodes.alter_node()");
    assert_eq!(problems(&mut client), [""; 0]);
    assert!(!pair.sessions().iter().any(|session| first.contains(session)), "another session");
    let users = format!(
        "SELECT DISTINCT usename::text FROM ({SESSIONS}) s (pid), \
        pg_stat_activity a WHERE a.pid::text = s.pid"
    );
    assert_eq!(pair.london.query_texts("postgres", &users), ["watcher"]);
}

/// Sessions that fall silent take no longer than new ones.
#[test]
fn a_session_of_a_server_that_hangs_is_given_up() {
    let mut pair = Pair::start();
    let mut client = pair.paris.client("app");
    client.batch_execute("SET pg_nodes.connect_timeout = '1s'").expect("a setting");
    client.batch_execute(PLAN).expect("a plan");
    pair.london.pause();
    let silent = problems(&mut client);
    assert!(silent.iter().any(|problem| problem.contains("did not answer")), "{silent:?}");
    pair.london.resume();
    assert_eq!(problems(&mut client), [""; 0]);
}
