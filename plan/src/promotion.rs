//! Who takes the place of a dead primary: what forbids it, and what the registry says of the links
//! of the group afterwards.

use crate::desired::{Link, LinkId, LinkState, NodeId, Registry, Spec};
use crate::failover::Reason;
use crate::lsn::Lsn;
use crate::rule::RuleId;
use crate::units;
use std::collections::{BTreeMap, BTreeSet};

/// A primary and all that follow it, directly or not, as the registry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub primary: NodeId,
    pub standbys: BTreeSet<NodeId>,
}

pub(crate) fn standby_links(registry: &Registry) -> impl Iterator<Item = &Link> {
    registry
        .links
        .iter()
        .filter(|link| matches!(link.spec, Spec::Standby(_)) && link.state != LinkState::Removing)
}

/// The group in which a node is a standby; `None`: it is none.
pub fn group_of(registry: &Registry, standby: NodeId) -> Option<Group> {
    let above = |node| standby_links(registry).find(|link| link.to == node).map(|link| link.from);
    let mut primary = above(standby)?;
    // The registry refuses cycles; one would end here all the same.
    let mut passed = BTreeSet::from([standby]);
    while let Some(next) = above(primary).filter(|_| passed.insert(primary)) {
        primary = next;
    }
    Some(led_by(registry, primary))
}

/// The group in which a node is the primary; `None`: nobody follows it.
pub fn group_led_by(registry: &Registry, primary: NodeId) -> Option<Group> {
    Some(led_by(registry, primary)).filter(|group| !group.standbys.is_empty())
}

fn led_by(registry: &Registry, primary: NodeId) -> Group {
    let mut standbys = BTreeSet::new();
    let mut next = vec![primary];
    while let Some(node) = next.pop() {
        let below = standby_links(registry).filter(|link| link.from == node).map(|link| link.to);
        next.extend(below.filter(|below| *below != primary && standbys.insert(*below)));
    }
    Group { primary, standbys }
}

/// Whether a standby link leads to a node or from it.
pub fn is_member(registry: &Registry, node: NodeId) -> bool {
    standby_links(registry).any(|link| [link.from, link.to].contains(&node))
}

/// Whether a failover manager says who is the primary of a node's group.
pub fn is_unmanaged(registry: &Registry, node: NodeId) -> bool {
    let mut links = standby_links(registry).filter(|link| [link.from, link.to].contains(&node));
    links.any(Link::is_unmanaged)
}

/// What one member of the group says, or why it is not known.
pub type Answer = Result<Member, String>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    pub in_recovery: bool,
    pub timeline: i64,
    /// How far it has WAL: received or replayed, or written.
    pub lsn: Option<Lsn>,
    /// How it finds the primary there now, where it does: in words.
    pub sees_primary: Option<String>,
    /// Its stream from the primary, in words: one that was cut off seems open for a while.
    pub hears_primary: Option<String>,
    /// Another call that changes what it is, in words: it may be about to become the primary.
    pub claimed_by: Option<String>,
}

pub struct Evidence<'a> {
    pub registry: &'a Registry,
    pub group: &'a Group,
    pub candidate: NodeId,
    /// Of the primary and of every standby.
    pub answers: &'a BTreeMap<NodeId, Answer>,
}

pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    /// Whether a person may decide otherwise.
    forcible: bool,
    then: fn(&Evidence<'_>) -> Vec<Finding>,
}

/// Message and hint.
type Finding = (String, &'static str);

/// All are asked.
pub(crate) const RULES: &[Rule] = &[
    Rule { id: "PR01", when: "the primary answers", forcible: false, then: primary_lives },
    Rule { id: "PR02", when: "a standby reaches the primary", forcible: false, then: primary_seen },
    Rule { id: "PR03", when: "another is a primary already", forcible: false, then: other_primary },
    Rule { id: "PR04", when: "the candidate does not answer", forcible: false, then: silent },
    Rule { id: "PR05", when: "another standby does not answer", forcible: true, then: unheard },
    Rule { id: "PR06", when: "another standby has more WAL", forcible: true, then: behind },
    Rule { id: "PR08", when: "a standby streams from it", forcible: true, then: primary_heard },
    Rule { id: "PR09", when: "another call changes a standby", forcible: true, then: claimed },
    Rule { id: "PR07", when: "a failover manager decides", forcible: false, then: not_ours },
];

/// What stands in the way of a promotion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub forbidden: Vec<Reason>,
    /// What a person may accept by force.
    pub risks: Vec<Reason>,
}

pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    for rule in RULES {
        let place = if rule.forcible { &mut verdict.risks } else { &mut verdict.forbidden };
        place.extend((rule.then)(evidence).into_iter().map(|(message, hint)| Reason {
            rule: rule.id,
            message,
            hint: hint.to_owned(),
        }));
    }
    verdict
}

impl<'a> Evidence<'a> {
    fn name(&self, node: NodeId) -> &'a str {
        self.registry.node_name(node)
    }

    fn member(&self, node: NodeId) -> Option<&'a Member> {
        self.answers.get(&node)?.as_ref().ok()
    }

    fn candidate(&self) -> Option<&'a Member> {
        self.member(self.candidate)
    }

    /// Standbys other than the candidate.
    fn others(&self) -> impl Iterator<Item = NodeId> {
        let demoted = self.is_demoted().then_some(self.group.primary);
        let standbys = self.group.standbys.iter().copied().chain(demoted);
        standbys.filter(|node| *node != self.candidate)
    }

    /// Whether the primary is a standby now: a switchover has ended too early, or a person has made
    /// it one.
    pub fn is_demoted(&self) -> bool {
        self.member(self.group.primary).is_some_and(|old| old.in_recovery)
    }

    /// Whether the promotion itself is done, and what is left is to tell the others.
    pub fn is_done(&self) -> bool {
        let old = self.member(self.group.primary).map_or(0, |primary| primary.timeline);
        self.candidate()
            .is_some_and(|new| !new.in_recovery && (new.timeline > old || self.is_demoted()))
    }

    /// Whether there is a primary beside which the candidate would be a second one.
    fn may_have_primary(&self) -> bool {
        !self.is_done() && !self.is_demoted()
    }
}

const STOP_IT: &str = "Stop that server first: beside a primary that lives there would be two, each \
                       with changes that the other lacks.";

fn primary_lives(on: &Evidence<'_>) -> Vec<Finding> {
    let lives = on.member(on.group.primary).filter(|_| on.may_have_primary());
    let message = |_| (format!("primary \"{}\" answers", on.name(on.group.primary)), STOP_IT);
    lives.map(message).into_iter().collect()
}

fn primary_seen(on: &Evidence<'_>) -> Vec<Finding> {
    noticed(on, STOP_IT, |member| member.sees_primary.as_ref())
}

const CUT_OFF: &str = "Stop that server first. If it is cut off, its standbys notice within \
                       wal_receiver_timeout; force => true does not wait for that, and risks that \
                       both take writes until the old primary can be reached.";

/// Where it can be connected to as well, that counts.
fn primary_heard(on: &Evidence<'_>) -> Vec<Finding> {
    noticed(on, CUT_OFF, |member| {
        member.hears_primary.as_ref().filter(|_| member.sees_primary.is_none())
    })
}

fn noticed(
    on: &Evidence<'_>,
    hint: &'static str,
    how: impl Fn(&Member) -> Option<&String>,
) -> Vec<Finding> {
    if !on.may_have_primary() {
        return vec![];
    }
    let seen = |node: &NodeId| {
        let how = how(on.member(*node)?)?;
        let (node, primary) = (on.name(*node), on.name(on.group.primary));
        Some((format!("\"{node}\" sees primary \"{primary}\": {how}"), hint))
    };
    on.group.standbys.iter().filter_map(seen).collect()
}

fn other_primary(on: &Evidence<'_>) -> Vec<Finding> {
    let primary = |node: &NodeId| on.member(*node).is_some_and(|member| !member.in_recovery);
    let message = |node| {
        let message = format!("\"{}\" is a primary already", on.name(node));
        (message, "Call nodes.promote() for that one: it tells the others.")
    };
    on.others().filter(primary).map(message).collect()
}

fn silent(on: &Evidence<'_>) -> Vec<Finding> {
    let Some(Err(why)) = on.answers.get(&on.candidate) else { return vec![] };
    let hint = "Correct the cause, or promote another standby.";
    vec![(format!("node \"{}\" does not answer: {why}", on.name(on.candidate)), hint)]
}

const CLAIMED: &str = "Wait for its end: nodes.status shows who is the primary then. One whose \
                       caller is gone does not stand in the way with force => true.";

/// The primary that a switchover restarts looks dead for a moment.
fn claimed(on: &Evidence<'_>) -> Vec<Finding> {
    let finding = |node: NodeId| {
        let who = on.member(node)?.claimed_by.as_ref()?;
        Some((format!("another call is changing what \"{}\" is: {who}", on.name(node)), CLAIMED))
    };
    on.others().filter_map(finding).collect()
}

const FORCE: &str = "Promote that one, or accept the loss with force => true.";

fn unheard(on: &Evidence<'_>) -> Vec<Finding> {
    let unheard = |node: NodeId| {
        let why = on.answers.get(&node)?.as_ref().err()?;
        let message = format!(
            "standby \"{}\" does not answer, and may have WAL that \"{}\" lacks: {why}",
            on.name(node),
            on.name(on.candidate)
        );
        Some((message, "Bring it back, or accept the loss with force => true."))
    };
    on.others().filter_map(unheard).collect()
}

fn behind(on: &Evidence<'_>) -> Vec<Finding> {
    let Some(candidate) = on.candidate() else { return vec![] };
    let ahead = |node: NodeId| {
        let other = on.member(node).filter(|other| other.in_recovery && candidate.in_recovery)?;
        let (name, own) = (on.name(node), on.name(on.candidate));
        let message = if other.timeline > candidate.timeline {
            format!(
                "\"{name}\" is on timeline {}, \"{own}\" on timeline {}",
                other.timeline, candidate.timeline
            )
        } else {
            let (theirs, ours) = (other.lsn?, candidate.lsn.unwrap_or_default());
            if other.timeline < candidate.timeline || theirs <= ours {
                return None;
            }
            let lost = units::bytes(theirs.since(ours));
            format!(
                "{lost} of WAL would be lost that \"{name}\" has: it is at {theirs}, \"{own}\" at \
                 {ours}"
            )
        };
        Some((message, FORCE))
    };
    on.others().filter_map(ahead).collect()
}

fn not_ours(on: &Evidence<'_>) -> Vec<Finding> {
    if on.is_done() || !is_unmanaged(on.registry, on.candidate) {
        return vec![];
    }
    let message = format!("somebody else manages the group of \"{}\"", on.name(on.candidate));
    vec![(message, "Have the failover manager promote it; the links follow then.")]
}

/// A link that is no longer as the registry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Move { link: LinkId, from: NodeId, to: NodeId },
    Forget { link: LinkId },
}

/// What becomes of a primary whose place another takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldPrimary {
    /// It has no link until it is back.
    IsGone,
    /// It is a standby of the other, by the link that made the other its own.
    Follows,
}

/// What becomes of the links of a group when `new` has taken the place of `old`: what followed or
/// read the one follows and reads the other.
pub fn relink(registry: &Registry, old: NodeId, new: NodeId, becomes: OldPrimary) -> Vec<Change> {
    let change = |link: &Link| {
        let standby = matches!(link.spec, Spec::Standby(_));
        if standby && link.to == new {
            return Some(match becomes {
                OldPrimary::IsGone => Change::Forget { link: link.id },
                OldPrimary::Follows => Change::Move { link: link.id, from: new, to: old },
            });
        }
        let follow = |node| if node == old { new } else { node };
        let (from, to) = (follow(link.from), if standby { link.to } else { follow(link.to) });
        // Between the two there is nothing left to connect.
        let moves = (from, to) != (link.from, link.to) && from != to;
        moves.then_some(Change::Move { link: link.id, from, to })
    };
    registry.links.iter().filter_map(change).collect()
}
