//! What a subscription takes of the limits of its servers.

use super::removal::copy_slots;
use super::{copies, subscription};
use crate::claims::{Claims, Lacking, Leftover};
use crate::rule::{Context, Verdict};

pub(super) fn no_publisher_room(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(room) = ctx.headroom_there(lacking(ctx).from) else {
        return vec![];
    };
    let (slots, walsenders) = (room.facts.slots.len() as i64, room.facts.walsenders_taken());
    let what = "a subscription";
    [
        room.check("max_replication_slots", slots, |c| c.slots + c.copies, what),
        room.check("max_wal_senders", walsenders, |c| c.walsenders + c.copies, what),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn no_subscriber_room(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(room) = ctx.headroom_here(lacking(ctx).to).filter(|_| !ctx.paused()) else {
        return vec![];
    };
    let subscriptions = room.facts.subscription_oids.len() as i64;
    let (workers, origins) = (room.facts.background_workers, room.facts.origins_setting());
    let all: fn(&Claims) -> i64 = |claims| claims.subscriptions + claims.copies;
    let what = "a subscription";
    [
        room.check("max_logical_replication_workers", subscriptions, all, what),
        room.check(origins, subscriptions, all, "a subscription (origins)"),
        room.check("max_worker_processes", workers, all, what),
        room.check("max_sync_workers_per_subscription", 0, |c| c.copies, "the initial copy"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn lacking(ctx: &Context<'_>) -> Lacking {
    let mut lacking = Lacking::default();
    let copies = copies(ctx);
    if ctx.source.is_some_and(|source| source.slot(ctx.slot()).is_none()) {
        lacking.from = Claims { slots: 1, walsenders: 1, copies, ..Claims::default() };
    }
    if subscription(ctx).is_none() {
        lacking.to = Claims { subscriptions: 1, copies, ..Claims::default() };
    }
    lacking
}

/// What a removed link has: its slot, those of its copies, its subscriptions.
pub(super) fn leftover(ctx: &Context<'_>) -> Leftover {
    let slot = ctx.source.and_then(|source| source.slot(ctx.slot()));
    let left = |oid: u32| {
        let known = ctx.target.is_some_and(|target| target.subscription_oids.contains(&oid));
        !known || ctx.made_here.subscriptions.iter().any(|(_, found)| found.oid == oid)
    };
    let copies = copy_slots(ctx).filter(|(_, oid)| left(*oid)).map(|(slot, _)| slot);
    Leftover {
        slot: slot.cloned(),
        copies: copies.cloned().collect(),
        readers: true,
        subscriptions: ctx.made_here.subscriptions.len() as i64,
    }
}
