//! How soon workers follow what happens to their databases, and whether they stand in the way.

use super::{add_node, goal_line, percentile, plain, watcher};
use pg_test::{LONG, Server};
use postgres::Client;
use std::time::{Duration, Instant};

const RUNS: usize = 10;
const GOAL: Duration = Duration::from_secs(1);
const WORKERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'pg_nodes worker' AND datname::text = $1 AND pid <> $2";

pub fn measure() {
    println!("what happens to a database -> its worker has followed, {RUNS} times each");
    let mut paris = watcher();
    let london = plain("london");
    let runs: Vec<[Duration; 7]> = (0..RUNS).map(|_| life_of_a_database(&paris)).collect();
    let names = [
        "CREATE EXTENSION",
        "worker terminated after a while",
        "ALTER DATABASE RENAME",
        "worker terminated as it starts",
        "DROP EXTENSION",
        "DROP DATABASE, the command",
        "DROP DATABASE, its worker gone",
    ];
    for (at, name) in names.iter().enumerate() {
        print(name, &runs.iter().map(|run| run[at]).collect::<Vec<_>>());
    }
    add_node(&paris, "paris", &paris);
    add_node(&paris, "london", &london);
    print("kill -9, once sessions are let in", &times(|| killed(&paris)));
    print("fast shutdown, worker busy", &times(|| shut_down(&mut paris, &london)));
}

fn times(run: impl FnMut() -> Duration) -> Vec<Duration> {
    std::iter::repeat_with(run).take(RUNS).collect()
}

/// A database of its own for each run: workers that fail again and again are started less often.
fn life_of_a_database(paris: &Server) -> [Duration; 7] {
    let mut client = paris.client("postgres");
    paris.create_db("shop");
    let create = timed(|| {
        paris.sql("shop", "CREATE EXTENSION pg_nodes");
        await_workers(&mut client, "shop", 0, 1);
    });
    await_age(&mut client, "shop");
    let terminate_later = terminated(&mut client, "shop", paris.await_worker("shop"));
    let rename = timed(|| {
        client.batch_execute("ALTER DATABASE shop RENAME TO store").expect("nobody is in the way");
        await_workers(&mut client, "store", 0, 1);
    });
    let terminate = terminated(&mut client, "store", paris.await_worker("store"));
    let drop = timed(|| {
        paris.sql("store", "DROP EXTENSION pg_nodes; DROP SCHEMA nodes");
        await_workers(&mut client, "store", 0, 0);
    });
    paris.sql("store", "CREATE EXTENSION pg_nodes");
    await_workers(&mut client, "store", 0, 1);
    let began = Instant::now();
    client.batch_execute("DROP DATABASE store").expect("nobody is in the way");
    let command = began.elapsed();
    await_workers(&mut client, "store", 0, 0);
    [create, terminate_later, rename, terminate, drop, command, began.elapsed()]
}

fn terminated(client: &mut Client, db: &str, worker: u32) -> Duration {
    timed(|| {
        let terminate = format!("SELECT pg_terminate_backend({worker})");
        client.batch_execute(&terminate).expect("a superuser may");
        await_workers(client, db, worker, 1);
    })
}

/// Waits until a database's worker is older than one turn of the launcher.
fn await_age(client: &mut Client, db: &str) {
    const OLD: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'pg_nodes worker' AND datname::text = $1
        AND clock_timestamp() - backend_start > interval '1s'";
    let began = Instant::now();
    while client.query_one(OLD, &[&db]).expect("a count").get::<_, i64>(0) != 1 {
        assert!(began.elapsed() < LONG, "{db}'s worker does not grow old");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A worker that is killed takes all sessions along; the server's recovery is not counted.
fn killed(paris: &Server) -> Duration {
    await_age(&mut paris.client("postgres"), "app");
    let worker = paris.await_worker("app");
    paris.kill_backend(worker);
    let mut client = loop {
        match paris.try_client("postgres") {
            Ok(client) => break client,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    timed(|| await_workers(&mut client, "app", worker, 1))
}

fn shut_down(paris: &mut Server, london: &Server) -> Duration {
    paris.await_health(london.name(), "up");
    let took = timed(|| paris.stop());
    paris.start_again();
    took
}

fn timed(what: impl FnOnce()) -> Duration {
    let began = Instant::now();
    what();
    began.elapsed()
}

/// Waits until a database has so many workers, one that is known not counted.
fn await_workers(client: &mut Client, db: &str, known: u32, expected: i64) {
    let began = Instant::now();
    let known = i32::try_from(known).expect("process ids are small");
    while client.query_one(WORKERS, &[&db, &known]).expect("a count").get::<_, i64>(0) != expected {
        assert!(began.elapsed() < LONG, "{db} still has not {expected} workers");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn print(what: &str, times: &[Duration]) {
    let (median, most) = (percentile(times, 50), percentile(times, 100));
    goal_line(what, &format!("{median:.1?}"), &format!("{GOAL:?}"), most <= GOAL);
    println!("  {:<34} {most:>10.1?}", "  maximum");
}
