//! The health of links: a case for every rule, every combination of facts, and which changes
//! become events.
//!
//! `SEEDS=100000` runs more random histories, `SEED=17` one. The failing seed is printed.

mod case;
#[path = "../common/mod.rs"]
mod common;
mod watch;

use case::*;
use nodes_plan::clone::copier;
use nodes_plan::desired::*;
use nodes_plan::link_health::*;
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::*;
use nodes_plan::rules;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
