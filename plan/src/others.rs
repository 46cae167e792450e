//! What a link must know of the other links: who follows whom next, whose a schema is to be,
//! and what they take of the limits of servers.

use crate::claims::Ledger;
use crate::desired::{Link, LinkState, NodeId, Registry, Spec};
use crate::group::Groups;
use crate::observed::World;
use crate::step::{Operation, Problem, ProblemKind, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Collected once for a plan and kept current while it grows.
#[derive(Default)]
pub(crate) struct Others<'a> {
    /// The link by which a node is to follow another.
    standbys: BTreeMap<NodeId, &'a Link>,
    /// The first link that wants a schema of its name on a node.
    schemas: BTreeMap<(NodeId, &'a str), &'a Link>,
    pub groups: Groups<'a>,
    pub ledger: Ledger,
    dropped_slots: BTreeSet<(NodeId, String)>,
}

impl<'a> Others<'a> {
    pub fn of(registry: &'a Registry, world: &'a World) -> Self {
        let mut others = Others { groups: Groups::of(registry, world), ..Others::default() };
        for link in registry.links.iter().filter(|link| link.state != LinkState::Removing) {
            match &link.spec {
                Spec::Standby(_) => drop(others.standbys.insert(link.to, link)),
                Spec::Foreign(spec) => {
                    others.schemas.entry((link.to, &spec.local_schema)).or_insert(link);
                }
                Spec::Subscription(_) => {}
            }
        }
        others
    }

    /// The link that makes a standby follow another node, unless it is refused.
    pub fn standby(&self, node: NodeId) -> Option<&'a Link> {
        self.standbys.get(&node).copied()
    }

    /// The link whose schema of this name is to be on the node.
    pub fn schema(&self, node: NodeId, schema: &str) -> Option<&'a Link> {
        self.schemas.get(&(node, schema)).copied()
    }

    /// Whether another link of this plan drops the slot already.
    pub fn drops_slot(&self, node: NodeId, slot: &str) -> bool {
        self.dropped_slots.contains(&(node, slot.to_owned()))
    }

    /// Takes note of what a link's part of the plan is: what it drops, or that it goes nowhere.
    pub fn note(&mut self, link: &Link, steps: &[Step], problems: &[Problem]) {
        let refused = problems.iter().any(|problem| problem.kind == ProblemKind::Refused);
        if refused && self.standby(link.to).is_some_and(|standby| standby.id == link.id) {
            self.standbys.remove(&link.to);
        }
        for step in steps {
            if let (Some(node), Operation::DropSlot { slot }) = (step.node, &step.operation) {
                self.dropped_slots.insert((node, slot.clone()));
            }
        }
    }
}
