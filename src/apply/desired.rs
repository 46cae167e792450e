//! Rows of the registry become the planner's desired state and the targets to connect to.

use super::conninfo;
use super::digest::digest;
use crate::catalog::{LinkRow, NodeRow, Rows};
use crate::error::Result;
use crate::guc;
use crate::observe::session::Target;
use crate::shmem;
use nodes_plan::desired::{Interest, LinkId, Node, NodeId, Registry};
use nodes_plan::quote::MASK;
use std::collections::{BTreeMap, BTreeSet};

pub struct Desired {
    pub registry: Registry,
    /// Nodes of which it is not noted yet which servers they are.
    pub unlearnt: BTreeSet<NodeId>,
    targets: BTreeMap<NodeId, Target>,
    /// The longest first: one may be part of another.
    passwords: Vec<String>,
}

impl Desired {
    pub fn from_rows(rows: &Rows) -> Result<Desired> {
        let mut registry = Registry {
            id: rows.origin.id.clone().unwrap_or_default(),
            is_watched: shmem::is_there(),
            ..Registry::default()
        };
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
        registry.links = rows.links.iter().map(LinkRow::link).collect();
        let unlearnt = rows.nodes.iter().filter(|row| row.system_identifier.is_none());
        let unlearnt = unlearnt.map(|row| row.id).filter(|id| !rows.may_become_clone(*id));
        let unlearnt = unlearnt.collect();
        let passwords = passwords(&registry, &targets);
        Ok(Desired { registry, unlearnt, targets, passwords })
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

    /// Masks every password of the registry in a peer's words.
    pub fn redact(&self, text: &str) -> String {
        let mask = |text: String, password: &String| text.replace(password, MASK);
        self.passwords.iter().fold(text.to_owned(), mask)
    }
}

fn passwords(registry: &Registry, targets: &BTreeMap<NodeId, Target>) -> Vec<String> {
    let nodes = registry.nodes.values().map(|node| &node.conninfo);
    let conninfos = nodes.chain(targets.values().map(|target| &target.conninfo));
    let found: BTreeSet<&str> = conninfos.filter_map(|c| c.get("password")).collect();
    let found = found.into_iter().filter(|password| !password.is_empty());
    let mut passwords: Vec<String> = found.map(str::to_owned).collect();
    passwords.sort_by_key(|password| std::cmp::Reverse(password.len()));
    passwords
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
