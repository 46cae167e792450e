//! How a subscription link is taken away.

use super::{publication, subscription};
use crate::desired::LinkId;
use crate::index::Indexed;
use crate::observed::{Publication, Slot, Subscription};
use crate::refuse::{cannot_drop_slot, read_only};
use crate::rule::{Context, Verdict};
use crate::step::Operation;

/// Why our subscription cannot be dropped, though it should be.
pub(super) fn cannot_drop_here(ctx: &Context<'_>) -> Vec<Verdict> {
    match (ctx.target, subscription(ctx)) {
        (Some(target), Some(_)) => read_only(ctx.to.id, &ctx.to.name, target).into_iter().collect(),
        (Some(_) | None, _) => vec![],
    }
}

/// Why the link's slots cannot be dropped, though they should be.
pub(super) fn no_slot_drop(ctx: &Context<'_>) -> Vec<Verdict> {
    // Those of copies that run are left behind when the subscription goes.
    let own = |oid: u32| ctx.made_here.subscriptions.iter().any(|(_, found)| found.oid == oid);
    let left = |source: &&Indexed<'_>| {
        source.slot(ctx.slot()).is_some()
            || !orphaned_copy_slots(ctx).is_empty()
            || copy_slots(ctx).any(|(_, oid)| own(oid))
    };
    let source = ctx.source.filter(left);
    source.and_then(|source| cannot_drop_slot(ctx.from, source)).into_iter().collect()
}

/// Whether the subscriber goes on: then it needs slot and publication.
fn is_held(ctx: &Context<'_>) -> bool {
    !cannot_drop_here(ctx).is_empty() || !no_slot_drop(ctx).is_empty()
}

/// Why our publication cannot be dropped, though it should be.
pub(super) fn cannot_drop_there(ctx: &Context<'_>) -> Vec<Verdict> {
    match (ctx.source, publication(ctx)) {
        (Some(source), Some(_)) => {
            read_only(ctx.from.id, &ctx.from.name, source).into_iter().collect()
        }
        (Some(_) | None, _) => vec![],
    }
}

pub(super) fn drop_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
    if is_held(ctx) {
        return vec![];
    }
    let drop = |(_, found): &(LinkId, &Subscription)| {
        let operation = Operation::DropSubscription { name: found.name.clone() };
        Verdict::act(ctx.to.id, operation, "the link is being removed")
            .danger(format!("\"{}\" receives no more changes; its rows stay", ctx.to.name))
    };
    ctx.made_here.subscriptions.iter().map(drop).collect()
}

/// Slots of copies that nobody will ever read: those whose subscription the subscriber does not
/// have, in any database. That is proved only by a server that is no standby and was asked after
/// the slot was seen: a subscription is there before its slots.
fn orphaned_copy_slots<'a>(ctx: &Context<'a>) -> Vec<&'a Slot> {
    let Some(target) = ctx.target else {
        return vec![];
    };
    let orphan = |(_, oid): &(&Slot, u32)| !target.subscription_oids.contains(oid);
    copy_slots(ctx).filter(orphan).map(|(slot, _)| slot).collect()
}

/// Slots of copies to the subscriber, each with the oid of its subscription. They are named
/// `pg_<subscription oid>_sync_<table oid>_<system identifier>`
/// (`ReplicationSlotNameForTablesync`, tablesync.c).
pub(super) fn copy_slots<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (&'a Slot, u32)> {
    let both = ctx.both().filter(|(_, target)| !target.in_recovery);
    both.into_iter().flat_map(|(source, target)| {
        source.copy_slots.iter().filter_map(|slot| {
            let (oid, rest) = slot.name.strip_prefix("pg_")?.split_once("_sync_")?;
            let (table, system) = rest.split_once('_')?;
            let (oid, _): (u32, u32) = (oid.parse().ok()?, table.parse().ok()?);
            let is_copy = slot.kind == "logical" && system == target.system_identifier;
            is_copy.then_some((*slot, oid))
        })
    })
}

pub(super) fn drop_copy_slots(ctx: &Context<'_>) -> Vec<Verdict> {
    if !no_slot_drop(ctx).is_empty() {
        return vec![];
    }
    let decide = |slot: &Slot| {
        let name = slot.name.clone();
        if slot.active {
            let message = format!("slot \"{name}\" of a copy that has ended is still in use");
            let hint = "Its reader was told to stop; run nodes.apply() again.";
            return Verdict::wait(ctx.from.id, message, hint);
        }
        let reason = format!("an initial copy to \"{}\" left it behind", ctx.to.name);
        Verdict::act(ctx.from.id, Operation::DropSlot { slot: name }, reason)
    };
    let dropped = |slot: &&Slot| ctx.others.drops_slot(ctx.from.id, &slot.name);
    orphaned_copy_slots(ctx).into_iter().filter(|slot| !dropped(slot)).map(decide).collect()
}

pub(super) fn drop_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let slot = ctx.source.and_then(|source| source.slot(ctx.slot()));
    match slot {
        // Its reader lives but does not answer us: it must stop first.
        Some(slot) if slot.active && ctx.target.is_none() && !ctx.to.gone => vec![],
        // Its reader stays.
        Some(_) if is_held(ctx) => vec![],
        Some(slot) => {
            let operation = Operation::DropSlot { slot: slot.name.clone() };
            let step = Verdict::act(ctx.from.id, operation, "nobody will read it");
            vec![step.danger(format!("what \"{}\" has not received is lost", ctx.to.name))]
        }
        None => vec![],
    }
}

pub(super) fn drop_publication(ctx: &Context<'_>) -> Vec<Verdict> {
    if !cannot_drop_there(ctx).is_empty() || !no_slot_drop(ctx).is_empty() {
        return vec![];
    }
    let drop = |(_, found): &(LinkId, &Publication)| {
        let operation = Operation::DropPublication { name: found.name.clone() };
        Verdict::act(ctx.from.id, operation, "the link is being removed")
            .danger("subscriptions of others to it, if there are any, fail")
    };
    ctx.made_there.publications.iter().map(drop).collect()
}
