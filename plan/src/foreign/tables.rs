//! The tables of a foreign link: what is imported, kept like the remote tables, and dropped
//! when it has nothing to show any more.

use super::{spec, target, wanted_roles};
use crate::conninfo::Conninfo;
use crate::desired::ForeignSpec;
use crate::name::TableName;
use crate::observed::{Column, NodeFacts, Relation};
use crate::rule::{Context, Verdict};
use crate::step::{ColumnChange, ColumnType, Operation, OptionChange};
use std::collections::{BTreeMap, BTreeSet};

/// The remote tables that should be imported, as `IMPORT FOREIGN SCHEMA` chooses them
/// (`postgresImportForeignSchema`, postgres_fdw.c): partitions are left out unless listed.
fn wanted_tables(source: &NodeFacts, spec: &ForeignSpec) -> BTreeSet<String> {
    match &spec.tables {
        Some(tables) => tables.clone(),
        None => {
            let roots = source.relations_in(&spec.remote_schema).filter(|r| !r.is_partition);
            roots.map(|relation| relation.name.name.clone()).collect()
        }
    }
}

/// The remote table that a foreign table shows.
fn remote(relation: &Relation) -> &TableName {
    relation.remote.as_ref().unwrap_or(&relation.name)
}

/// Foreign tables of this link in its schema.
fn foreign_tables<'a>(ctx: &Context<'a>) -> impl Iterator<Item = &'a Relation> {
    let ours = ctx.link.name.as_str();
    let found = target(ctx).map(|(facts, spec)| facts.relations_in(&spec.local_schema));
    found.into_iter().flatten().filter(move |r| r.server.as_deref() == Some(ours))
}

/// Those that show tables of the remote schema, by the remote table's name.
fn imported<'a>(ctx: &Context<'a>) -> BTreeMap<&'a str, &'a Relation> {
    let schema = spec(ctx).map(|spec| spec.remote_schema.as_str());
    let tables = foreign_tables(ctx).filter(|r| Some(remote(r).schema.as_str()) == schema);
    tables.map(|relation| (remote(relation).name.as_str(), relation)).collect()
}

pub(super) fn drop_stale(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((source, _)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let wanted = wanted_tables(source, spec);
    let shown = |t: &TableName| t.schema == spec.remote_schema && wanted.contains(&t.name);
    let stale = foreign_tables(ctx).filter(|relation| !shown(remote(relation)));
    let drop = |relation: &Relation| {
        let operation = Operation::DropForeignTable { table: relation.name.clone() };
        let reason = format!("{} is not, or no longer, to be shown", remote(relation));
        Verdict::act(ctx.to.id, operation, reason)
            .danger("queries and views that use it fail; the remote rows stay")
    };
    stale.map(drop).collect()
}

pub(super) fn import(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((source, facts)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let wanted = wanted_tables(source, spec);
    let have = imported(ctx);
    let missing: BTreeSet<String> =
        wanted.iter().filter(|t| !have.contains_key(t.as_str())).cloned().collect();
    if missing.is_empty() {
        return vec![];
    }
    let tables = if missing.len() == 1 { "table" } else { "tables" };
    let reason = format!("{} {tables} of \"{}\"", missing.len(), ctx.from.name);
    let whole = spec.tables.is_none() && missing.len() == wanted.len();
    let me = Some(facts.role.clone());
    let operation = Operation::ImportTables {
        server: ctx.link.name.clone(),
        remote_schema: spec.remote_schema.clone(),
        local_schema: spec.local_schema.clone(),
        tables: (!whole).then_some(missing),
        grantees: wanted_roles(facts, spec).into_iter().filter(|role| *role != me).collect(),
        writable: spec.writable,
    };
    vec![Verdict::act(ctx.to.id, operation, reason)]
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
        let operation = Operation::AlterForeignTable { table: here.name.clone(), changes };
        let step = Verdict::act(ctx.to.id, operation, reason);
        Some(if dangerous { step.danger(danger) } else { step })
    };
    pairs(ctx).into_iter().filter_map(alter).collect()
}

/// `IMPORT FOREIGN SCHEMA` gives a table no options but those that name the remote one.
pub(super) fn alter_options(ctx: &Context<'_>) -> Vec<Verdict> {
    let alter = |(_, here): (&Relation, &Relation)| {
        let have = Conninfo::new(here.options.clone());
        let change = OptionChange::between(&have, &Conninfo::default());
        let reason = format!("not what the registry says: {}", change.keys());
        let operation = Operation::AlterTableOptions { table: here.name.clone(), change };
        Verdict::act(ctx.to.id, operation, reason)
    };
    let pairs = pairs(ctx).into_iter();
    pairs.filter(|(_, here)| !here.options.is_empty()).map(alter).collect()
}

/// The remote tables that are shown, each with the foreign table that shows it.
fn pairs<'a>(ctx: &Context<'a>) -> Vec<(&'a Relation, &'a Relation)> {
    let (Some((source, _)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let wanted = wanted_tables(source, spec);
    let shown = imported(ctx).into_iter().filter(|(remote, _)| wanted.contains(*remote));
    let pair = |(remote, here)| {
        Some((source.relation(&TableName::new(&spec.remote_schema, remote))?, here))
    };
    shown.filter_map(pair).collect()
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
        match ColumnType::parse(&other.data_type) {
            Some(data_type) if other.data_type != column.data_type => {
                changes.push(ColumnChange::Retype { name: name.clone(), data_type });
            }
            Some(_) | None => {}
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
fn not_shown<'a>(there: &'a Relation, here: &Relation) -> impl Iterator<Item = &'a Column> {
    let known: BTreeSet<String> =
        here.columns.iter().map(|column| remote_column(column).to_owned()).collect();
    there.columns.iter().filter(move |column| !known.contains(&column.name))
}

/// Columns to add or to retype whose type is more than a type, as far as we can read it.
pub(super) fn unknown_types(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (there, here) in pairs(ctx) {
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
