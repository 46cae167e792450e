//! Whether a primary may hand over to one of its standbys: everything that must be right before
//! anything is touched, and how far an earlier call has come.

use crate::desired::{Link, LinkState, NodeId, Registry, Spec};
use crate::failover::Reason;
use crate::promotion::{Answer, Group, Member, Verdict, is_unmanaged};
use crate::rule::RuleId;
use crate::units;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The standby link that leads to a node.
pub fn link_to(registry: &Registry, standby: NodeId) -> Option<&Link> {
    let leads = |link: &&Link| {
        link.to == standby
            && matches!(link.spec, Spec::Standby(_))
            && link.state != LinkState::Removing
    };
    registry.links.iter().find(leads)
}

/// The registry as it is when the candidate's link has turned round: the old primary follows.
pub fn turned(registry: &Registry, link: &Link, old: NodeId) -> (Registry, Link) {
    let turned = Link { from: link.to, to: old, ..link.clone() };
    let links = registry.links.iter().map(|other| match other.id == link.id {
        true => turned.clone(),
        false => other.clone(),
    });
    (Registry { links: links.collect(), ..registry.clone() }, turned)
}

/// What runs on the primary and would be cut off, or hold the handover up.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Traffic {
    pub superuser: bool,
    /// Whether it was told to follow the candidate: an earlier call was interrupted.
    pub follows: bool,
    /// Transactions, the oldest first.
    pub transactions: Vec<Transaction>,
    /// Who takes base backups.
    pub copies: Vec<String>,
    pub senders: Vec<Sender>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Transaction {
    pub pid: i32,
    pub role: String,
    pub seconds: f64,
}

/// Somebody who receives WAL, and how far he is behind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sender {
    pub name: String,
    pub behind: u64,
}

pub struct Evidence<'a> {
    pub registry: &'a Registry,
    pub group: &'a Group,
    pub candidate: NodeId,
    /// Of the primary and of every standby.
    pub answers: &'a BTreeMap<NodeId, Answer>,
    /// Why the candidate is not ready, by the rules of a failover.
    pub obstacles: &'a [Reason],
    /// Members that cannot connect to the candidate, and why.
    pub cut_off: &'a BTreeMap<NodeId, String>,
    pub traffic: &'a Traffic,
    /// Why the primary cannot be restarted, where it cannot.
    pub no_restart: Option<&'a str>,
}

/// How far an earlier call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done, or nothing that matters.
    Fresh,
    /// The primary was restarted as a standby, and there is no other primary yet.
    Demoted,
    /// The candidate is the primary; the rest is to be told.
    Promoted,
}

pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    /// Whether a person may decide otherwise.
    forcible: bool,
    then: fn(&Evidence<'_>) -> Vec<Finding>,
}

const fn rule(id: RuleId, when: &'static str, then: fn(&Evidence<'_>) -> Vec<Finding>) -> Rule {
    Rule { id, when, forcible: false, then }
}

/// Message and hint.
type Finding = (String, String);

/// All are asked.
pub(crate) const RULES: &[Rule] = &[
    rule("SO01", "the primary is none, or does not answer", no_primary),
    rule("SO02", "the candidate is not ready", not_ready),
    rule("SO03", "another standby does not answer", silent),
    rule("SO04", "another is a primary already", other_primary),
    rule("SO05", "a member cannot connect to the candidate", cut_off),
    rule("SO06", "the role on the primary is not a superuser", no_superuser),
    rule("SO07", "the primary cannot be restarted", no_restart),
    rule("SO08", "a transaction on the primary is open for long", transactions),
    rule("SO09", "a base backup of the primary is being taken", copies),
    rule("SO10", "who receives WAL is far behind", senders),
    rule("SO11", "a failover manager decides", not_ours),
    Rule { forcible: true, ..rule("SO12", "a logical slot would stay behind", slot_left) },
];

/// A transaction that is older would not end by itself within the pause.
const OLD_TRANSACTION: f64 = 10.0;

/// The primary's shutdown waits until whoever receives WAL has all of it.
const FAR_BEHIND: u64 = 64 << 20;

/// Everything that stands in the way; nothing: it may begin.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    for rule in RULES {
        let place = if rule.forcible { &mut verdict.risks } else { &mut verdict.forbidden };
        let reason = |(message, hint)| Reason { rule: rule.id, message, hint };
        place.extend((rule.then)(evidence).into_iter().map(reason));
    }
    verdict
}

impl<'a> Evidence<'a> {
    fn name(&self, node: NodeId) -> &'a str {
        self.registry.node_name(node)
    }

    fn primary_name(&self) -> &'a str {
        self.name(self.group.primary)
    }

    fn member(&self, node: NodeId) -> Option<&'a Member> {
        self.answers.get(&node)?.as_ref().ok()
    }

    /// What the answers show of an earlier call.
    pub fn stage(&self) -> Stage {
        let (old, new) = (self.member(self.group.primary), self.member(self.candidate));
        match (old, new) {
            (Some(old), Some(new)) if old.in_recovery && !new.in_recovery => Stage::Promoted,
            (Some(old), Some(new)) if old.in_recovery && new.in_recovery => {
                if self.traffic.follows { Stage::Demoted } else { Stage::Fresh }
            }
            _ => Stage::Fresh,
        }
    }
}

fn not_ours(on: &Evidence<'_>) -> Vec<Finding> {
    if !is_unmanaged(on.registry, on.candidate) {
        return vec![];
    }
    let hint = "Have the failover manager hand over; the links follow then.";
    let message = format!("somebody else manages the group of \"{}\"", on.name(on.candidate));
    vec![(message, hint.to_owned())]
}

fn no_primary(on: &Evidence<'_>) -> Vec<Finding> {
    let name = on.primary_name();
    match on.answers.get(&on.group.primary) {
        Some(Ok(member)) if !member.in_recovery => vec![],
        Some(Ok(_)) => {
            let hint = "Whoever moved it has to tell which server is the primary now: \
                        nodes.promote() for that one has all links follow it.";
            vec![(format!("\"{name}\" is in recovery, and so no primary"), hint.to_owned())]
        }
        Some(Err(why)) => {
            let hint = "If it is dead, call nodes.promote() instead.";
            vec![(format!("primary \"{name}\" does not answer: {why}"), hint.to_owned())]
        }
        None => vec![],
    }
}

fn not_ready(on: &Evidence<'_>) -> Vec<Finding> {
    // Who does not answer is told of already; and nobody can get ahead of a standby that has all.
    obstacles(on, |rule| !matches!(rule, "FR01" | "FR24") && !leaves_slots(rule))
}

/// Whether a rule of failover is about a logical slot that the standby would not have.
fn leaves_slots(rule: RuleId) -> bool {
    matches!(rule, "FR20" | "FR21" | "FR22" | "FR23")
}

/// What reads such a slot misses changes, and a subscription of the registry is stopped.
fn slot_left(on: &Evidence<'_>) -> Vec<Finding> {
    obstacles(on, leaves_slots)
}

fn obstacles(on: &Evidence<'_>, counts: impl Fn(RuleId) -> bool) -> Vec<Finding> {
    let finding =
        |reason: &Reason| (format!("{} ({})", reason.message, reason.rule), reason.hint.clone());
    on.obstacles.iter().filter(|reason| counts(reason.rule)).map(finding).collect()
}

fn silent(on: &Evidence<'_>) -> Vec<Finding> {
    let finding = |node: NodeId| {
        let why = on.answers.get(&node)?.as_ref().err()?;
        let hint = "Bring it back, or take it out with nodes.remove_node().";
        let message = format!("standby \"{}\" does not answer: {why}", on.name(node));
        Some((message, hint.to_owned()))
    };
    let others = on.group.standbys.iter().filter(|node| **node != on.candidate);
    others.filter_map(|node| finding(*node)).collect()
}

fn other_primary(on: &Evidence<'_>) -> Vec<Finding> {
    let primary = |node: &&NodeId| on.member(**node).is_some_and(|member| !member.in_recovery);
    let finding = |node: &NodeId| {
        let hint = "There are two primaries: stop the one that is not to be, and have it return \
                    with nodes.rejoin().";
        (format!("\"{}\" is a primary already", on.name(*node)), hint.to_owned())
    };
    on.group.standbys.iter().filter(primary).map(finding).collect()
}

fn cut_off(on: &Evidence<'_>) -> Vec<Finding> {
    let finding = |(node, why): (&NodeId, &String)| {
        let (node, candidate) = (on.name(*node), on.name(on.candidate));
        let message = format!("\"{node}\" cannot connect to \"{candidate}\": {why}");
        (message, "Correct the network, or pg_hba.conf of that server.".to_owned())
    };
    on.cut_off.iter().map(finding).collect()
}

fn no_superuser(on: &Evidence<'_>) -> Vec<Finding> {
    if on.traffic.superuser || on.member(on.group.primary).is_none() {
        return vec![];
    }
    let message =
        format!("the role with which \"{}\" is reached is not a superuser", on.primary_name());
    let hint = "Give the node an admin_conninfo of a superuser with nodes.alter_node().";
    vec![(message, hint.to_owned())]
}

fn no_restart(on: &Evidence<'_>) -> Vec<Finding> {
    let finding = |why: &str| {
        let hint = format!(
            "Set pg_nodes.restart_command on \"{}\" to what restarts it, and reload.",
            on.primary_name()
        );
        (format!("\"{}\" cannot be restarted: {why}", on.primary_name()), hint)
    };
    on.no_restart.map(finding).into_iter().collect()
}

fn transactions(on: &Evidence<'_>) -> Vec<Finding> {
    let old = on.traffic.transactions.iter().filter(|t| t.seconds >= OLD_TRANSACTION);
    let finding = |open: &Transaction| {
        let age = units::time(Duration::from_secs_f64(open.seconds.clamp(0.0, 3e9)));
        let message = format!(
            "process {} of role \"{}\" on \"{}\" has had a transaction open for {age}",
            open.pid,
            open.role,
            on.primary_name()
        );
        let hint = format!(
            "It would be cut off: wait for its end, or end it there with \
             pg_terminate_backend({}).",
            open.pid
        );
        (message, hint)
    };
    old.map(finding).collect()
}

fn copies(on: &Evidence<'_>) -> Vec<Finding> {
    let finding = |who: &String| {
        let message = format!("\"{who}\" takes a base backup of \"{}\"", on.primary_name());
        (message, "It would be cut off: wait for its end.".to_owned())
    };
    on.traffic.copies.iter().map(finding).collect()
}

fn senders(on: &Evidence<'_>) -> Vec<Finding> {
    let far = on.traffic.senders.iter().filter(|sender| sender.behind > FAR_BEHIND);
    let finding = |sender: &Sender| {
        let message = format!(
            "\"{}\" is {} behind \"{}\"",
            sender.name,
            units::bytes(sender.behind),
            on.primary_name()
        );
        let hint = "A server that shuts down waits until it has all: let it catch up first.";
        (message, hint.to_owned())
    };
    far.map(finding).collect()
}
