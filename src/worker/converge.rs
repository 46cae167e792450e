//! Has links made right that were spoken of, or that heal by themselves, and all of them follow
//! the groups that they read from. What people change by hand on other links is reported and left
//! alone.

use super::Fleet;
use super::events::Event;
use super::state::{Shared, State};
use crate::apply;
use crate::catalog;
use crate::error::Result;
use crate::gate;
use crate::guc;
use crate::pg::lock::{self, Work};
use crate::pg::spi;
use nodes_plan::desired::{LinkId, LinkState, NodeId};
use nodes_plan::step::{Plan, ProblemKind};
use nodes_plan::transition::Severity;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// How a run ended: what could not be made right, in words.
type Outcome = Result<Vec<String>>;

#[derive(Default)]
pub struct Converge {
    running: bool,
    outcome: Rc<RefCell<Option<Outcome>>>,
    failures: u32,
    not_before: Option<Instant>,
    /// What was told of the last run, so that its repetition is not.
    told: BTreeSet<String>,
}

impl Converge {
    /// Takes in how the last run ended, and begins another where there is something to do.
    pub fn turn(&mut self, state: &mut State, shared: &Shared, fleet: &Fleet) {
        if let Some(outcome) = self.outcome.take() {
            self.ended(state, outcome);
        }
        if spi::in_recovery() || !gate::state().admits() || !may_act(state) {
            return;
        }
        if guc::auto_apply() {
            state.follow_managers();
        }
        let Some(plan) = state.planned.clone() else { return };
        settle(state, &plan);
        let paused = self.not_before.is_some_and(|at| Instant::now() < at);
        if !guc::auto_apply() || self.running || paused || state.replan {
            return;
        }
        let links = wanted(state, &plan);
        let following = plan.steps.iter().filter(|step| step.follows_group());
        let following: BTreeSet<LinkId> = following.filter_map(|step| step.link).collect();
        let orphans = plan.steps.iter().any(|step| step.link.is_none());
        if !links.is_empty() || !following.is_empty() || orphans {
            self.begin(links, &following, state, shared, fleet);
        }
    }

    fn begin(
        &mut self,
        links: BTreeSet<LinkId>,
        following: &BTreeSet<LinkId>,
        state: &mut State,
        shared: &Shared,
        fleet: &Fleet,
    ) {
        // Somebody else is at it: what is left then is for the next turn.
        let Ok(Some(apply_lock)) = spi::in_own_transaction(|| Ok(lock::try_acquire(Work::Apply)))
        else {
            self.not_before = Some(Instant::now() + FIRST_PAUSE);
            return;
        };
        self.running = true;
        state.converging = &links | following;
        let (outcome, shared) = (self.outcome.clone(), shared.clone());
        fleet.start(async move {
            let ended = apply::converge(links).await;
            drop(apply_lock);
            outcome.replace(Some(ended));
            shared.changed().give();
        });
    }

    fn ended(&mut self, state: &mut State, outcome: Outcome) {
        self.running = false;
        let lines = match outcome {
            Ok(lines) => lines,
            Err(error) => vec![error.to_string()],
        };
        self.failures = if lines.is_empty() { 0 } else { self.failures + 1 };
        self.not_before = (self.failures > 0).then(|| {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures - 1);
            Instant::now() + pause.min(LAST_PAUSE)
        });
        let told = std::mem::take(&mut self.told);
        for line in &lines {
            if !told.contains(line) {
                state.events.push(failed(line));
            }
        }
        self.told = lines.into_iter().collect();
        let converged = std::mem::take(&mut state.converging);
        state.links.unplan(&converged);
        state.look_again();
    }
}

fn failed(line: &str) -> Event {
    Event {
        node: None,
        link: None,
        kind: "apply failed",
        severity: Severity::Warning,
        message: line.to_owned(),
        rule: "",
        hint: Some("Correct the cause; it is tried again by itself.".to_owned()),
    }
}

/// A server of a registered group that is none of its nodes is a copy: it must find itself
/// among the nodes before it acts.
fn may_act(state: &State) -> bool {
    let Some(rows) = &state.rows else { return false };
    let here = Some(rows.origin.here.as_str());
    let registered = |node: &NodeId| {
        rows.nodes.iter().any(|row| row.id == *node && row.system_identifier.as_deref() == here)
    };
    state.myself().is_some() || !state.nodes.keys().any(registered)
}

/// Links of which nothing is left to do have been brought about.
fn settle(state: &mut State, plan: &Plan) {
    let Some(rows) = state.rows.clone() else { return };
    if state.replan {
        return;
    }
    let busy = |id: LinkId| {
        plan.steps.iter().any(|step| step.link == Some(id))
            || plan.problems.iter().any(|problem| {
                problem.link == Some(id) && !matches!(problem.kind, ProblemKind::Warning)
            })
    };
    let done: Vec<LinkId> = rows
        .links
        .iter()
        .filter(|link| link.pending && !busy(link.id) && !state.settled.contains(&link.id))
        .map(|link| link.id)
        .collect();
    if !done.is_empty() && state.write(|| catalog::settle_links(&done)) {
        state.settled.extend(done);
    }
}

/// The links that have steps in the plan and may be changed without being asked.
fn wanted(state: &State, plan: &Plan) -> BTreeSet<LinkId> {
    let Some(rows) = &state.rows else { return BTreeSet::new() };
    let planned: BTreeSet<LinkId> = plan.steps.iter().filter_map(|step| step.link).collect();
    let spoken_of = |id: LinkId, pending: bool| pending && !state.settled.contains(&id);
    rows.links
        .iter()
        .filter(|link| planned.contains(&link.id))
        .filter(|link| {
            spoken_of(link.id, link.pending) || link.heal || link.state == LinkState::Removing
        })
        .map(|link| link.id)
        .collect()
}
