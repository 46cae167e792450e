//! Which standbys copy the slots of subscriptions to their primary, for the time after a failover.

use super::{is_in_force, spec};
use crate::name::Mark;
use crate::observed::NodeFacts;
use crate::rule::{Context, Verdict};
use crate::step::Operation;

/// Has a standby copy the primary's failover slots: from 17 on.
pub(super) const SYNC_SLOTS: &str = "sync_replication_slots";

/// Whether the standby is to keep slots of subscriptions that its primary has.
pub(super) fn should_copy_slots(ctx: &Context<'_>, target: &NodeFacts) -> bool {
    let group = ctx.others.groups.get(ctx.from.id).filter(|group| group.is_primary(ctx.from.id));
    target.has_failover_slots() && group.is_some_and(|group| !group.subscriptions.is_empty())
}

/// Whether it can: where `wal_level` is too low, the setting ends a server of version 17
/// (`ValidateSlotSyncParams`, slotsync.c).
pub(super) fn copies_slots(ctx: &Context<'_>, target: &NodeFacts) -> bool {
    should_copy_slots(ctx, target) && why_no_copies(ctx, target).is_none()
}

/// What is missing for it, and what to do.
fn why_no_copies(ctx: &Context<'_>, target: &NodeFacts) -> Option<(String, &'static str)> {
    if target.setting("wal_level") != Some("logical") {
        let message = format!("wal_level on node \"{}\" is not logical", ctx.to.name);
        return Some((message, "Set wal_level to logical there and restart that server."));
    }
    if !spec(ctx).is_some_and(|spec| spec.slot) {
        let message = format!("standby \"{}\" has no slot on \"{}\"", ctx.to.name, ctx.from.name);
        return Some((message, "Remove the link and add it again with slot => true."));
    }
    if ctx.from.conninfo.get("dbname").is_none() {
        let message = format!("the conninfo of node \"{}\" names no dbname", ctx.from.name);
        return Some((message, "Add one with nodes.alter_node()."));
    }
    None
}

pub(super) fn cannot_copy_slots(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(target) = ctx.target.filter(|target| should_copy_slots(ctx, target)) else {
        return vec![];
    };
    let warn = |(why, hint)| {
        let message =
            format!("subscriptions to \"{}\" are lost in a failover: {why}", ctx.from.name);
        Verdict::warn(ctx.to.id, message, hint)
    };
    why_no_copies(ctx, target).map(warn).into_iter().collect()
}

/// Has a standby that leaves copy no slots any more. Copies whose slots are gone go with it, while
/// the primary answers.
pub(super) fn stop(ctx: &Context<'_>, target: &NodeFacts) -> Vec<Verdict> {
    let files = target.file_settings.as_ref().and_then(|files| files.get(SYNC_SLOTS));
    let prefix = Mark::slot_prefix(&ctx.mark.registry);
    let copies = target.slots.iter().any(|slot| slot.synced && slot.name.starts_with(&prefix));
    let reason = "without a primary there is nothing to copy";
    let act = |operation| Verdict::act(ctx.to.id, operation, reason);
    let is_on = files.is_some_and(|value| value == "on");
    let mut verdicts = Vec::new();
    if is_on {
        verdicts.push(act(Operation::AlterSystem { setting: SYNC_SLOTS, value: None }));
    }
    // Who copies still may just be about to make one.
    let is_copying = is_on && target.in_recovery && is_in_force(ctx);
    // They are copied through the standby's own slot: without it nothing is.
    let may_copy = ctx.source.is_some_and(|source| source.slot(ctx.slot()).is_some());
    if (copies || is_copying) && may_copy {
        verdicts.extend([act(Operation::Reload), act(Operation::SyncSlots)]);
    }
    verdicts
}
