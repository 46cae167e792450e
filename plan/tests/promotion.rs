//! Who may be promoted, and what becomes of the links then.

use nodes_plan::desired::*;
use nodes_plan::lsn::Lsn;
use nodes_plan::promotion::OldPrimary::{Follows, IsGone};
use nodes_plan::promotion::*;
use nodes_plan::rules;
use std::collections::{BTreeMap, BTreeSet};

const PARIS: NodeId = 1;
const OSLO: NodeId = 2;
const ROME: NodeId = 3;
const LONDON: NodeId = 4;

fn link(id: LinkId, from: NodeId, to: NodeId, spec: Spec) -> Link {
    let state = LinkState::Active;
    Link { id, name: format!("link {id}"), from, to, state, spec, keep_data: true }
}

fn standby(id: LinkId, from: NodeId, to: NodeId) -> Link {
    link(id, from, to, Spec::Standby(StandbySpec::new(true)))
}

fn subscription(id: LinkId, from: NodeId, to: NodeId) -> Link {
    let spec = SubscriptionSpec {
        tables: None,
        copy_data: true,
        replace: false,
        options: BTreeMap::new(),
    };
    link(id, from, to, Spec::Subscription(spec))
}

fn registry(links: Vec<Link>) -> Registry {
    let names = [(PARIS, "paris"), (OSLO, "oslo"), (ROME, "rome"), (LONDON, "london")];
    let node = |(id, name): (NodeId, &str)| (id, Node { id, name: name.into(), ..Node::default() });
    Registry { nodes: names.map(node).into(), links, ..Registry::default() }
}

/// Paris with oslo and rome.
fn pair() -> Registry {
    registry(vec![standby(1, PARIS, OSLO), standby(2, PARIS, ROME)])
}

fn member(lsn: u64) -> Member {
    Member { in_recovery: true, timeline: 1, lsn: Some(Lsn(lsn)), ..Member::default() }
}

/// Paris is dead, oslo and rome have the same.
fn answers() -> BTreeMap<NodeId, Answer> {
    [(PARIS, Err("refused".into())), (OSLO, Ok(member(100))), (ROME, Ok(member(100)))].into()
}

fn with(node: NodeId, change: impl FnOnce(&mut Member)) -> BTreeMap<NodeId, Answer> {
    let mut answers = answers();
    let mut changed = answers[&node].clone().unwrap_or_else(|_| member(100));
    change(&mut changed);
    answers.insert(node, Ok(changed));
    answers
}

fn without(node: NodeId) -> BTreeMap<NodeId, Answer> {
    let mut answers = answers();
    answers.insert(node, Err("refused".into()));
    answers
}

/// `rule: message` lines: what forbids to promote oslo, and what is risked.
fn verdict(answers: &BTreeMap<NodeId, Answer>) -> (Vec<String>, Vec<String>) {
    let registry = pair();
    let group = group_of(&registry, OSLO).expect("it is a standby");
    let verdict = judge(&Evidence { registry: &registry, group: &group, candidate: OSLO, answers });
    for reason in verdict.forbidden.iter().chain(&verdict.risks) {
        assert!(reason.hint.ends_with('.'), "{reason:?}");
    }
    let lines = |reasons: Vec<nodes_plan::failover::Reason>| {
        reasons.into_iter().map(|r| format!("{}: {}", r.rule, r.message)).collect()
    };
    (lines(verdict.forbidden), lines(verdict.risks))
}

fn forbidden() -> Vec<(BTreeMap<NodeId, Answer>, &'static str)> {
    vec![
        (with(PARIS, |m| m.in_recovery = false), "PR01: primary \"paris\" answers"),
        (
            with(ROME, |m| {
                m.sees_primary = Some("it connects".into());
                m.hears_primary = Some("it streams".into());
            }),
            "PR02: \"rome\" sees primary \"paris\": it connects",
        ),
        (
            with(ROME, |m| (m.in_recovery, m.timeline) = (false, 2)),
            "PR03: \"rome\" is a primary already",
        ),
        (without(OSLO), "PR04: node \"oslo\" does not answer: refused"),
    ]
}

fn risks() -> Vec<(BTreeMap<NodeId, Answer>, &'static str)> {
    vec![
        (
            without(ROME),
            "PR05: standby \"rome\" does not answer, and may have WAL that \"oslo\" lacks: refused",
        ),
        (
            with(ROME, |m| m.lsn = Some(Lsn(164))),
            "PR06: 64 bytes of WAL would be lost that \"rome\" has: it is at 0/A4, \"oslo\" at 0/64",
        ),
        (
            with(ROME, |m| m.hears_primary = Some("it streams".into())),
            "PR08: \"rome\" sees primary \"paris\": it streams",
        ),
        (
            with(ROME, |m| m.claimed_by = Some("process 7".into())),
            "PR09: another call is changing what \"rome\" is: process 7",
        ),
        (with(ROME, |m| m.timeline = 2), "PR06: \"rome\" is on timeline 2, \"oslo\" on timeline 1"),
    ]
}

#[test]
fn the_one_with_the_most_wal_may_follow_a_dead_primary() {
    assert_eq!(verdict(&answers()), (vec![], vec![]));
    let behind = with(ROME, |m| m.lsn = Some(Lsn(99)));
    assert_eq!(verdict(&behind), (vec![], vec![]));
    let other_timeline = with(OSLO, |m| (m.timeline, m.lsn) = (2, Some(Lsn(1))));
    assert_eq!(verdict(&other_timeline), (vec![], vec![]));
}

/// Who is the primary is somebody else's word; what has happened can be taken note of.
#[test]
fn a_failover_manager_promotes_alone() {
    let mut registry = pair();
    registry.links.iter_mut().for_each(|l| l.spec = Spec::Standby(StandbySpec::unmanaged()));
    let group = group_of(&registry, OSLO).expect("it is a standby");
    let forbidden = |answers: &BTreeMap<NodeId, Answer>| {
        let evidence = Evidence { registry: &registry, group: &group, candidate: OSLO, answers };
        judge(&evidence).forbidden.into_iter().map(|reason| reason.rule).collect::<Vec<_>>()
    };
    assert_eq!(forbidden(&answers()), ["PR07"]);
    let promoted = with(OSLO, |m| (m.in_recovery, m.timeline) = (false, 2));
    assert_eq!(forbidden(&promoted), [""; 0]);
}

#[test]
fn every_rule_has_its_case() {
    // In a test of its own.
    let mut cases = BTreeSet::from(["PR07"]);
    for (answers, expected) in forbidden() {
        assert_eq!(verdict(&answers), (vec![expected.to_owned()], vec![]));
        cases.insert(&expected[..4]);
    }
    for (answers, expected) in risks() {
        assert_eq!(verdict(&answers), (vec![], vec![expected.to_owned()]));
        cases.insert(&expected[..4]);
    }
    for rule in rules().iter().filter(|rule| rule.purpose == "promotion") {
        assert!(cases.contains(rule.id), "no case for {} ({})", rule.id, rule.when);
    }
}

/// Killed between the promotion and the rest: the next call goes on, even if the old one is back.
#[test]
fn a_promotion_that_is_done_goes_on() {
    let promoted = |m: &mut Member| (m.in_recovery, m.timeline) = (false, 2);
    let mut answers = with(OSLO, promoted);
    assert_eq!(verdict(&answers), (vec![], vec![]));
    answers.insert(PARIS, Ok(Member { in_recovery: false, ..member(500) }));
    assert_eq!(verdict(&answers), (vec![], vec![]));
    answers.insert(ROME, Ok(Member { lsn: Some(Lsn(500)), ..member(0) }));
    assert_eq!(verdict(&answers), (vec![], vec![]));
}

/// A switchover was killed when the primary had become a standby: the one with the most WAL may be
/// the primary.
#[test]
fn a_group_without_a_primary_gets_one() {
    let sees = |m: &mut Member| {
        m.sees_primary = Some("it connects".into());
        m.hears_primary = Some("it streams".into());
    };
    let mut answers = with(ROME, sees);
    answers.insert(PARIS, Ok(member(100)));
    assert_eq!(verdict(&answers), (vec![], vec![]));
    answers.insert(PARIS, Ok(member(200)));
    let (forbidden, risks) = verdict(&answers);
    assert_eq!(forbidden, [""; 0]);
    assert!(
        risks[0].starts_with("PR06: 100 bytes of WAL would be lost that \"paris\" has"),
        "{risks:?}"
    );
    let led = group_led_by(&pair(), PARIS).expect("it leads");
    let evidence = Evidence { registry: &pair(), group: &led, candidate: PARIS, answers: &answers };
    assert_eq!(judge(&evidence), Verdict::default());
    // It follows already: the promotion is done.
    let promoted = |m: &mut Member| (m.in_recovery, m.timeline) = (false, 2);
    let mut answers = with(OSLO, promoted);
    answers.insert(PARIS, Ok(Member { timeline: 2, ..member(300) }));
    assert_eq!(verdict(&answers), (vec![], vec![]));
}

#[test]
fn groups_are_found_from_any_standby() {
    let cascade = registry(vec![standby(1, PARIS, OSLO), standby(2, OSLO, ROME)]);
    let group = Group { primary: PARIS, standbys: [OSLO, ROME].into() };
    assert_eq!(group_of(&cascade, ROME), Some(group.clone()));
    assert_eq!(group_of(&cascade, OSLO), Some(group));
    assert_eq!(group_of(&cascade, PARIS), None);
    assert_eq!(group_led_by(&cascade, PARIS), group_of(&cascade, OSLO));
    assert_eq!(group_led_by(&cascade, ROME), None);
    assert_eq!(group_of(&cascade, LONDON), None);
    let mut going = pair();
    going.links[1].state = LinkState::Removing;
    assert_eq!(group_of(&going, ROME), None);
    let circle = registry(vec![standby(1, PARIS, OSLO), standby(2, OSLO, PARIS)]);
    assert!(group_of(&circle, OSLO).is_some(), "it ends");
}

#[test]
fn all_links_follow() {
    let mut world = pair();
    world.links.extend([
        subscription(3, PARIS, LONDON),
        subscription(4, LONDON, PARIS),
        subscription(5, LONDON, ROME),
    ]);
    let moved = |link, from, to| Change::Move { link, from, to };
    let expected = [
        Change::Forget { link: 1 },
        moved(2, OSLO, ROME),
        moved(3, OSLO, LONDON),
        moved(4, LONDON, OSLO),
    ];
    assert_eq!(relink(&world, PARIS, OSLO, IsGone), expected);
    // What is moved already is not moved again.
    world.links.remove(0);
    for change in relink(&world, PARIS, OSLO, IsGone) {
        let Change::Move { link, from, to } = change else { panic!("{change:?}") };
        let moving = world.links.iter_mut().find(|found| found.id == link).expect("it is there");
        (moving.from, moving.to) = (from, to);
    }
    assert_eq!(relink(&world, PARIS, OSLO, IsGone), []);
}

/// The last of a chain is promoted: those between follow it.
#[test]
fn a_cascade_turns_round() {
    let cascade = registry(vec![standby(1, PARIS, OSLO), standby(2, OSLO, ROME)]);
    let expected = [Change::Move { link: 1, from: ROME, to: OSLO }, Change::Forget { link: 2 }];
    assert_eq!(relink(&cascade, PARIS, ROME, IsGone), expected);
}

/// A link from the one to the other has nothing left to connect.
#[test]
fn a_link_within_the_pair_stays() {
    let inside = registry(vec![subscription(1, PARIS, OSLO), subscription(2, OSLO, PARIS)]);
    assert_eq!(relink(&inside, PARIS, OSLO, IsGone), []);
}

#[test]
fn a_primary_that_hands_over_follows_by_the_same_link() {
    let world = registry(vec![
        standby(1, PARIS, OSLO),
        standby(2, PARIS, ROME),
        subscription(3, PARIS, LONDON),
    ]);
    let moved = |link, from, to| Change::Move { link, from, to };
    let expected = [moved(1, OSLO, PARIS), moved(2, OSLO, ROME), moved(3, OSLO, LONDON)];
    assert_eq!(relink(&world, PARIS, OSLO, Follows), expected);
    // A standby of a standby takes over: who it followed follows it.
    let cascade = registry(vec![standby(1, PARIS, OSLO), standby(2, OSLO, ROME)]);
    let expected = [moved(1, ROME, OSLO), moved(2, ROME, PARIS)];
    assert_eq!(relink(&cascade, PARIS, ROME, Follows), expected);
}
