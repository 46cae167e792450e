//! The health of nodes: a case for every rule, every short history, and many long random ones.
//!
//! `SEEDS=100000` runs more random histories, `SEED=17` one. The failing seed is printed.

mod common;

use common::{for_every_seed, tells_little_and_all};
use nodes_plan::node_health::*;
use nodes_plan::rules;
use nodes_plan::transition::{Severity, Transition};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::time::Duration;

const LIMITS: NodeLimits =
    NodeLimits { heartbeat_interval: Duration::from_secs(1), node_timeout: Duration::from_secs(5) };

#[derive(Debug, Clone, Copy, PartialEq)]
enum Happening {
    /// The server that is expected, or another one, answers.
    Answer {
        right: bool,
    },
    Failure(FailureKind),
    Wait(Duration),
    Forget,
}

const fn wait(milliseconds: u64) -> Happening {
    Happening::Wait(Duration::from_millis(milliseconds))
}

const RIGHT: Happening = Happening::Answer { right: true };
const OTHER: Happening = Happening::Answer { right: false };

fn every_happening() -> Vec<Happening> {
    let waits = [wait(900), wait(2_000), wait(5_000)];
    let failures = FailureKind::ALL.into_iter().map(Happening::Failure);
    failures.chain([RIGHT, OTHER, Happening::Forget]).chain(waits).collect()
}

/// A watch with what happened to it, in the words of the promises that it makes.
#[derive(Clone)]
struct Story {
    now: Duration,
    watch: NodeWatch,
    told: Vec<(Duration, Transition<NodeState>)>,
    /// When it was heard last: the right server, or a refusal.
    heard: Duration,
    /// Whether the last that happened on the wire was an answer of the right server.
    answers: bool,
    nobody_listened: bool,
}

impl Story {
    fn new() -> Self {
        let now = Duration::from_secs(1_000);
        let mut watch = NodeWatch::new(now, Some("71".into()));
        assert_eq!(watch.judge(now, &LIMITS), None);
        let (told, answers, nobody_listened) = (vec![], false, false);
        Story { now, watch, told, heard: now, answers, nobody_listened }
    }

    fn of(happenings: &[Happening]) -> Self {
        let mut story = Story::new();
        happenings.iter().for_each(|happening| story.tell(*happening));
        story
    }

    fn tell(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Answer { right } => {
                self.watch.answered(now, if right { "71" } else { "72" });
                (self.answers, self.nobody_listened, self.heard) = (right, false, now);
            }
            Happening::Failure(kind) => {
                self.watch.failed(now, Failure::new(kind, "no luck"));
                self.answers = false;
                let rejected = kind == FailureKind::Rejected;
                self.nobody_listened |= kind == FailureKind::NobodyListens;
                self.nobody_listened &= !rejected;
                self.heard = if rejected { now } else { self.heard };
            }
            Happening::Wait(length) => self.now += length,
            Happening::Forget => {
                self.watch.forget(now);
                (self.answers, self.nobody_listened, self.heard) = (false, false, now);
            }
        }
        let transition = self.watch.judge(self.now, &LIMITS);
        self.told.extend(transition.map(|transition| (self.now, transition)));
        self.keeps_its_promises();
    }

    fn keeps_its_promises(&self) {
        let unheard = self.now - self.heard;
        match self.watch.state() {
            NodeState::Up => assert!(self.answers && unheard < LIMITS.node_timeout, "not up"),
            NodeState::Down => {
                assert!(self.nobody_listened || unheard >= LIMITS.node_timeout, "not down");
            }
            NodeState::Unknown
            | NodeState::Suspect
            | NodeState::Refused
            | NodeState::WrongIdentity => {}
        }
        let well = self.watch.state() == NodeState::Up;
        assert!(well || self.watch.reason(self.now).is_some(), "no reason: {:?}", self.watch);
        self.deadline_is_exact();
    }

    /// Until the deadline time changes nothing; then it does.
    fn deadline_is_exact(&self) {
        let later = |now: Duration| {
            let mut watch = self.watch.clone();
            let transition = watch.judge(now, &LIMITS);
            (watch.state() != self.watch.state(), transition.is_some())
        };
        let Some(deadline) = self.watch.deadline(&LIMITS) else {
            let changes = later(self.now + Duration::from_secs(100_000));
            assert_eq!(changes, (false, false), "no deadline: {:?}", self.watch);
            return;
        };
        assert!(deadline > self.now, "the deadline is over: {:?}", self.watch);
        let before = later(deadline - Duration::from_nanos(1));
        assert_eq!(before, (false, false), "too late: {:?}", self.watch);
        assert_ne!(later(deadline), (false, false), "too early: {:?}", self.watch);
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.told.iter().map(|(_, transition)| transition.kind).collect()
    }

    fn messages(&self) -> Vec<&str> {
        self.told.iter().map(|(_, transition)| transition.message.as_str()).collect()
    }
}

fn fail(kind: FailureKind) -> Happening {
    Happening::Failure(kind)
}

/// A rule's number, a history after which it decides, the state, and what people were told.
fn cases() -> Vec<(&'static str, Vec<Happening>, NodeState, Vec<&'static str>)> {
    use FailureKind::*;
    vec![
        ("NH01", vec![RIGHT, fail(NobodyListens)], NodeState::Down, vec!["up", "down"]),
        (
            "NH01",
            vec![RIGHT, fail(Lost), fail(NobodyListens), fail(NotReady)],
            NodeState::Down,
            vec!["up", "down"],
        ),
        ("NH02", vec![RIGHT, fail(NoResources), wait(5_000)], NodeState::Down, vec!["up", "down"]),
        ("NH03", vec![RIGHT, wait(2_000), wait(3_000)], NodeState::Down, vec!["up", "down"]),
        ("NH03", vec![wait(5_000)], NodeState::Down, vec!["down"]),
        (
            "NH03",
            vec![fail(Rejected), wait(9_000), fail(Silent)],
            NodeState::Down,
            vec!["refused", "down"],
        ),
        ("NH04", vec![RIGHT, fail(Rejected)], NodeState::Refused, vec!["up", "refused"]),
        ("NH04", vec![fail(Rejected), wait(900_000)], NodeState::Refused, vec!["refused"]),
        ("NH05", vec![RIGHT, OTHER], NodeState::WrongIdentity, vec!["up", "wrong_identity"]),
        ("NH06", vec![], NodeState::Unknown, vec![]),
        ("NH06", vec![fail(Silent), wait(4_999)], NodeState::Unknown, vec![]),
        ("NH07", vec![RIGHT, fail(Silent)], NodeState::Suspect, vec!["up"]),
        ("NH07", vec![RIGHT, fail(ShutDown)], NodeState::Suspect, vec!["up"]),
        ("NH07", vec![RIGHT, fail(ShutDown), fail(Restarting)], NodeState::Suspect, vec!["up"]),
        ("NH07", vec![RIGHT, fail(NoResources), wait(4_999)], NodeState::Suspect, vec!["up"]),
        ("NH08", vec![RIGHT, wait(2_000)], NodeState::Suspect, vec!["up"]),
        ("NH09", vec![RIGHT, wait(1_999)], NodeState::Up, vec!["up"]),
        ("NH09", vec![RIGHT, fail(Silent), RIGHT], NodeState::Up, vec!["up"]),
    ]
}

#[test]
fn each_rule_decides_where_it_should() {
    for (rule, happenings, state, kinds) in cases() {
        let story = Story::of(&happenings);
        assert_eq!((story.watch.rule(), story.watch.state()), (rule, state), "{happenings:?}");
        assert_eq!(story.kinds(), kinds, "{happenings:?}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let with_case: BTreeSet<&str> = cases().iter().map(|(rule, ..)| *rule).collect();
    for rule in rules().iter().filter(|rule| rule.kind == "node") {
        assert!(with_case.contains(rule.id), "no case for {} ({})", rule.id, rule.when);
    }
}

#[test]
fn events_say_what_happened_and_what_to_do() {
    let rejected = Failure {
        sqlstate: Some("28P01".into()),
        ..Failure::new(FailureKind::of_connect("28P01"), "password authentication failed")
    };
    let mut story = Story::of(&[RIGHT]);
    story.watch.failed(story.now, rejected);
    let refused = story.watch.judge(story.now, &LIMITS).expect("refused");
    assert_eq!(refused.message, "is refused: password authentication failed");
    assert_eq!(
        refused.hint.as_deref(),
        Some("Set the right password with nodes.set_password(), then CALL nodes.apply().")
    );
    assert_eq!((refused.from, refused.severity), (NodeState::Up, Severity::Warning));
    let nobody = fail(FailureKind::NobodyListens);
    let story = Story::of(&[RIGHT, nobody, wait(12_000), RIGHT, OTHER]);
    assert_eq!(
        story.messages(),
        [
            "is up",
            "is down: no luck",
            "is up again after 12 s",
            "has the wrong identity: another server answers: its system identifier is 72, not 71",
        ]
    );
}

/// It is not the node's fault that we have no descriptors, and the event says so.
#[test]
fn our_own_want_of_resources_is_named() {
    let story = Story::of(&[RIGHT, fail(FailureKind::NoResources), wait(5_000)]);
    let (_, down) = story.told.last().expect("down");
    assert!(down.message.contains("because this server, not that one,"), "{}", down.message);
    assert!(down.hint.as_ref().is_some_and(|hint| hint.contains("max_files_per_process")));
}

#[test]
fn a_hundred_flips_are_a_handful_of_events() {
    let mut story = Story::new();
    for _ in 0..100 {
        for happening in [RIGHT, wait(1_000), fail(FailureKind::NobodyListens), wait(1_000)] {
            story.tell(happening);
        }
    }
    story.tell(RIGHT);
    for _ in 0..70 {
        for happening in [wait(1_000), RIGHT] {
            story.tell(happening);
        }
    }
    assert_eq!(story.kinds(), ["up", "down", "up", "down", "up", "flapping", "stable"]);
    let (_, stable) = story.told.last().expect("stable");
    assert_eq!((stable.to, stable.message.as_str()), (NodeState::Up, "is stable again: up"));
}

#[test]
fn doubts_are_no_events() {
    let mut story = Story::of(&[RIGHT]);
    for _ in 0..1_000 {
        for happening in [fail(FailureKind::Silent), wait(1_000), RIGHT] {
            story.tell(happening);
        }
    }
    assert_eq!(story.kinds(), ["up"]);
}

/// A slow heartbeat is not mistaken for silence.
#[test]
fn patience_is_never_shorter_than_two_heartbeats() {
    let patience = |interval, timeout| {
        let (heartbeat_interval, node_timeout) =
            (Duration::from_secs(interval), Duration::from_secs(timeout));
        NodeLimits { heartbeat_interval, node_timeout }.patience().as_secs()
    };
    assert_eq!(patience(1, 5), 5);
    assert_eq!(patience(4, 5), 8);
    assert_eq!(patience(3_600, 5), 3_605);
}

#[test]
fn what_nobody_watched_is_no_silence() {
    let mut story = Story::of(&[RIGHT]);
    let absence = Duration::from_secs(60);
    story.watch.excuse(absence);
    story.now += absence;
    assert_eq!(story.watch.judge(story.now, &LIMITS), None);
    assert_eq!(story.watch.state(), NodeState::Up);
}

/// The identity becomes known, or is meant to change, while the node answers.
#[test]
fn what_is_expected_can_change() {
    let mut story = Story::of(&[RIGHT]);
    for (expected, state) in
        [(Some("72"), NodeState::WrongIdentity), (None, NodeState::Up), (Some("71"), NodeState::Up)]
    {
        story.watch.expect(expected.map(str::to_owned));
        story.watch.judge(story.now, &LIMITS);
        assert_eq!(story.watch.state(), state);
    }
}

/// Every history of up to four happenings keeps every promise.
#[test]
fn every_short_history_keeps_the_promises() {
    fn go_on(story: &Story, depth: usize) {
        for happening in every_happening() {
            let mut next = story.clone();
            next.tell(happening);
            if depth > 1 {
                go_on(&next, depth - 1);
            }
        }
    }
    go_on(&Story::new(), 4);
}

#[test]
fn every_state_is_reached_from_every_state() {
    let histories = |prefix: &[Happening]| -> Vec<Vec<Happening>> {
        let more = |happening| prefix.iter().copied().chain([happening]).collect();
        every_happening().into_iter().map(more).collect()
    };
    let two = |prefix: &[Happening]| -> Vec<Vec<Happening>> {
        let one = histories(prefix);
        let more: Vec<_> = one.iter().flat_map(|history| histories(history)).collect();
        one.into_iter().chain(more).collect()
    };
    for from in NodeState::ALL {
        let start = two(&[]).into_iter().find(|h| Story::of(h).watch.state() == from);
        let start = start.unwrap_or_else(|| panic!("{from:?} is never reached"));
        let reached: BTreeSet<NodeState> =
            two(&start).iter().map(|history| Story::of(history).watch.state()).collect();
        assert_eq!(reached, NodeState::ALL.into_iter().collect(), "from {from:?} by {start:?}");
    }
}

/// What flapping costs at most: two events for every minute in which it calms down.
const MAX_EVENTS_AN_HOUR: usize = 125;

fn random_happening(rng: &mut SmallRng) -> Happening {
    match rng.random_range(0..10) {
        0..4 => RIGHT,
        4 => OTHER,
        5..7 => fail(FailureKind::ALL[rng.random_range(0..FailureKind::ALL.len())]),
        7..9 => wait(rng.random_range(1..1_500)),
        _ if rng.random_bool(0.01) => Happening::Forget,
        _ => wait(rng.random_range(1..90_000)),
    }
}

fn random_history(rng: &mut SmallRng) {
    let mut story = Story::new();
    // Some histories calm down now and then, some never do.
    let calm = rng.random_bool(0.5);
    for _ in 0..rng.random_range(1..600) {
        let happening = match random_happening(rng) {
            Happening::Wait(length) if !calm => Happening::Wait(length / 100),
            other => other,
        };
        story.tell(happening);
    }
    tells_little_and_all(&story.told, MAX_EVENTS_AN_HOUR);
}

#[test]
fn random_histories_keep_the_promises() {
    for_every_seed(10_000, random_history);
}
