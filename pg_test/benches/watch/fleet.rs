//! What a fleet costs the worker: of peers that repeat answers, so that nothing else takes the
//! processor, and of real sessions behind pgbouncer.

use super::pooled::Pooled;
use super::replay::Replay;
use super::{INTERVAL, SETTLING, add_node, goal_line, percentile, plain, print_spread, watcher};
use pg_test::usage;
use pg_test::{LONG, Server, wait_until};
use postgres::Client;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// How many nodes, and for how long they are watched. The largest fleet is measured for longer
/// than the interval between two inventories.
const FLEETS: [(usize, Duration); 3] = [
    (10, Duration::from_secs(20)),
    (100, Duration::from_secs(20)),
    (1000, Duration::from_secs(65)),
];

/// The peers of a fleet.
pub trait Peers {
    /// How they are reached; a `%` stands for the number of the node.
    fn conninfo(&self) -> String;

    /// What they saw since they were last asked.
    fn take_seen(&mut self) -> Seen;
}

#[derive(Default)]
pub struct Seen {
    /// The times between two heartbeats of a peer.
    pub gaps: Vec<Duration>,
    pub questions: u64,
    /// Those that began.
    pub sessions: u64,
}

/// What a fleet of some size costs the worker.
struct Cost {
    nodes: usize,
    /// To one peer in a second.
    questions: f64,
    /// Those that peers had to begin.
    sessions: u64,
    /// Of one core.
    cpu: f64,
    resident: f64,
    anonymous: f64,
    trips: Vec<Duration>,
    late: Vec<Duration>,
    views: Vec<Duration>,
}

pub fn measure_replayed() {
    println!("fleets of peers that repeat the answers of one server with 2 slots, so that only");
    println!("the worker is measured; CPU from /proc/<pid>/schedstat, lateness as peers see it");
    let london = plain("london");
    london.sql(
        "app",
        "SELECT pg_create_physical_replication_slot('s' || i, true) FROM generate_series(1, 2) i",
    );
    let mut peers = Replay::of(&london);
    let paris = watcher();
    if let Some(largest) = measure_growing(&paris, &mut peers) {
        measure_dead(&paris, &mut peers, &largest);
    }
}

pub fn measure_pooled() {
    println!(
        "fleets of databases of one server behind pgbouncer, session pooling: worker, pgbouncer"
    );
    println!("and the sessions share the processors; lateness as pg_stat_activity there shows it");
    let mut peers = Pooled::start();
    let paris = watcher();
    measure_growing(&paris, &mut peers);
}

/// Measures one size after the other, and returns what the largest costs.
fn measure_growing(paris: &Server, peers: &mut impl Peers) -> Option<Cost> {
    add_node(paris, "paris", paris);
    let mut client = paris.client("app");
    let mut costs = Vec::new();
    for (nodes, duration) in FLEETS {
        grow(&mut client, &peers.conninfo(), nodes);
        let cost = measure(paris, &mut client, peers, nodes, duration);
        cost.print(costs.first());
        costs.push(cost);
    }
    let largest = costs.pop()?;
    largest.print_goals();
    Some(largest)
}

/// Registers so many nodes and waits until all are up.
fn grow(client: &mut Client, conninfo: &str, nodes: usize) {
    let known: i64 = count(client, "nodes.node");
    let add = "SELECT nodes.add_node('n' || i, replace($1, '%', i::text))
               FROM generate_series($2::int8, $3::int8 - 1) i";
    let began = Instant::now();
    client.execute(add, &[&conninfo, &known, &(nodes as i64)]).expect("add_node");
    let added = began.elapsed();
    wait_until("all nodes are up", 2 * LONG, || {
        count(client, "nodes.status WHERE health = 'up'") == nodes as i64
    });
    let up = began.elapsed() - added;
    println!("{nodes} nodes: registered in {added:.1?}, all up {up:.1?} later");
}

fn count(client: &mut Client, of: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {of}"), &[]).expect("a number").get(0)
}

fn measure(
    paris: &Server,
    client: &mut Client,
    peers: &mut impl Peers,
    nodes: usize,
    duration: Duration,
) -> Cost {
    let worker = paris.await_worker("app");
    std::thread::sleep(SETTLING);
    peers.take_seen();
    let before = usage::cpu(worker);
    let began = Instant::now();
    std::thread::sleep(duration);
    let used = usage::cpu(worker) - before;
    let elapsed = began.elapsed();
    let seen = peers.take_seen();
    let late = seen.gaps.into_iter().map(|gap| gap.saturating_sub(INTERVAL)).collect();
    let (trips, views) = look(client, 10);
    Cost {
        nodes,
        // The watching server is a node too, and none of the peers.
        questions: seen.questions as f64 / (nodes - 1) as f64 / elapsed.as_secs_f64(),
        sessions: seen.sessions,
        cpu: used.as_secs_f64() / elapsed.as_secs_f64(),
        resident: usage::memory(worker, "VmRSS"),
        anonymous: usage::memory(worker, "RssAnon"),
        trips,
        late,
        views,
    }
}

/// Looks at all nodes once a second: the round trips of their last heartbeats, and what a look
/// takes.
fn look(client: &mut Client, times: usize) -> (Vec<Duration>, Vec<Duration>) {
    let query = client.prepare("SELECT * FROM nodes.status").expect("the view");
    let (mut trips, mut views) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let began = Instant::now();
        let rows = client.query(&query, &[]).expect("the view");
        views.push(began.elapsed());
        let peers = rows.iter().filter(|row| row.get::<_, &str>("health") == "up");
        let trip = |row: &postgres::Row| row.get::<_, Option<f64>>("round_trip_ms");
        trips.extend(peers.filter_map(trip).map(|ms| Duration::from_secs_f64(ms / 1e3)));
        std::thread::sleep(INTERVAL);
    }
    (trips, views)
}

impl Cost {
    fn per_node(&self) -> f64 {
        self.cpu / self.nodes as f64 * 1e6
    }

    fn print(&self, smallest: Option<&Cost>) {
        let ratio = smallest.map_or(1.0, |smallest| self.per_node() / smallest.per_node());
        println!(
            "  {:<34} {:>8.2} %  {:.0} us a node and second, {ratio:.2} times that of {}",
            "CPU of the worker, of one core",
            self.cpu * 100.0,
            self.per_node(),
            smallest.map_or(self.nodes, |smallest| smallest.nodes)
        );
        println!(
            "  {:<34} {:>7.1} MB  of which {:.1} MB its own",
            "memory of the worker", self.resident, self.anonymous
        );
        println!(
            "  {:<34} {:>10.2}  a peer and second, {} new sessions",
            "questions", self.questions, self.sessions
        );
        print_spread("round trip", &self.trips);
        print_spread("lateness of heartbeats", &self.late);
        println!("  {:<34} {:>10.1?}", "SELECT * FROM nodes.status", percentile(&self.views, 50));
    }

    fn print_goals(&self) {
        println!("goals at {} nodes", self.nodes);
        goal_line("CPU", &format!("{:.2} %", self.cpu * 100.0), "5 %", self.cpu < 0.05);
        let resident = format!("{:.1} MB", self.resident);
        goal_line("memory", &resident, "100 MB", self.resident < 100.0);
        let latest = percentile(&self.late, 100);
        let limit = Duration::from_millis(100);
        goal_line("latest heartbeat", &format!("{latest:.1?}"), "100 ms", latest <= limit);
        let questions = format!("{:.2}", self.questions);
        // One a second, and one a minute for everything.
        goal_line("questions a peer and second", &questions, "1.05", self.questions < 1.05);
        goal_line("new sessions", &self.sessions.to_string(), "0", self.sessions == 0);
        let view = percentile(&self.views, 50);
        let limit = Duration::from_millis(20);
        goal_line("SELECT * FROM nodes.status", &format!("{view:.1?}"), "20 ms", view < limit);
    }
}

/// One node more, which lets us connect and then says nothing.
fn measure_dead(paris: &Server, peers: &mut impl Peers, before: &Cost) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = silent.local_addr().expect("a bound socket").port();
    paris.sql("app", &format!("SELECT nodes.add_node('dead', 'host=127.0.0.1 port={port}')"));
    paris.await_health("dead", "down");
    let mut client = paris.client("app");
    let with = measure(paris, &mut client, peers, before.nodes + 1, Duration::from_secs(10));
    println!("one dead node among them: round trips of the others");
    print_spread("without it", &before.trips);
    print_spread("with it", &with.trips);
    print_spread("lateness of heartbeats with it", &with.late);
    println!("  load {}", usage::load());
}
