//! What `nodes.explain()` says, whole: read it as somebody who was just woken.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::explain::*;
use nodes_plan::headroom::Room;
use nodes_plan::link_health::*;
use nodes_plan::lsn::Lsn;
use nodes_plan::node_health::*;
use nodes_plan::pulse::*;
use std::collections::BTreeMap;
use std::time::Duration;

const LONDON: NodeId = 1;
const PARIS: NodeId = 2;
const OSLO: NodeId = 3;
const SLOT: &str = "nodes_3f2504e0_1";
const MEGABYTE: u64 = 1 << 20;
const MINUTES: Duration = Duration::from_secs(180);

/// "london" publishes "feed" and "more" to "paris"; "oslo" is a standby of "london".
struct World {
    registry: Registry,
    nodes: BTreeMap<NodeId, Seen>,
    rooms: Vec<Room>,
    growth: BTreeMap<String, f64>,
}

struct Seen {
    watch: NodeWatch,
    pulse: Pulse,
}

const LIMITS: NodeLimits =
    NodeLimits { heartbeat_interval: Duration::from_secs(1), node_timeout: Duration::from_secs(5) };

impl Seen {
    fn up(pulse: Pulse) -> Seen {
        let mut watch = NodeWatch::new(Duration::ZERO, None);
        watch.answered(Duration::ZERO, &pulse.system_identifier);
        watch.judge(Duration::ZERO, &LIMITS);
        Seen { watch, pulse }
    }
}

impl World {
    fn new() -> World {
        let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
        let mut registry = Registry { id, ..Registry::default() };
        for (id, name) in [(LONDON, "london"), (PARIS, "paris"), (OSLO, "oslo")] {
            let conninfo = Conninfo::default();
            let (removing, gone, digest) = (false, false, String::new());
            let node = Node { id, name: name.into(), conninfo, digest, removing, gone };
            registry.nodes.insert(id, node);
        }
        let spec = || {
            let options = BTreeMap::new();
            Spec::Subscription(SubscriptionSpec {
                tables: None,
                copy_data: false,
                replace: false,
                options,
            })
        };
        let standby = Spec::Standby(StandbySpec::managed(true));
        let links =
            [(1, "feed", PARIS, spec()), (2, "more", PARIS, spec()), (3, "oslo", OSLO, standby)];
        for (id, name, to, spec) in links {
            let (name, state) = (name.to_owned(), LinkState::Active);
            registry.links.push(Link { id, name, from: LONDON, to, state, spec, keep_data: true });
        }
        let nodes = [(LONDON, london()), (PARIS, paris()), (OSLO, oslo())];
        let nodes = nodes.into_iter().map(|(id, pulse)| (id, Seen::up(pulse))).collect();
        World { registry, nodes, rooms: vec![], growth: BTreeMap::new() }
    }

    fn pulse(&mut self, node: NodeId) -> &mut Pulse {
        &mut self.nodes.get_mut(&node).expect("the node").pulse
    }

    fn fails(mut self, node: NodeId, kind: FailureKind, sqlstate: &str, message: &str) -> World {
        let watch = &mut self.nodes.get_mut(&node).expect("the node").watch;
        let sqlstate = Some(sqlstate.to_owned()).filter(|text| !text.is_empty());
        watch.failed(Duration::ZERO, Failure { sqlstate, ..Failure::new(kind, message) });
        watch.judge(Duration::ZERO, &LIMITS);
        self
    }

    /// Three minutes later.
    fn explain(&self, explain: impl Fn(&Known<'_>) -> Vec<Line>) -> Vec<String> {
        let said: BTreeMap<NodeId, (Option<String>, Option<String>)> = self
            .nodes
            .iter()
            .map(|(id, seen)| (*id, (seen.watch.reason(MINUTES), seen.watch.hint())))
            .collect();
        let healths: BTreeMap<LinkId, LinkHealth> =
            self.registry.links.iter().map(|link| (link.id, self.health(link, &said))).collect();
        let nodes = self.nodes.iter().map(|(id, seen)| {
            let known = KnownNode {
                state: seen.watch.state(),
                rule: seen.watch.rule(),
                lasted: Some(MINUTES - seen.watch.since()),
                last_answer: seen.watch.last_answer().map(|at| MINUTES - at),
                reason: said[id].0.as_deref(),
                hint: said[id].1.as_deref(),
                pulse: Some(&seen.pulse),
                rooms: if *id == PARIS { &self.rooms } else { &[] },
                growth: &self.growth,
            };
            (*id, known)
        });
        let links =
            healths.iter().map(|(id, health)| (*id, KnownLink { health, lasted: Some(MINUTES) }));
        let known =
            Known { registry: &self.registry, nodes: nodes.collect(), links: links.collect() };
        let lines = explain(&known).into_iter();
        lines.map(|line| format!("{}: {}", line.part.label(), line.fact)).collect()
    }

    fn health(
        &self,
        link: &Link,
        said: &BTreeMap<NodeId, (Option<String>, Option<String>)>,
    ) -> LinkHealth {
        let side = |node| {
            let seen = &self.nodes[&node];
            let (state, pulse) = (seen.watch.state(), Some(&seen.pulse));
            Side { state, pulse, why: said[&node].0.as_deref() }
        };
        link_health(&LinkEvidence {
            registry: &self.registry,
            link,
            from: side(link.from),
            to: side(link.to),
            plan: &LinkPlan::default(),
            limits: &LinkLimits::default(),
            probe: None,
            unread: None,
        })
    }

    #[track_caller]
    fn of_node(&self, node: NodeId, lines: &[&str]) {
        assert_eq!(self.explain(|known| explain_node(known, node)), lines);
    }

    #[track_caller]
    fn of_link(&self, link: LinkId, lines: &[&str]) {
        assert_eq!(self.explain(|known| explain_link(known, link)), lines);
    }
}

fn london() -> Pulse {
    let slot = |link: u32, kind: &str| SlotPulse {
        name: format!("nodes_3f2504e0_{link}"),
        kind: kind.into(),
        active: true,
        active_pid: Some(70 + link as i32),
        restart_lsn: Some(Lsn(8 * MEGABYTE)),
        confirmed_flush_lsn: Some(Lsn(10 * MEGABYTE)),
        safe_wal_size: Some(600 * MEGABYTE as i64),
        ..SlotPulse::default()
    };
    Pulse {
        system_identifier: "71".into(),
        lsn: Some(Lsn(10 * MEGABYTE)),
        slots: vec![slot(1, "logical"), slot(2, "logical"), slot(3, "physical")],
        ..Pulse::default()
    }
}

fn paris() -> Pulse {
    let subscription = |name: &str| SubscriptionPulse {
        name: name.into(),
        enabled: true,
        running: true,
        ..SubscriptionPulse::default()
    };
    let subscriptions = vec![subscription("feed"), subscription("more")];
    Pulse { system_identifier: "72".into(), subscriptions, ..Pulse::default() }
}

fn oslo() -> Pulse {
    Pulse {
        system_identifier: "71".into(),
        in_recovery: true,
        lsn: Some(Lsn(9 * MEGABYTE)),
        received: Some(Lsn(10 * MEGABYTE - 512)),
        receiver: Some(Receiver::default()),
        ..Pulse::default()
    }
}

#[test]
fn what_is_well_needs_nothing() {
    let world = World::new();
    world.of_node(
        PARIS,
        &[
            "state: node \"paris\" has been up for 3 min (rule NH09)",
            "next: Nothing needs to be done.",
        ],
    );
    world.of_link(
        1,
        &[
            "state: link \"feed\" (subscription, from \"london\" to \"paris\") has been streaming for 3 min (rule LH22)",
            "also: it is 0 bytes, 0 ms behind",
            "next: Nothing needs to be done.",
        ],
    );
    world.of_node(99, &[]);
    world.of_link(99, &[]);
}

#[test]
fn a_dead_subscriber_costs_its_publisher() {
    let mut world = World::new().fails(PARIS, FailureKind::NobodyListens, "", "Connection refused");
    world.growth.insert(SLOT.into(), MEGABYTE as f64);
    world.of_node(
        PARIS,
        &[
            "state: node \"paris\" has been down for 3 min (rule NH01)",
            "because: Connection refused",
            "also: it answered 3 min ago for the last time",
            "also: links that wait for it: \"feed\", \"more\"",
            "also: \"london\" keeps 2048 kB of WAL for it, for 10 min more",
            "also: \"london\" keeps 2048 kB of WAL for it",
            "next: Start that server, or correct its host and port with nodes.alter_node('paris', …).",
        ],
    );
}

#[test]
fn a_link_tells_of_the_node_that_it_waits_for() {
    let message = "password authentication failed for user \"app\"";
    World::new().fails(LONDON, FailureKind::Rejected, "28P01", message).of_link(
        1,
        &[
            "state: link \"feed\" (subscription, from \"london\" to \"paris\") has been waiting for 3 min (rule LH04)",
            "because: node \"london\" has been refused for 3 min (rule NH04): password authentication failed for user \"app\"",
            "next: Set the right password with nodes.set_password('london', …), then CALL nodes.apply().",
        ],
    );
}

#[test]
fn a_dead_primary_has_a_standby() {
    let world = World::new().fails(LONDON, FailureKind::NobodyListens, "", "Connection refused");
    let world = world.fails(PARIS, FailureKind::NobodyListens, "", "Connection refused");
    world.of_node(
        LONDON,
        &[
            "state: node \"london\" has been down for 3 min (rule NH01)",
            "because: Connection refused",
            "also: it answered 3 min ago for the last time",
            "also: 2 of 3 nodes are down: what they share may be at fault, or this server's network",
            "also: its standby \"oslo\" answers, 512 bytes short of what it last wrote",
            "also: links that wait for it: \"feed\", \"more\", \"oslo\"",
            "next: Start that server, or correct its host and port with nodes.alter_node('london', …).",
        ],
    );
}

#[test]
fn a_slot_without_a_reader_tells_all_that_bears_on_it() {
    let mut world = World::new();
    let slot = &mut world.pulse(LONDON).slots[0];
    (slot.active, slot.active_pid, slot.confirmed_flush_lsn) = (false, None, slot.restart_lsn);
    let feed = &mut world.pulse(PARIS).subscriptions[0];
    (feed.running, feed.apply_errors) = (false, 4);
    world.growth.insert(SLOT.into(), MEGABYTE as f64);
    let hint = "Set max_logical_replication_workers to at least 5 there and restart that server.";
    world.rooms.push(Room {
        node: PARIS,
        resource: "logical replication workers".into(),
        used: 4,
        needed: 2,
        limit: 4,
        setting: "max_logical_replication_workers".into(),
        hint: Some(hint.into()),
    });
    world.of_link(
        1,
        &[
            "state: link \"feed\" (subscription, from \"london\" to \"paris\") has been broken for 3 min (rule LH14)",
            "because: nobody reads its slot on \"london\", which keeps 2048 kB of WAL; its apply worker has failed 4 times",
            "also: it is 2048 kB behind",
            "also: at the present rate its slot on \"london\" is lost in 10 min (max_slot_wal_keep_size)",
            "also: link \"more\" between the same nodes is well: network and password are good",
            "also: \"paris\" uses 4 of 4 logical replication workers; its links need 2 (max_logical_replication_workers)",
            "next: Set max_logical_replication_workers to at least 5 there and restart that server.",
            "next: The server log of \"paris\" says why its apply worker does not stay connected to \"london\".",
        ],
    );
    world.of_node(
        PARIS,
        &[
            "state: node \"paris\" has been up for 3 min (rule NH09)",
            "also: \"paris\" uses 4 of 4 logical replication workers; its links need 2 (max_logical_replication_workers)",
            "next: Set max_logical_replication_workers to at least 5 there and restart that server.",
        ],
    );
}

#[test]
fn our_own_fault_is_not_the_nodes() {
    let mut world = World::new();
    let watch = &mut world.nodes.get_mut(&OSLO).expect("oslo").watch;
    let failure = Failure::new(FailureKind::NoResources, "too many open files");
    watch.failed(Duration::ZERO, failure);
    watch.judge(Duration::from_secs(5), &LIMITS);
    world.of_link(
        3,
        &[
            "state: link \"oslo\" (standby, from \"london\" to \"oslo\") has been waiting for 3 min (rule LH04)",
            "because: node \"oslo\" has been down for 2 min (rule NH02): no answer for 3 min because this server, not that one, lacks resources: too many open files",
            "next: This server is short of resources, not that one: raise max_files_per_process here.",
        ],
    );
}
