//! The links as the worker watches them: judged when something is new of one of their nodes.

use super::events::Event;
use super::state::{State, Watched};
use crate::catalog::{OwnLimits, Rows};
use crate::guc;
use crate::record::{Epoch, LinkRecord, epoch_now};
use nodes_plan::desired::{Link, LinkId, NodeId, Registry};
use nodes_plan::link_health::{
    LinkEvidence, LinkHealth, LinkLimits, LinkPlan, Probe, Side, link_health,
};
use nodes_plan::link_watch::LinkWatch;
use nodes_plan::node_health::NodeState;
use nodes_plan::step::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
    limits: OwnLimits,
    /// What the last plan says; `None`: there was none since the link came.
    plan: Option<LinkPlan>,
    watch: Option<LinkWatch>,
    health: Option<LinkHealth>,
    since: Epoch,
    probe: Option<Probe>,
}

impl Links {
    /// Takes new rows in; those of a passive registry are not watched.
    pub fn take(&mut self, rows: &Rows, passive: bool) {
        let present = rows.links.iter().filter(|_| !passive);
        let ids: BTreeSet<LinkId> = present.clone().map(|row| row.id).collect();
        self.watched.retain(|id, _| ids.contains(id));
        self.of_node.clear();
        for row in present {
            let link = self.watched.entry(row.id).or_insert_with(WatchedLink::new);
            link.limits = row.limits;
            // What was planned was planned for something else.
            link.plan = None;
            for node in [row.from_node, row.to_node] {
                self.of_node.entry(node).or_default().push(row.id);
            }
        }
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
            expected_rows: None,
            copy_rate: None,
        })
    }
}

impl WatchedLink {
    fn new() -> Self {
        WatchedLink {
            limits: OwnLimits::default(),
            plan: None,
            watch: None,
            health: None,
            since: epoch_now(),
            probe: None,
        }
    }

    /// Judges the link; `None`: there is no plan to judge it by yet.
    fn judge(
        &mut self,
        registry: &Registry,
        link: &Link,
        (from, to): (Side<'_>, Side<'_>),
        now: Duration,
    ) -> Option<Event> {
        let plan = self.plan.as_ref()?;
        let watch = self.watch.get_or_insert_with(|| LinkWatch::new(now));
        let health = link_health(&LinkEvidence {
            registry,
            link,
            from,
            to,
            plan,
            limits: &limits_of(&self.limits),
            probe: self.probe.as_ref(),
            unread: watch.unread(now),
        });
        if self.health.as_ref().is_none_or(|before| before.state != health.state) {
            self.since = epoch_now();
        }
        let transition = watch.judge(now, &health);
        self.health = Some(health);
        transition.map(|transition| Event::of_link(&link.name, &transition))
    }
}

/// A link's own limits, and the settings for those that it does not have.
pub fn limits_of(own: &OwnLimits) -> LinkLimits {
    LinkLimits {
        max_lag_bytes: own.max_lag_bytes.or_else(guc::max_lag_bytes),
        max_lag: own.max_lag.map(Duration::from_secs).or_else(guc::max_lag),
        max_retained_wal: own.max_retained_wal.or_else(guc::max_retained_wal),
    }
}

impl State {
    /// Judges every link of which something is new; whether people must hear of one.
    pub fn judge_links(&mut self) -> bool {
        let now = self.now();
        let Some(desired) = self.desired.clone() else { return false };
        let touched = std::mem::take(&mut self.links.touched);
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
            let event = watched.judge(&desired.registry, link, sides, now);
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
