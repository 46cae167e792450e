//! Slots that members of a group keep for those that follow another member: whoever takes the
//! primary's place has the WAL that the others still need, and nobody is cloned anew. Nobody
//! reads them before, so that they must be moved on ([`behind`]).

use crate::desired::{Link, LinkId, Node, NodeId, Registry, Spec};
use crate::group::Group;
use crate::index::{Index, Indexed};
use crate::lsn::Lsn;
use crate::name::Mark;
use crate::observed::{NodeFacts, Slot};
use crate::others::Others;
use crate::pulse::Pulse;
use crate::refuse::raise;
use crate::step::{Operation, Phase, Plan, Problem, ProblemKind, Step};

const LIMIT: &str = "max_replication_slots";

/// A slot is moved on once it keeps so many bytes of WAL that nobody needs: a segment.
const SLACK: u64 = 16 * 1024 * 1024;

/// What makes the slots that one node lacks, for others to follow it one day.
pub(crate) fn plan_node(
    registry: &Registry,
    node: &Node,
    index: &Index<'_>,
    others: &Others<'_>,
    plan: &mut Plan,
) {
    let Some(facts) = index.get(node.id).filter(|facts| facts.can_replicate) else { return };
    let group = others.groups.get(node.id).filter(|group| is_member(group, node.id, facts));
    let Some(group) = group.filter(|_| registry.is_watched) else { return };
    let is_missing = |link: &&Link| {
        let slot = registry.mark(link).slot_name();
        let is_made = index.get(link.from).is_some_and(|source| source.slot(&slot).is_some());
        is_made && is_wanted(link, node.id) && facts.slot(&slot).is_none()
    };
    let mut room = room(facts, others, node.id);
    for link in group.links.iter().copied().filter(is_missing) {
        if room <= 0 {
            plan.problems.push(no_room(registry, node, facts, link));
            continue;
        }
        room -= 1;
        let slot = registry.mark(link).slot_name();
        let reason = format!(
            "lets \"{}\" follow \"{}\" after a failover",
            registry.node_name(link.to),
            node.name
        );
        plan.steps.push(Step {
            phase: Phase::Finish,
            rule: "RG15",
            link: None,
            node: Some(node.id),
            operation: Operation::CreatePhysicalSlot { slot },
            reason,
            danger: None,
        });
    }
}

/// Whether the follower of a link would follow this node if the two of the link part.
pub(crate) fn is_wanted(link: &Link, node: NodeId) -> bool {
    link.from != node && link.to != node && has_slot(link)
}

fn has_slot(link: &Link) -> bool {
    matches!(&link.spec, Spec::Standby(spec) if spec.slot)
}

/// Whether a node has the place in its group that the registry says.
fn is_member(group: &Group<'_>, node: NodeId, facts: &NodeFacts) -> bool {
    if group.is_primary(node) {
        return !facts.in_recovery;
    }
    let primary = group.members.first().map(|primary| primary.id);
    facts.in_recovery && primary.is_some_and(|primary| group.is_same(primary, node) == Some(true))
}

/// Whether a node keeps the slot of a link between two others on purpose.
pub(crate) fn keeps(
    registry: &Registry,
    group: Option<&Group<'_>>,
    node: NodeId,
    link: &Link,
    slot: &Slot,
) -> bool {
    let is_lost = slot.wal_status.as_deref() == Some("lost");
    let in_group = group.is_some_and(|group| group.links.iter().any(|other| other.id == link.id));
    registry.is_watched && in_group && is_wanted(link, node) && !is_lost
}

/// Which link a slot is made for, by its name.
pub(crate) fn link_of(registry: &Registry, slot: &str) -> Option<LinkId> {
    slot.strip_prefix(&Mark::slot_prefix(&registry.id))?.parse().ok()
}

/// How many slots are left when all links have theirs.
fn room(facts: &Indexed<'_>, others: &Others<'_>, node: NodeId) -> i64 {
    let Some(limit) = facts.number(LIMIT) else { return i64::MAX };
    let account = others.ledger.account(node);
    let used = facts.slots.len() as i64;
    let end = used - account.freed.slots + account.promised.slots;
    limit - end.max(used + account.taken.slots)
}

fn no_room(registry: &Registry, node: &Node, facts: &NodeFacts, link: &Link) -> Problem {
    let follower = registry.node_name(link.to);
    Problem {
        kind: ProblemKind::Warning,
        rule: "RG15",
        link: Some(link.id),
        node: Some(node.id),
        message: format!(
            "{LIMIT} on node \"{}\" leaves no slot for \"{follower}\", which may have to be cloned \
             anew if \"{}\" takes over",
            node.name, node.name
        ),
        hint: raise(LIMIT, facts.slots.len() as i64 + 1),
    }
}

/// The slots of a node that nobody reads yet and that keep more WAL than needed, each with the
/// position that those it is for have reached. `pulse_of` gives `None` for a node that does not
/// answer.
pub fn behind<'a>(
    registry: &Registry,
    node: NodeId,
    pulse_of: impl Fn(NodeId) -> Option<&'a Pulse>,
) -> Vec<(String, Lsn)> {
    let Some(pulse) = pulse_of(node) else { return vec![] };
    let candidates = pulse.slots.iter().filter(|slot| slot.kind == "physical" && !slot.active);
    let mut behind = Vec::new();
    for slot in candidates {
        let link = link_of(registry, &slot.name).and_then(|id| registry.link(id));
        let Some(link) = link.filter(|link| is_wanted(link, node)) else { continue };
        let source = pulse_of(link.from)
            .filter(|source| source.system_identifier == pulse.system_identifier);
        let reached = source.and_then(|source| source.slot(&slot.name)?.restart_lsn);
        if let (Some(reached), Some(kept)) = (reached, slot.restart_lsn)
            && reached.0.saturating_sub(kept.0) >= SLACK
        {
            behind.push((slot.name.clone(), reached));
        }
    }
    behind
}
