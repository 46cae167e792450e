//! Random registries and random servers, from a seed.

use crate::sim::{Sim, default_publication_options, default_subscription_options};
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::TableName;
use nodes_plan::observed::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// Nodes 1 to n; each belongs to the group of an earlier one, as its standby, or is a primary.
pub fn sim(rng: &mut SmallRng) -> Sim {
    let mut registry =
        Registry { id: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".into(), ..Registry::default() };
    let mut nodes: BTreeMap<NodeId, NodeFacts> = BTreeMap::new();
    let version = if rng.random_bool(0.5) { 150_020 } else { 170_010 };
    for id in 1..=rng.random_range(2..=5) {
        let primaries: Vec<NodeId> =
            nodes.iter().filter(|(_, f)| !f.in_recovery).map(|(id, _)| *id).collect();
        let of = if !primaries.is_empty() && rng.random_bool(0.35) {
            Some(primaries[rng.random_range(0..primaries.len())])
        } else {
            None
        };
        let facts = match of {
            Some(primary) => standby_of(&nodes[&primary]),
            None => primary(rng, id, version),
        };
        nodes.insert(id, facts);
        let conninfo = conninfo(rng, id);
        registry.nodes.insert(id, Node { id, name: format!("n{id}"), conninfo, removing: false });
    }
    for id in 1..=rng.random_range(0..=6) {
        registry.links.extend(link(rng, id, &nodes, &registry.links));
    }
    Sim::new(registry, nodes)
}

pub fn conninfo(rng: &mut SmallRng, id: NodeId) -> Conninfo {
    let base = Conninfo::default()
        .with("host", format!("10.0.{}.{id}", rng.random_range(0..3)))
        .with("dbname", "app")
        .with("user", "link");
    if rng.random_bool(0.5) {
        base.with("password", format!("secret{}", rng.random_range(0..3)))
    } else {
        base
    }
}

fn primary(rng: &mut SmallRng, id: NodeId, version: i32) -> NodeFacts {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let roomy = if rng.random_bool(0.9) { "20" } else { "1" };
    let mut facts = NodeFacts {
        version,
        system_identifier: format!("7{id:018}"),
        timeline: 1,
        database: "app".into(),
        role: "admin".into(),
        superuser: true,
        can_create_subscription: true,
        settings: BTreeMap::from([
            setting("wal_level", if rng.random_bool(0.9) { "logical" } else { "replica" }),
            setting("max_wal_senders", "20"),
            setting("max_replication_slots", roomy),
            setting("max_logical_replication_workers", "20"),
            setting("max_sync_workers_per_subscription", "2"),
            setting("max_worker_processes", "40"),
            setting("wal_retrieve_retry_interval", "5000"),
            setting("primary_slot_name", ""),
            setting("hot_standby_feedback", "off"),
        ]),
        file_settings: Some(BTreeMap::new()),
        fdw_available: true,
        roles: vec![Role { name: "link".into(), superuser: false, replication: true }],
        schemas: ["public", "inventory"].map(plain_schema).to_vec(),
        ..NodeFacts::default()
    };
    for (schema, name) in
        [("public", "a"), ("public", "b"), ("public", "c"), ("inventory", "x"), ("inventory", "y")]
    {
        facts.relations.push(table(rng, schema, name));
    }
    facts
}

fn plain_schema(name: &str) -> Schema {
    Schema { name: name.into(), comment: None }
}

fn table(rng: &mut SmallRng, schema: &str, name: &str) -> Relation {
    let column =
        |name: &str| Column { name: name.into(), data_type: "integer".into(), ..Column::default() };
    Relation {
        name: TableName::new(schema, name),
        kind: "r".into(),
        replica_identity: rng.random_bool(0.97),
        columns: vec![column("id"), column("value")],
        ..Relation::default()
    }
}

fn standby_of(primary: &NodeFacts) -> NodeFacts {
    NodeFacts { in_recovery: true, ..primary.clone() }
}

fn link(
    rng: &mut SmallRng,
    id: LinkId,
    nodes: &BTreeMap<NodeId, NodeFacts>,
    links: &[Link],
) -> Option<Link> {
    let ids: Vec<NodeId> = nodes.keys().copied().collect();
    let pick = |rng: &mut SmallRng| ids[rng.random_range(0..ids.len())];
    let (from, to) = (pick(rng), pick(rng));
    let spec = match rng.random_range(0..3) {
        0 => Spec::Standby(StandbySpec { slot: rng.random_bool(0.8) }),
        1 => Spec::Subscription(subscription(rng)),
        _ => Spec::Foreign(foreign(rng, id)),
    };
    let taken = |l: &Link| matches!(l.spec, Spec::Standby(_)) && l.to == to;
    let second_standby = matches!(spec, Spec::Standby(_)) && links.iter().any(taken);
    if from == to || second_standby {
        return None;
    }
    let subscribes = matches!(spec, Spec::Subscription(_));
    let state = match rng.random_range(0..10) {
        0 | 1 => LinkState::Removing,
        2 if subscribes => LinkState::Paused,
        _ => LinkState::Active,
    };
    let keep_data = rng.random_bool(0.5);
    Some(Link { id, name: format!("link{id}"), from, to, state, spec, keep_data })
}

fn subscription(rng: &mut SmallRng) -> SubscriptionSpec {
    let names = ["a", "b", "c"].into_iter().filter(|_| rng.random_bool(0.6));
    let tables: BTreeSet<TableName> = names.map(|name| TableName::new("public", name)).collect();
    let mut options = BTreeMap::new();
    if rng.random_bool(0.3) {
        options.insert("binary".to_owned(), "true".to_owned());
    }
    if rng.random_bool(0.3) {
        options.insert("publish".to_owned(), "insert".to_owned());
    }
    let tables = rng.random_bool(0.8).then_some(tables);
    SubscriptionSpec { tables, copy_data: rng.random_bool(0.8), options }
}

fn foreign(rng: &mut SmallRng, id: LinkId) -> ForeignSpec {
    ForeignSpec {
        local_schema: format!("stock{id}"),
        remote_schema: "inventory".into(),
        tables: rng.random_bool(0.3).then(|| BTreeSet::from(["x".to_owned()])),
        roles: if rng.random_bool(0.5) { BTreeSet::from(["link".into()]) } else { BTreeSet::new() },
        public: rng.random_bool(0.2),
        writable: rng.random_bool(0.8),
        options: BTreeMap::new(),
    }
}

/// What people do by hand, and what others have made.
pub fn disturb(rng: &mut SmallRng, sim: &mut Sim) {
    let ids: Vec<NodeId> = sim.nodes.keys().copied().collect();
    for id in ids {
        let Some(facts) = sim.nodes.get_mut(&id) else { continue };
        if facts.in_recovery {
            if rng.random_bool(0.2) {
                facts.file_settings.get_or_insert_default().remove("primary_slot_name");
            }
            continue;
        }
        for subscription in &mut facts.subscriptions {
            subscription.enabled ^= rng.random_bool(0.2);
            if rng.random_bool(0.1) {
                subscription.tables.pop_first();
            }
        }
        for publication in facts.publications.iter_mut().filter(|_| rng.random_bool(0.2)) {
            publication.tables.pop_last();
        }
        for server in facts.servers.iter_mut().filter(|_| rng.random_bool(0.2)) {
            server.options.insert("fetch_size".into(), "7".into());
            server.mappings.pop();
        }
        if rng.random_bool(0.2) {
            facts.relations.retain(|r| r.kind != "f" || r.name.name != "x");
        }
        if rng.random_bool(0.2) {
            let extra =
                Column { name: "more".into(), data_type: "text".into(), ..Column::default() };
            let items = facts.relations.iter_mut().filter(|r| r.name.schema == "inventory");
            items.for_each(|r| r.columns.push(extra.clone()));
        }
    }
}

/// Objects of others, some under names that links want.
pub fn strangers(rng: &mut SmallRng, sim: &mut Sim) {
    for facts in sim.nodes.values_mut().filter(|facts| !facts.in_recovery) {
        let name = |rng: &mut SmallRng| format!("link{}", rng.random_range(1..12));
        if rng.random_bool(0.15) {
            facts.publications.push(Publication {
                name: name(rng),
                options: default_publication_options(),
                ..Publication::default()
            });
        }
        if rng.random_bool(0.15) {
            facts.subscriptions.push(Subscription {
                oid: 7,
                name: name(rng),
                options: default_subscription_options(),
                ..Subscription::default()
            });
        }
        if rng.random_bool(0.1) {
            facts.fdw_comment = Some("somebody's".into());
            facts.servers.push(Server { name: name(rng), ..Server::default() });
        }
        if rng.random_bool(0.1) {
            facts.slots.push(Slot {
                name: "somebody_s".into(),
                kind: "logical".into(),
                ..Slot::default()
            });
        }
    }
}
