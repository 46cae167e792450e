//! What each rule finds: why a link is not healthy, and what to do.

use super::{READER_LIMIT, Scene, Side, Told};
use crate::explain::with_name;
use crate::node_health::NodeState;
use crate::pulse::SlotPulse;
use crate::units::{bytes, time};
use std::time::Duration;

/// What a rule finds: why, and what to do.
#[derive(Debug, Default)]
pub(super) struct Why {
    pub reason: Option<String>,
    pub hint: Option<String>,
}

impl Why {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Option<Self> {
        Some(Why { reason: Some(reason.into()), hint: Some(hint.into()) })
    }

    fn told(told: &Told) -> Option<Self> {
        Why::new(told.message.clone(), told.hint.clone())
    }

    /// Nothing needs to be said.
    pub fn well() -> Option<Self> {
        Some(Why::default())
    }
}

const APPLY: &str = "See nodes.plan(), then CALL nodes.apply().";

pub(super) fn removal_stuck(scene: &Scene<'_>) -> Option<Why> {
    let obstacle = scene.e.plan.refused.as_ref().or(scene.e.plan.waiting.as_ref());
    obstacle.filter(|_| scene.is_removing()).and_then(Why::told)
}

pub(super) fn removing(scene: &Scene<'_>) -> Option<Why> {
    scene.is_removing().then(|| Why::new("nodes.apply() has not run since", APPLY)).flatten()
}

pub(super) fn cloning(scene: &Scene<'_>) -> Option<Why> {
    let backup = scene.backup?;
    let reason =
        format!("\"{}\" is copied from \"{}\": {}", scene.to(), scene.from(), backup.describe());
    Why::new(reason, "It goes on by itself; whoever has called for it can cancel it.")
}

pub(super) fn unfinished(scene: &Scene<'_>) -> Option<Why> {
    let place = scene.unfinished()?;
    let reason = format!(
        "the copy of \"{}\" in \"{}\", made by \"{}\", is no standby yet",
        scene.from(),
        place.directory,
        scene.name(place.on_node)
    );
    let call = if place.swap { "nodes.rejoin()" } else { "nodes.clone_standby()" };
    let hint = format!(
        "If nobody is at it: the same {call} goes on; nodes.remove_link({}) and nodes.apply() give \
         up.",
        crate::quote::literal(&scene.e.link.name)
    );
    Why::new(reason, hint)
}

pub(super) fn refused_standby(scene: &Scene<'_>) -> Option<Why> {
    refused(scene).filter(|_| scene.is_standby())
}

pub(super) fn refused(scene: &Scene<'_>) -> Option<Why> {
    scene.e.plan.refused.as_ref().and_then(Why::told)
}

pub(super) fn silent_side(scene: &Scene<'_>) -> Option<Why> {
    let link = scene.e.link;
    let sides = [(link.from, scene.e.from), (link.to, scene.e.to)];
    let silent =
        |side: &Side<'_>| !side.state.answers() || (side.pulse.is_none() && !scene.is_foreign());
    let (node, side) = sides.into_iter().find(|(_, side)| silent(side))?;
    let name = scene.name(node);
    let why = side.why.map(|why| format!(": {why}")).unwrap_or_default();
    let reason = match side.state {
        NodeState::Up | NodeState::Suspect | NodeState::Unknown => {
            format!("node \"{name}\" has not been heard yet{why}")
        }
        NodeState::Down | NodeState::Refused | NodeState::WrongIdentity => {
            format!("node \"{name}\" is {}{why}", side.state.label())
        }
    };
    Why::new(reason, format!("See nodes.explain({}).", crate::quote::literal(name)))
}

/// That a node did not answer is known better from its heartbeats.
const NO_ANSWER: &str = "RG03";

pub(super) fn waiting(scene: &Scene<'_>) -> Option<Why> {
    let told = scene.e.plan.waiting.as_ref()?;
    if told.rule != NO_ANSWER {
        return Why::told(told);
    }
    // Heartbeats do not tell whether a foreign link is there; that it was asked does.
    let is_unknown = scene.is_foreign() && scene.e.probe.is_none();
    let reason = format!("it is not known yet whether it is made: {}", told.message);
    is_unknown.then(|| Why::new(reason, "It goes on by itself.")).flatten()
}

pub(super) fn unmade(scene: &Scene<'_>) -> Option<Why> {
    let step = scene.e.plan.step.as_ref().filter(|step| step.creates)?;
    Why::new(step.reason.clone(), APPLY)
}

pub(super) fn gone(scene: &Scene<'_>) -> Option<Why> {
    if scene.is_subscription() && scene.subscription.is_none() {
        let reason = format!("there is no subscription of its name on \"{}\"", scene.to());
        return Why::new(reason, APPLY);
    }
    if scene.is_standby() && scene.has_slot() && scene.slot.is_none() {
        let reason = format!("there is no slot \"{}\" on \"{}\"", scene.slot_name, scene.from());
        return Why::new(reason, APPLY);
    }
    None
}

pub(super) fn slot_lost(scene: &Scene<'_>) -> Option<Why> {
    let lost = |slot: &SlotPulse| slot.wal_status.as_deref() == Some("lost");
    let what = match scene.slot {
        Some(slot) if lost(slot) => "has lost its WAL",
        Some(_) => return None,
        None if scene.is_subscription() => "is gone",
        None => return None,
    };
    let reason = format!(
        "its slot \"{}\" on \"{}\" {what}: changes have been missed",
        scene.slot_name,
        scene.from()
    );
    let hint = if scene.is_standby() {
        format!(
            "Drop that slot with pg_drop_replication_slot(), CALL nodes.apply(), and clone \
             \"{}\" anew if its server log asks for WAL that is gone.",
            scene.to()
        )
    } else {
        let link = crate::quote::literal(&scene.e.link.name);
        format!(
            "SELECT nodes.resync({link}) empties the tables on \"{}\" and copies them anew.",
            scene.to()
        )
    };
    Why::new(reason, hint)
}

pub(super) fn promoted(scene: &Scene<'_>) -> Option<Why> {
    // Where a failover manager has done it, the link turns round.
    let is_ours = scene.is_standby() && !scene.e.link.is_unmanaged();
    let target = scene.target.filter(|target| is_ours && !target.in_recovery)?;
    let reason =
        format!("node \"{}\" is a primary of its own (timeline {})", scene.to(), target.timeline);
    let hint = "If it was promoted on purpose, remove the link with nodes.remove_link(); if it is \
                to follow again, nodes.plan() says how.";
    Why::new(reason, hint)
}

pub(super) fn disabled(scene: &Scene<'_>) -> Option<Why> {
    let found = scene.subscription.filter(|found| !found.enabled && !scene.is_paused())?;
    let errors = match found.apply_errors {
        0 => String::new(),
        errors => format!(" after {errors} errors"),
    };
    let reason = format!(
        "its subscription on \"{}\" was disabled by hand or by disable_on_error{errors}{}",
        scene.to(),
        scene.keeps()
    );
    let name = crate::quote::literal(&scene.e.link.name);
    let hint = format!(
        "When the maintenance is over, or its error in the server log of \"{}\" mended: CALL \
         nodes.apply(). If it is to rest for longer: nodes.pause_link({name}).",
        scene.to()
    );
    Why::new(reason, hint)
}

pub(super) fn drifted(scene: &Scene<'_>) -> Option<Why> {
    Why::new(scene.e.plan.step.as_ref()?.reason.clone(), APPLY)
}

pub(super) fn replay_paused(scene: &Scene<'_>) -> Option<Why> {
    scene.target.filter(|target| scene.is_standby() && target.replay_paused)?;
    let reason = format!("replay is paused on \"{}\"{}", scene.to(), scene.keeps());
    Why::new(reason, "Run SELECT pg_wal_replay_resume() there to go on.")
}

pub(super) fn connecting(scene: &Scene<'_>) -> Option<Why> {
    if scene.is_paused() || scene.has_reader() != Some(false) {
        return None;
    }
    let unread = scene.e.unread;
    let is_new = unread.is_some_and(|unread| !unread.was_read);
    let is_late = unread.is_some_and(|unread| unread.length >= READER_LIMIT);
    if is_late || !(is_new || scene.is_receiving() == Some(true)) {
        return None;
    }
    let reason =
        format!("the {} of \"{}\" connects to \"{}\"", scene.receiver(), scene.to(), scene.from());
    Why::new(reason, format!("If it lasts: {}", scene.see_log()))
}

pub(super) fn unread(scene: &Scene<'_>) -> Option<Why> {
    if scene.is_paused() || scene.has_reader() != Some(false) {
        return None;
    }
    let failures = match scene.subscription.map_or(0, |found| found.apply_errors) {
        0 => String::new(),
        1 => "; its apply worker has failed once".to_owned(),
        errors => format!("; its apply worker has failed {errors} times"),
    };
    let reason = if scene.has_slot() {
        let keeps = match scene.retained {
            Some(retained) => format!(", which keeps {} of WAL", bytes(retained)),
            None => String::new(),
        };
        format!("nobody reads its slot on \"{}\"{keeps}{failures}", scene.from())
    } else {
        format!("no walreceiver runs on \"{}\"", scene.to())
    };
    let hint = format!(
        "The server log of \"{}\" says why its {} does not stay connected to \"{}\".",
        scene.to(),
        scene.receiver(),
        scene.from()
    );
    Why::new(reason, hint)
}

pub(super) fn read_by_another(scene: &Scene<'_>) -> Option<Why> {
    let pid = scene.slot?.active_pid.filter(|_| !scene.is_paused())?;
    if scene.has_reader() != Some(true) || scene.is_receiving() != Some(false) {
        return None;
    }
    let reason = format!(
        "no {} runs on \"{}\", yet process {pid} on \"{}\" holds its slot",
        scene.receiver(),
        scene.to(),
        scene.from()
    );
    let hint = format!(
        "pg_stat_replication on \"{}\" shows who that is: a connection that is already dead goes \
         after wal_sender_timeout, a copy of \"{}\" must be stopped.",
        scene.from(),
        scene.to()
    );
    Why::new(reason, hint)
}

pub(super) fn retains_too_much(scene: &Scene<'_>) -> Option<Why> {
    let limit = scene.e.limits.max_retained_wal?;
    let retained = scene.retained.filter(|retained| *retained > limit && scene.has_slot())?;
    let paused = if scene.is_paused() { "it is paused and " } else { "" };
    let reason = format!(
        "{paused}its slot on \"{}\" keeps {} of WAL, more than max_retained_wal ({})",
        scene.from(),
        bytes(retained),
        bytes(limit)
    );
    let hint = if scene.is_paused() {
        let name = crate::quote::literal(&scene.e.link.name);
        format!("Run nodes.resume_link({name}), or see to the disk of \"{}\".", scene.from())
    } else {
        slow_hint(scene)
    };
    Why::new(reason, hint)
}

/// The standbys that do not receive, and for which the publisher holds a failover slot back
/// (`synchronized_standby_slots`).
fn awaited_standbys<'a>(scene: &Scene<'a>) -> Vec<&'a str> {
    let Some(source) = scene.source.filter(|_| scene.slot.is_some_and(|slot| slot.failover)) else {
        return vec![];
    };
    let registry = scene.e.registry;
    let standbys = crate::promotion::standby_links(registry).filter(|link| {
        let slot = source.slot(&registry.mark(link).slot_name());
        link.from == scene.e.link.from && slot.is_some_and(|slot| !slot.active)
    });
    standbys.map(|link| registry.node_name(link.to)).collect()
}

fn slow_hint(scene: &Scene<'_>) -> String {
    let awaited = awaited_standbys(scene);
    if !awaited.is_empty() {
        let names: Vec<String> = awaited.iter().map(|name| format!("\"{name}\"")).collect();
        return format!(
            "\"{}\" sends nothing that {} has not received (synchronized_standby_slots): start that \
             standby, or take its link away with nodes.remove_link() and nodes.apply().",
            scene.from(),
            names.join(", ")
        );
    }
    let what = if scene.is_standby() {
        "for queries that hold replay up (pg_stat_database_conflicts, max_standby_streaming_delay)"
    } else {
        "for a large transaction, locks, or tables without an index for their replica identity"
    };
    format!("Look on \"{}\" {what}, and at the network.", scene.to())
}

pub(super) fn paused(scene: &Scene<'_>) -> Option<Why> {
    if !scene.is_paused() {
        return None;
    }
    let name = crate::quote::literal(&scene.e.link.name);
    let reason = format!("it was paused with nodes.pause_link(){}", scene.keeps());
    Why::new(reason, format!("Run nodes.resume_link({name}) to go on."))
}

pub(super) fn copying(scene: &Scene<'_>) -> Option<Why> {
    let found = scene.subscription.filter(|found| found.ready < found.tables)?;
    let mut reason = format!("{} of {} tables are copied", found.ready, found.tables);
    if found.sync_errors == 0 {
        return Why::new(reason, "It goes on by itself.");
    }
    reason.push_str(&format!("; copies have failed {} times", found.sync_errors));
    Why::new(reason, scene.see_log())
}

pub(super) fn lags_too_much(scene: &Scene<'_>) -> Option<Why> {
    let limits = scene.e.limits;
    let far = |lag: u64| {
        let limit = limits.max_lag_bytes.filter(|limit| lag > *limit)?;
        Some(format!("{} behind, more than max_lag_bytes ({})", bytes(lag), bytes(limit)))
    };
    let late = |lag: f64| {
        let limit = limits.max_lag.filter(|limit| lag > limit.as_secs_f64())?;
        let lag = time(Duration::try_from_secs_f64(lag).ok()?);
        Some(format!("{lag} behind, more than max_lag ({})", time(limit)))
    };
    let beyond = scene.lag_bytes.and_then(far).or_else(|| scene.lag_seconds.and_then(late))?;
    Why::new(format!("\"{}\" is {beyond}", scene.to()), slow_hint(scene))
}

pub(super) fn probe_failed(scene: &Scene<'_>) -> Option<Why> {
    let error = scene.e.probe.filter(|_| scene.is_foreign())?.error.as_ref()?;
    let reason = format!("\"{}\" cannot query \"{}\": {error}", scene.to(), scene.from());
    let hint = format!(
        "Let \"{}\" in on \"{}\" (pg_hba.conf, rights), or correct that node with \
         nodes.alter_node() or nodes.set_password(), then CALL nodes.apply().",
        scene.to(),
        scene.from()
    );
    Why::new(reason, with_name(&hint, scene.from()))
}

pub(super) fn foreign(scene: &Scene<'_>) -> Option<Why> {
    scene.is_foreign().then(Why::well).flatten()
}
