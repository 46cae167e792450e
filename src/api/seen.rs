//! What the views show: what the worker of this database published, or, where there is none, one
//! look at all nodes now.

use crate::apply::desired::Desired;
use crate::apply::{self, Look};
use crate::catalog::{Outline, Rows};
use crate::error::{Error, Result};
use crate::guc;
use crate::observe;
use crate::pg::process;
use crate::record::{LinkRecord, NodeRecord, RoundTrip, epoch_now, rooms_text};
use crate::shmem::{self, Key};
use nodes_plan::desired::{Link, LinkId, NodeId, Registry};
use nodes_plan::headroom::{Room, headroom};
use nodes_plan::link_health::{LinkEvidence, LinkHealth, LinkPlan, Side, link_health};
use nodes_plan::node_health::{FailureKind, NodeState};
use nodes_plan::pulse::Pulse;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub struct Seen {
    /// Without addresses: views show none.
    pub registry: Registry,
    pub nodes: BTreeMap<NodeId, NodeRecord<'static>>,
    pub links: BTreeMap<LinkId, LinkRecord>,
    /// Why there is no worker behind it; `None`: there is one.
    pub unwatched: Option<&'static str>,
    /// Why nobody was asked: the registry belongs to another server.
    pub passive: Option<Error>,
}

impl Seen {
    /// What is known without asking anybody, or else by asking everybody.
    pub fn now() -> Result<Seen> {
        let outline = Outline::load()?;
        let passive = apply::check_active(&outline.origin).err();
        if passive.is_none() && !shmem::has_worker(process::database()) {
            return Self::looked();
        }
        let nothing = Seen {
            registry: outline.registry(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            unwatched: None,
            passive,
        };
        Ok(if nothing.passive.is_some() { nothing } else { nothing.published() })
    }

    fn published(mut self) -> Seen {
        for (key, text) in shmem::published(process::database()) {
            // A record of another version of the library is as good as none.
            match key {
                Key::Node(id) => {
                    self.nodes.extend(NodeRecord::read(&text).map(|record| (id, record)));
                }
                Key::Link(id) => {
                    self.links.extend(serde_json::from_slice(&text).ok().map(|r| (id, r)));
                }
            }
        }
        self
    }

    /// One look, without a history.
    pub fn looked() -> Result<Seen> {
        let rows = Rows::load()?;
        apply::check_active(&rows.origin)?;
        let desired = Desired::from_rows(&rows)?;
        let look = apply::look(&desired);
        let here = observe::own_pulse(|sql| crate::pg::spi::read_text(sql, &[]))?;
        let rooms = headroom(&desired.registry, &look.world);
        let mut nodes = BTreeMap::new();
        for id in desired.registry.nodes.keys() {
            let mut record = node_record(&desired, &look, *id, &here);
            let own: Vec<Room> = rooms.iter().filter(|room| room.node == *id).cloned().collect();
            record.rooms = Cow::Owned(rooms_text(&own));
            nodes.insert(*id, record);
        }
        let links = desired.registry.links.iter();
        let links = links
            .map(|link| (link.id, link_record(&rows, &desired, &look, link, &nodes)))
            .collect();
        let unwatched = Some(if shmem::is_there() { NO_WORKER } else { NOT_PRELOADED });
        Ok(Seen { registry: desired.registry, nodes, links, unwatched, passive: None })
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeRecord<'static>> {
        self.nodes.get(&id)
    }
}

const NOT_PRELOADED: &str = "Nobody watches: this is one look, without a history. Add pg_nodes to \
                             shared_preload_libraries and restart this server.";
const NO_WORKER: &str = "The worker of this database does not run: this is one look, without a \
                         history. The server log says why.";

fn node_record(desired: &Desired, look: &Look, id: NodeId, here: &Pulse) -> NodeRecord<'static> {
    let (pulse, took) = look.pulses.get(&id).cloned().unzip();
    let silence = pulse.is_none().then(|| desired.redact(&look.world.silence(id)));
    let is_self = pulse.as_ref().is_some_and(|pulse: &Pulse| pulse.is_same_server(here));
    let now = epoch_now();
    NodeRecord {
        state: if pulse.is_some() { NodeState::Up } else { NodeState::Down },
        rule: Cow::Borrowed(""),
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
        rooms: Cow::Borrowed(""),
        pulse,
    }
}

fn link_record(
    rows: &Rows,
    desired: &Desired,
    look: &Look,
    link: &Link,
    nodes: &BTreeMap<NodeId, NodeRecord<'_>>,
) -> LinkRecord {
    let limits = rows.links.iter().find(|row| row.id == link.id).map(|row| row.limits);
    let evidence = LinkEvidence {
        registry: &desired.registry,
        link,
        from: side(nodes.get(&link.from)),
        to: side(nodes.get(&link.to)),
        plan: &LinkPlan::of(&look.plan, link.id),
        limits: &guc::link_limits(&limits.unwrap_or_default()),
        probe: None,
        unread: None,
    };
    let health = link_health(&evidence);
    LinkRecord {
        health: LinkHealth {
            reason: health.reason.map(|reason| desired.redact(&reason)),
            ..health
        },
        since: epoch_now(),
        probe: None,
        expected_rows: None,
        expected_bytes: None,
        copy_rate: None,
    }
}

fn side<'a>(record: Option<&'a NodeRecord<'_>>) -> Side<'a> {
    Side {
        state: record.map_or(NodeState::Unknown, |record| record.state),
        pulse: record.and_then(|record| record.pulse.as_ref()),
        why: record.and_then(|record| record.reason.as_deref()),
    }
}
