//! The rules of a foreign link: `from` is the node that has the tables, `to` the node where
//! the schema appears. All that is made is made on `to`: server, user mappings, schema and
//! foreign tables; `postgres_fdw` itself is made once for a node (order.rs).

mod rights;
mod tables;

pub(crate) use tables::Shown;

use crate::claims::{Lacking, Leftover};
use crate::conninfo::Conninfo;
use crate::desired::{ForeignSpec, Spec};
use crate::group::PER_HOST;
use crate::index::{Indexed, find, find_named};
use crate::name::TableName;
use crate::observed::{NodeFacts, Owner, Relation, Schema, Server, owner};
use crate::refuse::{FREE_LATER, left_out, name_taken, read_only};
use crate::rule::{Context, Rule, RuleId, Table, Verdict};
use crate::step::{Operation, OptionChange, role_name};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const TABLE: Table = Table {
    forbid: FORBID,
    follow: FOLLOW,
    refuse: REFUSE,
    keep: KEEP,
    remove: REMOVE,
    lacking: |_| Lacking::default(),
    leftover: |_| Leftover::default(),
};

/// See [`crate::step::Step::follows_group`].
pub(crate) const LISTS_OTHERS: RuleId = "FO38";

const FORBID: &[Rule] = &[
    Rule { id: "FO01", when: "the node with the schema is read-only", then: target_read_only },
    Rule { id: "FO08", when: "a role that is no superuser has no password", then: no_password },
];

const FOLLOW: &[Rule] = &[
    Rule { id: "FO21", when: "the server's options are not right", then: alter_server },
    Rule {
        id: LISTS_OTHERS,
        when: "the server lists others than the node's group",
        then: list_group,
    },
    Rule {
        id: "FO37",
        when: "a role has a mapping of ours from before and should not",
        then: rights::lock_out,
    },
    Rule { id: "FO23", when: "a user mapping's options are not right", then: alter_mappings },
    Rule { id: "FO36", when: "the server's mark is of another conninfo", then: mark_server },
];

const REFUSE: &[Rule] = &[
    Rule { id: "FO02", when: "postgres_fdw is not installed there", then: no_fdw },
    Rule { id: "FO03", when: "the server's name is taken", then: server_taken },
    Rule { id: "FO04", when: "the local schema holds other tables", then: schema_taken },
    Rule { id: "FO05", when: "the remote schema is missing", then: remote_schema_missing },
    Rule { id: "FO06", when: "a listed remote table is missing", then: remote_table_missing },
    Rule { id: "FO07", when: "a role to map is missing", then: role_missing },
    Rule { id: "FO09", when: "only a superuser can create postgres_fdw", then: cannot_extend },
    Rule { id: "FO12", when: "the role may not make server or schema", then: cannot_create },
    Rule {
        id: "FO10",
        when: "the local schema's name is taken by another",
        then: schema_name_taken,
    },
];

const KEEP: &[Rule] = &[
    Rule { id: "FO29", when: "the server bears our mark under another name", then: rename_server },
    Rule { id: "FO30", when: "the schema bears our mark under another name", then: rename_schema },
    Rule { id: "FO20", when: "the server is missing", then: create_server },
    Rule { id: "FO22", when: "a user mapping is missing", then: create_mappings },
    Rule {
        id: "FO32",
        when: "a role has rights that the link does not give",
        then: rights::revoke,
    },
    Rule { id: "FO28", when: "a role has a mapping of ours and should not", then: drop_unwanted },
    Rule { id: "FO24", when: "the local schema is missing", then: create_schema },
    Rule { id: "FO25", when: "a foreign table's remote table is gone", then: tables::drop_stale },
    Rule { id: "FO26", when: "a remote table is not imported", then: tables::import },
    Rule { id: "FO27", when: "a foreign table's columns differ", then: tables::alter },
    Rule {
        id: "FO33",
        when: "a foreign table's options are not right",
        then: tables::alter_options,
    },
    Rule { id: "FO31", when: "a role of the link lacks rights", then: rights::grant },
    Rule {
        id: "FO35",
        when: "something has the name of a table to import",
        then: tables::in_the_way,
    },
    Rule { id: "FO34", when: "a column's type cannot be read", then: tables::unknown_types },
    Rule { id: "FO50", when: "one conninfo cannot list the node's group", then: left_out },
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
fn target<'a>(ctx: &Context<'a>) -> Option<(&'a Indexed<'a>, &'a ForeignSpec)> {
    Some((ctx.target?, spec(ctx)?))
}

/// The link's server on `to`: the one with our mark, else the one with the name.
fn server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    marked_server(ctx).or_else(|| ctx.target?.server(&ctx.link.name))
}

/// Our server, where our mark proves it, whatever it is called now.
fn marked_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    find_named(ctx.made_here.servers, &ctx.link.name)
}

/// The local schema: the one with our mark, else the one with the name.
fn schema<'a>(ctx: &Context<'a>) -> Option<&'a Schema> {
    let (facts, spec) = target(ctx)?;
    marked_schema(ctx).or_else(|| facts.schema(&spec.local_schema))
}

/// The local schema, where our mark proves that it is ours, whatever it is called now.
fn marked_schema<'a>(ctx: &Context<'a>) -> Option<&'a Schema> {
    find_named(ctx.made_here.schemas, &spec(ctx)?.local_schema)
}

/// What is in the local schema now.
fn relations<'a>(ctx: &Context<'a>) -> &'a [&'a Relation] {
    let Some((facts, spec)) = target(ctx) else {
        return &[];
    };
    facts.relations_in(schema(ctx).map_or(&spec.local_schema, |schema| &schema.name))
}

/// What the link's server is called now.
fn server_name<'a>(ctx: &Context<'a>) -> &'a str {
    server(ctx).map_or(&ctx.link.name, |server| &server.name)
}

/// What a removal can take away: nothing while the node is read-only.
fn removable_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    marked_server(ctx).filter(|_| cannot_drop(ctx).is_empty())
}

fn cannot_drop(ctx: &Context<'_>) -> Vec<Verdict> {
    if marked_server(ctx).is_none() && marked_schema(ctx).is_none() {
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
    let Some(found) = ctx.target.and_then(|facts| facts.server(&ctx.link.name)) else {
        return vec![];
    };
    let comment = found.comment.as_deref();
    name_taken(ctx.to.id, "server", &found.name, comment, &ctx.mark).into_iter().collect()
}

/// Relations of the local schema that are not foreign tables of this link.
fn strangers<'a>(ctx: &Context<'a>) -> Vec<&'a Relation> {
    let server = Some(server_name(ctx));
    let all = relations(ctx).iter().copied();
    all.filter(|relation| relation.server.as_deref() != server).collect()
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
        return vec![Verdict::wait(ctx.to.id, message, FREE_LATER)];
    }
    if marked_schema(ctx).is_some() {
        return vec![];
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

/// Ours was renamed, and cannot have its name back.
fn schema_name_taken(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((facts, spec)), Some(ours)) = (target(ctx), marked_schema(ctx)) else {
        return vec![];
    };
    let named = facts.schema(&spec.local_schema).map(|s| owner(s.comment.as_deref(), &ctx.mark));
    if named != Some(Owner::Foreign) {
        return vec![];
    }
    let message = format!(
        "the link's schema on node \"{}\" is called \"{}\" now, and another is called \"{}\"",
        ctx.to.name, ours.name, spec.local_schema
    );
    let hint = format!("Rename or drop schema \"{}\" there.", spec.local_schema);
    vec![Verdict::refuse(ctx.to.id, message, hint)]
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
    let missing =
        listed.filter(|table| find(source.relations_in(&spec.remote_schema), table).is_none());
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

fn cannot_create(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let refuse = |what: String, hint: String| {
        let message = format!("role \"{}\" on node \"{}\" may not {what}", facts.role, ctx.to.name);
        Verdict::refuse(ctx.to.id, message, hint)
    };
    let mut verdicts = Vec::new();
    if server(ctx).is_none() && facts.can_use_fdw == Some(false) {
        let hint = "Run GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO that role there.";
        verdicts.push(refuse("use postgres_fdw".to_owned(), hint.to_owned()));
    }
    if facts.schema(&spec.local_schema).is_none() && !facts.can_create {
        let database = crate::quote::ident(&facts.database);
        let hint = format!("Run GRANT CREATE ON DATABASE {database} TO that role there.");
        verdicts.push(refuse("create schemas".to_owned(), hint));
    }
    verdicts
}

/// Connection options that `postgres_fdw` keeps in the user mapping
/// (`InitPgFdwOptions`, option.c: the secret ones and the user).
fn belongs_to_mapping(key: &str) -> bool {
    key == "user" || crate::conninfo::is_secret_key(key)
}

/// The options of the server: the node's conninfo, then what the link adds.
fn wanted_server_options<'c>(
    ctx: &'c Context<'_>,
    spec: &'c ForeignSpec,
) -> BTreeMap<&'c str, &'c str> {
    // postgres_fdw sets these two itself and refuses to be told.
    let own = |key: &str| key == "client_encoding" || key == "fallback_application_name";
    let conninfo = &ctx.reach().conninfo;
    let pairs = conninfo.iter().filter(|(key, _)| !belongs_to_mapping(key) && !own(key));
    let mut options: BTreeMap<&str, &str> = pairs.collect();
    options.extend(spec.options.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    if !spec.writable {
        options.insert("updatable", "false");
    }
    options
}

/// The options of every user mapping.
fn wanted_mapping_options(ctx: &Context<'_>) -> Conninfo {
    let pairs = ctx.from.conninfo.iter().filter(|(key, _)| belongs_to_mapping(key));
    Conninfo::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

/// Who gets a mapping: the role that imports, the roles of the link, PUBLIC when asked.
fn wanted_roles<'a>(facts: &'a NodeFacts, spec: &'a ForeignSpec) -> BTreeSet<Option<&'a str>> {
    let named = spec.roles.iter().chain([&facts.role]).map(|role| Some(role.as_str()));
    named.chain(spec.public.then_some(None)).collect()
}

/// Whether the link gives a role a mapping.
fn is_wanted(role: Option<&str>, facts: &NodeFacts, spec: &ForeignSpec) -> bool {
    role.map_or(spec.public, |role| role == facts.role || spec.roles.contains(role))
}

/// Who gets rights: all of those but the role that imports, whose the tables are.
fn grantees<'a>(
    facts: &'a NodeFacts,
    spec: &'a ForeignSpec,
) -> impl Iterator<Item = Option<&'a str>> {
    let named = spec.roles.iter().filter(|role| **role != facts.role);
    spec.public.then_some(None).into_iter().chain(named.map(|role| Some(role.as_str())))
}

fn owned(options: BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What is missing is made only when both nodes answer: a server without tables helps nobody.
fn can_create(ctx: &Context<'_>) -> bool {
    ctx.source.is_some() || server(ctx).is_some()
}

fn rename_server(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = marked_server(ctx).filter(|server| server.name != ctx.link.name) else {
        return vec![];
    };
    let (name, to) = (found.name.clone(), ctx.link.name.clone());
    vec![Verdict::act(ctx.to.id, Operation::RenameServer { name, to }, "it bears our mark")]
}

fn rename_schema(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(found), Some(spec)) = (marked_schema(ctx), spec(ctx)) else {
        return vec![];
    };
    if found.name == spec.local_schema {
        return vec![];
    }
    let (name, to) = (found.name.clone(), spec.local_schema.clone());
    let danger = format!("queries that name its tables by schema \"{name}\" fail");
    let step = Verdict::act(ctx.to.id, Operation::RenameSchema { name, to }, "it bears our mark");
    vec![step.danger(danger)]
}

// From here on server and schema have the names that they should have.

fn create_server(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let (Some((_, spec)), None) = (target(ctx), server(ctx)) else {
        return vec![];
    };
    let operation = Operation::CreateServer {
        name: ctx.link.name.clone(),
        options: owned(wanted_server_options(ctx, spec)),
        comment: ctx.comment(),
    };
    vec![Verdict::act(ctx.to.id, operation, format!("how to reach \"{}\"", ctx.from.name))]
}

fn alter_server(ctx: &Context<'_>) -> Vec<Verdict> {
    let lists_others = |found: &Server| ctx.lists_others(found.comment.as_deref());
    let Some((found, change)) =
        option_change(ctx, |found, key| !(PER_HOST.contains(&key) && lists_others(found)))
    else {
        return vec![];
    };
    if change.is_empty() {
        return vec![];
    }
    let reason = format!("not what the registry says: {}", change.keys());
    let operation = Operation::AlterServer { name: found.name.clone(), change };
    vec![Verdict::act(ctx.to.id, operation, reason)]
}

/// Members have joined, left or moved: nobody has changed the server.
fn list_group(ctx: &Context<'_>) -> Vec<Verdict> {
    let found = option_change(ctx, |_, key| PER_HOST.contains(&key));
    let others = |(found, _): &(&Server, _)| ctx.lists_others(found.comment.as_deref());
    let Some((found, change)) = found.filter(others) else { return vec![] };
    let name = || found.name.clone();
    let alter = Operation::AlterServer { name: name(), change: change.clone() };
    let mark = Operation::MarkServer { name: name(), comment: ctx.comment() };
    let steps = (!change.is_empty()).then_some(alter).into_iter().chain([mark]);
    let reason = format!("it lists others than the group of \"{}\"", ctx.from.name);
    steps.map(|step| Verdict::act(ctx.to.id, step, reason.clone())).collect()
}

/// Our server, and what makes right those of its options that matter.
fn option_change<'a>(
    ctx: &Context<'a>,
    matters: impl Fn(&Server, &str) -> bool,
) -> Option<(&'a Server, OptionChange)> {
    let ((_, spec), found) = (target(ctx)?, marked_server(ctx)?);
    let matters = |key: &&str| matters(found, key);
    let have = found.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let have = have.filter(|(key, _)| matters(key)).collect();
    let wanted = wanted_server_options(ctx, spec).into_iter();
    let wanted = wanted.filter(|(key, _)| matters(key)).collect();
    Some((found, OptionChange::between(&have, &wanted)))
}

fn create_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let Some((facts, spec)) = target(ctx) else {
        return vec![];
    };
    let mappings = server(ctx).map_or(&[][..], |server| &server.mappings);
    let mapped: BTreeSet<Option<&str>> = mappings.iter().map(|m| m.role.as_deref()).collect();
    let roles = wanted_roles(facts, spec);
    let create = |role: &Option<&str>| {
        let operation = Operation::CreateMapping {
            server: ctx.link.name.clone(),
            role: role.map(str::to_owned),
            options: wanted_mapping_options(ctx),
        };
        let user = ctx.from.conninfo.get("user").unwrap_or("its own name");
        let reason = format!("connects to \"{}\" as {user}", ctx.from.name);
        Verdict::act(ctx.to.id, operation, reason)
    };
    roles.difference(&mapped).map(create).collect()
}

fn alter_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some((facts, spec)), Some(found)) = (target(ctx), marked_server(ctx)) else {
        return vec![];
    };
    let wanted = wanted_mapping_options(ctx);
    // Where roles are yet to be locked out, nothing else tells that their mappings are ours.
    let waits = ctx.source.is_none() && !formerly_let_in(ctx).is_empty();
    let mut verdicts = Vec::new();
    for mapping in found.mappings.iter().filter(|m| is_wanted(m.role.as_deref(), facts, spec)) {
        if waits && mapping.role.as_ref() == Some(&facts.role) {
            continue;
        }
        let (server, role) = (found.name.clone(), mapping.role.clone());
        let Some(have) = &mapping.options else {
            if !ctx.has_current_credentials(found.comment.as_deref()) {
                let operation = Operation::ReplaceMapping { server, role, options: wanted.clone() };
                let reason = "made when the registry said something else";
                verdicts.push(Verdict::act(ctx.to.id, operation, reason));
            }
            continue;
        };
        let change = OptionChange::between(&have.iter().collect(), &wanted.iter().collect());
        if !change.is_empty() {
            let reason = format!("not what the registry says: {}", change.keys());
            let operation = Operation::AlterMapping { server, role, change };
            verdicts.push(Verdict::act(ctx.to.id, operation, reason));
        }
    }
    verdicts
}

/// Whether a server bears the mark that it should, or gets it with the list of its group.
fn is_marked(ctx: &Context<'_>, found: &Server) -> bool {
    let comment = found.comment.as_deref();
    ctx.is_current(comment) || ctx.lists_others(comment)
}

/// Last, so that mappings that may not be read are replaced until all of them are.
fn mark_server(ctx: &Context<'_>) -> Vec<Verdict> {
    match marked_server(ctx) {
        Some(found) if !is_marked(ctx, found) => {
            let (name, comment) = (found.name.clone(), ctx.comment());
            let reason = format!("says of which conninfo of \"{}\" it was made", ctx.from.name);
            vec![Verdict::act(ctx.to.id, Operation::MarkServer { name, comment }, reason)]
        }
        Some(_) | None => vec![],
    }
}

/// Roles that a mapping lets in with these credentials although the link does not, or no longer,
/// name them. A mapping with credentials of its own was made by somebody else.
fn let_in<'a>(ctx: &Context<'a>, credentials: &Conninfo) -> Vec<Option<&'a str>> {
    let (Some((facts, spec)), Some(found)) = (target(ctx), server(ctx)) else {
        return vec![];
    };
    let unwanted = found.mappings.iter().filter(|m| !is_wanted(m.role.as_deref(), facts, spec));
    let let_in = unwanted.filter(|m| m.options.as_ref() == Some(credentials));
    let_in.map(|mapping| mapping.role.as_deref()).collect()
}

/// Roles that the node's credentials of now let in.
fn unwanted_roles<'a>(ctx: &Context<'a>) -> Vec<Option<&'a str>> {
    match ctx.source {
        Some(_) => let_in(ctx, &wanted_mapping_options(ctx)),
        None => vec![],
    }
}

/// Roles that the credentials let in which are no longer the node's: those in the mapping of the
/// role that imports, which is altered after these are gone.
fn formerly_let_in<'a>(ctx: &Context<'a>) -> Vec<Option<&'a str>> {
    let (Some((facts, _)), Some(found)) = (target(ctx), marked_server(ctx)) else {
        return vec![];
    };
    let mut own = found.mappings.iter().filter(|m| m.role.as_ref() == Some(&facts.role));
    match own.next().and_then(|mapping| mapping.options.as_ref()) {
        Some(before) if *before != wanted_mapping_options(ctx) => let_in(ctx, before),
        Some(_) | None => vec![],
    }
}

fn drop_unwanted(ctx: &Context<'_>) -> Vec<Verdict> {
    let drop = |role: Option<&str>| drop_mapping(ctx, &ctx.link.name, role);
    unwanted_roles(ctx).into_iter().map(drop).collect()
}

fn drop_mapping(ctx: &Context<'_>, server: &str, role: Option<&str>) -> Verdict {
    let name = role_name(role);
    let operation =
        Operation::DropMapping { server: server.to_owned(), role: role.map(str::to_owned) };
    Verdict::act(ctx.to.id, operation, format!("the link does not name {name}"))
        .danger(format!("{name} can no longer use the foreign tables"))
}

fn create_schema(ctx: &Context<'_>) -> Vec<Verdict> {
    if !can_create(ctx) {
        return vec![];
    }
    let (Some((_, spec)), None) = (target(ctx), schema(ctx)) else {
        return vec![];
    };
    let name = spec.local_schema.clone();
    let operation = Operation::CreateSchema { name, mark: ctx.mark.clone() };
    vec![Verdict::act(ctx.to.id, operation, "holds the foreign tables")]
}

fn release(ctx: &Context<'_>) -> Vec<Verdict> {
    if !ctx.link.keep_data {
        return vec![];
    }
    let reason = "the foreign tables stay and are yours from now on";
    let mut verdicts = Vec::new();
    if let Some(found) = removable_server(ctx) {
        let operation = Operation::ReleaseServer { name: found.name.clone() };
        verdicts.push(Verdict::act(ctx.to.id, operation, reason));
    }
    if let Some(found) = removable_schema(ctx) {
        let operation = Operation::ReleaseSchema { name: found.name.clone() };
        verdicts.push(Verdict::act(ctx.to.id, operation, reason));
    }
    verdicts
}

fn removable_schema<'a>(ctx: &Context<'a>) -> Option<&'a Schema> {
    marked_schema(ctx).filter(|_| cannot_drop(ctx).is_empty())
}

/// Our server, when it is to be dropped with all that hangs on it.
fn doomed_server<'a>(ctx: &Context<'a>) -> Option<&'a Server> {
    if ctx.link.keep_data { None } else { removable_server(ctx) }
}

/// The link's tables, when they are to be dropped.
fn doomed_tables<'a>(ctx: &Context<'a>) -> Vec<&'a Relation> {
    match doomed_server(ctx) {
        Some(_) => tables::ours(ctx),
        None => vec![],
    }
}

/// Whether somebody made tables of their own on our server.
fn is_shared(ctx: &Context<'_>, server: &Server) -> bool {
    let ours: BTreeSet<&TableName> = doomed_tables(ctx).iter().map(|r| &r.name).collect();
    server.tables.iter().any(|table| !ours.contains(table))
}

fn drop_tables(ctx: &Context<'_>) -> Vec<Verdict> {
    let drop = |table: &Relation| {
        let operation = Operation::DropForeignTable { table: table.name.clone() };
        let step = Verdict::act(ctx.to.id, operation, "the link is being removed");
        step.danger("queries and views that use it fail; the remote rows stay")
    };
    doomed_tables(ctx).into_iter().map(drop).collect()
}

fn drop_mappings(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = doomed_server(ctx).filter(|server| !is_shared(ctx, server)) else {
        return vec![];
    };
    let drop = |role: &Option<String>| {
        let operation = Operation::DropMapping { server: found.name.clone(), role: role.clone() };
        let name = role_name(role.as_deref());
        Verdict::act(ctx.to.id, operation, "the link is being removed")
            .danger(format!("{name} can no longer reach \"{}\" through it", ctx.from.name))
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
    let step = Verdict::act(ctx.to.id, operation, "the link is being removed");
    vec![step.danger(format!("nothing reaches \"{}\" through it any more", ctx.from.name))]
}

fn drop_schema(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(found) = removable_schema(ctx).filter(|_| !ctx.link.keep_data) else {
        return vec![];
    };
    let name = found.name.clone();
    if relations(ctx).len() == doomed_tables(ctx).len() {
        let reason = "only this link's tables were in it";
        vec![Verdict::act(ctx.to.id, Operation::DropSchema { name }, reason)]
    } else {
        let reason = "it holds tables that are not this link's, so it stays";
        vec![Verdict::act(ctx.to.id, Operation::ReleaseSchema { name }, reason)]
    }
}
