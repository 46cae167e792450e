//! The publisher's side of what is made: the publication.

use super::{
    alterable, join, option_drift, publication, publication_name, spec, subscription, wanted_tables,
};
use crate::desired::{PUBLICATION_OPTIONS, SubscriptionSpec};
use crate::name::TableName;
use crate::observed::NodeFacts;
use crate::quote::ident;
use crate::rule::{Context, Verdict};
use crate::step::Operation;
use std::collections::{BTreeMap, BTreeSet};

/// Renamed first: the steps after it call it by its right name.
pub(super) fn rename_publication(ctx: &Context<'_>) -> Vec<Verdict> {
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

/// Missing, or `FOR ALL TABLES`, which cannot be altered in place: then both steps are one
/// transaction, and no change finds it missing.
pub(super) fn create_publication(ctx: &Context<'_>) -> Vec<Verdict> {
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
pub(super) fn relist_tables(ctx: &Context<'_>) -> Vec<Verdict> {
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

pub(super) fn set_tables(ctx: &Context<'_>) -> Vec<Verdict> {
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

pub(super) fn drop_schemas(ctx: &Context<'_>) -> Vec<Verdict> {
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

pub(super) fn set_publication_options(ctx: &Context<'_>) -> Vec<Verdict> {
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
