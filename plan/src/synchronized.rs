//! `synchronized_standby_slots` of a primary, from 17 on: with it no subscriber gets ahead of the
//! standbys that may take over. One setting for all standbys of a node: what a person put there
//! stays, what is named there by our prefix is ours.

use crate::desired::{LinkId, LinkState, Node, NodeId, Registry, Spec};
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
    let (ours, link) = wanted(node.id, facts, others, registry);
    let prefix = Mark::slot_prefix(&registry.id);
    let in_files = files.get(SETTING).map_or("", String::as_str);
    let theirs = names(in_files).filter(|name| !name.starts_with(&prefix)).map(str::to_owned);
    let wanted: Vec<String> = theirs.chain(ours).collect();
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
    if !names(in_files).eq(wanted.iter().map(String::as_str)) {
        let value = (!wanted.is_empty()).then(|| wanted.join(", "));
        let set = Operation::AlterSystem { setting: SETTING, value };
        steps.push(step(set, "subscribers wait for these standbys, which may take over"));
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

/// The slots to name, and the first link that wants one.
fn wanted(
    node: NodeId,
    facts: &Indexed<'_>,
    others: &Others<'_>,
    registry: &Registry,
) -> (BTreeSet<String>, Option<LinkId>) {
    let group = others.groups.get(node).filter(|group| group.is_primary(node));
    let Some(group) = group.filter(|group| group.keeps_slots() && !facts.in_recovery) else {
        return (BTreeSet::new(), None);
    };
    let mut link = None;
    let mut slots = BTreeSet::new();
    for standby in group.links.iter().filter(|l| l.from == node && l.state != LinkState::Removing) {
        let wants = matches!(&standby.spec, Spec::Standby(spec) if spec.slot);
        let slot = registry.mark(standby).slot_name();
        if wants && facts.slot(&slot).is_some() {
            link = link.or(Some(standby.id));
            slots.insert(slot);
        }
    }
    (slots, link)
}

/// The names that such a list holds.
pub(crate) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty())
}
