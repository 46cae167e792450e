//! The rules of a foreign link: `from` is the node that has the tables, `to` the node where
//! the schema appears. All that is made is made on `to`: server, user mappings, schema and
//! foreign tables; `postgres_fdw` itself is made once for a node (order.rs).

use crate::conninfo::Conninfo;
use crate::desired::{ForeignSpec, Spec};
use crate::name::TableName;
use crate::observed::{NodeFacts, Owner, Relation, Server, owner};
use crate::refuse::{name_taken, read_only};
use crate::rule::{Context, Rule, Table, Verdict};
use crate::step::{ColumnChange, ColumnType, Operation, OptionChange};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const TABLE: Table = Table { refuse: REFUSE, keep: KEEP, remove: REMOVE };

const REFUSE: &[Rule] = &[
    Rule { id: "FO01", when: "the node with the schema is read-only", then: target_read_only },
    Rule { id: "FO02", when: "postgres_fdw is not installed there", then: no_fdw },
    Rule { id: "FO03", when: "the server's name is taken", then: server_taken },
    Rule { id: "FO04", when: "the local schema holds other tables", then: schema_taken },
    Rule { id: "FO05", when: "the remote schema is missing", then: remote_schema_missing },
    Rule { id: "FO06", when: "a listed remote table is missing", then: remote_table_missing },
    Rule { id: "FO07", when: "a role to map is missing", then: role_missing },
    Rule { id: "FO08", when: "a role that is no superuser has no password", then: no_password },
    Rule { id: "FO09", when: "only a superuser can create postgres_fdw", then: cannot_extend },
];

const KEEP: &[Rule] = &[
    Rule { id: "FO20", when: "the server is missing", then: create_server },
    Rule { id: "FO21", when: "the server's options are not right", then: alter_server },
    Rule { id: "FO22", when: "a user mapping is missing", then: create_mappings },
    Rule { id: "FO23", when: "a user mapping's options are not right", then: alter_mappings },
    Rule { id: "FO29", when: "the server's mark is of another conninfo", then: mark_server },
    Rule { id: "FO28", when: "a role has a mapping of ours and should not", then: drop_unwanted },
    Rule { id: "FO24", when: "the local schema is missing", then: create_schema },
    Rule { id: "FO25", when: "a foreign table's remote table is gone", then: drop_stale_tables },
    Rule { id: "FO26", when: "a remote table is not imported", then: import_tables },
    Rule { id: "FO27", when: "a foreign table's columns differ", then: alter_tables },
];

const REMOVE: &[Rule] = &[
    Rule { id: "FO39", when: "the node with the schema has become read-only", then: cannot_drop },
    Rule { id: "FO40", when: "kept objects still bear our mark", then: release },
    Rule { id: "FO41", when: "foreign tables are to be dropped", then: drop_tables },
    Rule { id: "FO42", when: "user mappings are to be dropped", then: drop_mappings },
    Rule { id: "FO43", when: "the server is to be dropped", then: drop_server },
    Rule { id: "FO44", when: "the local schema is to be dropped", then: drop_schema },
];

fn spec<'a>(ctx: &Context<'a>) -> Option<&'a ForeignSpec> {
    match &ctx.link.spec {
        Spec::Foreign(spec) => Some(spec),
        Spec::Standby(_) | Spec::Subscription(_) => None,
    }
}

/// What the rules need nearly always: the facts of `to` and the spec.
fn target<'a>(ctx: &Context<'a>) -> Option<(&'a NodeFacts, &'a ForeignSpec)> {
    Some((ctx.target?, spec(ctx)?))
}

/// Our server on `to`, whoever's mark it bears.
fn server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    ctx.target?.server(&ctx.link.name)
}

/// Our server, where our mark proves it.
fn marked_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    server(ctx).filter(|found| owner(found.comment.as_deref(), &ctx.mark) == Owner::Ours)
}

/// What a removal can take away: nothing while the node is read-only.
fn removable_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    marked_server(ctx).filter(|_| cannot_drop(ctx).is_empty())
}

fn cannot_drop(ctx: &Context<'_>) -> Vec<Verdict> {
    if marked_server(ctx).is_none() && !is_schema_marked(ctx) {
        return vec![];
    }
    target_read_only(ctx)
}

fn target_read_only(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = ctx.target.and_then(|target| read_only(ctx.to.id, &ctx.to.name, target));
    found.into_iter().collect()
}

fn no_fdw(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target {
        Some(target) if target.fdw_comment.is_none() && !target.fdw_available => {
            vec![Verdict::refuse(
                ctx.to.id,
                format!("postgres_fdw is not available on node \"{}\"", ctx.to.name),
                "Install the contrib package of PostgreSQL on that machine.",
            )]
        }
        Some(_) | None => vec![],
    }
}

fn server_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = server(ctx) else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.to.id, "server", &found.name, comment, &ctx.mark).into_iter().collect()
}

/// Relations of the local schema that are not foreign tables of this link.
fn strangers<'a>(ctx: &Context<'a>) -> Vec<&'a Relation> {
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let ours = Some(ctx.link.name.as_str());
    facts.relations_in(&spec.local_schema).filter(|r| r.server.as_deref() != ours).collect()
}

fn schema_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let schema = facts.schema(&spec.local_schema);
    let holder = schema.map(|schema| owner(schema.comment.as_deref(), &ctx.mark));
    if holder == Some(Owner::Ours) {
        return vec![];
    }
    let first = ctx.others.schema(ctx.to.id, &spec.local_schema);
    if let Some(other) = first.filter(|other| other.id != ctx.link.id) {
        let message = format!(
            "schema \"{}\" on node \"{}\" is that of link \"{}\"",
            spec.local_schema, ctx.to.name, other.name
        );
        let hint = "Give the foreign schema a name of its own.";
        return vec![Verdict::refuse(ctx.to.id, message, hint)];
    }
    if let Some(Owner::OtherLink(other)) = holder {
        let message = format!("schema \"{}\" still belongs to link {other}", spec.local_schema);
        let hint = "It is free when that link's removal is done; run nodes.apply() again.";
        return vec![Verdict::wait(ctx.to.id, message, hint)];
    }
    let found = strangers(ctx);
    if found.is_empty() {
        return vec![];
    }
    let names: Vec<String> = found.iter().take(5).map(|r| r.name.to_string()).collect();
    let message = format!(
        "schema \"{}\" on node \"{}\" exists and holds {} other tables or views: {}",
        spec.local_schema,
        ctx.to.name,
        found.len(),
        names.join(", ")
    );
    vec![Verdict::refuse(ctx.to.id, message, "Give the foreign schema a name of its own.")]
}

fn remote_schema_missing(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(source), Some(spec)) = (ctx.source, spec(ctx)) else {
        return vec![];
    };
    if source.schema(&spec.remote_schema).is_some() {
        return vec![];
    }
    let message = format!(
        "schema \"{}\" does not exist on node \"{}\" (database \"{}\"), or may not be used there",
        spec.remote_schema, ctx.from.name, source.database
    );
    vec![Verdict::refuse(ctx.from.id, message, "Name another remote_schema, or create it there.")]
}

fn remote_table_missing(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(source), Some(spec)) = (ctx.source, spec(ctx)) else {
        return vec![];
    };
    let listed = spec.tables.iter().flatten();
    let missing = listed
        .filter(|table| source.relation(&TableName::new(&spec.remote_schema, *table)).is_none());
    let refuse = |table: &String| {
        let name = TableName::new(&spec.remote_schema, table);
        let message = format!("table {name} does not exist on node \"{}\"", ctx.from.name);
        let hint = "Create it there, or take it off the list with nodes.alter_link().";
        Verdict::refuse(ctx.from.id, message, hint)
    };
    missing.map(refuse).collect()
}

fn role_missing(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let missing = spec.roles.iter().filter(|role| facts.role(role).is_none());
    let refuse = |role: &String| {
        let message = format!("role \"{role}\" does not exist on node \"{}\"", ctx.to.name);
        let hint = "Create it there, or name other roles with nodes.alter_link(roles => …).";
        Verdict::refuse(ctx.to.id, message, hint)
    };
    missing.map(refuse).collect()
}

/// `postgres_fdw` lets a role that is not a superuser connect only with a password
/// (`check_conn_params`, connection.c).
fn no_password(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((facts, _)) = target(ctx) else {
        return vec![];
    };
    if facts.superuser || ctx.from.conninfo.password().is_some() {
        return vec![];
    }
    let message = format!(
        "node \"{}\" has no password, and role \"{}\" on node \"{}\" is not a superuser",
        ctx.from.name, facts.role, ctx.to.name
    );
    vec![Verdict::refuse(ctx.from.id, message, "Set one with nodes.set_password().")]
}

/// `postgres_fdw` is not a trusted extension.
fn cannot_extend(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target {
        Some(facts) if facts.fdw_comment.is_none() && !facts.superuser => vec![Verdict::refuse(
            ctx.to.id,
            format!(
                "node \"{}\" lacks the extension postgres_fdw, and role \"{}\" is not a superuser",
                ctx.to.name, facts.role
            ),
            "Have a superuser run CREATE EXTENSION postgres_fdw and GRANT USAGE ON FOREIGN DATA \
             WRAPPER postgres_fdw TO that role, or give the node an admin_conninfo of a superuser.",
        )],
        Some(_) | None => vec![],
    }
}

/// Connection options that `postgres_fdw` keeps in the user mapping
/// (`InitPgFdwOptions`, option.c: the secret ones and the user).
fn belongs_to_mapping(key: &str) -> bool {
    key == "user" || crate::conninfo::is_secret_key(key)
}

/// The options of the server: the node's conninfo, then what the link adds.
fn wanted_server_options(ctx: &Context<'_>, spec: &ForeignSpec) -> BTreeMap<String, String> {
    // postgres_fdw sets these two itself and refuses to be told.
    let own = |key: &str| key == "client_encoding" || key == "fallback_application_name";
    let pairs = ctx.from.conninfo.iter().filter(|(key, _)| !belongs_to_mapping(key) && !own(key));
    let mut options: BTreeMap<String, String> =
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    options.extend(spec.options.iter().map(|(key, value)| (key.clone(), value.clone())));
    if !spec.writable {
        options.insert("updatable".to_owned(), "false".to_owned());
    }
    options
}

/// The options of every user mapping.
fn wanted_mapping_options(ctx: &Context<'_>) -> Conninfo {
    let pairs = ctx.from.conninfo.iter().filter(|(key, _)| belongs_to_mapping(key));
    Conninfo::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

/// Who gets a mapping: the role that imports, the roles of the link, PUBLIC when asked.
fn wanted_roles(facts: &NodeFacts, spec: &ForeignSpec) -> BTreeSet<Option<String>> {
    let mut roles: BTreeSet<Option<String>> = spec.roles.iter().cloned().map(Some).collect();
    roles.insert(Some(facts.role.clone()));
    if spec.public {
        roles.insert(None);
    }
    roles
}

/// What is missing is made only when both nodes answer: a server without tables helps nobody.
fn can_create(ctx: &Context<'_>) -> bool {
    ctx.source.is_some() || server(ctx).is_some()
}

fn create_server(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let (Some((_, spec)), None) = (target(ctx), server(ctx)) else {
        return vec![];
    };
    let operation = Operation::CreateServer {
        name: ctx.link.name.clone(),
        options: wanted_server_options(ctx, spec),
        comment: ctx.comment(),
    };
    vec![Verdict::act(ctx.to.id, operation, format!("how to reach \"{}\"", ctx.from.name))]
}

fn alter_server(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((_, spec)), Some(found)) = (target(ctx), server(ctx)) else {
        return vec![];
    };
    let options = |map: BTreeMap<String, String>| Conninfo::new(map);
    let have = options(found.options.clone());
    let change = OptionChange::between(&have, &options(wanted_server_options(ctx, spec)));
    if change.is_empty() {
        return vec![];
    }
    let reason = format!("not what the registry says: {}", change.keys());
    let operation = Operation::AlterServer { name: found.name.clone(), change };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

fn create_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let mapped: BTreeSet<&Option<String>> =
        server(ctx).map_or(BTreeSet::new(), |s| s.mappings.iter().map(|m| &m.role).collect());
    let roles = wanted_roles(facts, spec);
    let missing = roles.iter().filter(|role| !mapped.contains(role));
    let create = |role: &Option<String>| {
        let operation = Operation::CreateMapping {
            server: ctx.link.name.clone(),
            role: role.clone(),
            options: wanted_mapping_options(ctx),
        };
        let user = ctx.from.conninfo.get("user").unwrap_or("its own name");
        let reason = format!("connects to \"{}\" as {user}", ctx.from.name);
        Verdict::act(ctx.to.id, operation, reason)
    };
    missing.map(create).collect()
}

fn alter_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((facts, spec)), Some(found)) = (target(ctx), server(ctx)) else {
        return vec![];
    };
    let wanted = wanted_mapping_options(ctx);
    let roles = wanted_roles(facts, spec);
    let mut verdicts = Vec::new();
    for mapping in found.mappings.iter().filter(|mapping| roles.contains(&mapping.role)) {
        let (server, role) = (found.name.clone(), mapping.role.clone());
        let Some(have) = &mapping.options else {
            if !ctx.is_current(found.comment.as_deref()) {
                let operation = Operation::ReplaceMapping { server, role, options: wanted.clone() };
                let reason = "made when the registry said something else";
                verdicts.push(Verdict::act(ctx.to.id, operation, reason));
            }
            continue;
        };
        let change = OptionChange::between(have, &wanted);
        if !change.is_empty() {
            let reason = format!("not what the registry says: {}", change.keys());
            let operation = Operation::AlterMapping { server, role, change };
            verdicts.push(Verdict::act(ctx.to.id, operation, reason));
        }
    }
    verdicts
}

/// Last, so that mappings that may not be read are replaced until all of them are.
fn mark_server(ctx: &Context<'_>) -> Vec<Verdict> {
    match server(ctx) {
        Some(found) if !ctx.is_current(found.comment.as_deref()) => {
            let (name, comment) = (found.name.clone(), ctx.comment());
            let reason = format!("says of which conninfo of \"{}\" it was made", ctx.from.name);
            vec![Verdict::act(ctx.to.id, Operation::MarkServer { name, comment }, reason)]
        }
        Some(_) | None => vec![],
    }
}

/// A mapping that lets a role in with the node's credentials although the link does not, or no
/// longer, name the role. One with credentials of its own was made by somebody else.
fn drop_unwanted(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(_), Some((facts, spec)), Some(found)) = (ctx.source, target(ctx), server(ctx)) else {
        return vec![];
    };
    let (roles, ours) = (wanted_roles(facts, spec), wanted_mapping_options(ctx));
    let unwanted = found.mappings.iter().filter(|mapping| !roles.contains(&mapping.role));
    let drop = |role: &Option<String>| {
        let operation = Operation::DropMapping { server: found.name.clone(), role: role.clone() };
        let name = role.as_deref().unwrap_or("PUBLIC");
        Verdict::act(ctx.to.id, operation, format!("the link does not name {name}"))
            .danger(format!("{name} can no longer use the foreign tables"))
    };
    unwanted.filter(|m| m.options.as_ref() == Some(&ours)).map(|m| drop(&m.role)).collect()
}

fn create_schema(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    if facts.schema(&spec.local_schema).is_some() {
        return vec![];
    }
    let name = spec.local_schema.clone();
    let operation = Operation::CreateSchema { name, mark: ctx.mark.clone() };
    vec![Verdict::act(ctx.to.id, operation, "holds the foreign tables")]
}

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

fn drop_stale_tables(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn import_tables(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn alter_tables(ctx: &Context<'_>) -> Vec<Verdict> {
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

fn release(ctx: &Context<'_>) -> Vec<Verdict> {
    if !ctx.link.keep_data {
        return vec![];
    }
    let Some((_, spec)) = target(ctx) else {
        return vec![];
    };
    let reason = "the foreign tables stay and are yours from now on";
    let mut verdicts = Vec::new();
    if let Some(found) = removable_server(ctx) {
        let operation = Operation::ReleaseServer { name: found.name.clone() };
        verdicts.push(Verdict::act(ctx.to.id, operation, reason));
    }
    if removable_schema(ctx) {
        let operation = Operation::ReleaseSchema { name: spec.local_schema.clone() };
        verdicts.push(Verdict::act(ctx.to.id, operation, reason));
    }
    verdicts
}

/// Whether the local schema is there and bears our mark.
fn is_schema_marked(ctx: &Context<'_>) -> bool {
    let Some((facts, spec)) = target(ctx) else {
        return false;
    };
    let schema = facts.schema(&spec.local_schema);
    schema.is_some_and(|s| owner(s.comment.as_deref(), &ctx.mark) == Owner::Ours)
}

fn removable_schema(ctx: &Context<'_>) -> bool {
    is_schema_marked(ctx) && cannot_drop(ctx).is_empty()
}

/// Our server, when it is to be dropped with all that hangs on it.
fn doomed_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    if ctx.link.keep_data { None } else { removable_server(ctx) }
}

/// Tables of ours on the server; one elsewhere than in our schema is somebody's own.
fn is_ours(ctx: &Context<'_>, table: &TableName) -> bool {
    spec(ctx).is_some_and(|spec| table.schema == spec.local_schema)
}

/// Whether somebody made tables of their own on our server.
fn is_shared(ctx: &Context<'_>, server: &Server) -> bool {
    server.tables.iter().any(|table| !is_ours(ctx, table))
}

fn drop_tables(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = doomed_server(ctx) else {
        return vec![];
    };
    let drop = |table: &TableName| {
        let operation = Operation::DropForeignTable { table: table.clone() };
        let step = Verdict::act(ctx.to.id, operation, "the link is being removed");
        step.danger("queries and views that use it fail; the remote rows stay")
    };
    found.tables.iter().filter(|table| is_ours(ctx, table)).map(drop).collect()
}

fn drop_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = doomed_server(ctx).filter(|server| !is_shared(ctx, server)) else {
        return vec![];
    };
    let drop = |role: &Option<String>| {
        let operation = Operation::DropMapping { server: found.name.clone(), role: role.clone() };
        Verdict::act(ctx.to.id, operation, "the link is being removed")
    };
    found.mappings.iter().map(|mapping| drop(&mapping.role)).collect()
}

fn drop_server(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = doomed_server(ctx) else {
        return vec![];
    };
    if is_shared(ctx, found) {
        let operation = Operation::ReleaseServer { name: found.name.clone() };
        let reason = "it serves tables that are not this link's, so it stays";
        return vec![Verdict::act(ctx.to.id, operation, reason)];
    }
    let operation = Operation::DropServer { name: found.name.clone() };
    vec![Verdict::act(ctx.to.id, operation, "the link is being removed")]
}

fn drop_schema(ctx: &Context<'_>) -> Vec<Verdict> {
    if ctx.link.keep_data || !removable_schema(ctx) {
        return vec![];
    }
    let Some((_, spec)) = target(ctx) else {
        return vec![];
    };
    let name = spec.local_schema.clone();
    if strangers(ctx).is_empty() {
        let reason = "only this link's tables were in it";
        vec![Verdict::act(ctx.to.id, Operation::DropSchema { name }, reason)]
    } else {
        let reason = "it holds tables that are not this link's, so it stays";
        vec![Verdict::act(ctx.to.id, Operation::ReleaseSchema { name }, reason)]
    }
}
