//! Slots that links have left behind on members of a group: when another member became the
//! primary, what they carried goes on from there, and nobody reads them again. Those that are
//! kept for siblings ([`crate::siblings`]) are none.

use crate::desired::{Link, LinkState, Node, NodeId, Registry, Spec};
use crate::group::Group;
use crate::index::{Index, Indexed};
use crate::observed::Slot;
use crate::others::Others;
use crate::siblings::{self, link_of};
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
