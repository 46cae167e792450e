//! Changes that people must hear of, and how a flapping node or link is told as one event
//! instead of a hundred.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How bad an event is: the `severity` column of `nodes.event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub fn label(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A change of state that becomes a row of `nodes.event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition<S> {
    /// What people were told last.
    pub from: S,
    pub to: S,
    pub rule: &'static str,
    pub severity: Severity,
    /// The `kind` column: the new state's label, `flapping` or `stable`.
    pub kind: &'static str,
    /// Goes on after `node "paris" ` or `link "feed" `.
    pub message: String,
    pub hint: Option<String>,
}

/// So many falls within [`FLAP_WINDOW`] are flapping.
pub const FLAP_FALLS: usize = 3;
pub const FLAP_WINDOW: Duration = Duration::from_secs(300);
/// How long a state must last until flapping is over.
pub const CALM: Duration = Duration::from_secs(60);

/// Tells a node's or link's changes until they come too fast, then only that they do, and when
/// they no longer do. All times count from an arbitrary start.
#[derive(Debug, Clone, Default)]
pub struct Damper {
    /// When the last falls were, at most [`FLAP_FALLS`].
    falls: Vec<Duration>,
    /// While flapping: when the last change was.
    flapping: Option<Duration>,
}

/// What to do with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damped {
    /// Tell it.
    Told,
    /// Tell that it flaps, this once.
    Flapping,
    /// Keep quiet.
    Muted,
}

impl Damper {
    /// Judges a change of what people see; a `fall` is one for the worse.
    pub fn change(&mut self, now: Duration, fall: bool) -> Damped {
        if fall {
            self.falls.push(now);
            self.falls.retain(|at| now.saturating_sub(*at) < FLAP_WINDOW);
            let surplus = self.falls.len().saturating_sub(FLAP_FALLS);
            self.falls.drain(..surplus);
        }
        match &mut self.flapping {
            Some(last) => {
                *last = now;
                Damped::Muted
            }
            None if fall && self.falls.len() == FLAP_FALLS => {
                self.flapping = Some(now);
                Damped::Flapping
            }
            None => Damped::Told,
        }
    }

    /// Whether flapping is over; true once.
    pub fn has_calmed(&mut self, now: Duration) -> bool {
        let calm = self.deadline().is_some_and(|deadline| now >= deadline);
        if calm {
            self.flapping = None;
        }
        calm
    }

    /// When flapping is over if nothing changes.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.flapping? + CALM)
    }

    pub fn is_flapping(&self) -> bool {
        self.flapping.is_some()
    }
}

/// How an event tells that something flaps: after `is flapping: `.
pub(crate) fn flapping(what: &str) -> String {
    let minutes = FLAP_WINDOW.as_secs() / 60;
    format!(
        "is flapping: it {what} {FLAP_FALLS} times within {minutes} minutes; \
         nothing more is said until it is calm for {} s",
        CALM.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_fall_within_five_minutes_is_flapping() {
        let mut damper = Damper::default();
        assert_eq!(damper.change(seconds(0), true), Damped::Told);
        assert_eq!(damper.change(seconds(1), false), Damped::Told);
        assert_eq!(damper.change(seconds(2), true), Damped::Told);
        assert_eq!(damper.change(seconds(299), true), Damped::Flapping);
        assert_eq!(damper.change(seconds(300), false), Damped::Muted);
        assert_eq!(damper.deadline(), Some(seconds(360)));
        assert!(!damper.has_calmed(seconds(359)));
        assert!(damper.has_calmed(seconds(360)) && !damper.has_calmed(seconds(361)));
    }

    #[test]
    fn slow_falls_are_told() {
        let mut damper = Damper::default();
        for fall in 0..100 {
            assert_eq!(damper.change(seconds(fall * 150), true), Damped::Told);
        }
    }

    #[test]
    fn what_flaps_again_right_after_is_flapping_at_once() {
        let mut damper = Damper::default();
        for second in 0..3 {
            damper.change(seconds(second), true);
        }
        assert!(damper.has_calmed(seconds(62)));
        assert_eq!(damper.change(seconds(63), true), Damped::Flapping);
    }
}
