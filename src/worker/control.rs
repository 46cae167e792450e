//! The control task: follows the registry, plans, tells of changes, and has links made right.

use super::converge::Converge;
use super::events::Event;
use super::registry::Registry;
use super::state::{Shared, State, Watched};
use super::{Fleet, events, standing};
use crate::catalog;
use crate::guc;
use crate::libpq::reactor;
use crate::pg::{process, spi};
use crate::shmem::{self, Ended};
use futures_util::future;
use nodes_plan::desired::NodeId;
use nodes_plan::headroom::{Room, headroom};
use nodes_plan::node_health::NodeState;
use nodes_plan::transition::Severity;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The longest time between two turns.
const TICK: Duration = Duration::from_millis(500);
/// Old events are removed this often.
const CLEANING: Duration = Duration::from_secs(3600);
/// A turn that comes so late was not late by itself: the machine was suspended.
const ABSENCE: Duration = Duration::from_secs(5);

/// Turns until the worker is not needed here.
pub async fn run(shared: Shared, fleet: Fleet, database: u32) -> Ended {
    let mut registry = Registry::default();
    let mut converge = Converge::default();
    let mut standing = standing::Watch::default();
    let mut cleaned: Option<Instant> = None;
    loop {
        if process::reload_settings() {
            shared.state_mut().wake_all();
        }
        if shmem::is_held(database) {
            return Ended::SentAway;
        }
        if !registry.look(&shared, &fleet, database) {
            return Ended::Absent;
        }
        standing.turn(&mut shared.state_mut(), database);
        turn(&shared, &fleet, &mut converge);
        if cleaned.is_none_or(|at| at.elapsed() >= CLEANING) {
            cleaned = Some(Instant::now());
            events::forget_older_than(guc::event_retention());
        }
        registry.tidy();
        rest(&shared).await;
    }
}

/// Judges what time alone has changed, plans what has changed by itself, and tells.
fn turn(shared: &Shared, fleet: &Fleet, converge: &mut Converge) {
    let mut state = shared.state_mut();
    let ids: Vec<NodeId> = state.nodes.keys().copied().collect();
    for id in ids {
        state.judge(id);
    }
    let now = state.now();
    state.links.touch_due(now);
    state.note_myself();
    state.nudge_probes();
    learn(&mut state);
    if state.replan && !state.awaits_inventories() {
        state.plan();
    }
    converge.turn(&mut state, shared, fleet);
    let told = std::mem::take(&mut state.events);
    drop(state);
    events::tell(&told);
    shared.state().show_activity();
}

/// Notes which servers the nodes are that have answered for the first time.
fn learn(state: &mut State) {
    if spi::in_recovery() {
        return;
    }
    let Some(desired) = state.desired.clone() else { return };
    let learnt: Vec<(NodeId, String)> = desired
        .unlearnt
        .iter()
        .filter(|id| !state.learnt.contains(id))
        .filter_map(|id| {
            let node = state.nodes.get(id).filter(|n| n.watch.state() == NodeState::Up)?;
            Some((*id, node.pulse.as_ref()?.system_identifier.clone()))
        })
        .collect();
    if learnt.is_empty() {
        return;
    }
    if state.write(|| catalog::learn_identities(&learnt)) {
        state.learnt.extend(learnt.iter().map(|(id, _)| *id));
        for (id, identity) in learnt {
            if let Some(node) = state.nodes.get_mut(&id) {
                node.watch.expect(Some(identity));
            }
        }
    }
}

impl State {
    /// The difference between what should be and what is, as far as it is known now.
    fn plan(&mut self) {
        self.replan = false;
        let Some(desired) = self.desired.clone() else { return };
        let world = self.lend_world();
        let plan = nodes_plan::plan(&desired.registry, &world);
        if self.asks_cut_off(&plan, &desired.registry) {
            self.take_back(world);
            self.replan = true;
            return;
        }
        self.links.planned(&plan);
        self.links.expect_rows(&desired.registry, &world);
        let mut rooms: BTreeMap<NodeId, Vec<Room>> = BTreeMap::new();
        for room in headroom(&desired.registry, &world) {
            rooms.entry(room.node).or_default().push(room);
        }
        for (id, node) in &mut self.nodes {
            let rooms = rooms.remove(id).unwrap_or_default();
            // What is not known now was tight or not as it was.
            if node.watch.state().answers() {
                self.events.extend(tight(node, &rooms));
                if node.take_rooms(rooms) {
                    self.stale_nodes.insert(*id);
                }
            }
        }
        self.take_back(world);
        self.planned = Some(plan);
    }

    fn show_activity(&self) {
        let up = self.nodes.values().filter(|n| n.watch.state() == NodeState::Up).count();
        process::show_activity(&format!("watching {} nodes, {up} up", self.nodes.len()));
    }
}

/// What has become tight since the last look.
fn tight(node: &Watched, rooms: &[Room]) -> Vec<Event> {
    let was = |room: &Room| {
        let before = node.rooms.iter().find(|before| before.resource == room.resource);
        before.is_some_and(Room::is_tight)
    };
    let event = |room: &Room| Event {
        node: Some(node.name.clone()),
        link: None,
        kind: "headroom",
        severity: Severity::Warning,
        message: format!(
            "node \"{}\" runs out of {}: {} of {} are in use, its links need {}",
            node.name, room.resource, room.used, room.limit, room.needed
        ),
        rule: "",
        hint: room.hint.clone(),
    };
    rooms.iter().filter(|room| room.is_tight() && !was(room)).map(event).collect()
}

/// Waits for a change, the latch, the time when silence means more than before, or a tick.
async fn rest(shared: &Shared) {
    let next = {
        let state = shared.state();
        let nodes = state.nodes.values().filter_map(|n| n.watch.deadline(&n.limits()));
        nodes.chain(state.links.deadline()).min().map(|at| state.instant(at))
    };
    let begun = Instant::now();
    let tick = begun + TICK;
    let until = next.map_or(tick, |at| at.clamp(begun + Duration::from_millis(1), tick));
    let (changed, latch) = (pin!(shared.changed().taken()), pin!(reactor::latch()));
    let sleep = pin!(reactor::sleep_until(until));
    future::select(future::select(changed, latch), sleep).await;
    let absence = begun.elapsed();
    if absence >= TICK + ABSENCE {
        for node in shared.state_mut().nodes.values_mut() {
            node.watch.excuse(absence);
        }
    }
}
