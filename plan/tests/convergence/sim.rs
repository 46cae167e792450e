//! Servers in memory: they interpret operations as Postgres would, and refuse what it refuses.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::{NodeId, Registry, Spec};
use nodes_plan::name::{FDW_COMMENT, TableName};
use nodes_plan::observed::*;
use nodes_plan::step::{ColumnChange, Operation, OptionChange, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Sim {
    pub registry: Registry,
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// Nodes that do not answer.
    pub down: BTreeSet<NodeId>,
    next_oid: u32,
}

type Outcome = Result<(), String>;

fn ensure(condition: bool, otherwise: &str) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}

impl Sim {
    pub fn new(registry: Registry, nodes: BTreeMap<NodeId, NodeFacts>) -> Sim {
        Sim { registry, nodes, down: BTreeSet::new(), next_oid: 20_000 }
    }

    /// What `observe` would bring back.
    pub fn world(&self) -> World {
        let mut world = World::default();
        for (id, facts) in &self.nodes {
            let seen = if self.down.contains(id) {
                Observation::Unreachable { error: "connection refused".into() }
            } else {
                Observation::Seen { age: Duration::ZERO, facts: Box::new(self.seen(facts)) }
            };
            world.nodes.insert(*id, seen);
        }
        world
    }

    /// Facts that follow from others: who reads a slot, what a publication publishes.
    fn seen(&self, facts: &NodeFacts) -> NodeFacts {
        let mut seen = facts.clone();
        for slot in &mut seen.slots {
            slot.active = self.is_read(&slot.name);
        }
        for publication in &mut seen.publications {
            publication.published = publication.tables.clone();
        }
        for server in &mut seen.servers {
            let on_it = |r: &&Relation| r.server.as_ref() == Some(&server.name);
            server.tables = facts.relations.iter().filter(on_it).map(|r| r.name.clone()).collect();
        }
        seen.subscription_oids = facts.subscriptions.iter().map(|s| s.oid).collect();
        seen
    }

    fn is_read(&self, slot: &str) -> bool {
        let running = self.nodes.iter().filter(|(id, _)| !self.down.contains(id));
        running.map(|(_, facts)| facts).any(|facts| {
            let streams = facts.in_recovery && facts.setting("primary_slot_name") == Some(slot);
            let applies = |s: &Subscription| s.enabled && s.slot.as_deref() == Some(slot);
            streams || facts.subscriptions.iter().any(applies)
        })
    }

    /// Runs one step.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let Some(node) = step.node else { return self.run_in_registry(&step.operation) };
        ensure(!self.down.contains(&node), "a step on a node that does not answer")?;
        if let Operation::DropSlot { slot } = &step.operation {
            ensure(!self.is_read(slot), "slot is active")?;
        }
        let source = step.link.and_then(|link| self.registry.link(link)).map(|link| link.from);
        let source = source.and_then(|id| self.nodes.get(&id)).cloned().unwrap_or_default();
        self.next_oid += 1;
        let oid = self.next_oid;
        let facts = self.nodes.get_mut(&node).ok_or("no such node")?;
        physical(facts, &step.operation)
            .or_else(|| logical(facts, &source, oid, &step.operation))
            .or_else(|| foreign(facts, &source, &step.operation))
            .unwrap_or_else(|| Err(format!("not simulated: {:?}", step.operation)))
    }

    fn run_in_registry(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::ForgetLink { link } => self.registry.links.retain(|l| l.id != *link),
            Operation::ForgetNode { node } => {
                let used = self.registry.links.iter().any(|l| l.from == *node || l.to == *node);
                ensure(!used, "node is referenced by a link")?;
                self.registry.nodes.remove(node);
            }
            other => return Err(format!("not in the registry: {other:?}")),
        }
        Ok(())
    }

    /// Everything on the servers that bears this registry's mark, in words.
    pub fn marked(&self) -> Vec<String> {
        let ours = |comment: &Option<String>| {
            comment.as_ref().is_some_and(|c| c.contains(&self.registry.id))
        };
        let prefix = format!("nodes_{}_", &self.registry.id[..8]);
        let mut found = Vec::new();
        for (id, facts) in &self.nodes {
            let mut say = |what: &str, name: &str| found.push(format!("{what} {name} on {id}"));
            facts
                .slots
                .iter()
                .filter(|s| s.name.starts_with(&prefix))
                .for_each(|s| say("slot", &s.name));
            facts
                .publications
                .iter()
                .filter(|p| ours(&p.comment))
                .for_each(|p| say("publication", &p.name));
            facts
                .subscriptions
                .iter()
                .filter(|s| ours(&s.comment))
                .for_each(|s| say("subscription", &s.name));
            facts.servers.iter().filter(|s| ours(&s.comment)).for_each(|s| say("server", &s.name));
            facts.schemas.iter().filter(|s| ours(&s.comment)).for_each(|s| say("schema", &s.name));
            if ours(&facts.fdw_comment) {
                say("extension", "postgres_fdw");
            }
            if facts.passfile.is_some() {
                say("file", "pg_nodes.passfile");
            }
            let app = facts.primary_conninfo_file.as_ref().and_then(|c| c.get("application_name"));
            if app.is_some_and(|app| app.starts_with(&prefix)) {
                say("setting", "primary_conninfo");
            }
        }
        found
    }

    /// The servers without what differs from run to run by right.
    pub fn normalized(&self) -> String {
        let mut nodes = self.nodes.clone();
        for facts in nodes.values_mut() {
            facts.subscriptions.iter_mut().for_each(|s| s.oid = 0);
            facts.slots.sort_by(|a, b| a.name.cmp(&b.name));
            facts.servers.sort_by(|a, b| a.name.cmp(&b.name));
            facts.servers.iter_mut().for_each(|s| s.mappings.sort_by(|a, b| a.role.cmp(&b.role)));
            facts.relations.sort_by(|a, b| a.name.cmp(&b.name));
            facts.publications.sort_by(|a, b| a.name.cmp(&b.name));
            facts.subscriptions.sort_by(|a, b| a.name.cmp(&b.name));
            facts.schemas.sort_by(|a, b| a.name.cmp(&b.name));
        }
        format!("{nodes:#?}\n{:#?}", self.registry.links)
    }
}

/// Slots, settings and files.
fn physical(facts: &mut NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreatePhysicalSlot { slot } => add_slot(facts, slot, "physical"),
        Operation::CreateLogicalSlot { slot } => add_slot(facts, slot, "logical"),
        Operation::DropSlot { slot } => {
            let before = facts.slots.len();
            facts.slots.retain(|s| s.name != *slot);
            ensure(facts.slots.len() < before, "no such slot")
        }
        Operation::AwaitReplay { .. } => Ok(()),
        Operation::WritePassfile { content } => {
            facts.passfile = Some(content.clone());
            Ok(())
        }
        Operation::RemovePassfile => {
            facts.passfile = None;
            Ok(())
        }
        Operation::AlterSystem { setting, value } => {
            let files = facts.file_settings.get_or_insert_default();
            match (*setting, value) {
                ("primary_conninfo", None) => facts.primary_conninfo_file = None,
                (name, Some(value)) => drop(files.insert(name.to_owned(), value.clone())),
                (name, None) => drop(files.remove(name)),
            }
            Ok(())
        }
        Operation::SetPrimaryConninfo { conninfo } => {
            facts.primary_conninfo_file = Some(conninfo.clone());
            Ok(())
        }
        Operation::Reload => {
            let files = facts.file_settings.clone().unwrap_or_default();
            for (name, default) in [("primary_slot_name", ""), ("hot_standby_feedback", "off")] {
                let value = files.get(name).map_or(default, String::as_str);
                facts.settings.insert(name.to_owned(), value.to_owned());
            }
            facts.primary_conninfo = facts.primary_conninfo_file.clone();
            Ok(())
        }
        _ => return None,
    })
}

fn add_slot(facts: &mut NodeFacts, name: &str, kind: &str) -> Outcome {
    ensure(facts.slot(name).is_none(), "slot exists")?;
    facts.slots.push(Slot { name: name.into(), kind: kind.into(), ..Slot::default() });
    Ok(())
}

/// Publications and subscriptions.
fn logical(
    facts: &mut NodeFacts,
    source: &NodeFacts,
    oid: u32,
    operation: &Operation,
) -> Option<Outcome> {
    Some(match operation {
        Operation::CreatePublication { name, tables, options, mark } => (|| {
            ensure(facts.publication(name).is_none(), "publication exists")?;
            ensure(tables.iter().all(|t| facts.relation(t).is_some()), "no such table")?;
            let mut all = default_publication_options();
            all.extend(options.clone());
            facts.publications.push(Publication {
                name: name.clone(),
                comment: Some(mark.comment()),
                tables: tables.clone(),
                published: tables.clone(),
                options: all,
            });
            Ok(())
        })(),
        Operation::AddPublicationTables { name, tables } => with_publication(facts, name, |p| {
            ensure(p.tables.is_disjoint(tables), "already in the publication")?;
            p.tables.extend(tables.iter().cloned());
            Ok(())
        }),
        Operation::DropPublicationTables { name, tables } => with_publication(facts, name, |p| {
            ensure(tables.is_subset(&p.tables), "not in the publication")?;
            p.tables.retain(|table| !tables.contains(table));
            Ok(())
        }),
        Operation::SetPublicationOptions { name, options } => with_publication(facts, name, |p| {
            p.options.extend(options.clone());
            Ok(())
        }),
        Operation::DropPublication { name } => {
            let known = facts.publication(name).is_some();
            facts.publications.retain(|p| p.name != *name);
            ensure(known, "no such publication")
        }
        Operation::CreateSubscription {
            name, conninfo, publication, slot, options, mark, ..
        } => (|| {
            ensure(facts.subscription(name).is_none(), "subscription exists")?;
            let published = source.publication(publication).ok_or("no such publication")?;
            ensure(source.slot(slot).is_some(), "no such slot on the publisher")?;
            let mut all = default_subscription_options();
            all.extend(options.clone());
            facts.subscriptions.push(Subscription {
                oid,
                name: name.clone(),
                comment: Some(mark.comment()),
                enabled: false,
                conninfo: Some(conninfo.clone()),
                slot: Some(slot.clone()),
                publications: BTreeSet::from([publication.clone()]),
                options: all,
                tables: subscribed(&published.tables),
            });
            Ok(())
        })(),
        other => return alter_subscription(facts, source, other),
    })
}

fn alter_subscription(
    facts: &mut NodeFacts,
    source: &NodeFacts,
    operation: &Operation,
) -> Option<Outcome> {
    Some(match operation {
        Operation::SetSubscriptionConninfo { name, conninfo } => {
            with_subscription(facts, name, |s| {
                s.conninfo = Some(conninfo.clone());
                Ok(())
            })
        }
        Operation::SetSubscriptionPublication { name, publication } => {
            with_subscription(facts, name, |s| {
                s.publications = BTreeSet::from([publication.clone()]);
                Ok(())
            })
        }
        Operation::SetSubscriptionSlot { name, slot } => with_subscription(facts, name, |s| {
            ensure(!s.enabled, "subscription is enabled")?;
            s.slot = Some(slot.clone());
            Ok(())
        }),
        Operation::SetSubscriptionOptions { name, options } => {
            with_subscription(facts, name, |s| {
                s.options.extend(options.clone());
                Ok(())
            })
        }
        Operation::EnableSubscription { name } => with_subscription(facts, name, |s| {
            ensure(s.slot.is_some(), "subscription has no slot")?;
            s.enabled = true;
            Ok(())
        }),
        Operation::DisableSubscription { name } => with_subscription(facts, name, |s| {
            s.enabled = false;
            Ok(())
        }),
        Operation::RefreshSubscription { name, .. } => with_subscription(facts, name, |s| {
            ensure(s.enabled, "refresh of a disabled subscription")?;
            let published: BTreeSet<TableName> = s
                .publications
                .iter()
                .filter_map(|name| source.publication(name))
                .flat_map(|p| p.tables.clone())
                .collect();
            s.tables = subscribed(&published);
            Ok(())
        }),
        Operation::DropSubscription { name } => {
            let known = facts.subscription(name).is_some();
            facts.subscriptions.retain(|s| s.name != *name);
            ensure(known, "no such subscription")
        }
        _ => return None,
    })
}

fn subscribed(tables: &BTreeSet<TableName>) -> BTreeMap<String, SubscribedTable> {
    let ready = |table: &TableName| SubscribedTable { table: table.clone(), state: 'r' };
    tables.iter().map(|table| (table.to_string(), ready(table))).collect()
}

pub fn default_publication_options() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("publish".into(), "insert, update, delete, truncate".into()),
        ("publish_via_partition_root".into(), "false".into()),
    ])
}

pub fn default_subscription_options() -> BTreeMap<String, String> {
    BTreeMap::from([("binary".into(), "false".into()), ("streaming".into(), "off".into())])
}

fn with_publication(
    facts: &mut NodeFacts,
    name: &str,
    change: impl FnOnce(&mut Publication) -> Outcome,
) -> Outcome {
    change(facts.publications.iter_mut().find(|p| p.name == name).ok_or("no such publication")?)
}

fn with_subscription(
    facts: &mut NodeFacts,
    name: &str,
    change: impl FnOnce(&mut Subscription) -> Outcome,
) -> Outcome {
    change(facts.subscriptions.iter_mut().find(|s| s.name == name).ok_or("no such subscription")?)
}

/// Extension, servers, mappings, schemas and foreign tables.
fn foreign(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreateFdwExtension { comment } => {
            facts.fdw_comment = Some(comment.clone());
            Ok(())
        }
        Operation::DropFdwExtension => {
            let unused = facts.servers.is_empty();
            facts.fdw_comment = None;
            ensure(unused, "servers depend on the extension")
        }
        Operation::ReleaseFdwExtension => {
            facts.fdw_comment = Some(FDW_COMMENT.to_owned());
            Ok(())
        }
        Operation::CreateServer { name, options, mark } => (|| {
            ensure(facts.fdw_comment.is_some(), "no such foreign-data wrapper")?;
            ensure(facts.server(name).is_none(), "server exists")?;
            facts.servers.push(Server {
                name: name.clone(),
                comment: Some(mark.comment()),
                options: options.clone(),
                ..Server::default()
            });
            Ok(())
        })(),
        Operation::AlterServer { name, change } => with_server(facts, name, |server| {
            let mut options = Conninfo::new(server.options.clone());
            change_options(&mut options, change)?;
            server.options = options.iter().map(|(k, v)| (k.into(), v.into())).collect();
            Ok(())
        }),
        Operation::DropServer { name } => (|| {
            let tables = facts.relations.iter().any(|r| r.server.as_ref() == Some(name));
            ensure(!tables, "foreign tables depend on the server")?;
            with_server(facts, name, |s| ensure(s.mappings.is_empty(), "mappings depend on it"))?;
            facts.servers.retain(|s| s.name != *name);
            Ok(())
        })(),
        other => return mapping(facts, other).or_else(|| schema(facts, source, other)),
    })
}

fn mapping(facts: &mut NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreateMapping { server, role, options } => with_server(facts, server, |s| {
            ensure(s.mappings.iter().all(|m| m.role != *role), "mapping exists")?;
            s.mappings.push(Mapping { role: role.clone(), options: Some(options.clone()) });
            Ok(())
        }),
        Operation::AlterMapping { server, role, change } => with_server(facts, server, |s| {
            let found = s.mappings.iter_mut().find(|m| m.role == *role).ok_or("no mapping")?;
            change_options(found.options.get_or_insert_default(), change)
        }),
        Operation::DropMapping { server, role } => with_server(facts, server, |s| {
            let before = s.mappings.len();
            s.mappings.retain(|m| m.role != *role);
            ensure(s.mappings.len() < before, "no mapping")
        }),
        Operation::ReleaseServer { name } => with_server(facts, name, |s| {
            s.comment = None;
            Ok(())
        }),
        _ => return None,
    })
}

fn with_server(
    facts: &mut NodeFacts,
    name: &str,
    change: impl FnOnce(&mut Server) -> Outcome,
) -> Outcome {
    change(facts.servers.iter_mut().find(|s| s.name == name).ok_or("no such server")?)
}

fn change_options(options: &mut Conninfo, change: &OptionChange) -> Outcome {
    for (key, value) in change.add.iter() {
        ensure(options.get(key).is_none(), "ADD of an option that is there")?;
        options.set(key, value);
    }
    for (key, value) in change.set.iter() {
        ensure(options.get(key).is_some(), "SET of an option that is not there")?;
        options.set(key, value);
    }
    for key in &change.drop {
        ensure(options.get(key).is_some(), "DROP of an option that is not there")?;
        *options = options.clone().without(key);
    }
    Ok(())
}

fn schema(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreateSchema { name, mark } => {
            let free = facts.schema(name).is_none();
            facts.schemas.push(Schema { name: name.clone(), comment: Some(mark.comment()) });
            ensure(free, "schema exists")
        }
        Operation::DropSchema { name } => {
            let empty = facts.relations_in(name).next().is_none();
            facts.schemas.retain(|s| s.name != *name);
            ensure(empty, "schema is not empty")
        }
        Operation::ReleaseSchema { name } => {
            let found = facts.schemas.iter_mut().find(|s| s.name == *name);
            found.map(|schema| schema.comment = None).ok_or("no such schema".into())
        }
        Operation::ImportTables { .. } => import(facts, source, operation),
        Operation::AlterForeignTable { table, changes } => {
            let found = facts.relations.iter_mut().find(|r| r.name == *table);
            found.map(|r| changes.iter().for_each(|c| alter(r, c))).ok_or("no table".into())
        }
        Operation::DropForeignTable { table } => {
            let before = facts.relations.len();
            facts.relations.retain(|r| r.name != *table || r.server.is_none());
            ensure(facts.relations.len() < before, "no such foreign table")
        }
        _ => return None,
    })
}

fn import(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Outcome {
    let Operation::ImportTables { server, remote_schema, local_schema, tables, .. } = operation
    else {
        return Err("not an import".into());
    };
    let me = Some(facts.role.clone());
    with_server(facts, server, |s| {
        ensure(s.mappings.iter().any(|m| m.role == me), "no user mapping for the importing role")
    })?;
    ensure(facts.schema(local_schema).is_some(), "no such local schema")?;
    for there in source.relations_in(remote_schema) {
        if tables.as_ref().is_some_and(|tables| !tables.contains(&there.name.name)) {
            continue;
        }
        let name = TableName::new(local_schema, &there.name.name);
        ensure(facts.relation(&name).is_none(), "relation exists")?;
        facts.relations.push(Relation {
            name,
            kind: "f".into(),
            server: Some(server.clone()),
            remote: Some(there.name.clone()),
            ..there.clone()
        });
    }
    Ok(())
}

fn alter(relation: &mut Relation, change: &ColumnChange) {
    match change {
        ColumnChange::Add { name, data_type } => relation.columns.push(Column {
            name: name.clone(),
            data_type: data_type.as_str().to_owned(),
            ..Column::default()
        }),
        ColumnChange::Drop { name } => relation.columns.retain(|c| c.name != *name),
        ColumnChange::Retype { name, data_type } => {
            for column in relation.columns.iter_mut().filter(|c| c.name == *name) {
                column.data_type = data_type.as_str().to_owned();
            }
        }
    }
}

/// Whether a link's objects stand as they should: judged without the planner.
pub fn is_right(sim: &Sim, link: &nodes_plan::desired::Link) -> Outcome {
    let slot = sim.registry.mark(link).slot_name();
    let (source, target) = (&sim.nodes[&link.from], &sim.nodes[&link.to]);
    let from = &sim.registry.nodes[&link.from];
    match &link.spec {
        Spec::Standby(spec) => {
            ensure(source.slot(&slot).is_some() == spec.slot, "slot")?;
            let conninfo = target.primary_conninfo.as_ref().ok_or("primary_conninfo")?;
            ensure(conninfo.get("host") == from.conninfo.get("host"), "host")?;
            ensure(conninfo.get("password").is_none(), "password in primary_conninfo")?;
            ensure(target.passfile.is_some() == from.conninfo.password().is_some(), "passfile")
        }
        Spec::Subscription(spec) => {
            let publication = source.publication(&link.name).ok_or("publication")?;
            if let Some(tables) = &spec.tables {
                ensure(publication.tables == *tables, "published tables")?;
            }
            ensure(source.slot(&slot).is_some(), "slot")?;
            let found = target.subscription(&link.name).ok_or("subscription")?;
            let active = link.state == nodes_plan::desired::LinkState::Active;
            ensure(found.enabled == active, "enabled")?;
            ensure(!active || found.table_names() == publication.tables, "subscribed tables")?;
            ensure(found.conninfo.as_ref() == Some(&from.conninfo), "conninfo")
        }
        Spec::Foreign(spec) => {
            let server = target.server(&link.name).ok_or("server")?;
            let host = server.options.get("host").map(String::as_str);
            ensure(host == from.conninfo.get("host"), "host")?;
            let me = Some(target.role.clone());
            let mapping = server.mappings.iter().find(|m| m.role == me).ok_or("mapping")?;
            let password = mapping.options.as_ref().and_then(Conninfo::password);
            ensure(password == from.conninfo.password(), "password of the mapping")?;
            for there in source.relations_in(&spec.remote_schema) {
                if spec.tables.as_ref().is_some_and(|t| !t.contains(&there.name.name)) {
                    continue;
                }
                let here = TableName::new(&spec.local_schema, &there.name.name);
                let here = target.relation(&here).ok_or("foreign table")?;
                let columns = |r: &Relation| -> BTreeMap<String, String> {
                    r.columns.iter().map(|c| (c.name.clone(), c.data_type.clone())).collect()
                };
                ensure(columns(here) == columns(there), "columns")?;
            }
            Ok(())
        }
    }
}
