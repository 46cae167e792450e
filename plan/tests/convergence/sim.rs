//! Servers in memory: what they say of themselves, how time passes for them, and the registry.
//! What single operations do is in interpret.rs.

use crate::interpret::{copies, interpret, published_tables};
use nodes_plan::desired::{Link, LinkId, NodeId, Registry};
use nodes_plan::name::Mark;
use nodes_plan::observed::*;
use nodes_plan::standby_names::StandbyNames;
use nodes_plan::step::{Operation, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Sim {
    pub registry: Registry,
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// Nodes that are dead.
    pub down: BTreeSet<NodeId>,
    /// Nodes that live but answered too long ago.
    pub stale: BTreeSet<NodeId>,
    /// Slots whose reader was told to stop and has not noticed yet.
    lingering: BTreeSet<(NodeId, String)>,
    next_oid: u32,
}

/// Where a run has led.
#[derive(Debug, PartialEq)]
pub struct End {
    nodes: BTreeMap<NodeId, NodeFacts>,
    links: Vec<Link>,
}

pub type Outcome = Result<(), String>;

pub fn ensure(condition: bool, otherwise: &str) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}

impl Sim {
    pub fn new(registry: Registry, nodes: BTreeMap<NodeId, NodeFacts>) -> Sim {
        let (down, stale, lingering) = Default::default();
        Sim { registry, nodes, down, stale, lingering, next_oid: 20_000 }
    }

    /// What `observe` would bring back.
    pub fn world(&self) -> World {
        let mut world = World::default();
        for (id, facts) in &self.nodes {
            let seen = if self.down.contains(id) {
                Observation::Unreachable { error: "connection refused".into() }
            } else {
                let stale = self.stale.contains(id);
                let age = if stale { MAX_AGE + Duration::from_secs(1) } else { Duration::ZERO };
                Observation::Seen { age, facts: Box::new(self.seen(*id, facts)) }
            };
            world.nodes.insert(*id, seen);
        }
        world
    }

    /// Facts with those that follow from others, and without what the role may not read.
    fn seen(&self, id: NodeId, facts: &NodeFacts) -> NodeFacts {
        let mut seen = self.with_catalog(facts.clone());
        let read = self.readers(id);
        for slot in &mut seen.slots {
            let lingers = self.lingering.contains(&(id, slot.name.clone()));
            slot.active = read.contains(&slot.name) || lingers;
        }
        seen.streaming = self.streaming(&seen);
        seen.walsenders = seen.slots.iter().filter(|slot| slot.active).count() as i64;
        let published = |p: &Publication| published_tables(&seen, p);
        let published: Vec<_> = seen.publications.iter().map(published).collect();
        for (publication, tables) in seen.publications.iter_mut().zip(published) {
            publication.published = tables;
        }
        for server in &mut seen.servers {
            let on_it = |r: &&Relation| r.server.as_ref() == Some(&server.name);
            server.tables = seen.relations.iter().filter(on_it).map(|r| r.name.clone()).collect();
        }
        let subscribed = seen.subscriptions.iter().flat_map(Subscription::table_names);
        let subscribed: BTreeSet<_> = subscribed.collect();
        let known = seen.relations.iter_mut().filter(|r| subscribed.contains(&r.name));
        known.for_each(|relation| relation.filled = false);
        seen.subscription_oids = seen.subscriptions.iter().map(|s| s.oid).collect();
        if !seen.superuser {
            hide_secrets(&mut seen);
        }
        seen
    }

    /// All that is true of a node.
    pub fn facts(&self, node: NodeId) -> NodeFacts {
        self.with_catalog(self.nodes[&node].clone())
    }

    fn with_catalog(&self, mut facts: NodeFacts) -> NodeFacts {
        if let Some(primary) = self.primary_of(&facts) {
            copy_catalog(primary, &mut facts);
        }
        facts
    }

    /// The primary whose catalog a standby shows.
    fn primary_of(&self, facts: &NodeFacts) -> Option<&NodeFacts> {
        let group = |f: &&NodeFacts| f.system_identifier == facts.system_identifier;
        let primary = self.nodes.values().filter(group).find(|f| !f.in_recovery);
        primary.filter(|_| facts.in_recovery)
    }

    /// The names by which standbys receive from a primary.
    fn streaming(&self, primary: &NodeFacts) -> BTreeSet<String> {
        if primary.in_recovery {
            return BTreeSet::new();
        }
        let standbys = self.nodes.iter().filter(|(id, facts)| {
            let same = facts.system_identifier == primary.system_identifier;
            same && facts.in_recovery && !self.down.contains(id)
        });
        let name = |(_, facts): (_, &NodeFacts)| {
            facts.primary_conninfo.as_ref()?.get("application_name").map(str::to_owned)
        };
        standbys.filter_map(name).collect()
    }

    /// Whether commits wait for standbys that do not stream.
    fn is_blocked(&self, node: NodeId) -> bool {
        let facts = &self.nodes[&node];
        let names = facts.setting("synchronous_standby_names").and_then(StandbyNames::parse);
        let streaming = self.streaming(facts);
        let lacks = |names: StandbyNames| {
            names.names.iter().filter(|name| streaming.contains(*name)).count() < names.number
        };
        !facts.in_recovery && names.is_some_and(lacks)
    }

    /// Slots of a node with a reader, those of initial copies included.
    fn readers(&self, id: NodeId) -> BTreeSet<String> {
        let mut read = BTreeSet::new();
        for (_, facts) in self.nodes.iter().filter(|(id, _)| !self.down.contains(id)) {
            if facts.in_recovery {
                // The last part of every address is the node's number.
                let host =
                    facts.primary_conninfo.as_ref().and_then(|conninfo| conninfo.get("host"));
                let follows = host.is_some_and(|host| host.ends_with(&format!(".{id}")));
                let slot = facts.setting("primary_slot_name").filter(|_| follows);
                read.extend(slot.map(str::to_owned));
                continue;
            }
            for subscription in facts.subscriptions.iter().filter(|s| s.enabled) {
                read.extend(subscription.slot.clone());
                read.extend(copies(subscription, &facts.system_identifier));
            }
        }
        read
    }

    fn all_readers(&self) -> BTreeSet<(NodeId, String)> {
        let of_node = |id: NodeId| self.readers(id).into_iter().map(move |slot| (id, slot));
        self.nodes.keys().copied().flat_map(of_node).collect()
    }

    /// Time passes: readers notice that they should stop, initial copies end.
    pub fn tick(&mut self) {
        self.lingering.clear();
        let mut finished = BTreeSet::new();
        for facts in self.nodes.values_mut().filter(|facts| !facts.in_recovery) {
            for subscription in facts.subscriptions.iter_mut().filter(|s| s.enabled) {
                finished.extend(copies(subscription, &facts.system_identifier));
                subscription.tables.values_mut().for_each(|table| table.state = 'r');
            }
        }
        for facts in self.nodes.values_mut() {
            facts.slots.retain(|slot| !finished.contains(&slot.name));
        }
    }

    /// A standby takes over; what was its primary follows it, or is dead.
    pub fn fail_over(&mut self, old: NodeId, new: NodeId, dead: bool) {
        let Some(catalog) = self.nodes.get(&old).cloned() else { return };
        for (id, facts) in &mut self.nodes {
            facts.timeline += i64::from(*id == old || *id == new);
            if *id == old {
                // From now on it shows what its new primary has.
                copy_catalog(&NodeFacts::default(), facts);
                facts.in_recovery = true;
            } else if *id == new {
                copy_catalog(&catalog, facts);
                facts.in_recovery = false;
            }
        }
        if dead {
            self.down.insert(old);
        }
    }

    /// Runs one step as the executor would. What fails changes nothing.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let Some(node) = step.node else { return self.run_in_registry(&step.operation) };
        let silent = self.down.contains(&node) || self.stale.contains(&node);
        ensure(!silent, "a step on a node that does not answer")?;
        let read = self.all_readers();
        if let Operation::DropSlot { slot } = &step.operation {
            // The executor waits for a reader that was told to stop, and for no other.
            ensure(!read.contains(&(node, slot.clone())), "slot is active")?;
        }
        self.next_oid += 1;
        let blocked = self.is_blocked(node);
        let source = step.link.and_then(|link| self.registry.link(link)).map(|link| link.from);
        let mut there = source.map(|id| self.facts(id)).unwrap_or_default();
        let here = self.nodes.get_mut(&node).ok_or("no such node")?;
        interpret(here, &mut there, self.next_oid, &step.operation)?;
        // A subscriber's copies have slots on the publisher.
        let publisher = source.filter(|id| *id != node).and_then(|id| self.nodes.get_mut(&id));
        if let Some(publisher) = publisher {
            publisher.slots = there.slots;
        }
        // A reload for something else may put in force what a crash has kept from it.
        let blocks = step.rule == "RG08" && self.is_blocked(node);
        ensure(blocked || !blocks, "from now on no commit ends")?;
        let stopped: Vec<_> = read.difference(&self.all_readers()).cloned().collect();
        self.lingering.extend(stopped);
        Ok(())
    }

    fn run_in_registry(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::MoveLink { link, from, to } => {
                let mut links = self.registry.links.iter_mut();
                if let Some(moved) = links.find(|l| l.id == *link) {
                    (moved.from, moved.to) = (*from, *to);
                }
            }
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

    /// The servers without what differs from run to run by right: numbers, order, how far a
    /// copy got before it was paused.
    pub fn end(&self) -> End {
        self.end_without(&BTreeSet::new())
    }

    /// The same without what some subscriptions have.
    pub fn end_without(&self, links: &BTreeSet<LinkId>) -> End {
        let mut nodes = self.nodes.clone();
        let marks: Vec<Mark> = links
            .iter()
            .map(|link| Mark { registry: self.registry.id.clone(), link: *link })
            .collect();
        let other = |comment: &Option<String>| {
            comment.as_ref().is_none_or(|comment| marks.iter().all(|mark| !mark.is(comment)))
        };
        for facts in nodes.values_mut() {
            facts.publications.retain(|found| other(&found.comment));
            facts.subscriptions.retain(|found| other(&found.comment));
            facts.slots.retain(|slot| marks.iter().all(|mark| mark.slot_name() != slot.name));
            // A setting that nobody has set is as good as its default.
            facts.settings.retain(|name, value| match name.as_str() {
                "sync_replication_slots" => value != "off",
                "synchronized_standby_slots" | "synchronous_standby_names" => !value.is_empty(),
                _ => true,
            });
            for subscription in &mut facts.subscriptions {
                subscription.oid = 0;
                subscription.tables.values_mut().for_each(|table| table.state = 'r');
            }
            facts.slots.retain(|slot| !slot.name.contains("_sync_"));
            facts.slots.sort_by(|a, b| a.name.cmp(&b.name));
            facts.servers.sort_by(|a, b| a.name.cmp(&b.name));
            facts.servers.iter_mut().for_each(|s| s.mappings.sort_by(|a, b| a.role.cmp(&b.role)));
            facts.relations.sort_by(|a, b| a.name.cmp(&b.name));
            facts.relations.iter_mut().for_each(|relation| relation.filled = false);
            facts.publications.sort_by(|a, b| a.name.cmp(&b.name));
            facts.subscriptions.sort_by(|a, b| a.name.cmp(&b.name));
            facts.schemas.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let others = self.registry.links.iter().filter(|link| !links.contains(&link.id));
        End { nodes, links: others.cloned().collect() }
    }
}

/// What a standby has of its primary.
fn copy_catalog(primary: &NodeFacts, standby: &mut NodeFacts) {
    standby.publications.clone_from(&primary.publications);
    standby.subscriptions.clone_from(&primary.subscriptions);
    standby.fdw_comment.clone_from(&primary.fdw_comment);
    standby.servers.clone_from(&primary.servers);
    standby.schemas.clone_from(&primary.schemas);
    standby.relations.clone_from(&primary.relations);
    standby.roles.clone_from(&primary.roles);
}

/// What only a superuser may read.
fn hide_secrets(facts: &mut NodeFacts) {
    facts.file_settings = None;
    facts.primary_conninfo = None;
    facts.primary_conninfo_file = None;
    facts.passfile = None;
    facts.passfile_unfinished = false;
    facts.subscriptions.iter_mut().for_each(|s| s.conninfo = None);
    let own = Some(facts.role.clone());
    let mappings = facts.servers.iter_mut().flat_map(|s| &mut s.mappings);
    mappings.filter(|m| m.role != own).for_each(|m| m.options = None);
}
