//! The slot, and the subscriber's side of what is made: the subscription.

use super::preconditions::lost;
use super::publication::{drop_schemas, set_tables};
use super::{join, option_drift, publication, publication_name, spec, subscription};
use crate::desired::{SUBSCRIPTION_OPTIONS, SubscriptionSpec};
use crate::name::TableName;
use crate::observed::{NodeFacts, Subscription};
use crate::rule::{Context, Verdict};
use crate::step::Operation;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn rename_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
    let to = ctx.link.name.clone();
    let Some(found) = subscription(ctx).filter(|found| found.name != to) else {
        return vec![];
    };
    let reason = format!("it bears the link's mark and was called \"{to}\"");
    let operation = Operation::RenameSubscription { name: found.name.clone(), to };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

pub(super) fn create_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, _)) = ctx.both() else {
        return vec![];
    };
    if source.slot(ctx.slot()).is_some() || subscription(ctx).is_some() {
        return vec![];
    }
    let reason = format!("keeps changes for \"{}\" from here on", ctx.to.name);
    vec![Verdict::act(
        ctx.from.id,
        Operation::CreateLogicalSlot { slot: ctx.slot().to_owned(), failover: is_kept(ctx) },
        reason,
    )]
}

pub(super) fn create_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    if subscription(ctx).is_some() {
        return vec![];
    }
    let mut options = spec.subscription_options();
    if can_keep(ctx) {
        options.insert(FAILOVER.to_owned(), "true".to_owned());
    }
    let operation = Operation::CreateSubscription {
        name: ctx.link.name.clone(),
        conninfo: ctx.reach().conninfo.clone().into_owned(),
        publication: publication_name(ctx).to_owned(),
        slot: ctx.slot().to_owned(),
        copy_data: spec.copy_data,
        options,
        comment: ctx.comment(),
    };
    let reason = format!("receives from \"{}\"; enabled in a later step", ctx.from.name);
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

pub(super) fn set_conninfo(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx) else {
        return vec![];
    };
    // Who may not read it sees by the comment of which conninfo it was made.
    let comment = found.comment.as_deref();
    let right = found.conninfo.as_ref().is_none_or(|found| *found == *ctx.reach().conninfo);
    if (right && ctx.is_current(comment)) || ctx.lists_others(comment) {
        return vec![];
    }
    let reason = format!("it does not say what the registry says of \"{}\"", ctx.from.name);
    vec![renew_conninfo(ctx, found, reason)]
}

/// Members have joined, left or moved: nobody has changed the subscription.
pub(super) fn list_group(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = subscription(ctx).filter(|found| ctx.lists_others(found.comment.as_deref()));
    let reason = format!("it lists others than the group of \"{}\"", ctx.from.name);
    found.map(|found| renew_conninfo(ctx, found, reason)).into_iter().collect()
}

fn renew_conninfo(ctx: &Context<'_>, found: &Subscription, reason: String) -> Verdict {
    let operation = Operation::SetSubscriptionConninfo {
        name: found.name.clone(),
        conninfo: ctx.reach().conninfo.clone().into_owned(),
        comment: ctx.comment(),
    };
    Verdict::act(ctx.to.id, operation, reason)
}

pub(super) fn set_publication(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx) else {
        return vec![];
    };
    let publication = publication_name(ctx);
    if found.publications.iter().eq([publication]) {
        return vec![];
    }
    let (name, publication) = (ctx.link.name.clone(), publication.to_owned());
    let operation = Operation::SetSubscriptionPublication { name, publication };
    vec![Verdict::act(ctx.to.id, operation, "it reads other publications than the link's")]
}

pub(super) fn set_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx) else {
        return vec![];
    };
    if found.slot.as_deref() == Some(ctx.slot()) {
        return vec![];
    }
    let name = ctx.link.name.clone();
    let set = Operation::SetSubscriptionSlot { name, slot: ctx.slot().to_owned() };
    let step = Verdict::act(ctx.to.id, set, "it reads another slot than the link's");
    while_disabled(ctx, found, step, "its slot is changed")
}

/// The option of a subscription by which standbys of its publisher copy its slot.
const FAILOVER: &str = "failover";

/// Whether standbys of the publisher are to keep the slot for the time after a failover.
fn is_kept(ctx: &Context<'_>) -> bool {
    let group = ctx.others.groups.get(ctx.from.id).filter(|group| group.is_primary(ctx.from.id));
    group.is_some_and(|group| group.keeps_slots())
        && ctx.source.is_some_and(|source| source.has_failover_slots())
}

/// The same where the subscriber knows of it. An older one does no harm to a slot that is so made.
fn can_keep(ctx: &Context<'_>) -> bool {
    is_kept(ctx) && ctx.target.is_some_and(|target| target.has_failover_slots())
}

pub(super) fn set_failover(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = subscription(ctx).filter(|found| !ctx.lists_others(found.comment.as_deref()));
    found.map_or(vec![], |found| have_slot_copied(ctx, found))
}

/// While it does not list a member, it was made right before that joined.
pub(super) fn keep_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = subscription(ctx).filter(|found| ctx.lists_others(found.comment.as_deref()));
    found.map_or(vec![], |found| have_slot_copied(ctx, found))
}

fn have_slot_copied(ctx: &Context<'_>, found: &Subscription) -> Vec<Verdict> {
    if !can_keep(ctx) {
        return vec![];
    }
    let asked = found.options.get(FAILOVER).is_none_or(|value| value == "true");
    let slot = ctx.source.and_then(|source| source.slot(ctx.slot()));
    if asked && slot.is_none_or(|slot| slot.failover) {
        return vec![];
    }
    let name = ctx.link.name.clone();
    let set = Operation::SetSubscriptionFailover { name };
    let reason = format!("standbys of \"{}\" keep its slot", ctx.from.name);
    while_disabled(ctx, found, Verdict::act(ctx.to.id, set, reason), "its slot is altered")
}

/// A step that an enabled subscription does not allow. That of a paused link is disabled already.
fn while_disabled(
    ctx: &Context<'_>,
    found: &Subscription,
    step: Verdict,
    reason: &str,
) -> Vec<Verdict> {
    if !found.enabled || ctx.paused() {
        return vec![step];
    }
    let name = || ctx.link.name.clone();
    let disable = Verdict::act(ctx.to.id, Operation::DisableSubscription { name: name() }, reason);
    let danger = format!("\"{}\" receives nothing until it is enabled again", ctx.to.name);
    vec![disable.danger(danger), step, enable(ctx, name(), reason)]
}

pub(super) fn set_options(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(target), Some(found), Some(spec)) = (ctx.target, subscription(ctx), spec(ctx)) else {
        return vec![];
    };
    let options = option_drift(&found.options, wanted_subscription_options(target, found, spec));
    if options.is_empty() {
        return vec![];
    }
    let operation = Operation::SetSubscriptionOptions { name: ctx.link.name.clone(), options };
    vec![Verdict::act(ctx.to.id, operation, "its options are not those of the link")]
}

/// The options of the link, and Postgres' defaults (`parse_subscription_options`,
/// subscriptioncmds.c) for the others that the server reports.
fn wanted_subscription_options<'a>(
    target: &NodeFacts,
    found: &Subscription,
    spec: &'a SubscriptionSpec,
) -> BTreeMap<&'a str, &'a str> {
    let defaults = [
        ("binary", "false"),
        ("streaming", if target.major() < 18 { "off" } else { "parallel" }),
        ("synchronous_commit", "off"),
        ("disable_on_error", "false"),
        ("origin", "any"),
        ("run_as_owner", "false"),
        ("password_required", "true"),
    ];
    let reported = defaults.into_iter().filter(|(key, _)| found.options.contains_key(*key));
    reported.chain(spec.options_in(SUBSCRIPTION_OPTIONS)).collect()
}

pub(super) fn pause(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx).filter(|s| ctx.paused() && s.enabled) else {
        return vec![];
    };
    let operation = Operation::DisableSubscription { name: found.name.clone() };
    let step = Verdict::act(ctx.to.id, operation, "the link is paused");
    vec![step.danger(format!("\"{}\" keeps WAL while the link is paused", ctx.from.name))]
}

/// With a new slot of that name it would go on as if nothing was missing.
pub(super) fn stop(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = subscription(ctx).filter(|found| found.enabled && !ctx.paused());
    // A standby has yet to be told of its primary's slots.
    let source = ctx.source.filter(|source| !source.in_recovery);
    let lost = source.is_some_and(|source| lost(ctx, source).is_some());
    let Some(found) = found.filter(|_| lost) else { return vec![] };
    let operation = Operation::DisableSubscription { name: found.name.clone() };
    vec![Verdict::act(ctx.to.id, operation, "it must not go on behind what it has missed")]
}

pub(super) fn set_enabled(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(target) = ctx.target.filter(|_| !ctx.paused()) else {
        return vec![];
    };
    let enabled = subscription(ctx).map(|found| found.enabled);
    // A missing subscription is created in this plan only when the publisher is known too.
    if enabled.is_none() && ctx.source.is_none() {
        return vec![];
    }
    let name = ctx.link.name.clone();
    match enabled {
        Some(true) => vec![],
        Some(false) => vec![enable(ctx, name, "it is disabled and the link is active")],
        None => {
            let reason = match slow_start(target) {
                Some(note) => format!("starts the initial copy and the apply worker{note}"),
                None => "starts the initial copy and the apply worker".to_owned(),
            };
            vec![enable(ctx, name, &reason)]
        }
    }
}

fn enable(ctx: &Context<'_>, name: String, reason: &str) -> Verdict {
    Verdict::act(ctx.to.id, Operation::EnableSubscription { name }, reason)
}

/// Postgres 15's launcher starts one apply worker per `wal_retrieve_retry_interval`
/// (`ApplyLauncherMain`, launcher.c); from 16 each subscription has its own clock.
fn slow_start(target: &NodeFacts) -> Option<String> {
    let interval = target.number("wal_retrieve_retry_interval").filter(|_| target.major() < 16)?;
    Some(format!(
        "; PostgreSQL 15 starts one worker every {interval} ms (wal_retrieve_retry_interval)"
    ))
}

pub(super) fn refresh(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(found), Some(spec)) = (subscription(ctx), spec(ctx)) else {
        return vec![];
    };
    let Some(publication) = publication(ctx) else {
        return vec![];
    };
    if ctx.paused() {
        return vec![];
    }
    let altered =
        publication.all_tables || !set_tables(ctx).is_empty() || !drop_schemas(ctx).is_empty();
    if !altered && knows(found, &publication.published) {
        return vec![];
    }
    let operation =
        Operation::RefreshSubscription { name: ctx.link.name.clone(), copy_data: spec.copy_data };
    let reason = if altered {
        "the published tables change".to_owned()
    } else {
        format!("it knows other tables than those published: {}", join(&publication.published))
    };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

/// Whether a subscription knows just these tables.
fn knows(subscription: &Subscription, tables: &BTreeSet<TableName>) -> bool {
    let mut known = subscription.tables.values();
    known.len() == tables.len() && known.all(|known| tables.contains(&known.table))
}
