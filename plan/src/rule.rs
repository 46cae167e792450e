//! Rules: numbered, explained, kept in ordered tables, one table per kind of link and purpose.
//! All rules of a table are asked in order; each adds what it finds.

use crate::claims::{Claims, Lacking, Leftover};
use crate::desired::{Link, LinkState, Node, NodeId, Registry};
use crate::foreign::Shown;
use crate::group::{Reach, reach};
use crate::index::{Index, Indexed, Made};
use crate::name::{DIGEST_SEPARATOR, Mark, TableName, digest};
use crate::others::Others;
use crate::refuse::Headroom;
use crate::step::Operation;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;

/// One numbered rule. `when` is the sentence that `nodes.rules()` shows.
pub struct Rule {
    pub id: &'static str,
    pub when: &'static str,
    pub(crate) then: fn(&Context<'_>) -> Vec<Verdict>,
}

/// What a rule finds.
pub(crate) enum Verdict {
    Do {
        node: NodeId,
        operation: Operation,
        reason: String,
        danger: Option<String>,
    },
    Refuse {
        node: NodeId,
        message: String,
        hint: String,
    },
    /// Not now, by itself later.
    Wait {
        node: NodeId,
        message: String,
        hint: String,
    },
    Warn {
        node: NodeId,
        message: String,
        hint: String,
    },
}

impl Verdict {
    pub fn act(node: NodeId, operation: Operation, reason: impl Into<String>) -> Self {
        Verdict::Do { node, operation, reason: reason.into(), danger: None }
    }

    pub fn refuse(node: NodeId, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Verdict::Refuse { node, message: message.into(), hint: hint.into() }
    }

    pub fn wait(node: NodeId, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Verdict::Wait { node, message: message.into(), hint: hint.into() }
    }

    pub fn warn(node: NodeId, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Verdict::Warn { node, message: message.into(), hint: hint.into() }
    }

    /// Marks a step where something is lost or stops.
    pub fn danger_if(self, what: Option<String>) -> Self {
        match what {
            Some(what) => self.danger(what),
            None => self,
        }
    }

    /// Marks a step as one that loses data or stops a service.
    pub fn danger(self, what: impl Into<String>) -> Self {
        match self {
            Verdict::Do { node, operation, reason, .. } => {
                Verdict::Do { node, operation, reason, danger: Some(what.into()) }
            }
            other => other,
        }
    }
}

/// What a rule may look at: one link, its two nodes and what is known of them.
pub(crate) struct Context<'a> {
    pub others: &'a Others<'a>,
    pub link: &'a Link,
    pub mark: Mark,
    pub from: &'a Node,
    pub to: &'a Node,
    /// Facts of `from`; `None`: unknown.
    pub source: Option<&'a Indexed<'a>>,
    /// Facts of `to`; `None`: unknown.
    pub target: Option<&'a Indexed<'a>>,
    /// What bears the link's mark on `from`.
    pub made_there: Made<'a>,
    /// What bears it on `to`.
    pub made_here: Made<'a>,
    slot: OnceCell<String>,
    reach: OnceCell<Reach<'a>>,
    /// The tables of a subscription link; nearly every rule asks, and there may be many.
    pub tables: OnceCell<Cow<'a, BTreeSet<TableName>>>,
    /// The tables of a foreign link, for the same reason.
    pub shown: OnceCell<Vec<Shown<'a>>>,
}

impl<'a> Context<'a> {
    /// `None` where a node of the link is not registered, which the registry's keys forbid.
    pub fn new(
        registry: &'a Registry,
        index: &'a Index<'_>,
        others: &'a Others<'a>,
        link: &'a Link,
    ) -> Option<Self> {
        let (source, target) = (index.get(link.from), index.get(link.to));
        Some(Context {
            others,
            link,
            mark: registry.mark(link),
            from: registry.nodes.get(&link.from)?,
            to: registry.nodes.get(&link.to)?,
            source,
            target,
            made_there: source.map_or_else(Made::default, |source| source.made(link.id)),
            made_here: target.map_or_else(Made::default, |target| target.made(link.id)),
            slot: OnceCell::new(),
            reach: OnceCell::new(),
            tables: OnceCell::new(),
            shown: OnceCell::new(),
        })
    }

    /// The name of the link's slot.
    pub fn slot(&self) -> &str {
        self.slot.get_or_init(|| self.mark.slot_name())
    }

    /// How what the link makes on `to` reaches `from`, and its group.
    pub fn reach(&self) -> &Reach<'a> {
        self.reach.get_or_init(|| {
            let subscriptions = self.made_here.subscriptions.iter().map(|(_, s)| &s.comment);
            let servers = self.made_here.servers.iter().map(|(_, server)| &server.comment);
            let comment = subscriptions.chain(servers).next();
            let comment = comment.and_then(|comment| comment.as_deref());
            reach(&self.others.groups, self.link, self.from, comment)
        })
    }

    /// The comment for what holds the conninfo by which `from` is reached.
    pub fn comment(&self) -> String {
        self.mark.comment_with(&self.reach().digest)
    }

    /// Whether what bears this comment was made of the conninfo of now.
    pub fn is_current(&self, comment: Option<&str>) -> bool {
        comment.and_then(digest).unwrap_or_default() == self.reach().digest
    }

    /// The same for what holds no address: the other members of a group have the same user and
    /// secrets.
    pub fn has_current_credentials(&self, comment: Option<&str>) -> bool {
        let digest = comment.and_then(digest).unwrap_or_default();
        digest.split(DIGEST_SEPARATOR).next() == Some(&self.from.digest)
    }

    /// Whether what bears this comment lists other members of the group of `from` than there are, or
    /// has them elsewhere, and is otherwise of now.
    pub fn lists_others(&self, comment: Option<&str>) -> bool {
        !self.is_current(comment) && self.has_current_credentials(comment)
    }

    /// Room on `from` for what the link lacks of it.
    pub fn headroom_there(&self, lacks: Claims) -> Option<Headroom<'a>> {
        self.headroom(self.from, self.source, lacks)
    }

    /// Room on `to` for what the link lacks of it.
    pub fn headroom_here(&self, lacks: Claims) -> Option<Headroom<'a>> {
        self.headroom(self.to, self.target, lacks)
    }

    fn headroom(
        &self,
        node: &'a Node,
        facts: Option<&'a Indexed<'a>>,
        lacks: Claims,
    ) -> Option<Headroom<'a>> {
        Some(Headroom { node, facts: facts?, account: self.others.ledger.account(node.id), lacks })
    }

    pub fn paused(&self) -> bool {
        self.link.state == LinkState::Paused
    }

    /// Both sides' facts, for rules that compare them.
    pub fn both(&self) -> Option<(&'a Indexed<'a>, &'a Indexed<'a>)> {
        Some((self.source?, self.target?))
    }
}

/// The rules of one kind of link.
pub(crate) struct Table {
    /// What forbids any step; any finding stops the link.
    pub forbid: &'static [Rule],
    /// What keeps the connections of objects that are there and ours right, and pauses them:
    /// no reason to leave the rest undone stops these.
    pub follow: &'static [Rule],
    /// What forbids to make or extend the link; any finding stops the rules below.
    pub refuse: &'static [Rule],
    /// What makes an active or paused link right.
    pub keep: &'static [Rule],
    /// What takes a link away.
    pub remove: &'static [Rule],
    /// What a link lacks of what its nodes limit.
    pub lacking: fn(&Context<'_>) -> Lacking,
    /// What it has of that and is to give back.
    pub leftover: fn(&Context<'_>) -> Leftover,
}

/// A rule as people see it: what it belongs to (a kind of link, any link, a node, or the
/// registry), its purpose, number and sentence.
pub struct RuleRow {
    pub kind: &'static str,
    pub purpose: &'static str,
    pub id: &'static str,
    pub when: &'static str,
}

/// Every rule, in the order in which they are asked.
pub fn rules() -> Vec<RuleRow> {
    let tables = [
        ("standby", &crate::standby::TABLE),
        ("standby", &crate::standby::UNMANAGED),
        ("subscription", &crate::subscription::TABLE),
        ("foreign", &crate::foreign::TABLE),
    ];
    let registry = crate::order::RULES.iter();
    let mut rows: Vec<RuleRow> = registry
        .map(|(id, when)| RuleRow { kind: "registry", purpose: "registry", id, when })
        .collect();
    for (kind, table) in tables {
        let purposes = [
            ("forbid", table.forbid),
            ("follow", table.follow),
            ("refuse", table.refuse),
            ("keep", table.keep),
            ("remove", table.remove),
        ];
        for (purpose, rules) in purposes {
            let row = |rule: &Rule| RuleRow { kind, purpose, id: rule.id, when: rule.when };
            rows.extend(rules.iter().map(row));
        }
    }
    let health = |kind, id, when| RuleRow { kind, purpose: "health", id, when };
    rows.extend(crate::node_health::RULES.iter().map(|rule| health("node", rule.id, rule.when)));
    rows.extend(crate::link_health::RULES.iter().map(|rule| health("link", rule.id, rule.when)));
    let failover = |id, when| RuleRow { kind: "standby", purpose: "failover", id, when };
    rows.extend(crate::failover::RULES.iter().map(|rule| failover(rule.id, rule.when)));
    let promotion = |id, when| RuleRow { kind: "standby", purpose: "promotion", id, when };
    rows.extend(crate::promotion::RULES.iter().map(|rule| promotion(rule.id, rule.when)));
    let rejoin = |id, when| RuleRow { kind: "standby", purpose: "rejoin", id, when };
    rows.extend(crate::rejoin::RULES.iter().map(|rule| rejoin(rule.id, rule.when)));
    let switchover = |id, when| RuleRow { kind: "standby", purpose: "switchover", id, when };
    rows.extend(crate::switchover::RULES.iter().map(|rule| switchover(rule.id, rule.when)));
    rows
}

/// The number of a rule. By this name, serde does not take it for a text to be borrowed.
pub type RuleId = &'static str;

/// Reads the number of a rule of health back.
pub(crate) fn known<'de, D: serde::Deserializer<'de>>(source: D) -> Result<RuleId, D::Error> {
    let id = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(source)?;
    let nodes = crate::node_health::RULES.iter().map(|rule| rule.id);
    let mut all = nodes.chain(crate::link_health::RULES.iter().map(|rule| rule.id));
    all.find(|known| *known == id).ok_or_else(|| serde::de::Error::custom("not a rule of health"))
}
