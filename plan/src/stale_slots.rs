//! Slots that links have left behind on members of a group: when another member became the
//! primary, what they carried goes on from there, and nobody reads them again.

use crate::desired::{LinkId, Node, NodeId, Registry, Spec};
use crate::index::{Index, Indexed};
use crate::name::Mark;
use crate::observed::Slot;
use crate::others::Others;
use crate::step::{Operation, Phase, Plan, Step};

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
    if !is_settled(node.id, index, others) {
        return vec![];
    }
    let prefix = Mark::slot_prefix(&registry.id);
    let drop = |slot: &Slot| {
        let link = slot.name.strip_prefix(&prefix)?.parse().ok()?;
        // A standby that follows another server already is just about to let go.
        let leaves = slot.kind == "physical" && is_right(link, so_far);
        if slot.synced || slot.active && !leaves {
            return None;
        }
        is_left_behind(registry, node.id, facts, slot, link).then(|| Step {
            phase: Phase::Finish,
            rule: "RG08",
            link: Some(link),
            node: Some(node.id),
            operation: Operation::DropSlot { slot: slot.name.clone() },
            reason: "its link reads from another node of the group now".to_owned(),
            danger: None,
        })
    };
    facts.slots.iter().filter_map(drop).collect()
}

/// Whether the plan has nothing for a link.
fn is_right(link: LinkId, plan: &Plan) -> bool {
    let steps = plan.steps.iter().all(|step| step.link != Some(link));
    steps && plan.problems.iter().all(|problem| problem.link != Some(link))
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

/// A link that leads to the node may be about to turn round: its slot is made before that.
fn is_left_behind(
    registry: &Registry,
    node: NodeId,
    facts: &Indexed<'_>,
    slot: &Slot,
    link: LinkId,
) -> bool {
    let elsewhere = registry.link(link).filter(|link| link.from != node && link.to != node);
    elsewhere.is_some_and(|link| match link.spec {
        Spec::Standby(_) => slot.kind == "physical",
        // It would keep the slot that is copied from the primary away.
        Spec::Subscription(_) => slot.kind == "logical" && facts.in_recovery,
        Spec::Foreign(_) => false,
    })
}
