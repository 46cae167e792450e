//! The health of links: a case for every rule, every combination of facts, and which changes
//! become events.
//!
//! `SEEDS=100000` runs more random histories, `SEED=17` one. The failing seed is printed.

mod common;

use common::{for_every_seed, tells_little_and_all};
use nodes_plan::clone::copier;
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::link_health::*;
use nodes_plan::link_watch::LinkWatch;
use nodes_plan::lsn::Lsn;
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::*;
use nodes_plan::rules;
use nodes_plan::transition::{Severity, Transition};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SLOT: &str = "nodes_3f2504e0_1";
const MEGABYTE: u64 = 1 << 20;

/// A link from "london" to "paris" with all that is known of it.
#[derive(Debug, Clone)]
struct Case {
    registry: Registry,
    from: (NodeState, Option<Pulse>, Option<&'static str>),
    to: (NodeState, Option<Pulse>, Option<&'static str>),
    plan: LinkPlan,
    limits: LinkLimits,
    probe: Option<Probe>,
    unread: Option<Unread>,
}

impl Case {
    fn new(spec: Spec, source: Pulse, target: Pulse) -> Case {
        let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
        let mut registry = Registry { id, ..Registry::default() };
        for (id, name) in [(1, "london"), (2, "paris")] {
            let conninfo = Conninfo::default();
            let (removing, gone, digest) = (false, false, String::new());
            let node = Node { id, name: name.into(), conninfo, digest, removing, gone };
            registry.nodes.insert(id, node);
        }
        let (name, state, keep_data) = ("feed".to_owned(), LinkState::Active, true);
        registry.links.push(Link { id: 1, name, from: 1, to: 2, state, spec, keep_data });
        Case {
            registry,
            from: (NodeState::Up, Some(source), None),
            to: (NodeState::Up, Some(target), None),
            plan: LinkPlan::default(),
            limits: LinkLimits::default(),
            probe: None,
            unread: None,
        }
    }

    /// Streams, 1 MB behind, and keeps 2 MB.
    fn subscription() -> Case {
        let spec = SubscriptionSpec {
            tables: None,
            copy_data: true,
            replace: false,
            options: BTreeMap::default(),
        };
        let slot = SlotPulse {
            kind: "logical".into(),
            confirmed_flush_lsn: Some(Lsn(9 * MEGABYTE)),
            ..slot()
        };
        let found = SubscriptionPulse {
            name: "feed".into(),
            enabled: true,
            running: true,
            tables: 3,
            ready: 3,
            ..SubscriptionPulse::default()
        };
        let target = Pulse { subscriptions: vec![found], ..Pulse::default() };
        Case::new(Spec::Subscription(spec), source(slot), target)
    }

    fn standby() -> Case {
        let target = Pulse {
            in_recovery: true,
            lsn: Some(Lsn(8 * MEGABYTE)),
            replay_age: Some(7.0),
            receiver: Some(Receiver { status: Some("streaming".into()), ..Receiver::default() }),
            ..Pulse::default()
        };
        Case::new(Spec::Standby(StandbySpec::new(true)), source(slot()), target)
    }

    fn standby_without_slot() -> Case {
        let mut case = Case::standby();
        case.registry.links[0].spec = Spec::Standby(StandbySpec::new(false));
        case.source(|source| source.slots.clear())
    }

    fn foreign() -> Case {
        let spec = ForeignSpec {
            local_schema: "stock".into(),
            remote_schema: "inventory".into(),
            tables: None,
            roles: BTreeSet::new(),
            public: false,
            writable: true,
            options: BTreeMap::new(),
        };
        Case::new(Spec::Foreign(spec), Pulse::default(), Pulse::default())
    }

    fn link(mut self, state: LinkState) -> Case {
        self.registry.links[0].state = state;
        self
    }

    fn source<T>(mut self, change: impl FnOnce(&mut Pulse) -> T) -> Case {
        self.from.1.as_mut().map(change);
        self
    }

    fn target<T>(mut self, change: impl FnOnce(&mut Pulse) -> T) -> Case {
        self.to.1.as_mut().map(change);
        self
    }

    fn slot<T>(self, change: impl FnOnce(&mut SlotPulse) -> T) -> Case {
        self.source(|source| source.slots.first_mut().map(change))
    }

    fn found<T>(self, change: impl FnOnce(&mut SubscriptionPulse) -> T) -> Case {
        self.target(|target| target.subscriptions.first_mut().map(change))
    }

    fn unread(self) -> Case {
        let case = self.slot(|slot| (slot.active, slot.active_pid) = (false, None));
        case.found(|found| found.running = false).target(|target| target.receiver = None)
    }

    fn for_so_long(self, seconds: u64, was_read: bool) -> Case {
        let unread = Some(Unread { length: Duration::from_secs(seconds), was_read });
        Case { unread, ..self }
    }

    fn plan(self, plan: LinkPlan) -> Case {
        Case { plan, ..self }
    }

    fn limits(self, limits: LinkLimits) -> Case {
        Case { limits, ..self }
    }

    fn health(&self) -> LinkHealth {
        let (from, to) = (&self.from, &self.to);
        link_health(&LinkEvidence {
            registry: &self.registry,
            link: &self.registry.links[0],
            from: Side { state: from.0, pulse: from.1.as_ref(), why: from.2 },
            to: Side { state: to.0, pulse: to.1.as_ref(), why: to.2 },
            plan: &self.plan,
            limits: &self.limits,
            probe: self.probe.as_ref(),
            unread: self.unread,
        })
    }
}

fn slot() -> SlotPulse {
    SlotPulse {
        name: SLOT.into(),
        kind: "physical".into(),
        active: true,
        active_pid: Some(77),
        restart_lsn: Some(Lsn(8 * MEGABYTE)),
        wal_status: Some("reserved".into()),
        ..SlotPulse::default()
    }
}

fn source(slot: SlotPulse) -> Pulse {
    let sender = Sender {
        pid: 77,
        replay_lsn: Some(Lsn(9 * MEGABYTE)),
        replay_lag: Some(3.0),
        ..Sender::default()
    };
    let (slots, senders, lsn) = (vec![slot], vec![sender], Some(Lsn(10 * MEGABYTE)));
    Pulse { slots, senders, lsn, ..Pulse::default() }
}

/// A standby that does not run yet, in this phase of a copy, so many megabytes of so many.
fn cloned(phase: &str, streamed: i64, total: Option<i64>) -> Case {
    let bytes = |number| number * MEGABYTE as i64;
    let backup = Backup {
        name: copier(SLOT),
        phase: phase.into(),
        streamed: Some(bytes(streamed)),
        total: total.map(bytes),
        elapsed: 10.0,
    };
    let mut case = Case::standby().source(|s| s.backups = vec![backup]);
    case.to = (NodeState::Down, None, Some("Connection refused"));
    case
}

fn copied(case: Case) -> Case {
    let backup = Backup { name: copier(SLOT), ..Backup::default() };
    case.source(|source| source.backups.push(backup))
}

fn unfinished(mut case: Case) -> Case {
    if let Spec::Standby(spec) = &mut case.registry.links[0].spec {
        let (directory, tablespaces) = ("/srv/paris".to_owned(), vec![]);
        spec.unfinished = Some(Unfinished { on_node: 2, directory, tablespaces, swap: true });
    }
    case
}

fn told(rule: &str) -> Option<Told> {
    Some(Told { message: "it cannot".into(), hint: "Do it.".into(), rule: rule.into() })
}

fn step(creates: bool) -> LinkPlan {
    let (reason, rule) = ("it must".into(), "SU20".into());
    LinkPlan { step: Some(PlannedStep { creates, reason, rule }), ..LinkPlan::default() }
}

fn probe(error: Option<&str>) -> Option<Probe> {
    Some(Probe { took: Duration::from_millis(3), error: error.map(str::to_owned) })
}

fn bytes_limit() -> LinkLimits {
    LinkLimits { max_lag_bytes: Some(MEGABYTE - 1), ..LinkLimits::default() }
}

fn time_limit() -> LinkLimits {
    LinkLimits { max_lag: Some(Duration::from_secs(2)), ..LinkLimits::default() }
}

fn retained_limit() -> LinkLimits {
    LinkLimits { max_retained_wal: Some(MEGABYTE), ..LinkLimits::default() }
}

/// A rule's number, facts for which it decides, the state, and part of what it says.
type Row = (&'static str, Case, LinkStatus, &'static str);

fn cases() -> Vec<Row> {
    use LinkStatus::*;
    let refused = LinkPlan { refused: told("SU11"), ..LinkPlan::default() };
    let waiting = |rule| LinkPlan { waiting: told(rule), ..LinkPlan::default() };
    let mut down = Case::subscription();
    down.to = (NodeState::Down, None, Some("Connection refused"));
    let mut unheard = Case::standby();
    unheard.from = (NodeState::Up, None, None);
    let mut rows = vec![
        (
            "LH01",
            Case::subscription().link(LinkState::Removing).plan(waiting("RG03")),
            Removing,
            "it cannot",
        ),
        (
            "LH02",
            Case::subscription().link(LinkState::Removing),
            Removing,
            "nodes.apply() has not run since",
        ),
        ("LH25", Case::standby().plan(refused.clone()), Broken, "it cannot"),
        ("LH03", Case::subscription().plan(refused), Broken, "it cannot"),
        (
            "LH23",
            cloned("streaming database files", 1, Some(4)),
            Copying,
            "\"paris\" is copied from \"london\": streaming database files, 25 % (1024 kB of \
             4096 kB), 30 s left",
        ),
        (
            "LH23",
            cloned("waiting for checkpoint to finish", 0, None),
            Copying,
            "from \"london\": waiting for checkpoint to finish",
        ),
        (
            "LH24",
            unfinished(Case::standby().unread()),
            Initializing,
            "the copy of \"london\" in \"/srv/paris\", made by \"paris\", is no standby yet",
        ),
        ("LH22", unfinished(Case::standby()), Streaming, ""),
        (
            "LH23",
            cloned("streaming database files", 5, Some(4)),
            Copying,
            "database files, 100 % (5120 kB of 5120 kB)",
        ),
        ("LH04", down, Waiting, "node \"paris\" is down: Connection refused"),
        ("LH04", unheard, Waiting, "node \"london\" has not been heard yet"),
        ("LH05", Case::standby().plan(waiting("SU09")), Waiting, "it cannot"),
        (
            "LH05",
            Case::foreign().plan(waiting("RG03")),
            Waiting,
            "it is not known yet whether it is made: it cannot",
        ),
        ("LH06", Case::subscription().plan(step(true)), Missing, "it must"),
        (
            "LH07",
            Case::subscription().target(|t| t.subscriptions.clear()),
            Missing,
            "no subscription of its name on \"paris\"",
        ),
        (
            "LH07",
            Case::standby().source(|s| s.slots.clear()),
            Missing,
            "no slot \"nodes_3f2504e0_1\" on \"london\"",
        ),
        (
            "LH08",
            Case::subscription().source(|s| s.slots.clear()),
            Broken,
            "its slot \"nodes_3f2504e0_1\" on \"london\" is gone: changes have been missed",
        ),
        (
            "LH08",
            Case::standby().slot(|s| s.wal_status = Some("lost".into())),
            Broken,
            "has lost its WAL",
        ),
        (
            "LH09",
            Case::standby().target(|t| (t.in_recovery, t.timeline) = (false, 2)),
            Broken,
            "node \"paris\" is a primary of its own (timeline 2)",
        ),
    ];
    rows.extend(reader_cases());
    rows.extend(flow_cases());
    rows
}

fn reader_cases() -> Vec<Row> {
    use LinkStatus::*;
    vec![
        (
            "LH10",
            Case::subscription().unread().found(|f| f.enabled = false).plan(step(false)),
            Drifted,
            "its subscription on \"paris\" was disabled by hand or by disable_on_error; its slot \
             on \"london\" keeps 2048 kB of WAL",
        ),
        ("LH11", Case::subscription().plan(step(false)), Drifted, "it must"),
        (
            "LH12",
            Case::standby().target(|t| t.replay_paused = true),
            Paused,
            "replay is paused on \"paris\"; its slot on \"london\" keeps 2048 kB of WAL",
        ),
        (
            "LH13",
            Case::subscription().unread().found(|f| f.running = true),
            Initializing,
            "the apply worker of \"paris\" connects to \"london\"",
        ),
        (
            "LH13",
            Case::standby().unread().for_so_long(29, false),
            Initializing,
            "the walreceiver of \"paris\" connects to \"london\"",
        ),
        (
            "LH14",
            Case::standby().unread().for_so_long(30, false),
            Broken,
            "nobody reads its slot on \"london\", which keeps 2048 kB of WAL",
        ),
        ("LH14", Case::standby().unread().for_so_long(0, true), Broken, "nobody reads its slot"),
        (
            "LH14",
            Case::subscription().unread().found(|f| f.apply_errors = 4),
            Broken,
            "of WAL; its apply worker has failed 4 times",
        ),
        (
            "LH14",
            Case::subscription().unread().found(|f| f.running = true).for_so_long(30, true),
            Broken,
            "nobody reads its slot",
        ),
        ("LH14", Case::standby_without_slot().unread(), Broken, "no walreceiver runs on \"paris\""),
        (
            "LH15",
            Case::subscription().found(|f| f.running = false),
            Broken,
            "no apply worker runs on \"paris\", yet process 77 on \"london\" holds its slot",
        ),
    ]
}

fn flow_cases() -> Vec<Row> {
    use LinkStatus::*;
    let paused = || Case::subscription().unread().found(|f| f.enabled = false);
    let copying = || Case::subscription().found(|f| f.ready = 1);
    let mut probed = Case::foreign();
    probed.probe = probe(Some("permission denied for table items"));
    let mut answered = Case::foreign();
    answered.probe = probe(None);
    let unasked = LinkPlan { waiting: told("RG03"), ..LinkPlan::default() };
    vec![
        (
            "LH16",
            Case::standby().limits(retained_limit()),
            Lagging,
            "its slot on \"london\" keeps 2048 kB of WAL, more than max_retained_wal (1024 kB)",
        ),
        (
            "LH16",
            paused().link(LinkState::Paused).limits(retained_limit()),
            Lagging,
            "it is paused and its slot on \"london\" keeps",
        ),
        (
            "LH17",
            paused().link(LinkState::Paused),
            Paused,
            "it was paused with nodes.pause_link(); its slot on \"london\" keeps 2048 kB of WAL",
        ),
        ("LH18", copying(), Copying, "1 of 3 tables are copied"),
        ("LH18", copying().found(|f| f.sync_errors = 2), Copying, "copies have failed 2 times"),
        (
            "LH19",
            Case::subscription().limits(bytes_limit()),
            Lagging,
            "\"paris\" is 1024 kB behind, more than max_lag_bytes (1024 kB)",
        ),
        (
            "LH19",
            Case::standby().limits(time_limit()),
            Lagging,
            "\"paris\" is 3.0 s behind, more than max_lag (2.0 s)",
        ),
        (
            "LH19",
            Case::standby_without_slot().limits(time_limit()),
            Lagging,
            "7.0 s behind, more than max_lag (2.0 s)",
        ),
        (
            "LH20",
            probed,
            Broken,
            "\"paris\" cannot query \"london\": permission denied for table items",
        ),
        // It was asked before, and so it is there.
        ("LH21", answered.clone().plan(unasked), Up, ""),
        ("LH21", answered, Up, ""),
        ("LH21", Case::foreign(), Up, ""),
        ("LH22", Case::subscription(), Streaming, ""),
        ("LH22", Case::standby(), Streaming, ""),
        ("LH22", Case::standby_without_slot(), Streaming, ""),
    ]
}

#[test]
fn each_rule_decides_where_it_should() {
    for (rule, case, state, text) in cases() {
        let health = case.health();
        assert_eq!((health.rule, health.state), (rule, state), "{health:?}");
        let reason = health.reason.clone().unwrap_or_default();
        assert!(reason.contains(text), "{rule} should say {text:?}: {health:?}");
        assert_eq!(health.hint.is_some(), !state.is_well(), "{health:?}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let with_case: BTreeSet<&str> = cases().iter().map(|(rule, ..)| *rule).collect();
    for rule in rules().iter().filter(|rule| rule.kind == "link") {
        assert!(with_case.contains(rule.id), "no case for {} ({})", rule.id, rule.when);
    }
}

#[test]
fn numbers_come_from_the_side_that_knows() {
    let numbers = |case: Case| {
        let health = case.health();
        (health.lag_bytes, health.lag_seconds, health.retained_bytes)
    };
    let one = Some(MEGABYTE);
    assert_eq!(numbers(Case::subscription()), (one, Some(3.0), Some(2 * MEGABYTE)));
    assert_eq!(numbers(Case::standby()), (one, Some(3.0), Some(2 * MEGABYTE)));
    let blind = Case::standby().source(|s| s.senders.clear());
    assert_eq!(numbers(blind), (Some(2 * MEGABYTE), Some(7.0), Some(2 * MEGABYTE)));
    let without = Case::standby_without_slot();
    assert_eq!(numbers(without), (Some(2 * MEGABYTE), Some(7.0), None));
    let idle = Case::standby().source(|s| s.senders[0].replay_lsn = s.lsn);
    assert_eq!(numbers(idle), (Some(0), Some(0.0), Some(2 * MEGABYTE)));
    assert_eq!(numbers(Case::foreign()), (None, None, None));
    let copy = cloned("streaming database files", 1, Some(4)).health();
    let megabytes = |number: u64| Some((number * MEGABYTE) as i64);
    assert_eq!((copy.copied_bytes, copy.expected_bytes), (megabytes(1), megabytes(4)));
    assert_eq!((copy.copy_left, copy.is_copying()), (Some(Duration::from_secs(30)), true));
    // What a dead target leaves behind is still seen on the source.
    let mut dead = Case::subscription();
    dead.to = (NodeState::Down, None, None);
    assert_eq!(numbers(dead), (one, Some(3.0), Some(2 * MEGABYTE)));
}

#[test]
fn a_health_survives_its_way_through_shared_memory() {
    for (_, case, ..) in cases() {
        let health = case.health();
        let text = serde_json::to_string(&health).expect("it can be written");
        assert_eq!(serde_json::from_str::<LinkHealth>(&text).expect("and read"), health);
    }
    let unknown = r#"{"state":"up","rule":"XX01"}"#;
    assert!(serde_json::from_str::<LinkHealth>(unknown).is_err());
}

type Change = fn(Case) -> Case;

/// What can be otherwise in a case, each in several ways.
fn variants() -> Vec<Vec<Change>> {
    vec![
        vec![|c| c, |c| c.link(LinkState::Paused), |c| c.link(LinkState::Removing)],
        vec![
            |c| c,
            |c| c.plan(LinkPlan { refused: told("SU11"), ..LinkPlan::default() }),
            |c| c.plan(LinkPlan { waiting: told("RG03"), ..LinkPlan::default() }),
            |c| c.plan(LinkPlan { waiting: told("SU09"), ..LinkPlan::default() }),
            |c| c.plan(step(true)),
            |c| c.plan(step(false)),
        ],
        vec![
            |c| c,
            |c| c.slot(|slot| (slot.active, slot.active_pid) = (false, None)),
            |c| c.slot(|slot| slot.wal_status = Some("lost".into())),
            |c| c.source(|source| source.slots.clear()),
        ],
        vec![|c| c, |c| {
            c.found(|found| found.running = false).target(|target| target.receiver = None)
        }],
        vec![
            |c| c,
            |c| c.found(|found| found.ready = 0),
            |c| c.found(|found| found.enabled = false),
            |c| c.target(|target| target.subscriptions.clear()),
            |c| c.target(|target| target.in_recovery = false),
            |c| c.target(|target| target.replay_paused = true),
        ],
        vec![|c| c, |c| c.limits(bytes_limit()), |c| c.limits(time_limit()), |c| {
            c.limits(retained_limit())
        }],
        vec![|c| c, |c| Case { probe: probe(Some("no")), ..c }, copied, unfinished],
        vec![|c| c, |c| c.for_so_long(0, false), |c| c.for_so_long(99, true)],
        vec![
            |c| c,
            |c| Case { from: (NodeState::Suspect, c.from.1, None), ..c },
            |c| Case { from: (NodeState::Down, c.from.1, None), ..c },
            |c| Case { from: (NodeState::Up, None, None), ..c },
        ],
        vec![|c| c, |c| Case { to: (NodeState::Refused, None, None), ..c }, |c| Case {
            to: (NodeState::Unknown, None, None),
            ..c
        }],
    ]
}

fn every_combination(case: Case, variants: &[Vec<Change>], see: &mut impl FnMut(&Case)) {
    let Some((first, rest)) = variants.split_first() else { return see(&case) };
    for change in first {
        every_combination(change(case.clone()), rest, see);
    }
}

/// What must be true of any link, in other words than the rules'.
fn is_right(case: &Case, health: &LinkHealth) -> bool {
    let link = &case.registry.links[0];
    let (plan, limits) = (&case.plan, &case.limits);
    let heard_source = case.from.0.answers();
    let heard = heard_source && case.to.0.answers();
    let slot = case.from.1.as_ref().and_then(|source| source.slot(SLOT));
    let active = slot.is_some_and(|slot| slot.active);
    let slotless =
        matches!(link.spec, Spec::Foreign(_) | Spec::Standby(StandbySpec { slot: false, .. }));
    let unlimited = *limits == LinkLimits::default();
    let removing = link.state == LinkState::Removing;
    let subscription = matches!(link.spec, Spec::Subscription(_));
    let paused = link.state == LinkState::Paused && subscription;
    let planned = plan.refused.is_some() || plan.step.is_some();
    match health.state {
        LinkStatus::Removing => removing,
        LinkStatus::Streaming => {
            heard
                && !planned
                && (active || slotless)
                && (unlimited || slotless || limits.max_retained_wal.is_none())
        }
        LinkStatus::Up => heard && !planned && case.probe.is_none(),
        LinkStatus::Waiting => !heard || case.from.1.is_none() || plan.waiting.is_some(),
        LinkStatus::Missing => heard && !removing,
        LinkStatus::Drifted => {
            heard && !removing && (plan.step.is_some() || (subscription && !paused))
        }
        LinkStatus::Paused => paused || matches!(link.spec, Spec::Standby(_)),
        LinkStatus::Lagging => !unlimited && heard,
        LinkStatus::Initializing => {
            let unfinished = matches!(&link.spec, Spec::Standby(spec) if spec.unfinished.is_some());
            unfinished || !active && heard && !paused
        }
        LinkStatus::Copying => {
            let cloned =
                case.from.1.as_ref().is_some_and(|source| source.backup(&copier(SLOT)).is_some());
            cloned && heard_source || subscription && !paused && active
        }
        LinkStatus::Broken => plan.refused.is_some() || heard,
    }
}

#[test]
fn every_combination_of_facts_has_a_rule_and_a_right_state() {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let kinds =
        [Case::subscription(), Case::standby(), Case::standby_without_slot(), Case::foreign()];
    for case in kinds {
        every_combination(case, &variants(), &mut |case| {
            let health = case.health();
            assert!(is_right(case, &health), "{health:#?} of {case:#?}");
            assert_eq!(health.hint.is_some(), !health.state.is_well(), "{health:#?}");
            seen.entry(health.state.label()).or_default().insert(health.rule);
        });
    }
    let decided: BTreeSet<&str> = seen.values().flatten().copied().collect();
    for rule in rules().iter().filter(|rule| rule.kind == "link") {
        assert!(decided.contains(rule.id), "{} never decides", rule.id);
    }
    assert_eq!(seen.len(), 11, "states without a way in: {seen:#?}");
}

/// A link under watch and what people were told of it.
#[derive(Clone)]
struct Story {
    now: Duration,
    watch: LinkWatch,
    told: Vec<(Duration, Transition<LinkStatus>)>,
}

impl Story {
    fn new() -> Self {
        let now = Duration::from_secs(50);
        Story { now, watch: LinkWatch::new(now), told: vec![] }
    }

    /// The link is found so, `seconds` after the last look.
    fn after(mut self, seconds: u64, case: &Case) -> Self {
        self.look(Duration::from_secs(seconds), case);
        self
    }

    fn look(&mut self, later: Duration, case: &Case) {
        self.now += later;
        let case = Case { unread: self.watch.unread(self.now), ..case.clone() };
        let transition = self.watch.judge(self.now, &case.health());
        self.told.extend(transition.map(|transition| (self.now, transition)));
        self.deadline_is_exact(&case);
    }

    /// Until the deadline time changes nothing.
    fn deadline_is_exact(&self, case: &Case) {
        let later = |now: Duration| {
            let mut watch = self.watch.clone();
            let health = Case { unread: watch.unread(now), ..case.clone() }.health();
            let before = watch.since();
            let told = watch.judge(now, &health).is_some();
            told || watch.since() != before
        };
        let Some(deadline) = self.watch.deadline() else {
            assert!(!later(self.now + Duration::from_secs(100_000)), "no deadline: {case:#?}");
            return;
        };
        assert!(deadline > self.now, "the deadline is over");
        assert!(!later(deadline - Duration::from_nanos(1)), "too late");
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.told.iter().map(|(_, transition)| transition.kind).collect()
    }

    #[track_caller]
    fn tells(&self, kinds: &[&str]) {
        assert_eq!(self.kinds(), kinds, "{:#?}", self.told);
    }
}

fn missing() -> Case {
    Case::subscription().plan(step(true))
}

fn refusal(message: &str) -> LinkPlan {
    let refused = Told { message: message.into(), hint: "Act.".into(), rule: "SU14".into() };
    LinkPlan { refused: Some(refused), ..LinkPlan::default() }
}

fn unread() -> Case {
    Case::subscription().unread()
}

fn silent() -> Case {
    let mut case = Case::subscription();
    case.to = (NodeState::Down, None, Some("Connection refused"));
    case
}

#[test]
fn a_new_link_tells_only_that_it_streams() {
    let copying = Case::subscription().found(|f| f.ready = 0);
    let story = Story::new().after(0, &missing()).after(90, &missing()).after(1, &unread());
    story
        .after(9, &unread())
        .after(1, &copying)
        .after(60, &copying)
        .after(1, &Case::subscription())
        .tells(&["streaming"]);
}

#[test]
fn trouble_is_told_when_it_lasts() {
    let story = Story::new().after(0, &Case::subscription()).after(1, &unread());
    story.tells(&["streaming"]);
    let deadline = |story: &Story| story.watch.deadline().map(|at| (at - story.now).as_secs());
    assert_eq!(deadline(&story), Some(1), "then it counts");
    let story = story.after(1, &unread());
    assert_eq!(deadline(&story), Some(9), "then it is told");
    story.clone().after(5, &Case::subscription()).tells(&["streaming"]);
    let story = story.after(9, &unread()).after(60, &unread());
    story.tells(&["streaming", "broken"]);
    let (_, broken) = &story.told[1];
    assert_eq!((broken.from, broken.severity), (LinkStatus::Streaming, Severity::Critical));
    assert!(broken.message.starts_with("is broken: nobody reads"), "{}", broken.message);
    let story = story.after(1, &Case::subscription());
    story.tells(&["streaming", "broken", "streaming"]);
    assert_eq!(story.told[2].1.message, "is streaming again after 72 s");
}

#[test]
fn what_does_not_pass_by_itself_is_told_at_once() {
    let lost = Case::subscription().slot(|slot| slot.wal_status = Some("lost".into()));
    let refused = lost.clone().plan(refusal("changes from A to B"));
    // What is missing is known as soon as the planner has looked.
    let new = Story::new();
    let story = new.clone().after(0, &Case::subscription()).after(0, &lost);
    story.tells(&["streaming"]);
    let story = story.after(1, &refused);
    story.tells(&["streaming", "broken"]);
    assert_eq!(story.told[1].1.message, "is broken: changes from A to B");
    new.clone().after(0, &lost).after(10, &lost).tells(&["broken"]);
    // Of one that was never well people need not hear at once, nor of a standby that may be
    // changing places.
    let told = new.clone().after(0, &Case::standby());
    let refused_standby = Case::standby().plan(refusal("a primary of its own"));
    let told = told.after(1, &refused_standby).after(9, &refused_standby);
    told.tells(&["streaming"]);
    told.after(1, &refused_standby).tells(&["streaming", "broken"]);
    let new = new.after(0, &refused).after(9, &refused);
    new.tells(&[]);
    new.after(1, &refused).tells(&["broken"]);
}

#[test]
fn a_dead_node_is_no_event_of_its_links() {
    let story = Story::new().after(0, &Case::subscription()).after(1, &silent());
    let story = story.after(900, &silent()).after(1, &unread()).after(5, &Case::subscription());
    story.tells(&["streaming"]);
    // Nor is one that was told before told again.
    let story = story.after(1, &unread()).after(10, &unread()).after(1, &silent());
    story.after(1, &unread()).after(60, &unread()).tells(&["streaming", "broken"]);
}

/// An apply worker that fails and is started again looks well at every other look.
#[test]
fn a_reader_that_never_stays_is_told() {
    let trying = unread().found(|f| f.running = true);
    let mut story = Story::new().after(0, &Case::subscription());
    for _ in 0..10 {
        story = story.after(4, &unread()).after(1, &trying);
    }
    story.tells(&["streaming", "broken"]);
}

#[test]
fn a_hundred_flips_are_a_handful_of_events() {
    let mut story = Story::new();
    for _ in 0..100 {
        story = story.after(1, &Case::subscription()).after(1, &unread()).after(1, &unread());
    }
    story.tells(&["streaming", "flapping"]);
    let mut story = story.after(1, &Case::subscription());
    for _ in 0..70 {
        story = story.after(1, &Case::subscription());
    }
    story.tells(&["streaming", "flapping", "stable"]);
    assert_eq!(story.told[2].1.message, "is stable again: streaming");
}

/// Where one node is heard and the other not yet, they do not fit for a moment.
#[test]
fn what_is_brief_is_no_trouble() {
    let mut story = Story::new().after(0, &Case::subscription());
    for _ in 0..100 {
        story.look(Duration::from_millis(100), &unread());
        story.look(Duration::from_millis(900), &Case::subscription());
    }
    story.tells(&["streaming"]);
}

/// A subscription is disabled, its slot is dropped, and the planner says what that means: within
/// a second, three states.
#[test]
fn trouble_that_unfolds_is_told_once() {
    let disabled = Case::subscription().found(|f| f.enabled = false);
    let lost = disabled.clone().slot(|slot| slot.wal_status = Some("lost".into()));
    let refused = lost.clone().plan(refusal("changes from A to B"));
    let story = Story::new().after(0, &Case::subscription()).after(1, &disabled);
    let story = story.after(0, &missing()).after(0, &lost).after(0, &refused);
    story.tells(&["streaming", "broken"]);
    assert_eq!(story.told[1].1.message, "is broken: changes from A to B");
    // In three ways by turns it is flapping all the same.
    let mut story = story;
    for _ in 0..10 {
        story = story.after(10, &disabled).after(11, &disabled).after(1, &refused);
    }
    story.tells(&["streaming", "broken", "drifted", "flapping"]);
}

fn random_history(rng: &mut SmallRng) {
    let cases = cases();
    let mut story = Story::new();
    let slow = rng.random_bool(0.5);
    for _ in 0..rng.random_range(1..300) {
        let later = rng.random_range(1..if slow { 60_000 } else { 3_000 });
        // What is well comes back often.
        let case = if rng.random_bool(0.4) {
            Case::subscription()
        } else {
            cases[rng.random_range(0..cases.len())].1.clone()
        };
        story.look(Duration::from_millis(later), &case);
    }
    tells_little_and_all(&story.told, 125);
}

#[test]
fn random_histories_make_few_events() {
    for_every_seed(2_000, random_history);
}

/// A standby that is down holds back what a failover slot sends: who waits is told for whom.
#[test]
fn a_subscription_that_waits_for_a_standby_says_so() {
    let hint = |standby_reads: bool, failover: bool| {
        let mut case = Case::subscription().limits(bytes_limit()).slot(|s| s.failover = failover);
        let standby = Link {
            id: 2,
            name: "oslo".into(),
            to: 3,
            spec: Spec::Standby(StandbySpec::new(true)),
            ..case.registry.links[0].clone()
        };
        case.registry.nodes.insert(3, Node { id: 3, name: "oslo".into(), ..Node::default() });
        case.registry.links.push(standby);
        let name = "nodes_3f2504e0_2".to_owned();
        let own = SlotPulse { name, active: standby_reads, ..slot() };
        case.source(|source| source.slots.push(own)).health().hint.unwrap_or_default()
    };
    let awaited = "\"london\" sends nothing that \"oslo\" has not received";
    assert!(hint(false, true).starts_with(awaited), "{}", hint(false, true));
    for (reads, failover) in [(true, true), (false, false)] {
        assert!(!hint(reads, failover).contains("oslo"));
    }
}

/// A reason is there also where the standby itself is well.
#[test]
fn a_synchronous_standby_says_that_commits_wait_for_it() {
    let synchronous = |streaming: bool, longest| {
        let mut case = Case::standby();
        let spec = StandbySpec { synchronous: true, ..StandbySpec::new(true) };
        case.registry.links[0].spec = Spec::Standby(spec);
        let names = "ANY 1 (\"nodes_3f2504e0_1\")".to_owned();
        case.source(|source| {
            source.synchronous = Some(Synchronous { names, waiting: 1, longest });
            let sender = source.senders.first_mut().expect("it streams");
            let (state, sync_state) =
                if streaming { ("streaming", "quorum") } else { ("catchup", "potential") };
            (sender.state, sender.sync_state) = (Some(state.into()), Some(sync_state.into()));
        })
    };
    assert_eq!(synchronous(true, Some(1.0)).health().reason, None);
    let reason = synchronous(false, None).health().reason;
    assert_eq!(reason.as_deref(), Some("commits on \"london\" wait for it"));
    let reason = synchronous(true, Some(9.0)).health().reason;
    assert_eq!(reason.as_deref(), Some("commits on \"london\" wait, the oldest for 9.0 s"));
    let dead = Case { to: (NodeState::Down, None, Some("refused")), ..synchronous(false, None) };
    let reason = dead.health().reason.unwrap_or_default();
    assert!(reason.ends_with("refused; commits on \"london\" wait for it"), "{reason}");
    // Nobody waits for one that is not synchronous.
    let mut asynchronous = synchronous(false, None);
    asynchronous.registry.links[0].spec = Spec::Standby(StandbySpec::new(true));
    assert_eq!(asynchronous.health().reason, None);
}
