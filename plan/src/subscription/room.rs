//! What a subscription takes of the limits of its servers.

use super::removal::copy_slots;
use super::{copies, subscription};
use crate::claims::{Claims, Lacking, Leftover};
use crate::refuse::Headroom;
use crate::rule::{Context, Verdict};

pub(super) fn no_publisher_room(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(source) = ctx.source else {
        return vec![];
    };
    let headroom = |setting, used, limited| Headroom {
        node: ctx.from.id,
        node_name: &ctx.from.name,
        setting,
        used,
        account: ctx.others.ledger.account(ctx.from.id),
        lacks: lacking(ctx).from,
        limited,
        purpose: "a subscription",
    };
    [
        headroom("max_replication_slots", source.slots.len() as i64, |c| c.slots + c.copies),
        headroom("max_wal_senders", source.walsenders, |c| c.walsenders + c.copies),
    ]
    .iter()
    .filter_map(|room| room.check(source))
    .collect()
}

pub(super) fn no_subscriber_room(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(target) = ctx.target.filter(|_| !ctx.paused()) else {
        return vec![];
    };
    let headroom = |setting, used, limited, purpose| Headroom {
        node: ctx.to.id,
        node_name: &ctx.to.name,
        setting,
        used,
        account: ctx.others.ledger.account(ctx.to.id),
        lacks: lacking(ctx).to,
        limited,
        purpose,
    };
    let subscriptions = target.subscription_oids.len() as i64;
    let workers = target.background_workers;
    let origins = target.origins_setting();
    let all: fn(&Claims) -> i64 = |claims| claims.subscriptions + claims.copies;
    [
        headroom("max_logical_replication_workers", subscriptions, all, "a subscription"),
        headroom(origins, subscriptions, all, "a subscription (origins)"),
        headroom("max_worker_processes", workers, all, "a subscription"),
        headroom("max_sync_workers_per_subscription", 0, |c| c.copies, "the initial copy"),
    ]
    .iter()
    .filter_map(|room| room.check(target))
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
        slots: slot.into_iter().chain(copies).cloned().collect(),
        readers: true,
        subscriptions: ctx.made_here.subscriptions.len() as i64,
    }
}
