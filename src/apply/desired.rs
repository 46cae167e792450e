//! Rows of the registry become the planner's desired state and the targets to connect to.

use super::conninfo;
use super::digest::digest;
use crate::catalog::{NodeRow, Rows};
use crate::error::Result;
use crate::guc;
use crate::observe::session::Target;
use nodes_plan::desired::{Interest, Link, LinkId, Node, NodeId, Registry};
use nodes_plan::quote::MASK;
use std::collections::{BTreeMap, BTreeSet};

pub struct Desired {
    pub registry: Registry,
    /// Nodes of which it is not noted yet which servers they are.
    pub unlearnt: BTreeSet<NodeId>,
    targets: BTreeMap<NodeId, Target>,
}

impl Desired {
    pub fn from_rows(rows: &Rows) -> Result<Desired> {
        let mut registry =
            Registry { id: rows.id.clone().unwrap_or_default(), ..Registry::default() };
        let mut targets = BTreeMap::new();
        for row in &rows.nodes {
            let conninfo = conninfo::stored(&row.name, &row.conninfo, row.password.as_deref())?;
            let expected = row.system_identifier.clone().filter(|_| !rows.may_become_clone(row.id));
            if !row.gone {
                targets.insert(row.id, Target { expected, ..target(row)? });
            }
            let node = Node {
                id: row.id,
                name: row.name.clone(),
                digest: digest(rows.key.as_deref(), &conninfo),
                conninfo,
                removing: row.removing,
                gone: row.gone,
            };
            registry.nodes.insert(row.id, node);
        }
        registry.links = rows
            .links
            .iter()
            .map(|row| Link {
                id: row.id,
                name: row.name.clone(),
                from: row.from_node,
                to: row.to_node,
                state: row.state,
                spec: row.spec.clone(),
                keep_data: row.keep_data,
            })
            .collect();
        let unlearnt = rows.nodes.iter().filter(|row| row.system_identifier.is_none());
        let unlearnt = unlearnt.map(|row| row.id).filter(|id| !rows.may_become_clone(*id));
        Ok(Desired { registry, unlearnt: unlearnt.collect(), targets })
    }

    /// Every node to connect to, and what to ask it.
    pub fn targets(&self) -> Vec<(Target, Interest)> {
        let targets = self.targets.values();
        targets.map(|target| (target.clone(), self.registry.interest(target.id))).collect()
    }

    /// The nodes that the plan depends on: those with links. Of the others nothing is wanted.
    pub fn linked_targets(&self) -> Vec<(Target, Interest)> {
        let ends = self.registry.links.iter().flat_map(|link| [link.from, link.to]);
        let linked: BTreeSet<NodeId> = ends.collect();
        self.targets().into_iter().filter(|(target, _)| linked.contains(&target.id)).collect()
    }

    pub fn link_name(&self, link: LinkId) -> &str {
        self.registry.link(link).map_or("?", |link| link.name.as_str())
    }

    /// Masks every password of the registry in a peer's words, the longest first: one may be
    /// part of another.
    pub fn redact(&self, text: &str) -> String {
        let nodes = self.registry.nodes.values().map(|node| &node.conninfo);
        let conninfos = nodes.chain(self.targets.values().map(|target| &target.conninfo));
        let passwords = conninfos.filter_map(|conninfo| conninfo.get("password"));
        let mut passwords: Vec<&str> = passwords.filter(|password| !password.is_empty()).collect();
        passwords.sort_by_key(|password| std::cmp::Reverse(password.len()));
        passwords.iter().fold(text.to_owned(), |text, password| text.replace(password, MASK))
    }
}

/// How this registry reaches a node. The password for `admin_conninfo` is its own, or the
/// node's where both are of the same user.
fn target(row: &NodeRow) -> Result<Target> {
    let own = conninfo::stored(&row.name, &row.conninfo, row.password.as_deref())?;
    let conninfo = match &row.admin_conninfo {
        None => own,
        Some(text) => {
            let admin = conninfo::stored(&row.name, text, row.admin_password.as_deref())?;
            let same_user = admin.get("user") == own.get("user");
            match own.get("password").filter(|_| row.admin_password.is_none() && same_user) {
                Some(password) => admin.with("password", password),
                None => admin,
            }
        }
    };
    Ok(Target {
        id: row.id,
        name: row.name.clone(),
        conninfo,
        expected: None,
        password_required: row.registered_by.is_some(),
        connect_timeout: guc::connect_timeout(),
        step_timeout: guc::step_timeout(),
    })
}
