//! Which changes of a link's health become events.

use crate::case::*;
use crate::common::{for_every_seed, tells_little_and_all};
use nodes_plan::link_health::*;
use nodes_plan::link_watch::LinkWatch;
use nodes_plan::node_health::NodeState;
use nodes_plan::transition::{Severity, Transition};
use rand::Rng;
use rand::rngs::SmallRng;
use std::time::Duration;

/// A link under watch and what people were told of it.
#[derive(Clone)]
struct Story {
    now: Duration,
    watch: LinkWatch,
    told: Vec<(Duration, Transition<LinkStatus>)>,
}

impl Story {
    fn new() -> Self {
        let now = Duration::from_secs(50);
        Story { now, watch: LinkWatch::new(now), told: vec![] }
    }

    /// The link is found so, `seconds` after the last look.
    fn after(mut self, seconds: u64, case: &Case) -> Self {
        self.look(Duration::from_secs(seconds), case);
        self
    }

    fn look(&mut self, later: Duration, case: &Case) {
        self.now += later;
        let case = Case { unread: self.watch.unread(self.now), ..case.clone() };
        let transition = self.watch.judge(self.now, &case.health());
        self.told.extend(transition.map(|transition| (self.now, transition)));
        self.deadline_is_exact(&case);
    }

    /// Until the deadline time changes nothing.
    fn deadline_is_exact(&self, case: &Case) {
        let later = |now: Duration| {
            let mut watch = self.watch.clone();
            let health = Case { unread: watch.unread(now), ..case.clone() }.health();
            let before = watch.since();
            let told = watch.judge(now, &health).is_some();
            told || watch.since() != before
        };
        let Some(deadline) = self.watch.deadline() else {
            assert!(!later(self.now + Duration::from_secs(100_000)), "no deadline: {case:#?}");
            return;
        };
        assert!(deadline > self.now, "the deadline is over");
        assert!(!later(deadline - Duration::from_nanos(1)), "too late");
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.told.iter().map(|(_, transition)| transition.kind).collect()
    }

    #[track_caller]
    fn tells(&self, kinds: &[&str]) {
        assert_eq!(self.kinds(), kinds, "{:#?}", self.told);
    }
}

fn missing() -> Case {
    Case::subscription().plan(step(true))
}

fn refusal(message: &str) -> LinkPlan {
    let refused = Told { message: message.into(), hint: "Act.".into(), rule: "SU14".into() };
    LinkPlan { refused: Some(refused), ..LinkPlan::default() }
}

fn unread() -> Case {
    Case::subscription().unread()
}

fn silent() -> Case {
    let mut case = Case::subscription();
    case.to = (NodeState::Down, None, Some("Connection refused"));
    case
}

#[test]
fn a_new_link_tells_only_that_it_streams() {
    let copying = Case::subscription().found(|f| f.ready = 0);
    let story = Story::new().after(0, &missing()).after(90, &missing()).after(1, &unread());
    story
        .after(9, &unread())
        .after(1, &copying)
        .after(60, &copying)
        .after(1, &Case::subscription())
        .tells(&["streaming"]);
}

#[test]
fn trouble_is_told_when_it_lasts() {
    let story = Story::new().after(0, &Case::subscription()).after(1, &unread());
    story.tells(&["streaming"]);
    let deadline = |story: &Story| story.watch.deadline().map(|at| (at - story.now).as_secs());
    assert_eq!(deadline(&story), Some(1), "then it counts");
    let story = story.after(1, &unread());
    assert_eq!(deadline(&story), Some(9), "then it is told");
    story.clone().after(5, &Case::subscription()).tells(&["streaming"]);
    let story = story.after(9, &unread()).after(60, &unread());
    story.tells(&["streaming", "broken"]);
    let (_, broken) = &story.told[1];
    assert_eq!((broken.from, broken.severity), (LinkStatus::Streaming, Severity::Critical));
    assert!(broken.message.starts_with("is broken: nobody reads"), "{}", broken.message);
    let story = story.after(1, &Case::subscription());
    story.tells(&["streaming", "broken", "streaming"]);
    assert_eq!(story.told[2].1.message, "is streaming again after 72 s");
}

#[test]
fn what_does_not_pass_by_itself_is_told_at_once() {
    let lost = Case::subscription().slot(|slot| slot.wal_status = Some("lost".into()));
    let refused = lost.clone().plan(refusal("changes from A to B"));
    // What is missing is known as soon as the planner has looked.
    let new = Story::new();
    let story = new.clone().after(0, &Case::subscription()).after(0, &lost);
    story.tells(&["streaming"]);
    let story = story.after(1, &refused);
    story.tells(&["streaming", "broken"]);
    assert_eq!(story.told[1].1.message, "is broken: changes from A to B");
    new.clone().after(0, &lost).after(10, &lost).tells(&["broken"]);
    // Of one that was never well people need not hear at once, nor of a standby that may be
    // changing places.
    let told = new.clone().after(0, &Case::standby());
    let refused_standby = Case::standby().plan(refusal("a primary of its own"));
    let told = told.after(1, &refused_standby).after(9, &refused_standby);
    told.tells(&["streaming"]);
    told.after(1, &refused_standby).tells(&["streaming", "broken"]);
    let new = new.after(0, &refused).after(9, &refused);
    new.tells(&[]);
    new.after(1, &refused).tells(&["broken"]);
}

#[test]
fn a_dead_node_is_no_event_of_its_links() {
    let story = Story::new().after(0, &Case::subscription()).after(1, &silent());
    let story = story.after(900, &silent()).after(1, &unread()).after(5, &Case::subscription());
    story.tells(&["streaming"]);
    // Nor is one that was told before told again.
    let story = story.after(1, &unread()).after(10, &unread()).after(1, &silent());
    story.after(1, &unread()).after(60, &unread()).tells(&["streaming", "broken"]);
}

/// An apply worker that fails and is started again looks well at every other look.
#[test]
fn a_reader_that_never_stays_is_told() {
    let trying = unread().found(|f| f.running = true);
    let mut story = Story::new().after(0, &Case::subscription());
    for _ in 0..10 {
        story = story.after(4, &unread()).after(1, &trying);
    }
    story.tells(&["streaming", "broken"]);
}

#[test]
fn a_hundred_flips_are_a_handful_of_events() {
    let mut story = Story::new();
    for _ in 0..100 {
        story = story.after(1, &Case::subscription()).after(1, &unread()).after(1, &unread());
    }
    story.tells(&["streaming", "flapping"]);
    let mut story = story.after(1, &Case::subscription());
    for _ in 0..70 {
        story = story.after(1, &Case::subscription());
    }
    story.tells(&["streaming", "flapping", "stable"]);
    assert_eq!(story.told[2].1.message, "is stable again: streaming");
}

/// Where one node is heard and the other not yet, they do not fit for a moment.
#[test]
fn what_is_brief_is_no_trouble() {
    let mut story = Story::new().after(0, &Case::subscription());
    for _ in 0..100 {
        story.look(Duration::from_millis(100), &unread());
        story.look(Duration::from_millis(900), &Case::subscription());
    }
    story.tells(&["streaming"]);
}

/// A subscription is disabled, its slot is dropped, and the planner says what that means: within
/// a second, three states.
#[test]
fn trouble_that_unfolds_is_told_once() {
    let disabled = Case::subscription().found(|f| f.enabled = false);
    let lost = disabled.clone().slot(|slot| slot.wal_status = Some("lost".into()));
    let refused = lost.clone().plan(refusal("changes from A to B"));
    let story = Story::new().after(0, &Case::subscription()).after(1, &disabled);
    let story = story.after(0, &missing()).after(0, &lost).after(0, &refused);
    story.tells(&["streaming", "broken"]);
    assert_eq!(story.told[1].1.message, "is broken: changes from A to B");
    // In three ways by turns it is flapping all the same.
    let mut story = story;
    for _ in 0..10 {
        story = story.after(10, &disabled).after(11, &disabled).after(1, &refused);
    }
    story.tells(&["streaming", "broken", "drifted", "flapping"]);
}

fn random_history(rng: &mut SmallRng) {
    let cases = cases();
    let mut story = Story::new();
    let slow = rng.random_bool(0.5);
    for _ in 0..rng.random_range(1..300) {
        let later = rng.random_range(1..if slow { 60_000 } else { 3_000 });
        // What is well comes back often.
        let case = if rng.random_bool(0.4) {
            Case::subscription()
        } else {
            cases[rng.random_range(0..cases.len())].1.clone()
        };
        story.look(Duration::from_millis(later), &case);
    }
    tells_little_and_all(&story.told, 125);
}

#[test]
fn random_histories_make_few_events() {
    for_every_seed(2_000, random_history);
}
