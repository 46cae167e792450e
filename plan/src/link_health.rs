//! What state a link is in, from what both its nodes said last and what the planner would do:
//! numbered rules, the first that holds wins.

mod why;

use crate::clone::copier;
use crate::commits::{self, Blocked};
use crate::desired::{Link, LinkId, LinkState, NodeId, Registry, Spec, StandbySpec, Unfinished};
use crate::node_health::NodeState;
use crate::pulse::{Backup, Pulse, Sender, SlotPulse, SubscriptionPulse};
use crate::rule::RuleId;
use crate::step::{Plan, Problem, ProblemKind};
use crate::transition::Severity;
use crate::units::{bytes, time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use LinkStatus::*;
use why::Why;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// It is made and its data does not flow yet.
    Initializing,
    /// The initial copy of its tables, or of the standby itself, is under way.
    Copying,
    Streaming,
    /// It streams, and is beyond one of its limits.
    Lagging,
    Paused,
    /// Somebody must act, or it stays as it is.
    Broken,
    /// It is not made yet, or not there any more.
    Missing,
    /// It is there, but not as the registry says.
    Drifted,
    /// It cannot be judged: a node does not answer.
    Waiting,
    /// A foreign link whose server answers.
    Up,
    Removing,
}

impl LinkStatus {
    pub fn label(self) -> &'static str {
        match self {
            LinkStatus::Initializing => "initializing",
            LinkStatus::Copying => "copying",
            LinkStatus::Streaming => "streaming",
            LinkStatus::Lagging => "lagging",
            LinkStatus::Paused => "paused",
            LinkStatus::Broken => "broken",
            LinkStatus::Missing => "missing",
            LinkStatus::Drifted => "drifted",
            LinkStatus::Waiting => "waiting",
            LinkStatus::Up => "up",
            LinkStatus::Removing => "removing",
        }
    }

    /// Whether data flows as it should.
    pub fn is_well(self) -> bool {
        match self {
            LinkStatus::Streaming | LinkStatus::Up => true,
            LinkStatus::Initializing
            | LinkStatus::Copying
            | LinkStatus::Lagging
            | LinkStatus::Paused
            | LinkStatus::Broken
            | LinkStatus::Missing
            | LinkStatus::Drifted
            | LinkStatus::Waiting
            | LinkStatus::Removing => false,
        }
    }

    /// Whether people must hear of it. What is neither well nor this is on its way, was asked
    /// for, or is a node's trouble.
    pub fn is_trouble(self) -> bool {
        match self {
            LinkStatus::Lagging
            | LinkStatus::Broken
            | LinkStatus::Missing
            | LinkStatus::Drifted => true,
            LinkStatus::Initializing
            | LinkStatus::Copying
            | LinkStatus::Streaming
            | LinkStatus::Paused
            | LinkStatus::Waiting
            | LinkStatus::Up
            | LinkStatus::Removing => false,
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            LinkStatus::Broken => Severity::Critical,
            LinkStatus::Lagging | LinkStatus::Missing | LinkStatus::Drifted => Severity::Warning,
            LinkStatus::Initializing
            | LinkStatus::Copying
            | LinkStatus::Streaming
            | LinkStatus::Paused
            | LinkStatus::Waiting
            | LinkStatus::Up
            | LinkStatus::Removing => Severity::Info,
        }
    }
}

/// One of the two nodes of a link.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub state: NodeState,
    /// Its last heartbeat.
    pub pulse: Option<&'a Pulse>,
    /// Why it does not answer.
    pub why: Option<&'a str>,
}

/// What the planner says of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkPlan {
    /// What forbids it.
    pub refused: Option<Told>,
    /// What it waits for.
    pub waiting: Option<Told>,
    /// What would be done first.
    pub step: Option<PlannedStep>,
}

/// A problem of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub message: String,
    pub hint: String,
    pub rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Whether the link is made from nothing.
    pub creates: bool,
    pub reason: String,
    pub rule: String,
}

impl LinkPlan {
    pub fn of(plan: &Plan, link: LinkId) -> Self {
        let told = |kind| {
            let is_it = |p: &&Problem| p.link == Some(link) && p.kind == kind;
            plan.problems.iter().find(is_it).map(|problem| Told {
                message: problem.message.clone(),
                hint: problem.hint.clone(),
                rule: problem.rule.to_owned(),
            })
        };
        let step = plan.steps.iter().find(|step| step.link == Some(link));
        LinkPlan {
            refused: told(ProblemKind::Refused),
            waiting: told(ProblemKind::Waiting),
            step: step.map(|step| PlannedStep {
                creates: step.operation.begins_link(),
                reason: step.reason.clone(),
                rule: step.rule.to_owned(),
            }),
        }
    }
}

/// Beyond these a link is lagging; `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkLimits {
    pub max_lag_bytes: Option<u64>,
    pub max_lag: Option<Duration>,
    /// WAL that its slot may keep, in bytes.
    pub max_retained_wal: Option<u64>,
}

/// A foreign link's server, asked through the link itself as the mapped role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub took: Duration,
    pub error: Option<String>,
}

/// All that is known of a link.
#[derive(Debug, Clone, Copy)]
pub struct LinkEvidence<'a> {
    pub registry: &'a Registry,
    pub link: &'a Link,
    pub from: Side<'a>,
    pub to: Side<'a>,
    pub plan: &'a LinkPlan,
    pub limits: &'a LinkLimits,
    pub probe: Option<&'a Probe>,
    /// From [`crate::link_watch::LinkWatch`]; `None`: it has a reader, or nobody watches.
    pub unread: Option<Unread>,
}

/// How long nobody has read from a link that should be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    pub length: Duration,
    /// Whether it was read before.
    pub was_read: bool,
}

/// A link's state with the reason for it, the next action, and numbers as far as known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkHealth {
    pub state: LinkStatus,
    #[serde(deserialize_with = "crate::rule::known")]
    pub rule: RuleId,
    pub reason: Option<String>,
    pub hint: Option<String>,
    /// How far the target is behind the source.
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    /// WAL that its slot keeps.
    pub retained_bytes: Option<u64>,
    /// Whether somebody receives from it.
    pub has_reader: Option<bool>,
    pub tables: Option<i64>,
    pub tables_ready: Option<i64>,
    pub copied_rows: Option<i64>,
    pub copied_bytes: Option<i64>,
    /// Of a standby that is copied: how much that is, and when it will be done.
    #[serde(default)]
    pub expected_bytes: Option<i64>,
    #[serde(default)]
    pub copy_left: Option<Duration>,
}

impl LinkHealth {
    /// Whether numbers of a copy are of one that runs.
    pub fn is_copying(&self) -> bool {
        self.tables_ready < self.tables || self.state == Copying
    }
}

pub(crate) struct LinkRule {
    pub id: &'static str,
    pub when: &'static str,
    state: LinkStatus,
    /// Whether it is an event at once; else it must last, for it often passes by itself.
    pub is_certain: bool,
    /// `Some`: the rule holds.
    why: fn(&Scene<'_>) -> Option<Why>,
}

const fn rule(
    id: &'static str,
    when: &'static str,
    state: LinkStatus,
    why: fn(&Scene<'_>) -> Option<Why>,
) -> LinkRule {
    LinkRule { id, when, state, is_certain: false, why }
}

const fn certain(rule: LinkRule) -> LinkRule {
    LinkRule { is_certain: true, ..rule }
}

pub(crate) const RULES: &[LinkRule] = &[
    rule("LH01", "something stands in the way of a removal", Removing, why::removal_stuck),
    rule("LH02", "the link is being removed", Removing, why::removing),
    rule("LH23", "the standby is being copied", Copying, why::cloning),
    rule(
        "LH24",
        "the copy that is to become the standby is none yet",
        Initializing,
        why::unfinished,
    ),
    // A standby is refused, and is none, for a moment also while calls change who is the primary.
    rule("LH25", "the planner refuses the standby", Broken, why::refused_standby),
    certain(rule("LH03", "the planner refuses the link", Broken, why::refused)),
    rule("LH04", "a node of the link does not answer", Waiting, why::silent_side),
    rule("LH05", "the planner waits for something else first", Waiting, why::waiting),
    rule("LH06", "the link is to be made", Missing, why::unmade),
    rule("LH07", "the slot or the subscription is gone and can be made again", Missing, why::gone),
    // Of a subscription the planner says which changes, and that is an event at once.
    rule("LH08", "the slot is gone or lost with changes in it", Broken, why::slot_lost),
    rule("LH09", "the standby is not in recovery", Broken, why::promoted),
    rule("LH10", "the subscription was disabled by hand or by an error", Drifted, why::disabled),
    rule("LH11", "an object is not as the link says", Drifted, why::drifted),
    rule("LH12", "replay is paused on the standby", Paused, why::replay_paused),
    rule("LH13", "its reader is connecting", Initializing, why::connecting),
    rule("LH14", "nobody reads from it", Broken, why::unread),
    rule("LH15", "its slot is read, but not by its target", Broken, why::read_by_another),
    rule("LH16", "its slot keeps more WAL than max_retained_wal", Lagging, why::retains_too_much),
    rule("LH17", "the subscription is paused", Paused, why::paused),
    rule("LH18", "the initial copy is not done", Copying, why::copying),
    rule("LH19", "it is behind by more than max_lag_bytes or max_lag", Lagging, why::lags_too_much),
    rule(
        "LH20",
        "the foreign server does not answer as the mapped role",
        Broken,
        why::probe_failed,
    ),
    rule("LH21", "both nodes of a foreign link answer", Up, why::foreign),
    rule("LH22", "it streams", Streaming, |_| Why::well()),
];

/// How long a link may take to get a reader: PostgreSQL 15 starts one apply worker every
/// `wal_retrieve_retry_interval` (5 s).
pub(crate) const READER_LIMIT: Duration = Duration::from_secs(30);

/// The evidence, sorted.
struct Scene<'a> {
    e: &'a LinkEvidence<'a>,
    /// The last heartbeats, while they can be judged by.
    source: Option<&'a Pulse>,
    target: Option<&'a Pulse>,
    slot_name: String,
    slot: Option<&'a SlotPulse>,
    sender: Option<&'a Sender>,
    subscription: Option<&'a SubscriptionPulse>,
    /// Of the standby, by a base backup under the link's name.
    backup: Option<&'a Backup>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
    retained: Option<u64>,
}

/// Judges one link.
pub fn link_health(evidence: &LinkEvidence<'_>) -> LinkHealth {
    let scene = Scene::of(evidence);
    let mut found = RULES.iter().filter_map(|rule| Some((rule, (rule.why)(&scene)?)));
    // The last rule holds always.
    let (rule, why) = found.next().unwrap_or((&RULES[RULES.len() - 1], Why::default()));
    LinkHealth {
        state: rule.state,
        rule: rule.id,
        reason: scene.with_waiting_commits(why.reason),
        hint: why.hint,
        lag_bytes: scene.lag_bytes,
        lag_seconds: scene.lag_seconds,
        retained_bytes: scene.retained,
        has_reader: scene.has_reader(),
        tables: scene.subscription.map(|s| s.tables),
        tables_ready: scene.subscription.map(|s| s.ready),
        copied_rows: scene.subscription.map(|s| s.copied_rows),
        copied_bytes: match scene.backup {
            Some(backup) => backup.streamed,
            None => scene.subscription.map(|s| s.copied_bytes),
        },
        expected_bytes: scene.backup.and_then(|backup| backup.total),
        copy_left: scene.backup.and_then(Backup::time_left),
    }
}

impl<'a> Scene<'a> {
    fn of(e: &'a LinkEvidence<'a>) -> Self {
        let heard = |side: Side<'a>| side.pulse.filter(|_| side.state.answers());
        let (source, target) = (heard(e.from), heard(e.to));
        let slot_name = e.registry.mark(e.link).slot_name();
        let slot = source.and_then(|source| source.slot(&slot_name));
        let subscription = match &e.link.spec {
            Spec::Subscription(_) => target.and_then(|target| target.subscription(&e.link.name)),
            Spec::Standby(_) | Spec::Foreign(_) => None,
        };
        let mut scene = Scene {
            e,
            source,
            target,
            slot,
            sender: source.zip(slot).and_then(|(source, slot)| source.sender_of(slot)),
            subscription,
            backup: source.and_then(|source| source.backup(&copier(&slot_name))),
            slot_name,
            lag_bytes: None,
            lag_seconds: None,
            retained: source.zip(slot).and_then(|(source, slot)| source.retained(slot)),
        };
        scene.lag_bytes = scene.measure_bytes();
        scene.lag_seconds = scene.measure_seconds();
        scene
    }

    fn measure_bytes(&self) -> Option<u64> {
        let reached = match &self.e.link.spec {
            Spec::Foreign(_) => None,
            Spec::Subscription(_) => self.slot?.confirmed_flush_lsn,
            Spec::Standby(_) => {
                let sent = self.sender.and_then(|sender| sender.replay_lsn);
                sent.or(self.target.and_then(|target| target.lsn))
            }
        };
        Some(self.source?.wal_end()?.since(reached?))
    }

    fn measure_seconds(&self) -> Option<f64> {
        // An idle primary measures no time, and one that is idle is never late.
        if self.lag_bytes? == 0 {
            return Some(0.0);
        }
        let measured = self.sender.and_then(|sender| sender.replay_lag);
        match &self.e.link.spec {
            Spec::Foreign(_) | Spec::Subscription(_) => measured,
            Spec::Standby(_) => measured.or(self.target.and_then(|target| target.replay_age)),
        }
    }

    fn name(&self, node: NodeId) -> &'a str {
        self.e.registry.node_name(node)
    }

    fn from(&self) -> &'a str {
        self.name(self.e.link.from)
    }

    fn to(&self) -> &'a str {
        self.name(self.e.link.to)
    }

    /// Only subscriptions can pause.
    fn is_paused(&self) -> bool {
        self.e.link.state == LinkState::Paused && self.is_subscription()
    }

    fn is_removing(&self) -> bool {
        self.e.link.state == LinkState::Removing
    }

    fn is_foreign(&self) -> bool {
        matches!(self.e.link.spec, Spec::Foreign(_))
    }

    fn is_subscription(&self) -> bool {
        matches!(self.e.link.spec, Spec::Subscription(_))
    }

    fn is_standby(&self) -> bool {
        matches!(self.e.link.spec, Spec::Standby(_))
    }

    /// Whether a slot on the source belongs to the link.
    fn has_slot(&self) -> bool {
        match &self.e.link.spec {
            Spec::Subscription(_) | Spec::Standby(StandbySpec { slot: true, .. }) => true,
            Spec::Foreign(_) | Spec::Standby(StandbySpec { slot: false, .. }) => false,
        }
    }

    /// Whether the target's process that receives is there.
    fn is_receiving(&self) -> Option<bool> {
        match &self.e.link.spec {
            Spec::Foreign(_) => None,
            Spec::Subscription(_) => Some(self.subscription?.running),
            Spec::Standby(_) => Some(self.target?.receiver.is_some()),
        }
    }

    fn has_reader(&self) -> Option<bool> {
        if self.has_slot() { Some(self.slot?.active) } else { self.is_receiving() }
    }

    /// `; its slot on "london" keeps 12 MB of WAL`, as far as that is so.
    fn keeps(&self) -> String {
        match self.retained {
            Some(retained) if self.has_slot() => {
                format!("; its slot on \"{}\" keeps {} of WAL", self.from(), bytes(retained))
            }
            Some(_) | None => String::new(),
        }
    }

    /// Adds that commits wait for the standby, where they do.
    fn with_waiting_commits(&self, reason: Option<String>) -> Option<String> {
        let Some(blocked) = self.blocks_commits() else { return reason };
        let commits = match blocked {
            Blocked::TooFew { .. } => format!("commits on \"{}\" wait for it", self.from()),
            Blocked::Silent { longest, .. } => {
                format!("commits on \"{}\" wait, the oldest for {}", self.from(), time(longest))
            }
        };
        Some(reason.map_or(commits.clone(), |reason| format!("{reason}; {commits}")))
    }

    /// One that streams is not to blame for too few.
    fn blocks_commits(&self) -> Option<Blocked> {
        let Spec::Standby(StandbySpec { synchronous: true, .. }) = &self.e.link.spec else {
            return None;
        };
        let blocked = commits::blocked(self.source?, commits::PATIENCE)?;
        let streams = self.sender.is_some_and(|s| s.state.as_deref() == Some("streaming"));
        Some(blocked).filter(|blocked| !(streams && matches!(blocked, Blocked::TooFew { .. })))
    }

    /// Where the copy is that is to become the standby, as long as nothing receives there.
    fn unfinished(&self) -> Option<&'a Unfinished> {
        let Spec::Standby(spec) = &self.e.link.spec else { return None };
        spec.unfinished.as_ref().filter(|_| self.is_receiving() != Some(true))
    }

    /// What receives, in Postgres' words.
    fn receiver(&self) -> &'static str {
        if self.is_standby() { "walreceiver" } else { "apply worker" }
    }

    fn see_log(&self) -> String {
        format!("The server log of \"{}\" says why.", self.to())
    }
}
