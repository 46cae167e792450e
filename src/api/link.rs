//! `nodes.add_standby()`, `nodes.add_subscription()`, `nodes.add_foreign_schema()` and what
//! changes or removes links. They change rows only; `nodes.apply()` does the rest.

use super::{active_rows, checked_name, group, plain_options, trust, with_unit};
use crate::apply::desired::Desired;
use crate::apply::{conninfo, identity};
use crate::catalog::{self, LinkRow, OwnLimits, Rows};
use crate::error::{Error, Result};
use crate::pg::units::Unit;
use crate::pg::user;
use nodes_plan::desired::{
    ForeignSpec, LinkState, NodeId, Spec, StandbyOptions, StandbySpec, SubscriptionSpec,
};
use nodes_plan::name::TableName;
use nodes_plan::options::{known_subscription_options, normalize};
use nodes_plan::standby_names::Method;
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::too_many_arguments, reason = "SQL passes them by name")]
fn add_standby(
    standby: &str,
    primary_node: &str,
    slot: default!(bool, "true"),
    synchronous: default!(bool, "false"),
    options: default!(JsonB, "'{}'"),
    name: default!(Option<&str>, "NULL"),
    heal: default!(bool, "false"),
    managed: default!(bool, "true"),
) -> std::result::Result<String, ErrorReport> {
    let spec = if managed {
        StandbySpec { synchronous, options: standby_options(options)?, ..StandbySpec::new(slot) }
    } else {
        let given = standby_options(options)? != StandbyOptions::default();
        refuse_of_unmanaged(&[("synchronous", synchronous), ("options", given)])?;
        StandbySpec::unmanaged()
    };
    Ok(new_standby(standby, primary_node, spec, name.unwrap_or(standby), heal)?)
}

/// A failover manager decides what is said of its standbys.
fn refuse_of_unmanaged(given: &[(&str, bool)]) -> Result<()> {
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::BadOption {
            option: (*option).to_owned(),
            why: "That is for what manages the group.".to_owned(),
        }),
        None => Ok(()),
    }
}

fn new_standby(
    standby: &str,
    primary: &str,
    spec: StandbySpec,
    name: &str,
    heal: bool,
) -> Result<String> {
    let rows = active_rows("nodes.add_standby()")?;
    let (source, target) = (rows.usable_node(primary)?, rows.usable_node(standby)?);
    let (from, to) = (source.id, target.id);
    check_distinct(from, to, standby)?;
    trust::check_link(source, target)?;
    let standbys =
        |row: &&LinkRow| matches!(row.spec, Spec::Standby(_)) && row.state != LinkState::Removing;
    if let Some(other) = rows.links.iter().filter(standbys).find(|row| row.to_node == to) {
        return Err(Error::AlreadyStandby(standby.to_owned(), other.name.clone()));
    }
    let upstream = |node: NodeId| rows.links.iter().filter(standbys).find(|r| r.to_node == node);
    let mut chain = vec![to, from];
    while let Some(row) = chain.last().and_then(|node| upstream(*node)) {
        chain.push(row.from_node);
        if row.from_node == to {
            let chain = chain.iter().map(|node| rows.node_name(*node).to_owned()).collect();
            return Err(Error::StandbyCycle { standby: standby.to_owned(), chain });
        }
    }
    group::check_manager(&rows, source, target, !spec.unmanaged)?;
    let said = match spec.unmanaged {
        false => format!("\"{standby}\" will follow \"{primary}\"; nodes.plan() shows how"),
        true => format!("\"{standby}\" follows \"{primary}\" by somebody else's hand"),
    };
    insert(name, from, to, &Spec::Standby(spec), heal)?;
    Ok(said)
}

/// `options => '{"synchronous_method": "first", "synchronous_number": 2}'`.
pub fn standby_options(options: JsonB) -> Result<StandbyOptions> {
    let mut read = StandbyOptions::default();
    for (option, value) in plain_options(options)? {
        let bad = |why: &str| Error::BadOption { option: option.clone(), why: why.to_owned() };
        match option.as_str() {
            "synchronous_method" => {
                let mut methods = [Method::Any, Method::First].into_iter();
                let named = methods.find(|method| method.label() == value);
                read.synchronous_method =
                    Some(named.ok_or_else(|| bad("It must be any or first."))?);
            }
            "synchronous_number" => {
                let number = value.parse().ok().filter(|number| (1..=1000).contains(number));
                read.synchronous_number =
                    Some(number.ok_or_else(|| bad("It must be a number from 1 to 1000."))?);
            }
            _ => {
                let known = vec!["synchronous_method", "synchronous_number"];
                return Err(Error::UnknownOption { option, known });
            }
        }
    }
    Ok(read)
}

#[pg_extern(volatile, parallel_unsafe)]
fn add_subscription(
    name: &str,
    publisher: &str,
    subscriber: default!(Option<&str>, "NULL"),
    tables: default!(Option<Names>, "NULL"),
    copy_data: default!(bool, "true"),
    options: default!(JsonB, "'{}'"),
    heal: default!(bool, "false"),
) -> std::result::Result<String, ErrorReport> {
    let spec = SubscriptionSpec {
        tables: tables.map(table_names).transpose()?,
        copy_data,
        replace: false,
        options: subscription_options(options)?,
    };
    let (from, to) = ends("nodes.add_subscription()", publisher, subscriber)?;
    group::check_subscription(&Rows::load()?, from.0, to.0)?;
    insert(name, from.0, to.0, &Spec::Subscription(spec), heal)?;
    Ok(format!("\"{}\" will subscribe to \"{}\"; nodes.plan() shows how", to.1, from.1))
}

/// An array of names as SQL passes it.
type Names = Vec<Option<String>>;

fn table_names(tables: Names) -> Result<BTreeSet<TableName>> {
    let parse = |text: String| TableName::parse(&text).ok_or(Error::BadTableName(text));
    some_tables(tables)?.into_iter().map(parse).collect()
}

/// No table at all is a mistake: whoever wants every table leaves the list out.
fn some_tables(tables: Names) -> Result<BTreeSet<String>> {
    if tables.is_empty() {
        return Err(bad_list("tables", "It names no table; leave it out for all of them."));
    }
    no_nulls("tables", tables)
}

fn no_nulls(option: &str, names: Names) -> Result<BTreeSet<String>> {
    let name = |name: Option<String>| name.ok_or_else(|| bad_list(option, "It contains NULL."));
    names.into_iter().map(name).collect()
}

fn bad_list(option: &str, why: &str) -> Error {
    Error::BadOption { option: option.to_owned(), why: why.to_owned() }
}

fn subscription_options(options: JsonB) -> Result<BTreeMap<String, String>> {
    let known = known_subscription_options();
    let normal = |(option, value): (String, String)| {
        if !known.contains(&option.as_str()) {
            return Err(Error::UnknownOption { option, known: known.clone() });
        }
        match normalize(&option, &value) {
            Ok(value) => Ok((option, value)),
            Err(why) => Err(Error::BadOption { option, why }),
        }
    };
    plain_options(options)?.into_iter().map(normal).collect()
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::too_many_arguments, reason = "SQL passes them by name")]
fn add_foreign_schema(
    local_schema: &str,
    node: &str,
    remote_schema: default!(&str, "'public'"),
    tables: default!(Option<Names>, "NULL"),
    on_node: default!(Option<&str>, "NULL"),
    writable: default!(bool, "true"),
    options: default!(JsonB, "'{}'"),
    public: default!(bool, "false"),
    name: default!(Option<&str>, "NULL"),
    heal: default!(bool, "false"),
) -> std::result::Result<String, ErrorReport> {
    let spec = ForeignSpec {
        local_schema: local_schema.to_owned(),
        remote_schema: remote_schema.to_owned(),
        tables: tables.map(some_tables).transpose()?,
        roles: BTreeSet::from([user::current_role()]),
        public,
        writable,
        options: foreign_options(options)?,
    };
    checked_name(local_schema)?;
    checked_name(remote_schema)?;
    let (from, to) = ends("nodes.add_foreign_schema()", node, on_node)?;
    check_unlinked(&to, local_schema)?;
    check_local_schema(local_schema, on_node.map(|_| to.0))?;
    insert(name.unwrap_or(local_schema), from.0, to.0, &Spec::Foreign(spec), heal)?;
    Ok(format!(
        "schema \"{local_schema}\" on \"{}\" will show \"{}\" of \"{}\"; nodes.plan() shows how",
        to.1, remote_schema, from.1
    ))
}

fn foreign_options(options: JsonB) -> Result<BTreeMap<String, String>> {
    let options = plain_options(options)?;
    match options.keys().find(|option| conninfo::is_keyword(option)) {
        Some(option) => Err(Error::OptionOfNode(option.clone())),
        None => Ok(options),
    }
}

/// A schema shows one link's tables; a link that is going leaves it to the next.
fn check_unlinked(node: &End, schema: &str) -> Result<()> {
    let shows = |row: &&LinkRow| {
        row.to_node == node.0
            && row.state != LinkState::Removing
            && matches!(&row.spec, Spec::Foreign(spec) if spec.local_schema == schema)
    };
    let rows = Rows::load()?;
    match rows.links.iter().find(shows) {
        Some(row) => Err(Error::SchemaLinked {
            schema: schema.to_owned(),
            node: node.1.clone(),
            link: row.name.clone(),
            from: rows.node_name(row.from_node).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Looks here first, and asks a node that was named whether it is this server only where that
/// matters. If it does not answer, the plan will say what is in the way.
fn check_local_schema(schema: &str, named: Option<NodeId>) -> Result<()> {
    let Some(tables) = catalog::relations_in_schema(schema)? else {
        return Ok(());
    };
    let here = match named {
        Some(node) => {
            identity::is_here(&Desired::from_rows(&Rows::load()?)?, &catalog::identity()?, node)?
        }
        None => true,
    };
    if here { Err(Error::SchemaTaken { schema: schema.to_owned(), tables }) } else { Ok(()) }
}

type End = (NodeId, String);

/// The two nodes of a link; without a name the second is this server.
fn ends(call: &'static str, from: &str, to: Option<&str>) -> Result<(End, End)> {
    let rows = active_rows(call)?;
    let from = rows.usable_node(from)?;
    let to = match to {
        Some(name) => rows.usable_node(name)?,
        None => {
            let desired = Desired::from_rows(&rows)?;
            let here = identity::this_node(&desired, &catalog::identity()?)?;
            rows.usable_node(rows.node_name(here))?
        }
    };
    check_distinct(from.id, to.id, &from.name)?;
    trust::check_link(from, to)?;
    Ok(((from.id, from.name.clone()), (to.id, to.name.clone())))
}

fn check_distinct(from: NodeId, to: NodeId, name: &str) -> Result<()> {
    if from == to { Err(Error::SelfLink(name.to_owned())) } else { Ok(()) }
}

fn insert(name: &str, from: NodeId, to: NodeId, spec: &Spec, heal: bool) -> Result<()> {
    checked_name(name)?;
    catalog::insert_link(name, from, to, spec, heal)
}

#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::too_many_arguments, reason = "SQL passes them by name")]
fn alter_link(
    name: &str,
    tables: default!(Option<Names>, "NULL"),
    options: default!(Option<JsonB>, "NULL"),
    slot: default!(Option<bool>, "NULL"),
    synchronous: default!(Option<bool>, "NULL"),
    writable: default!(Option<bool>, "NULL"),
    public: default!(Option<bool>, "NULL"),
    roles: default!(Option<Names>, "NULL"),
    heal: default!(Option<bool>, "NULL"),
    limits: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    let rows = active_rows("nodes.alter_link()")?;
    let row = rows.link(name)?;
    let change = Change { tables, options, slot, synchronous, writable, public, roles };
    let spec = change.applied_to(&row.spec)?;
    if spec != row.spec {
        catalog::update_link_spec(row.id, &spec)?;
        if waiting(&spec) != waiting(&row.spec) {
            catalog::mark_synchronous_pending(row.from_node)?;
        }
    }
    let limits = limits.map(own_limits).transpose()?.unwrap_or(row.limits);
    catalog::update_link_watch(row.id, heal.unwrap_or(row.heal), &limits)?;
    Ok(format!("link \"{name}\" changed; nodes.plan() shows what follows"))
}

/// What a standby link says of a setting that the standbys of its primary share.
fn waiting(spec: &Spec) -> Option<(bool, StandbyOptions)> {
    match spec {
        Spec::Standby(spec) => Some((spec.synchronous, spec.options)),
        Spec::Foreign(_) | Spec::Subscription(_) => None,
    }
}

/// `limits => '{"max_lag": "5min"}'`; a limit that is left out is as the setting of its name says.
fn own_limits(limits: JsonB) -> Result<OwnLimits> {
    let mut read = OwnLimits::default();
    for (limit, value) in plain_options(limits)? {
        let (place, unit, bytes) = match limit.as_str() {
            "max_lag_bytes" => (&mut read.max_lag_bytes, Unit::Kilobytes, 1 << 10),
            "max_lag" => (&mut read.max_lag, Unit::Seconds, 1),
            "max_retained_wal" => (&mut read.max_retained_wal, Unit::Megabytes, 1 << 20),
            _ => {
                let known = vec!["max_lag_bytes", "max_lag", "max_retained_wal"];
                return Err(Error::UnknownOption { option: limit, known });
            }
        };
        *place = Some(with_unit(&limit, &value, unit, 0)? * bytes);
    }
    Ok(read)
}

/// What `nodes.alter_link()` was given; `None` stays as it is.
struct Change {
    tables: Option<Names>,
    options: Option<JsonB>,
    slot: Option<bool>,
    synchronous: Option<bool>,
    writable: Option<bool>,
    public: Option<bool>,
    roles: Option<Names>,
}

impl Change {
    fn applied_to(self, spec: &Spec) -> Result<Spec> {
        self.refuse_others(spec.kind())?;
        Ok(match spec.clone() {
            Spec::Standby(old) if old.unmanaged => {
                refuse_of_unmanaged(&[
                    ("slot", self.slot.is_some()),
                    ("synchronous", self.synchronous.is_some()),
                    ("options", self.options.is_some()),
                ])?;
                Spec::Standby(old)
            }
            Spec::Standby(old) => Spec::Standby(StandbySpec {
                slot: self.slot.unwrap_or(old.slot),
                synchronous: self.synchronous.unwrap_or(old.synchronous),
                options: self.options.map(standby_options).transpose()?.unwrap_or(old.options),
                ..old
            }),
            Spec::Subscription(old) => Spec::Subscription(SubscriptionSpec {
                tables: self.tables.map(table_names).transpose()?.or(old.tables),
                options: self.options.map(subscription_options).transpose()?.unwrap_or(old.options),
                ..old
            }),
            Spec::Foreign(old) => Spec::Foreign(ForeignSpec {
                tables: self.tables.map(some_tables).transpose()?.or(old.tables),
                options: self.options.map(foreign_options).transpose()?.unwrap_or(old.options),
                writable: self.writable.unwrap_or(old.writable),
                public: self.public.unwrap_or(old.public),
                roles: match self.roles {
                    Some(roles) => no_nulls("roles", roles)?,
                    None => old.roles,
                },
                ..old
            }),
        })
    }

    /// An option that the kind of link does not have is an error, not silence.
    fn refuse_others(&self, kind: &'static str) -> Result<()> {
        let given = [
            ("tables", self.tables.is_some(), ["subscription", "foreign"].as_slice()),
            ("options", self.options.is_some(), &["standby", "subscription", "foreign"]),
            ("slot", self.slot.is_some(), &["standby"]),
            ("synchronous", self.synchronous.is_some(), &["standby"]),
            ("writable", self.writable.is_some(), &["foreign"]),
            ("public", self.public.is_some(), &["foreign"]),
            ("roles", self.roles.is_some(), &["foreign"]),
        ];
        let (known, other): (Vec<_>, Vec<_>) =
            given.iter().partition(|(_, _, kinds)| kinds.contains(&kind));
        match other.iter().find(|(_, given, _)| *given) {
            Some((option, _, _)) => {
                let known = known.iter().map(|(option, _, _)| *option).collect();
                Err(Error::OptionOfOtherKind { kind, option, known })
            }
            None => Ok(()),
        }
    }
}

#[pg_extern(volatile, parallel_unsafe)]
fn pause_link(name: &str) -> std::result::Result<String, ErrorReport> {
    set_paused("nodes.pause_link()", name, LinkState::Paused)?;
    Ok(format!("link \"{name}\" will pause; its publisher keeps WAL meanwhile"))
}

#[pg_extern(volatile, parallel_unsafe)]
fn resume_link(name: &str) -> std::result::Result<String, ErrorReport> {
    set_paused("nodes.resume_link()", name, LinkState::Active)?;
    Ok(format!("link \"{name}\" will go on"))
}

/// Has everything copied anew: by a new link in the place of the old one.
#[pg_extern(volatile, parallel_unsafe)]
fn resync(name: &str) -> std::result::Result<String, ErrorReport> {
    let rows = active_rows("nodes.resync()")?;
    let row = rows.link(name)?;
    let Spec::Subscription(spec) = &row.spec else {
        return Err(Error::CannotResync(row.spec.kind()).into());
    };
    if row.state == LinkState::Paused {
        return Err(Error::ResyncOfPaused(name.to_owned()).into());
    }
    let spec = SubscriptionSpec { copy_data: true, replace: true, ..spec.clone() };
    catalog::renew_link(row.id, &Spec::Subscription(spec))?;
    let subscriber = rows.node_name(row.to_node);
    Ok(format!(
        "the tables of link \"{name}\" on \"{subscriber}\" will be emptied and copied anew; \
         nodes.plan() shows how"
    ))
}

fn set_paused(call: &'static str, name: &str, state: LinkState) -> Result<()> {
    let rows = active_rows(call)?;
    let row = rows.link(name)?;
    match row.spec {
        Spec::Subscription(_) => catalog::set_link_state(row.id, state, row.keep_data),
        Spec::Standby(_) | Spec::Foreign(_) => Err(Error::CannotPause(row.spec.kind())),
    }
}

#[pg_extern(volatile, parallel_unsafe)]
fn remove_link(
    name: &str,
    keep_data: default!(bool, "true"),
) -> std::result::Result<String, ErrorReport> {
    let rows = active_rows("nodes.remove_link()")?;
    catalog::set_link_state(rows.link(name)?.id, LinkState::Removing, keep_data)?;
    Ok(format!("link \"{name}\" will be removed; nodes.plan() shows how"))
}
