//! What state a link is in, from facts and plan: the first rule that matches wins.

use crate::desired::{Link, LinkState, Registry, Spec};
use crate::observed::{SubscribedTable, World};
use crate::step::{Operation, Plan, Problem, ProblemKind};

/// A link's state with the reason for it and the next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    /// `removing`, `waiting`, `broken`, `missing`, `drifted`, `paused`, `copying`,
    /// `streaming`, `up` or `unknown`.
    pub state: &'static str,
    pub reason: Option<String>,
    pub hint: Option<String>,
}

impl LinkHealth {
    fn of(state: &'static str) -> Self {
        LinkHealth { state, reason: None, hint: None }
    }

    fn because(self, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        LinkHealth { reason: Some(reason.into()), hint: Some(hint.into()), ..self }
    }
}

const APPLY: &str = "See nodes.plan(), then CALL nodes.apply().";

/// Judges one link. `plan` is the plan for the same registry and world.
pub fn link_health(registry: &Registry, world: &World, link: &Link, plan: &Plan) -> LinkHealth {
    let problem = |kind| plan.problems.iter().find(|p| p.link == Some(link.id) && p.kind == kind);
    let with = |state, problem: &Problem| {
        LinkHealth::of(state).because(problem.message.clone(), problem.hint.clone())
    };
    if link.state == LinkState::Removing {
        let obstacle = problem(ProblemKind::Refused).or_else(|| problem(ProblemKind::Waiting));
        return match obstacle {
            Some(problem) => with("removing", problem),
            None => LinkHealth::of("removing").because("nodes.apply() has not run since", APPLY),
        };
    }
    if let Some(problem) = problem(ProblemKind::Refused) {
        return with("broken", problem);
    }
    if let Some(problem) = problem(ProblemKind::Waiting) {
        return with("waiting", problem);
    }
    if let Some(step) = plan.steps.iter().find(|step| step.link == Some(link.id)) {
        let state = if creates(&step.operation) { "missing" } else { "drifted" };
        return LinkHealth::of(state).because(step.reason.clone(), APPLY);
    }
    observed_health(registry, world, link)
}

/// Whether a plan that begins with this operation makes the link from nothing.
fn creates(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::CreatePhysicalSlot { .. }
            | Operation::CreatePublication { .. }
            | Operation::CreateLogicalSlot { .. }
            | Operation::CreateServer { .. }
            | Operation::CreateFdwExtension { .. }
    )
}

/// A link for which nothing is left to do.
fn observed_health(registry: &Registry, world: &World, link: &Link) -> LinkHealth {
    let slot = registry.mark(link).slot_name();
    let source = world.facts(link.from);
    let reader = source.and_then(|facts| facts.slot(&slot)).map(|slot| slot.active);
    match (&link.spec, link.state) {
        (Spec::Foreign(_), _) => LinkHealth::of("up"),
        (Spec::Subscription(_), LinkState::Paused) => LinkHealth::of("paused"),
        (Spec::Subscription(_), _) => {
            let tables = world
                .facts(link.to)
                .and_then(|facts| facts.subscription(&link.name))
                .map_or(vec![], |found| found.tables.values().collect());
            subscription_health(registry, link, &tables, reader)
        }
        (Spec::Standby(spec), _) => match reader {
            Some(false) => no_reader(registry, link),
            Some(true) => LinkHealth::of("streaming"),
            None if spec.slot => LinkHealth::of("unknown"),
            None => LinkHealth::of("up"),
        },
    }
}

fn subscription_health(
    registry: &Registry,
    link: &Link,
    tables: &[&SubscribedTable],
    reader: Option<bool>,
) -> LinkHealth {
    let ready = tables.iter().filter(|table| matches!(table.state, 's' | 'r')).count();
    if ready < tables.len() {
        let reason = format!("{ready} of {} tables are copied", tables.len());
        return LinkHealth::of("copying").because(reason, "It goes on by itself.");
    }
    match reader {
        Some(true) => LinkHealth::of("streaming"),
        Some(false) | None => no_reader(registry, link),
    }
}

fn no_reader(registry: &Registry, link: &Link) -> LinkHealth {
    let reason = format!(
        "nobody reads its slot on \"{}\", which keeps WAL meanwhile",
        registry.node_name(link.from)
    );
    let hint = format!(
        "The server log of \"{}\" says why it does not connect.",
        registry.node_name(link.to)
    );
    LinkHealth::of("broken").because(reason, hint)
}
