//! The links as the worker watches them: judged when something is new of one of their nodes.

use super::events::Event;
use super::state::{State, Watched};
use crate::apply::desired::Desired;
use crate::catalog::{OwnLimits, Rows};
use crate::guc;
use crate::record::{Epoch, LinkRecord, epoch_now};
use nodes_plan::desired::{Link, LinkId, LinkState, NodeId, Registry, Spec};
use nodes_plan::growth::Growth;
use nodes_plan::link_health::{LinkEvidence, LinkHealth, LinkPlan, Probe, Side, link_health};
use nodes_plan::link_watch::LinkWatch;
use nodes_plan::name::TableName;
use nodes_plan::node_health::NodeState;
use nodes_plan::observed::{NodeFacts, Relation, World};
use nodes_plan::step::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Links {
    watched: BTreeMap<LinkId, WatchedLink>,
    of_node: BTreeMap<NodeId, Vec<LinkId>>,
    /// To be judged.
    touched: BTreeSet<LinkId>,
    /// To be published.
    stale: BTreeSet<LinkId>,
}

struct WatchedLink {
    /// From where to where it leads.
    ends: (NodeId, NodeId),
    limits: OwnLimits,
    /// What the last plan says; `None`: there was none since the link came.
    plan: Option<LinkPlan>,
    watch: Option<LinkWatch>,
    /// What an earlier worker has told of it, until its watch begins.
    told: Option<String>,
    health: Option<LinkHealth>,
    since: Epoch,
    probe: Option<Probe>,
    /// When it was asked last; `None`: it is to be asked now.
    probed: Option<Instant>,
    /// Rows that its tables have on the publisher, all and those of tables that are copied.
    rows: Option<CopyRows>,
    copied: Growth,
}

/// What the publisher's statistics say of the tables of a subscription.
#[derive(Debug, Clone, Copy, Default)]
struct CopyRows {
    /// Of tables whose copy is not done.
    expected: i64,
    expected_bytes: i64,
    /// Of the others.
    done: i64,
}

impl Links {
    /// Takes new rows in; those of a passive registry are not watched. `told` is what an earlier
    /// worker has told of links, by name.
    pub fn take(&mut self, rows: &Rows, passive: bool, told: &BTreeMap<String, String>) {
        let present = rows.links.iter().filter(|_| !passive);
        let ids: BTreeSet<LinkId> = present.clone().map(|row| row.id).collect();
        self.watched.retain(|id, _| ids.contains(id));
        self.of_node.clear();
        for row in present {
            let ends = (row.from_node, row.to_node);
            let link = self.watched.entry(row.id).or_insert_with(|| WatchedLink::new(ends));
            if link.ends != ends {
                // What was seen of it says nothing: it leads elsewhere.
                *link = WatchedLink::new(ends);
            }
            link.limits = row.limits;
            link.told = link.told.take().or_else(|| told.get(&row.name).cloned());
            // What was planned was planned for something else.
            link.plan = None;
            link.probed = None;
            for node in [row.from_node, row.to_node] {
                self.of_node.entry(node).or_default().push(row.id);
            }
        }
    }

    /// Nodes that have links.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.of_node.keys().copied()
    }

    pub fn ids(&self) -> impl Iterator<Item = LinkId> {
        self.watched.keys().copied()
    }

    /// Something is new of a node.
    pub fn touch(&mut self, node: NodeId) {
        self.touched.extend(self.of_node.get(&node).into_iter().flatten());
    }

    pub fn touch_all(&mut self) {
        self.touched.extend(self.watched.keys());
    }

    pub fn planned(&mut self, plan: &Plan) {
        for (id, link) in &mut self.watched {
            link.plan = Some(LinkPlan::of(plan, *id));
        }
        self.touch_all();
    }

    /// Foreign links on a node that are made and have not been asked for a while.
    pub fn probes_due(
        &self,
        node: NodeId,
        registry: &Registry,
        facts: &NodeFacts,
    ) -> Vec<(LinkId, TableName)> {
        let interval = guc::inventory_interval();
        let ids = self.of_node.get(&node).into_iter().flatten();
        let links = ids.filter_map(|id| Some((registry.link(*id)?, self.watched.get(id)?)));
        links
            .filter(|(link, watched)| {
                link.to == node
                    && link.state == LinkState::Active
                    && matches!(link.spec, Spec::Foreign(_))
                    && watched.probed.is_none_or(|at| at.elapsed() >= interval)
            })
            .filter_map(|(link, _)| {
                let shown = |r: &&Relation| r.server.as_deref() == Some(link.name.as_str());
                Some((link.id, facts.relations.iter().find(shown)?.name.clone()))
            })
            .collect()
    }

    pub fn probed(&mut self, id: LinkId, probe: Probe) {
        if let Some(link) = self.watched.get_mut(&id) {
            link.probe = Some(probe);
            link.probed = Some(Instant::now());
            self.touched.insert(id);
        }
    }

    /// Takes in how many rows the publishers' statistics promise.
    pub fn expect_rows(&mut self, registry: &Registry, world: &World) {
        for link in &registry.links {
            let Some(watched) = self.watched.get_mut(&link.id) else { continue };
            watched.rows = copy_rows(link, world);
        }
    }

    /// What was planned for these is not true any more.
    pub fn unplan(&mut self, links: &BTreeSet<LinkId>) {
        for link in links {
            if let Some(link) = self.watched.get_mut(link) {
                link.plan = None;
            }
        }
    }

    /// When time alone may change what is told of a link.
    pub fn deadline(&self) -> Option<Duration> {
        self.watched.values().filter_map(|link| link.watch.as_ref()?.deadline()).min()
    }

    /// Has those judged again of which time alone may have changed what is told.
    pub fn touch_due(&mut self, now: Duration) {
        let due = self.watched.iter().filter(|(_, link)| {
            link.watch.as_ref().and_then(LinkWatch::deadline).is_some_and(|at| at <= now)
        });
        let due: Vec<LinkId> = due.map(|(id, _)| *id).collect();
        self.touched.extend(due);
    }

    pub fn take_stale(&mut self) -> BTreeSet<LinkId> {
        std::mem::take(&mut self.stale)
    }

    pub fn record(&self, id: LinkId) -> Option<LinkRecord> {
        let link = self.watched.get(&id)?;
        Some(LinkRecord {
            health: link.health.clone()?,
            since: link.since,
            probe: link.probe.clone(),
            expected_rows: link.rows.map(|rows| rows.expected).filter(|rows| *rows > 0),
            expected_bytes: link.rows.map(|rows| rows.expected_bytes).filter(|bytes| *bytes > 0),
            copy_rate: link.copied.per_second(),
        })
    }
}

impl WatchedLink {
    fn new(ends: (NodeId, NodeId)) -> Self {
        WatchedLink {
            ends,
            limits: OwnLimits::default(),
            plan: None,
            watch: None,
            told: None,
            health: None,
            since: epoch_now(),
            probe: None,
            probed: None,
            rows: None,
            copied: Growth::default(),
        }
    }

    /// Takes note of how far an initial copy is.
    fn note_copy(&mut self, now: Duration, health: &LinkHealth) {
        let copying = health.tables_ready < health.tables;
        if let (true, Some(rows), Some(copied)) = (copying, self.rows, health.copied_rows) {
            let rows = u64::try_from(rows.done.saturating_add(copied)).unwrap_or_default();
            self.copied.note(now, rows);
        } else if !copying {
            self.copied = Growth::default();
        }
    }

    /// Judges the link; `None`: there is no plan to judge it by yet.
    fn judge(
        &mut self,
        desired: &Desired,
        link: &Link,
        (from, to): (Side<'_>, Side<'_>),
        now: Duration,
    ) -> Option<Event> {
        let plan = self.plan.as_ref()?;
        let told = self.told.take();
        let watch = self.watch.get_or_insert_with(|| begin_watch(now, told));
        let health = link_health(&LinkEvidence {
            registry: &desired.registry,
            link,
            from,
            to,
            plan,
            limits: &guc::link_limits(&self.limits),
            probe: self.probe.as_ref(),
            unread: watch.unread(now),
        });
        let reason = health.reason.map(|reason| desired.redact(&reason));
        let health = LinkHealth { reason, ..health };
        if self.health.as_ref().is_none_or(|before| before.state != health.state) {
            self.since = epoch_now();
        }
        let transition = watch.judge(now, &health);
        self.note_copy(now, &health);
        self.health = Some(health);
        transition.map(|transition| Event::of_link(&link.name, &transition))
    }
}

/// Goes on where an earlier worker ended.
fn begin_watch(now: Duration, told: Option<String>) -> LinkWatch {
    let mut watch = LinkWatch::new(now);
    if let Some(Ok(told)) = told.map(|kind| serde_json::from_value(kind.into())) {
        watch.resume(told);
    }
    watch
}

fn copy_rows(link: &Link, world: &World) -> Option<CopyRows> {
    let (source, target) = (world.facts(link.from)?, world.facts(link.to)?);
    let subscription = target.subscription(&link.name)?;
    let mut rows = CopyRows::default();
    for table in subscription.tables.values() {
        let Some(relation) = source.relation(&table.table) else { continue };
        if matches!(table.state, 's' | 'r') {
            rows.done += relation.rows;
        } else {
            rows.expected += relation.rows;
            rows.expected_bytes += relation.bytes;
        }
    }
    Some(rows)
}

impl State {
    /// Judges every link of which something is new; whether people must hear of one.
    pub fn judge_links(&mut self) -> bool {
        let now = self.now();
        let Some(desired) = self.desired.clone() else { return false };
        let mut touched = std::mem::take(&mut self.links.touched);
        touched.retain(|id| !self.converging.contains(id));
        let before = self.events.len();
        for id in touched {
            let Some(link) = desired.registry.link(id) else { continue };
            let why = |node: NodeId| self.nodes.get(&node).and_then(|n| n.watch.reason(now));
            let (why_from, why_to) = (why(link.from), why(link.to));
            let sides = (
                side(self.nodes.get(&link.from), why_from.as_deref()),
                side(self.nodes.get(&link.to), why_to.as_deref()),
            );
            let Some(watched) = self.links.watched.get_mut(&id) else { continue };
            let event = watched.judge(&desired, link, sides, now);
            self.events.extend(event);
            self.links.stale.insert(id);
        }
        self.events.len() > before
    }
}

fn side<'a>(node: Option<&'a Watched>, why: Option<&'a str>) -> Side<'a> {
    Side {
        state: node.map_or(NodeState::Unknown, |node| node.watch.state()),
        pulse: node.and_then(|node| node.pulse.as_ref()),
        why,
    }
}
