//! The rules of a standby that a failover manager makes follow, Patroni say: nothing is made or
//! changed for it, on neither server, and who is the primary is the manager's word
//! ([`crate::takeover`]).

use super::copies::{SYNC_SLOTS, should_copy_slots};
use crate::claims::{Lacking, Leftover};
use crate::rule::{Context, Rule, Table, Verdict};

pub(crate) const TABLE: Table = Table {
    forbid: FORBID,
    follow: &[],
    refuse: &[],
    keep: KEEP,
    remove: &[],
    lacking: |_| Lacking::default(),
    leftover: |_| Leftover::default(),
};

const FORBID: &[Rule] =
    &[Rule { id: "ST50", when: "an unmanaged standby is no clone of its primary", then: stranger }];

const KEEP: &[Rule] = &[
    Rule { id: "ST51", when: "an unmanaged standby has taken over", then: await_links },
    Rule { id: "ST52", when: "an unmanaged standby does not copy slots", then: copies_no_slots },
];

fn stranger(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, target)) = ctx.both() else { return vec![] };
    if source.system_identifier == target.system_identifier {
        return vec![];
    }
    let message = format!(
        "node \"{}\" is not a clone of \"{}\": their system identifiers are {} and {}",
        ctx.to.name, ctx.from.name, target.system_identifier, source.system_identifier
    );
    let hint = "Correct the address of one with nodes.alter_node(), or remove the link.";
    vec![Verdict::refuse(ctx.to.id, message, hint)]
}

fn await_links(ctx: &Context<'_>) -> Vec<Verdict> {
    if ctx.target.is_none_or(|target| target.in_recovery) {
        return vec![];
    }
    let (from, to) = (&ctx.from.name, &ctx.to.name);
    let message = format!("\"{to}\" is a primary now, and links still follow \"{from}\"");
    let hint = format!(
        "The worker has them follow; without one, CALL nodes.promote({}) does.",
        crate::quote::literal(to)
    );
    vec![Verdict::wait(ctx.to.id, message, hint)]
}

fn copies_no_slots(ctx: &Context<'_>) -> Vec<Verdict> {
    let is_off = |name: &&str| ctx.target.and_then(|target| target.setting(name)) != Some("on");
    let Some(_) = ctx.target.filter(|target| should_copy_slots(ctx, target)) else {
        return vec![];
    };
    let off: Vec<&str> = [SYNC_SLOTS, "hot_standby_feedback"].into_iter().filter(is_off).collect();
    if off.is_empty() {
        return vec![];
    }
    let (from, to, off) = (&ctx.from.name, &ctx.to.name, off.join(" and "));
    let message =
        format!("subscriptions to \"{from}\" are lost in a failover: {off} is off on \"{to}\"");
    vec![Verdict::warn(ctx.to.id, message, "Have what manages the group set that.")]
}
