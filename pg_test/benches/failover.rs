//! How long nobody can write when the primary changes: by a switchover, and after a crash that a
//! script answers with `nodes.promote()`. All numbers are of one run, on a pair that is written to;
//! servers run without fsync, so that the disk is not what is measured.

use pg_test::trio::{add_node, apply};
use pg_test::watcher::preloaded;
use pg_test::writer::Writer;
use pg_test::{LONG, Server, wait_until};
use std::time::Duration;

const SWITCHOVERS: usize = 10;
const CRASHES: usize = 5;
/// Before and after a change, so that the client's longest pause is that of the change.
const SETTLING: Duration = Duration::from_millis(500);
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

/// The script hears of the crash from the standby's worker.
fn pause_of_crash() -> Duration {
    let (mut paris, oslo) = pair();
    oslo.await_health("paris", "up");
    let writer = Writer::start(&[&paris, &oslo], "orders");
    std::thread::sleep(SETTLING);
    let mut script = oslo.client("app");
    paris.crash();
    let health = "SELECT health FROM nodes.status WHERE node = 'paris'";
    while script.query_one(health, &[]).is_ok_and(|row| row.get::<_, String>(0) == "up") {
        std::thread::sleep(Duration::from_millis(1));
    }
    script.batch_execute("CALL nodes.promote('oslo')").expect("it is promoted");
    std::thread::sleep(SETTLING);
    writer.finish().longest_pause
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let verdict = if median < GOAL { "reached" } else { "missed" };
    println!("{what}: median {median:.0?}, worst {worst:.0?} (goal {GOAL:?}: {verdict})");
}
