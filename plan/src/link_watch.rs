//! One link under watch: which changes of its state people hear of. All times count from an
//! arbitrary start and never go back.

use crate::link_health::{LinkHealth, LinkStatus, READER_LIMIT, RULES, Unread};
use crate::transition::{Damped, Damper, Severity, Transition, flapping};
use crate::units::time;
use std::time::Duration;

/// Trouble that may pass by itself is told when it has lasted so long: a reader that lost its
/// connection comes back after `wal_retrieve_retry_interval` (5 s).
const SETTLE: Duration = Duration::from_secs(10);

/// Trouble that is over sooner is none: two nodes that are heard one after the other may seem not to
/// fit for a moment.
const BRIEF: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct LinkWatch {
    state: LinkStatus,
    since: Duration,
    /// Since when nobody reads what is there to be read.
    unread: Option<Duration>,
    was_read: bool,
    /// The last state that was well or trouble.
    settled: Option<LinkStatus>,
    /// When it was last well; before that, when the watch began.
    well: Duration,
    /// Since when it is in trouble.
    trouble: Option<Duration>,
    /// Whether that is counted as a fall; trouble that changes its kind, as what was found first
    /// explains what comes next, is still the same.
    fallen: bool,
    /// Since when trouble lasts that people have not heard of.
    untold: Option<Duration>,
    /// The last state that people were told.
    told: Option<LinkStatus>,
    damper: Damper,
    /// When it was judged last.
    judged: Duration,
}

impl LinkWatch {
    pub fn new(now: Duration) -> Self {
        LinkWatch {
            state: LinkStatus::Initializing,
            since: now,
            unread: None,
            was_read: false,
            judged: now,
            settled: None,
            well: now,
            trouble: None,
            fallen: false,
            untold: None,
            told: None,
            damper: Damper::default(),
        }
    }

    /// What people were told last, by an earlier watch: it is not told again.
    pub fn resume(&mut self, told: LinkStatus) {
        (self.told, self.settled) = (Some(told), Some(told));
        self.was_read = told.is_well();
        self.fallen = told.is_trouble();
    }

    /// For [`crate::link_health::LinkEvidence`].
    pub fn unread(&self, now: Duration) -> Option<Unread> {
        let length = self.unread.map(|since| now.saturating_sub(since));
        match length {
            Some(length) => Some(Unread { length, was_read: self.was_read }),
            // The judgement that finds it unread comes next.
            None if self.was_read => None,
            None => Some(Unread { length: Duration::ZERO, was_read: false }),
        }
    }

    /// Takes note of a judgement; `Some`: a change that people must hear of.
    pub fn judge(&mut self, now: Duration, health: &LinkHealth) -> Option<Transition<LinkStatus>> {
        self.judged = now;
        self.note_reader(now, health);
        if health.state != self.state {
            self.state = health.state;
            self.since = now;
        }
        let transition = self.change(now, health);
        if self.state.is_well() {
            self.well = now;
        }
        transition
    }

    fn note_reader(&mut self, now: Duration, health: &LinkHealth) {
        let reader = health.has_reader;
        // Whoever resumes a link waits for its reader anew.
        let paused = health.state == LinkStatus::Paused;
        self.was_read = !paused && (self.was_read || reader == Some(true));
        let unread = !paused && reader == Some(false);
        self.unread = unread.then(|| self.unread.unwrap_or(now));
    }

    fn change(&mut self, now: Duration, health: &LinkHealth) -> Option<Transition<LinkStatus>> {
        let (well, trouble) = (self.state.is_well(), self.state.is_trouble());
        // What was never made is no loss.
        let unmade = self.settled.is_none() && self.state == LinkStatus::Missing;
        if unmade || !(well || trouble) {
            // One that fails to connect and tries again is in trouble all the time.
            if self.state != LinkStatus::Initializing {
                (self.trouble, self.untold) = (None, None);
            }
            return self.calm(now, health);
        }
        let certain = RULES.iter().any(|rule| rule.id == health.rule && rule.is_certain);
        // A link that is new may be one that is being made: an old primary that returns is
        // registered before it is a standby.
        let certain = certain && self.told.is_some();
        let damped = self.damp(now, certain);
        if damped != Damped::Told {
            return self.muffled(damped, health);
        }
        if self.damper.is_flapping() {
            return self.calm(now, health);
        }
        if self.told == Some(self.state) {
            self.untold = None;
            return None;
        }
        if trouble {
            let since = *self.untold.get_or_insert(now);
            if !certain && now.saturating_sub(since) < SETTLE {
                return None;
            }
            // One that is told in another way each time is a nuisance, too.
            let again = self.told.is_some_and(LinkStatus::is_trouble);
            let damped = if again { self.damper.change(now, true) } else { Damped::Told };
            if damped != Damped::Told {
                return self.muffled(damped, health);
            }
        }
        let message = self.message(now, health);
        Some(self.tell(self.state.severity(), self.state.label(), message, health))
    }

    /// Counts falls and what changes between them. `certain`: trouble that is not brief.
    fn damp(&mut self, now: Duration, certain: bool) -> Damped {
        let changed = self.settled != Some(self.state);
        self.settled = Some(self.state);
        if self.state.is_well() {
            (self.trouble, self.fallen) = (None, false);
        } else {
            let since = *self.trouble.get_or_insert(now);
            if !self.fallen && (certain || now.saturating_sub(since) >= BRIEF) {
                self.fallen = true;
                return self.damper.change(now, true);
            }
        }
        if changed { self.damper.change(now, false) } else { Damped::Told }
    }

    /// What becomes of a change that is not told as it is.
    fn muffled(&mut self, damped: Damped, health: &LinkHealth) -> Option<Transition<LinkStatus>> {
        (damped == Damped::Flapping).then(|| self.flapping(health))
    }

    fn calm(&mut self, now: Duration, health: &LinkHealth) -> Option<Transition<LinkStatus>> {
        self.damper.has_calmed(now).then(|| {
            let message = format!("is stable again: {}", verdict(health));
            self.tell(self.state.severity(), "stable", message, health)
        })
    }

    fn flapping(&mut self, health: &LinkHealth) -> Transition<LinkStatus> {
        let message = format!("{}; now it is {}", flapping("got into trouble"), verdict(health));
        self.tell(Severity::Warning, "flapping", message, health)
    }

    fn message(&self, now: Duration, health: &LinkHealth) -> String {
        let label = self.state.label();
        match self.told {
            Some(_) if self.state.is_well() => {
                format!("is {label} again after {}", time(now.saturating_sub(self.well)))
            }
            Some(_) | None => format!("is {}", verdict(health)),
        }
    }

    fn tell(
        &mut self,
        severity: Severity,
        kind: &'static str,
        message: String,
        health: &LinkHealth,
    ) -> Transition<LinkStatus> {
        let from = self.told.unwrap_or(LinkStatus::Initializing);
        self.told = Some(self.state);
        self.untold = None;
        let (to, rule, hint) = (self.state, health.rule, health.hint.clone());
        Transition { from, to, rule, severity, kind, message, hint }
    }

    /// When time alone may change the state, or make it an event.
    pub fn deadline(&self) -> Option<Duration> {
        let initializing = self.state == LinkStatus::Initializing;
        let reader = self.unread.filter(|_| initializing).map(|since| since + READER_LIMIT);
        let untold = self.untold.map(|since| since + SETTLE);
        let brief = self.trouble.filter(|_| !self.fallen && self.state.is_trouble());
        let fall = brief.map(|since| since + BRIEF);
        let all = reader.into_iter().chain(untold).chain(fall).chain(self.damper.deadline());
        all.filter(|deadline| *deadline > self.judged).min()
    }

    /// Since when it has been in its state.
    pub fn since(&self) -> Duration {
        self.since
    }

    pub fn is_flapping(&self) -> bool {
        self.damper.is_flapping()
    }
}

/// The state with its reason.
fn verdict(health: &LinkHealth) -> String {
    match &health.reason {
        Some(reason) => format!("{}: {reason}", health.state.label()),
        None => health.state.label().to_owned(),
    }
}
