//! What must be true of two servers and the roles on them before a subscription is made or
//! extended.

use super::{alterable, publication_name, spec, subscription};
use crate::index::Indexed;
use crate::observed::{NodeFacts, Subscription};
use crate::quote::{ident, literal};
use crate::refuse::{cannot_make_slot, name_taken, read_only};
use crate::rule::{Context, Verdict};

pub(super) fn same_group(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.both() {
        Some((source, target)) if source.system_identifier == target.system_identifier => {
            let message = format!(
                "nodes \"{}\" and \"{}\" belong to one group (system identifier {})",
                ctx.from.name, ctx.to.name, source.system_identifier
            );
            let hint = "A standby has all data of its primary already; \
                        remove the subscription with nodes.remove_link().";
            vec![Verdict::refuse(ctx.to.id, message, hint)]
        }
        Some(_) | None => vec![],
    }
}

pub(super) fn publisher_read_only(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = ctx.source.and_then(|source| read_only(ctx.from.id, &ctx.from.name, source));
    found.into_iter().collect()
}

pub(super) fn subscriber_read_only(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = ctx.target.and_then(|target| read_only(ctx.to.id, &ctx.to.name, target));
    found.into_iter().collect()
}

pub(super) fn not_logical(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.source.and_then(|source| source.setting("wal_level")) {
        Some(level) if level != "logical" => vec![Verdict::refuse(
            ctx.from.id,
            format!("wal_level on node \"{}\" is {level}", ctx.from.name),
            "Run ALTER SYSTEM SET wal_level = logical there and restart that server.",
        )],
        Some(_) | None => vec![],
    }
}

pub(super) fn no_plugin(ctx: &Context<'_>) -> Vec<Verdict> {
    let allowed = ctx.source.and_then(|source| source.setting("output_plugin_libraries"));
    match allowed {
        Some(list) if !list.split(',').any(|name| name.trim() == "pgoutput") => {
            vec![Verdict::refuse(
                ctx.from.id,
                format!("output_plugin_libraries on node \"{}\" lacks pgoutput", ctx.from.name),
                "Add pgoutput to output_plugin_libraries there and reload.",
            )]
        }
        Some(_) | None => vec![],
    }
}

pub(super) fn no_rights(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let Some(target) = ctx.target.filter(|target| !target.superuser) {
        verdicts.extend(subscriber_rights(ctx, target));
    }
    let Some(source) = ctx.source else {
        return verdicts;
    };
    let user = ctx.from.conninfo.get("user").and_then(|user| source.role(user));
    if let Some(role) = user.filter(|role| !role.superuser && !role.replication) {
        verdicts.push(Verdict::refuse(
            ctx.from.id,
            format!("role \"{}\" on node \"{}\" may not replicate", role.name, ctx.from.name),
            "Run ALTER ROLE … REPLICATION there.",
        ));
    }
    verdicts
}

fn subscriber_rights(ctx: &Context<'_>, target: &NodeFacts) -> Option<Verdict> {
    let (role, node) = (&target.role, &ctx.to.name);
    if target.major() < 16 {
        return Some(Verdict::refuse(
            ctx.to.id,
            format!("role \"{role}\" on node \"{node}\" is not a superuser"),
            "PostgreSQL 15 lets only superusers subscribe: \
             give the node an admin_conninfo of a superuser.",
        ));
    }
    if !target.can_create_subscription {
        return Some(Verdict::refuse(
            ctx.to.id,
            format!("role \"{role}\" on node \"{node}\" may not create subscriptions"),
            "Run GRANT pg_create_subscription TO that role, \
             or give the node an admin_conninfo of a superuser.",
        ));
    }
    ctx.from.conninfo.password().is_none().then(|| {
        Verdict::refuse(
            ctx.from.id,
            format!(
                "node \"{}\" has no password, and role \"{role}\" on node \"{node}\" \
                 is not a superuser",
                ctx.from.name
            ),
            "Set one with nodes.set_password(), \
             or give the subscriber an admin_conninfo of a superuser.",
        )
    })
}

pub(super) fn publication_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = ctx.source.and_then(|source| source.publication(publication_name(ctx)))
    else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.from.id, "publication", &found.name, comment, &ctx.mark).into_iter().collect()
}

pub(super) fn subscription_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = ctx.target.and_then(|target| target.subscription(&ctx.link.name)) else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.to.id, "subscription", &found.name, comment, &ctx.mark).into_iter().collect()
}

/// What became of the link's slot, where it can serve no more.
pub(super) fn lost(ctx: &Context<'_>, source: &Indexed<'_>) -> Option<&'static str> {
    match source.slot(ctx.slot()) {
        Some(slot) if slot.wal_status.as_deref() == Some("lost") => Some("has lost its WAL"),
        Some(_) => None,
        None => Some("is gone"),
    }
}

pub(super) fn slot_lost(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(source), Some(found)) = (ctx.source, subscription(ctx)) else {
        return vec![];
    };
    let Some(what) = lost(ctx, source) else { return vec![] };
    vec![Verdict::refuse(
        ctx.from.id,
        format!(
            "slot \"{}\" of subscription \"{}\" {what}: {}",
            ctx.slot(),
            ctx.link.name,
            missed(ctx, source, found)
        ),
        format!(
            "SELECT nodes.resync({}) empties the tables on \"{}\" and copies them anew.",
            literal(&ctx.link.name),
            ctx.to.name
        ),
    )]
}

/// Which changes the subscriber does not have. A position tells no timeline: one that has gone past
/// where the publisher left a timeline since it has copied may have come from the one or the other.
fn missed(ctx: &Context<'_>, source: &NodeFacts, found: &Subscription) -> String {
    let until = match source.lsn.0 {
        Some(lsn) => format!(" to {lsn}"),
        None => String::new(),
    };
    let more = "and more until a new slot is made";
    let Some(applied) = found.applied.0.max(found.copied) else {
        return format!("changes{until} have been missed, {more}");
    };
    let Some((timeline, left)) =
        source.past.left_between(found.copied.unwrap_or_default(), applied)
    else {
        return format!("all changes from {applied}{until} have been missed, {more}");
    };
    format!(
        "\"{}\" left timeline {timeline} at {left}, and \"{}\" has applied up to {applied}: changes \
         from {left}{until} may have been missed, {more}, and what it has from there may be lost",
        ctx.from.name, ctx.to.name
    )
}

/// PostgreSQL 15 knows neither these options nor this value.
fn needs_16(option: &str, value: &str) -> bool {
    matches!(option, "origin" | "run_as_owner" | "password_required")
        || (option == "streaming" && value == "parallel")
}

pub(super) fn option_too_new(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(target), Some(spec)) = (ctx.target.filter(|t| t.major() < 16), spec(ctx)) else {
        return vec![];
    };
    let options = spec.subscription_options();
    let refuse = |(option, value): (&String, &String)| {
        let message = format!(
            "option {option} = {value} needs PostgreSQL 16 or newer on node \"{}\", \
             which runs {}",
            ctx.to.name,
            target.major()
        );
        let hint = "Take the option out with nodes.alter_link(), or upgrade that server.";
        Verdict::refuse(ctx.to.id, message, hint)
    };
    options.iter().filter(|(option, value)| needs_16(option, value)).map(refuse).collect()
}

pub(super) fn cannot_publish(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(source) = ctx.source else {
        return vec![];
    };
    let mut verdicts = Vec::new();
    if source.slot(ctx.slot()).is_none() {
        verdicts.extend(cannot_make_slot(ctx.from, source));
    }
    if alterable(ctx).is_none() && !source.can_create {
        let (role, node, database) = (&source.role, &ctx.from.name, &source.database);
        verdicts.push(Verdict::refuse(
            ctx.from.id,
            format!("role \"{role}\" on node \"{node}\" may not create publications"),
            format!("Run GRANT CREATE ON DATABASE {} TO that role there.", ident(database)),
        ));
    }
    verdicts
}
