//! `nodes.status`, `nodes.link_status`, `nodes.slots`, `nodes.headroom`, `nodes.explain()`,
//! `nodes.topology()`, and what waits for them.

use super::seen::Seen;
use crate::apply;
use crate::apply::desired::Desired;
use crate::catalog::Rows;
use crate::error::Error;
use crate::record::NodeRecord;
use nodes_plan::desired::{Link, LinkState, NodeId, Spec};
use nodes_plan::growth::slot_time_left;
use nodes_plan::lsn::Lsn;
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::{Pulse, SlotPulse};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

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
            name!(since, Option<TimestampWithTimeZone>),
            name!(role, Option<&'static str>),
            name!(version, Option<String>),
            name!(timeline, Option<i64>),
            name!(lsn, Option<String>),
            name!(lag_bytes, Option<i64>),
            name!(lag_seconds, Option<f64>),
            name!(walsenders, Option<i64>),
            name!(round_trip_ms, Option<f64>),
            name!(round_trip_p50_ms, Option<f64>),
            name!(round_trip_p99_ms, Option<f64>),
            name!(connected_since, Option<TimestampWithTimeZone>),
            name!(last_seen, Option<TimestampWithTimeZone>),
            name!(error, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let seen = Seen::now()?;
    let groups = Groups::of(&seen);
    let mut rows = Vec::new();
    for node in seen.registry.nodes.values() {
        let record = seen.node(node.id);
        let pulse = record.and_then(|record| record.pulse.as_ref());
        let lag = pulse.and_then(|pulse| groups.replay_lag(pulse));
        let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
        let trip = record.and_then(|record| record.round_trip);
        rows.push((
            node.name.clone(),
            record.is_some_and(|record| record.is_self),
            pulse.map(|pulse| pulse.system_identifier.clone()),
            health(&seen, record),
            record.map(|record| timestamp(record.since)),
            pulse.map(|pulse| groups.role(&seen, node.id, pulse)),
            pulse.map(|pulse| format!("{}.{}", pulse.major(), pulse.version % 10_000)),
            pulse.map(|pulse| pulse.timeline),
            pulse.and_then(|pulse| pulse.lsn).map(|lsn| lsn.to_string()),
            lag.map(|(bytes, _)| as_bigint(bytes)),
            lag.and_then(|(_, seconds)| seconds),
            pulse.map(|pulse| pulse.senders.len() as i64),
            trip.map(|trip| ms(trip.last)),
            trip.map(|trip| ms(trip.p50)),
            trip.map(|trip| ms(trip.p99)),
            record.and_then(|record| record.connected_since).map(timestamp),
            record.and_then(|record| record.last_seen).map(timestamp),
            record.and_then(|r| r.reason.clone()).or(seen.passive.as_ref().map(Error::to_string)),
            hint(&seen, record),
        ));
    }
    Ok(TableIterator::new(rows))
}

fn health(seen: &Seen, record: Option<&NodeRecord<'_>>) -> &'static str {
    match (&seen.passive, record) {
        (Some(_), _) => PASSIVE,
        (None, Some(record)) => record.state.label(),
        (None, None) => NodeState::Unknown.label(),
    }
}

/// The state of everything in a registry that belongs to another server.
const PASSIVE: &str = "passive";

/// A node's own hint, or why nothing is known, or that nobody watches.
fn hint(seen: &Seen, record: Option<&NodeRecord<'_>>) -> Option<String> {
    let own = record.and_then(|record| record.hint.clone());
    let passive = || seen.passive.as_ref().and_then(Error::hint);
    own.or_else(passive).or_else(|| seen.unwatched.map(str::to_owned))
}

fn timestamp(epoch: f64) -> TimestampWithTimeZone {
    pgrx::datum::to_timestamp(epoch)
}

fn as_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How the nodes of each group stand to each other.
struct Groups<'a> {
    /// Whom each standby is to follow.
    upstream: BTreeMap<NodeId, NodeId>,
    /// How far the primary of each group has written.
    written: BTreeMap<&'a str, Lsn>,
}

impl<'a> Groups<'a> {
    fn of(seen: &'a Seen) -> Self {
        let links = seen.registry.links.iter().filter(|link| {
            link.state != LinkState::Removing && matches!(link.spec, Spec::Standby(_))
        });
        let pulses = seen.nodes.values().filter_map(|record| record.pulse.as_ref());
        let mut written = BTreeMap::new();
        for pulse in pulses.filter(|pulse| !pulse.in_recovery) {
            let Some(lsn) = pulse.lsn else { continue };
            let most = written.entry(pulse.system_identifier.as_str()).or_insert(lsn);
            *most = lsn.max(*most);
        }
        Groups { upstream: links.map(|link| (link.to, link.from)).collect(), written }
    }

    /// `cascaded`: a standby that follows a standby.
    fn role(&self, seen: &Seen, node: NodeId, pulse: &Pulse) -> &'static str {
        if !pulse.in_recovery {
            return "primary";
        }
        let upstream = self.upstream.get(&node).and_then(|id| seen.node(*id)?.pulse.as_ref());
        if upstream.is_some_and(|upstream| upstream.in_recovery) { "cascaded" } else { "standby" }
    }

    /// How far a standby's replay is behind the primary of its group: bytes, and seconds since
    /// the last commit that it has replayed, none if it has replayed all there is.
    fn replay_lag(&self, pulse: &Pulse) -> Option<(u64, Option<f64>)> {
        let replayed = pulse.lsn.filter(|_| pulse.in_recovery)?;
        let bytes = self.written.get(pulse.system_identifier.as_str())?.since(replayed);
        Some((bytes, if bytes == 0 { Some(0.0) } else { pulse.replay_age }))
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
            name!(state, String),
            name!(since, Option<TimestampWithTimeZone>),
            name!(lag_bytes, Option<i64>),
            name!(lag_seconds, Option<f64>),
            name!(retained_bytes, Option<i64>),
            name!(time_left, Option<Interval>),
            name!(tables, Option<i64>),
            name!(tables_ready, Option<i64>),
            name!(rows_copied, Option<i64>),
            name!(bytes_copied, Option<i64>),
            name!(rows_expected, Option<i64>),
            name!(bytes_expected, Option<i64>),
            name!(copy_time_left, Option<Interval>),
            name!(probe_ms, Option<f64>),
            name!(reason, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let seen = Seen::now()?;
    let mut rows = Vec::new();
    for link in &seen.registry.links {
        let record = seen.links.get(&link.id);
        let health = record.map(|record| &record.health);
        let probe = record.and_then(|record| record.probe.as_ref());
        let copying = health.filter(|health| health.is_copying());
        rows.push((
            link.name.clone(),
            link.spec.kind(),
            seen.registry.node_name(link.from).to_owned(),
            seen.registry.node_name(link.to).to_owned(),
            match (&seen.passive, health) {
                (Some(_), _) => PASSIVE.to_owned(),
                (None, health) => health.map_or("unknown", |h| h.state.label()).to_owned(),
            },
            record.map(|record| timestamp(record.since)),
            health.and_then(|health| health.lag_bytes).map(as_bigint),
            health.and_then(|health| health.lag_seconds),
            health.and_then(|health| health.retained_bytes).map(as_bigint),
            link_time_left(&seen, link).map(interval),
            health.and_then(|health| health.tables),
            health.and_then(|health| health.tables_ready),
            copying.and_then(|health| health.copied_rows),
            copying.and_then(|health| health.copied_bytes),
            record.and_then(|record| record.expected_rows),
            record.and_then(|record| record.expected_bytes.or(record.health.expected_bytes)),
            record.and_then(|record| record.copy_time_left()).map(interval),
            probe.map(|probe| probe.took.as_secs_f64() * 1e3),
            match &seen.passive {
                Some(passive) => Some(passive.to_string()),
                None => health.and_then(|health| health.reason.clone()),
            },
            match &seen.passive {
                Some(passive) => passive.hint(),
                None => health.and_then(|health| health.hint.clone()),
            },
        ));
    }
    Ok(TableIterator::new(rows))
}

fn interval(duration: Duration) -> Interval {
    let seconds = duration.as_secs().min(i32::MAX as u64);
    // Within range: a number of seconds is at most some thousand days.
    Interval::from_seconds(seconds as f64)
}

/// When the link's slot comes to its end at the present rate.
fn link_time_left(seen: &Seen, link: &Link) -> Option<Duration> {
    let record = seen.node(link.from)?;
    let pulse = record.pulse.as_ref()?;
    let slot = pulse.slot(&seen.registry.mark(link).slot_name())?;
    slot_time_left(pulse, slot, *record.growth.get(&slot.name)?).map(|(left, _)| left)
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
            name!(owner, &'static str),
            name!(retained_bytes, Option<i64>),
            name!(bytes_per_second, Option<f64>),
            name!(time_left, Option<Interval>),
            name!(danger, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let seen = Seen::now()?;
    let of_links = slots_of_links(&seen);
    let mut rows = Vec::new();
    for node in seen.registry.nodes.values() {
        let Some(record) = seen.node(node.id) else { continue };
        let Some(pulse) = &record.pulse else { continue };
        for slot in &pulse.slots {
            let link = of_links.get(&slot.name);
            let growth = record.growth.get(&slot.name).copied();
            let left = growth.and_then(|rate| slot_time_left(pulse, slot, rate));
            rows.push((
                node.name.clone(),
                slot.name.clone(),
                slot.kind.clone(),
                slot.active,
                slot.wal_status.clone(),
                link.map(|link| link.name.clone()),
                whose(slot, link.is_some()),
                pulse.retained(slot).map(as_bigint),
                growth,
                left.map(|(left, _)| interval(left)),
                danger(slot, pulse),
            ));
        }
    }
    Ok(TableIterator::new(rows))
}

/// The links by what their slots are called.
fn slots_of_links(seen: &Seen) -> BTreeMap<String, &Link> {
    let links = seen.registry.links.iter();
    links.map(|link| (seen.registry.mark(link).slot_name(), link)).collect()
}

/// Who made a slot, by what slots are called.
fn whose(slot: &SlotPulse, of_link: bool) -> &'static str {
    let is_copy = slot.name.starts_with("pg_") && slot.name.contains("_sync_");
    if of_link {
        "link"
    } else if slot.name.starts_with("nodes_") {
        "another registry"
    } else if is_copy {
        "initial copy"
    } else if slot.active || slot.temporary {
        "another tool"
    } else {
        "nobody"
    }
}

fn danger(slot: &SlotPulse, pulse: &Pulse) -> Option<String> {
    match slot.wal_status.as_deref() {
        Some("lost") => Some("it is lost: its reader can never go on".to_owned()),
        Some("unreserved") => {
            Some("it is lost at the next checkpoint unless it is read".to_owned())
        }
        _ if !slot.active && !slot.synced => {
            let kept = nodes_plan::units::bytes(pulse.retained(slot)?);
            Some(format!("nobody reads it; it keeps {kept} of WAL, and ever more"))
        }
        _ => None,
    }
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn observe_headroom() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(node, String),
            name!(resource, String),
            name!(used, i64),
            name!(needed, i64),
            name!(max, i64),
            name!(setting, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let seen = Seen::now()?;
    let mut rows = Vec::new();
    for node in seen.registry.nodes.values() {
        for room in seen.node(node.id).map_or(vec![], NodeRecord::rooms) {
            rows.push((
                node.name.clone(),
                room.resource,
                room.used,
                room.needed,
                room.limit,
                room.setting,
                room.hint,
            ));
        }
    }
    Ok(TableIterator::new(rows))
}

#[pg_extern(volatile, parallel_unsafe)]
fn topology() -> std::result::Result<String, ErrorReport> {
    let rows = Rows::load()?;
    let desired = Desired::from_rows(&rows)?;
    match apply::check_active(&rows.origin) {
        Ok(()) => {
            let look = apply::look(&desired);
            Ok(nodes_plan::topology::draw(&desired.registry, &look.world))
        }
        Err(passive) => {
            let world = apply::passive_world(&desired, &passive);
            let picture = nodes_plan::topology::draw(&desired.registry, &world);
            Ok(format!("{passive}; nobody was asked\n{picture}"))
        }
    }
}
