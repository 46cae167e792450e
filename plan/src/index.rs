//! The facts of a node with an index: what has a name is found by it, and what bears a mark by
//! its link. Every rule of every link asks, and a node may have thousands of either.

use crate::desired::{LinkId, NodeId, Registry};
use crate::name::{Mark, TableName};
use crate::observed::*;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

/// What is known of a node, to be asked often.
pub(crate) struct Indexed<'a> {
    facts: &'a NodeFacts,
    slots: HashMap<&'a str, &'a Slot>,
    roles: HashMap<&'a str, &'a Role>,
    publications: HashMap<&'a str, &'a Publication>,
    subscriptions: HashMap<&'a str, &'a Subscription>,
    servers: HashMap<&'a str, &'a Server>,
    schemas: HashMap<&'a str, &'a Schema>,
    marked_publications: ByLink<'a, Publication>,
    marked_subscriptions: ByLink<'a, Subscription>,
    marked_servers: ByLink<'a, Server>,
    marked_schemas: ByLink<'a, Schema>,
    /// By schema, and there in order of their names.
    relations: HashMap<&'a str, Vec<&'a Relation>>,
    /// Slots that may be those of a subscription's copy.
    pub copy_slots: Vec<&'a Slot>,
    /// How many of this registry's slots nobody reads at the moment.
    unread: i64,
    pub all_owned: bool,
    pub all_empty: bool,
}

/// What bears the mark of one link, whatever it is called now.
#[derive(Default)]
pub(crate) struct Made<'a> {
    pub publications: &'a [(LinkId, &'a Publication)],
    pub subscriptions: &'a [(LinkId, &'a Subscription)],
    pub servers: &'a [(LinkId, &'a Server)],
    pub schemas: &'a [(LinkId, &'a Schema)],
}

impl Made<'_> {
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty()
            && self.subscriptions.is_empty()
            && self.servers.is_empty()
            && self.schemas.is_empty()
    }
}

/// The nodes that are known, each with an index from when it is first asked for: what links to
/// the same nodes ask one after the other is still at hand.
pub(crate) struct Index<'a> {
    registry: &'a str,
    nodes: BTreeMap<NodeId, (&'a NodeFacts, OnceCell<Indexed<'a>>)>,
}

impl<'a> Index<'a> {
    pub fn new(registry: &'a Registry, world: &'a World) -> Self {
        let known = registry.nodes.keys().filter_map(|id| Some((*id, world.facts(*id)?)));
        let nodes = known.map(|(id, facts)| (id, (facts, OnceCell::new()))).collect();
        Index { registry: &registry.id, nodes }
    }

    pub fn get(&self, node: NodeId) -> Option<&Indexed<'a>> {
        let (facts, indexed) = self.nodes.get(&node)?;
        Some(indexed.get_or_init(|| Indexed::new(self.registry, facts)))
    }
}

impl<'a> Indexed<'a> {
    fn new(registry: &str, facts: &'a NodeFacts) -> Self {
        let prefix = Mark::slot_prefix(registry);
        let unread = |slot: &&Slot| !slot.active && slot.name.starts_with(&prefix);
        let by_slot_name = |slot: &'a Slot| (slot.name.as_str(), slot);
        Indexed {
            facts,
            slots: facts.slots.iter().map(by_slot_name).collect(),
            roles: facts.roles.iter().map(|role| (role.name.as_str(), role)).collect(),
            publications: by_name(&facts.publications),
            subscriptions: by_name(&facts.subscriptions),
            servers: by_name(&facts.servers),
            schemas: by_name(&facts.schemas),
            marked_publications: ByLink::new(registry, &facts.publications),
            marked_subscriptions: ByLink::new(registry, &facts.subscriptions),
            marked_servers: ByLink::new(registry, &facts.servers),
            marked_schemas: ByLink::new(registry, &facts.schemas),
            relations: by_schema(&facts.relations),
            copy_slots: facts.slots.iter().filter(|slot| slot.name.starts_with("pg_")).collect(),
            unread: facts.slots.iter().filter(unread).count() as i64,
            all_owned: facts.relations.iter().all(|relation| relation.owned),
            all_empty: !facts.relations.iter().any(|relation| relation.filled),
        }
    }

    /// Walsenders that are used, or will be again by those who have a slot of ours.
    pub fn walsenders_taken(&self) -> i64 {
        self.facts.walsenders + self.unread
    }

    pub fn slot(&self, name: &str) -> Option<&'a Slot> {
        self.slots.get(name).copied()
    }

    pub fn role(&self, name: &str) -> Option<&'a Role> {
        self.roles.get(name).copied()
    }

    pub fn publication(&self, name: &str) -> Option<&'a Publication> {
        self.publications.get(name).copied()
    }

    pub fn subscription(&self, name: &str) -> Option<&'a Subscription> {
        self.subscriptions.get(name).copied()
    }

    pub fn server(&self, name: &str) -> Option<&'a Server> {
        self.servers.get(name).copied()
    }

    pub fn schema(&self, name: &str) -> Option<&'a Schema> {
        self.schemas.get(name).copied()
    }

    pub fn relation(&self, name: &TableName) -> Option<&'a Relation> {
        find(self.relations_in(&name.schema), &name.name)
    }

    /// What is in a schema, in order of the names.
    pub fn relations_in(&self, schema: &str) -> &[&'a Relation] {
        self.relations.get(schema).map_or(&[], Vec::as_slice)
    }

    /// What bears the mark of a link.
    pub fn made(&self, link: LinkId) -> Made<'_> {
        Made {
            publications: self.marked_publications.of(link),
            subscriptions: self.marked_subscriptions.of(link),
            servers: self.marked_servers.of(link),
            schemas: self.marked_schemas.of(link),
        }
    }
}

impl Deref for Indexed<'_> {
    type Target = NodeFacts;

    fn deref(&self) -> &NodeFacts {
        self.facts
    }
}

fn by_name<T: Marked>(objects: &[T]) -> HashMap<&str, &T> {
    objects.iter().map(|object| (object.name(), object)).collect()
}

fn by_schema(relations: &[Relation]) -> HashMap<&str, Vec<&Relation>> {
    let mut schemas: HashMap<&str, Vec<&Relation>> = HashMap::new();
    for group in relations.chunk_by(|a, b| a.name.schema == b.name.schema) {
        schemas.entry(&group[0].name.schema).or_default().extend(group);
    }
    schemas.values_mut().for_each(|found| found.sort_by_key(|relation| &relation.name.name));
    schemas
}

/// Finds a relation among those of one schema.
pub(crate) fn find<'a>(sorted: &[&'a Relation], name: &str) -> Option<&'a Relation> {
    let place = sorted.binary_search_by(|relation| relation.name.name.as_str().cmp(name));
    place.ok().map(|place| sorted[place])
}

/// The objects that bear a mark of this registry, in order of their links.
struct ByLink<'a, T>(Vec<(LinkId, &'a T)>);

impl<'a, T: Marked> ByLink<'a, T> {
    fn new(registry: &str, objects: &'a [T]) -> Self {
        let link = |object: &T| Mark::link_of(registry, object.comment()?);
        let marked = objects.iter().filter_map(|object| Some((link(object)?, object)));
        let mut marked: Vec<_> = marked.collect();
        marked.sort_by_key(|(link, _)| *link);
        ByLink(marked)
    }

    fn of(&self, link: LinkId) -> &[(LinkId, &'a T)] {
        let (_, rest) = self.0.split_at(self.0.partition_point(|(id, _)| *id < link));
        let own = rest.iter().take_while(|(id, _)| *id == link).count();
        &rest[..own]
    }
}

/// Of a link's objects the one that has its name, else one that was renamed.
pub(crate) fn find_named<'a, T: Marked>(made: &[(LinkId, &'a T)], name: &str) -> Option<&'a T> {
    let named = made.iter().find(|(_, object)| object.name() == name);
    named.or(made.first()).map(|(_, object)| *object)
}
