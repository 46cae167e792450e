//! `nodes.plan()` and `nodes.apply()` against the same statements, in the same order, typed one
//! after the other by hand. All times are of one run, taken in turn, until the data is copied;
//! servers run without fsync, so that the disk is not what is measured. What the servers work for
//! the statements alone is told too: on few cores it bounds how much faster anything can be.
//!
//! `cargo bench -p pg_test -- ring` measures only what has "ring" in its name.

use pg_test::trio::add_node;
use pg_test::usage;
use pg_test::{Builder, LONG, Server};
use postgres::Client;
use std::time::{Duration, Instant};

const SERVERS: usize = 8;
const RUNS: usize = 5;

/// What a single link must not be slower than, and what several at once must be.
const SINGLE: f64 = 1.0;
const MANY: f64 = 3.0;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    println!("PostgreSQL {}, {SERVERS} servers, medians of {RUNS} runs", Server::major());
    let lab = Lab::start(|builder| builder);
    let links = pairs(|from, to| from != to);
    let ring = pairs(|from, to| to == next(from));
    lab.compare(&only, "foreign schema of 10 tables", SINGLE, &[foreign(1, 0)]);
    lab.compare(&only, "subscription of 100,000 rows", SINGLE, &[copy("large", 1, 0)]);
    lab.compare(&only, "mesh of 56 foreign schemas", MANY, &each(&links, foreign));
    lab.compare(&only, "ring of 8 subscriptions, no copy", MANY, &each(&ring, changes));
    lab.compare(&only, "ring of 8 subscriptions, 1,000 rows each", MANY, &each(&ring, few));
    lab.compare(&only, "ring of 8 subscriptions, 100,000 rows each", MANY, &each(&ring, large));
    drop(lab);
    if Server::major() == 15 {
        // One apply worker per interval: what waits for it waits in every way.
        println!("wal_retrieve_retry_interval 5s instead of 200ms:");
        let lab = Lab::start(|builder| builder.conf("wal_retrieve_retry_interval", "5s"));
        lab.compare(&only, "subscription, 1,000 rows, interval", SINGLE, &[copy("few", 1, 0)]);
        lab.compare(&only, "ring, 1,000 rows each, interval", MANY, &each(&ring, few));
    }
}

fn next(server: usize) -> usize {
    (server + 1) % SERVERS
}

/// The pairs of servers, from and to, between which there should be a link.
fn pairs(linked: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let all = (0..SERVERS).flat_map(|from| (0..SERVERS).map(move |to| (from, to)));
    all.filter(|(from, to)| linked(*from, *to)).collect()
}

fn each(pairs: &[(usize, usize)], link: impl Fn(usize, usize) -> String) -> Vec<String> {
    pairs.iter().map(|(from, to)| link(*from, *to)).collect()
}

fn foreign(from: usize, to: usize) -> String {
    format!(
        "SELECT nodes.add_foreign_schema('f{from}_{to}', 's{from}', 'data', on_node => 's{to}')"
    )
}

/// Without an initial copy.
fn changes(from: usize, to: usize) -> String {
    copy("few", from, to).replace("')", "', copy_data => false)")
}

fn few(from: usize, to: usize) -> String {
    copy("few", from, to)
}

fn large(from: usize, to: usize) -> String {
    copy("large", from, to)
}

fn copy(table: &str, from: usize, to: usize) -> String {
    format!(
        "SELECT nodes.add_subscription('sub{from}_{to}', 's{from}', 's{to}', '{{{table}{from}}}')"
    )
}

/// The tables that servers copy from each other, and how many rows they have at home.
const COPIED: [(&str, u32); 2] = [("few", 1_000), ("large", 100_000)];

/// Server number `i` has the schema `data`, its tables `few<i>` and `large<i>` with rows, and
/// the same of all others without.
fn fill(server: &Server, i: usize) {
    let mut sql = String::from("CREATE SCHEMA data;");
    for table in 0..10 {
        sql += &format!("CREATE TABLE data.t{table} (id int PRIMARY KEY, a text);");
    }
    for (table, rows) in COPIED {
        for other in 0..SERVERS {
            sql += &format!("CREATE TABLE {table}{other} (id int PRIMARY KEY, a text);");
        }
        sql += &format!(
            "INSERT INTO {table}{i} SELECT n, 'row ' || n FROM generate_series(1, {rows}) n;"
        );
    }
    server.create_db("app");
    server.sql("app", &sql);
}

struct Lab {
    servers: Vec<Server>,
}

/// A statement and the position of its server.
type Statement = (usize, String);

/// How long a way took, and the time on processors of all servers and of the first one's session.
struct Took {
    wall: Duration,
    servers: Duration,
    session: Duration,
}

/// A way to get the links made, in the order of [`WAYS`].
type Way = fn(&Lab, &[Statement], &mut [Client]);

/// Has the plan, which comes first, leave no sessions to what follows it.
const NEW_SESSIONS: &str = "SET pg_nodes.keep_sessions = 0";

const WAYS: [(&str, &str, Way); 5] = [
    ("nodes.apply()", "", Lab::apply),
    ("nodes.apply(), new sessions", NEW_SESSIONS, Lab::apply),
    ("one psql, \\c to each node", "", Lab::one_psql),
    ("one psql a statement", "", Lab::psql_each),
    ("sessions open before", "", Lab::open_sessions),
];

impl Lab {
    fn start(configure: impl Fn(Builder) -> Builder) -> Lab {
        let start = |i| {
            let server = configure(Server::builder(&format!("s{i}"))).start();
            fill(&server, i);
            server
        };
        let servers: Vec<Server> = (0..SERVERS).map(start).collect();
        servers[0].sql("app", "CREATE EXTENSION pg_nodes");
        Lab { servers }
    }

    /// Makes the links in every way, several times, and prints what each took.
    fn compare(&self, only: &[String], what: &str, goal: f64, links: &[String]) {
        if !only.is_empty() && !only.iter().any(|part| what.contains(part)) {
            return;
        }
        let mut planned = Vec::new();
        let [mut times, mut work, mut sessions] = [(); 3].map(|()| WAYS.map(|_| Vec::new()));
        for _ in 0..RUNS {
            for (i, (_, before, way)) in WAYS.iter().enumerate() {
                self.desire(links);
                let (plan, took) = self.timed_way(before, way);
                planned.push(plan);
                times[i].push(took.wall);
                work[i].push(took.servers);
                sessions[i].push(took.session);
            }
        }
        self.empty();
        let [apply, anew, by_hand @ ..] = times.map(median);
        println!("{what}\n  {:<27} {:>9.1?}", "nodes.plan()", median(planned));
        println!("  {:<27} {apply:>9.1?}\n  {:<27} {anew:>9.1?}", WAYS[0].0, WAYS[1].0);
        let [ours, .., bare] = work.map(median);
        let [session, ..] = sessions.map(median);
        tell_work(by_hand[0], bare, ours, session);
        for ((name, ..), took) in WAYS[2..].iter().zip(by_hand) {
            let ratio = took.as_secs_f64() / apply.as_secs_f64();
            let verdict = if ratio >= goal { "reached" } else { "missed" };
            println!("  {name:<27} {took:>9.1?}  {ratio:.2} times; goal {goal}: {verdict}");
        }
    }

    /// How long the plan took, which comes first, and the way.
    fn timed_way(&self, before: &str, way: &Way) -> (Duration, Took) {
        let mut clients: Vec<Client> = self.servers.iter().map(|s| s.client("app")).collect();
        clients[0].batch_execute(before).expect("a setting");
        let started = Instant::now();
        let statements = plan(&mut clients[0]);
        let planned = started.elapsed();
        // What is new to a session takes longer.
        clients.iter_mut().for_each(await_copies);
        let interval = "SELECT setting::int8 FROM pg_settings \
                        WHERE name = 'wal_retrieve_retry_interval'";
        let interval: i64 = clients[0].query_one(interval, &[]).expect("a setting").get(0);
        if Server::major() == 15 {
            // The launcher counts from the worker before, which was another measurement's.
            std::thread::sleep(Duration::from_millis(interval.unsigned_abs()));
        }
        let pid: i32 = clients[0].query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0);
        let session = || usage::cpu(pid.unsigned_abs());
        let servers = || self.servers.iter().map(usage::cpu_of).sum::<Duration>();
        let (session_before, servers_before) = (session(), servers());
        let wall = timed(|| {
            way(self, &statements, &mut clients);
            clients.iter_mut().for_each(await_copies);
        });
        let took = Took {
            wall,
            servers: servers().saturating_sub(servers_before),
            session: session().saturating_sub(session_before),
        };
        (planned, took)
    }

    fn apply(&self, _: &[Statement], clients: &mut [Client]) {
        clients[0].batch_execute("CALL nodes.apply()").expect("nodes.apply()");
    }

    fn one_psql(&self, statements: &[Statement], _: &mut [Client]) {
        let mut script = String::new();
        let mut here = None;
        for (server, sql) in statements {
            if here.replace(server) != Some(server) {
                script += &format!("\\c \"{}\"\n", self.servers[*server].conninfo("app"));
            }
            script += &format!("{sql};\n");
        }
        let psql = self.servers[0].psql("app", &script);
        assert!(psql.ok, "{psql}");
    }

    fn psql_each(&self, statements: &[Statement], _: &mut [Client]) {
        for (server, sql) in statements {
            let psql = self.servers[*server].psql("app", sql);
            assert!(psql.ok, "{sql}: {psql}");
        }
    }

    fn open_sessions(&self, statements: &[Statement], clients: &mut [Client]) {
        for (server, sql) in statements {
            clients[*server].batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        }
    }

    /// Takes all down, registers the servers and says which links should exist.
    fn desire(&self, links: &[String]) {
        self.empty();
        for (i, server) in self.servers.iter().enumerate() {
            add_node(&self.servers[0], &format!("s{i}"), server);
        }
        self.servers[0].sql("app", &links.join(";"));
    }

    fn empty(&self) {
        self.servers[0].sql("app", "CALL nodes.teardown()");
        for (i, server) in self.servers.iter().enumerate() {
            let others = (0..SERVERS).filter(|other| *other != i);
            let copies = others.flat_map(|o| COPIED.map(|(table, _)| format!("{table}{o}")));
            let copies: Vec<String> = copies.collect();
            server.sql("app", &format!("TRUNCATE {}", copies.join(", ")));
        }
    }
}

/// The statements that are to be sent, in order.
fn plan(client: &mut Client) -> Vec<Statement> {
    let query = "SELECT node, command FROM nodes.plan() ORDER BY step";
    let rows = client.query(query, &[]).expect("nodes.plan()");
    let statement = |row: &postgres::Row| {
        let (node, command): (String, Option<String>) = (row.get(0), row.get(1));
        let command = command.unwrap_or_else(|| panic!("a problem on {node}"));
        (node[1..].parse().expect("a number"), command)
    };
    rows.iter().map(statement).collect()
}

/// What the work of the servers allows: for the bare statements, on sessions that are open, all
/// cores must be busy for so long, whoever sends them.
fn tell_work(by_hand: Duration, bare: Duration, ours: Duration, session: Duration) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let floor = bare.as_secs_f64() / cores as f64;
    println!(
        "  work of the servers alone: {bare:.1?} on {cores} cores, so at most {:.2} times faster than \
         one psql; with nodes.apply(): {ours:.1?}, {session:.1?} of them its own session's",
        by_hand.as_secs_f64() / floor
    );
}

/// Waits until every subscription of this server has its rows.
fn await_copies(client: &mut Client) {
    let open = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')";
    let started = Instant::now();
    while client.query_one(open, &[]).expect("pg_subscription_rel").get::<_, i64>(0) > 0 {
        assert!(started.elapsed() < LONG, "an initial copy does not end");
        std::thread::sleep(Duration::from_millis(2));
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
