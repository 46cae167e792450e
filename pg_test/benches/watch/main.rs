//! What it costs to watch, and how soon a change is told. All numbers are of one run; servers
//! run without fsync, so that the disk is not what is measured.
//!
//! `cargo bench -p pg_test --bench watch -- crash` measures only what has "crash" in its name.

mod follow;
mod replay;

use pg_test::trio::add_node;
use pg_test::usage;
use pg_test::watcher::preloaded;
use pg_test::{LONG, Server, is_gone, wait_until};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use replay::Replay;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

const CRASHES: usize = 20;
const STOPS: usize = 5;
const HANGS: usize = 3;
const TERMINATIONS: usize = 6;

/// How long the worker is left alone before it is measured, and how long it is measured. The
/// largest fleet is measured for longer than the interval between two inventories.
const SETTLING: Duration = Duration::from_secs(12);
const FLEETS: [(usize, Duration); 3] = [
    (10, Duration::from_secs(20)),
    (100, Duration::from_secs(20)),
    (1000, Duration::from_secs(65)),
];
const STEADY: Duration = Duration::from_secs(60);

/// What happens to a peer, how often, within what time it should be told, and how it is done.
type Trouble = (&'static str, usize, Duration, fn(&mut Server));

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |what: &str| only.is_empty() || only.iter().any(|part| what.contains(part));
    raise_descriptor_limit();
    println!(
        "PostgreSQL {}, heartbeats every {INTERVAL:?}, node_timeout {TIMEOUT:?}, load {}",
        Server::major(),
        usage::load()
    );
    let events: [Trouble; 3] = [
        ("crash", CRASHES, Duration::from_millis(50), Server::crash),
        ("refused port", STOPS, INTERVAL, Server::stop),
        ("black hole", HANGS, TIMEOUT.mul_f64(1.1), Server::pause),
    ];
    for (what, runs, goal, fault) in events {
        if wanted(what) {
            tell_time_to_event(what, runs, goal, fault);
        }
    }
    if wanted("terminate") {
        measure_termination();
    }
    if wanted("follow") {
        follow::measure();
    }
    if wanted("pair") {
        measure_pair();
    }
    if wanted("fleet") {
        measure_fleets();
    }
}

/// A thousand connections are more than most shells allow; servers inherit the limit.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours and outlives both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}

/// A server that watches with settings as they come, but for room.
fn watcher() -> Server {
    let paris = preloaded("paris")
        .conf("pg_nodes.max_nodes", "2000")
        .conf("max_files_per_process", "4000")
        .start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    paris
}

fn plain(name: &str) -> Server {
    let server = Server::builder(name).start();
    server.create_db("app");
    server
}

/// From what is done to a peer to the notification that it is down.
fn tell_time_to_event(what: &str, runs: usize, goal: Duration, fault: fn(&mut Server)) {
    let (paris, mut london) = (watcher(), plain("london"));
    add_node(&paris, "paris", &paris);
    let times: Vec<Duration> = (0..runs)
        .map(|run| {
            // A new node each time: one that falls again and again is flapping.
            let node = format!("london{run}");
            add_node(&paris, &node, &london);
            paris.await_health(&node, "up");
            // So that it does not happen at the same time after a heartbeat each time.
            std::thread::sleep(INTERVAL.mul_f64(run as f64 / runs as f64));
            let told = await_down(paris.client("app"), node.clone());
            let began = Instant::now();
            fault(&mut london);
            let told = told.join().expect("the listener ends") - began;
            paris.sql("app", &format!("SELECT nodes.remove_node('{node}')"));
            if london.is_running() {
                london.resume();
            } else {
                london.start_again();
            }
            told
        })
        .collect();
    let (median, most) = (percentile(&times, 50), percentile(&times, 100));
    println!("{what} of a peer -> row in nodes.event and NOTIFY, {runs} times");
    goal_line("median", &format!("{median:.1?}"), &format!("{goal:?}"), median <= goal);
    println!("  {:<34} {most:>10.1?}", "maximum");
}

/// Listens in a thread until a node is said to be down; returns when that was.
fn await_down(mut client: Client, node: String) -> std::thread::JoinHandle<Instant> {
    client.batch_execute("LISTEN pg_nodes").expect("LISTEN");
    let about = format!("\"node\": \"{node}\"");
    std::thread::spawn(move || {
        let mut told = client.notifications();
        let mut notices = told.timeout_iter(LONG);
        while let Some(notice) = notices.next().expect("a connection") {
            let text = notice.payload();
            if text.contains(&about) && text.contains("\"kind\": \"down\"") {
                return Instant::now();
            }
        }
        panic!("nobody said that {node} is down");
    })
}

/// From SIGTERM to the end of the worker, while it waits for a peer that hangs: in turn for a
/// heartbeat and for a connection.
fn measure_termination() {
    let (paris, mut london) = (watcher(), plain("london"));
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    let mut last = 0;
    let times: Vec<Duration> = (0..TERMINATIONS)
        .map(|run| {
            paris.await_health("london", "up");
            london.pause();
            std::thread::sleep(if run % 2 == 0 { INTERVAL } else { TIMEOUT.mul_f64(1.2) });
            wait_until("another worker", LONG, || paris.worker("app").is_some_and(|w| w != last));
            last = paris.await_worker("app");
            let began = Instant::now();
            paris.sql("app", &format!("SELECT pg_terminate_backend({last})"));
            while !is_gone(last) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let took = began.elapsed();
            london.resume();
            took
        })
        .collect();
    let (median, most) = (percentile(&times, 50), percentile(&times, 100));
    println!("SIGTERM of the worker -> its end, with a peer that hangs, {TERMINATIONS} times");
    let goal = Duration::from_millis(100);
    goal_line("median", &format!("{median:.1?}"), &format!("{goal:?}"), median <= goal);
    println!("  {:<34} {most:>10.1?}", "maximum");
}

/// Two servers, of which one watches both, against two that nobody watches.
fn measure_pair() {
    let (paris, london) = (watcher(), plain("london"));
    let idle = [plain("idle1"), plain("idle2")];
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    for node in ["paris", "london"] {
        paris.await_health(node, "up");
    }
    let pair = [paris, london];
    for server in pair.iter().chain(&idle) {
        for statement in ["VACUUM", "CHECKPOINT"] {
            server.sql("app", statement);
        }
    }
    std::thread::sleep(SETTLING);
    let cpu = |servers: &[Server]| servers.iter().map(usage::cpu_of).sum::<Duration>();
    let mut clients = [&pair[0], &pair[1], &idle[0], &idle[1]].map(|server| server.client("app"));
    let (used, wal) = ((cpu(&pair), cpu(&idle)), clients.each_mut().map(wal));
    std::thread::sleep(STEADY);
    let per_hour = |now: Duration, before: Duration| {
        (now - before).as_secs_f64() / STEADY.as_secs_f64() * 3600.0
    };
    let used = (per_hour(cpu(&pair), used.0), per_hour(cpu(&idle), used.1));
    let mut written = [0; 4];
    for ((written, client), before) in written.iter_mut().zip(&mut clients).zip(wal) {
        *written = self::wal(client) - before;
    }
    let above = used.0 - used.1;
    println!("a pair that is watched, no links, {STEADY:?} against an idle pair at the same time");
    println!("  {:<34} {:>10.1} s an hour", "CPU of the watched pair", used.0);
    println!("  {:<34} {:>10.1} s an hour", "CPU of the idle pair", used.1);
    goal_line("CPU above idle", &format!("{above:.1} s"), "10 s an hour", above < 10.0);
    let [paris, london, idle @ ..] = written;
    let idle = idle.iter().sum::<i64>();
    goal_line("WAL", &format!("{} B", paris + london), "0, as idle", paris + london <= idle);
    println!("  {:<34} {idle:>10} B", "WAL of the idle pair");
}

/// Where the WAL of a server ends, in bytes.
fn wal(client: &mut Client) -> i64 {
    let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
    client.query_one(query, &[]).expect("a primary").get(0)
}

/// What a fleet of some size costs the worker.
struct Cost {
    nodes: usize,
    /// Of one core.
    cpu: f64,
    resident: f64,
    anonymous: f64,
    trips: Vec<Duration>,
    late: Vec<Duration>,
    views: Vec<Duration>,
}

fn measure_fleets() {
    println!("fleets of peers that repeat the answers of one server with 2 slots, so that only");
    println!("the worker is measured; CPU from /proc/<pid>/schedstat, lateness as peers see it");
    let paris = watcher();
    let london = plain("london");
    london.sql(
        "app",
        "SELECT pg_create_physical_replication_slot('s' || i, true) FROM generate_series(1, 2) i",
    );
    let peers = Replay::of(&london);
    add_node(&paris, "paris", &paris);
    let mut client = paris.client("app");
    let mut costs = Vec::new();
    for (nodes, duration) in FLEETS {
        grow(&mut client, &peers, nodes);
        let cost = measure(&paris, &mut client, &peers, nodes, duration);
        cost.print(costs.first());
        costs.push(cost);
    }
    let Some(cost) = costs.last() else { return };
    cost.print_goals();
    measure_dead(&paris, &mut client, &peers, cost);
}

/// Registers so many nodes and waits until all are up.
fn grow(client: &mut Client, peers: &Replay, nodes: usize) {
    let known: i64 = count(client, "nodes.node");
    let add = "SELECT nodes.add_node('n' || i, $1) FROM generate_series($2::int8, $3::int8 - 1) i";
    let began = Instant::now();
    client.execute(add, &[&peers.conninfo(), &known, &(nodes as i64)]).expect("add_node");
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
    peers: &Replay,
    nodes: usize,
    duration: Duration,
) -> Cost {
    let worker = paris.await_worker("app");
    std::thread::sleep(SETTLING);
    peers.take_gaps();
    let before = usage::cpu(worker);
    let began = Instant::now();
    std::thread::sleep(duration);
    let used = usage::cpu(worker) - before;
    let elapsed = began.elapsed();
    let late = peers.take_gaps().into_iter().map(|gap| gap.saturating_sub(INTERVAL)).collect();
    let (trips, views) = look(client, 10);
    Cost {
        nodes,
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
        let view = percentile(&self.views, 50);
        let limit = Duration::from_millis(20);
        goal_line("SELECT * FROM nodes.status", &format!("{view:.1?}"), "20 ms", view < limit);
    }
}

/// One node more, which lets us connect and then says nothing.
fn measure_dead(paris: &Server, client: &mut Client, peers: &Replay, before: &Cost) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = silent.local_addr().expect("a bound socket").port();
    paris.sql("app", &format!("SELECT nodes.add_node('dead', 'host=127.0.0.1 port={port}')"));
    paris.await_health("dead", "down");
    let with = measure(paris, client, peers, before.nodes + 1, Duration::from_secs(10));
    println!("one dead node among them: round trips of the others");
    print_spread("without it", &before.trips);
    print_spread("with it", &with.trips);
    print_spread("lateness of heartbeats with it", &with.late);
    println!("  load {}", usage::load());
}

fn print_spread(what: &str, of: &[Duration]) {
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(of, percent));
    println!("  {what:<34} {p50:>10.1?}  p99 {p99:.1?}, maximum {most:.1?}");
}

fn goal_line(what: &str, value: &str, goal: &str, reached: bool) {
    let verdict = if reached { "reached" } else { "missed" };
    println!("  {what:<34} {value:>10}  goal {goal}: {verdict}");
}

fn percentile(of: &[Duration], percent: usize) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
