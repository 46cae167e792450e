//! The rules of a subscription link: `from` is the publisher, `to` the subscriber. What is
//! made: a publication and a logical slot there, a subscription here, enabled last.

use crate::claims::{Claims, Lacking, Leftover};
use crate::desired::{LinkId, PUBLICATION_OPTIONS, SUBSCRIPTION_OPTIONS, Spec, SubscriptionSpec};
use crate::index::{Indexed, find_named};
use crate::name::TableName;
use crate::observed::{NodeFacts, Publication, Relation, Slot, Subscription};
use crate::quote::ident;
use crate::refuse::{Headroom, cannot_drop_slot, cannot_make_slot, name_taken, read_only};
use crate::rule::{Context, Rule, Table, Verdict};
use crate::step::Operation;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const TABLE: Table = Table {
    forbid: FORBID,
    follow: FOLLOW,
    refuse: REFUSE,
    keep: KEEP,
    remove: REMOVE,
    lacking,
    leftover,
};

const FORBID: &[Rule] = &[
    Rule { id: "SU01", when: "publisher and subscriber are one group", then: same_group },
    Rule { id: "SU03", when: "the subscriber is read-only", then: subscriber_read_only },
    Rule { id: "SU08", when: "a role lacks the rights", then: no_rights },
];

const FOLLOW: &[Rule] = &[
    Rule { id: "SU25", when: "the subscription's conninfo is not right", then: set_conninfo },
    Rule { id: "SU36", when: "the subscription of a paused link is enabled", then: pause },
];

const REFUSE: &[Rule] = &[
    Rule { id: "SU02", when: "the publisher is read-only", then: publisher_read_only },
    Rule { id: "SU04", when: "wal_level of the publisher is not logical", then: not_logical },
    Rule { id: "SU05", when: "the publisher allows no pgoutput plugin", then: no_plugin },
    Rule {
        id: "SU06",
        when: "the publisher has no free slot or walsender",
        then: no_publisher_room,
    },
    Rule {
        id: "SU07",
        when: "the subscriber has no free worker or origin",
        then: no_subscriber_room,
    },
    Rule { id: "SU09", when: "the publication's name is taken", then: publication_taken },
    Rule { id: "SU10", when: "the subscription's name is taken", then: subscription_taken },
    Rule { id: "SU11", when: "a table is missing on a side", then: table_missing },
    Rule { id: "SU12", when: "a column is missing on the subscriber", then: column_missing },
    Rule { id: "SU13", when: "a table has no replica identity", then: no_replica_identity },
    Rule { id: "SU14", when: "the slot is gone or lost", then: slot_lost },
    Rule { id: "SU15", when: "an option needs a newer subscriber", then: option_too_new },
    Rule { id: "SU16", when: "the role on the publisher lacks the rights", then: cannot_publish },
    Rule { id: "SU17", when: "a table to publish has another owner", then: not_owned },
    Rule { id: "SU18", when: "a table to copy into is not empty", then: not_empty },
];

const KEEP: &[Rule] = &[
    Rule { id: "SU32", when: "the publication has another name", then: rename_publication },
    Rule { id: "SU33", when: "the subscription has another name", then: rename_subscription },
    Rule {
        id: "SU20",
        when: "the publication is missing or FOR ALL TABLES",
        then: create_publication,
    },
    Rule { id: "SU34", when: "the publication holds rows or columns back", then: relist_tables },
    Rule { id: "SU21", when: "the publication's tables are not right", then: set_tables },
    Rule { id: "SU35", when: "the publication lists whole schemas", then: drop_schemas },
    Rule {
        id: "SU22",
        when: "the publication's options are not right",
        then: set_publication_options,
    },
    Rule { id: "SU23", when: "slot and subscription are missing", then: create_slot },
    Rule { id: "SU24", when: "the subscription is missing", then: create_subscription },
    Rule { id: "SU26", when: "the subscription reads other publications", then: set_publication },
    Rule { id: "SU27", when: "the subscription reads another slot", then: set_slot },
    Rule { id: "SU28", when: "the subscription's options are not right", then: set_options },
    Rule { id: "SU29", when: "the subscription is not enabled", then: set_enabled },
    Rule { id: "SU30", when: "the subscription does not know the published tables", then: refresh },
    Rule { id: "SU31", when: "a new subscription finds columns of other types", then: warn_types },
];

const REMOVE: &[Rule] = &[
    Rule {
        id: "SU37",
        when: "the role on the publisher may not drop the slot",
        then: no_slot_drop,
    },
    Rule { id: "SU38", when: "the subscriber has become read-only", then: cannot_drop_here },
    Rule { id: "SU39", when: "the publisher has become read-only", then: cannot_drop_there },
    Rule { id: "SU40", when: "the subscription is still there", then: drop_subscription },
    Rule { id: "SU41", when: "slots of an interrupted copy are left", then: drop_copy_slots },
    Rule { id: "SU42", when: "the slot is still there", then: drop_slot },
    Rule { id: "SU43", when: "the publication is still there", then: drop_publication },
];

fn spec<'a>(ctx: &Context<'a>) -> Option<&'a SubscriptionSpec> {
    match &ctx.link.spec {
        Spec::Subscription(spec) => Some(spec),
        Spec::Standby(_) | Spec::Foreign(_) => None,
    }
}

/// The publication is called like the link, but not where the name has a backslash: an apply
/// worker quotes the publications it asks for with `PQescapeLiteral`, whose `E''` form the
/// replication grammar does not know (`libpqrcv_startstreaming`, libpqwalreceiver.c).
fn publication_name<'c>(ctx: &'c Context<'_>) -> &'c str {
    if ctx.link.name.contains('\\') { ctx.slot() } else { &ctx.link.name }
}

/// Our publication, known by our mark: it may have been renamed.
fn publication<'a>(ctx: &Context<'a>) -> Option<&'a Publication> {
    find_named(ctx.made_there.publications, publication_name(ctx))
}

/// Our publication, where it can be made right by altering it.
fn alterable<'a>(ctx: &Context<'a>) -> Option<&'a Publication> {
    publication(ctx).filter(|found| !found.all_tables)
}

/// Our subscription, known by our mark: it may have been renamed.
fn subscription<'a>(ctx: &Context<'a>) -> Option<&'a Subscription> {
    find_named(ctx.made_here.subscriptions, &ctx.link.name)
}

fn same_group(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn publisher_read_only(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = ctx.source.and_then(|source| read_only(ctx.from.id, &ctx.from.name, source));
    found.into_iter().collect()
}

fn subscriber_read_only(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = ctx.target.and_then(|target| read_only(ctx.to.id, &ctx.to.name, target));
    found.into_iter().collect()
}

fn not_logical(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.source.and_then(|source| source.setting("wal_level")) {
        Some(level) if level != "logical" => vec![Verdict::refuse(
            ctx.from.id,
            format!("wal_level on node \"{}\" is {level}", ctx.from.name),
            "Run ALTER SYSTEM SET wal_level = logical there and restart that server.",
        )],
        Some(_) | None => vec![],
    }
}

fn no_plugin(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn no_publisher_room(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn copies(ctx: &Context<'_>) -> i64 {
    spec(ctx).map_or(0, SubscriptionSpec::copies)
}

fn no_subscriber_room(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn lacking(ctx: &Context<'_>) -> Lacking {
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
fn leftover(ctx: &Context<'_>) -> Leftover {
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

fn no_rights(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn publication_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = ctx.source.and_then(|source| source.publication(publication_name(ctx)))
    else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.from.id, "publication", &found.name, comment, &ctx.mark).into_iter().collect()
}

fn subscription_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = ctx.target.and_then(|target| target.subscription(&ctx.link.name)) else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.to.id, "subscription", &found.name, comment, &ctx.mark).into_iter().collect()
}

/// The tables that the publication should list, as far as they are known. All tables are
/// listed too, never `FOR ALL TABLES`: that would publish the tables of extensions, ours with
/// its secrets among them, and could not be altered in place.
fn wanted_tables<'c>(ctx: &'c Context<'_>) -> &'c BTreeSet<TableName> {
    ctx.tables.get_or_init(|| match spec(ctx).and_then(|spec| spec.tables.as_ref()) {
        Some(tables) => Cow::Borrowed(tables),
        None => {
            let relations = ctx.source.map_or(&[][..], |source| &source.relations);
            let roots = relations.iter().filter(|r| is_table(r) && !r.is_partition);
            Cow::Owned(roots.filter(|r| !r.of_extension).map(|r| r.name.clone()).collect())
        }
    })
}

fn is_table(relation: &Relation) -> bool {
    relation.kind == "r" || relation.kind == "p"
}

fn table_missing(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let sides = [(ctx.from, ctx.source), (ctx.to, ctx.target)];
    for (node, facts) in sides {
        let Some(facts) = facts else { continue };
        for table in wanted_tables(ctx) {
            if facts.relation(table).is_some_and(is_table) {
                continue;
            }
            verdicts.push(Verdict::refuse(
                node.id,
                format!("table {table} does not exist on node \"{}\"", node.name),
                "Create it there (pg_dump --schema-only helps), \
                 or take it off the list with nodes.alter_link().",
            ));
        }
    }
    verdicts
}

/// Every wanted table that both sides have.
fn table_pairs<'a>(ctx: &Context<'a>) -> Vec<(&'a Relation, &'a Relation)> {
    let Some((source, target)) = ctx.both() else {
        return vec![];
    };
    let tables = wanted_tables(ctx);
    tables.iter().filter_map(|t| Some((source.relation(t)?, target.relation(t)?))).collect()
}

fn column_missing(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (there, here) in table_pairs(ctx) {
        let published = there.columns.iter().filter(|column| !column.generated);
        for column in published.filter(|column| here.column(&column.name).is_none()) {
            verdicts.push(Verdict::refuse(
                ctx.to.id,
                format!(
                    "column \"{}\" of table {} does not exist on node \"{}\"",
                    column.name, there.name, ctx.to.name
                ),
                format!("Add it there: its type on \"{}\" is {}.", ctx.from.name, column.data_type),
            ));
        }
    }
    verdicts
}

fn no_replica_identity(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(source), Some(spec)) = (ctx.source, spec(ctx)) else {
        return vec![];
    };
    let publish = spec.options.get("publish").map_or("update", String::as_str);
    if !publish.contains("update") && !publish.contains("delete") {
        return vec![];
    }
    let tables = wanted_tables(ctx);
    let relations = tables.iter().filter_map(|table| source.relation(table));
    let bare = relations.filter(|relation| !relation.replica_identity);
    let refuse = |relation: &Relation| {
        Verdict::refuse(
            ctx.from.id,
            format!(
                "table {} on node \"{}\" has no replica identity: \
                 once published, UPDATE and DELETE on it would fail",
                relation.name, ctx.from.name
            ),
            "Give it a primary key, or run ALTER TABLE … REPLICA IDENTITY FULL, \
             or publish inserts only: options => '{\"publish\": \"insert\"}'.",
        )
    };
    bare.map(refuse).collect()
}

fn slot_lost(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(source), Some(_)) = (ctx.source, subscription(ctx)) else {
        return vec![];
    };
    let what = match source.slot(ctx.slot()) {
        Some(slot) if slot.wal_status.as_deref() == Some("lost") => "has lost its WAL",
        Some(_) => return vec![],
        None => "is gone",
    };
    vec![Verdict::refuse(
        ctx.from.id,
        format!(
            "slot \"{}\" of subscription \"{}\" {what}: changes have been missed",
            ctx.slot(),
            ctx.link.name
        ),
        "Remove the link, run nodes.apply(), empty the tables on the subscriber \
         and add the subscription again: it copies them anew.",
    )]
}

/// PostgreSQL 15 knows neither these options nor this value.
fn needs_16(option: &str, value: &str) -> bool {
    matches!(option, "origin" | "run_as_owner" | "password_required")
        || (option == "streaming" && value == "parallel")
}

fn option_too_new(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn cannot_publish(ctx: &Context<'_>) -> Vec<Verdict> {
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

/// Only a table's owner can publish it.
fn not_owned(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(source) = ctx.source.filter(|source| !source.all_owned) else {
        return vec![];
    };
    let listed = |table: &TableName| {
        alterable(ctx).is_some_and(|p| p.tables.contains(table) && !p.filtered.contains(table))
    };
    let tables = wanted_tables(ctx);
    let to_list = tables.iter().filter(|table| !listed(table));
    let others = to_list.filter(|table| source.relation(table).is_some_and(|r| !r.owned));
    let refuse = |table: &TableName| {
        let (role, node) = (&source.role, &ctx.from.name);
        Verdict::refuse(
            ctx.from.id,
            format!("role \"{role}\" on node \"{node}\" is not the owner of table {table}"),
            "Make it the owner, or GRANT it the owner's role there, \
             or give the node an admin_conninfo of the owner.",
        )
    };
    others.map(refuse).collect()
}

/// A copy into a table that holds rows fails on the first that is there already, again and
/// again, or doubles it. So it is after somebody dropped the subscription by hand.
fn not_empty(ctx: &Context<'_>) -> Vec<Verdict> {
    let some = ctx.target.filter(|target| !target.all_empty);
    let (Some(target), true) = (some, copies(ctx) > 0) else {
        return vec![];
    };
    let tables = wanted_tables(ctx);
    let filled = tables.iter().filter(|table| target.relation(table).is_some_and(|r| r.filled));
    let refuse = |table: &TableName| {
        Verdict::refuse(
            ctx.to.id,
            format!("table {table} on node \"{}\" is to be copied and is not empty", ctx.to.name),
            "TRUNCATE it there. If it has what the publisher has, remove the link and add it \
             with copy_data => false instead.",
        )
    };
    filled.map(refuse).collect()
}

/// Renamed first: the steps after it call it by its right name.
fn rename_publication(ctx: &Context<'_>) -> Vec<Verdict> {
    let to = publication_name(ctx);
    let found = alterable(ctx).filter(|found| found.name != to);
    let (Some(source), Some(found)) = (ctx.source, found) else {
        return vec![];
    };
    let reason = format!("it bears the link's mark and was called \"{to}\"");
    let unseen = subscription(ctx).map(|_| match source.major() {
        ..18 => format!(
            "what changed meanwhile stops \"{}\": if so, ALTER SUBSCRIPTION {} SET PUBLICATION {} \
             WITH (refresh = false) there, and nodes.apply() when it has gone on",
            ctx.to.name,
            ident(&ctx.link.name),
            ident(&found.name)
        ),
        _ => absence(ctx, source),
    });
    let operation = Operation::RenamePublication { name: found.name.clone(), to: to.to_owned() };
    vec![Verdict::act(ctx.from.id, operation, reason).danger_if(unseen)]
}

/// What it means that a publication was missing under its name for a while. Changes are decoded
/// with the catalog of their time: before 18 one that finds no publication is an error for ever
/// (`LoadPublications`, pgoutput.c), from 18 on it is skipped.
fn absence(ctx: &Context<'_>, source: &NodeFacts) -> String {
    let to = &ctx.to.name;
    if source.major() < 18 {
        format!("if rows changed meanwhile, \"{to}\" cannot go on: then make the link anew")
    } else {
        format!("\"{to}\" lacks what changed meanwhile")
    }
}

fn rename_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
    let to = ctx.link.name.clone();
    let Some(found) = subscription(ctx).filter(|found| found.name != to) else {
        return vec![];
    };
    let reason = format!("it bears the link's mark and was called \"{to}\"");
    let operation = Operation::RenameSubscription { name: found.name.clone(), to };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

/// Missing, or `FOR ALL TABLES`, which cannot be altered in place: then both steps are one
/// transaction, and no change finds it missing.
fn create_publication(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((source, _)), Some(spec), None) = (ctx.both(), spec(ctx), alterable(ctx)) else {
        return vec![];
    };
    let found = publication(ctx);
    let drop = found.map(|found| {
        let operation = Operation::DropPublication { name: found.name.clone() };
        let danger = format!("\"{}\" receives no more changes of other tables", ctx.to.name);
        Verdict::act(ctx.from.id, operation, "it is FOR ALL TABLES").danger(danger)
    });
    let operation = Operation::CreatePublication {
        name: publication_name(ctx).to_owned(),
        tables: wanted_tables(ctx).clone(),
        options: spec.publication_options(),
        mark: ctx.mark.clone(),
    };
    let reason = format!("offers the tables to \"{}\"", ctx.to.name);
    let unseen = (found.is_none() && subscription(ctx).is_some()).then(|| absence(ctx, source));
    let create = Verdict::act(ctx.from.id, operation, reason).danger_if(unseen);
    drop.into_iter().chain([create]).collect()
}

/// A row filter or column list is taken off: what it held back was not sent, and is not copied
/// again.
fn relist_tables(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = alterable(ctx).filter(|found| !found.filtered.is_empty()) else {
        return vec![];
    };
    let tables: BTreeSet<_> = wanted_tables(ctx).intersection(&found.filtered).cloned().collect();
    if tables.is_empty() {
        return vec![];
    }
    let reason = format!("{} should be in it whole, without filter", join(&tables));
    let danger = known(ctx, &tables).map(|known| {
        let to = &ctx.to.name;
        format!("\"{to}\" lacks what the filter held back of {known}; it is not copied again")
    });
    let name = publication_name(ctx).to_owned();
    let operation = Operation::RelistPublicationTables { name, tables };
    vec![Verdict::act(ctx.from.id, operation, reason).danger_if(danger)]
}

/// The names of those tables that the subscription knows: refreshed, it does not copy them
/// again.
fn known(ctx: &Context<'_>, tables: &BTreeSet<TableName>) -> Option<String> {
    let known: BTreeSet<_> =
        subscription(ctx)?.table_names().intersection(tables).cloned().collect();
    (!known.is_empty()).then(|| join(&known))
}

fn set_tables(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = alterable(ctx) else {
        return vec![];
    };
    let (name, to, wanted) = (publication_name(ctx), &ctx.to.name, wanted_tables(ctx));
    if found.tables == *wanted {
        return vec![];
    }
    let missing: BTreeSet<_> = wanted.difference(&found.tables).cloned().collect();
    let extra: BTreeSet<_> = found.tables.difference(wanted).cloned().collect();
    let mut verdicts = Vec::new();
    if !missing.is_empty() {
        let reason = format!("it lacks {}", join(&missing));
        let danger = known(ctx, &missing)
            .map(|unseen| format!("\"{to}\" lacks what changed meanwhile in {unseen}"));
        let operation = Operation::AddPublicationTables { name: name.to_owned(), tables: missing };
        verdicts.push(Verdict::act(ctx.from.id, operation, reason).danger_if(danger));
    }
    // Nothing is taken from a subscriber that is not heard.
    if !extra.is_empty() && ctx.target.is_some() {
        let extra_names = join(&extra);
        let reason = format!("{extra_names} should not be in it");
        let danger = format!("\"{to}\" receives no more changes of {extra_names}; its rows stay");
        let operation = Operation::DropPublicationTables { name: name.to_owned(), tables: extra };
        verdicts.push(Verdict::act(ctx.from.id, operation, reason).danger(danger));
    }
    verdicts
}

fn drop_schemas(ctx: &Context<'_>) -> Vec<Verdict> {
    let schemas = alterable(ctx).map(|found| found.schemas.clone()).unwrap_or_default();
    // Nothing is taken from a subscriber that is not heard.
    if schemas.is_empty() || ctx.target.is_none() {
        return vec![];
    }
    let names = schemas.iter().map(|schema| ident(schema)).collect::<Vec<_>>().join(", ");
    let reason = format!("it should list tables, not all of schema {names}");
    let danger = format!(
        "\"{}\" receives no more changes of other tables in {names}; its rows stay",
        ctx.to.name
    );
    let name = publication_name(ctx).to_owned();
    let operation = Operation::DropPublicationSchemas { name, schemas };
    vec![Verdict::act(ctx.from.id, operation, reason).danger(danger)]
}

fn join(tables: &BTreeSet<TableName>) -> String {
    tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ")
}

/// The wanted options that the object does not have.
fn option_drift(
    have: &BTreeMap<String, String>,
    want: BTreeMap<&str, &str>,
) -> BTreeMap<String, String> {
    let drift = want.into_iter().filter(|(key, value)| have.get(*key).is_none_or(|v| v != value));
    drift.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn set_publication_options(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(found), Some(spec)) = (alterable(ctx), spec(ctx)) else {
        return vec![];
    };
    let options = option_drift(&found.options, wanted_publication_options(spec));
    if options.is_empty() {
        return vec![];
    }
    let reason = "its options are not those of the link";
    let name = publication_name(ctx).to_owned();
    let operation = Operation::SetPublicationOptions { name, options };
    vec![Verdict::act(ctx.from.id, operation, reason)]
}

/// The options of the link, and Postgres' defaults for those it does not name.
fn wanted_publication_options(spec: &SubscriptionSpec) -> BTreeMap<&str, &str> {
    let mut options = BTreeMap::from([
        ("publish", "insert, update, delete, truncate"),
        ("publish_via_partition_root", "false"),
    ]);
    options.extend(spec.options_in(PUBLICATION_OPTIONS));
    options
}

fn create_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, _)) = ctx.both() else {
        return vec![];
    };
    if source.slot(ctx.slot()).is_some() || subscription(ctx).is_some() {
        return vec![];
    }
    let reason = format!("keeps changes for \"{}\" from here on", ctx.to.name);
    vec![Verdict::act(
        ctx.from.id,
        Operation::CreateLogicalSlot { slot: ctx.slot().to_owned() },
        reason,
    )]
}

fn create_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    if subscription(ctx).is_some() {
        return vec![];
    }
    let operation = Operation::CreateSubscription {
        name: ctx.link.name.clone(),
        conninfo: ctx.from.conninfo.clone(),
        publication: publication_name(ctx).to_owned(),
        slot: ctx.slot().to_owned(),
        copy_data: spec.copy_data,
        options: spec.subscription_options(),
        comment: ctx.comment(),
    };
    let reason = format!("receives from \"{}\"; enabled in a later step", ctx.from.name);
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

fn set_conninfo(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx) else {
        return vec![];
    };
    // Who may not read it sees by the comment of which conninfo it was made.
    let right = found.conninfo.as_ref().is_none_or(|found| *found == ctx.from.conninfo);
    if right && ctx.is_current(found.comment.as_deref()) {
        return vec![];
    }
    let operation = Operation::SetSubscriptionConninfo {
        name: found.name.clone(),
        conninfo: ctx.from.conninfo.clone(),
        comment: ctx.comment(),
    };
    let reason = format!("it does not say what the registry says of \"{}\"", ctx.from.name);
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

fn set_publication(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn set_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx) else {
        return vec![];
    };
    if found.slot.as_deref() == Some(ctx.slot()) {
        return vec![];
    }
    let name = ctx.link.name.clone();
    let set = Operation::SetSubscriptionSlot { name: name.clone(), slot: ctx.slot().to_owned() };
    let mut verdicts = Vec::new();
    // The slot of an enabled subscription cannot be changed. That of a paused link is disabled
    // already.
    let enabled = found.enabled && !ctx.paused();
    if enabled {
        let disable = Verdict::act(
            ctx.to.id,
            Operation::DisableSubscription { name: name.clone() },
            "its slot is changed",
        );
        let danger = format!("\"{}\" receives nothing until it is enabled again", ctx.to.name);
        verdicts.push(disable.danger(danger));
    }
    verdicts.push(Verdict::act(ctx.to.id, set, "it reads another slot than the link's"));
    if enabled {
        verdicts.push(Verdict::act(
            ctx.to.id,
            Operation::EnableSubscription { name },
            "its slot was changed",
        ));
    }
    verdicts
}

fn set_options(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn pause(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = subscription(ctx).filter(|s| ctx.paused() && s.enabled) else {
        return vec![];
    };
    let operation = Operation::DisableSubscription { name: found.name.clone() };
    let step = Verdict::act(ctx.to.id, operation, "the link is paused");
    vec![step.danger(format!("\"{}\" keeps WAL while the link is paused", ctx.from.name))]
}

fn set_enabled(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn refresh(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn warn_types(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if subscription(ctx).is_some() {
        return verdicts;
    }
    for (there, here) in table_pairs(ctx) {
        for column in &there.columns {
            let Some(other) = here.column(&column.name) else {
                continue;
            };
            if other.data_type != column.data_type {
                verdicts.push(Verdict::warn(
                    ctx.to.id,
                    format!(
                        "column \"{}\" of table {} is {} on \"{}\" and {} on \"{}\"",
                        column.name,
                        there.name,
                        column.data_type,
                        ctx.from.name,
                        other.data_type,
                        ctx.to.name
                    ),
                    "Values travel as text: make sure that each can be read as the other type.",
                ));
            }
        }
    }
    verdicts
}

/// Why our subscription cannot be dropped, though it should be.
fn cannot_drop_here(ctx: &Context<'_>) -> Vec<Verdict> {
    match (ctx.target, subscription(ctx)) {
        (Some(target), Some(_)) => read_only(ctx.to.id, &ctx.to.name, target).into_iter().collect(),
        (Some(_) | None, _) => vec![],
    }
}

/// Why the link's slots cannot be dropped, though they should be.
fn no_slot_drop(ctx: &Context<'_>) -> Vec<Verdict> {
    let left = |source: &&Indexed<'_>| {
        source.slot(ctx.slot()).is_some() || !orphaned_copy_slots(ctx).is_empty()
    };
    let source = ctx.source.filter(left);
    source.and_then(|source| cannot_drop_slot(ctx.from, source)).into_iter().collect()
}

/// Whether the subscriber goes on: then it needs slot and publication.
fn is_held(ctx: &Context<'_>) -> bool {
    !cannot_drop_here(ctx).is_empty() || !no_slot_drop(ctx).is_empty()
}

/// Why our publication cannot be dropped, though it should be.
fn cannot_drop_there(ctx: &Context<'_>) -> Vec<Verdict> {
    match (ctx.source, publication(ctx)) {
        (Some(source), Some(_)) => {
            read_only(ctx.from.id, &ctx.from.name, source).into_iter().collect()
        }
        (Some(_) | None, _) => vec![],
    }
}

fn drop_subscription(ctx: &Context<'_>) -> Vec<Verdict> {
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

/// Slots of table copies are named `pg_<subscription oid>_sync_<table oid>_<system identifier>`
/// (`ReplicationSlotNameForTablesync`, tablesync.c). Nobody will ever read one whose subscription
/// the subscriber does not have, in any database. That is proved only by a server that is no
/// standby and was asked after the slot was seen: a subscription is there before its slots.
fn orphaned_copy_slots<'a>(ctx: &Context<'a>) -> Vec<&'a Slot> {
    let Some(target) = ctx.target else {
        return vec![];
    };
    let orphan = |(_, oid): &(&Slot, u32)| !target.subscription_oids.contains(oid);
    copy_slots(ctx).filter(orphan).map(|(slot, _)| slot).collect()
}

/// Slots of copies to the subscriber, each with the oid of its subscription.
fn copy_slots<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (&'a Slot, u32)> {
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

fn drop_copy_slots(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn drop_slot(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn drop_publication(ctx: &Context<'_>) -> Vec<Verdict> {
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
