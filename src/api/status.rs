//! `nodes.status`, `nodes.link_status`, `nodes.slots`, `nodes.topology()`: looks at the
//! servers now, all at once, and shows what they say.

use crate::apply::desired::Desired;
use crate::apply::{self, Look, check};
use crate::catalog::{self, Rows};
use crate::error::{Error, Result};
use nodes_plan::desired::{Link, LinkState};
use nodes_plan::health::{LinkHealth, link_health};
use nodes_plan::observed::Slot;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

fn look() -> Result<(Desired, Look)> {
    let rows = Rows::load()?;
    let desired = Desired::from_rows(&rows)?;
    let look = match apply::check_active(&rows) {
        Ok(()) => apply::look(&desired),
        Err(passive) => Look::passive(&desired, passive),
    };
    Ok((desired, look))
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_nodes() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(node, String),
            name!(is_self, bool),
            name!(group_id, Option<String>),
            name!(health, &'static str),
            name!(role, Option<&'static str>),
            name!(version, Option<String>),
            name!(timeline, Option<i64>),
            name!(walsenders, Option<i64>),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let (desired, look) = look()?;
    let here = catalog::identity()?;
    let rows: Vec<_> = desired
        .registry
        .nodes
        .values()
        .map(|node| {
            let facts = look.world.facts(node.id);
            let is_self = look.identities.get(&node.id) == Some(&here);
            let error = facts.is_none().then(|| desired.redact(&look.world.silence(node.id)));
            let standby = |in_recovery| if in_recovery { "standby" } else { "primary" };
            (
                node.name.clone(),
                is_self,
                facts.map(|facts| facts.system_identifier.clone()),
                health(&look, facts.is_some()),
                facts.map(|facts| standby(facts.in_recovery)),
                facts.map(|f| format!("{}.{}", f.major(), f.version % 10_000)),
                facts.map(|facts| facts.timeline),
                facts.map(|facts| facts.walsenders),
                error,
            )
        })
        .collect();
    Ok(TableIterator::new(rows))
}

fn health(look: &Look, answered: bool) -> &'static str {
    match (&look.passive, answered) {
        (Some(_), _) => "passive",
        (None, true) => "up",
        (None, false) => "down",
    }
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_links() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(link, String),
            name!(kind, &'static str),
            name!(from_node, String),
            name!(to_node, String),
            name!(state, &'static str),
            name!(reason, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let (desired, look) = look()?;
    let rows: Vec<_> = desired
        .registry
        .links
        .iter()
        .map(|link| {
            let LinkHealth { state, reason, hint } = match &look.passive {
                Some(why) => {
                    let (reason, hint) = (Some(why.to_string()), why.hint());
                    LinkHealth { state: "passive", reason, hint }
                }
                None => link_health(&desired.registry, &look.world, link, &look.plan),
            };
            (
                link.name.clone(),
                link.spec.kind(),
                desired.registry.node_name(link.from).to_owned(),
                desired.registry.node_name(link.to).to_owned(),
                state,
                reason.map(|reason| desired.redact(&reason)),
                hint,
            )
        })
        .collect();
    Ok(TableIterator::new(rows))
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_slots() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(node, String),
            name!(slot, String),
            name!(kind, String),
            name!(active, bool),
            name!(wal_status, Option<String>),
            name!(link, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let (desired, look) = look()?;
    let links = &desired.registry.links;
    let owner = |slot: &Slot| {
        links
            .iter()
            .find(|link| desired.registry.mark(link).slot_name() == slot.name)
            .map(|link| link.name.clone())
    };
    let mut rows = Vec::new();
    for node in desired.registry.nodes.values() {
        for slot in look.world.facts(node.id).map_or(&[][..], |facts| &facts.slots) {
            rows.push((
                node.name.clone(),
                slot.name.clone(),
                slot.kind.clone(),
                slot.active,
                slot.wal_status.clone(),
                owner(slot),
            ));
        }
    }
    Ok(TableIterator::new(rows))
}

#[pg_extern(volatile, parallel_unsafe)]
fn topology() -> std::result::Result<String, ErrorReport> {
    let (desired, look) = look()?;
    let picture = nodes_plan::topology::draw(&desired.registry, &look.world);
    Ok(match look.passive {
        Some(why) => format!("{why}; nobody was asked\n{picture}"),
        None => picture,
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn test_node(
    name: &str,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(factor, &'static str),
            name!(ok, bool),
            name!(detail, String),
            name!(hint, Option<&'static str>),
        ),
    >,
    ErrorReport,
> {
    let rows = Rows::load()?;
    let id = rows.node(name)?.id;
    if let Err(passive) = apply::check_active(&rows) {
        let hint = "nodes.take_over() lets this server act for the registry.";
        let row = ("registry", false, passive.to_string(), Some(hint));
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
        let (desired, look) = look()?;
        let live = |link: &&Link| link.state != LinkState::Removing;
        let mut links = desired.registry.links.iter().filter(live);
        let link = links.clone().find(|link| link.name == name).ok_or_else(|| {
            let known = links.by_ref().map(|link| link.name.clone()).collect();
            Error::UnknownLink { name: name.to_owned(), known }
        })?;
        let health = link_health(&desired.registry, &look.world, link, &look.plan);
        Ok(matches!(health.state, "streaming" | "up").then_some(health.state))
    })?;
    Ok(format!("link \"{name}\" is {state}"))
}

#[pg_extern(volatile, parallel_unsafe)]
fn wait_for_node(
    name: &str,
    timeout: default!(Interval, "'1 minute'"),
) -> std::result::Result<String, ErrorReport> {
    wait(timeout, &format!("node \"{name}\""), || {
        let id = Rows::load()?.node(name)?.id;
        let (_, look) = look()?;
        Ok(look.world.facts(id).map(|_| ()))
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
    apply::check_active(&Rows::load()?)?;
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
