//! The picture of a registry: every node, and below it the links that lead from it.

use crate::desired::{Link, LinkState, Node, Registry, Spec};
use crate::observed::World;
use std::collections::BTreeSet;

/// Draws the registry as text, nodes in order of registration.
pub fn draw(registry: &Registry, world: &World) -> String {
    let blocks: Vec<String> =
        registry.nodes.values().map(|node| draw_node(registry, world, node)).collect();
    blocks.join("\n")
}

fn draw_node(registry: &Registry, world: &World, node: &Node) -> String {
    let state = match world.facts(node.id) {
        Some(facts) => {
            let role = if facts.in_recovery { "standby" } else { "primary" };
            let version = format!("{}.{}", facts.major(), facts.version % 10_000);
            format!("{role}, PostgreSQL {version}, timeline {}", facts.timeline)
        }
        None => "no answer".to_owned(),
    };
    let mut lines = vec![format!("{} ({state})", node.name)];
    let links: Vec<&Link> = registry.links.iter().filter(|link| link.from == node.id).collect();
    for (position, link) in links.iter().enumerate() {
        let branch = if position + 1 == links.len() { "└─" } else { "├─" };
        lines.push(format!("{branch} {}", draw_link(registry, link)));
    }
    lines.join("\n")
}

fn draw_link(registry: &Registry, link: &Link) -> String {
    let to = registry.node_name(link.to);
    let what = match &link.spec {
        Spec::Standby(_) if link.is_unmanaged() => format!("standby (unmanaged) ──▶ {to}"),
        Spec::Standby(_) => format!("standby ──▶ {to}"),
        Spec::Subscription(spec) => {
            let tables = match spec.tables.as_ref().map(BTreeSet::len) {
                None => "all tables".to_owned(),
                Some(1) => "1 table".to_owned(),
                Some(number) => format!("{number} tables"),
            };
            format!("subscription \"{}\" ({tables}) ──▶ {to}", link.name)
        }
        Spec::Foreign(spec) => format!(
            "foreign schema \"{}\" as \"{}\" ──▶ {to}",
            spec.remote_schema, spec.local_schema
        ),
    };
    match link.state {
        LinkState::Active => what,
        LinkState::Paused => format!("{what} (paused)"),
        LinkState::Removing => format!("{what} (being removed)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Conninfo;
    use crate::desired::StandbySpec;
    use crate::observed::{NodeFacts, Observation};

    #[test]
    fn draws_nodes_and_their_links() {
        let mut registry = Registry::default();
        for (id, name) in [(1, "paris"), (2, "oslo")] {
            let conninfo = Conninfo::default();
            let node = Node { id, name: name.into(), conninfo, ..Node::default() };
            registry.nodes.insert(id, node);
        }
        registry.links.push(Link {
            id: 1,
            name: "oslo".into(),
            from: 1,
            to: 2,
            state: LinkState::Active,
            spec: Spec::Standby(StandbySpec::new(true)),
            keep_data: true,
        });
        let mut world = World::default();
        let facts = Box::new(NodeFacts { version: 170_010, timeline: 1, ..Default::default() });
        world.nodes.insert(1, Observation::Seen { age: std::time::Duration::ZERO, facts });
        assert_eq!(
            draw(&registry, &world),
            "paris (primary, PostgreSQL 17.10, timeline 1)\n└─ standby ──▶ oslo\noslo (no answer)"
        );
    }
}
