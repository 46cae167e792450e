//! How long the planner takes, for registries each ten times as large as the one before: a
//! spread one, of nodes that each publish to, and show tables of, their neighbours (10 links a
//! node), and a hub, two nodes that have all links; both with nothing made yet and with all of
//! it made. `cargo bench --bench plan -- hub` runs those with that word in their name.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::{TableName, extension_comment};
use nodes_plan::observed::*;
use nodes_plan::plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const RUNS: usize = 11;
const LINKS_PER_NODE: i32 = 10;
const LINKS: [i32; 3] = [100, 1000, 10_000];
const TABLES: [&str; 3] = ["orders", "customers", "items"];
const GOAL: Duration = Duration::from_millis(50);

type Input = (Registry, World);
type MakeInput = fn(i32) -> Input;

/// The worlds, each made for a number of links.
const WORLDS: [(&str, MakeInput); 4] = [
    ("spread, to be made", spread),
    ("spread, made", |links| made(spread(links))),
    ("hub, to be made", hub),
    ("hub, made", |links| made(hub(links))),
];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    println!("planner, median of {RUNS} runs; goal: {} links under {GOAL:?}, and linear", LINKS[2]);
    for (name, world) in WORLDS.into_iter().filter(|(name, _)| chosen(name)) {
        measure(name, LINKS.map(world));
    }
}

/// Times the planner on ever larger registries; ten times the links should cost ten times as
/// much.
fn measure(what: &str, sizes: [Input; 3]) {
    let mut before: Option<Duration> = None;
    for (registry, world) in sizes {
        let steps = plan(&registry, &world).steps.len();
        let took = median(|| plan(&registry, &world));
        let (nodes, links) = (registry.nodes.len(), registry.links.len());
        print!("{what:>18}: {nodes:>4} nodes {links:>6} links {steps:>6} steps {took:>10.2?}");
        match before.replace(took) {
            Some(before) => println!("  {:>5.1} x", took.as_secs_f64() / before.as_secs_f64()),
            None => println!(),
        }
    }
}

fn median<T>(work: impl Fn() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let result = work();
            let took = started.elapsed();
            drop(result);
            took
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

fn empty(nodes: i32) -> Registry {
    let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
    let mut registry = Registry { id, ..Registry::default() };
    for id in 0..nodes {
        let conninfo = Conninfo::default().with("host", format!("10.0.0.{id}"));
        let node = Node { id, name: format!("node {id}"), conninfo, ..Node::default() };
        registry.nodes.insert(id, node);
    }
    registry
}

/// Every node linked to those after it.
fn spread(links: i32) -> Input {
    let nodes = links / LINKS_PER_NODE;
    let mut registry = empty(nodes);
    registry.links = (0..links)
        .map(|id| {
            let (from, offset) = (id / LINKS_PER_NODE, id % LINKS_PER_NODE + 1);
            // Ten nodes have nine others each: the last link goes to the first of them again.
            let to = from + (offset - 1) % (nodes - 1) + 1;
            link(id + 1, from, to % nodes)
        })
        .collect();
    (registry, world(nodes))
}

/// Two nodes and all links between them.
fn hub(links: i32) -> Input {
    let mut registry = empty(2);
    registry.links = (1..=links).map(|id| link(id, 0, 1)).collect();
    (registry, world(2))
}

fn link(id: i32, from: NodeId, to: NodeId) -> Link {
    let (name, state) = (format!("link {id}"), LinkState::Active);
    Link { id, name, from, to, state, spec: spec(id), keep_data: true }
}

fn spec(link: i32) -> Spec {
    if link % 2 == 0 {
        return Spec::Foreign(ForeignSpec {
            local_schema: format!("schema {link}"),
            remote_schema: "public".into(),
            tables: None,
            roles: BTreeSet::new(),
            public: false,
            writable: true,
            options: BTreeMap::new(),
        });
    }
    let tables = Some(BTreeSet::from([TableName::new("public", "orders")]));
    Spec::Subscription(SubscriptionSpec {
        tables,
        copy_data: true,
        replace: false,
        options: BTreeMap::new(),
    })
}

fn world(nodes: i32) -> World {
    let mut world = World::default();
    for id in 0..nodes {
        let facts = NodeFacts {
            version: 170_010,
            system_identifier: id.to_string(),
            role: "admin".into(),
            superuser: true,
            can_replicate: true,
            can_create: true,
            settings: BTreeMap::from([("wal_level".into(), "logical".into())]),
            fdw_available: true,
            schemas: vec![Schema { name: "public".into(), ..Schema::default() }],
            relations: TABLES.map(relation).to_vec(),
            ..NodeFacts::default()
        };
        let seen = Observation::Seen { age: Duration::ZERO, facts: Box::new(facts) };
        world.nodes.insert(id, seen);
    }
    world
}

fn relation(name: &str) -> Relation {
    let column =
        |name: &str| Column { name: name.into(), data_type: "integer".into(), ..Column::default() };
    Relation {
        name: TableName::new("public", name),
        kind: "r".into(),
        replica_identity: true,
        owned: true,
        columns: ["id", "a", "b", "c"].map(column).to_vec(),
        ..Relation::default()
    }
}

/// The same with everything made.
fn made((registry, mut world): Input) -> Input {
    for link in &registry.links {
        let there = registry.nodes[&link.from].conninfo.clone();
        let mark = registry.mark(link);
        let tables = BTreeSet::from([TableName::new("public", "orders")]);
        match &link.spec {
            Spec::Foreign(spec) => {
                let here = facts(&mut world, link.to);
                here.fdw_comment = Some(extension_comment(&registry.id));
                let (comment, schema) = (Some(mark.comment()), spec.local_schema.clone());
                let name = schema.clone();
                here.schemas.push(Schema { name, comment: comment.clone(), ..Schema::default() });
                let imported = |name: &str| Relation {
                    name: TableName::new(&schema, name),
                    kind: "f".into(),
                    server: Some(link.name.clone()),
                    remote: Some(TableName::new("public", name)),
                    ..relation(name)
                };
                here.relations.extend(TABLES.map(imported));
                here.servers.push(Server {
                    name: link.name.clone(),
                    comment,
                    options: there.iter().map(|(k, v)| (k.into(), v.into())).collect(),
                    mappings: vec![Mapping {
                        role: Some("admin".into()),
                        options: Some(Conninfo::default()),
                    }],
                    tables: BTreeSet::new(),
                });
            }
            Spec::Subscription(_) => {
                let source = facts(&mut world, link.from);
                let slot = Slot { name: mark.slot_name(), active: true, ..Slot::default() };
                source.slots.push(slot);
                let all = "insert, update, delete, truncate";
                source.publications.push(Publication {
                    name: link.name.clone(),
                    comment: Some(mark.comment()),
                    tables: tables.clone(),
                    published: tables.clone(),
                    options: BTreeMap::from([
                        ("publish".into(), all.into()),
                        ("publish_via_partition_root".into(), "false".into()),
                    ]),
                    ..Publication::default()
                });
                let ready =
                    |table: &TableName| SubscribedTable { table: table.clone(), state: 'r' };
                facts(&mut world, link.to).subscriptions.push(Subscription {
                    name: link.name.clone(),
                    comment: Some(mark.comment()),
                    enabled: true,
                    conninfo: Some(there),
                    slot: Some(mark.slot_name()),
                    publications: BTreeSet::from([link.name.clone()]),
                    tables: tables.iter().map(|t| (t.to_string(), ready(t))).collect(),
                    ..Subscription::default()
                });
            }
            Spec::Standby(_) => {}
        }
    }
    let steps = plan(&registry, &world).steps;
    assert!(steps.is_empty(), "not all is made: {:?}", steps.first());
    (registry, world)
}

fn facts(world: &mut World, node: NodeId) -> &mut NodeFacts {
    match world.nodes.get_mut(&node) {
        Some(Observation::Seen { facts, .. }) => facts,
        Some(Observation::Unreachable { .. }) | None => panic!("no facts of node {node}"),
    }
}
