//! `nodes.explain()`.

use super::seen::Seen;
use crate::error::{Error, Result};
use crate::record::{Epoch, LinkRecord, NodeRecord, epoch_now};
use nodes_plan::desired::{Link, LinkState, NodeId};
use nodes_plan::explain::{Known, KnownLink, KnownNode, Line, explain_link, explain_node};
use nodes_plan::headroom::Room;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

#[pg_extern(volatile, parallel_unsafe)]
fn explain(
    name: &str,
) -> std::result::Result<
    TableIterator<'static, (name!(line, i32), name!(part, &'static str), name!(fact, String))>,
    ErrorReport,
> {
    let seen = Seen::now()?;
    let lines = lines(&seen, name)?;
    let rows = lines.into_iter().zip(1..);
    Ok(TableIterator::new(rows.map(|(line, number)| (number, line.part.label(), line.fact))))
}

/// Of the node and the link of that name, where there are both.
fn lines(seen: &Seen, name: &str) -> Result<Vec<Line>> {
    let rooms = seen.nodes.iter().map(|(id, record)| (*id, record.rooms())).collect();
    let known = known(seen, &rooms);
    let node = seen.registry.nodes.values().find(|node| node.name == name);
    let live = |link: &&Link| link.state != LinkState::Removing;
    let link = seen.registry.links.iter().filter(live).find(|link| link.name == name);
    if node.is_none() && link.is_none() {
        let nodes = seen.registry.nodes.values().map(|node| node.name.clone());
        let links = seen.registry.links.iter().map(|link| link.name.clone());
        return Err(Error::UnknownName {
            name: name.to_owned(),
            known: nodes.chain(links).collect(),
        });
    }
    let of_node = node.map_or(vec![], |node| explain_node(&known, node.id));
    let of_link = link.map_or(vec![], |link| explain_link(&known, link.id));
    Ok(of_node.into_iter().chain(of_link).collect())
}

fn known<'a>(seen: &'a Seen, rooms: &'a BTreeMap<NodeId, Vec<Room>>) -> Known<'a> {
    let now = epoch_now();
    let node = |(id, record)| {
        let rooms = rooms.get(id).map_or(&[][..], Vec::as_slice);
        (*id, KnownNode { rooms, ..known_node(record, now) })
    };
    Known {
        registry: &seen.registry,
        nodes: seen.nodes.iter().map(node).collect(),
        links: seen.links.iter().map(|(id, record)| (*id, known_link(record, now))).collect(),
    }
}

fn age(now: Epoch, at: Epoch) -> Option<Duration> {
    Duration::try_from_secs_f64(now - at).ok()
}

fn known_node<'a>(record: &'a NodeRecord<'_>, now: Epoch) -> KnownNode<'a> {
    KnownNode {
        state: record.state,
        rule: &record.rule,
        lasted: age(now, record.since),
        last_answer: record.last_seen.and_then(|at| age(now, at)),
        reason: record.reason.as_deref(),
        hint: record.hint.as_deref(),
        pulse: record.pulse.as_ref(),
        rooms: &[],
        growth: &record.growth,
    }
}

fn known_link(record: &LinkRecord, now: Epoch) -> KnownLink<'_> {
    KnownLink { health: &record.health, lasted: age(now, record.since) }
}
