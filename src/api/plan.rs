//! `nodes.plan()`, `nodes.apply()`, `nodes.teardown()`, `nodes.take_over()`, `nodes.rules()`.

use super::node::remove_all;
use crate::apply;
use crate::apply::desired::Desired;
use crate::catalog::{self, Rows};
use crate::error::{Error, Result};
use crate::pg::{lock, spi};
use nodes_plan::step::{Plan, Problem, Step};
use pgrx::datum::Interval;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::Duration;

type PlanRow = (
    Option<i32>,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    String,
);

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn plan() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(step, Option<i32>),
            name!(node, Option<String>),
            name!(link, Option<String>),
            name!(action, String),
            name!(danger, Option<String>),
            name!(command, Option<String>),
            name!(reason, String),
            name!(hint, Option<String>),
            name!(rule, String),
        ),
    >,
    ErrorReport,
> {
    let rows = Rows::load()?;
    if let Err(passive) = apply::check_active(&rows.origin) {
        return Ok(TableIterator::once(passive_row(&passive)));
    }
    let desired = Desired::from_rows(&rows)?;
    let plan = apply::plan(&desired);
    Ok(TableIterator::new(plan_rows(&desired, &plan)))
}

fn plan_rows(desired: &Desired, plan: &Plan) -> Vec<PlanRow> {
    let problems = plan.problems.iter().map(|problem| problem_row(desired, problem));
    let steps = plan.steps.iter().zip(1..).map(|(step, number)| step_row(desired, step, number));
    steps.chain(problems).collect()
}

fn step_row(desired: &Desired, step: &Step, number: i32) -> PlanRow {
    (
        Some(number),
        step.node.map(|node| desired.registry.node_name(node).to_owned()),
        step.link.map(|link| desired.link_name(link).to_owned()),
        step.operation.label().to_owned(),
        step.danger.clone(),
        Some(step.operation.sql().masked().to_owned()),
        step.reason.clone(),
        None,
        step.rule.to_owned(),
    )
}

fn problem_row(desired: &Desired, problem: &Problem) -> PlanRow {
    (
        None,
        problem.node.map(|node| desired.registry.node_name(node).to_owned()),
        problem.link.map(|link| desired.link_name(link).to_owned()),
        problem.kind.label().to_owned(),
        None,
        None,
        desired.redact(&problem.message),
        Some(problem.hint.clone()),
        problem.rule.to_owned(),
    )
}

/// On a server that the registry was not made on, the plan is this one row.
fn passive_row(passive: &Error) -> PlanRow {
    let (reason, action) = (passive.to_string(), "problem".to_owned());
    (None, None, None, action, None, None, reason, passive.hint(), "RG00".to_owned())
}

#[pg_extern(sql = "
CREATE PROCEDURE nodes.apply(timeout interval DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
fn apply(
    timeout: Option<Interval>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    check_call("nodes.apply()", fcinfo)?;
    let timeout = timeout.map(duration).transpose()?;
    lock::with_apply_lock(timeout, apply::apply)?;
    Ok(())
}

#[pg_extern(sql = "
CREATE PROCEDURE nodes.teardown(timeout interval DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
fn teardown(
    timeout: Option<Interval>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    check_call("nodes.teardown()", fcinfo)?;
    let timeout = timeout.map(duration).transpose()?;
    Ok(lock::with_apply_lock(timeout, take_down)?)
}

/// Ends with an error as long as anything is left: what a `DROP EXTENSION` that follows would
/// forget.
fn take_down(timeout: Option<Duration>) -> Result<()> {
    spi::in_own_transaction(|| {
        let rows = Rows::load()?;
        apply::check_active(&rows.origin)?;
        remove_all(&rows)
    })?;
    let reasons = match apply::apply(timeout) {
        Ok(waiting) => waiting,
        Err(Error::ApplyFailed { lines, .. }) => lines,
        Err(error) => return Err(error),
    };
    let rows = spi::in_own_transaction(Rows::load)?;
    if rows.links.is_empty() {
        return Ok(());
    }
    Err(Error::TeardownUnfinished { left: rows.describe_links(), reasons })
}

/// Both procedures commit by themselves and write rows.
pub(super) fn check_call(what: &'static str, fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    super::check_writable(what)?;
    if spi::call_is_atomic(fcinfo) {
        return Err(Error::InTransactionBlock(what));
    }
    Ok(())
}

pub(super) fn duration(interval: Interval) -> Result<Duration> {
    u64::try_from(interval.as_micros()).map(Duration::from_micros).map_err(|_| Error::BadOption {
        option: "timeout".into(),
        why: "It cannot be negative.".into(),
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn take_over() -> std::result::Result<String, ErrorReport> {
    super::check_writable("nodes.take_over()")?;
    match catalog::take_over()? {
        Some(id) => {
            Ok(format!("this server acts for the registry from now on; its new id is {id}"))
        }
        None => Err(Error::NoRegistry.into()),
    }
}

#[pg_extern(immutable, parallel_safe)]
fn rules() -> TableIterator<
    'static,
    (
        name!(kind, &'static str),
        name!(purpose, &'static str),
        name!(rule, &'static str),
        name!(applies_when, &'static str),
    ),
> {
    let rows = nodes_plan::rules().into_iter();
    TableIterator::new(rows.map(|row| (row.kind, row.purpose, row.id, row.when)))
}
