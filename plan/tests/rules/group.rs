//! What the members of a group keep for each other, and groups that others manage.

use crate::case::*;
use nodes_plan::desired::*;
use nodes_plan::observed::*;
use nodes_plan::plan;
use nodes_plan::step::Operation;
use std::collections::{BTreeMap, BTreeSet};

/// Paris with oslo and rome, which keep a slot for each other.
pub fn siblings() -> Case {
    let mut case = Case::standby_made();
    case.registry.is_watched = true;
    let node = Node { id: ROME, name: "rome".into(), ..case.registry.nodes[&OSLO].clone() };
    case.registry.nodes.insert(ROME, Node { conninfo: conninfo("rome"), ..node });
    let link = Link { id: 2, name: "rome".into(), to: ROME, ..case.registry.links[0].clone() };
    case.registry.links.push(link);
    let rome = case.facts[&OSLO].clone();
    case.facts.insert(ROME, rome);
    case.with(PARIS, |f| f.slots.push(physical(2)))
        .with(OSLO, |f| f.slots.push(physical(2)))
        .with(ROME, |f| f.slots.push(physical(1)))
}

pub fn sibling_cases() -> Vec<(&'static str, Case, &'static str)> {
    let leaving = || {
        let mut case = siblings();
        case.registry.links[1].state = LinkState::Removing;
        let case = case.with(PARIS, |f| drop(f.slots.pop()));
        case.with(ROME, |f| {
            f.slots.clear();
            let facts = NodeFacts::default();
            (f.settings, f.file_settings) = (facts.settings, Some(BTreeMap::new()));
            (f.primary_conninfo, f.primary_conninfo_file, f.passfile) = (None, None, None);
        })
    };
    let mut unwatched = siblings();
    unwatched.registry.is_watched = false;
    vec![
        (
            "RG15",
            siblings().with(OSLO, |f| f.slots.clear()),
            "oslo: SELECT pg_catalog.pg_create_physical_replication_slot('nodes_3f2504e0_2', true)",
        ),
        (
            "RG15",
            siblings().with(OSLO, |f| {
                f.slots.clear();
                f.settings.insert("max_replication_slots".into(), "0".into());
            }),
            "leaves no slot for \"rome\", which may have to be cloned anew if \"oslo\" takes over",
        ),
        ("RG14", unwatched, "pg_drop_replication_slot('nodes_3f2504e0_1')"),
        (
            "RG14",
            siblings().with(OSLO, |f| f.slots[0].wal_status = Some("lost".into())),
            "pg_drop_replication_slot('nodes_3f2504e0_2')",
        ),
        ("RG14", leaving(), "pg_drop_replication_slot('nodes_3f2504e0_2')"),
        (
            "RG14",
            leaving().silent(OSLO),
            "\"oslo\" did not answer: it may keep a slot for \"rome\"",
        ),
        (
            "RG14",
            leaving().with(OSLO, |f| f.can_replicate = false),
            "on node \"oslo\" may not drop slots",
        ),
        (
            "RG14",
            leaving().with(OSLO, |f| f.slots[0].active = true),
            "somebody reads slot \"nodes_3f2504e0_2\", which \"oslo\" kept for another",
        ),
    ]
}

/// Paris and oslo as a failover manager has set them up, to which london is subscribed.
pub fn unmanaged() -> Case {
    let case = Case::new(PARIS, OSLO, Spec::Standby(StandbySpec::unmanaged()));
    let theirs = map(&[("sync_replication_slots", "on"), ("hot_standby_feedback", "on")]);
    let guard = map(&[("synchronized_standby_slots", "oslo")]);
    let slot = || Slot { name: "oslo".into(), kind: "physical".into(), ..Slot::default() };
    let mut case = case.and_subscribed().with(PARIS, |f| {
        f.slots.push(slot());
        f.settings.extend(guard.clone());
    });
    // What is not in force yet is put in force by whom it is.
    case.registry.is_watched = true;
    case.with(OSLO, |f| f.settings.extend(theirs))
}

pub fn unmanaged_cases() -> Vec<(&'static str, Case, &'static str)> {
    let copy = |failover| {
        let slot = Slot { failover, ..left_behind() };
        unmanaged().with(OSLO, |f| f.slots.push(slot))
    };
    vec![
        (
            "ST50",
            unmanaged().with(OSLO, |f| f.system_identifier = "79".into()),
            "node \"oslo\" is not a clone of \"paris\"",
        ),
        (
            "ST51",
            unmanaged().with(OSLO, |f| f.in_recovery = false),
            "\"oslo\" is a primary now, and links still follow \"paris\"",
        ),
        (
            "ST52",
            unmanaged().with(OSLO, |f| drop(f.settings.remove("sync_replication_slots"))),
            "sync_replication_slots is off on \"oslo\" — Have what manages the group set that.",
        ),
        // An old one of ours that keeps the copy away.
        ("RG14", copy(true), "pg_drop_replication_slot(\'nodes_3f2504e0_2\')"),
        ("RG03", unmanaged().silent(OSLO), "Start it, or correct its address"),
    ]
}

/// Nothing is done on a member but what a subscription or a foreign schema needs there.
#[test]
fn what_others_manage_stays_as_it_is() {
    let on_members = |case: &Case| {
        let steps = case.plan().steps.into_iter();
        let members = steps.filter(|step| [Some(PARIS), Some(OSLO)].contains(&step.node));
        members.map(|step| step.rule).collect::<BTreeSet<_>>()
    };
    let made = unmanaged();
    assert_eq!(on_members(&made), BTreeSet::from(["SU20", "SU23"]), "{:#?}", made.lines());
    // Before 17 the manager has copies of its own of the slot.
    let copied = unmanaged().with(OSLO, |f| f.slots.push(left_behind()));
    assert_eq!(on_members(&copied), on_members(&made));
    let leaves = unmanaged().removing();
    assert!(leaves.lines().iter().any(|line| line.contains("DELETE FROM nodes.link WHERE id = 1")));
    let failover =
        unmanaged().plan().steps.into_iter().any(|step| {
            matches!(step.operation, Operation::CreateLogicalSlot { failover: true, .. })
        });
    assert!(failover, "the slot of the subscription is to survive");
}

#[test]
fn nobody_keeps_a_slot_in_vain() {
    let case = siblings();
    let steps = plan(&case.registry, &case.world()).steps;
    let shared: Vec<_> = steps.iter().filter(|step| step.rule.starts_with("RG")).collect();
    assert!(shared.is_empty(), "{shared:#?}");
}

/// The slot of the subscription, on a standby.
pub fn left_behind() -> Slot {
    let (name, kind) = ("nodes_3f2504e0_2".into(), "logical".into());
    Slot { name, kind, ..Slot::default() }
}

#[test]
fn a_slot_on_a_member_stays_while_it_may_be_of_use() {
    let dropped = |change: fn(&mut Slot), on: NodeId, facts: fn(&mut NodeFacts)| {
        let mut slot = left_behind();
        change(&mut slot);
        let case = Case::standby_made().and_subscribed().with(OSLO, |f| f.slots.push(slot));
        case.with(on, facts).plan().steps.iter().any(|step| step.rule == "RG14")
    };
    let same = |_: &mut NodeFacts| {};
    assert!(dropped(|_| {}, OSLO, same));
    assert!(!dropped(|slot| slot.synced = true, OSLO, same), "a copy of the primary's");
    assert!(!dropped(|slot| slot.active = true, OSLO, same));
    assert!(!dropped(|slot| slot.name = SLOT.into(), OSLO, same), "oslo may be to hand over");
    assert!(!dropped(|slot| slot.name = "nodes_3f2504e0_9".into(), OSLO, same), "of no link");
    assert!(!dropped(|_| {}, PARIS, |f| f.in_recovery = true), "nobody leads");
    assert!(!dropped(|_| {}, OSLO, |f| f.timeline = 7), "the registry is of old");
}
