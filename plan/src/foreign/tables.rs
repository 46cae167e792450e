//! The tables of a foreign link: what is imported, kept like the remote tables, and dropped
//! when it has nothing to show any more.

use super::{spec, target, wanted_roles};
use crate::desired::ForeignSpec;
use crate::name::TableName;
use crate::observed::{NodeFacts, Relation};
use crate::rule::{Context, Verdict};
use crate::step::{ColumnChange, ColumnType, Operation};
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
    let (Some((source, _)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let wanted = wanted_tables(source, spec);
    let mut verdicts = Vec::new();
    for (remote, here) in imported(ctx) {
        let name = TableName::new(&spec.remote_schema, remote);
        let Some(there) = source.relation(&name).filter(|_| wanted.contains(remote)) else {
            continue;
        };
        let changes = column_changes(there, here);
        if changes.is_empty() {
            continue;
        }
        let step = Verdict::act(
            ctx.to.id,
            Operation::AlterForeignTable { table: here.name.clone(), changes },
            format!("the columns of {name} on \"{}\" have changed", ctx.from.name),
        );
        verdicts.push(step);
    }
    verdicts
}

/// What makes a foreign table's columns those of the remote table. A type that is not
/// recognizably a type is left alone.
fn column_changes(there: &Relation, here: &Relation) -> Vec<ColumnChange> {
    let mut changes = Vec::new();
    let remote_name = |column: &crate::observed::Column| {
        column.remote.clone().unwrap_or_else(|| column.name.clone())
    };
    for column in &here.columns {
        let name = column.name.clone();
        match there.column(&remote_name(column)) {
            None => changes.push(ColumnChange::Drop { name }),
            Some(other) if other.data_type != column.data_type => {
                if let Some(data_type) = ColumnType::parse(&other.data_type) {
                    changes.push(ColumnChange::Retype { name, data_type });
                }
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<String> = here.columns.iter().map(remote_name).collect();
    for column in there.columns.iter().filter(|column| !known.contains(&column.name)) {
        if let Some(data_type) = ColumnType::parse(&column.data_type) {
            changes.push(ColumnChange::Add { name: column.name.clone(), data_type });
        }
    }
    changes
}
