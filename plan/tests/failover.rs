//! One case for every rule about failovers: the smallest change of a ready pair in which it
//! fires, and what it says then.

use nodes_plan::desired::*;
use nodes_plan::failover::{
    Evidence, LogicalSlot, Readiness, Reason, Side, lag_bytes, logical_slots, obstacles,
};
use nodes_plan::lsn::Lsn;
use nodes_plan::pulse::{Pulse, Receiver, SlotPulse};
use nodes_plan::rules;
use nodes_plan::step::{Operation, Phase, Plan, Problem, ProblemKind, Step};
use std::collections::BTreeSet;

const REGISTRY: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
const STANDBY_SLOT: &str = "nodes_3f2504e0_1";
const FEED_SLOT: &str = "nodes_3f2504e0_2";
const PARIS: NodeId = 1;
const OSLO: NodeId = 2;
const LONDON: NodeId = 3;
const ROME: NodeId = 4;
const ROME_SLOT: &str = "nodes_3f2504e0_3";

/// Paris with its standby oslo; london subscribes to paris.
struct Pair {
    registry: Registry,
    primary: Result<Side, String>,
    standby: Result<Side, String>,
    plan: Plan,
}

fn slot(name: &str, kind: &str) -> SlotPulse {
    SlotPulse {
        name: name.into(),
        kind: kind.into(),
        active: true,
        wal_status: Some("reserved".into()),
        ..SlotPulse::default()
    }
}

fn link(id: LinkId, name: &str, from: NodeId, to: NodeId, spec: Spec) -> Link {
    let state = LinkState::Active;
    Link { id, name: name.into(), from, to, state, spec, keep_data: true }
}

fn readiness() -> Readiness {
    let settings = [
        ("max_connections", "100"),
        ("max_worker_processes", "8"),
        ("max_wal_senders", "10"),
        ("max_prepared_transactions", "0"),
        ("max_locks_per_transaction", "64"),
        ("max_replication_slots", "10"),
        ("wal_level", "logical"),
        ("archive_mode", "on"),
        ("hot_standby_feedback", "on"),
        ("sync_replication_slots", "on"),
        ("synchronized_standby_slots", STANDBY_SLOT),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Readiness { settings: settings.into(), ..Readiness::default() }
}

/// Ready, on 17.
fn ready() -> Pair {
    let node = |(id, name): (NodeId, &str)| (id, Node { id, name: name.into(), ..Node::default() });
    let subscription = SubscriptionSpec {
        tables: None,
        copy_data: true,
        replace: false,
        options: Default::default(),
    };
    let registry = Registry {
        id: REGISTRY.into(),
        nodes: [(PARIS, "paris"), (OSLO, "oslo"), (LONDON, "london")].map(node).into(),
        links: vec![
            link(1, "oslo", PARIS, OSLO, Spec::Standby(StandbySpec::new(true))),
            link(2, "feed", PARIS, LONDON, Spec::Subscription(subscription)),
        ],
        ..Registry::default()
    };
    let pulse = |in_recovery, slots| Pulse {
        version: 170_005,
        timeline: 1,
        in_recovery,
        lsn: Some(Lsn(1000)),
        received: Some(Lsn(1000)),
        slots,
        ..Pulse::default()
    };
    let feed = |synced| SlotPulse { failover: true, synced, ..slot(FEED_SLOT, "logical") };
    let receiver = Receiver { status: Some("streaming".into()), ..Receiver::default() };
    let primary = pulse(false, vec![slot(STANDBY_SLOT, "physical"), feed(false)]);
    let standby = Pulse { receiver: Some(receiver), ..pulse(true, vec![feed(true)]) };
    Pair {
        registry,
        primary: Ok(Side { pulse: primary, readiness: readiness() }),
        standby: Ok(Side { pulse: standby, readiness: readiness() }),
        plan: Plan::default(),
    }
}

impl Pair {
    fn primary(mut self, change: impl FnOnce(&mut Side)) -> Pair {
        change(self.primary.as_mut().expect("it answers"));
        self
    }

    fn standby(mut self, change: impl FnOnce(&mut Side)) -> Pair {
        change(self.standby.as_mut().expect("it answers"));
        self
    }

    fn with<T>(&self, ask: impl FnOnce(&Evidence<'_>) -> T) -> T {
        ask(&Evidence {
            registry: &self.registry,
            link: &self.registry.links[0],
            primary: self.primary.as_ref().map_err(String::as_str),
            standby: self.standby.as_ref().map_err(String::as_str),
            plan: &self.plan,
            max_lag_bytes: Some(100),
        })
    }

    /// `rule: message` lines.
    fn reasons(&self) -> Vec<String> {
        let reasons = self.with(obstacles).into_iter();
        reasons.map(|reason| format!("{}: {}", reason.rule, reason.message)).collect()
    }
}

fn set(side: &mut Side, name: &str, value: &str) {
    side.readiness.settings.insert(name.into(), value.into());
}

fn slot_of<'a>(side: &'a mut Side, name: &str) -> &'a mut SlotPulse {
    side.pulse.slots.iter_mut().find(|slot| slot.name == name).expect("it is there")
}

fn step(link: LinkId) -> Step {
    Step {
        phase: Phase::Link,
        rule: "ST20",
        link: Some(link),
        node: Some(PARIS),
        operation: Operation::CreatePhysicalSlot { slot: STANDBY_SLOT.into() },
        reason: "keeps the WAL that \"oslo\" has not received yet".into(),
        danger: None,
    }
}

fn conninfo_step() -> Step {
    Step {
        rule: "ST23",
        node: Some(OSLO),
        operation: Operation::SetPrimaryConninfo { conninfo: Default::default() },
        reason: "makes \"oslo\" follow \"paris\"".into(),
        ..step(1)
    }
}

fn problem(kind: ProblemKind, rule: &'static str, link: LinkId) -> Problem {
    let (message, hint) = (format!("{rule} of {link}"), "Act.".to_owned());
    Problem { kind, rule, link: Some(link), node: Some(OSLO), message, hint }
}

/// The change and the one reason that it is.
fn cases() -> Vec<(Pair, &'static str)> {
    let mut cases = cases_of_the_pair();
    cases.extend(cases_of_settings());
    cases.extend(cases_of_slots());
    cases.extend(cases_of_siblings());
    cases
}

fn cases_of_the_pair() -> Vec<(Pair, &'static str)> {
    vec![
        (
            Pair { primary: Err("refused".into()), ..ready() },
            "FR01: node \"paris\" does not answer, so how far the standby is behind is not known: \
             refused",
        ),
        (
            Pair { standby: Err("refused".into()), ..ready() },
            "FR02: node \"oslo\" does not answer: refused",
        ),
        (
            Pair { plan: Plan { steps: vec![step(1)], problems: vec![] }, ..ready() },
            "FR03: not done yet on \"paris\": create slot (keeps the WAL that \"oslo\" has not \
             received yet)",
        ),
        (
            Pair {
                plan: Plan {
                    steps: vec![step(2)],
                    problems: vec![
                        problem(ProblemKind::Refused, "ST08", 1),
                        problem(ProblemKind::Warning, "ST09", 1),
                        problem(ProblemKind::Waiting, "RG03", 1),
                        problem(ProblemKind::Refused, "SU14", 2),
                    ],
                },
                ..ready()
            },
            "FR03: ST08 of 1",
        ),
        (
            ready().standby(|side| side.pulse.receiver = None),
            "FR04: \"oslo\" does not stream from \"paris\"",
        ),
        (
            ready().standby(|side| side.pulse.timeline = 2),
            "FR05: \"oslo\" is on timeline 2, \"paris\" on timeline 1",
        ),
        (
            ready().standby(|side| side.pulse.lsn = Some(Lsn(899))),
            "FR06: \"oslo\" is 101 bytes behind, more than 100 bytes",
        ),
        (
            ready().standby(|side| side.pulse.replay_paused = true),
            "FR07: replay on \"oslo\" is paused",
        ),
        (
            ready().primary(|side| slot_of(side, STANDBY_SLOT).wal_status = Some("lost".into())),
            "FR08: slot \"nodes_3f2504e0_1\" on \"paris\" has lost its WAL",
        ),
    ]
}

fn cases_of_settings() -> Vec<(Pair, &'static str)> {
    vec![
        (
            Pair { plan: Plan { steps: vec![conninfo_step()], problems: vec![] }, ..ready() },
            "FR03: not done yet on \"oslo\": alter setting (makes \"oslo\" follow \"paris\")",
        ),
        (
            ready().standby(|side| set(side, "max_connections", "50")),
            "FR09: max_connections is 50 on \"oslo\", 100 on \"paris\"",
        ),
        (
            ready().standby(|side| set(side, "max_locks_per_transaction", "63")),
            "FR09: max_locks_per_transaction is 63 on \"oslo\", 64 on \"paris\"",
        ),
        (
            ready().standby(|side| set(side, "wal_level", "replica")),
            "FR10: wal_level is replica on \"oslo\", logical on \"paris\"",
        ),
        (
            ready().standby(|side| set(side, "recovery_min_apply_delay", "3600000")),
            "FR14: \"oslo\" replays everything 60 min late (recovery_min_apply_delay)",
        ),
        (
            ready().primary(|side| side.readiness.archive_failing = true),
            "FR11: archiving on \"paris\" fails",
        ),
        (
            ready().primary(|side| side.readiness.archive_backlog = Some(17)),
            "FR11: 17 segments of WAL on \"paris\" are not archived yet",
        ),
        (
            ready().standby(|side| set(side, "archive_mode", "off")),
            "FR12: \"paris\" archives its WAL, \"oslo\" would not",
        ),
    ]
}

fn cases_of_slots() -> Vec<(Pair, &'static str)> {
    vec![
        (
            ready().primary(|side| {
                side.pulse.version = 150_020;
                slot_of(side, FEED_SLOT).failover = false;
            }),
            "FR20: slot \"nodes_3f2504e0_2\" of subscription \"feed\" is lost in a failover of \
             PostgreSQL 15: that rows are missed then cannot be ruled out",
        ),
        (
            ready().primary(|side| slot_of(side, FEED_SLOT).failover = false),
            "FR21: slot \"nodes_3f2504e0_2\" of subscription \"feed\" is not a failover slot: it \
             stays behind",
        ),
        (
            ready().primary(|side| side.pulse.slots.push(slot("theirs", "logical"))),
            "FR21: slot \"theirs\" is not a failover slot: it stays behind",
        ),
        (
            ready().standby(|side| side.pulse.slots.clear()),
            "FR22: on \"oslo\", slot \"nodes_3f2504e0_2\" of subscription \"feed\" is not there yet",
        ),
        (
            ready().standby(|side| slot_of(side, FEED_SLOT).temporary = true),
            "FR22: on \"oslo\", slot \"nodes_3f2504e0_2\" of subscription \"feed\" is not ready yet",
        ),
        (
            ready().standby(|side| set(side, "sync_replication_slots", "off")),
            "FR23: sync_replication_slots is off on \"oslo\", and failover slots need it",
        ),
        (
            ready().standby(|side| set(side, "hot_standby_feedback", "off")),
            "FR23: hot_standby_feedback is off on \"oslo\", and failover slots need it",
        ),
        (
            ready().primary(|side| set(side, "synchronized_standby_slots", "other")),
            "FR24: synchronized_standby_slots on \"paris\" does not name \"nodes_3f2504e0_1\": a \
             subscriber may get ahead of \"oslo\"",
        ),
    ]
}

/// Rome follows paris too, and oslo keeps a slot for it.
fn with_sibling() -> Pair {
    let mut trio = ready()
        .primary(|side| side.pulse.slots.push(slot(ROME_SLOT, "physical")))
        .standby(|side| side.pulse.slots.push(slot(ROME_SLOT, "physical")));
    trio.registry.nodes.insert(ROME, Node { id: ROME, name: "rome".into(), ..Node::default() });
    let spec = Spec::Standby(StandbySpec::new(true));
    trio.registry.links.push(link(3, "rome", PARIS, ROME, spec));
    trio
}

fn cases_of_siblings() -> Vec<(Pair, &'static str)> {
    let keep = Step {
        rule: "RG15",
        link: None,
        node: Some(OSLO),
        operation: Operation::CreatePhysicalSlot { slot: ROME_SLOT.into() },
        reason: "lets \"rome\" follow \"oslo\" after a failover".into(),
        ..step(3)
    };
    // What other members lack is not of this standby.
    let other = Step { node: Some(PARIS), ..keep.clone() };
    let plan = |steps, problems| Pair { plan: Plan { steps, problems }, ..with_sibling() };
    vec![
        (
            plan(vec![keep, other], vec![]),
            "FR13: not done yet on \"oslo\": create slot (lets \"rome\" follow \"oslo\" after a \
             failover)",
        ),
        (plan(vec![], vec![problem(ProblemKind::Warning, "RG15", 3)]), "FR13: RG15 of 3"),
        (
            with_sibling()
                .standby(|side| slot_of(side, ROME_SLOT).wal_status = Some("lost".into())),
            "FR13: slot \"nodes_3f2504e0_3\" for \"rome\" on \"oslo\" has lost its WAL",
        ),
        (
            with_sibling()
                .standby(|side| slot_of(side, ROME_SLOT).wal_status = Some("unreserved".into())),
            "FR13: slot \"nodes_3f2504e0_3\" for \"rome\" on \"oslo\" loses its WAL at the next \
             checkpoint",
        ),
    ]
}

#[test]
fn a_kept_sibling_is_no_obstacle() {
    assert_eq!(with_sibling().reasons(), [""; 0]);
}

#[test]
fn a_ready_pair_has_no_obstacle() {
    assert_eq!(ready().reasons(), [""; 0]);
    assert_eq!(ready().with(lag_bytes), Some(0));
}

#[test]
fn every_rule_fires_in_its_case() {
    for (pair, expected) in cases() {
        assert_eq!(pair.reasons(), [expected]);
    }
}

#[test]
fn every_rule_has_a_case_and_a_hint() {
    let cases = cases();
    let with_case: BTreeSet<&str> =
        cases.iter().filter_map(|(_, line)| Some(line.split_once(':')?.0)).collect();
    for rule in rules().iter().filter(|rule| rule.purpose == "failover") {
        assert!(with_case.contains(rule.id), "no case for {} ({})", rule.id, rule.when);
    }
    for (pair, line) in &cases {
        for reason in pair.with(obstacles) {
            assert!(reason.hint.ends_with('.'), "{line}: hint {:?}", reason.hint);
        }
    }
}

#[test]
fn reasons_add_up() {
    let both = ready()
        .primary(|side| side.readiness.archive_failing = true)
        .standby(|side| set(side, "max_connections", "50"));
    assert_eq!(both.reasons().len(), 2);
}

/// A row for each logical slot, its own reasons in it; one that goes with its session or its link is
/// none.
#[test]
fn each_logical_slot_has_its_own_reasons() {
    let pair = ready()
        .primary(|side| {
            let theirs = SlotPulse { failover: true, ..slot("theirs", "logical") };
            let of_session = SlotPulse { temporary: true, ..slot("of_session", "logical") };
            side.pulse.slots.extend([theirs, of_session]);
        })
        .standby(|side| set(side, "max_connections", "50"));
    let lines = |pair: &Pair| {
        pair.with(|evidence| {
            let line = |(found, reasons): (LogicalSlot<'_>, Vec<Reason>)| {
                let rules: Vec<_> = reasons.iter().map(|reason| reason.rule).collect();
                format!("{} {:?} {}", found.slot.name, found.subscription, rules.join(" "))
            };
            logical_slots(evidence).into_iter().map(line).collect::<Vec<_>>()
        })
    };
    assert_eq!(lines(&pair), ["nodes_3f2504e0_2 Some(\"feed\") ", "theirs None FR22"]);
    let mut leaving = pair;
    leaving.registry.links[1].state = LinkState::Removing;
    assert_eq!(lines(&leaving), ["theirs None FR22"]);
}

/// Without a logical slot nothing is asked of them, and the lists may name others too.
#[test]
fn settings_for_slots_matter_to_slots_only() {
    let pair = ready()
        .primary(|side| {
            set(side, "synchronized_standby_slots", "");
            side.pulse.slots.retain(|slot| slot.kind == "physical");
        })
        .standby(|side| set(side, "sync_replication_slots", "off"));
    assert_eq!(pair.reasons(), [""; 0]);
    let several = format!("other, \"{STANDBY_SLOT}\"");
    let several = ready().primary(|side| set(side, "synchronized_standby_slots", &several));
    assert_eq!(several.reasons(), [""; 0]);
}

/// A standby that somebody else manages reads a slot of any name.
#[test]
fn an_unmanaged_standby_is_guarded_by_its_own_slot() {
    let reads = |guard: &str| {
        let mut pair = ready()
            .primary(|side| {
                set(side, "synchronized_standby_slots", guard);
                slot_of(side, STANDBY_SLOT).name = "oslo".into();
            })
            .standby(|side| {
                let receiver = side.pulse.receiver.as_mut().expect("it receives");
                receiver.slot_name = Some("oslo".into());
            });
        pair.registry.links[0].spec = Spec::Standby(StandbySpec::unmanaged());
        pair
    };
    assert_eq!(reads("oslo").reasons(), [""; 0]);
    let ahead = "FR24: synchronized_standby_slots on \"paris\" does not name \"oslo\": a subscriber \
                 may get ahead of \"oslo\"";
    assert_eq!(reads("").reasons(), [ahead]);
    let hint = reads("").with(obstacles).remove(0).hint;
    assert_eq!(hint, "Have what manages the group set that.");
}
