//! Whether a standby could take the place of its primary now, and every reason why not: settings
//! and positions of both servers, what the plan still has to do for the link, the slots for those
//! that would follow it, and each logical slot of the primary, whoever reads it.

use crate::desired::{Link, LinkState, NodeId, Registry, Spec};
use crate::pulse::{Pulse, SlotPulse};
use crate::quote::ident;
use crate::rule::RuleId;
use crate::siblings;
use crate::step::{Plan, ProblemKind};
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

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

/// A logical slot of the primary.
#[derive(Debug, Clone, Copy)]
pub struct LogicalSlot<'a> {
    pub slot: &'a SlotPulse,
    /// The link that reads it; `None`: somebody else's.
    pub subscription: Option<&'a str>,
}

impl LogicalSlot<'_> {
    /// As messages call it.
    fn title(&self) -> String {
        match self.subscription {
            Some(link) => format!("slot \"{}\" of subscription \"{link}\"", self.slot.name),
            None => format!("slot \"{}\"", self.slot.name),
        }
    }
}

/// One numbered rule; `when` is the sentence that `nodes.rules()` shows.
pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    then: fn(&Evidence<'_>) -> Vec<Finding>,
}

struct Finding {
    /// The logical slot that it is about; `None`: the whole standby.
    slot: Option<String>,
    message: String,
    hint: String,
}

/// About the whole standby.
fn finding(message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { slot: None, message: message.into(), hint: hint.into() }
}

/// About one logical slot.
fn slot_finding(found: &LogicalSlot<'_>, message: String, hint: impl Into<String>) -> Finding {
    Finding { slot: Some(found.slot.name.clone()), ..finding(message, hint) }
}

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
    Rule { id: "FR13", when: "the standby has no slot for another member", then: sibling_unkept },
    Rule { id: "FR14", when: "the standby replays late on purpose", then: delayed },
    Rule { id: "FR20", when: "no slot survives a failover of this version", then: slot_dies },
    Rule { id: "FR21", when: "a logical slot is not a failover slot", then: slot_unmarked },
    Rule { id: "FR22", when: "a failover slot is not on the standby yet", then: slot_unsynced },
    Rule { id: "FR23", when: "the standby does not synchronize slots", then: sync_off },
    Rule { id: "FR24", when: "a subscriber may get ahead of the standby", then: unguarded },
];

/// Every reason why the standby cannot take over; none: it can.
pub fn obstacles(evidence: &Evidence<'_>) -> Vec<Reason> {
    ask(evidence).map(|(_, reason)| reason).collect()
}

/// Each logical slot of the primary, with the reasons why it would not survive.
pub fn logical_slots<'a>(evidence: &Evidence<'a>) -> Vec<(LogicalSlot<'a>, Vec<Reason>)> {
    let reasons: Vec<_> = ask(evidence).collect();
    let found = evidence.logical_slots().into_iter().map(|found| {
        let its_own = reasons.iter().filter(|(slot, _)| slot.as_ref() == Some(&found.slot.name));
        (found, its_own.map(|(_, reason)| reason.clone()).collect())
    });
    found.collect()
}

/// What the rules find, and the logical slot that it is about.
fn ask(evidence: &Evidence<'_>) -> impl Iterator<Item = (Option<String>, Reason)> {
    RULES.iter().flat_map(|rule| {
        let reason =
            |Finding { slot, message, hint }| (slot, Reason { rule: rule.id, message, hint });
        (rule.then)(evidence).into_iter().map(reason)
    })
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

    /// The logical slots of the primary that are more than their session's.
    fn logical_slots(&self) -> Vec<LogicalSlot<'a>> {
        let Ok(primary) = self.primary else { return vec![] };
        let of_subscription = |link: &&Link| {
            matches!(link.spec, Spec::Subscription(_)) && link.from == self.link.from
        };
        let reader = |slot: &SlotPulse| {
            let link = siblings::link_of(self.registry, &slot.name);
            link.and_then(|id| self.registry.link(id)).filter(of_subscription)
        };
        let found = primary.pulse.slots.iter().filter_map(|slot| {
            let reader = reader(slot);
            let leaves = reader.is_some_and(|link| link.state == LinkState::Removing);
            let counts = slot.kind == "logical" && !slot.temporary && !leaves;
            let subscription = reader.map(|link| link.name.as_str());
            counts.then_some(LogicalSlot { slot, subscription })
        });
        found.collect()
    }

    /// Those that a failover can take along: from 17 on, where they are marked for it.
    fn failover_slots(&self) -> Vec<LogicalSlot<'a>> {
        self.logical_slots().into_iter().filter(|found| found.slot.failover).collect()
    }

    fn node_name(&self, node: NodeId) -> &'a str {
        self.registry.node_name(node)
    }
}

fn silent(name: &str, why: &str, then: &str) -> Finding {
    let hint = "nodes.explain() says what to do about it.".to_owned();
    finding(format!("node \"{name}\" does not answer{then}: {why}"), hint)
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
        finding(format!("not done yet on \"{node}\": {label} ({reason})"), APPLY)
    });
    let stands = |kind| matches!(kind, ProblemKind::Refused | ProblemKind::Waiting);
    // Who does not answer is told of by rules of its own.
    let problems = on.plan.problems.iter().filter(|p| of_link(p.link) && p.rule != "RG03");
    let problems = problems.filter(|problem| stands(problem.kind));
    steps.chain(problems.map(|p| finding(&p.message, &p.hint))).collect()
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
    vec![finding(format!("\"{}\" does not stream from \"{}\"", on.to(), on.from()), hint)]
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
    vec![finding(message, hint)]
}

fn lagging(on: &Evidence<'_>) -> Vec<Finding> {
    let (Some(lag), Some(limit)) = (lag_bytes(on), on.max_lag_bytes) else { return vec![] };
    if lag <= limit {
        return vec![];
    }
    let (lag, limit) = (units::bytes(lag), units::bytes(limit));
    let hint = "Wait until it has caught up; nodes.link_status shows how far it is.";
    vec![finding(format!("\"{}\" is {lag} behind, more than {limit}", on.to()), hint)]
}

fn replay_paused(on: &Evidence<'_>) -> Vec<Finding> {
    match on.standby {
        Ok(standby) if standby.pulse.replay_paused => vec![finding(
            format!("replay on \"{}\" is paused", on.to()),
            "Run SELECT pg_wal_replay_resume() there, unless a setting that is too small has \
             paused it.",
        )],
        Ok(_) | Err(_) => vec![],
    }
}

/// What threatens a physical slot.
fn losing(slot: &SlotPulse) -> Option<&'static str> {
    match slot.wal_status.as_deref() {
        Some("lost") => Some("has lost its WAL"),
        Some("unreserved") => Some("loses its WAL at the next checkpoint"),
        Some(_) | None => None,
    }
}

fn slot_losing(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((slot, what)) = on.slot().and_then(|slot| Some((slot, losing(slot)?))) else {
        return vec![];
    };
    let hint = "Raise max_slot_wal_keep_size there; a standby that finds no WAL in an archive \
                either must be cloned anew.";
    vec![finding(format!("slot \"{}\" on \"{}\" {what}", slot.name, on.from()), hint)]
}

/// What the plan has to do, or cannot do, for those that would follow the standby, and what of it is
/// being lost.
fn sibling_unkept(on: &Evidence<'_>) -> Vec<Finding> {
    let here = |rule: &str, node: Option<NodeId>| rule == "RG15" && node == Some(on.link.to);
    let steps = on.plan.steps.iter().filter(|step| here(step.rule, step.node)).map(|step| {
        let (to, label) = (on.to(), step.operation.label());
        finding(format!("not done yet on \"{to}\": {label} ({})", step.reason), APPLY)
    });
    let problems = on.plan.problems.iter().filter(|problem| here(problem.rule, problem.node));
    let problems = problems.map(|problem| finding(&problem.message, &problem.hint));
    let slots = on.standby.ok().into_iter().flat_map(|standby| &standby.pulse.slots);
    let kept = slots.filter_map(|slot| {
        let link = siblings::link_of(on.registry, &slot.name)?;
        let link = on.registry.link(link).filter(|link| siblings::is_wanted(link, on.link.to))?;
        let (to, follower, what) = (on.to(), on.node_name(link.to), losing(slot)?);
        let message = format!("slot \"{}\" for \"{follower}\" on \"{to}\" {what}", slot.name);
        let hint = format!(
            "Start \"{follower}\" or have it catch up, or raise max_slot_wal_keep_size on \"{to}\"; \
             where none of this helps it must be cloned anew."
        );
        Some(finding(message, hint))
    });
    steps.chain(problems).chain(kept).collect()
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
            finding(
                message,
                format!("Set {name} to at least {needed} there and restart that server."),
            )
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
    vec![finding(message, format!("Set wal_level to {from} there and restart that server."))]
}

/// A minute of writing makes a few; more are a queue.
const MAX_BACKLOG: i64 = 16;

fn archive_behind(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    let (failing, from) = (primary.readiness.archive_failing, on.from());
    let backlog = primary.readiness.archive_backlog.unwrap_or_default();
    let hint = "pg_stat_archiver and the server log there say why.";
    if failing {
        return vec![finding(format!("archiving on \"{from}\" fails"), hint)];
    }
    if backlog <= MAX_BACKLOG {
        return vec![];
    }
    vec![finding(format!("{backlog} segments of WAL on \"{from}\" are not archived yet"), hint)]
}

fn archive_off(on: &Evidence<'_>) -> Vec<Finding> {
    let Some((primary, standby)) = on.both() else { return vec![] };
    let archives = |side: &Side| matches!(side.setting("archive_mode"), Some("on" | "always"));
    if !archives(primary) || archives(standby) {
        return vec![];
    }
    let message = format!("\"{}\" archives its WAL, \"{}\" would not", on.from(), on.to());
    vec![finding(message, "Set archive_mode = on there and restart that server.")]
}

/// A switchover would wait for it while nobody writes.
fn delayed(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(standby) = on.standby else { return vec![] };
    let delay = standby.number("recovery_min_apply_delay").unwrap_or_default();
    if delay == 0 {
        return vec![];
    }
    let delay = units::time(Duration::from_millis(delay.unsigned_abs()));
    let message =
        format!("\"{}\" replays everything {delay} late (recovery_min_apply_delay)", on.to());
    vec![finding(message, "Set recovery_min_apply_delay to 0 there, and reload, to have it ready.")]
}

/// The first version with failover slots.
const WITH_FAILOVER_SLOTS: i32 = 17;

fn slot_dies(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    let major = primary.pulse.major();
    if major >= WITH_FAILOVER_SLOTS {
        return vec![];
    }
    let dies = |found: LogicalSlot<'_>| {
        let message = format!(
            "{} is lost in a failover of PostgreSQL {major}: that rows are missed then cannot be \
             ruled out",
            found.title()
        );
        let hint = "Stop writing and let its reader catch up before a planned change; \
                    PostgreSQL 17 can keep the slot.";
        slot_finding(&found, message, hint)
    };
    on.logical_slots().into_iter().map(dies).collect()
}

fn slot_unmarked(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(primary) = on.primary else { return vec![] };
    if primary.pulse.major() < WITH_FAILOVER_SLOTS {
        return vec![];
    }
    let unmarked = |found: LogicalSlot<'_>| {
        let message = format!("{} is not a failover slot: it stays behind", found.title());
        let hint = match found.subscription {
            Some(link) => format!(
                "Disable the subscription, run ALTER SUBSCRIPTION {} SET (failover = true) on its \
                 subscriber, and enable it again.",
                ident(link)
            ),
            None => "Have its reader make it with failover = true.".to_owned(),
        };
        slot_finding(&found, message, hint)
    };
    on.logical_slots().into_iter().filter(|found| !found.slot.failover).map(unmarked).collect()
}

fn slot_unsynced(on: &Evidence<'_>) -> Vec<Finding> {
    let Ok(standby) = on.standby else { return vec![] };
    let to = on.to();
    let unsynced = |found: LogicalSlot<'_>| {
        let what = match standby.pulse.slot(&found.slot.name) {
            None => "is not there yet",
            Some(copy) if !copy.synced => "is no copy of the primary's",
            Some(copy) if copy.temporary => "is not ready yet",
            Some(copy) if copy.wal_status.as_deref() == Some("lost") => "is lost",
            Some(_) => return None,
        };
        let message = format!("on \"{to}\", {} {what}", found.title());
        let hint = format!("It comes with the synchronization; else the log of \"{to}\" says why.");
        Some(slot_finding(&found, message, hint))
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
    let is_off = |name| {
        let message = format!("{name} is off on \"{}\", and failover slots need it", on.to());
        finding(message, set_it(on, format!("Run ALTER SYSTEM SET {name} = on there, and reload.")))
    };
    off.map(is_off).collect()
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
    vec![finding(message, set_it(on, hint))]
}
