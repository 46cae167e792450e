//! The tables of a foreign link: what is imported, kept like the remote tables, and dropped
//! when it has nothing to show any more.

use super::{relations, server_name, spec};
use crate::desired::ForeignSpec;
use crate::index::{Indexed, find};
use crate::name::TableName;
use crate::observed::{Column, Relation};
use crate::rule::{Context, Verdict};
use crate::step::{ColumnChange, ColumnType, Operation, OptionChange};
use std::collections::{BTreeMap, BTreeSet};

/// A remote table that should be shown, and the foreign table that does.
pub(crate) struct Shown<'a> {
    table: &'a str,
    there: Option<&'a Relation>,
    here: Option<&'a Relation>,
}

/// The remote tables that should be imported, as `IMPORT FOREIGN SCHEMA` chooses them
/// (`postgresImportForeignSchema`, postgres_fdw.c): partitions are left out unless listed.
fn wanted<'a>(source: &Indexed<'a>, spec: &'a ForeignSpec) -> Vec<Shown<'a>> {
    let remote = source.relations_in(&spec.remote_schema);
    let shown = |table, there| Shown { table, there, here: None };
    match &spec.tables {
        Some(tables) => {
            tables.iter().map(|table| shown(table.as_str(), find(remote, table))).collect()
        }
        None => {
            let roots = remote.iter().filter(|relation| !relation.is_partition);
            roots.map(|root| shown(&root.name.name, Some(root))).collect()
        }
    }
}

/// The remote table that a foreign table shows.
fn remote(relation: &Relation) -> &TableName {
    relation.remote.as_ref().unwrap_or(&relation.name)
}

/// What the link has in the local schema: the tables on its server, of its remote schema. What
/// shows another remote schema was made by somebody else.
pub(super) fn ours<'a>(ctx: &Context<'a>) -> Vec<&'a Relation> {
    let (server, schema) = (Some(server_name(ctx)), spec(ctx).map(|spec| &spec.remote_schema));
    let is_ours = |relation: &&Relation| {
        relation.server.as_deref() == server && Some(&remote(relation).schema) == schema
    };
    relations(ctx).iter().copied().filter(is_ours).collect()
}

/// The remote tables to show, in order of their names, each with the foreign table that does:
/// the one of that name, whatever table of the remote schema it was pointed at, else one that a
/// person has renamed.
fn shown<'c, 'a>(ctx: &'c Context<'a>) -> &'c [Shown<'a>] {
    ctx.shown.get_or_init(|| {
        let (Some((source, _)), Some(spec)) = (ctx.both(), spec(ctx)) else {
            return vec![];
        };
        let mut shown = wanted(source, spec);
        let (named, renamed): (Vec<&Relation>, Vec<&Relation>) =
            ours(ctx).into_iter().partition(|here| place(&shown, &here.name.name).is_some());
        let named = named.into_iter().map(|here| (&here.name, here));
        let renamed = renamed.into_iter().map(|here| (remote(here), here));
        for (table, here) in named.chain(renamed) {
            if let Some(place) = place(&shown, &table.name) {
                shown[place].here.get_or_insert(here);
            }
        }
        shown
    })
}

/// Where a remote table is among those to show.
fn place(shown: &[Shown<'_>], table: &str) -> Option<usize> {
    shown.binary_search_by(|shown| shown.table.cmp(table)).ok()
}

/// Where a table is when the local schema has its name back.
fn at_home(spec: &ForeignSpec, table: &str) -> TableName {
    TableName::new(&spec.local_schema, table)
}

pub(super) fn drop_stale(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let shown = shown(ctx);
    let stale = |relation: &&Relation| {
        let kept = [&remote(relation).name, &relation.name.name];
        !kept.into_iter().any(|table| place(shown, table).is_some())
    };
    let drop = |relation: &Relation| {
        let table = at_home(spec, &relation.name.name);
        let reason = format!("{} is not, or no longer, to be shown", remote(relation));
        Verdict::act(ctx.to.id, Operation::DropForeignTable { table }, reason)
            .danger("queries and views that use it fail; the remote rows stay")
    };
    ours(ctx).into_iter().filter(stale).map(drop).collect()
}

/// Remote tables that no foreign table shows, and what has the name that one would get.
fn missing<'a>(ctx: &Context<'a>) -> Vec<(&'a str, Option<&'a Relation>)> {
    let missing = shown(ctx).iter().filter(|shown| shown.here.is_none());
    missing.map(|shown| (shown.table, find(relations(ctx), shown.table))).collect()
}

fn importable<'a>(ctx: &Context<'a>) -> BTreeSet<&'a str> {
    let free = missing(ctx).into_iter().filter(|(_, in_the_way)| in_the_way.is_none());
    free.map(|(table, _)| table).collect()
}

/// The link's tables as they are to be, those that are imported first included.
pub(super) fn after_import<'a>(ctx: &Context<'a>) -> Vec<(TableName, Option<&'a Relation>)> {
    let Some(spec) = spec(ctx) else {
        return vec![];
    };
    let here = shown(ctx).iter().filter_map(|shown| shown.here);
    let here = here.map(|relation| (at_home(spec, &relation.name.name), Some(relation)));
    let new = importable(ctx).into_iter().map(|table| (at_home(spec, table), None));
    here.chain(new).collect()
}

pub(super) fn import(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let missing = importable(ctx);
    if missing.is_empty() {
        return vec![];
    }
    let tables = if missing.len() == 1 { "table" } else { "tables" };
    let reason = format!("{} {tables} of \"{}\"", missing.len(), ctx.from.name);
    let whole = spec.tables.is_none() && missing.len() == shown(ctx).len();
    let operation = Operation::ImportTables {
        server: ctx.link.name.clone(),
        remote_schema: spec.remote_schema.clone(),
        local_schema: spec.local_schema.clone(),
        tables: (!whole).then(|| missing.into_iter().map(str::to_owned).collect()),
    };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

pub(super) fn in_the_way(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(spec) = spec(ctx) else {
        return vec![];
    };
    let warn = |(table, in_the_way): (&str, Option<&Relation>)| {
        let message = format!(
            "{} is in the way of a foreign table for {}",
            at_home(spec, &in_the_way?.name.name),
            TableName::new(&spec.remote_schema, table)
        );
        let hint = "Rename it or move it to another schema, then run nodes.apply() again.";
        Some(Verdict::warn(ctx.to.id, message, hint))
    };
    missing(ctx).into_iter().filter_map(warn).collect()
}

pub(super) fn alter(ctx: &Context<'_>) -> Vec<Verdict> {
    let alter = |(there, here): (&Relation, &Relation)| {
        let changes = column_changes(there, here);
        let broken: Vec<&str> = changes.iter().filter_map(ColumnChange::breaks).collect();
        let danger =
            format!("queries and views that use {} fail; the remote rows stay", broken.join(", "));
        let dangerous = !broken.is_empty();
        if changes.is_empty() {
            return None;
        }
        let reason =
            format!("the columns of {} on \"{}\" are different", there.name, ctx.from.name);
        let table = at_home(spec(ctx)?, &here.name.name);
        let operation = Operation::AlterForeignTable { table, changes };
        let step = Verdict::act(ctx.to.id, operation, reason);
        Some(if dangerous { step.danger(danger) } else { step })
    };
    unlike_pairs(ctx).filter_map(alter).collect()
}

/// `IMPORT FOREIGN SCHEMA` gives a table no options but those that name the remote one.
pub(super) fn alter_options(ctx: &Context<'_>) -> Vec<Verdict> {
    let alter = |(there, here): (&Relation, &Relation)| {
        let mut have = BTreeMap::from([("table_name", remote(here).name.as_str())]);
        have.extend(here.options.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let want = BTreeMap::from([("table_name", there.name.name.as_str())]);
        let change = OptionChange::between(&have, &want);
        if change.is_empty() {
            return None;
        }
        let reason = format!("not what the registry says: {}", change.keys());
        let table = at_home(spec(ctx)?, &here.name.name);
        Some(Verdict::act(ctx.to.id, Operation::AlterTableOptions { table, change }, reason))
    };
    // Nearly always there is nothing to compare.
    let plain = |(there, here): &(&Relation, &Relation)| {
        here.options.is_empty() && remote(here).name == there.name.name
    };
    pairs(ctx).filter(|pair| !plain(pair)).filter_map(alter).collect()
}

/// The remote tables that are shown, each with the foreign table that shows it.
fn pairs<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (&'a Relation, &'a Relation)> {
    shown(ctx).iter().filter_map(|shown| Some((shown.there?, shown.here?)))
}

/// Those of them whose columns are not the same in the same order; hardly ever there are any.
fn unlike_pairs<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (&'a Relation, &'a Relation)> {
    let unlike = |(there, here): &(&Relation, &Relation)| {
        let remote = there.columns.iter().map(|c| (c.name.as_str(), &c.data_type, c.not_null));
        remote.ne(here.columns.iter().map(|c| (remote_column(c), &c.data_type, c.not_null)))
    };
    pairs(ctx).filter(unlike)
}

/// The remote column that a foreign table's column shows.
fn remote_column(column: &Column) -> &str {
    column.remote.as_ref().unwrap_or(&column.name)
}

/// What makes a foreign table's columns those of the remote table; a type that is not
/// recognizably a type is left to [`unknown_types`].
fn column_changes(there: &Relation, here: &Relation) -> Vec<ColumnChange> {
    let mut changes = Vec::new();
    for column in &here.columns {
        let name = column.name.clone();
        let Some(other) = there.column(remote_column(column)) else {
            changes.push(ColumnChange::Drop { name });
            continue;
        };
        if other.data_type != column.data_type {
            let retype = |data_type| ColumnChange::Retype { name: name.clone(), data_type };
            changes.extend(ColumnType::parse(&other.data_type).map(retype));
        }
        match (column.not_null, other.not_null) {
            (false, true) => changes.push(ColumnChange::SetNotNull { name }),
            (true, false) => changes.push(ColumnChange::DropNotNull { name }),
            (true, true) | (false, false) => {}
        }
    }
    let add = |column: &Column| {
        let data_type = ColumnType::parse(&column.data_type)?;
        let (name, not_null) = (column.name.clone(), column.not_null);
        Some(ColumnChange::Add { name, data_type, not_null })
    };
    changes.extend(not_shown(there, here).filter_map(add));
    changes
}

/// Remote columns that the foreign table lacks.
fn not_shown<'a>(there: &'a Relation, here: &'a Relation) -> impl Iterator<Item = &'a Column> {
    let known: BTreeSet<&str> = here.columns.iter().map(remote_column).collect();
    there.columns.iter().filter(move |column| !known.contains(column.name.as_str()))
}

/// Columns to add or to retype whose type is more than a type, as far as we can read it.
pub(super) fn unknown_types(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (there, here) in unlike_pairs(ctx) {
        let retyped = here.columns.iter().filter_map(|column| {
            there.column(remote_column(column)).filter(|other| other.data_type != column.data_type)
        });
        let unknown = retyped.chain(not_shown(there, here));
        for column in unknown.filter(|column| ColumnType::parse(&column.data_type).is_none()) {
            let message = format!(
                "type {} of column \"{}\" of {} on \"{}\" cannot be read as a type",
                column.data_type, column.name, there.name, ctx.from.name
            );
            let hint = format!("Give {} that column by hand, with that type.", here.name);
            verdicts.push(Verdict::warn(ctx.to.id, message, hint));
        }
    }
    verdicts
}
