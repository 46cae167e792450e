//! `synchronized_standby_slots` of a primary, from 17 on: with it no subscriber gets ahead of the
//! standbys that may take over. One setting for all standbys of a node: what a person put there
//! stays, what is named there by our prefix is ours.

use crate::desired::{Link, LinkId, Node, NodeId, Registry, Spec};
use crate::group::Group;
use crate::index::Indexed;
use crate::name::Mark;
use crate::observed::NodeFacts;
use crate::others::Others;
use crate::step::{Operation, Phase, Step};
use std::collections::BTreeSet;

pub(crate) const SETTING: &str = "synchronized_standby_slots";

/// What makes the setting right on one node. It comes first: a slot that it names must be there,
/// so a new one is named in the plan after the one that makes it, and a slot that goes is taken
/// out before.
pub(crate) fn plan_node(
    registry: &Registry,
    node: &Node,
    facts: &Indexed<'_>,
    others: &Others<'_>,
) -> Vec<Step> {
    let Some(files) = facts.file_settings.as_ref().filter(|_| can_set(facts)) else {
        return vec![];
    };
    // Its manager decides what waits for whom.
    if others.groups.get(node.id).is_some_and(Group::is_unmanaged) {
        return vec![];
    }
    let ours = wanted(node.id, facts, others, registry);
    let prefix = Mark::slot_prefix(&registry.id);
    let in_files = files.get(SETTING).map_or("", String::as_str);
    // Whose slot is named, or is to be: when it cannot be done, that link is not right.
    let mut named = ours.iter().map(String::as_str).chain(names(in_files));
    let link = named.find_map(|name| name.strip_prefix(&prefix)?.parse().ok());
    let link = link.filter(|link: &LinkId| registry.link(*link).is_some());
    let theirs = names(in_files).filter(|name| !name.starts_with(&prefix)).map(str::to_owned);
    let wanted: Vec<String> = theirs.chain(ours.iter().cloned()).collect();
    let step = |operation, reason: &str| Step {
        phase: Phase::Prepare,
        rule: "RG07",
        link,
        node: Some(node.id),
        operation,
        reason: reason.to_owned(),
        danger: None,
    };
    let mut steps = Vec::new();
    // In whatever order a person has put them.
    let listed: BTreeSet<&str> = names(in_files).collect();
    if listed != wanted.iter().map(String::as_str).collect() {
        let value = (!wanted.is_empty()).then(|| wanted.join(", "));
        let reason = match value {
            Some(_) => "subscribers get nothing that these standbys, which may take over, lack",
            None => "no standby keeps slots of subscriptions any more",
        };
        steps.push(step(Operation::AlterSystem { setting: SETTING, value }, reason));
    }
    let in_force = facts.setting(SETTING).unwrap_or_default();
    if !steps.is_empty() || !names(in_force).eq(names(in_files)) {
        steps.push(step(Operation::Reload, "puts the setting in force"));
    }
    steps
}

fn can_set(facts: &NodeFacts) -> bool {
    facts.has_failover_slots()
        && facts.superuser
        && facts.setting("allow_alter_system") != Some("off")
}

/// Whether subscribers wait for a slot and nobody may tell them not to: without it they would for
/// ever.
pub(crate) fn is_awaited(facts: &NodeFacts, slot: &str) -> bool {
    let in_force = facts.setting(SETTING).unwrap_or_default();
    !can_set(facts) && names(in_force).any(|name| name == slot)
}

/// The slots to name.
fn wanted(
    node: NodeId,
    facts: &Indexed<'_>,
    others: &Others<'_>,
    registry: &Registry,
) -> BTreeSet<String> {
    let group = others.groups.get(node).filter(|group| group.is_primary(node));
    let Some(group) = group.filter(|group| group.keeps_slots() && !facts.in_recovery) else {
        return BTreeSet::new();
    };
    let has_slot = |link: &&&Link| matches!(&link.spec, Spec::Standby(spec) if spec.slot);
    let direct = group.links.iter().filter(|link| link.from == node).filter(has_slot);
    let slots = direct.map(|link| registry.mark(link).slot_name());
    slots.filter(|slot| facts.slot(slot).is_some()).collect()
}

/// The names that such a list holds.
pub(crate) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty())
}
