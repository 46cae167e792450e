//! How long the planner takes: a registry of n nodes, each publishing to, and showing tables
//! of, its neighbours (10 links a node); nothing of it is made yet.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::TableName;
use nodes_plan::observed::*;
use nodes_plan::plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const RUNS: usize = 11;
const LINKS_PER_NODE: i32 = 10;
const GOAL: Duration = Duration::from_millis(50);

fn main() {
    println!("planner, median of {RUNS} runs; goal: 10000 links under {GOAL:?}, and linear");
    let mut per_link = Vec::new();
    for nodes in [10, 100, 1000] {
        let (registry, world) = (registry(nodes), world(nodes));
        let steps = plan(&registry, &world).steps.len();
        let took = median(|| plan(&registry, &world));
        let links = registry.links.len();
        per_link.push(took.as_secs_f64() / links as f64);
        println!("{nodes:>5} nodes {links:>6} links {steps:>6} steps: {took:>10.2?}");
    }
    println!("cost of a link, 1000 nodes against 10: {:.2}", per_link[2] / per_link[0]);
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

fn registry(nodes: i32) -> Registry {
    let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
    let mut registry = Registry { id, ..Registry::default() };
    for id in 0..nodes {
        let conninfo = Conninfo::default().with("host", format!("10.0.0.{id}"));
        let node = Node { id, name: format!("node {id}"), conninfo, removing: false };
        registry.nodes.insert(id, node);
        for offset in 1..=LINKS_PER_NODE.min(nodes - 1) {
            let link_id = id * LINKS_PER_NODE + offset;
            registry.links.push(Link {
                id: link_id,
                name: format!("link {link_id}"),
                from: id,
                to: (id + offset) % nodes,
                state: LinkState::Active,
                spec: spec(link_id),
                keep_data: true,
            });
        }
    }
    registry
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
    Spec::Subscription(SubscriptionSpec { tables, copy_data: true, options: BTreeMap::new() })
}

fn world(nodes: i32) -> World {
    let mut world = World::default();
    for id in 0..nodes {
        let facts = NodeFacts {
            version: 170_010,
            system_identifier: id.to_string(),
            role: "admin".into(),
            superuser: true,
            settings: BTreeMap::from([("wal_level".into(), "logical".into())]),
            fdw_available: true,
            schemas: vec![Schema { name: "public".into(), comment: None }],
            relations: ["orders", "customers", "items"].map(relation).to_vec(),
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
        columns: ["id", "a", "b", "c"].map(column).to_vec(),
        ..Relation::default()
    }
}
