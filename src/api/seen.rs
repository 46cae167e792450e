//! What the views show: what the worker of this database published, or, where there is none, one
//! look at all nodes now.

use crate::apply::desired::Desired;
use crate::apply::{self, Look};
use crate::catalog::Rows;
use crate::error::{Error, Result};
use crate::observe;
use crate::pg::process;
use crate::record::{LinkRecord, NodeRecord, RoundTrip, epoch_now};
use crate::shmem::{self, Key};
use crate::worker::limits_of;
use nodes_plan::desired::{Link, LinkId, NodeId};
use nodes_plan::headroom::headroom;
use nodes_plan::link_health::{LinkEvidence, LinkPlan, Side, link_health};
use nodes_plan::node_health::{FailureKind, NodeState};
use nodes_plan::pulse::Pulse;
use std::collections::BTreeMap;

pub struct Seen {
    pub rows: Rows,
    pub desired: Desired,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub links: BTreeMap<LinkId, LinkRecord>,
    /// Why there is no worker behind it; `None`: there is one.
    pub unwatched: Option<&'static str>,
    /// Why nobody was asked: the registry belongs to another server.
    pub passive: Option<Error>,
}

impl Seen {
    /// What is known without asking anybody, or else by asking everybody.
    pub fn now() -> Result<Seen> {
        let rows = Rows::load()?;
        if let Err(passive) = apply::check_active(&rows) {
            return Ok(Seen { passive: Some(passive), ..Seen::nothing(rows)? });
        }
        if shmem::has_worker(process::database()) { Self::published(rows) } else { Self::looked() }
    }

    /// What the registry holds, of which nothing is known.
    fn nothing(rows: Rows) -> Result<Seen> {
        Ok(Seen {
            desired: Desired::from_rows(&rows)?,
            rows,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            unwatched: None,
            passive: None,
        })
    }

    fn published(rows: Rows) -> Result<Seen> {
        let mut seen = Seen::nothing(rows)?;
        for (key, text) in shmem::published(process::database()) {
            // A record of another version of the library is as good as none.
            match key {
                Key::Node(id) => {
                    seen.nodes.extend(serde_json::from_slice(&text).ok().map(|r| (id, r)));
                }
                Key::Link(id) => {
                    seen.links.extend(serde_json::from_slice(&text).ok().map(|r| (id, r)));
                }
            }
        }
        Ok(seen)
    }

    /// One look, without a history.
    pub fn looked() -> Result<Seen> {
        let rows = Rows::load()?;
        apply::check_active(&rows)?;
        let desired = Desired::from_rows(&rows)?;
        let look = apply::look(&desired);
        let here = observe::own_pulse(|sql| crate::pg::spi::read_text(sql, &[]))?;
        let rooms = headroom(&desired.registry, &look.world);
        let mut nodes: BTreeMap<NodeId, NodeRecord> = BTreeMap::new();
        for id in desired.registry.nodes.keys() {
            let mut record = node_record(&desired, &look, *id, &here);
            record.rooms = rooms.iter().filter(|room| room.node == *id).cloned().collect();
            nodes.insert(*id, record);
        }
        let links = desired.registry.links.iter();
        let links = links
            .map(|link| (link.id, link_record(&rows, &desired, &look, link, &nodes)))
            .collect();
        let unwatched = Some(if shmem::is_there() { NO_WORKER } else { NOT_PRELOADED });
        Ok(Seen { rows, desired, nodes, links, unwatched, passive: None })
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }
}

const NOT_PRELOADED: &str = "Nobody watches: this is one look, without a history. Add pg_nodes to \
                             shared_preload_libraries and restart this server.";
const NO_WORKER: &str = "The worker of this database does not run: this is one look, without a \
                         history. The server log says why.";

fn node_record(desired: &Desired, look: &Look, id: NodeId, here: &Pulse) -> NodeRecord {
    let (pulse, took) = look.pulses.get(&id).cloned().unzip();
    let silence = pulse.is_none().then(|| desired.redact(&look.world.silence(id)));
    let is_self = pulse.as_ref().is_some_and(|pulse: &Pulse| pulse.is_same_server(here));
    let now = epoch_now();
    NodeRecord {
        state: if pulse.is_some() { NodeState::Up } else { NodeState::Down },
        rule: String::new(),
        since: now,
        hint: silence.as_ref().map(|_| {
            nodes_plan::node_health::Failure::new(FailureKind::Lost, "").hint().to_owned()
        }),
        reason: silence,
        is_self,
        last_seen: pulse.as_ref().map(|_| now),
        connected_since: None,
        round_trip: took.map(|took| {
            let seconds = took.as_secs_f64();
            RoundTrip { last: seconds, p50: seconds, p99: seconds }
        }),
        growth: BTreeMap::new(),
        rooms: Vec::new(),
        pulse,
    }
}

fn link_record(
    rows: &Rows,
    desired: &Desired,
    look: &Look,
    link: &Link,
    nodes: &BTreeMap<NodeId, NodeRecord>,
) -> LinkRecord {
    let limits = rows.links.iter().find(|row| row.id == link.id).map(|row| row.limits);
    let evidence = LinkEvidence {
        registry: &desired.registry,
        link,
        from: side(nodes.get(&link.from)),
        to: side(nodes.get(&link.to)),
        plan: &LinkPlan::of(&look.plan, link.id),
        limits: &limits_of(&limits.unwrap_or_default()),
        probe: None,
        unread: None,
    };
    LinkRecord {
        health: link_health(&evidence),
        since: epoch_now(),
        probe: None,
        expected_rows: None,
        expected_bytes: None,
        copy_rate: None,
    }
}

fn side(record: Option<&NodeRecord>) -> Side<'_> {
    Side {
        state: record.map_or(NodeState::Unknown, |record| record.state),
        pulse: record.and_then(|record| record.pulse.as_ref()),
        why: record.and_then(|record| record.reason.as_deref()),
    }
}
