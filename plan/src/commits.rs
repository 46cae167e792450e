//! Whether commits on a primary wait for synchronous standbys that do not answer, as its
//! heartbeats tell, whoever has named those standbys; and which changes of that people must hear
//! of. All times count from an arbitrary start.

use crate::desired::{Link, Registry};
use crate::node_health::NodeLimits;
use crate::promotion::standby_links;
use crate::pulse::{Pulse, Sender, Synchronous};
use crate::standby_names::StandbyNames;
use crate::transition::{Damped, Damper, Severity, flapping};
use crate::units::time;
use std::time::Duration;

/// Why commits wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Blocked {
    /// Fewer standbys stream than must answer.
    TooFew { streaming: usize, needed: usize },
    /// They stream, and do not answer: somebody waits for so long.
    Silent { waiting: i64, longest: Duration },
}

/// A commit that has waited for so long does not end by itself, where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Judges a heartbeat; a commit may well wait for `patience`.
pub fn blocked(pulse: &Pulse, patience: Duration) -> Option<Blocked> {
    let synchronous = pulse.synchronous.as_ref().filter(|_| !pulse.in_recovery)?;
    if let Some(needed) = StandbyNames::parse(&synchronous.names).map(|names| names.number)
        && let Some(streaming) = streaming(pulse)
        && streaming < needed
    {
        return Some(Blocked::TooFew { streaming, needed });
    }
    let longest = Duration::try_from_secs_f64(synchronous.longest?).ok()?;
    let waiting = synchronous.waiting;
    (longest >= patience).then_some(Blocked::Silent { waiting, longest })
}

/// How many of the standbys named stream, as Postgres counts them
/// (`SyncRepGetCandidateStandbys`, syncrep.c); `None`: the role may not read it.
fn streaming(pulse: &Pulse) -> Option<usize> {
    let counts = |sender: &&Sender| {
        sender.sync_state.as_deref().is_some_and(|state| state != "async")
            && matches!(sender.state.as_deref(), Some("streaming" | "stopping"))
    };
    let readable = pulse.senders.iter().all(|sender| sender.state.is_some());
    readable.then(|| pulse.senders.iter().filter(counts).count())
}

impl Blocked {
    /// Goes on after `commits on "paris" `.
    pub fn explain(&self, names: &str) -> String {
        match self {
            Blocked::TooFew { streaming, needed } => {
                let stream = if *streaming == 1 { "streams" } else { "stream" };
                format!(
                    "wait: {streaming} of the synchronous standbys {stream}, {needed} must \
                     (synchronous_standby_names = {names})"
                )
            }
            Blocked::Silent { waiting, longest } => format!(
                "wait for synchronous standbys: {waiting} now, the oldest for {} \
                 (synchronous_standby_names = {names})",
                time(*longest)
            ),
        }
    }
}

/// The same in a sentence, where commits wait.
pub fn explain(pulse: &Pulse, name: &str) -> Option<String> {
    let why = blocked(pulse, PATIENCE)?.explain(names(pulse.synchronous.as_ref()));
    Some(format!("commits on \"{name}\" {why}"))
}

fn names(synchronous: Option<&Synchronous>) -> &str {
    synchronous.map_or("", |synchronous| &synchronous.names)
}

/// What to do: which links lead to standbys that commits wait for.
pub fn hint(registry: &Registry, pulse: &Pulse) -> String {
    let listed = StandbyNames::parse(names(pulse.synchronous.as_ref()));
    let is_listed =
        |link: &&Link| listed.as_ref().is_some_and(|n| n.lists(&registry.mark(link).slot_name()));
    let links: Vec<&Link> = standby_links(registry).filter(is_listed).collect();
    let Some(first) = links.first() else {
        return "Start those standbys, or take them out of synchronous_standby_names and reload."
            .to_owned();
    };
    let nodes: Vec<String> =
        links.iter().map(|link| format!("\"{}\"", registry.node_name(link.to))).collect();
    format!(
        "Look at {}, and start what is down. To go on without one: nodes.alter_link({}, \
         synchronous => false), or the like, and nodes.apply().",
        nodes.join(", "),
        crate::quote::literal(&first.name)
    )
}

/// A change that becomes an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub kind: &'static str,
    pub severity: Severity,
    /// Goes on after `commits on "paris" `.
    pub message: String,
}

pub const BLOCKED: &str = "synchronous_blocked";
pub const PASSING: &str = "synchronous_ok";

/// Watches the commits of one node.
#[derive(Debug, Clone, Default)]
pub struct CommitWatch {
    /// As people were told.
    is_blocked: bool,
    /// Since when it is otherwise.
    since: Option<Duration>,
    damper: Damper,
}

impl CommitWatch {
    /// Goes on where an earlier watch ended that had told of commits that wait.
    pub fn resume(&mut self) {
        self.is_blocked = true;
    }

    /// Takes a heartbeat in. What does not last is not told: a standby is restarted.
    pub fn judge(&mut self, now: Duration, pulse: &Pulse, limits: &NodeLimits) -> Option<Change> {
        let patience = limits.patience();
        let found = blocked(pulse, patience);
        let tell = |found: &Option<Blocked>| match found {
            Some(why) => {
                told(BLOCKED, Severity::Critical, why.explain(names(pulse.synchronous.as_ref())))
            }
            None => told(PASSING, Severity::Info, "pass again".to_owned()),
        };
        if found.is_some() == self.is_blocked {
            self.since = None;
            return self.damper.has_calmed(now).then(|| tell(&found));
        }
        // Who has waited for so long was seen to, and one more heartbeat makes it certain.
        let enough = match found {
            Some(Blocked::Silent { .. }) => limits.heartbeat_interval / 2,
            Some(Blocked::TooFew { .. }) | None => patience,
        };
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < enough {
            return None;
        }
        self.is_blocked = found.is_some();
        self.since = None;
        match self.damper.change(now, self.is_blocked) {
            Damped::Told => Some(tell(&found)),
            Damped::Flapping => Some(told(BLOCKED, Severity::Critical, flapping("had to wait"))),
            Damped::Muted => None,
        }
    }
}

fn told(kind: &'static str, severity: Severity, message: String) -> Change {
    Change { kind, severity, message }
}
