//! `nodes.failover_ready` and `nodes.failover_slots`.

use crate::apply;
use crate::apply::desired::Desired;
use crate::apply::failover::{self, Verdict};
use crate::catalog::Rows;
use crate::error::Result;
use nodes_plan::desired::{Link, Registry};
use nodes_plan::failover::Reason;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_failover() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(link, String),
            name!(primary_node, String),
            name!(standby, String),
            name!(ready, bool),
            name!(lag_bytes, Option<i64>),
            name!(reasons, Vec<String>),
            name!(hints, Vec<String>),
            name!(rules, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let (desired, verdicts) = judge()?;
    let shown = verdicts.into_iter().filter_map(|verdict| {
        let (link, primary, standby) = ends(&desired.registry, &verdict)?;
        let lag_bytes = verdict.lag_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let (ready, reasons, hints, rules) = columns(&desired, verdict.reasons);
        Some((link.name.clone(), primary, standby, ready, lag_bytes, reasons, hints, rules))
    });
    Ok(TableIterator::new(shown.collect::<Vec<_>>()))
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_failover_slots() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(link, String),
            name!(primary_node, String),
            name!(standby, String),
            name!(slot, String),
            name!(subscription, Option<String>),
            name!(ready, bool),
            name!(reasons, Vec<String>),
            name!(hints, Vec<String>),
            name!(rules, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let (desired, verdicts) = judge()?;
    let mut shown = Vec::new();
    for mut verdict in verdicts {
        let slots = std::mem::take(&mut verdict.slots);
        let Some((link, primary, standby)) = ends(&desired.registry, &verdict) else { continue };
        shown.extend(slots.into_iter().map(|found| {
            let (link, primary, standby) = (link.name.clone(), primary.clone(), standby.clone());
            let (ready, reasons, hints, rules) = columns(&desired, found.reasons);
            let (slot, subscription) = (found.slot, found.subscription);
            (link, primary, standby, slot, subscription, ready, reasons, hints, rules)
        }));
    }
    Ok(TableIterator::new(shown))
}

fn judge() -> Result<(Desired, Vec<Verdict>)> {
    let rows = Rows::load()?;
    apply::check_active(&rows.origin)?;
    let desired = Desired::from_rows(&rows)?;
    let verdicts = failover::judge(&desired, &failover::lag_limits(&rows));
    Ok((desired, verdicts))
}

/// The link, and the names of its primary and its standby.
fn ends<'a>(registry: &'a Registry, verdict: &Verdict) -> Option<(&'a Link, String, String)> {
    let link = registry.link(verdict.link)?;
    let name = |node| registry.node_name(node).to_owned();
    Some((link, name(link.from), name(link.to)))
}

/// `ready`, `reasons`, `hints` and `rules`.
fn columns(
    desired: &Desired,
    reasons: Vec<Reason>,
) -> (bool, Vec<String>, Vec<String>, Vec<String>) {
    let messages = reasons.iter().map(|reason| desired.redact(&reason.message)).collect();
    let rules = reasons.iter().map(|reason| reason.rule.to_owned()).collect();
    let ready = reasons.is_empty();
    (ready, messages, reasons.into_iter().map(|reason| reason.hint).collect(), rules)
}
