//! What it costs to watch, and how soon a change is told. All numbers are of one run; servers
//! run without fsync, so that the disk is not what is measured.
//!
//! `cargo bench -p pg_test --bench watch -- crash` measures only what has "crash" in its name.

mod fleet;
mod follow;
mod pooled;
mod replay;

use pg_test::trio::add_node;
use pg_test::usage;
use pg_test::watcher::preloaded;
use pg_test::{LONG, Server, is_gone, wait_until};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

const CRASHES: usize = 20;
const STOPS: usize = 5;
const HANGS: usize = 3;
const TERMINATIONS: usize = 6;

/// How long the worker is left alone before it is measured, and for how long it is measured.
const SETTLING: Duration = Duration::from_secs(12);
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
        fleet::measure_replayed();
    }
    if wanted("pooled fleet") {
        fleet::measure_pooled();
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
