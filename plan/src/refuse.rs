//! Preconditions that several kinds of link share, each with its numbers and its way out.

use crate::claims::{Account, Claims};
use crate::desired::{Node, NodeId};
use crate::index::Indexed;
use crate::name::Mark;
use crate::observed::{NodeFacts, Owner, owner};
use crate::rule::{Context, Verdict};

/// What a link lacks of the limits of one server, and what the others take and give back.
pub(crate) struct Headroom<'a> {
    pub node: &'a Node,
    pub facts: &'a Indexed<'a>,
    pub account: Account,
    pub lacks: Claims,
}

impl Headroom<'_> {
    /// Refuses what does not fit in the end, and lets wait what does not fit yet; an unknown
    /// limit is not judged. Who needs nothing is not refused for what others take.
    pub fn check(
        &self,
        setting: &str,
        used: i64,
        limited: fn(&Claims) -> i64,
        purpose: &str,
    ) -> Option<Verdict> {
        let limit = self.facts.number(setting)?;
        let needed = limited(&self.lacks);
        let with = |others: Claims| limited(&(others + self.lacks));
        let now = used + with(self.account.taken);
        let freed = limited(&self.account.freed);
        let end = used - freed + with(self.account.promised);
        if needed == 0 || now.max(end) <= limit {
            return None;
        }
        let node = &self.node.name;
        let hint = raise(setting, now.max(end));
        if end <= limit {
            let message = format!(
                "{setting} on node \"{node}\" is {limit}; {purpose} waits for what removed links \
                 still use of it"
            );
            return Some(Verdict::wait(self.node.id, message, hint));
        }
        let used = end - needed;
        let message = format!(
            "{setting} on node \"{node}\" is {limit}, of which {used} are in use; \
             {purpose} needs {needed} more"
        );
        Some(Verdict::refuse(self.node.id, message, hint))
    }
}

/// How a limit is raised.
pub(crate) fn raise(setting: &str, value: i64) -> String {
    // Limits per subscription are the ones that can change while the server runs.
    let then = if setting.ends_with("_per_subscription") { "reload" } else { "restart" };
    format!("Set {setting} to at least {value} there and {then} that server.")
}
/// The hint for a name that another link's object has: of one that is being removed, or that a
/// person has renamed.
pub(crate) const FREE_LATER: &str = "It is free when that link's removal is done, or its object \
     has its own name back; run nodes.apply() again.";

/// An object that stands where ours should be, and is not ours.
pub(crate) fn name_taken(
    node: NodeId,
    class: &str,
    name: &str,
    comment: Option<&str>,
    mark: &Mark,
) -> Option<Verdict> {
    match owner(comment, mark) {
        Owner::Ours => None,
        Owner::OtherLink(other) => Some(Verdict::Wait {
            node,
            message: format!("{class} \"{name}\" still belongs to link {other}"),
            hint: FREE_LATER.into(),
        }),
        Owner::Foreign => Some(Verdict::refuse(
            node,
            format!("{class} \"{name}\" exists and was not made by this registry"),
            format!("Rename or drop that {class}, or give the link another name."),
        )),
    }
}

/// A server on which nothing can be created, whoever asks.
pub(crate) fn read_only(node: NodeId, name: &str, facts: &NodeFacts) -> Option<Verdict> {
    if facts.in_recovery {
        return Some(Verdict::refuse(
            node,
            format!("node \"{name}\" is a standby and accepts no changes"),
            "Name its primary instead; what is made there reaches the standby by replication.",
        ));
    }
    let successor = facts.setting("pg_nodes.superseded_by").filter(|node| !node.is_empty());
    if let Some(successor) = successor {
        return Some(Verdict::refuse(
            node,
            format!("node \"{name}\" is superseded by {successor} and takes no writes"),
            "Run nodes.rejoin() on its successor: it makes the node a standby again.",
        ));
    }
    if facts.setting("default_transaction_read_only") == Some("on") {
        return Some(Verdict::refuse(
            node,
            format!("node \"{name}\" is read-only (default_transaction_read_only is on)"),
            "Turn default_transaction_read_only off there, then run nodes.apply() again.",
        ));
    }
    None
}

/// The role that pg_nodes uses on a server cannot make replication slots there. Where it is the
/// role of the node's conninfo too, the rules about that one say so.
pub(crate) fn cannot_make_slot(node: &Node, facts: &Indexed<'_>) -> Option<Verdict> {
    let known = facts.role(&facts.role).is_some() && node.conninfo.get("user") == Some(&facts.role);
    (!facts.can_replicate && !known).then(|| may_not(node, facts, "make"))
}

/// Nor can it drop one. Without its reader the slot would keep WAL until somebody else does.
pub(crate) fn cannot_drop_slot(node: &Node, facts: &NodeFacts) -> Option<Verdict> {
    (!facts.can_replicate).then(|| may_not(node, facts, "drop"))
}

fn may_not(node: &Node, facts: &NodeFacts, what: &str) -> Verdict {
    Verdict::refuse(
        node.id,
        format!("role \"{}\" on node \"{}\" may not {what} slots", facts.role, node.name),
        "Run ALTER ROLE … REPLICATION there, or give the node an admin_conninfo of a superuser \
         with nodes.alter_node().",
    )
}

/// Members of the group of `from` that sessions of the link do not find by themselves after a
/// failover, because one conninfo cannot list them all.
pub(crate) fn left_out(ctx: &Context<'_>) -> Vec<Verdict> {
    let warn = |(member, what): &(&Node, String)| {
        let message = format!(
            "\"{}\" is not in the connection string of link \"{}\": its conninfo differs from that of \
             \"{}\" ({what})",
            member.name, ctx.link.name, ctx.from.name
        );
        let hint = "Give both the same user, dbname, password and options with nodes.alter_node() \
                    and nodes.set_password(); otherwise sessions follow a failover only after \
                    nodes.apply().";
        Verdict::warn(member.id, message, hint)
    };
    ctx.reach().left_out.iter().map(warn).collect()
}
