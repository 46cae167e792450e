//! Whether a server has a successor.

use nodes_plan::desired::*;
use nodes_plan::pulse::Pulse;
use nodes_plan::superseded::{Standing, standing};
use std::collections::BTreeMap;

const PARIS: NodeId = 1;
const LONDON: NodeId = 2;
const OSLO: NodeId = 3;

fn registry(standbys: &[(NodeId, NodeId)]) -> Registry {
    let node = |id| (id, Node { id, name: format!("node {id}"), ..Node::default() });
    let links = (1..).zip(standbys).map(|(id, (from, to))| Link {
        id,
        name: format!("link {id}"),
        from: *from,
        to: *to,
        state: LinkState::Active,
        spec: Spec::Standby(StandbySpec::new(true)),
        keep_data: true,
    });
    let nodes = [PARIS, LONDON, OSLO].map(node).into();
    Registry { nodes, links: links.collect(), ..Registry::default() }
}

fn pulse(timeline: i64, in_recovery: bool) -> Pulse {
    Pulse { system_identifier: "7".to_owned(), timeline, in_recovery, ..Pulse::default() }
}

/// paris, with the standby london, which oslo follows.
fn judge(pulses: &[(NodeId, Pulse)]) -> Standing {
    judge_at(false, pulses)
}

fn judge_at(starting: bool, pulses: &[(NodeId, Pulse)]) -> Standing {
    let registry = registry(&[(PARIS, LONDON), (LONDON, OSLO)]);
    let pulses: BTreeMap<_, _> = pulses.iter().cloned().collect();
    standing(&registry, PARIS, starting, |id| pulses.get(&id))
}

#[test]
fn a_server_without_standbys_is_alone() {
    let registry = registry(&[(LONDON, OSLO)]);
    assert_eq!(standing(&registry, PARIS, true, |_| None), Standing::Alone);
}

#[test]
fn it_is_confirmed_once_all_others_are_heard() {
    let (own, standby) = (pulse(1, false), pulse(1, true));
    let heard = [(PARIS, own), (LONDON, standby.clone()), (OSLO, standby)];
    assert_eq!(judge(&heard), Standing::Confirmed);
    assert_eq!(judge(&heard[..2]), Standing::Unconfirmed);
    assert_eq!(judge(&heard[1..]), Standing::Unconfirmed, "it does not know itself");
}

#[test]
fn the_furthest_member_supersedes_it() {
    let heard = [(PARIS, pulse(1, false)), (LONDON, pulse(2, false)), (OSLO, pulse(2, true))];
    let by_london = Standing::Superseded { by: LONDON, timeline: 2 };
    assert_eq!(judge(&heard), by_london);
    assert_eq!(judge(&heard[..2]), by_london, "one that is not heard changes nothing");
    let heard = [(PARIS, pulse(1, false)), (LONDON, pulse(2, false)), (OSLO, pulse(3, false))];
    assert_eq!(judge(&heard), Standing::Superseded { by: OSLO, timeline: 3 });
}

#[test]
fn a_standby_of_its_successor_is_enough() {
    let heard = [(PARIS, pulse(1, false)), (OSLO, pulse(2, true))];
    assert_eq!(judge(&heard), Standing::Superseded { by: OSLO, timeline: 2 });
}

#[test]
fn another_server_in_the_place_of_a_member_says_nothing() {
    let other = Pulse { system_identifier: "8".to_owned(), ..pulse(5, false) };
    let heard = [(PARIS, pulse(1, false)), (LONDON, other), (OSLO, pulse(1, true))];
    assert_eq!(judge(&heard), Standing::Unconfirmed);
}

/// One whose promotion had no time to begin a timeline of its own.
#[test]
fn who_starts_leaves_the_place_to_who_writes() {
    let heard = [(PARIS, pulse(1, false)), (LONDON, pulse(1, false)), (OSLO, pulse(1, true))];
    assert_eq!(judge_at(true, &heard), Standing::Superseded { by: LONDON, timeline: 1 });
    assert_eq!(judge(&heard), Standing::Confirmed, "who was there first goes on");
    let behind = [(PARIS, pulse(2, false)), (LONDON, pulse(1, false)), (OSLO, pulse(2, true))];
    assert_eq!(judge_at(true, &behind), Standing::Confirmed);
}

#[test]
fn those_that_are_behind_do_not_matter() {
    let heard = [(PARIS, pulse(3, false)), (LONDON, pulse(2, false)), (OSLO, pulse(3, true))];
    assert_eq!(judge(&heard), Standing::Confirmed);
}

#[test]
fn a_standby_that_was_promoted_a_moment_ago_does_not_know_its_timeline() {
    let heard = [(PARIS, pulse(1, true)), (LONDON, pulse(2, true)), (OSLO, pulse(2, true))];
    assert_eq!(judge(&heard), Standing::Unconfirmed);
}
