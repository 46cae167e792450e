//! When a primary may hand over, and how far an interrupted call has come.

use nodes_plan::desired::*;
use nodes_plan::failover::Reason;
use nodes_plan::promotion::{Answer, Group, Member, group_of};
use nodes_plan::rules;
use nodes_plan::switchover::{
    Evidence, Sender, Stage, Traffic, Transaction, judge, link_to, turned,
};
use std::collections::{BTreeMap, BTreeSet};

const PARIS: NodeId = 1;
const OSLO: NodeId = 2;
const ROME: NodeId = 3;

/// Paris with oslo and rome.
fn registry() -> Registry {
    let link = |id, to| Link {
        id,
        name: format!("link {id}"),
        from: PARIS,
        to,
        state: LinkState::Active,
        spec: Spec::Standby(StandbySpec::new(true)),
        keep_data: true,
    };
    let names = [(PARIS, "paris"), (OSLO, "oslo"), (ROME, "rome")];
    let node = |(id, name): (NodeId, &str)| (id, Node { id, name: name.into(), ..Node::default() });
    Registry {
        nodes: names.map(node).into(),
        links: vec![link(1, OSLO), link(2, ROME)],
        ..Registry::default()
    }
}

/// All that is judged; as it should be.
struct Case {
    answers: BTreeMap<NodeId, Answer>,
    obstacles: Vec<Reason>,
    cut_off: BTreeMap<NodeId, String>,
    traffic: Traffic,
    no_restart: Option<&'static str>,
}

impl Default for Case {
    fn default() -> Case {
        let member = |in_recovery| Member { in_recovery, timeline: 1, ..Member::default() };
        Case {
            answers: [(PARIS, false), (OSLO, true), (ROME, true)]
                .map(|(node, in_recovery)| (node, Ok(member(in_recovery))))
                .into(),
            obstacles: vec![],
            cut_off: BTreeMap::new(),
            traffic: Traffic { superuser: true, ..Traffic::default() },
            no_restart: None,
        }
    }
}

impl Case {
    fn with<T>(&self, look: impl FnOnce(&Evidence<'_>) -> T) -> T {
        let registry = registry();
        let group: Group = group_of(&registry, OSLO).expect("it is a standby");
        look(&Evidence {
            registry: &registry,
            group: &group,
            candidate: OSLO,
            answers: &self.answers,
            obstacles: &self.obstacles,
            cut_off: &self.cut_off,
            traffic: &self.traffic,
            no_restart: self.no_restart,
        })
    }

    /// What forbids it, and what is risked.
    fn judge(&self) -> [Vec<String>; 2] {
        let verdict = self.with(judge);
        [verdict.forbidden, verdict.risks].map(|reasons| {
            assert!(reasons.iter().all(|reason| reason.hint.ends_with('.')), "{reasons:?}");
            let line = |reason: Reason| format!("{}: {}", reason.rule, reason.message);
            reasons.into_iter().map(line).collect()
        })
    }

    fn answer(node: NodeId, answer: Answer) -> Case {
        let mut case = Case::default();
        case.answers.insert(node, answer);
        case
    }
}

fn obstacle(rule: &'static str) -> Reason {
    Reason { rule, message: "it lags".into(), hint: "Wait.".into() }
}

fn cases() -> Vec<(Case, &'static str)> {
    let silent = || Err("refused".to_owned());
    let traffic = |change: fn(&mut Traffic)| {
        let mut case = Case::default();
        change(&mut case.traffic);
        case
    };
    let standby = Member { in_recovery: true, ..Member::default() };
    vec![
        (Case::answer(PARIS, silent()), "SO01: primary \"paris\" does not answer: refused"),
        (Case::answer(PARIS, Ok(standby)), "SO01: \"paris\" is in recovery, and so no primary"),
        (
            Case { obstacles: vec![obstacle("FR06"), obstacle("FR24")], ..Case::default() },
            "SO02: it lags (FR06)",
        ),
        (Case::answer(ROME, silent()), "SO03: standby \"rome\" does not answer: refused"),
        (Case::answer(ROME, Ok(Member::default())), "SO04: \"rome\" is a primary already"),
        (
            Case { cut_off: [(ROME, "no route".to_owned())].into(), ..Case::default() },
            "SO05: \"rome\" cannot connect to \"oslo\": no route",
        ),
        (
            traffic(|t| t.superuser = false),
            "SO06: the role with which \"paris\" is reached is not a superuser",
        ),
        (
            Case { no_restart: Some("there is no pg_ctl"), ..Case::default() },
            "SO07: \"paris\" cannot be restarted: there is no pg_ctl",
        ),
        (
            traffic(|t| {
                let open = |seconds| Transaction { pid: 7, role: "ann".into(), seconds };
                t.transactions = vec![open(12.0), open(9.9)];
            }),
            "SO08: process 7 of role \"ann\" on \"paris\" has had a transaction open for 12 s",
        ),
        (
            traffic(|t| t.copies = vec!["rome".into()]),
            "SO09: \"rome\" takes a base backup of \"paris\"",
        ),
        (
            traffic(|t| {
                let sender = |behind| Sender { name: "feed".into(), behind };
                t.senders = vec![sender(64 << 20), sender(65 << 20)];
            }),
            "SO10: \"feed\" is 65 MB behind \"paris\"",
        ),
    ]
}

#[test]
fn every_rule_has_its_case() {
    assert_eq!(Case::default().judge().concat(), [""; 0]);
    // In tests of their own.
    let mut met = BTreeSet::from(["SO11", "SO12"]);
    for (case, expected) in cases() {
        assert_eq!(case.judge(), [vec![expected.to_owned()], vec![]]);
        met.insert(&expected[..4]);
    }
    let known = rules().into_iter().filter(|rule| rule.purpose == "switchover");
    assert_eq!(met, known.map(|rule| rule.id).collect());
}

#[test]
fn slots_may_stay_behind_by_force() {
    let rules = ["FR20", "FR21", "FR22", "FR23"];
    let case = Case { obstacles: rules.map(obstacle).to_vec(), ..Case::default() };
    let risks = rules.map(|rule| format!("SO12: it lags ({rule})"));
    assert_eq!(case.judge(), [vec![], risks.to_vec()]);
}

#[test]
fn a_failover_manager_hands_over_alone() {
    let mut registry = registry();
    registry.links.iter_mut().for_each(|l| l.spec = Spec::Standby(StandbySpec::unmanaged()));
    let rules = Case::default().with(|evidence| {
        let evidence = Evidence { registry: &registry, ..*evidence };
        judge(&evidence).forbidden.into_iter().map(|reason| reason.rule).collect::<Vec<_>>()
    });
    assert_eq!(rules, ["SO11"]);
}

#[test]
fn an_interrupted_call_is_known_by_what_it_has_done() {
    let stage = |old: bool, new: bool, follows: bool| {
        let mut case = Case::default();
        let member = |in_recovery| Ok(Member { in_recovery, ..Member::default() });
        case.answers.insert(PARIS, member(old));
        case.answers.insert(OSLO, member(new));
        case.traffic.follows = follows;
        case.with(|evidence| evidence.stage())
    };
    assert_eq!(stage(false, true, false), Stage::Fresh);
    assert_eq!(stage(true, true, true), Stage::Demoted);
    // Somebody else made it a standby.
    assert_eq!(stage(true, true, false), Stage::Fresh);
    assert_eq!(stage(true, false, true), Stage::Promoted);
    assert_eq!(stage(false, false, false), Stage::Fresh);
}

#[test]
fn the_link_turns_round() {
    let registry = registry();
    let link = link_to(&registry, OSLO).expect("it has one");
    let (after, turned) = turned(&registry, link, PARIS);
    assert_eq!((turned.id, turned.from, turned.to), (1, OSLO, PARIS));
    let ends = after.links.iter().map(|link| (link.id, link.from, link.to));
    assert_eq!(ends.collect::<Vec<_>>(), [(1, OSLO, PARIS), (2, PARIS, ROME)]);
    assert_eq!(link_to(&registry, PARIS), None);
}
