//! Slots that links have left behind on members of a group: when another member became the
//! primary, what they carried goes on from there, and nobody reads them again. Those that are
//! kept for siblings ([`crate::siblings`]) are none.

use crate::desired::{Link, LinkState, Node, NodeId, Registry, Spec};
use crate::group::Group;
use crate::index::{Index, Indexed};
use crate::observed::Slot;
use crate::others::Others;
use crate::refuse::cannot_drop_slot;
use crate::rule::Verdict;
use crate::siblings::{self, link_of};
use crate::step::{Operation, Phase, Plan, Step};
use std::collections::BTreeSet;

/// What drops them on one node; `so_far` is what the plan has for the links.
pub(crate) fn plan_node(
    registry: &Registry,
    node: &Node,
    index: &Index<'_>,
    others: &Others<'_>,
    so_far: &Plan,
) -> Vec<Step> {
    let Some(facts) = index.get(node.id).filter(|facts| facts.can_replicate) else {
        return vec![];
    };
    let drop = |slot: &Slot| Step {
        phase: Phase::Prepare,
        rule: "RG14",
        link: None,
        node: Some(node.id),
        operation: Operation::DropSlot { slot: slot.name.clone() },
        reason: "nobody will read it here".to_owned(),
        danger: None,
    };
    let stale = |slot: &&Slot| {
        // A standby that follows another server already is just about to let go.
        let leaves = || slot.kind == "physical" && is_right(registry, slot, so_far);
        let is_free = !slot.active || leaves();
        is_free && is_stale(registry, node, facts, slot, index, others) == Some(true)
    };
    facts.slots.iter().filter(stale).map(drop).collect()
}

/// Whether a slot that was left behind may be dropped by now; `None`: it was not left behind.
pub(crate) fn is_stale(
    registry: &Registry,
    node: &Node,
    facts: &Indexed<'_>,
    slot: &Slot,
    index: &Index<'_>,
    others: &Others<'_>,
) -> Option<bool> {
    // One that no link has may be of a link that is being made this moment. One that leads to the
    // node may be about to turn round: its slot is made before that.
    let link = link_of(registry, &slot.name).and_then(|id| registry.link(id));
    // A copy that a standby makes of a slot of its primary comes and goes with that.
    let link = link.filter(|link| link.from != node.id && link.to != node.id && !slot.synced)?;
    let may_go = || link.state == LinkState::Removing || is_settled(link.from, index, others);
    is_left_behind(registry, node, facts, link, slot, others).then(may_go)
}

/// Whether the plan has nothing for the link of a slot.
fn is_right(registry: &Registry, slot: &Slot, plan: &Plan) -> bool {
    let link = link_of(registry, &slot.name);
    let steps = plan.steps.iter().all(|step| step.link != link);
    steps && plan.problems.iter().all(|problem| problem.link != link)
}

/// Whether the primary of the node's group is who the registry says, and nobody has gone past it.
fn is_settled(node: NodeId, index: &Index<'_>, others: &Others<'_>) -> bool {
    let Some((primary, standbys)) = others.groups.get(node).and_then(|g| g.members.split_first())
    else {
        return false;
    };
    let standbys = || standbys.iter().filter_map(|standby| index.get(standby.id));
    index.get(primary.id).is_some_and(|primary| {
        !primary.in_recovery
            && standbys().all(|other| other.in_recovery && other.timeline <= primary.timeline)
    })
}

fn is_left_behind(
    registry: &Registry,
    node: &Node,
    facts: &Indexed<'_>,
    link: &Link,
    slot: &Slot,
    others: &Others<'_>,
) -> bool {
    match link.spec {
        Spec::Standby(_) => {
            let group = others.groups.get(node.id);
            slot.kind == "physical" && !siblings::keeps(registry, group, node.id, link, slot)
        }
        // It would keep the slot that is copied from the primary away. A failover manager copies
        // slots in its own way, failover slots excepted.
        Spec::Subscription(_) => {
            let unmanaged = others.groups.get(node.id).is_some_and(Group::is_unmanaged);
            slot.kind == "logical" && facts.in_recovery && (!unmanaged || slot.failover)
        }
        Spec::Foreign(_) => false,
    }
}

/// What a removed link may have left on nodes that are none of its two.
pub(crate) enum Left {
    Nothing,
    /// A slot, which this plan drops.
    Slot,
    /// A slot, known or not, that no plan drops as things are.
    Held(Box<Verdict>),
}

/// Looks on all members of the group in which a removed link was for its slot, and on its two nodes
/// for slots that they have kept for others.
pub(crate) fn left(
    registry: &Registry,
    index: &Index<'_>,
    others: &Others<'_>,
    link: &Link,
) -> Left {
    if !matches!(link.spec, Spec::Standby(_)) {
        return Left::Nothing;
    }
    let own = registry.mark(link).slot_name();
    let mut left = Left::Nothing;
    for node in connected(registry, link).iter().filter_map(|id| registry.nodes.get(id)) {
        let is_end = node.id == link.from || node.id == link.to;
        let Some(facts) = index.get(node.id) else {
            if registry.is_watched && !node.gone && !is_end {
                let follower = registry.node_name(link.to);
                left = Left::Held(Box::new(unheard(node, follower)));
            }
            continue;
        };
        let stale = |slot: &Slot| is_stale(registry, node, facts, slot, index, others);
        // On the two ends its own slot is seen to by its own rules.
        let is_left = |slot: &&Slot| if is_end { stale(slot).is_some() } else { slot.name == own };
        if let Some(slot) = facts.slots.iter().find(is_left) {
            let held = if slot.active {
                Some(read(node, &slot.name))
            } else if stale(slot) == Some(false) {
                Some(unsettled(node, &slot.name))
            } else {
                cannot_drop_slot(node, facts)
            };
            return held.map_or(Left::Slot, |verdict| Left::Held(Box::new(verdict)));
        }
    }
    left
}

fn unsettled(node: &Node, slot: &str) -> Verdict {
    let message =
        format!("\"{}\" keeps slot \"{slot}\" until one primary leads its group", node.name);
    Verdict::wait(node.id, message, "See nodes.failover_ready and nodes.status.")
}

fn unheard(node: &Node, follower: &str) -> Verdict {
    let message =
        format!("\"{}\" did not answer: it may keep a slot for \"{follower}\"", node.name);
    let hint = "Run nodes.apply() when it answers again, or nodes.forget_node() if it never will.";
    Verdict::wait(node.id, message, hint)
}

fn read(node: &Node, slot: &str) -> Verdict {
    let message =
        format!("somebody reads slot \"{slot}\", which \"{}\" kept for another", node.name);
    Verdict::wait(node.id, message, "End its reader there.")
}

/// The nodes that follow, lead, or did so by links that are not forgotten yet.
fn connected(registry: &Registry, link: &Link) -> BTreeSet<NodeId> {
    let standbys = || registry.links.iter().filter(|link| matches!(link.spec, Spec::Standby(_)));
    let mut found = BTreeSet::from([link.from]);
    let mut next = vec![link.from];
    while let Some(node) = next.pop() {
        let ends = standbys().filter(|link| link.from == node || link.to == node);
        next.extend(ends.flat_map(|link| [link.from, link.to]).filter(|id| found.insert(*id)));
    }
    found
}
