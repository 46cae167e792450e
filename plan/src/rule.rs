//! Rules: numbered, explained, kept in ordered tables, one table per kind of link and purpose.
//! All rules of a table are asked in order; each adds what it finds.

use crate::desired::{Link, LinkState, Node, NodeId, Registry};
use crate::name::Mark;
use crate::observed::{NodeFacts, Relation, World};
use crate::others::Others;
use crate::step::Operation;
use std::cell::OnceCell;

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
    pub world: &'a World,
    pub others: &'a Others<'a>,
    pub link: &'a Link,
    pub mark: Mark,
    pub from: &'a Node,
    pub to: &'a Node,
    /// Facts of `from`; `None`: unknown.
    pub source: Option<&'a NodeFacts>,
    /// Facts of `to`; `None`: unknown.
    pub target: Option<&'a NodeFacts>,
    /// What is in a foreign link's schema; nearly every rule asks, and a node may have much.
    pub relations: OnceCell<Vec<&'a Relation>>,
}

impl<'a> Context<'a> {
    /// `None` where a node of the link is not registered, which the registry's keys forbid.
    pub fn new(
        registry: &'a Registry,
        world: &'a World,
        others: &'a Others<'a>,
        link: &'a Link,
    ) -> Option<Self> {
        Some(Context {
            world,
            others,
            link,
            mark: registry.mark(link),
            from: registry.nodes.get(&link.from)?,
            to: registry.nodes.get(&link.to)?,
            source: world.facts(link.from),
            target: world.facts(link.to),
            relations: OnceCell::new(),
        })
    }

    pub fn slot(&self) -> String {
        self.mark.slot_name()
    }

    pub fn paused(&self) -> bool {
        self.link.state == LinkState::Paused
    }

    /// Both sides' facts, for rules that compare them.
    pub fn both(&self) -> Option<(&'a NodeFacts, &'a NodeFacts)> {
        Some((self.source?, self.target?))
    }
}

/// The rules of one kind of link.
pub(crate) struct Table {
    /// What forbids any step; any finding stops the link.
    pub refuse: &'static [Rule],
    /// What makes an active or paused link right.
    pub keep: &'static [Rule],
    /// What takes a link away.
    pub remove: &'static [Rule],
}

/// A rule as people see it: the kind of link it belongs to, its purpose, number and sentence.
pub struct RuleRow {
    pub kind: &'static str,
    pub purpose: &'static str,
    pub id: &'static str,
    pub when: &'static str,
}

/// Every rule of the planner, in the order in which they are asked.
pub fn rules() -> Vec<RuleRow> {
    let tables = [
        ("standby", &crate::standby::TABLE),
        ("subscription", &crate::subscription::TABLE),
        ("foreign", &crate::foreign::TABLE),
    ];
    let registry = crate::order::RULES.iter();
    let mut rows: Vec<RuleRow> = registry
        .map(|(id, when)| RuleRow { kind: "registry", purpose: "registry", id, when })
        .collect();
    for (kind, table) in tables {
        let purposes = [("refuse", table.refuse), ("keep", table.keep), ("remove", table.remove)];
        for (purpose, rules) in purposes {
            let row = |rule: &Rule| RuleRow { kind, purpose, id: rule.id, when: rule.when };
            rows.extend(rules.iter().map(row));
        }
    }
    rows
}
