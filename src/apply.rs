//! From desired rows to changed servers: looks, plans, does, and looks again until nothing is
//! left to do. Nothing is remembered between rounds; the step log is history.

pub mod check;
mod claim;
pub mod clone;
pub mod conninfo;
mod demote;
pub mod desired;
pub mod digest;
mod execute;
pub mod failover;
mod follow;
pub mod identity;
pub mod leader;
pub mod promote;
mod reach;
pub mod rejoin;
mod report;
pub mod switchover;

use crate::catalog::{self, Origin, Rows};
use crate::error::{Error, Result};
use crate::gate;
use crate::guc;
use crate::libpq::reactor;
use crate::observe::session::Target;
use crate::observe::{self, Sessions};
use crate::pg::spi;
use desired::Desired;
use execute::Execution;
use nodes_plan::TOO_FEW_STREAM;
use nodes_plan::desired::{Interest, LinkId, NodeId};
use nodes_plan::observed::{Observation, World};
use nodes_plan::pulse::Pulse;
use nodes_plan::step::{Plan, Problem, ProblemKind, Step};
use report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One round follows another while there is something to do; removing a link and making
/// another of its name takes three.
const MAX_ROUNDS: usize = 10;

/// Reads the registry and refuses to act where it is passive.
pub fn load_active() -> Result<Desired> {
    gate::check_not_superseded()?;
    let rows = Rows::load()?;
    check_active(&rows.origin)?;
    Desired::from_rows(&rows)
}

/// A copy of a registry (a restored dump) must never act on the servers of the original.
pub fn check_active(origin: &Origin) -> Result<()> {
    match &origin.made_on {
        Some(made_on) if *made_on != origin.here => {
            Err(Error::Passive { made_on: made_on.clone(), here: origin.here.clone() })
        }
        Some(_) if !origin.made_in_this_database => Err(Error::PassiveCopy),
        Some(_) | None => Ok(()),
    }
}

/// One look at all nodes, and what it means.
pub struct Look {
    pub world: World,
    /// The heartbeats of nodes that answer, and how long they took.
    pub pulses: BTreeMap<NodeId, (Pulse, Duration)>,
    pub plan: Plan,
}

/// What a registry shows that may not act here: what it holds. Nobody is asked.
pub fn passive_world(desired: &Desired, why: &Error) -> World {
    let unasked = || Observation::Unreachable { error: why.to_string() };
    World { nodes: desired.registry.nodes.keys().map(|node| (*node, unasked())).collect() }
}

/// Asks all nodes at once and plans; changes nothing.
pub fn look(desired: &Desired) -> Look {
    reactor::block_on(async {
        let (world, mut sessions) = ask(desired, &desired.targets(), observe::take()).await;
        let pulses = observe::pulses(&mut sessions).await;
        observe::keep(sessions, guc::keep_sessions()).await;
        let plan = nodes_plan::plan(&desired.registry, &world);
        Look { world, pulses, plan }
    })
}

/// Asks the nodes that have links, at once, and plans; changes nothing.
pub fn plan(desired: &Desired) -> Plan {
    reactor::block_on(async {
        let (world, sessions) = ask(desired, &desired.linked_targets(), observe::take()).await;
        observe::keep(sessions, guc::keep_sessions()).await;
        nodes_plan::plan(&desired.registry, &world)
    })
}

/// What silent nodes are silent about must not be a password.
async fn ask(
    desired: &Desired,
    targets: &[(Target, Interest)],
    sessions: Sessions,
) -> (World, Sessions) {
    observe::world(targets, sessions, |text| desired.redact(text)).await
}

/// Sleeps, ready to be interrupted.
pub fn pause(duration: Duration) {
    reactor::block_on(reactor::sleep(duration));
}

/// Makes it so and says what must wait. Commits step by step: the caller is a procedure called
/// outside a transaction block. With `timeout`, gives up when it has passed; what is done stays
/// done.
pub fn apply(timeout: Option<Duration>) -> Result<Vec<String>> {
    let work = async {
        let mut report = Report::default();
        let done = rounds(&mut report, None).await;
        done.and_then(|()| report.finish())
    };
    reactor::block_on(async {
        match timeout {
            None => work.await,
            Some(limit) => match reactor::timeout(limit, work).await {
                Ok(done) => done,
                Err(_) => Err(Error::Timeout("nodes.apply()".to_owned())),
            },
        }
    })
}

/// The same for some links, within an event loop that goes on meanwhile: says nothing, watches
/// nothing to its end, and returns what could not be made right, in words.
pub async fn converge(links: BTreeSet<LinkId>) -> Result<Vec<String>> {
    let mut report = Report::quiet();
    rounds(&mut report, Some(&links)).await?;
    Ok(report.into_lines())
}

async fn rounds(report: &mut Report, only: Option<&BTreeSet<LinkId>>) -> Result<()> {
    let mut sessions = if only.is_none() { observe::take() } else { Sessions::new() };
    let mut followed = only.is_some();
    for round in 0..MAX_ROUNDS {
        let desired = spi::in_own_transaction(load_active)?;
        if round == 0 && clone::clear_removed(&desired, only).await? {
            continue;
        }
        let (world, open) = ask(&desired, &desired.linked_targets(), sessions).await;
        learn(&desired, &world)?;
        let plan = nodes_plan::plan(&desired.registry, &world);
        let plan = runnable(plan, report.failed_links(), only);
        report.total = desired.registry.links.len();
        let is_early = |problem: &&Problem| problem.rule == TOO_FEW_STREAM && !followed;
        let early = plan.problems.iter().any(|problem| is_early(&problem));
        let problems = plan.problems.iter().filter(|problem| !is_early(problem));
        report.problems(&desired, &problems.cloned().collect::<Vec<_>>());
        if plan.steps.is_empty() || report.failed_without_link {
            settle(&desired, &plan, report, only)?;
            if only.is_some() {
                return Ok(());
            }
            sessions = follow_unfinished(&desired, &world, open, report).await;
            clone::clear_returned(&desired).await?;
            if early {
                // Whoever streams by now can be waited for.
                followed = true;
                continue;
            }
            observe::keep(sessions, guc::keep_sessions()).await;
            return Ok(());
        }
        let mut execution = Execution::new(&desired, open);
        sessions = execution.run(plan, report).await?;
    }
    Err(Error::NoConvergence(MAX_ROUNDS))
}

/// Notes which servers the nodes are that answer for the first time.
fn learn(desired: &Desired, world: &World) -> Result<()> {
    let heard = desired.unlearnt.iter().filter_map(|id| Some((*id, world.facts(*id)?)));
    let learnt: Vec<_> = heard.map(|(id, f)| (id, f.system_identifier.clone())).collect();
    if learnt.is_empty() {
        Ok(())
    } else {
        spi::in_own_transaction(|| catalog::learn_identities(&learnt))
    }
}

/// What the plan asks for of links that have not failed in this run, and of no others than
/// those that are meant, but for what only follows a group.
fn runnable(plan: Plan, failed: &BTreeSet<LinkId>, only: Option<&BTreeSet<LinkId>>) -> Plan {
    let meant = |link: LinkId| only.is_none_or(|only| only.contains(&link));
    let runs = |step: &Step| {
        let may = |link| (meant(link) || step.follows_group()) && !failed.contains(&link);
        step.link.is_none_or(may)
    };
    Plan {
        steps: plan.steps.into_iter().filter(runs).collect(),
        problems: plan.problems.into_iter().filter(|p| p.link.is_none_or(meant)).collect(),
    }
}

/// Links without a step or an obstacle have been brought about; from now on a difference is
/// somebody's change.
fn settle(
    desired: &Desired,
    plan: &Plan,
    report: &Report,
    only: Option<&BTreeSet<LinkId>>,
) -> Result<()> {
    let obstacle = |problem: &Problem| !matches!(problem.kind, ProblemKind::Warning);
    let obstructed: BTreeSet<LinkId> =
        plan.problems.iter().filter(|p| obstacle(p)).filter_map(|p| p.link).collect();
    let done = desired.registry.links.iter().map(|link| link.id).filter(|link| {
        only.is_none_or(|only| only.contains(link))
            && !obstructed.contains(link)
            && !report.failed_links().contains(link)
    });
    let done: Vec<LinkId> = done.collect();
    spi::in_own_transaction(|| catalog::settle_links(&done))
}

/// The last round has nothing to do, but what it began may still be on its way: initial
/// copies, and standbys that have just been told whom to follow.
async fn follow_unfinished(
    desired: &Desired,
    world: &World,
    sessions: Sessions,
    report: &mut Report,
) -> Sessions {
    let unmade = report.unmade_links();
    follow::all(desired, world, sessions, &unmade, report).await
}

/// A refused problem of the plan, as a line of the final error.
pub(crate) fn problem_line(desired: &Desired, problem: &Problem) -> String {
    let link = problem.link.map_or("?", |link| desired.link_name(link));
    format!("link \"{link}\": {} ({})", problem.message, problem.rule)
}

/// Whether a problem means that the link is not as it should be until a person acts.
pub(crate) fn is_failure(problem: &Problem) -> bool {
    match problem.kind {
        ProblemKind::Refused => true,
        ProblemKind::Waiting | ProblemKind::Warning => false,
    }
}

/// Runs a step of the registry itself, in a transaction of its own.
pub(crate) fn run_registry_step(sql: &str) -> Result<()> {
    spi::in_own_transaction(|| catalog::run_step(sql))
}
