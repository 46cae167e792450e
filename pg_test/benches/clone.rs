//! `nodes.clone_standby()` against what one would type instead: of a small server against the four
//! commands by hand, of a large one against `pg_basebackup` alone. All numbers are of one run, taken
//! in turns; files lie in memory, so that the disk is not what is measured.

use pg_test::adopted::Adopted;
use pg_test::names::literal;
use pg_test::trio::{add_node, apply};
use pg_test::{Install, LONG, Server, user, wait_until};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

const SMALL_RUNS: usize = 7;
const LARGE_RUNS: usize = 5;
const SMALL_GOAL: Duration = Duration::from_millis(200);
const LARGE_GOAL: f64 = 1.05;
/// Rows of about 1 kB.
const ROWS: u32 = 2_000_000;

fn main() {
    let paris = Server::builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    add_node(&paris, "paris", &paris);

    println!("PostgreSQL {}, clones of a small server", Server::major());
    let (mut by_hand, mut by_call) = (Vec::new(), Vec::new());
    for _ in 0..SMALL_RUNS {
        by_hand.push(four_commands(&paris));
        by_call.push(one_call(&paris));
    }
    let (by_hand, by_call) = (median(by_hand), median(by_call));
    let more = by_call.saturating_sub(by_hand);
    let verdict = if more < SMALL_GOAL { "reached" } else { "missed" };
    println!(
        "four commands {by_hand:.0?}, one call {by_call:.0?}: {more:.0?} more (goal {SMALL_GOAL:?}: \
         {verdict})"
    );

    let fill = format!(
        "CREATE TABLE ballast AS SELECT i, repeat(md5(i::text), 31) AS text
             FROM generate_series(1, {ROWS}) i;
         CHECKPOINT"
    );
    paris.sql("app", "ALTER DATABASE app SET statement_timeout = 0");
    paris.psql("app", &fill);
    let size = "SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database";
    println!("clones of a server of {}", paris.query_one_text("app", size));
    // The first ones find memory that was never used.
    basebackup(&paris);
    one_call(&paris);
    let (mut alone, mut by_call) = (Vec::new(), Vec::new());
    for _ in 0..LARGE_RUNS {
        alone.push(basebackup(&paris));
        by_call.push(one_call(&paris));
    }
    let (alone, by_call) = (median(alone), median(by_call));
    let ratio = by_call.as_secs_f64() / alone.as_secs_f64();
    let verdict = if ratio <= LARGE_GOAL { "reached" } else { "missed" };
    println!(
        "pg_basebackup {alone:.2?}, one call {by_call:.2?}: {ratio:.3} times (goal {LARGE_GOAL}: \
         {verdict})"
    );
}

/// Until the standby streams; then all is taken back.
fn one_call(paris: &Server) -> Duration {
    let place = Adopted::place("oslo");
    let (data, port) = (literal(&place.data_dir().to_string_lossy()), place.port());
    let call = format!("CALL nodes.clone_standby('oslo', 'paris', {data}, port => {port})");
    let started = Instant::now();
    let said = paris.psql("app", &call);
    let took = started.elapsed();
    assert!(said.ok, "{said}");
    drop(place);
    paris.sql("app", "SELECT nodes.forget_node('oslo')");
    apply(paris);
    took
}

fn four_commands(paris: &Server) -> Duration {
    let place = Adopted::place("oslo");
    let data = place.data_dir();
    let started = Instant::now();
    let mut copy = pg_basebackup(paris, &place);
    copy.args(["--write-recovery-conf", "--create-slot", "--slot=by_hand"]);
    run(copy);
    OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.auto.conf"))
        .and_then(|mut file| writeln!(file, "port = {}", place.port()))
        .expect("the configuration can be written");
    let mut start = user::command(Install::get().program("pg_ctl"));
    start.args(["start", "--wait", "--silent", "--log"]).arg(data.join("server.log"));
    start.arg("--pgdata").arg(data);
    run(start);
    let streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("it streams", LONG, || paris.query_texts("app", streams) == ["1"]);
    let took = started.elapsed();
    drop(place);
    let unread = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE NOT active";
    wait_until("its slot is dropped", LONG, || !paris.query_texts("app", unread).is_empty());
    took
}

fn basebackup(paris: &Server) -> Duration {
    let place = Adopted::place("oslo");
    let started = Instant::now();
    run(pg_basebackup(paris, &place));
    started.elapsed()
}

fn pg_basebackup(paris: &Server, place: &Adopted) -> Command {
    let mut command = user::command(Install::get().program("pg_basebackup"));
    command.args(["--dbname", &paris.conninfo("app"), "--checkpoint=fast", "--pgdata"]);
    command.arg(place.data_dir());
    command
}

fn run(mut command: Command) {
    let output = command.output().expect("a program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
