//! A network that lies, between a server that watches and its peers: whatever it does to one
//! node, that node's health is right, everybody else's goes on, and the worker stays as it is.

mod lookups;

use pg_test::lies::Lies;
use pg_test::names::Draws;
use pg_test::tls::Authority;
use pg_test::trio::add_node;
use pg_test::watcher::watching;
use pg_test::{Builder, Fault, LONG, Phase, Proxy, Server, wait_until};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the network can do wrong, and what that means for a node.
const FAULTS: [(Fault, Outcome); 9] = [
    (Fault::Delay(Duration::from_millis(50)), Outcome::Bearable),
    (Fault::Throttle(20_000), Outcome::Bearable),
    (Fault::CutAfter(100), Outcome::Outage),
    (Fault::Reset, Outcome::Outage),
    (Fault::HalfOpen, Outcome::Outage),
    (Fault::BlackHole, Outcome::Outage),
    (Fault::Refuse, Outcome::Outage),
    (Fault::Garbage(7), Outcome::Outage),
    (Fault::Drip(Duration::from_millis(1)), Outcome::Slow),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A heartbeat comes back, late at most.
    Bearable,
    /// It takes about as long as the node may be silent.
    Slow,
    /// None comes back.
    Outage,
}

impl Outcome {
    fn states(self) -> &'static [&'static str] {
        match self {
            Outcome::Bearable => &["up", "suspect"],
            Outcome::Slow => &["suspect", "down"],
            Outcome::Outage => &["down"],
        }
    }
}

struct World {
    paris: Server,
    london: Server,
    /// The worker that must see it all.
    worker: u32,
}

impl World {
    fn new() -> World {
        World::with(watching("paris"), Server::builder("london"))
    }

    /// Paris watches itself less often, so that a busy machine is no lost heartbeat.
    fn with(paris: Builder, london: Builder) -> World {
        let (paris, london) = (paris.start(), london.start());
        for server in [&paris, &london] {
            server.create_db("app");
        }
        paris.sql("app", "CREATE EXTENSION pg_nodes");
        let options = r#"options => '{"heartbeat_interval": "500ms", "node_timeout": "10s"}'"#;
        let add = format!("SELECT nodes.add_node('paris', '{}', {options})", paris.conninfo("app"));
        paris.sql("app", &add);
        let worker = paris.await_worker("app");
        World { paris, london, worker }
    }

    /// Registers london under a name, where it is reached through a proxy.
    fn add(&self, name: &str, proxy: &Proxy) {
        self.add_at(name, &format!("host=127.0.0.1 port={}", proxy.port()));
    }

    fn add_at(&self, name: &str, place: &str) {
        let conninfo = format!("{place} user=postgres dbname=app");
        self.paris.sql("app", &format!("SELECT nodes.add_node('{name}', '{conninfo}')"));
    }

    fn proxied(&self, name: &str) -> Proxy {
        let proxy = Proxy::to(self.london.port());
        self.add(name, &proxy);
        proxy
    }

    /// Waits until all nodes whose names are like this have a state.
    #[track_caller]
    fn await_all(&self, pattern: &str, state: &str) {
        let query = format!(
            "SELECT format('%s %s: %s', node, health, error) FROM nodes.status
             WHERE node LIKE '{pattern}' AND health <> '{state}'"
        );
        let mut left = Vec::new();
        let start = Instant::now();
        while start.elapsed() < LONG {
            left = self.paris.query_texts("app", &query);
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not {state} in time: {left:#?}");
    }

    fn health(&self, node: &str) -> String {
        let query = format!("SELECT health FROM nodes.status WHERE node = '{node}'");
        self.paris.query_one_text("app", &query)
    }

    /// Waits until every living node was heard from again.
    #[track_caller]
    fn await_heartbeats(&self, pattern: &str) {
        let since = self.paris.query_one_text("app", "SELECT now()::text");
        let query = format!(
            "SELECT coalesce(bool_and(last_seen > '{since}'), false)::text FROM nodes.status
             WHERE node LIKE '{pattern}'"
        );
        wait_until(&format!("heartbeats of {pattern} go on"), LONG, || {
            self.paris.query_one_text("app", &query) == "true"
        });
    }

    /// Paris had nothing to do with any of it, and the worker is still the same.
    #[track_caller]
    fn assert_undisturbed(&self) {
        self.await_heartbeats("paris");
        assert_eq!(self.health("paris"), "up");
        assert_eq!(self.paris.events("paris"), ["up"]);
        assert_eq!(self.paris.worker("app"), Some(self.worker), "another worker");
    }
}

/// Each fault has a node and a proxy of its own, all at the same time.
#[track_caller]
fn tell(world: &World, options: &str, phase: Phase) {
    add_node(&world.paris, "london", &world.london);
    let proxies: Vec<Proxy> = (0..FAULTS.len())
        .map(|place| {
            let proxy = Proxy::to(world.london.port());
            let at = format!("host=127.0.0.1 port={} {options}", proxy.port());
            world.add_at(&format!("fault {place}"), &at);
            proxy
        })
        .collect();
    world.await_all("%", "up");
    for (proxy, (fault, _)) in proxies.iter().zip(FAULTS) {
        proxy.set_at(phase, fault);
        if phase == Phase::Tls {
            // Sessions that are encrypted already may go on; the next one meets it.
            proxy.cut();
        }
    }
    for (place, (fault, outcome)) in FAULTS.into_iter().enumerate() {
        let node = format!("fault {place}");
        wait_until(&format!("{fault:?} at {phase:?} shows"), LONG, || {
            outcome.states().contains(&world.health(&node).as_str())
        });
        assert_eq!(world.health("paris"), "up", "{fault:?} at {phase:?}");
    }
    // While all of them last.
    world.await_heartbeats("paris");
    world.await_heartbeats("london");
    for proxy in &proxies {
        proxy.set(Fault::None);
    }
    world.await_all("%", "up");
    world.await_heartbeats("%");
    for (place, (fault, outcome)) in FAULTS.into_iter().enumerate() {
        if outcome == Outcome::Bearable && phase != Phase::Tls {
            let events = world.paris.events(&format!("fault {place}"));
            assert_eq!(events, ["up"], "{fault:?} at {phase:?}");
        }
    }
    assert_eq!(world.paris.events("london"), ["up"]);
    world.assert_undisturbed();
}

#[test]
fn faults_from_the_start() {
    tell(&World::new(), "", Phase::Connect);
}

#[test]
fn faults_while_the_server_lets_us_in() {
    tell(&World::new(), "", Phase::Authentication);
}

#[test]
fn faults_before_the_first_query() {
    tell(&World::new(), "", Phase::FirstQuery);
}

#[test]
fn faults_in_the_steady_state() {
    tell(&World::new(), "", Phase::SteadyState);
}

#[test]
fn faults_in_the_middle_of_a_result() {
    tell(&World::new(), "", Phase::MidResult);
}

#[test]
fn faults_while_tls_is_agreed_on() {
    if !Server::supports_tls() {
        println!("skipped: this PostgreSQL was built without TLS");
        return;
    }
    let london = Server::builder("london").tls(&Authority::new(), "london.test");
    let world = World::with(watching("paris"), london);
    tell(&world, "sslmode=require", Phase::Tls);
}

#[test]
fn a_certificate_expires() {
    if !Server::supports_tls() {
        println!("skipped: this PostgreSQL was built without TLS");
        return;
    }
    let authority = Authority::new();
    let london = Server::builder("london").tls(&authority, "london.test");
    let mut world = World::with(watching("paris"), london);
    let root = world.paris.write_file("root.crt", &authority.pem());
    let place = format!(
        "host=london.test hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={}",
        world.london.port(),
        root.display()
    );
    world.add_at("london", &place);
    world.await_all("london", "up");
    world.london.set_identity(&authority.expired_server("london.test"));
    world.london.restart();
    world.await_all("london", "refused");
    let why = "SELECT format('%s; %s', error, hint) FROM nodes.status WHERE node = 'london'";
    let why = world.paris.query_one_text("app", why);
    assert!(why.contains("certificate verify failed"), "{why}");
    assert!(why.contains("still valid"), "{why}");
    world.london.set_identity(&authority.server("london.test"));
    world.london.restart();
    world.await_all("london", "up");
    world.assert_undisturbed();
}

/// Hours, forward and back: what is measured by the clock of a wall is shown, and nothing is
/// decided by it.
#[test]
fn a_clock_jumps() {
    let lies = Lies::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "clock");
    let mut world = World::with(watching("paris").lies(&lies), Server::builder("london"));
    add_node(&world.paris, "london", &world.london);
    world.await_all("%", "up");
    let fresh = "SELECT bool_and(abs(extract(epoch FROM clock_timestamp() - last_seen)) < 60)::text
        FROM nodes.status";
    for hours in [2, -48, 24 * 20, 0] {
        lies.set_clock_wrong_by(hours * 3600);
        wait_until("heartbeats go on", LONG, || world.paris.query_one_text("app", fresh) == "true");
        world.await_all("%", "up");
    }
    assert_eq!(world.paris.events("london"), ["up"]);
    lies.set_clock_wrong_by(-3600);
    world.london.crash();
    world.await_all("london", "down");
    lies.set_clock_wrong_by(3600);
    world.london.start_again();
    world.await_all("london", "up");
    assert_eq!(world.paris.events("london"), ["up", "down", "up"]);
    world.assert_undisturbed();
}

#[test]
fn half_of_two_hundred_peers_are_black_holes() {
    let paris = watching("paris")
        .conf("pg_nodes.max_nodes", "300")
        .conf("pg_nodes.heartbeat_interval", "1s")
        .conf("pg_nodes.node_timeout", "3s");
    let world = World::with(paris, Server::builder("london").conf("max_connections", "300"));
    let hole = Proxy::to(world.london.port());
    hole.set(Fault::BlackHole);
    for n in 0..100 {
        world.add(&format!("hole {n}"), &hole);
        add_node(&world.paris, &format!("living {n}"), &world.london);
    }
    world.await_all("living %", "up");
    world.await_all("hole %", "down");
    world.await_heartbeats("living %");
    world.await_all("living %", "up");
    hole.set(Fault::None);
    world.await_all("%", "up");
    world.assert_undisturbed();
}

#[test]
fn out_of_descriptors() {
    // The fewest that Postgres takes, of which a process may reserve a third.
    let paris = watching("paris").conf("max_files_per_process", "64");
    let world = World::with(paris, Server::builder("london"));
    let peers = 40;
    for n in 0..peers {
        add_node(&world.paris, &format!("london {n}"), &world.london);
    }
    let short = "SELECT health FROM nodes.status
        WHERE error LIKE '%too many open files%' AND hint LIKE '%max_files_per_process%'";
    wait_until("descriptors are short", LONG, || {
        let states = world.paris.query_texts("app", short);
        !states.is_empty() && states.iter().all(|state| state == "down")
    });
    let up = "SELECT count(*)::text FROM nodes.status WHERE health = 'up'";
    assert_ne!(world.paris.query_one_text("app", up), "0");
    world.assert_undisturbed();
    let remove = format!(
        "SELECT nodes.remove_node('london ' || n) FROM generate_series(5, {}) n",
        peers - 1
    );
    world.paris.sql("app", &remove);
    wait_until("most nodes are gone", LONG, || {
        let rest = "SELECT count(*)::text FROM nodes.status";
        world.paris.query_one_text("app", rest) == "6"
    });
    world.await_all("%", "up");
    world.assert_undisturbed();
}

#[test]
fn out_of_places_in_shared_memory() {
    let paris = watching("paris").conf("pg_nodes.max_nodes", "2");
    let world = World::with(paris, Server::builder("london"));
    for n in 0..3 {
        add_node(&world.paris, &format!("london {n}"), &world.london);
    }
    let hints = "SELECT detail ->> 'hint' FROM nodes.event WHERE kind = 'shared memory full'";
    wait_until("that is an event", LONG, || {
        let hints = world.paris.query_texts("app", hints);
        hints.iter().any(|hint| hint.contains("pg_nodes.max_nodes"))
    });
    let up = "SELECT count(*)::text FROM nodes.event WHERE kind = 'up'";
    wait_until("all are watched", LONG, || world.paris.query_one_text("app", up) == "4");
    world.assert_undisturbed();
    // Whoever had no place gets one that is free again.
    world.paris.sql("app", "SELECT nodes.remove_node('london ' || n) FROM generate_series(0, 1) n");
    world.await_all("%", "up");
    world.assert_undisturbed();
}

/// What a process has of its own.
#[derive(Debug)]
struct Belongings {
    descriptors: usize,
    memory_kb: u64,
}

impl Belongings {
    fn of(pid: u32) -> Belongings {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let memory_kb = number.and_then(|number| number.parse().ok()).expect("RssAnon");
        Belongings { descriptors, memory_kb }
    }
}

/// Another fault in another phase on one of the proxies, again and again.
fn lie_at_random(proxies: &[Proxy], draws: &mut Draws, time: Duration) {
    const PHASES: [Phase; 5] = [
        Phase::Connect,
        Phase::Authentication,
        Phase::FirstQuery,
        Phase::SteadyState,
        Phase::MidResult,
    ];
    let end = Instant::now() + time;
    while Instant::now() < end {
        let proxy = &proxies[draws.below(proxies.len())];
        match draws.below(FAULTS.len() + 2) {
            0 => proxy.set(Fault::None),
            1 => proxy.cut(),
            n => proxy.set_at(PHASES[draws.below(PHASES.len())], FAULTS[n - 2].0),
        }
        let pause = 200 + draws.below(600);
        std::thread::sleep(Duration::from_millis(pause.try_into().expect("below 800")));
    }
}

#[test]
fn random_faults_leave_nothing_behind() {
    const SEED: u64 = 20_250_117;
    let seconds = std::env::var("PG_NODES_CHAOS_SECONDS").ok();
    let seconds = seconds.map_or(15, |text| text.parse().expect("PG_NODES_CHAOS_SECONDS"));
    println!("seed {SEED}, {seconds} s");
    let world = World::new();
    let proxies = [0, 1, 2].map(|n| world.proxied(&format!("london {n}")));
    world.await_all("%", "up");
    world.await_heartbeats("%");
    let before = Belongings::of(world.worker);

    lie_at_random(&proxies, &mut Draws::new(SEED), Duration::from_secs(seconds));
    for proxy in &proxies {
        proxy.set(Fault::None);
    }
    world.await_all("%", "up");
    world.await_heartbeats("%");
    world.assert_undisturbed();
    wait_until("the descriptors are closed", LONG, || {
        Belongings::of(world.worker).descriptors <= before.descriptors + 1
    });
    let after = Belongings::of(world.worker);
    println!("{before:?}, then {after:?}");
    assert!(after.memory_kb <= before.memory_kb + 20 * 1024, "{before:?}, then {after:?}");
}
