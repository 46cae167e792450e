//! Whether commits wait for synchronous standbys, and what people hear of it.

use nodes_plan::commits::{BLOCKED, Blocked, Change, CommitWatch, PASSING, blocked, hint};
use nodes_plan::desired::*;
use nodes_plan::node_health::NodeLimits;
use nodes_plan::pulse::{Pulse, Sender, Synchronous};
use nodes_plan::transition::{CALM, FLAP_FALLS, Severity};
use std::time::Duration;

const LIMITS: NodeLimits =
    NodeLimits { heartbeat_interval: Duration::from_secs(1), node_timeout: Duration::from_secs(5) };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A primary whose commits wait for these, of which so many stream.
fn primary(names: &str, streaming: i32) -> Pulse {
    let sender = |pid, state: &str, sync_state: &str| Sender {
        pid,
        state: Some(state.into()),
        sync_state: Some(sync_state.into()),
        ..Sender::default()
    };
    let mut senders: Vec<Sender> =
        (0..streaming).map(|pid| sender(pid, "streaming", "quorum")).collect();
    // Neither counts: nobody waits for the one, the other has yet to catch up.
    senders.extend([sender(98, "streaming", "async"), sender(99, "catchup", "quorum")]);
    let synchronous = Synchronous { names: names.into(), waiting: 0, longest: None };
    Pulse { senders, synchronous: Some(synchronous), ..Pulse::default() }
}

fn with_waiter(mut pulse: Pulse, longest: f64) -> Pulse {
    let synchronous = pulse.synchronous.as_mut().expect("commits wait for somebody");
    (synchronous.waiting, synchronous.longest) = (3, Some(longest));
    pulse
}

#[test]
fn commits_wait_where_too_few_stream_or_nobody_answers() {
    let judge = |pulse: &Pulse| blocked(pulse, seconds(5));
    let few = |streaming, needed| Some(Blocked::TooFew { streaming, needed });
    assert_eq!(judge(&primary("ANY 2 (a, b)", 2)), None);
    assert_eq!(judge(&primary("ANY 2 (a, b)", 1)), few(1, 2));
    assert_eq!(judge(&primary("a, b", 0)), few(0, 1), "whoever has set it");
    assert_eq!(judge(&Pulse::default()), None, "nobody is waited for");
    let standby = Pulse { in_recovery: true, ..primary("a", 0) };
    assert_eq!(judge(&standby), None, "a standby commits nothing");
    assert_eq!(judge(&with_waiter(primary("a", 1), 4.0)), None, "that may be");
    let silent = Blocked::Silent { waiting: 3, longest: seconds(6) };
    assert_eq!(judge(&with_waiter(primary("a", 1), 6.0)), Some(silent));
    let mut unreadable = primary("a", 0);
    unreadable.senders.iter_mut().for_each(|sender| sender.state = None);
    assert_eq!(judge(&unreadable), None, "what the role may not read is not known");
}

/// What is told of one heartbeat a second, with the second.
fn history(pulses: impl IntoIterator<Item = Pulse>) -> Vec<(u64, Change)> {
    let mut watch = CommitWatch::default();
    let judged = pulses.into_iter().zip(0..);
    let told = judged.map(|(pulse, at)| (at, watch.judge(seconds(at), &pulse, &LIMITS)));
    told.filter_map(|(at, change)| Some((at, change?))).collect()
}

fn repeat(pulse: Pulse, times: usize) -> impl Iterator<Item = Pulse> {
    std::iter::repeat_n(pulse, times)
}

#[test]
fn what_lasts_is_told_once_and_so_is_its_end() {
    let (well, ill) = (primary("ANY 1 (a)", 1), primary("ANY 1 (a)", 0));
    let told = history(repeat(well.clone(), 3).chain(repeat(ill, 60)).chain(repeat(well, 60)));
    let kinds: Vec<(u64, &str, Severity)> =
        told.iter().map(|(at, change)| (*at, change.kind, change.severity)).collect();
    assert_eq!(kinds, [(8, BLOCKED, Severity::Critical), (68, PASSING, Severity::Info)]);
    assert_eq!(
        told[0].1.message,
        "wait: 0 of the synchronous standbys stream, 1 must (synchronous_standby_names = ANY 1 (a))"
    );
}

#[test]
fn a_restart_of_a_standby_is_not_told() {
    let (well, ill) = (primary("ANY 1 (a)", 1), primary("ANY 1 (a)", 0));
    let restarts = (0..5).flat_map(|_| repeat(ill.clone(), 4).chain(repeat(well.clone(), 2)));
    assert_eq!(history(restarts), []);
}

#[test]
fn who_has_waited_long_is_believed_when_seen_twice() {
    let (well, waits) = (primary("a", 1), |longest| with_waiter(primary("a", 1), longest));
    let once = history(repeat(well.clone(), 2).chain([waits(9.0)]).chain(repeat(well, 9)));
    assert_eq!(once, [], "a long statement may just have come to its end");
    let told = history((0..10_u32).map(|second| waits(f64::from(second))));
    assert_eq!(told.len(), 1);
    let message = "wait for synchronous standbys: 3 now, the oldest for 6.0 s \
                   (synchronous_standby_names = a)";
    assert_eq!((told[0].0, told[0].1.message.as_str()), (6, message));
}

#[test]
fn what_flaps_is_told_as_one_and_when_it_is_calm() {
    let (well, ill) = (primary("a", 1), primary("a", 0));
    let flaps = (0..20).flat_map(|_| repeat(ill.clone(), 6).chain(repeat(well.clone(), 6)));
    let told = history(flaps.chain(repeat(well.clone(), 2 + CALM.as_secs() as usize)));
    assert_eq!(told.len(), 2 * FLAP_FALLS, "{told:#?}");
    assert!(told[2 * FLAP_FALLS - 2].1.message.starts_with("is flapping: "), "{told:#?}");
    assert_eq!(told[2 * FLAP_FALLS - 1].1.kind, PASSING);
}

#[test]
fn a_later_watch_goes_on() {
    let mut watch = CommitWatch::default();
    watch.resume();
    assert_eq!(watch.judge(seconds(0), &primary("a", 0), &LIMITS), None);
    assert_eq!(watch.judge(seconds(9), &primary("a", 0), &LIMITS), None, "it was told");
    assert_eq!(watch.judge(seconds(10), &primary("a", 1), &LIMITS), None);
    let change = watch.judge(seconds(15), &primary("a", 1), &LIMITS);
    assert_eq!(change.map(|change| change.kind), Some(PASSING));
}

#[test]
fn the_hint_names_standbys_and_the_way_out() {
    let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
    let mut registry = Registry { id, ..Registry::default() };
    let oslo = Node { id: 2, name: "we\"ird".into(), ..Node::default() };
    registry.nodes.insert(2, oslo);
    let (spec, state) = (Spec::Standby(StandbySpec::new(true)), LinkState::Active);
    let (name, keep_data) = ("o'slo".to_owned(), true);
    registry.links.push(Link { id: 1, name, from: 1, to: 2, state, spec, keep_data });
    let ours = hint(&registry, &primary("ANY 1 (\"nodes_3f2504e0_1\")", 0));
    assert!(ours.contains("Look at \"we\"ird\""), "{ours}");
    assert!(ours.contains("nodes.alter_link('o''slo', synchronous => false)"), "{ours}");
    assert!(hint(&registry, &primary("theirs", 0)).starts_with("Start those standbys"));
}
