//! What the worker knows, shared by its tasks: they run in turn in one thread, and none holds a
//! borrow while it waits.

use super::events::Event;
use super::links::Links;
use super::nudge::Nudge;
use super::publish::Board;
use super::round_trips::RoundTrips;
use crate::apply::desired::Desired;
use crate::catalog::{LastTold, NodeOptions, Rows};
use crate::error::Result;
use crate::guc;
use crate::observe::Beat;
use crate::observe::session::Target;
use crate::pg::{process, spi};
use crate::record::{Epoch, NodeRecord, epoch_now, rooms_text};
use crate::shmem;
use nodes_plan::commits::{self, CommitWatch};
use nodes_plan::desired::{Interest, Link, LinkId, NodeId, Registry, Spec};
use nodes_plan::growth::Growth;
use nodes_plan::headroom::Room;
use nodes_plan::link_health::Probe;
use nodes_plan::lsn::Lsn;
use nodes_plan::name::TableName;
use nodes_plan::node_health::{Failure, NodeLimits, NodeState, NodeWatch};
use nodes_plan::observed::{NodeFacts, Observation, World};
use nodes_plan::pulse::Pulse;
use nodes_plan::siblings;
use nodes_plan::step::Plan;
use std::borrow::Cow;
use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A plan waits so long for nodes that answer to say what they have.
const PATIENCE: Duration = Duration::from_secs(2);

/// After a write that failed, most likely because a session had locked the row.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// One of the worker's tasks holds each of these.
#[derive(Clone)]
pub struct Shared(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    /// Something happened that the control task must see to.
    changed: Nudge,
}

pub struct State {
    begun: Instant,
    pub here: Here,
    /// See [`Shared::label`].
    label: Rc<str>,
    pub rows: Option<Rc<Rows>>,
    pub desired: Option<Rc<Desired>>,
    pub nodes: BTreeMap<NodeId, Watched>,
    pub links: Links,
    pub events: Vec<Event>,
    /// Nodes and links whose records are not published yet.
    pub stale_nodes: BTreeSet<NodeId>,
    /// Something came in that no plan has seen.
    pub replan: bool,
    /// Since when inventories are waited for.
    awaiting: Option<Instant>,
    /// The links that are being made right now: what they look like meanwhile says nothing.
    pub converging: BTreeSet<LinkId>,
    pub planned: Option<Plan>,
    /// Links whose slot was not found, and whose subscribers were asked since.
    cut_off: BTreeSet<LinkId>,
    /// Nodes whose identity was noted, and links that were brought about, since the registry
    /// was read.
    pub learnt: BTreeSet<NodeId>,
    pub settled: BTreeSet<LinkId>,
    /// Rows that a session has changed and not committed are left to it until then.
    no_write_before: Option<Instant>,
    pub board: Board,
    /// What an earlier worker has told, until it is taken up.
    pub told: LastTold,
}

/// This server and database.
pub struct Here {
    pub boot_id: Option<String>,
    pub database: String,
}

impl Here {
    /// Whether a node is just that.
    pub fn is(&self, node: &Watched) -> bool {
        let here = |pulse: &Pulse| pulse.boot_id == self.boot_id && pulse.database == self.database;
        self.boot_id.is_some() && node.pulse.as_ref().is_some_and(here)
    }
}

/// One node.
pub struct Watched {
    pub name: String,
    pub target: Target,
    pub options: NodeOptions,
    pub watch: NodeWatch,
    pub pulse: Option<Pulse>,
    /// The same in the node's own words.
    pub answer: String,
    pub last_seen: Option<Epoch>,
    pub connected_since: Option<Epoch>,
    pub round_trips: RoundTrips,
    pub growth: BTreeMap<String, Growth>,
    pub rooms: Vec<Room>,
    /// The same as it is published.
    rooms_text: String,
    /// Whether its commits wait for synchronous standbys.
    pub commits: CommitWatch,
    pub inventory: Option<Box<NodeFacts>>,
    /// When the inventory was taken; `None`: it is wanted now.
    pub taken: Option<Instant>,
    /// How often it was wanted: one that was asked for earlier is none.
    wanted: u64,
    pub nudge: Rc<Nudge>,
    pub probe: Rc<Nudge>,
}

impl Watched {
    pub fn new(name: &str, target: Target, options: NodeOptions, now: Duration) -> Self {
        Watched {
            name: name.to_owned(),
            target,
            options,
            watch: NodeWatch::new(now, None),
            pulse: None,
            answer: String::new(),
            last_seen: None,
            connected_since: None,
            round_trips: RoundTrips::default(),
            growth: BTreeMap::new(),
            rooms: Vec::new(),
            rooms_text: String::new(),
            commits: CommitWatch::default(),
            inventory: None,
            taken: None,
            wanted: 0,
            nudge: Rc::default(),
            probe: Rc::default(),
        }
    }

    /// Goes on where an earlier worker ended, by the kind of its last event.
    pub fn resume(&mut self, kind: &str) {
        if let Ok(told) = serde_json::from_value::<NodeState>(kind.into()) {
            self.watch.resume(told);
        }
    }

    /// What it said last, if it is heard and is itself.
    pub fn answer(&self) -> Option<&Pulse> {
        self.pulse.as_ref().filter(|_| self.watch.state().answers())
    }

    pub fn limits(&self) -> NodeLimits {
        let own = |milliseconds: Option<u32>| milliseconds.map(|n| Duration::from_millis(n.into()));
        NodeLimits {
            heartbeat_interval: own(self.options.heartbeat_interval)
                .unwrap_or_else(guc::heartbeat_interval),
            node_timeout: own(self.options.node_timeout).unwrap_or_else(guc::node_timeout),
        }
    }

    /// Takes in what it has left; whether that is something new.
    pub fn take_rooms(&mut self, rooms: Vec<Room>) -> bool {
        let new = self.rooms != rooms;
        if new {
            self.rooms_text = rooms_text(&rooms);
            self.rooms = rooms;
        }
        new
    }

    /// What is known of what it has may not be true any more.
    pub fn want_inventory(&mut self) {
        self.taken = None;
        self.wanted += 1;
    }

    /// Asks for everything again, at once.
    fn look_again(&mut self) {
        self.want_inventory();
        self.nudge.give();
    }

    /// What is published of it.
    pub fn record(&mut self, now: Duration, is_self: bool) -> NodeRecord<'_> {
        let round_trip = self.round_trips.summary();
        let lasted = now.saturating_sub(self.watch.since()).as_secs_f64();
        let rates = self.growth.iter();
        let rates = rates.filter_map(|(slot, growth)| Some((slot, growth.per_second()?)));
        NodeRecord {
            state: self.watch.state(),
            rule: Cow::Borrowed(self.watch.rule()),
            since: epoch_now() - lasted,
            reason: self.watch.reason(now),
            hint: self.watch.hint(),
            is_self,
            last_seen: self.last_seen,
            connected_since: self.connected_since,
            round_trip,
            growth: rates.map(|(slot, rate)| (slot.clone(), rate)).collect(),
            rooms: Cow::Borrowed(&self.rooms_text),
            pulse: None,
        }
    }

    /// The node's facts, if it answers and is the node. They are lent, see [`State::take_back`].
    fn observation(&mut self, now: Duration) -> Observation {
        let is_known = self.watch.state().answers() && self.taken.is_some();
        match self.inventory.take_if(|_| is_known) {
            Some(facts) => Observation::Seen { age: Duration::ZERO, facts },
            None => Observation::Unreachable {
                error: self.watch.reason(now).unwrap_or_else(|| "not asked yet".to_owned()),
            },
        }
    }
}

impl Shared {
    pub fn new(here: Here, told: LastTold) -> Self {
        let state = State {
            begun: Instant::now(),
            here,
            label: "".into(),
            rows: None,
            desired: None,
            nodes: BTreeMap::new(),
            links: Links::default(),
            events: Vec::new(),
            stale_nodes: BTreeSet::new(),
            replan: false,
            awaiting: None,
            converging: BTreeSet::new(),
            planned: None,
            cut_off: BTreeSet::new(),
            learnt: BTreeSet::new(),
            settled: BTreeSet::new(),
            no_write_before: None,
            board: Board::default(),
            told,
        };
        Shared(Rc::new(Inner { state: RefCell::new(state), changed: Nudge::default() }))
    }

    pub fn state(&self) -> Ref<'_, State> {
        self.0.state.borrow()
    }

    pub fn state_mut(&self) -> RefMut<'_, State> {
        self.0.state.borrow_mut()
    }

    pub fn changed(&self) -> &Nudge {
        &self.0.changed
    }

    /// How to connect to a node for watching it.
    pub fn target(&self, id: NodeId) -> Option<Target> {
        let state = self.state();
        let node = state.nodes.get(&id)?;
        let limit = node.target.connect_timeout.min(node.limits().node_timeout);
        Some(Target { connect_timeout: limit, ..node.target.clone() })
    }

    pub fn nudge(&self, id: NodeId) -> Rc<Nudge> {
        self.state().nodes.get(&id).map(|node| node.nudge.clone()).unwrap_or_default()
    }

    pub fn limits(&self, id: NodeId) -> NodeLimits {
        let default = NodeLimits {
            heartbeat_interval: guc::heartbeat_interval(),
            node_timeout: guc::node_timeout(),
        };
        self.state().nodes.get(&id).map_or(default, Watched::limits)
    }

    /// When a heartbeat follows one that began at some time. Those of all nodes fall on few
    /// instants, a hundred of an interval: to send ten at once costs less than to wake up for
    /// each.
    pub fn next_heartbeat(&self, id: NodeId, begun: Instant) -> Instant {
        const INSTANTS: u32 = 100;
        let interval = self.limits(id).heartbeat_interval;
        let at = (begun - self.state().begun + interval).as_nanos();
        let beyond = at % (interval / INSTANTS).as_nanos().max(1);
        begun + interval - Duration::from_nanos(u64::try_from(beyond).unwrap_or_default())
    }

    /// `application_name` of the sessions: which node watches, as far as it is known.
    pub fn label(&self) -> Rc<str> {
        self.state().label.clone()
    }

    pub fn connected(&self, id: NodeId) {
        if let Some(node) = self.state_mut().nodes.get_mut(&id) {
            node.connected_since = Some(epoch_now());
        }
    }

    /// A heartbeat came back.
    pub fn answered(&self, id: NodeId, beat: Beat, took: Duration) {
        if self.state_mut().answered(id, beat, took) {
            self.0.changed.give();
        }
    }

    pub fn failed(&self, id: NodeId, failure: Failure) {
        self.state_mut().failed(id, failure);
        self.0.changed.give();
    }

    /// Whether not the node's own server answers.
    pub fn is_another_server(&self, id: NodeId) -> bool {
        let state = self.state();
        let node = state.nodes.get(&id);
        node.is_some_and(|node| node.watch.state() == NodeState::WrongIdentity)
    }

    /// Whether a node should be asked for everything now; the number goes with the answer.
    pub fn wants_inventory(&self, id: NodeId) -> Option<u64> {
        let interval = spread(guc::inventory_interval(), id);
        let due = |node: &&Watched| node.taken.is_none_or(|at| at.elapsed() >= interval);
        let state = self.state();
        let node = state.nodes.get(&id).filter(|node| node.watch.state().answers());
        node.filter(due).map(|node| node.wanted)
    }

    pub fn interest(&self, id: NodeId) -> Interest {
        let state = self.state();
        state.desired.as_ref().map_or_else(Interest::default, |d| d.registry.interest(id))
    }

    /// Slots of a node that keep WAL for others in vain, and how far each may be moved on.
    pub fn slots_behind(&self, id: NodeId) -> Vec<(String, Lsn)> {
        let state = self.state();
        let Some(desired) = state.desired.as_ref().filter(|_| !spi::in_recovery()) else {
            return vec![];
        };
        siblings::behind(&desired.registry, id, |id| state.nodes.get(&id)?.answer())
    }

    /// Given when links of a node should be probed.
    pub fn probe_nudge(&self, id: NodeId) -> Option<Rc<Nudge>> {
        self.state().nodes.get(&id).map(|node| node.probe.clone())
    }

    pub fn probed(&self, link: LinkId, probe: Probe) {
        let mut state = self.state_mut();
        let probe = match &state.desired {
            Some(desired) => {
                let error = probe.error.map(|error| desired.redact(&error));
                Probe { error, ..probe }
            }
            None => probe,
        };
        state.links.probed(link, probe);
        drop(state);
        self.0.changed.give();
    }

    pub fn took_inventory(&self, id: NodeId, wanted: u64, facts: NodeFacts) {
        let mut state = self.state_mut();
        if let Some(node) = state.nodes.get_mut(&id).filter(|node| node.wanted == wanted) {
            let is_known = node.taken.is_some() && node.inventory.as_deref() == Some(&facts);
            node.taken = Some(Instant::now());
            node.inventory = Some(Box::new(facts));
            if is_known {
                return;
            }
            state.replan = true;
        }
        drop(state);
        self.0.changed.give();
    }
}

impl State {
    /// Writes to rows of the registry; whether it was done. What was not is tried again later.
    pub fn write(&mut self, work: impl FnOnce() -> Result<()>) -> bool {
        if self.no_write_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let done = spi::in_own_transaction(work).is_ok();
        self.no_write_before = (!done).then(|| Instant::now() + WRITE_PAUSE);
        done
    }

    /// Time since the worker began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The instant that such a time stands for.
    pub fn instant(&self, at: Duration) -> Instant {
        self.begun + at
    }

    /// The node that this server and database are.
    pub fn myself(&self) -> Option<(NodeId, &Watched)> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, node)| self.here.is(node)).map(|(id, node)| (*id, node))
    }

    /// Foreign links of a node that should be asked now, each with a table to ask.
    pub fn probes_due(&self, id: NodeId) -> Vec<(LinkId, TableName)> {
        let (Some(desired), Some(node)) = (&self.desired, self.nodes.get(&id)) else {
            return vec![];
        };
        let Some(facts) = node.inventory.as_ref().filter(|_| node.watch.state().answers()) else {
            return vec![];
        };
        self.links.probes_due(id, &desired.registry, facts)
    }

    /// Has the links asked that are due.
    pub fn nudge_probes(&self) {
        let nodes = self.links.nodes().filter_map(|id| Some((id, self.nodes.get(&id)?)));
        for (_, node) in nodes.filter(|(id, _)| !self.probes_due(*id).is_empty()) {
            node.probe.give();
        }
    }

    /// Notes which node watches. Every heartbeat wants to know, and must not look at all nodes.
    pub fn note_myself(&mut self) {
        let name =
            self.myself().map_or(String::new(), |(_, node)| format!("pg_nodes {}", node.name));
        if *name != *self.label {
            self.label = name.into();
        }
    }

    /// Whether the control task has something to do.
    fn answered(&mut self, id: NodeId, beat: Beat, took: Duration) -> bool {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let Beat { pulse, answer } = beat;
        node.answer = answer;
        node.watch.answered(now, &pulse.system_identifier);
        node.round_trips.add(took);
        node.last_seen = Some(epoch_now());
        note_growth(&mut node.growth, &pulse, now);
        let previous = node.pulse.replace(pulse);
        if let (Some(desired), Some(before), Some(after)) = (&self.desired, &previous, &node.pulse)
        {
            let alive = signs_of_life(&desired.registry, id, before, after);
            alive.iter().for_each(|other| self.alive(*other));
        }
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let changed = match (&previous, &node.pulse) {
            (Some(before), Some(after)) => !after.has_shape_of(before),
            _ => true,
        };
        if changed {
            node.want_inventory();
        }
        let told = self.judge(id) | self.judge_commits(id);
        self.stale_nodes.insert(id);
        self.links.touch(id);
        changed || told
    }

    /// Judges by a node's last heartbeat whether its commits wait; whether people must hear of it.
    fn judge_commits(&mut self, id: NodeId) -> bool {
        let (now, desired) = (self.now(), self.desired.clone());
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let limits = node.limits();
        let Some(pulse) = node.pulse.as_ref().filter(|_| node.watch.state().answers()) else {
            return false;
        };
        let Some(change) = node.commits.judge(now, pulse, &limits) else { return false };
        let registry = desired.as_ref().filter(|_| change.kind == commits::BLOCKED);
        let hint = registry.map(|desired| commits::hint(&desired.registry, pulse));
        self.events.push(Event::of_commits(&node.name, change, hint));
        true
    }

    /// Has the subscribers asked again whose slots a plan has not found for the first time: how far
    /// they have come says what they have missed, and may have been asked before the slot was lost.
    /// Whether there are any.
    pub fn asks_cut_off(&mut self, plan: &Plan, registry: &Registry) -> bool {
        let lost: BTreeSet<LinkId> = plan.cut_off().collect();
        let subscribers: Vec<NodeId> =
            lost.difference(&self.cut_off).filter_map(|id| Some(registry.link(*id)?.to)).collect();
        for subscriber in &subscribers {
            if let Some(node) = self.nodes.get_mut(subscriber) {
                node.look_again();
            }
        }
        // Of one that is slow to answer the plan knows nothing for a while.
        let nodes = &self.nodes;
        let awaited = |id: &LinkId| {
            let node = registry.link(*id).and_then(|link| nodes.get(&link.to));
            node.is_some_and(|node| node.taken.is_none())
        };
        self.cut_off.retain(|id| awaited(id));
        self.cut_off.extend(lost);
        !subscribers.is_empty()
    }

    /// Somebody has heard from a node: if we have not, now is the time to try.
    fn alive(&self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id).filter(|node| !node.watch.state().answers()) {
            node.nudge.give();
        }
    }

    fn failed(&mut self, id: NodeId, failure: Failure) {
        let now = self.now();
        let failure = self.redacted(failure);
        let restarts = shmem::may_restart(process::database(), id);
        let failure = if restarts { failure.of_restarting() } else { failure };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.watch.failed(now, failure);
        node.connected_since = None;
        node.want_inventory();
        self.judge(id);
        self.stale_nodes.insert(id);
        self.links.touch(id);
    }

    fn redacted(&self, failure: Failure) -> Failure {
        match &self.desired {
            Some(desired) => Failure { message: desired.redact(&failure.message), ..failure },
            None => failure,
        }
    }

    /// Judges a node anew; whether people must hear of it.
    pub fn judge(&mut self, id: NodeId) -> bool {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let (before, limits) = (node.watch.state(), node.limits());
        let transition = node.watch.judge(now, &limits);
        if node.watch.state() != before {
            self.stale_nodes.insert(id);
            self.links.touch(id);
            self.replan = true;
        }
        let Some(transition) = transition else { return false };
        self.events.push(Event::of_node(&node.name, &transition));
        true
    }

    /// Asks every node for everything again, at once.
    pub fn look_again(&mut self) {
        for node in self.nodes.values_mut() {
            node.look_again();
        }
        self.replan = true;
    }

    /// Has every node send a heartbeat now: intervals may be others from here on.
    pub fn wake_all(&mut self) {
        self.nodes.values().for_each(|node| node.nudge.give());
        self.touch_all();
    }

    /// Has everything judged and published again.
    pub fn touch_all(&mut self) {
        self.stale_nodes = self.nodes.keys().copied().collect();
        self.links.touch_all();
    }

    /// What is planned by: what every node that answers said last. It is lent, to be given to
    /// [`State::take_back`]: a copy of what a thousand nodes have takes long.
    pub fn lend_world(&mut self) -> World {
        let now = self.now();
        let nodes = self.nodes.iter_mut().map(|(id, node)| (*id, node.observation(now)));
        World { nodes: nodes.collect() }
    }

    pub fn take_back(&mut self, world: World) {
        for (id, observation) in world.nodes {
            if let (Some(node), Observation::Seen { facts, .. }) =
                (self.nodes.get_mut(&id), observation)
            {
                node.inventory = Some(facts);
            }
        }
    }

    /// Whether it is worth waiting for somebody who answers and has yet to say what it has: a
    /// slow one is unknown meanwhile.
    pub fn awaits_inventories(&mut self) -> bool {
        let awaited = |n: &Watched| n.taken.is_none() && n.watch.state() == NodeState::Up;
        if !self.nodes.values().any(awaited) {
            self.awaiting = None;
            return false;
        }
        let since = *self.awaiting.get_or_insert_with(Instant::now);
        since.elapsed() < PATIENCE
    }
}

/// A node's own interval, between half of it and all: what all nodes were asked at the same time
/// they are not asked at the same time again.
fn spread(interval: Duration, id: NodeId) -> Duration {
    let part = (f64::from(id) * 0.618_034).fract().abs();
    interval.mul_f64(1.0 - part / 2.0)
}

/// Nodes to which a node has got a connection through a link since its last heartbeat.
fn signs_of_life(registry: &Registry, id: NodeId, before: &Pulse, after: &Pulse) -> Vec<NodeId> {
    if before.connections().eq(after.connections()) {
        return vec![];
    }
    let began = |is_there: &dyn Fn(&Pulse) -> bool| is_there(after) && !is_there(before);
    let other_end = |link: &Link| {
        let slot = registry.mark(link).slot_name();
        if link.from == id {
            began(&|pulse| pulse.slot(&slot).is_some_and(|slot| slot.active)).then_some(link.to)
        } else if link.to == id {
            let receives = match link.spec {
                Spec::Standby(_) => began(&|pulse| pulse.receiver.is_some()),
                Spec::Subscription(_) => {
                    began(&|pulse| pulse.subscription(&link.name).is_some_and(|s| s.running))
                }
                Spec::Foreign(_) => false,
            };
            receives.then_some(link.from)
        } else {
            None
        }
    };
    registry.links.iter().filter_map(other_end).collect()
}

/// Takes note of what every slot retains now.
fn note_growth(growth: &mut BTreeMap<String, Growth>, pulse: &Pulse, now: Duration) {
    growth.retain(|name, _| pulse.slot(name).is_some());
    for slot in &pulse.slots {
        if let Some(retained) = pulse.retained(slot) {
            growth.entry(slot.name.clone()).or_default().note(now, retained);
        }
    }
}
