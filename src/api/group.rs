//! Groups as far as the registry itself says: nodes that standby links connect are a primary and
//! its standbys, whichever way one goes.

use crate::apply::desired::Desired;
use crate::apply::leader;
use crate::catalog::{LinkRow, NodeRow, Rows};
use crate::error::{Error, Result};
use nodes_plan::desired::{LinkState, NodeId, Spec};
use nodes_plan::promotion::{is_member, is_unmanaged};
use pgrx::PgSqlErrorCode as Code;
use std::collections::BTreeMap;

/// A subscription within a group would feed a server its own rows.
pub fn check_subscription(rows: &Rows, publisher: NodeId, subscriber: NodeId) -> Result<()> {
    match path(rows, publisher, subscriber) {
        Some(links) => Err(Error::SameGroup {
            publisher: rows.node_name(publisher).to_owned(),
            subscriber: rows.node_name(subscriber).to_owned(),
            links,
        }),
        None => Ok(()),
    }
}

/// Two would pull at the standbys of a group of which one part is somebody else's.
pub fn check_manager(
    rows: &Rows,
    primary: &NodeRow,
    standby: &NodeRow,
    managed: bool,
) -> Result<()> {
    let registry = Desired::from_rows(rows)?.registry;
    let ours = |node: &&&NodeRow| {
        is_unmanaged(&registry, node.id) == managed && is_member(&registry, node.id)
    };
    match [primary, standby].iter().find(ours) {
        Some(node) if managed => Err(leader::unmanaged(&node.name)),
        Some(node) => Err(Error::Refused {
            code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!("the group of \"{}\" is managed by this registry", node.name),
            detail: None,
            hint: "Remove its standby links with nodes.remove_link() and nodes.apply() first.",
        }),
        None => Ok(()),
    }
}

/// The names of the standby links by which one gets from one node to the other.
fn path(rows: &Rows, from: NodeId, to: NodeId) -> Option<Vec<String>> {
    let standby = |link: &&LinkRow| {
        matches!(link.spec, Spec::Standby(_)) && link.state != LinkState::Removing
    };
    let links: Vec<&LinkRow> = rows.links.iter().filter(standby).collect();
    let mut reached: BTreeMap<NodeId, Vec<String>> = BTreeMap::from([(from, vec![])]);
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        for link in links.iter().filter(|link| link.from_node == node || link.to_node == node) {
            let other = if link.from_node == node { link.to_node } else { link.from_node };
            if reached.contains_key(&other) {
                continue;
            }
            let mut way = reached.get(&node).cloned().unwrap_or_default();
            way.push(link.name.clone());
            reached.insert(other, way);
            next.push(other);
        }
    }
    reached.remove(&to)
}
