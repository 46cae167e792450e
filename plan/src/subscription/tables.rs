//! What must be true of the tables of a subscription.

use super::{alterable, copies, is_table, spec, subscription, wanted_tables};
use crate::name::TableName;
use crate::observed::{NodeFacts, Relation};
use crate::rule::{Context, Verdict};
use crate::step::Operation;
use std::collections::BTreeSet;

pub(super) fn table_missing(ctx: &Context<'_>) -> Vec<Verdict> {
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

pub(super) fn column_missing(ctx: &Context<'_>) -> Vec<Verdict> {
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

pub(super) fn no_replica_identity(ctx: &Context<'_>) -> Vec<Verdict> {
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

/// Only a table's owner can publish it.
pub(super) fn not_owned(ctx: &Context<'_>) -> Vec<Verdict> {
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
/// The tables that are to be copied into and hold rows.
fn filled<'c>(ctx: &'c Context<'_>) -> impl Iterator<Item = &'c TableName> {
    let target = ctx.target.filter(|target| !target.all_empty && copies(ctx) > 0);
    let tables = target.map(|target| (target, wanted_tables(ctx))).into_iter();
    let is_filled = |target: &NodeFacts, table| target.relation(table).is_some_and(|r| r.filled);
    tables.flat_map(move |(target, tables)| {
        tables.iter().filter(move |table| is_filled(target, table))
    })
}

fn replaces(ctx: &Context<'_>) -> bool {
    spec(ctx).is_some_and(|spec| spec.replace)
}

pub(super) fn empty(ctx: &Context<'_>) -> Vec<Verdict> {
    if subscription(ctx).is_some() || !replaces(ctx) || ctx.both().is_none() {
        return vec![];
    }
    let tables: BTreeSet<TableName> = filled(ctx).cloned().collect();
    if tables.is_empty() {
        return vec![];
    }
    let danger =
        format!("\"{}\" loses all rows of these tables until they are copied", ctx.to.name);
    let operation = Operation::TruncateTables { tables };
    let reason = format!("they are copied anew from \"{}\"", ctx.from.name);
    vec![Verdict::act(ctx.to.id, operation, reason).danger(danger)]
}

pub(super) fn not_empty(ctx: &Context<'_>) -> Vec<Verdict> {
    if replaces(ctx) && subscription(ctx).is_none() {
        return vec![];
    }
    let refuse = |table: &TableName| {
        Verdict::refuse(
            ctx.to.id,
            format!("table {table} on node \"{}\" is to be copied and is not empty", ctx.to.name),
            "TRUNCATE it there. If it has what the publisher has, remove the link and add it \
             with copy_data => false instead.",
        )
    };
    filled(ctx).map(refuse).collect()
}

pub(super) fn warn_types(ctx: &Context<'_>) -> Vec<Verdict> {
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
