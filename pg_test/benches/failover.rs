//! How long nobody can write when the primary changes: by a switchover, and after a crash that a
//! script answers with `nodes.promote()`; and how long it takes until the last of five subscriptions
//! streams again. All numbers are of one run, on a pair that is written to; servers run without
//! fsync, so that the disk is not what is measured.

use pg_test::names::literal;
use pg_test::trio::{add_node, apply};
use pg_test::watcher::preloaded;
use pg_test::writer::Writer;
use pg_test::{LONG, Server, wait_until};
use std::time::{Duration, Instant};

const SWITCHOVERS: usize = 10;
const CRASHES: usize = 5;
/// Before and after a change, so that the client's longest pause is that of the change.
const SETTLING: Duration = Duration::from_millis(500);
/// Each subscribes with a database of its own.
const READERS: [&str; 5] = ["bergen", "hamar", "lom", "molde", "voss"];
/// How long Postgres waits before it starts an apply worker again that failed
/// (`wal_retrieve_retry_interval`): as it comes, and shorter.
const RETRIES: [&str; 2] = ["5s", "200ms"];
const GOAL: Duration = Duration::from_secs(1);

fn main() {
    println!("PostgreSQL {}, a pair that is written to, as its client sees it", Server::major());
    let (paris, oslo) = pair();
    let there_and_back = [("paris", &paris), ("oslo", &oslo)];
    let pauses = (0..SWITCHOVERS).map(|run| {
        let ((_, from), (name, to)) = (there_and_back[run % 2], there_and_back[(run + 1) % 2]);
        await_stream(from);
        let call = format!("CALL nodes.switchover('{name}')");
        pause(&[from, to], || {
            let said = to.psql("app", &call);
            assert!(said.ok, "{said}");
        })
    });
    tell("switchover", pauses.collect());
    drop((paris, oslo));
    tell("crash, and promote() on the event", (0..CRASHES).map(|_| pause_of_crash()).collect());
    if Server::major() < 17 {
        return println!("subscriptions: their slots survive a failover from PostgreSQL 17 on");
    }
    for retry in RETRIES {
        let times = (0..CRASHES).map(|_| gap_of_subscriptions(retry)).collect();
        let (median, worst) = median_and_worst(times);
        println!(
            "crash, until the last of {} subscriptions streams again, which retry every {retry}: \
             median {median:.1?}, worst {worst:.1?}",
            READERS.len()
        );
    }
}

/// The longest that a client could not write meanwhile.
fn pause(servers: &[&Server], change: impl FnOnce()) -> Duration {
    let writer = Writer::start(servers, "orders");
    std::thread::sleep(SETTLING);
    change();
    std::thread::sleep(SETTLING);
    writer.finish().longest_pause
}

fn pair() -> (Server, Server) {
    let paris = preloaded("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer)");
    let oslo = paris.clone_standby_with(preloaded("oslo"));
    for (name, server) in [("paris", &paris), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    apply(&paris);
    await_stream(&paris);
    (paris, oslo)
}

fn await_stream(primary: &Server) {
    let streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("the standby streams", LONG, || primary.query_texts("app", streams) == ["1"]);
}

fn pause_of_crash() -> Duration {
    let (mut paris, oslo) = pair();
    oslo.await_health("paris", "up");
    let writer = Writer::start(&[&paris, &oslo], "orders");
    std::thread::sleep(SETTLING);
    crash_and_promote(&mut paris, &oslo);
    std::thread::sleep(SETTLING);
    writer.finish().longest_pause
}

/// A script hears of the crash from the standby's worker. Returns when that was.
fn crash_and_promote(paris: &mut Server, oslo: &Server) -> Instant {
    let mut script = oslo.client("app");
    let begun = Instant::now();
    paris.crash();
    let health = "SELECT health FROM nodes.status WHERE node = 'paris'";
    while script.query_one(health, &[]).is_ok_and(|row| row.get::<_, String>(0) == "up") {
        std::thread::sleep(Duration::from_millis(1));
    }
    script.batch_execute("CALL nodes.promote('oslo')").expect("it is promoted");
    begun
}

/// From the crash until all subscribers receive from the new primary what is written there.
fn gap_of_subscriptions(retry: &str) -> Duration {
    let (mut paris, oslo) = pair();
    let london = Server::builder("london").conf("wal_retrieve_retry_interval", retry).start();
    subscribe(&paris, &london);
    let writer = Writer::start(&[&paris, &oslo], "orders");
    let ready = "SELECT ready::text FROM nodes.failover_ready";
    wait_until("oslo has all slots", LONG, || {
        paris.sql("app", "SELECT pg_log_standby_snapshot()");
        paris.query_one_text("app", ready) == "true"
    });
    oslo.await_health("paris", "up");
    let begun = crash_and_promote(&mut paris, &oslo);
    await_readers(&oslo);
    let took = begun.elapsed();
    drop(writer.finish());
    took
}

fn subscribe(paris: &Server, london: &Server) {
    for reader in READERS {
        london.create_db(reader);
        london.sql(reader, "CREATE TABLE orders (id integer)");
        let [name, conninfo] = [reader, &london.conninfo(reader)].map(literal);
        paris.sql(
            "app",
            &format!(
                "SELECT nodes.add_node({name}, {conninfo});
                 SELECT nodes.add_subscription({name}, publisher => 'paris', subscriber => {name},
                     tables => '{{public.orders}}', options => '{{\"publish\": \"insert\"}}')"
            ),
        );
    }
    apply(paris);
    await_readers(paris);
}

fn await_readers(primary: &Server) {
    let streaming = "SELECT count(*)::text FROM pg_stat_replication r
        JOIN pg_replication_slots s ON s.active_pid = r.pid
        WHERE s.slot_type = 'logical' AND NOT s.temporary AND r.state = 'streaming'";
    let mut client = primary.client("app");
    wait_until("all subscriptions stream", LONG, || {
        let row = client.query_one(streaming, &[]).expect("it answers");
        row.get::<_, String>(0) == READERS.len().to_string()
    });
}

fn median_and_worst(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

fn tell(what: &str, times: Vec<Duration>) {
    let (median, worst) = median_and_worst(times);
    let verdict = if median < GOAL { "reached" } else { "missed" };
    println!("{what}: median {median:.0?}, worst {worst:.0?} (goal {GOAL:?}: {verdict})");
}
