//! `nodes.plan()` and `nodes.apply()` against the same statements sent one after the other by
//! hand: through sessions that stay open, and through one psql for each. Medians and ratios of
//! one run; servers run without fsync, so what is measured is not the disk.

use pg_test::trio::add_node;
use pg_test::{LONG, Server, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

const RUNS: usize = 5;
const SERVERS: usize = 8;

fn main() {
    let servers: Vec<Server> = (0..SERVERS).map(start).collect();
    servers[0].sql("app", "CREATE EXTENSION pg_nodes");
    let lab = Lab { servers };
    println!("PostgreSQL {}, medians of {RUNS} runs, {SERVERS} servers", Server::major());
    lab.compare("foreign schema of 10 tables", 1.0, &[foreign(1, 0)]);
    lab.compare("subscription of 100,000 rows", 1.0, &[subscription(1, 0)]);
    let mesh: Vec<String> = (0..SERVERS)
        .flat_map(|from| {
            (0..SERVERS).filter(move |to| *to != from).map(move |to| foreign(from, to))
        })
        .collect();
    lab.compare("mesh of 56 foreign schemas", 3.0, &mesh);
    let ring: Vec<String> =
        (0..SERVERS).map(|from| subscription(from, (from + 1) % SERVERS)).collect();
    lab.compare("ring of 8 subscriptions", 3.0, &ring);
}

/// Server number `i` publishes table `feed<i>` and shows schema `data`; it has the table of
/// its neighbour, empty.
fn start(i: usize) -> Server {
    let server = Server::builder(&format!("s{i}")).start();
    server.create_db("app");
    let tables: String =
        (0..10).map(|t| format!("CREATE TABLE data.t{t} (id int PRIMARY KEY, a text);")).collect();
    let before = (i + SERVERS - 1) % SERVERS;
    server.sql(
        "app",
        &format!(
            "CREATE SCHEMA data; {tables}
         CREATE TABLE feed{i} (id int PRIMARY KEY, a text);
         CREATE TABLE feed{before} (id int PRIMARY KEY, a text);
         INSERT INTO feed{i} SELECT n, 'row ' || n FROM generate_series(1, 100000) n"
        ),
    );
    if i == 0 {
        server.sql("app", "CREATE TABLE feed1 (id int PRIMARY KEY, a text)");
    }
    server
}

fn foreign(from: usize, to: usize) -> String {
    format!(
        "SELECT nodes.add_foreign_schema('f{from}_{to}', 's{from}', 'data', on_node => 's{to}')"
    )
}

fn subscription(from: usize, to: usize) -> String {
    format!("SELECT nodes.add_subscription('sub{from}_{to}', 's{from}', 's{to}', '{{feed{from}}}')")
}

struct Lab {
    servers: Vec<Server>,
}

/// A statement and the position of its server.
type Statement = (usize, String);

impl Lab {
    /// Makes the links three ways, several times, and prints what each took.
    fn compare(&self, what: &str, goal: f64, links: &[String]) {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..RUNS {
            let statements = self.desire(links);
            times[0].push(timed(|| drop(self.plan())));
            let mut clients: Vec<Client> = self.servers.iter().map(|s| s.client("app")).collect();
            times[1].push(self.until_copied(|| {
                for (server, sql) in &statements {
                    clients[*server].batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
                }
            }));
            let statements = self.desire(links);
            times[2].push(self.until_copied(|| {
                for (server, sql) in &statements {
                    let psql = self.servers[*server].psql("app", sql);
                    assert!(psql.ok, "{sql}: {psql}");
                }
            }));
            self.desire(links);
            let mut registry = self.servers[0].client("app");
            times[3].push(self.until_copied(|| {
                registry.batch_execute("CALL nodes.apply()").expect("nodes.apply()");
            }));
        }
        self.empty();
        let [plan, open, psql, apply] = times.map(median);
        let ratio = |by_hand: Duration| by_hand.as_secs_f64() / apply.as_secs_f64();
        println!(
            "{what}: plan {plan:.1?}, apply {apply:.1?}; by hand {open:.1?} in open sessions \
             ({:.2} times), {psql:.1?} with a psql each ({:.2} times; goal {goal})",
            ratio(open),
            ratio(psql)
        );
    }

    /// Takes all down, registers the servers and says which links should exist.
    fn desire(&self, links: &[String]) -> Vec<Statement> {
        self.empty();
        for (i, server) in self.servers.iter().enumerate() {
            add_node(&self.servers[0], &format!("s{i}"), server);
        }
        self.servers[0].sql("app", &links.join(";"));
        self.plan()
    }

    fn plan(&self) -> Vec<Statement> {
        let rows = self.servers[0]
            .client("app")
            .query("SELECT node, command FROM nodes.plan() ORDER BY step", &[])
            .expect("nodes.plan()");
        rows.iter()
            .map(|row| {
                let node: String = row.get(0);
                let command: Option<String> = row.get(1);
                let command = command.unwrap_or_else(|| panic!("a problem on {node}"));
                (node[1..].parse().expect("a number"), command)
            })
            .collect()
    }

    fn empty(&self) {
        self.servers[0].sql("app", "CALL nodes.teardown()");
        for (i, server) in self.servers.iter().enumerate() {
            let before = (i + SERVERS - 1) % SERVERS;
            server.sql("app", &format!("TRUNCATE feed{before}"));
        }
        self.servers[0].sql("app", "TRUNCATE feed1");
    }

    /// Times work until every subscription on every server has its rows.
    fn until_copied(&self, work: impl FnOnce()) -> Duration {
        timed(|| {
            work();
            for server in &self.servers {
                wait_until("the initial copies", LONG, || {
                    let open = "SELECT count(*)::text FROM pg_subscription_rel \
                                WHERE srsubstate NOT IN ('r', 's')";
                    server.query_one_text("app", open) == "0"
                });
            }
        })
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
