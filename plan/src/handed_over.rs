//! A switchover that was interrupted when the new primary was one already, and before the registry
//! said so.

use crate::desired::{Link, NodeId, Registry};
use crate::index::Index;
use crate::others::Others;
use crate::promotion::{Change, OldPrimary, relink, standby_links};
use crate::step::{Operation, Phase, Step};

/// Has the registry say what the servers show.
pub(crate) fn plan(registry: &Registry, index: &Index<'_>, others: &Others<'_>) -> Vec<Step> {
    let turned = standby_links(registry)
        .find_map(|link| Some((link, turned_round(registry, link, index, others)?)));
    let Some((turned, old)) = turned else { return vec![] };
    let mut moves: Vec<Operation> = relink(registry, old, turned.to, OldPrimary::Follows)
        .into_iter()
        .filter_map(|change| match change {
            Change::Move { link, from, to } => Some(Operation::MoveLink { link, from, to }),
            Change::Forget { .. } => None,
        })
        .collect();
    // It tells what is to be done: it goes last.
    moves
        .sort_by_key(|step| matches!(step, Operation::MoveLink { link, .. } if *link == turned.id));
    let (old, new) = (registry.node_name(old), registry.node_name(turned.to));
    let step = |operation| Step {
        phase: Phase::Finish,
        rule: "RG16",
        link: None,
        node: None,
        operation,
        reason: format!("\"{new}\" is the primary now, and \"{old}\" follows it"),
        danger: None,
    };
    moves.into_iter().map(step).collect()
}

/// The old primary, where it follows the standby of this link by its mark: nothing but a switchover
/// has it do that.
fn turned_round(
    registry: &Registry,
    link: &Link,
    index: &Index<'_>,
    others: &Others<'_>,
) -> Option<NodeId> {
    let primary = others.groups.get(link.to)?.members.first()?.id;
    let (old, new) = (index.get(primary)?, index.get(link.to)?);
    let mark = registry.mark(link).slot_name();
    let follows = old.primary_conninfo.as_ref()?.get("application_name") == Some(&mark);
    let turned = follows
        && old.in_recovery
        && !new.in_recovery
        && old.system_identifier == new.system_identifier
        && old.timeline <= new.timeline;
    turned.then_some(primary)
}
