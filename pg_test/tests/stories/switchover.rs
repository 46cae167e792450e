//! `nodes.switchover()`: a primary hands over while it is written to, and everything follows.

use pg_test::gate::{open_gate, stop_at_successor};
use pg_test::quartet::Quartet;
use pg_test::trio::{apply, plan};
use pg_test::writer::Writer;
use pg_test::{LONG, Psql, Server, wait_until};
use postgres::NoTls;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Paris with its standbys oslo and rome, and london, which reads a schema of paris.
struct Cluster {
    paris: Server,
    oslo: Server,
    rome: Server,
    london: Server,
}

fn cluster() -> Cluster {
    let schema = "CREATE SCHEMA inventory; CREATE TABLE inventory.items (id integer PRIMARY KEY)";
    let quartet = Quartet::start(&[], schema);
    quartet.register(&quartet.paris);
    let Quartet { paris, oslo, rome, london } = quartet;
    paris.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', node => 'paris', remote_schema => 'inventory',
             on_node => 'london')",
    );
    apply(&paris);
    let cluster = Cluster { paris, oslo, rome, london };
    cluster.await_streams(&cluster.paris);
    cluster
}

impl Cluster {
    fn server(&self, name: &str) -> &Server {
        match name {
            "paris" => &self.paris,
            "oslo" => &self.oslo,
            _ => &self.rome,
        }
    }

    /// Until both others stream from this one, and nothing else is kept for anybody.
    fn await_streams(&self, primary: &Server) {
        let streams = "SELECT count(*) FILTER (WHERE state = 'streaming') || ' '
            || (SELECT count(*) FROM pg_replication_slots WHERE NOT active)
            FROM pg_stat_replication";
        wait_until("both stream", LONG, || primary.query_texts("app", streams) == ["2 0"]);
        let registered = "SELECT count(*) FROM nodes.node";
        let nodes = primary.query_one_text("app", registered);
        for standby in [&self.paris, &self.oslo, &self.rome] {
            wait_until("the registry is there", LONG, || {
                standby.query_one_text("app", registered) == nodes
            });
        }
    }

    /// Calls it on another server than the primary.
    fn hand_over(&self, on: &str, to: &str) {
        let said = self.server(on).psql("app", &format!("CALL nodes.switchover('{to}')"));
        let told = [format!("\"{to}\" is the primary: no writes for "), "all links follow".into()];
        assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
        assert!(!said.output.contains("WARNING"), "{said}");
        self.assert_leads(to);
    }

    fn assert_leads(&self, name: &str) {
        let primary = self.server(name);
        assert_eq!(primary.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
        self.await_streams(primary);
        assert_eq!(plan(primary), [""; 0], "nothing is left to do");
        let stock = "SELECT count(*) >= 0 FROM stock.items";
        assert_eq!(self.london.query_one_text("app", stock), "t");
        for other in ["paris", "oslo", "rome"].iter().filter(|other| **other != name) {
            let slots = "SELECT slot_name FROM pg_replication_slots";
            assert_eq!(self.server(other).query_texts("app", slots), [""; 0], "{other}");
        }
    }
}

#[test]
fn ten_in_a_row() {
    let cluster = cluster();
    let writer = Writer::start(&[&cluster.paris, &cluster.oslo, &cluster.rome], "inventory.items");
    let count = "SELECT count(*) FROM inventory.items";
    // On which server it is called, and who takes over.
    let calls = [("oslo", "oslo"), ("rome", "paris"), ("oslo", "rome"), ("oslo", "paris")];
    let mut written = 0;
    for (on, to) in calls.iter().cycle().take(10) {
        cluster.hand_over(on, to);
        let primary = cluster.server(to);
        let rows = || primary.query_one_text("app", count).parse::<usize>().expect("a number");
        wait_until("it is written to", LONG, || rows() > written);
        written = rows();
    }
    writer.finish().assert_kept(&cluster.paris, "inventory.items");
}

/// London gets every order once, whoever the primary is; before 17 its slot would be lost.
#[test]
fn a_subscription_goes_on() {
    let cluster = cluster();
    cluster.london.sql(
        "app",
        "CREATE SCHEMA inventory; CREATE TABLE inventory.items (id integer PRIMARY KEY)",
    );
    cluster.paris.sql(
        "app",
        "SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
             tables => '{inventory.items}')",
    );
    apply(&cluster.paris);
    if Server::major() < 17 {
        return assert_stopped_by_force(&cluster);
    }
    let servers = [&cluster.paris, &cluster.oslo, &cluster.rome];
    let writer = Writer::start(&servers, "inventory.items");
    let ready = "SELECT count(*) FROM nodes.failover_ready WHERE ready";
    let mut primary = &cluster.paris;
    for name in ["oslo", "paris", "rome"] {
        wait_until("both could take over", LONG, || primary.query_one_text("app", ready) == "2");
        primary = cluster.server(name);
        let said = primary.psql("app", &format!("CALL nodes.switchover('{name}')"));
        assert!(said.ok && said.output.contains("all links follow"), "{said}");
    }
    let written = writer.finish().numbers.len();
    let all = "SELECT count(*) || ' ' || md5(string_agg(id::text, ' ' ORDER BY id))
        FROM inventory.items";
    let there = primary.query_one_text("app", all);
    wait_until("london has all", LONG, || cluster.london.query_one_text("app", all) == there);
    let kept: usize = there.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(kept >= written, "{kept} of {written} are left");
}

/// Before 17 the slot stays behind: the subscription is told of that, and copies anew when asked.
fn assert_stopped_by_force(cluster: &Cluster) {
    cluster.oslo.refuses(
        "app",
        "CALL nodes.switchover('oslo')",
        &["SO12", "FR20", "force => true"],
    );
    let said = cluster.oslo.psql("app", "CALL nodes.switchover('oslo', force => true)");
    let told = ["SO12", "\"oslo\" is the primary", "of subscription \"feed\" is gone"];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    let missed = plan(&cluster.oslo);
    assert!(missed.iter().any(|line| line.contains("have been missed")), "{missed:#?}");
    cluster.oslo.sql("app", "SELECT nodes.resync('feed')");
    apply(&cluster.oslo);
    cluster.oslo.sql("app", "INSERT INTO inventory.items VALUES (-1)");
    wait_until("london goes on", LONG, || {
        cluster.london.query_texts("app", "SELECT id FROM inventory.items WHERE id = -1") == ["-1"]
    });
    assert_eq!(plan(&cluster.oslo), [""; 0], "nothing is left to do");
    let slots = "SELECT slot_name FROM pg_replication_slots";
    assert_eq!(cluster.paris.query_texts("app", slots), [""; 0], "none is left on paris");
}

/// Nobody loses a slot unawares.
#[test]
fn the_slot_of_somebody_else_stays_behind_only_by_force() {
    let cluster = cluster();
    cluster.paris.sql("app", "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')");
    let told = ["SO12", "\"theirs\"", "force => true accepts that"];
    cluster.oslo.refuses("app", "CALL nodes.switchover('oslo')", &told);
    let said = cluster.oslo.psql("app", "CALL nodes.switchover('oslo', force => true)");
    let told = ["WARNING", "SO12", "all links follow"];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    cluster.paris.sql("app", "SELECT pg_drop_replication_slot('theirs')");
    cluster.assert_leads("oslo");
}

/// What a call leaves that is killed before it has restarted anything.
#[test]
fn an_early_end_leaves_nothing() {
    let cluster = cluster();
    let mark = "SELECT slot_name FROM pg_replication_slots JOIN pg_stat_replication
        ON pid = active_pid WHERE client_port IS NOT NULL ORDER BY slot_name LIMIT 1";
    let mark = cluster.paris.query_one_text("app", mark);
    cluster.oslo.sql("app", &format!("SELECT pg_create_physical_replication_slot('{mark}', true)"));
    cluster.paris.sql("app", &format!("ALTER SYSTEM SET primary_slot_name = '{mark}'"));
    assert_eq!(plan(&cluster.paris).len(), 3, "{:?}", plan(&cluster.paris));
    apply(&cluster.paris);
    cluster.assert_leads("paris");
    let named = "SELECT setting FROM pg_file_settings WHERE name = 'primary_slot_name'";
    assert_eq!(cluster.paris.query_texts("app", named), [""; 0]);
}

/// Oslo cannot replay as long as the client is there: a switchover to it waits, with paris
/// restarted already.
fn hold_replay(cluster: &Cluster) -> postgres::Client {
    let mut reader = cluster.oslo.client("app");
    reader.batch_execute("BEGIN; SELECT FROM inventory.items").expect("it reads");
    cluster.paris.sql("app", "BEGIN; LOCK TABLE inventory.items; COMMIT");
    reader
}

fn patient_cluster() -> Cluster {
    let cluster = cluster();
    for standby in [&cluster.oslo, &cluster.rome] {
        standby.append_conf("max_standby_streaming_delay = -1");
        standby.reload();
    }
    cluster
}

/// As it was, but for a timeline.
fn assert_taken_back(cluster: &Cluster) {
    cluster.await_streams(&cluster.paris);
    cluster.assert_leads("paris");
    let settings = "SELECT name FROM pg_settings WHERE name IN ('primary_conninfo',
        'primary_slot_name') AND setting <> ''";
    assert_eq!(cluster.paris.query_texts("app", settings), [""; 0]);
    cluster.hand_over("rome", "oslo");
}

#[test]
fn what_fails_before_the_promotion_is_taken_back() {
    let cluster = patient_cluster();
    let reader = hold_replay(&cluster);
    let said = cluster.oslo.psql("app", "CALL nodes.switchover('oslo', timeout => '3 s')");
    let told = ["\"paris\" is the primary again", "\"oslo\" to replay up to"];
    assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    drop(reader);
    assert_taken_back(&cluster);
}

/// Runs it on rome, until paris has become a standby.
fn begin(cluster: &Cluster) -> (JoinHandle<Psql>, u32) {
    let running = cluster.rome.psql_in_background("app", "CALL nodes.switchover('oslo')");
    wait_until("paris is a standby", LONG, || {
        assert!(!running.is_finished(), "it ended early");
        let Ok(mut client) = cluster.paris.try_client("app") else { return false };
        let standby = client.query_one("SELECT pg_is_in_recovery()", &[]);
        standby.is_ok_and(|row| row.get(0))
    });
    let caller = "SELECT pid::text FROM pg_stat_activity
        WHERE query LIKE 'CALL nodes.switchover%' AND pid <> pg_backend_pid()";
    (running, cluster.rome.query_one_text("app", caller).parse().expect("a process id"))
}

#[test]
fn a_cancelled_call_is_taken_back() {
    let cluster = patient_cluster();
    let reader = hold_replay(&cluster);
    let (running, pid) = begin(&cluster);
    cluster.rome.sql("app", &format!("SELECT pg_cancel_backend({pid})"));
    let said = running.join().expect("psql ran");
    assert!(!said.ok && said.output.contains("canceling statement"), "{said}");
    drop(reader);
    assert_taken_back(&cluster);
}

/// A call to have oslo take over was killed when paris was a standby: there is no primary.
fn leaderless_cluster() -> Cluster {
    let cluster = patient_cluster();
    let reader = hold_replay(&cluster);
    let (running, pid) = begin(&cluster);
    cluster.rome.kill_backend(pid);
    assert!(!running.join().expect("psql ran").ok);
    drop(reader);
    cluster.rome.await_up("app");
    cluster
}

#[test]
fn a_killed_call_can_be_repeated() {
    let cluster = leaderless_cluster();
    let said = cluster.rome.psql("app", "CALL nodes.switchover('oslo')");
    assert!(said.ok && said.output.contains("\"oslo\" is the primary"), "{said}");
    cluster.assert_leads("oslo");
}

/// Where nobody repeats the call, any of them can be the primary.
#[test]
fn a_group_without_a_primary_gets_one() {
    for name in ["paris", "oslo"] {
        let cluster = leaderless_cluster();
        let said = cluster.rome.psql("app", &format!("CALL nodes.promote('{name}')"));
        assert!(said.ok && said.output.contains(&format!("\"{name}\" is a primary")), "{said}");
        apply(cluster.server(name));
        cluster.assert_leads(name);
    }
}

/// How the session that calls ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// `kill -9`, after which its server starts anew.
    Kill,
    Terminate,
}

/// Ends the session that calls as soon as it says this.
fn interrupt(on: &Server, call: &str, announced: &'static str, end: End) {
    let (heard, hears) = mpsc::channel();
    let mut config = on.client_config("app");
    config.notice_callback(move |notice| {
        if notice.message().contains(announced) {
            // Whoever listens may have heard it before.
            let _ = heard.send(());
        }
    });
    let mut client = config.connect(NoTls).expect("it lets us in");
    let row = client.query_one("SELECT pg_backend_pid()", &[]).expect("it has a process");
    let pid: i32 = row.get(0);
    let pid = u32::try_from(pid).expect("a process id");
    let call = call.to_owned();
    let calling = std::thread::spawn(move || client.batch_execute(&call));
    hears.recv_timeout(LONG).expect("it is announced");
    match end {
        End::Kill => on.kill_backend(pid),
        End::Terminate => on.sql("app", &format!("SELECT pg_terminate_backend({pid})")),
    }
    assert!(calling.join().expect("it ran").is_err(), "it went on to its end");
    on.await_up("app");
}

/// Each step is told of; the same call goes on from there, and after the promotion `nodes.apply()`
/// does.
#[test]
fn whatever_step_is_the_last_the_next_call_goes_on() {
    let cluster = cluster();
    let servers = [&cluster.paris, &cluster.oslo, &cluster.rome];
    let writer = Writer::start(&servers, "inventory.items");
    let steps = ["checkpoint (", "is a standby, at", "is the primary: no writes for"];
    let ends = [End::Kill, End::Terminate];
    let all = steps.iter().flat_map(|step| ends.iter().map(move |end| (*step, *end)));
    let mut to = "paris";
    for (step, end) in all {
        eprintln!("{step}, {end:?}");
        to = if to == "paris" { "oslo" } else { "paris" };
        let call = format!("CALL nodes.switchover('{to}')");
        // Postgres may not get over a kill -9 of a standby that just then changes its timeline
        // ("according to history file, WAL location … belongs to timeline …").
        let late = matches!(end, End::Kill) && !step.contains("checkpoint");
        let on = if late { cluster.server(to) } else { &cluster.rome };
        interrupt(on, &call, step, end);
        let promoted = step.contains("is the primary");
        if promoted && matches!(end, End::Terminate) {
            apply(cluster.server(to));
        } else if !repeat(on, &call, to) {
            assert!(promoted, "the registry knows too early");
            apply(cluster.server(to));
        }
        cluster.assert_leads(to);
    }
    writer.finish().assert_kept(cluster.server(to), "inventory.items");
}

/// Makes the call again, once the old primary is up and has ended the first one's session; false:
/// the registry knows all already.
fn repeat(on: &Server, call: &str, to: &str) -> bool {
    let done = format!("\"{to}\" is not a standby");
    let mut goes_on = false;
    wait_until("the call goes on", LONG, || {
        let said = on.psql("app", call);
        goes_on = said.ok;
        let later = ["does not answer", "another call has"];
        let known = said.output.contains(&done);
        assert!(said.ok || known || later.iter().any(|why| said.output.contains(why)), "{said}");
        said.ok || known
    });
    goes_on
}

/// The rest, after the promotion, is a plan: the new primary crashes after every other of its steps.
#[test]
fn apply_does_the_rest() {
    let cluster = cluster();
    let mut names = ["paris", "oslo"];
    for n in (1..).step_by(2) {
        let [from, to] = names.map(|name| cluster.server(name));
        let call = format!("CALL nodes.switchover('{}')", names[1]);
        let Some(stopped) = stop_at_successor(from, to, &cluster.rome, n, &call) else {
            assert!(n > 3, "it hardly stopped");
            break;
        };
        to.kill_backend(stopped.pid);
        stopped.end();
        to.await_up("app");
        open_gate(to);
        apply(to);
        cluster.assert_leads(names[1]);
        names.reverse();
    }
}

#[test]
fn a_person_says_how_a_server_is_restarted() {
    let cluster = cluster();
    let data = cluster.paris.data_dir();
    let said = data.with_file_name("said");
    let programs =
        cluster.paris.query_one_text("app", "SELECT setting FROM pg_config WHERE name = 'BINDIR'");
    cluster.paris.append_conf(&format!(
        "pg_nodes.restart_command = 'echo restarted > {}; exec {programs}/pg_ctl restart --silent \
         --mode=fast --pgdata={}'",
        said.display(),
        data.display()
    ));
    cluster.paris.reload();
    let shown = "SHOW pg_nodes.restart_command";
    wait_until("it is read", LONG, || {
        cluster.paris.query_one_text("app", shown).contains("restarted")
    });
    cluster.hand_over("oslo", "oslo");
    assert_eq!(std::fs::read_to_string(said).expect("the command ran"), "restarted\n");
}

/// The command does nothing: the primary stays one, at its next start too.
#[test]
fn a_restart_that_does_not_come_about_is_undone() {
    let mut cluster = cluster();
    cluster.paris.append_conf("pg_nodes.restart_command = 'true'");
    cluster.paris.reload();
    let shown = "SHOW pg_nodes.restart_command";
    wait_until("it is read", LONG, || cluster.paris.query_one_text("app", shown) == "true");
    let said = cluster.oslo.psql("app", "CALL nodes.switchover('oslo', timeout => '1 s')");
    let told = ["timed out waiting for \"paris\" to return as a standby", "not a standby yet"];
    assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    cluster.paris.restart();
    assert_eq!(cluster.paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
    apply(&cluster.paris);
    cluster.assert_leads("paris");
}

/// As a crash leaves one in the moment of a promotion: the server goes on without that timeline.
#[test]
fn a_timeline_that_never_began_stops_no_switchover() {
    let cluster = cluster();
    let history = cluster.paris.data_dir().join("pg_wal/00000002.history");
    std::fs::write(&history, "1\t0/1000000\tno recovery target specified\n").expect("a file");
    pg_test::user::give(&history);
    cluster.hand_over("oslo", "oslo");
    let now = std::fs::read_to_string(&history).expect("that of the new primary");
    assert!(!now.contains("0/1000000"), "{now}");
    cluster.hand_over("rome", "paris");
}

/// For a moment the primary that restarts looks dead, and somebody else, or a script, promotes.
#[test]
fn nobody_else_is_promoted_while_the_primary_restarts() {
    let mut cluster = cluster();
    let programs =
        cluster.paris.query_one_text("app", "SELECT setting FROM pg_config WHERE name = 'BINDIR'");
    let data = cluster.paris.data_dir();
    cluster.paris.append_conf(&format!(
        "pg_nodes.restart_command = 'exec {programs}/pg_ctl stop --mode=fast --pgdata={}'",
        data.display()
    ));
    cluster.paris.reload();
    let shown = "SHOW pg_nodes.restart_command";
    wait_until("it is read", LONG, || cluster.paris.query_one_text("app", shown).contains("stop"));
    let call = "CALL nodes.switchover('oslo', timeout => '60 s')";
    let running = cluster.oslo.psql_in_background("app", call);
    wait_until("paris is down", LONG, || cluster.paris.try_client("app").is_err());
    let claimed = "another call is changing what \"oslo\" is";
    cluster.rome.refuses("app", "CALL nodes.promote('rome')", &["PR09", claimed, "process "]);
    cluster.rome.refuses("app", "CALL nodes.promote('oslo')", &[claimed, "made by process "]);
    cluster.rome.refuses("app", "CALL nodes.switchover('oslo')", &[claimed, "Wait for its end"]);
    cluster.paris.start_after_its_end();
    let said = running.join().expect("psql ran");
    assert!(said.ok && said.output.contains("\"oslo\" is the primary"), "{said}");
    cluster.assert_leads("oslo");
}

/// Somebody has everything made right all the time, wherever the registry can be written.
struct Applying {
    end: mpsc::Sender<()>,
    running: JoinHandle<u32>,
}

impl Applying {
    fn start(servers: &[&Server]) -> Applying {
        let (end, ended) = mpsc::channel();
        let configs: Vec<_> = servers.iter().map(|server| server.client_config("app")).collect();
        // What fails for a primary that restarts is no failure of theirs.
        let apply = move || {
            let mut runs = 0;
            for config in configs.iter().cycle() {
                if ended.try_recv().is_ok() {
                    break;
                }
                if let Ok(mut client) = config.connect(NoTls) {
                    runs += u32::from(client.batch_execute("CALL nodes.apply()").is_ok());
                }
            }
            runs
        };
        Applying { end, running: std::thread::spawn(apply) }
    }

    fn finish(self) {
        self.end.send(()).expect("it runs");
        assert!(self.running.join().expect("it ran") > 3, "it was hardly there");
    }
}

const READY: &str = "SELECT bool_and(ready)::text FROM nodes.failover_ready";

/// On which server it is called, and who takes over.
fn hand_over_meanwhile(apply_on: &[&Server], calls: [(&Server, &str); 3]) {
    let applying = Applying::start(apply_on);
    for (on, to) in calls {
        wait_until("it could hand over", LONG, || on.query_one_text("app", READY) == "true");
        let said = on.psql("app", &format!("CALL nodes.switchover('{to}')"));
        assert!(said.ok && said.output.contains(&format!("\"{to}\" is the primary")), "{said}");
    }
    applying.finish();
}

#[test]
fn who_applies_meanwhile_elsewhere_does_no_harm() {
    let quartet = Quartet::start(&[], "CREATE TABLE orders (id integer PRIMARY KEY)");
    quartet.london.sql("app", "CREATE EXTENSION pg_nodes");
    quartet.register(&quartet.london);
    apply(&quartet.london);
    let servers = [&quartet.paris, &quartet.oslo, &quartet.rome];
    let writer = Writer::start(&servers, "orders");
    let calls = ["oslo", "paris", "rome"].map(|to| (&quartet.london, to));
    hand_over_meanwhile(&[&quartet.london], calls);
    apply(&quartet.london);
    assert_eq!(plan(&quartet.london), [""; 0]);
    writer.finish().assert_kept(&quartet.rome, "orders");
}

#[test]
fn who_applies_meanwhile_on_the_primary_does_no_harm() {
    let cluster = cluster();
    let servers = [&cluster.paris, &cluster.oslo, &cluster.rome];
    let writer = Writer::start(&servers, "inventory.items");
    let calls = [(servers[1], "oslo"), (servers[2], "paris"), (servers[1], "rome")];
    hand_over_meanwhile(&servers, calls);
    apply(&cluster.rome);
    cluster.assert_leads("rome");
    writer.finish().assert_kept(&cluster.rome, "inventory.items");
}

/// Whoever is called when a node is down is not called for one that restarts as it should.
#[test]
fn a_planned_restart_is_no_alarm() {
    let watching = [
        ("shared_preload_libraries", "pg_nodes"),
        ("pg_nodes.heartbeat_interval", "100ms"),
        ("max_worker_processes", "16"),
    ];
    let quartet = Quartet::start(&watching, "CREATE TABLE orders (id integer PRIMARY KEY)");
    quartet.london.sql("app", "CREATE EXTENSION pg_nodes");
    quartet.register(&quartet.london);
    apply(&quartet.london);
    for to in ["oslo", "paris"] {
        for name in ["paris", "oslo", "rome"] {
            quartet.london.await_health(name, "up");
        }
        wait_until("it could hand over", LONG, || {
            quartet.london.query_one_text("app", READY) == "true"
        });
        let said = quartet.london.psql("app", &format!("CALL nodes.switchover('{to}')"));
        assert!(said.ok && said.output.contains(&format!("\"{to}\" is the primary")), "{said}");
    }
    for name in ["paris", "oslo", "rome"] {
        quartet.london.await_health(name, "up");
    }
    let alarms = "SELECT message FROM nodes.event WHERE severity <> 'info'";
    assert_eq!(quartet.london.query_texts("app", alarms), [""; 0]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut cluster = cluster();
    let call = "CALL nodes.switchover('oslo')";
    cluster.paris.refuses("app", call, &["cannot run on \"paris\"", "Call it on the new primary"]);
    cluster.oslo.refuses("app", "CALL nodes.switchover('london')", &["is not a standby"]);
    cluster.oslo.refuses("app", &format!("BEGIN; {call}"), &["inside a transaction block"]);
    // A transaction that is open for long would be cut off.
    let mut client = cluster.paris.client("app");
    let mut open = client.transaction().expect("a transaction");
    open.execute("INSERT INTO inventory.items VALUES (-1)", &[]).expect("it writes");
    let old = "SELECT count(*) FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND clock_timestamp() - xact_start > '10.5 s'";
    wait_until("it is old", LONG, || cluster.paris.query_one_text("app", old) == "1");
    cluster.oslo.refuses("app", call, &["SO08", "transaction open for 1", "what to do first"]);
    drop(open);
    cluster.rome.stop();
    cluster.oslo.refuses("app", call, &["standby \"rome\" does not answer", "SO03"]);
    cluster.rome.start_again();
    cluster.await_streams(&cluster.paris);
    let standby = cluster.paris.data_dir().join("standby.signal");
    assert!(!standby.exists());
    cluster.paris.sql("app", "INSERT INTO inventory.items VALUES (1)");
    assert_eq!(plan(&cluster.paris), [""; 0]);
}
