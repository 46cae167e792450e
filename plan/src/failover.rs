//! Whether a standby could take the place of its primary now, and every reason why not: settings
//! and positions of both servers, what the plan still has to do for the link, and each logical
//! slot of the primary that a subscription of the registry reads.

use crate::desired::{Link, LinkState, NodeId, Registry, Spec};
use crate::pulse::{Pulse, SlotPulse};
use crate::quote::ident;
use crate::rule::RuleId;
use crate::step::{Plan, ProblemKind};
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one of the two servers says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Side {
    pub pulse: Pulse,
    pub readiness: Readiness,
}

/// What matters for nothing but a failover.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    pub settings: BTreeMap<String, String>,
    /// Whether the archiver failed last time.
    pub archive_failing: bool,
    /// On a primary that archives: finished segments of WAL that are not archived yet.
    pub archive_backlog: Option<i64>,
}

impl Side {
    fn setting(&self, name: &str) -> Option<&str> {
        self.readiness.settings.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    fn is_off(&self, name: &str) -> bool {
        self.setting(name) == Some("off")
    }
}

/// What a standby link is judged by.
pub struct Evidence<'a> {
    pub registry: &'a Registry,
    /// A standby link.
    pub link: &'a Link,
    /// Or why the server is not known.
    pub primary: Result<&'a Side, &'a str>,
    pub standby: Result<&'a Side, &'a str>,
    /// The plan for the whole registry.
    pub plan: &'a Plan,
    /// `None`: any.
    pub max_lag_bytes: Option<u64>,
}

/// Why a standby is not ready, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub rule: RuleId,
    pub message: String,
    pub hint: String,
}

/// One numbered rule; `when` is the sentence that `nodes.rules()` shows.
pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    then: fn(&Evidence<'_>) -> Vec<Finding>,
}

/// Message and hint.
type Finding = (String, String);

/// All are asked.
pub(crate) const RULES: &[Rule] = &[
    Rule { id: "FR01", when: "the primary does not answer", then: primary_silent },
    Rule { id: "FR02", when: "the standby does not answer", then: standby_silent },
    Rule { id: "FR03", when: "the plan has something to do for the link", then: unplanned },
    Rule { id: "FR04", when: "the standby does not stream", then: not_streaming },
    Rule { id: "FR05", when: "both are on different timelines", then: other_timeline },
    Rule { id: "FR06", when: "the standby has not replayed what it should", then: lagging },
    Rule { id: "FR07", when: "replay on the standby is paused", then: replay_paused },
    Rule { id: "FR08", when: "the standby's slot is losing its WAL", then: slot_losing },
    Rule { id: "FR09", when: "a limit is lower on the standby", then: limit_lower },
    Rule { id: "FR10", when: "wal_level is lower on the standby", then: wal_level_lower },
    Rule { id: "FR11", when: "the primary's archive is behind", then: archive_behind },
    Rule { id: "FR12", when: "only the primary archives", then: archive_off },
    Rule { id: "FR20", when: "no slot survives a failover of this version", then: slot_dies },
    Rule { id: "FR21", when: "a subscription's slot is not a failover slot", then: slot_unmarked },
    Rule { id: "FR22", when: "a failover slot is not on the standby yet", then: slot_unsynced },
    Rule { id: "FR23", when: "the standby does not synchronize slots", then: sync_off },
    Rule { id: "FR24", when: "a subscriber may get ahead of the standby", then: unguarded },
];

/// Every reason why the standby cannot take over; none: it can.
pub fn obstacles(evidence: &Evidence<'_>) -> Vec<Reason> {
    let ask = |rule: &'static Rule| {
        let reason = |(message, hint)| Reason { rule: rule.id, message, hint };
        (rule.then)(evidence).into_iter().map(reason)
    };
    RULES.iter().flat_map(ask).collect()
}

/// How far the standby's replay is behind what the primary has written.
pub fn lag_bytes(evidence: &Evidence<'_>) -> Option<u64> {
    let (primary, standby) = evidence.both()?;
    Some(primary.pulse.wal_end()?.since(standby.pulse.lsn?))
}

impl<'a> Evidence<'a> {
    fn both(&self) -> Option<(&'a Side, &'a Side)> {
        Some((self.primary.ok()?, self.standby.ok()?))
    }

    fn from(&self) -> &'a str {
        self.registry.node_name(self.link.from)
    }

    fn to(&self) -> &'a str {
        self.registry.node_name(self.link.to)
    }

    fn slot_name(&self) -> String {
        self.registry.mark(self.link).slot_name()
    }

    /// The slot by which the standby receives; that of an unmanaged one has any name.
    fn slot_read(&self) -> String {
        let receiver = self.standby.ok().and_then(|standby| standby.pulse.receiver.as_ref());
        let named = receiver.and_then(|receiver| receiver.slot_name.clone());
        named.filter(|_| self.link.is_unmanaged()).unwrap_or_else(|| self.slot_name())
    }

    /// The link's slot on the primary.
    fn slot(&self) -> Option<&'a SlotPulse> {
        self.primary.ok()?.pulse.slot(&self.slot_name())
    }

    /// The slots on the primary that subscriptions of the registry read, each with the name of
    /// its link.
    fn subscription_slots(&self) -> Vec<(&'a str, &'a SlotPulse)> {
        let Ok(primary) = self.primary else { return vec![] };
        let here = |link: &&Link| link.from == self.link.from && link.state != LinkState::Removing;
        let links = self.registry.links.iter().filter(here);
        let links = links.filter(|link| matches!(link.spec, Spec::Subscription(_)));
        let slot = |link: &'a Link| {
            let name = self.registry.mark(link).slot_name();
            Some((link.name.as_str(), primary.pulse.slot(&name)?))
        };
        links.filter_map(slot).collect()
    }

    /// Those that a failover can take along: from 17 on, where they are marked for it.
    fn failover_slots(&self) -> Vec<(&'a str, &'a SlotPulse)> {
        self.subscription_slots().into_iter().filter(|(_, slot)| slot.failover).collect()
    }

    fn node_name(&self, node: NodeId) -> &'a str {
        self.registry.node_name(node)
    }
}

fn silent(name: &str, why: &str, then: &str) -> Finding {
    let hint = "nodes.explain() says what to do about it.".to_owned();
    (format!("node \"{name}\" does not answer{then}: {why}"), hint)
}

fn primary_silent(on: &Evidence<'_>) -> Vec<Finding> {
    let then = ", so how far the standby is behind is not known";
    on.primary.err().map(|why| silent(on.from(), why, then)).into_iter().collect()
}

fn standby_silent(on: &Evidence<'_>) -> Vec<Finding> {
    on.standby.err().map(|why| silent(on.to(), why, "")).into_iter().collect()
}

fn unplanned(on: &Evidence<'_>) -> Vec<Finding> {
    let of_link = |link| link == Some(on.link.id);
    // What an interrupted switchover has left behind is in nobody's way.
    let steps = on.plan.steps.iter().filter(|step| of_link(step.link) && step.rule != "ST29");
    let steps = steps.map(|step| {
        let node = step.node.map_or("registry", |node| on.node_name(node));
        let (label, reason) = (step.operation.label(), &step.reason);
        (format!("not done yet on \"{node}\": {label} ({reason})"), APPLY.to_owned())
    });
    let stands = |kind| matches!(kind, ProblemKind::Refused | ProblemKind::Waiting);
    // Who does not answer is told of by rules of its own.
    let problems = on.plan.problems.iter().filter(|p| of_link(p.link) && p.rule != "RG03");
    let problems = problems.filter(|problem| stands(problem.kind));
    steps.chain(problems.map(|p| (p.message.clone(), p.hint.clone()))).collect()
}

const APPLY: &str = "Run nodes.apply().";

fn not_streaming(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(standby) = on.standby else { return vec![] };
    let streaming = |status: Option<&str>| status == Some("streaming");
    let receiver = standby.pulse.receiver.as_ref();
    if !standby.pulse.in_recovery || streaming(receiver.and_then(|r| r.status.as_deref())) {
        return vec![];
    }
    let hint = format!("The server log of \"{}\" says why.", on.to());
    vec![(format!("\"{}\" does not stream from \"{}\"", on.to(), on.from()), hint)]
}

fn other_timeline(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((primary, standby)) = on.both() else { return vec![] };
    let (from, to) = (primary.pulse.timeline, standby.pulse.timeline);
    if from == to {
        return vec![];
    }
    let hint = "If it does not follow by itself, its WAL has parted from its primary's: \
                nodes.rejoin() rewinds it, or has it copied anew.";
    let message =
        format!("\"{}\" is on timeline {to}, \"{}\" on timeline {from}", on.to(), on.from());
    vec![(message, hint.to_owned())]
}

fn lagging(on: &Evidence<'_>) -> Vec<Finding> {
    let (Some(lag), Some(limit)) = (lag_bytes(on), on.max_lag_bytes) else { return vec![] };
    if lag <= limit {
        return vec![];
    }
    let (lag, limit) = (units::bytes(lag), units::bytes(limit));
    let hint = "Wait until it has caught up; nodes.link_status shows how far it is.";
    vec![(format!("\"{}\" is {lag} behind, more than {limit}", on.to()), hint.to_owned())]
}

fn replay_paused(on: &Evidence<'_>) -> Vec<Finding> {
    match on.standby {
        Ok(standby) if standby.pulse.replay_paused => vec![(
            format!("replay on \"{}\" is paused", on.to()),
            "Run SELECT pg_wal_replay_resume() there, unless a setting that is too small has \
             paused it."
                .to_owned(),
        )],
        Ok(_) | Err(_) => vec![],
    }
}

fn slot_losing(on: &Evidence<'_>) -> Vec<Finding> {
    let Some(slot) = on.slot() else { return vec![] };
    let what = match slot.wal_status.as_deref() {
        Some("lost") => "has lost its WAL",
        Some("unreserved") => "loses its WAL at the next checkpoint",
        Some(_) | None => return vec![],
    };
    let hint = "Raise max_slot_wal_keep_size there; a standby that finds no WAL in an archive \
                either must be cloned anew.";
    vec![(format!("slot \"{}\" on \"{}\" {what}", slot.name, on.from()), hint.to_owned())]
}

/// Those that a standby needs to replay what its primary writes, and those that it needs in its
/// place.
const LIMITS: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_replication_slots",
];

fn limit_lower(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((primary, standby)) = on.both() else { return vec![] };
    let lower = |name: &&str| {
        let (needed, found) = (primary.number(name)?, standby.number(name)?);
        (found < needed).then(|| {
            let message =
                format!("{name} is {found} on \"{}\", {needed} on \"{}\"", on.to(), on.from());
            (message, format!("Set {name} to at least {needed} there and restart that server."))
        })
    };
    LIMITS.iter().filter_map(lower).collect()
}

fn wal_level_lower(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((primary, standby)) = on.both() else { return vec![] };
    let rank = |side: &Side| {
        let levels = ["minimal", "replica", "logical"];
        levels.iter().position(|level| Some(*level) == side.setting("wal_level"))
    };
    if rank(standby) >= rank(primary) {
        return vec![];
    }
    let level = |side: &Side| side.setting("wal_level").unwrap_or("unknown").to_owned();
    let (from, to) = (level(primary), level(standby));
    let message = format!("wal_level is {to} on \"{}\", {from} on \"{}\"", on.to(), on.from());
    vec![(message, format!("Set wal_level to {from} there and restart that server."))]
}

/// A minute of writing makes a few; more are a queue.
const MAX_BACKLOG: i64 = 16;

fn archive_behind(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    let (failing, from) = (primary.readiness.archive_failing, on.from());
    let backlog = primary.readiness.archive_backlog.unwrap_or_default();
    let hint = || "pg_stat_archiver and the server log there say why.".to_owned();
    if failing {
        return vec![(format!("archiving on \"{from}\" fails"), hint())];
    }
    if backlog <= MAX_BACKLOG {
        return vec![];
    }
    vec![(format!("{backlog} segments of WAL on \"{from}\" are not archived yet"), hint())]
}

fn archive_off(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((primary, standby)) = on.both() else { return vec![] };
    let archives = |side: &Side| matches!(side.setting("archive_mode"), Some("on" | "always"));
    if !archives(primary) || archives(standby) {
        return vec![];
    }
    let message = format!("\"{}\" archives its WAL, \"{}\" would not", on.from(), on.to());
    vec![(message, "Set archive_mode = on there and restart that server.".to_owned())]
}

/// The first version with failover slots.
const WITH_FAILOVER_SLOTS: i32 = 17;

fn slot_dies(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    if primary.pulse.major() >= WITH_FAILOVER_SLOTS {
        return vec![];
    }
    let finding = |(link, slot): (&str, &SlotPulse)| {
        let message = format!(
            "slot \"{}\" of subscription \"{link}\" is lost in a failover of PostgreSQL {}: that \
             rows are missed then cannot be ruled out",
            slot.name,
            primary.pulse.major()
        );
        let hint = "Stop writing and let the subscription catch up before a planned change; \
                    PostgreSQL 17 can keep the slot.";
        (message, hint.to_owned())
    };
    on.subscription_slots().into_iter().map(finding).collect()
}

fn slot_unmarked(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    if primary.pulse.major() < WITH_FAILOVER_SLOTS {
        return vec![];
    }
    let unmarked = on.subscription_slots().into_iter().filter(|(_, slot)| !slot.failover);
    let finding = |(link, slot): (&str, &SlotPulse)| {
        let message = format!(
            "slot \"{}\" of subscription \"{link}\" is not a failover slot: it stays behind",
            slot.name
        );
        let hint = format!(
            "Disable the subscription, run ALTER SUBSCRIPTION {} SET (failover = true) on its \
             subscriber, and enable it again.",
            ident(link)
        );
        (message, hint)
    };
    unmarked.map(finding).collect()
}

fn slot_unsynced(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(standby) = on.standby else { return vec![] };
    let to = on.to();
    let unsynced = |(link, slot): (&str, &SlotPulse)| {
        let what = match standby.pulse.slot(&slot.name) {
            None => "is not there yet".to_owned(),
            Some(copy) if !copy.synced => "is no copy of the primary's".to_owned(),
            Some(copy) if copy.temporary => "is not ready yet".to_owned(),
            Some(copy) if copy.wal_status.as_deref() == Some("lost") => "is lost".to_owned(),
            Some(_) => return None,
        };
        let message =
            format!("on \"{to}\", slot \"{}\" of subscription \"{link}\" {what}", slot.name);
        let hint = format!("It comes with the synchronization; else the log of \"{to}\" says why.");
        Some((message, hint))
    };
    on.failover_slots().into_iter().filter_map(unsynced).collect()
}

/// Who is to change a setting of a member, and how.
fn set_it(on: &Evidence<'_>, command: String) -> String {
    if on.link.is_unmanaged() {
        return "Have what manages the group set that.".to_owned();
    }
    command
}

fn sync_off(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(standby) = on.standby else { return vec![] };
    if on.failover_slots().is_empty() {
        return vec![];
    }
    let off = ["sync_replication_slots", "hot_standby_feedback"];
    let off = off.into_iter().filter(|name| standby.is_off(name));
    let finding = |name| {
        let message = format!("{name} is off on \"{}\", and failover slots need it", on.to());
        (message, set_it(on, format!("Run ALTER SYSTEM SET {name} = on there, and reload.")))
    };
    off.map(finding).collect()
}

fn unguarded(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    let slot = on.slot_read();
    let names = primary.setting("synchronized_standby_slots").unwrap_or_default();
    let guarded = crate::synchronized::names(names).any(|name| name == slot);
    if on.failover_slots().is_empty() || guarded || primary.pulse.slot(&slot).is_none() {
        return vec![];
    }
    let message = format!(
        "synchronized_standby_slots on \"{}\" does not name \"{slot}\": a subscriber may get ahead \
         of \"{}\"",
        on.from(),
        on.to()
    );
    let hint = format!("Add {slot} to synchronized_standby_slots there, and reload.");
    let hint = set_it(on, hint);
    vec![(message, hint)]
}
