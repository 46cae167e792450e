//! `nodes.test_node()`, `nodes.wait_for_link()` and `nodes.wait_for_node()`: ask the servers
//! now, whether a worker watches them or not.

use super::seen::Seen;
use crate::apply::desired::Desired;
use crate::apply::{self, check};
use crate::catalog::Rows;
use crate::error::{Error, Result};
use nodes_plan::node_health::NodeState;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn test_node(
    name: &str,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(factor, &'static str),
            name!(ok, Option<bool>),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rows = Rows::load()?;
    let id = rows.node(name)?.id;
    if let Err(passive) = apply::check_active(&rows.origin) {
        let hint = "nodes.take_over() lets this server act for the registry.".to_owned();
        let row = ("registry", Some(false), passive.to_string(), Some(hint));
        return Ok(TableIterator::once(row));
    }
    let desired = Desired::from_rows(&rows)?;
    let targets = desired.targets();
    let tested = targets.iter().find(|(target, _)| target.id == id);
    let findings =
        tested.map_or(vec![], |(target, interest)| check::test(&desired, target, interest));
    Ok(TableIterator::new(findings.into_iter().map(|f| (f.factor, f.ok, f.detail, f.hint))))
}

/// How often the waiting functions look.
const PAUSE: Duration = Duration::from_millis(200);

#[pg_extern(volatile, parallel_unsafe)]
fn wait_for_link(
    name: &str,
    timeout: default!(Interval, "'1 minute'"),
) -> std::result::Result<String, ErrorReport> {
    let state = wait(timeout, &format!("link \"{name}\""), || {
        let id = Rows::load()?.link(name)?.id;
        let seen = Seen::looked()?;
        let state = seen.links.get(&id).map(|record| record.health.state);
        Ok(state.filter(|state| state.is_well()))
    })?;
    Ok(format!("link \"{name}\" is {}", state.label()))
}

#[pg_extern(volatile, parallel_unsafe)]
fn wait_for_node(
    name: &str,
    timeout: default!(Interval, "'1 minute'"),
) -> std::result::Result<String, ErrorReport> {
    wait(timeout, &format!("node \"{name}\""), || {
        let id = Rows::load()?.node(name)?.id;
        let seen = Seen::looked()?;
        Ok(seen.node(id).filter(|node| node.state == NodeState::Up).map(|_| ()))
    })?;
    Ok(format!("node \"{name}\" is up"))
}

/// Looks again and again until `found` answers or the time is over.
fn wait<T>(
    timeout: Interval,
    what: &str,
    mut found: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = super::plan::duration(timeout)?;
    let started = Instant::now();
    loop {
        if let Some(answer) = found()? {
            return Ok(answer);
        }
        if started.elapsed() >= limit {
            return Err(Error::Timeout(what.to_owned()));
        }
        apply::pause(PAUSE);
    }
}
