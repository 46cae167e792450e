//! What state a node is in, from its answers, its failures and its silence: numbered rules, the
//! first that holds wins. All times count from an arbitrary start and never go back.

mod failure;

pub use failure::{Failure, FailureKind, NO_SESSIONS};

use crate::transition::{Damped, Damper, Severity, Transition, flapping};
use crate::units::time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Nothing is known yet.
    Unknown,
    Up,
    /// It was up and a heartbeat was lost: too early to say.
    Suspect,
    Down,
    /// A server is there and does not let us in.
    Refused,
    /// Another server answers at the node's address.
    WrongIdentity,
}

impl NodeState {
    pub const ALL: [NodeState; 6] = [
        NodeState::Unknown,
        NodeState::Up,
        NodeState::Suspect,
        NodeState::Down,
        NodeState::Refused,
        NodeState::WrongIdentity,
    ];

    pub fn label(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Up => "up",
            NodeState::Suspect => "suspect",
            NodeState::Down => "down",
            NodeState::Refused => "refused",
            NodeState::WrongIdentity => "wrong_identity",
        }
    }

    /// Whether the node's last heartbeat can be judged by.
    pub fn answers(self) -> bool {
        match self {
            NodeState::Up | NodeState::Suspect => true,
            NodeState::Unknown
            | NodeState::Down
            | NodeState::Refused
            | NodeState::WrongIdentity => false,
        }
    }

    /// Whether a change to this state is for the worse.
    fn is_fall(self) -> bool {
        match self {
            NodeState::Down | NodeState::Refused | NodeState::WrongIdentity => true,
            NodeState::Unknown | NodeState::Up | NodeState::Suspect => false,
        }
    }

    /// Whether people hear of it: not of what is not certain.
    fn is_told(self) -> bool {
        match self {
            NodeState::Up | NodeState::Down | NodeState::Refused | NodeState::WrongIdentity => true,
            NodeState::Unknown | NodeState::Suspect => false,
        }
    }

    fn severity(self) -> Severity {
        match self {
            NodeState::Unknown | NodeState::Up | NodeState::Suspect => Severity::Info,
            NodeState::Refused => Severity::Warning,
            NodeState::Down | NodeState::WrongIdentity => Severity::Critical,
        }
    }
}

/// How patient the watch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLimits {
    pub heartbeat_interval: Duration,
    pub node_timeout: Duration,
}

impl NodeLimits {
    /// Without an answer for so long, a heartbeat is overdue.
    fn overdue(&self) -> Duration {
        self.heartbeat_interval * 2
    }

    /// Without an answer for so long, a node is down: `node_timeout`, but never before one
    /// heartbeat has had its time to come back.
    pub fn patience(&self) -> Duration {
        let one_lost = self.heartbeat_interval + self.heartbeat_interval.min(self.node_timeout);
        self.node_timeout.max(one_lost)
    }

    fn silence(&self, length: Duration) -> Silence {
        if length >= self.patience() {
            Silence::TimedOut
        } else if length >= self.overdue() {
            Silence::Overdue
        } else {
            Silence::Short
        }
    }

    /// How long a silence is when it becomes so grave.
    fn threshold(&self, silence: Silence) -> Duration {
        match silence {
            Silence::Short => Duration::ZERO,
            Silence::Overdue => self.overdue(),
            Silence::TimedOut => self.patience(),
        }
    }
}

/// How long the node was not heard, against the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Silence {
    Short,
    Overdue,
    TimedOut,
}

/// The last thing heard that left no doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Nothing,
    /// A heartbeat came back, from the server with this system identifier.
    Answer(String),
    NobodyListens,
    Rejected,
}

/// The same, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Expected,
    Other,
    NobodyListens,
    Rejected,
}

/// All that a rule may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Evidence {
    heard: Heard,
    /// The last failure since then, none of which is conclusive.
    doubt: Option<FailureKind>,
    silence: Silence,
}

impl Evidence {
    /// Whether it was asked in vain for too long. A server that let us in, or was never heard,
    /// is asked all the time; one that did not let us in is asked again when it suits us.
    fn is_unheard(&self) -> bool {
        let asked = match self.heard {
            Heard::Nothing | Heard::Expected => true,
            Heard::Other | Heard::NobodyListens | Heard::Rejected => self.doubt.is_some(),
        };
        asked && self.silence == Silence::TimedOut
    }
}

pub(crate) struct NodeRule {
    pub id: &'static str,
    pub when: &'static str,
    holds: fn(&Evidence) -> bool,
    state: NodeState,
}

pub(crate) const RULES: &[NodeRule] = &[
    NodeRule {
        id: "NH01",
        when: "nobody listens, and nobody has answered since",
        holds: |e| e.heard == Heard::NobodyListens,
        state: NodeState::Down,
    },
    NodeRule {
        id: "NH02",
        when: "not heard for node_timeout, because this server lacks resources",
        holds: |e| e.is_unheard() && e.doubt == Some(FailureKind::NoResources),
        state: NodeState::Down,
    },
    NodeRule {
        id: "NH03",
        when: "not heard for node_timeout",
        holds: Evidence::is_unheard,
        state: NodeState::Down,
    },
    NodeRule {
        id: "NH04",
        when: "a server answers and does not let us in",
        holds: |e| e.heard == Heard::Rejected,
        state: NodeState::Refused,
    },
    NodeRule {
        id: "NH05",
        when: "another server than the node's answers",
        holds: |e| e.heard == Heard::Other,
        state: NodeState::WrongIdentity,
    },
    NodeRule {
        id: "NH06",
        when: "not heard yet, and node_timeout is not over",
        holds: |e| e.heard == Heard::Nothing,
        state: NodeState::Unknown,
    },
    NodeRule {
        id: "NH07",
        when: "a heartbeat was lost",
        holds: |e| e.doubt.is_some(),
        state: NodeState::Suspect,
    },
    NodeRule {
        id: "NH08",
        when: "a heartbeat is overdue",
        holds: |e| e.silence != Silence::Short,
        state: NodeState::Suspect,
    },
    NodeRule { id: "NH09", when: "it answers", holds: |_| true, state: NodeState::Up },
];

/// The last rule holds always.
fn first(evidence: &Evidence) -> &'static NodeRule {
    RULES.iter().find(|rule| (rule.holds)(evidence)).unwrap_or(&RULES[RULES.len() - 1])
}

/// One node under watch.
#[derive(Debug, Clone)]
pub struct NodeWatch {
    /// The system identifier that it must have; `None`: not learnt yet.
    expected: Option<String>,
    word: Word,
    /// When the word was heard; before that, when the watch began.
    heard: Duration,
    last_answer: Option<Duration>,
    /// The last failure since the last answer.
    failure: Option<Failure>,
    /// As judged last.
    silence: Silence,
    state: NodeState,
    since: Duration,
    rule: &'static str,
    /// The last state that was not a doubt.
    settled: NodeState,
    /// The last state that people were told.
    told: NodeState,
    damper: Damper,
}

impl NodeWatch {
    pub fn new(now: Duration, expected: Option<String>) -> Self {
        NodeWatch {
            expected,
            word: Word::Nothing,
            heard: now,
            last_answer: None,
            failure: None,
            silence: Silence::Short,
            state: NodeState::Unknown,
            since: now,
            rule: "NH06",
            settled: NodeState::Unknown,
            told: NodeState::Unknown,
            damper: Damper::default(),
        }
    }

    pub fn expect(&mut self, expected: Option<String>) {
        self.expected = expected;
    }

    /// What people were told last, by an earlier watch: it is not told again.
    pub fn resume(&mut self, told: NodeState) {
        (self.told, self.settled) = (told, told);
    }

    /// Begins anew: what was heard came from another address.
    pub fn forget(&mut self, now: Duration) {
        self.word = Word::Nothing;
        self.heard = now;
        self.failure = None;
        self.silence = Silence::Short;
    }

    /// Takes a time in which nobody watched, such as a suspended machine, out of the silence.
    pub fn excuse(&mut self, absence: Duration) {
        self.heard += absence;
    }

    /// A heartbeat came back.
    pub fn answered(&mut self, now: Duration, system_identifier: &str) {
        match &self.word {
            Word::Answer(known) if known == system_identifier => {}
            Word::Answer(_) | Word::Nothing | Word::NobodyListens | Word::Rejected => {
                self.word = Word::Answer(system_identifier.to_owned());
            }
        }
        self.heard = now;
        self.last_answer = Some(now);
        self.failure = None;
        self.silence = Silence::Short;
    }

    /// A connection attempt or a heartbeat failed.
    pub fn failed(&mut self, now: Duration, failure: Failure) {
        let word = match failure.kind {
            FailureKind::NobodyListens => Some(Word::NobodyListens),
            FailureKind::Rejected => Some(Word::Rejected),
            FailureKind::NoAddress
            | FailureKind::Silent
            | FailureKind::Restarting
            | FailureKind::NotReady
            | FailureKind::ShutDown
            | FailureKind::Lost
            | FailureKind::Faulty
            | FailureKind::NoResources => None,
        };
        if let Some(word) = word {
            self.word = word;
            self.heard = now;
            self.silence = Silence::Short;
        }
        self.failure = Some(failure);
    }

    fn evidence(&self, silence: Silence) -> Evidence {
        let heard = match &self.word {
            Word::Nothing => Heard::Nothing,
            Word::Answer(found) => match &self.expected {
                Some(expected) if expected != found => Heard::Other,
                Some(_) | None => Heard::Expected,
            },
            Word::NobodyListens => Heard::NobodyListens,
            Word::Rejected => Heard::Rejected,
        };
        let conclusive = |kind| matches!(kind, FailureKind::NobodyListens | FailureKind::Rejected);
        let kind = self.failure.as_ref().map(|failure| failure.kind);
        Evidence { heard, doubt: kind.filter(|kind| !conclusive(*kind)), silence }
    }

    /// Judges anew; `Some`: a change that people must hear of.
    pub fn judge(&mut self, now: Duration, limits: &NodeLimits) -> Option<Transition<NodeState>> {
        self.silence = limits.silence(now.saturating_sub(self.heard));
        let rule = first(&self.evidence(self.silence));
        self.rule = rule.id;
        let lasted = now.saturating_sub(self.since);
        if rule.state != self.state {
            self.state = rule.state;
            self.since = now;
        }
        if !self.state.is_told() || self.state == self.settled {
            return self.damper.has_calmed(now).then(|| self.stable());
        }
        self.settled = self.state;
        match self.damper.change(now, self.state.is_fall()) {
            Damped::Told => Some(self.change(now, lasted)),
            Damped::Flapping => Some(self.flapping(now)),
            Damped::Muted => None,
        }
    }

    fn change(&mut self, now: Duration, lasted: Duration) -> Transition<NodeState> {
        let message = if self.state != NodeState::Up {
            self.verdict(now)
        } else if self.told == NodeState::Unknown {
            "is up".to_owned()
        } else {
            format!("is up again after {}", time(lasted))
        };
        self.tell(self.state.severity(), self.state.label(), message)
    }

    fn flapping(&mut self, now: Duration) -> Transition<NodeState> {
        let message = format!("{}; now it {}", flapping("went down"), self.verdict(now));
        self.tell(Severity::Warning, "flapping", message)
    }

    fn stable(&mut self) -> Transition<NodeState> {
        let message = format!("is stable again: {}", self.state.label());
        self.tell(self.state.severity(), "stable", message)
    }

    fn tell(
        &mut self,
        severity: Severity,
        kind: &'static str,
        message: String,
    ) -> Transition<NodeState> {
        let (from, to) = (self.told, self.state);
        self.told = to;
        Transition { from, to, rule: self.rule, severity, kind, message, hint: self.hint() }
    }

    /// The state with its reason: goes on after `node "paris" `.
    fn verdict(&self, now: Duration) -> String {
        let state = match self.state {
            NodeState::WrongIdentity => "has the wrong identity".to_owned(),
            NodeState::Unknown
            | NodeState::Up
            | NodeState::Suspect
            | NodeState::Down
            | NodeState::Refused => format!("is {}", self.state.label()),
        };
        match self.reason(now) {
            Some(reason) => format!("{state}: {reason}"),
            None => state,
        }
    }

    /// Why it is in its state; `None`: because it answers.
    pub fn reason(&self, now: Duration) -> Option<String> {
        let said = self.failure.as_ref().map(|failure| failure.message.as_str());
        let unheard = time(now.saturating_sub(self.heard));
        match self.state {
            NodeState::Up => None,
            NodeState::Unknown => Some(said.unwrap_or("not heard yet").to_owned()),
            NodeState::WrongIdentity => self.other_identity(),
            NodeState::Suspect | NodeState::Refused => Some(match said {
                Some(said) => said.to_owned(),
                None => format!("no answer for {unheard}"),
            }),
            NodeState::Down => Some(match (self.rule, said) {
                ("NH02", Some(said)) => format!(
                    "no answer for {unheard} because this server, not that one, lacks resources: \
                     {said}"
                ),
                ("NH01", Some(said)) => said.to_owned(),
                (_, Some(said)) => format!("no answer for {unheard}: {said}"),
                (_, None) => format!("no answer for {unheard}"),
            }),
        }
    }

    fn other_identity(&self) -> Option<String> {
        match (&self.word, &self.expected) {
            (Word::Answer(found), Some(expected)) => Some(format!(
                "another server answers: its system identifier is {found}, not {expected}"
            )),
            (Word::Answer(_) | Word::Nothing | Word::NobodyListens | Word::Rejected, _) => None,
        }
    }

    /// When time alone may change the state, or end flapping.
    pub fn deadline(&self, limits: &NodeLimits) -> Option<Duration> {
        let changes = |silence: &Silence| {
            *silence > self.silence
                && first(&self.evidence(*silence)).state
                    != first(&self.evidence(self.silence)).state
        };
        let silence = [Silence::Overdue, Silence::TimedOut].into_iter().find(changes);
        let by_silence = silence.map(|silence| self.heard + limits.threshold(silence));
        by_silence.into_iter().chain(self.damper.deadline()).min()
    }

    pub fn state(&self) -> NodeState {
        self.state
    }

    pub fn since(&self) -> Duration {
        self.since
    }

    pub fn rule(&self) -> &'static str {
        self.rule
    }

    pub fn is_flapping(&self) -> bool {
        self.damper.is_flapping()
    }

    pub fn last_answer(&self) -> Option<Duration> {
        self.last_answer
    }

    /// The last failure since the last answer.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// What to do about a state that is not well.
    pub fn hint(&self) -> Option<String> {
        let of_failure = self.failure.as_ref().map(Failure::hint);
        let hint = match self.state {
            NodeState::Up => None,
            NodeState::WrongIdentity => Some(
                "Correct its address, or say with nodes.alter_node() that the server was replaced.",
            ),
            NodeState::Unknown => of_failure,
            NodeState::Suspect | NodeState::Down | NodeState::Refused => {
                of_failure.or(Some(Failure::new(FailureKind::Silent, "").hint()))
            }
        };
        hint.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: [Heard; 5] =
        [Heard::Nothing, Heard::Expected, Heard::Other, Heard::NobodyListens, Heard::Rejected];
    const SILENCES: [Silence; 3] = [Silence::Short, Silence::Overdue, Silence::TimedOut];

    fn all_evidence() -> Vec<Evidence> {
        let doubts = || FailureKind::ALL.into_iter().map(Some).chain([None]);
        let mut all = Vec::new();
        for heard in HEARD {
            for silence in SILENCES {
                all.extend(doubts().map(|doubt| Evidence { heard, doubt, silence }));
            }
        }
        all
    }

    /// The table once more, in other words: what must be true of every combination.
    fn is_right(e: &Evidence, state: NodeState) -> bool {
        let unheard = e.is_unheard();
        match state {
            NodeState::Unknown => e.heard == Heard::Nothing && !unheard,
            NodeState::Up => {
                e.heard == Heard::Expected && e.doubt.is_none() && e.silence == Silence::Short
            }
            NodeState::Suspect => {
                e.heard == Heard::Expected
                    && e.silence != Silence::TimedOut
                    && (e.doubt.is_some() || e.silence == Silence::Overdue)
            }
            NodeState::Down => e.heard == Heard::NobodyListens || unheard,
            NodeState::Refused => e.heard == Heard::Rejected && !unheard,
            NodeState::WrongIdentity => e.heard == Heard::Other && !unheard,
        }
    }

    #[test]
    fn every_combination_of_evidence_has_one_rule_and_the_right_state() {
        for evidence in all_evidence() {
            let state = first(&evidence).state;
            assert!(is_right(&evidence, state), "{evidence:?} is {state:?}");
            let right =
                NodeState::ALL.into_iter().filter(|state| is_right(&evidence, *state)).count();
            assert_eq!(right, 1, "{evidence:?}");
        }
    }

    #[test]
    fn every_rule_is_the_first_for_some_evidence() {
        for rule in RULES {
            let wins = all_evidence().iter().any(|evidence| first(evidence).id == rule.id);
            assert!(wins, "{} never wins", rule.id);
        }
    }
}
