//! `nodes.failover_ready`.

use crate::apply;
use crate::apply::desired::Desired;
use crate::apply::failover;
use crate::catalog::Rows;
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
    let rows = Rows::load()?;
    apply::check_active(&rows.origin)?;
    let desired = Desired::from_rows(&rows)?;
    let verdicts = failover::judge(&desired, &failover::lag_limits(&rows));
    let registry = &desired.registry;
    let row = |verdict: failover::Verdict| {
        let link = registry.link(verdict.link)?;
        let reasons = verdict.reasons;
        Some((
            link.name.clone(),
            registry.node_name(link.from).to_owned(),
            registry.node_name(link.to).to_owned(),
            reasons.is_empty(),
            verdict.lag_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            reasons.iter().map(|reason| desired.redact(&reason.message)).collect(),
            reasons.iter().map(|reason| reason.hint.clone()).collect(),
            reasons.iter().map(|reason| reason.rule.to_owned()).collect(),
        ))
    };
    let shown: Vec<_> = verdicts.into_iter().filter_map(row).collect();
    Ok(TableIterator::new(shown))
}
