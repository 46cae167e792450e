//! Nodes behind pgbouncer: a pool that keeps a session for each client is as good as the server,
//! one that lends sessions for a transaction is refused before it is touched.

use pg_test::trio::{add_node, apply};
use pg_test::watcher::watching;
use pg_test::{LONG, Pooler, Pooling, Server, wait_until};

struct World {
    paris: Server,
    london: Server,
    pooler: Pooler,
}

impl World {
    /// With nodes `n1` and `n2`, which are two names of one database of london.
    fn start(pooling: Pooling) -> World {
        let (paris, london) = (watching("paris").start(), Server::builder("london").start());
        for server in [&paris, &london] {
            server.create_db("app");
        }
        paris.sql("app", "CREATE EXTENSION pg_nodes");
        add_node(&paris, "paris", &paris);
        let pooler = Pooler::start(&london, pooling, 5);
        for node in ["n1", "n2"] {
            let add = "SELECT nodes.add_node($1, $2)";
            paris.client("app").query(add, &[&node, &pooler.conninfo(node)]).expect("add_node");
        }
        World { paris, london, pooler }
    }

    fn await_health(&self, health: &str) {
        for node in ["n1", "n2"] {
            self.paris.await_health(node, health);
        }
    }

    /// How many clients the pool had so far, and how many sessions of the server.
    fn opened(&self) -> (usize, usize) {
        let log = self.pooler.log();
        let count = |what| log.matches(what).count();
        (count("login attempt: db=n"), count("new connection to server"))
    }
}

#[test]
fn a_session_of_a_pool_is_kept() {
    let world = World::start(Pooling::Session);
    world.await_health("up");
    let before = (world.opened(), world.pooler.questions());
    wait_until("many heartbeats have come back", LONG, || {
        world.pooler.questions() >= before.1 + 50
    });
    assert_eq!(world.opened(), before.0, "no heartbeat opens anything");
    for node in ["n1", "n2"] {
        assert_eq!(world.paris.events(node), ["up"]);
    }
}

#[test]
fn a_foreign_schema_is_read_through_a_pool() {
    let world = World::start(Pooling::Session);
    world.london.sql("app", "CREATE TABLE items AS SELECT 'lamp' AS label");
    let add = "SELECT nodes.add_foreign_schema('stock', node => 'n1')";
    world.paris.sql("app", add);
    apply(&world.paris);
    assert_eq!(world.paris.query_texts("app", "SELECT label FROM stock.items"), ["lamp"]);
}

#[test]
fn a_server_behind_a_pool_goes_and_comes_back() {
    let mut world = World::start(Pooling::Session);
    world.await_health("up");
    world.london.crash();
    world.await_health("down");
    world.london.start_again();
    world.await_health("up");
}

#[test]
fn a_pool_that_lends_sessions_is_refused() {
    let world = World::start(Pooling::Transaction);
    world.await_health("refused");
    let why = "SELECT concat_ws(': ', error, hint) FROM nodes.status WHERE node = 'n1'";
    let words = "a connection pooler in front of node \"n1\" keeps no sessions: Let its conninfo \
                 lead to the server itself, or to a pool that keeps a session for each client \
                 (pgbouncer: pool_mode = session).";
    assert_eq!(world.paris.query_one_text("app", why), words);
    let tested = "SELECT concat_ws(': ', detail, hint) FROM nodes.test_node('n1')
        WHERE factor = 'session' AND NOT ok";
    assert_eq!(world.paris.query_one_text("app", tested), words);

    let set = "SELECT name FROM pg_settings WHERE source = 'session' AND context <> 'internal'
        AND name NOT IN ('application_name', 'client_encoding')";
    let mut client = world.pooler.client("n1");
    for _ in 0..10 {
        let rows = client.simple_query(set).expect("a session");
        let names = rows.iter().filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(names.collect::<Vec<_>>(), [""; 0], "other clients find what we have set");
    }

    let alter = "SELECT nodes.alter_node('n1', $1)";
    world.paris.client("app").query(alter, &[&world.london.conninfo("app")]).expect("alter_node");
    world.paris.await_health("n1", "up");
}
