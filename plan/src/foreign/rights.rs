//! Who may use what a foreign link shows: the roles that it lets in. Rights are granted table
//! by table, since others may keep tables of their own in the schema, and only roles that the
//! link names, or has a mapping for from when it did, are looked at.

use super::{
    drop_mapping, formerly_let_in, grantees, marked_schema, marked_server, schema, spec, tables,
    unwanted_roles,
};
use crate::desired::ForeignSpec;
use crate::name::TableName;
use crate::observed::{Relation, Schema};
use crate::rule::{Context, Verdict};
use crate::step::{Operation, Rights, role_name};
use std::collections::BTreeSet;

const USAGE: &str = "USAGE";

impl Schema {
    fn grants(&self, role: Option<&str>) -> bool {
        self.grants.iter().any(|grant| grant.role.as_deref() == role && grant.privilege == USAGE)
    }

    fn is_of(&self, role: Option<&str>) -> bool {
        role == Some(self.owner.as_str())
    }
}

impl Relation {
    fn grants(&self, role: Option<&str>, privilege: &str) -> bool {
        let mut grants = self.grants.iter().filter(|grant| grant.role.as_deref() == role);
        grants.any(|grant| grant.privilege == privilege)
    }

    fn is_of(&self, role: Option<&str>) -> bool {
        role == Some(self.owner.as_str())
    }
}

pub(super) fn grant(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((_, facts)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let each = |role: Option<&str>| {
        let of_schema = grant_schema(ctx, spec, role);
        of_schema.into_iter().chain(grant_tables(ctx, spec, role))
    };
    grantees(facts, spec).flat_map(each).collect()
}

fn grant_schema(ctx: &Context<'_>, spec: &ForeignSpec, role: Option<&str>) -> Option<Verdict> {
    let found = schema(ctx);
    if found.is_some_and(|s| s.is_of(role) || s.grants(role)) {
        return None;
    }
    let name = role_name(role);
    match found.filter(|found| !found.owned) {
        // Somebody else's: what everybody may do suffices, and more only its owner can give.
        Some(found) if found.grants(None) => None,
        Some(found) => Some(Verdict::warn(
            ctx.to.id,
            format!(
                "{name} may not use schema \"{}\", which is that of {}",
                found.name, found.owner
            ),
            format!("Have {} grant USAGE on it to {name}.", found.owner),
        )),
        None => {
            let (schema, role) = (spec.local_schema.clone(), role.map(str::to_owned));
            let operation = Operation::GrantUsage { schema, role };
            Some(Verdict::act(ctx.to.id, operation, format!("the link names {name}")))
        }
    }
}

fn grant_tables(ctx: &Context<'_>, spec: &ForeignSpec, role: Option<&str>) -> Option<Verdict> {
    let rights = if spec.writable { Rights::All } else { Rights::Read };
    let has_all = |table: &Relation| {
        let mut privileges = rights.privileges().iter();
        table.is_of(role) || privileges.all(|right| table.grants(role, right))
    };
    let all = tables::after_import(ctx).into_iter();
    let tables: BTreeSet<TableName> =
        all.filter(|(_, here)| !here.is_some_and(has_all)).map(|(name, _)| name).collect();
    if tables.is_empty() {
        return None;
    }
    let reason = format!("the link names {}", role_name(role));
    let role = role.map(str::to_owned);
    Some(Verdict::act(ctx.to.id, Operation::GrantTables { tables, role, rights }, reason))
}

/// Comes before the mappings are dropped: a mapping proves that the link let the role in.
pub(super) fn revoke(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((_, facts)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    let mut verdicts = Vec::new();
    for role in unwanted_roles(ctx) {
        verdicts.extend(revoke_all(ctx, &spec.local_schema, at_home(ctx), role));
    }
    for role in grantees(facts, spec).filter(|_| !spec.writable) {
        let danger = format!("{} can no longer change rows through them", role_name(role));
        let step =
            |operation| Verdict::act(ctx.to.id, operation, "the link is read-only").danger(danger);
        verdicts.extend(revoke_tables(at_home(ctx), role, Rights::Write).map(step));
    }
    verdicts
}

/// The same and the mapping, for roles that are taken off while the node's credentials change:
/// they must neither keep the old ones nor be given the new ones. Everything has the name here
/// that it has now.
pub(super) fn lock_out(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some(server), Some(spec)) = (ctx.source, marked_server(ctx), spec(ctx)) else {
        return vec![];
    };
    let schema = schema(ctx).map_or(spec.local_schema.as_str(), |schema| &schema.name);
    let mut verdicts = Vec::new();
    for role in formerly_let_in(ctx) {
        let here = tables::ours(ctx).into_iter().map(|table| (table.name.clone(), table));
        verdicts.extend(revoke_all(ctx, schema, here, role));
        verdicts.push(drop_mapping(ctx, &server.name, role));
    }
    verdicts
}

/// The link's tables that are there, each with the name that it will have.
fn at_home<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (TableName, &'a Relation)> {
    tables::after_import(ctx).into_iter().filter_map(|(name, here)| Some((name, here?)))
}

fn revoke_all<'a>(
    ctx: &Context<'_>,
    schema: &str,
    tables: impl Iterator<Item = (TableName, &'a Relation)>,
    role: Option<&str>,
) -> impl Iterator<Item = Verdict> {
    let reason = format!("the link does not name {}", role_name(role));
    let danger = format!("{} can no longer use the foreign tables", role_name(role));
    let operations = [revoke_tables(tables, role, Rights::All), revoke_usage(ctx, schema, role)];
    let node = ctx.to.id;
    let step =
        move |operation| Verdict::act(node, operation, reason.clone()).danger(danger.clone());
    operations.into_iter().flatten().map(step)
}

fn revoke_tables<'a>(
    tables: impl Iterator<Item = (TableName, &'a Relation)>,
    role: Option<&str>,
    rights: Rights,
) -> Option<Operation> {
    let has_some = |table: &Relation| {
        let mut privileges = rights.privileges().iter();
        !table.is_of(role) && privileges.any(|right| table.grants(role, right))
    };
    let tables: BTreeSet<TableName> =
        tables.filter(|(_, table)| has_some(table)).map(|(name, _)| name).collect();
    let role = role.map(str::to_owned);
    (!tables.is_empty()).then_some(Operation::RevokeTables { tables, role, rights })
}

/// Of a schema that is not ours nothing is taken: whoever made it may have given it.
fn revoke_usage(ctx: &Context<'_>, schema: &str, role: Option<&str>) -> Option<Operation> {
    let ours = marked_schema(ctx)?;
    let given = ours.grants(role) && !ours.is_of(role);
    let (schema, role) = (schema.to_owned(), role.map(str::to_owned));
    given.then_some(Operation::RevokeUsage { schema, role })
}
