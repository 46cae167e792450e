//! `nodes.add_node()` and its kin.

use super::{active_rows, check_active, checked_name, plain_options, trust, with_unit};
use crate::apply::conninfo;
use crate::catalog::{self, LinkRow, NewNode, NodeOptions, NodeRow, Rows};
use crate::error::{Error, Result};
use crate::pg::units::Unit;
use crate::pg::user;
use nodes_plan::desired::{LinkState, Spec};
use nodes_plan::name::Mark;
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_unsafe)]
fn add_node(
    name: &str,
    conninfo: &str,
    admin_conninfo: default!(Option<&str>, "NULL"),
    password: default!(Option<&str>, "NULL"),
    options: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    Ok(register(name, conninfo, admin_conninfo, password, options)?)
}

fn register(
    name: &str,
    conninfo: &str,
    admin_conninfo: Option<&str>,
    password: Option<&str>,
    options: Option<JsonB>,
) -> Result<String> {
    checked_name(name)?;
    // Reads no other nodes: thousands are registered by one statement.
    check_active("nodes.add_node()")?;
    if catalog::is_removing(name)? {
        return Err(Error::NodeRemoving(name.to_owned()));
    }
    let parts = Parts::read(name, conninfo, admin_conninfo, password)?;
    catalog::ensure_registry()?;
    let options = options.map(node_options).transpose()?.unwrap_or_default();
    catalog::insert_node(&NewNode { options, ..parts.row(name) })?;
    Ok(format!("node \"{name}\" registered: {}", parts.conninfo))
}

/// Both conninfos of a node, checked, with their passwords taken out.
struct Parts {
    conninfo: String,
    admin_conninfo: Option<String>,
    password: Option<String>,
    admin_password: Option<String>,
    /// See [`NodeRow::registered_by`].
    registered_by: Option<String>,
}

impl Parts {
    fn read(
        node: &str,
        conninfo: &str,
        admin_conninfo: Option<&str>,
        password: Option<&str>,
    ) -> Result<Parts> {
        let own = conninfo::check(node, conninfo)?;
        let admin = admin_conninfo.map(|text| conninfo::check(node, text)).transpose()?;
        let password = password.map(str::to_owned).or(own.password);
        let password = given(node, password)?;
        let registered_by = (!user::is_superuser()).then(user::current_role);
        if registered_by.is_some() && password.is_none() {
            return Err(Error::PasswordMissing(node.to_owned()));
        }
        let (admin_conninfo, admin_password) = match admin {
            Some(admin) => (Some(admin.conninfo), given(node, admin.password)?),
            None => (None, None),
        };
        let conninfo = own.conninfo;
        Ok(Parts { conninfo, admin_conninfo, password, admin_password, registered_by })
    }

    fn row<'a>(&'a self, name: &'a str) -> NewNode<'a> {
        NewNode {
            name,
            conninfo: &self.conninfo,
            admin_conninfo: self.admin_conninfo.as_deref(),
            registered_by: self.registered_by.as_deref(),
            password: self.password.as_deref(),
            admin_password: self.admin_password.as_deref(),
            options: NodeOptions::default(),
            elsewhere: false,
        }
    }
}

/// `options => '{"heartbeat_interval": "250ms"}'`; an option that is left out is as the setting
/// of its name says.
fn node_options(options: JsonB) -> Result<NodeOptions> {
    let mut read = NodeOptions::default();
    for (option, value) in plain_options(options)? {
        let (place, least) = match option.as_str() {
            "heartbeat_interval" => (&mut read.heartbeat_interval, 100),
            "node_timeout" => (&mut read.node_timeout, 200),
            _ => {
                let known = vec!["heartbeat_interval", "node_timeout"];
                return Err(Error::UnknownOption { option, known });
            }
        };
        let value = with_unit(&option, &value, Unit::Milliseconds, least)?;
        *place = u32::try_from(value).ok();
    }
    Ok(read)
}

/// To libpq an empty password is none: it goes on to the password file of our own user. One
/// with a control character has no place in the password file of a standby.
fn given(node: &str, password: Option<String>) -> Result<Option<String>> {
    match password.filter(|password| !password.is_empty()) {
        Some(password) if password.contains(char::is_control) => {
            Err(Error::BadPassword(node.to_owned()))
        }
        password => Ok(password),
    }
}

#[pg_extern(volatile, parallel_unsafe)]
fn alter_node(
    name: &str,
    conninfo: default!(Option<&str>, "NULL"),
    admin_conninfo: default!(Option<&str>, "NULL"),
    password: default!(Option<&str>, "NULL"),
    options: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    Ok(change(name, conninfo, admin_conninfo, password, options)?)
}

fn change(
    name: &str,
    conninfo: Option<&str>,
    admin_conninfo: Option<&str>,
    password: Option<&str>,
    options: Option<JsonB>,
) -> Result<String> {
    let rows = active_rows("nodes.alter_node()")?;
    let row = rows.node(name)?;
    trust::check_move(&rows, row)?;
    // Whoever may change an address must not thereby learn the password sent to the old one.
    let keeps_secrets = user::is_superuser();
    let kept = |secret: &Option<String>| secret.clone().filter(|_| keeps_secrets);
    let admin = admin_conninfo.or(row.admin_conninfo.as_deref()).filter(|text| !text.is_empty());
    let old_password = kept(&row.password);
    let parts = Parts::read(
        name,
        conninfo.unwrap_or(&row.conninfo),
        admin,
        password.or(in_conninfo(name, conninfo)?.as_deref()).or(old_password.as_deref()),
    )?;
    let old_admin_password = kept(&row.admin_password).filter(|_| admin.is_some());
    let admin_password = parts.admin_password.clone().or(old_admin_password);
    // A superuser vouches for an address that is given, not for one that was there.
    let before = row.registered_by.clone().filter(|_| conninfo.is_none());
    let registered_by = parts.registered_by.clone().or(before);
    let parts = Parts { admin_password, registered_by, ..parts };
    let options = options.map(node_options).transpose()?.unwrap_or(row.options);
    let elsewhere = conninfo.is_some() || admin_conninfo.is_some();
    catalog::update_node(row.id, &NewNode { options, elsewhere, ..parts.row(name) })?;
    let exposure = trust::exposure(&rows, row);
    let now = &parts.conninfo;
    Ok(format!("node \"{name}\" is now: {now}; nodes.apply() tells the others{exposure}"))
}

/// The password inside a new conninfo.
fn in_conninfo(node: &str, text: Option<&str>) -> Result<Option<String>> {
    Ok(text.map(|text| conninfo::check(node, text)).transpose()?.and_then(|c| c.password))
}

#[pg_extern(volatile, parallel_unsafe)]
fn set_password(node: &str, password: Option<&str>) -> std::result::Result<String, ErrorReport> {
    let rows = active_rows("nodes.set_password()")?;
    let row = rows.node(node)?;
    let password = given(node, password.map(str::to_owned))?;
    if password.is_none() && (row.registered_by.is_some() || !user::is_superuser()) {
        return Err(Error::PasswordMissing(node.to_owned()).into());
    }
    let stored = NewNode {
        name: node,
        conninfo: &row.conninfo,
        admin_conninfo: row.admin_conninfo.as_deref(),
        registered_by: row.registered_by.as_deref(),
        password: password.as_deref(),
        admin_password: row.admin_password.as_deref(),
        options: row.options,
        elsewhere: false,
    };
    catalog::update_node(row.id, &stored)?;
    let exposure = trust::exposure(&rows, row);
    Ok(format!("password of node \"{node}\" changed; nodes.apply() tells the others{exposure}"))
}

#[pg_extern(volatile, parallel_unsafe)]
fn rename_node(old_name: &str, new_name: &str) -> std::result::Result<String, ErrorReport> {
    checked_name(new_name).map_err(ErrorReport::from)?;
    let rows = active_rows("nodes.rename_node()")?;
    catalog::rename_node(rows.node(old_name)?.id, new_name)?;
    Ok(format!("node \"{old_name}\" is now \"{new_name}\""))
}

#[pg_extern(volatile, parallel_unsafe)]
fn remove_node(
    name: &str,
    cascade: default!(bool, "false"),
    keep_data: default!(bool, "true"),
) -> std::result::Result<String, ErrorReport> {
    Ok(remove(name, cascade, keep_data)?)
}

fn remove(name: &str, cascade: bool, keep_data: bool) -> Result<String> {
    let rows = active_rows("nodes.remove_node()")?;
    let node = rows.node(name)?;
    let of_node = |id| id == node.id;
    let links = rows.links.iter().filter(|l| of_node(l.from_node) || of_node(l.to_node));
    let live: Vec<_> = links.clone().filter(|l| l.state != LinkState::Removing).collect();
    if !live.is_empty() && !cascade {
        let links = live.iter().map(|link| link.name.clone()).collect();
        return Err(Error::NodeInUse { name: name.to_owned(), links });
    }
    for link in &live {
        catalog::set_link_state(link.id, LinkState::Removing, keep_data)?;
    }
    if links.count() == 0 {
        catalog::delete_node(node.id)?;
        return Ok(format!("node \"{name}\" removed"));
    }
    catalog::mark_node_removing(node.id)?;
    Ok(format!("node \"{name}\" is being removed with its links; nodes.apply() does it"))
}

#[pg_extern(volatile, parallel_unsafe)]
fn forget_node(name: &str) -> std::result::Result<String, ErrorReport> {
    Ok(forget(name)?)
}

fn forget(name: &str) -> Result<String> {
    const CALL: &str = "nodes.forget_node()";
    let rows = active_rows(CALL)?;
    if !user::is_superuser() {
        return Err(Error::SuperuserOnly(CALL));
    }
    let node = rows.node(name)?;
    let links = rows.links.iter().filter(|l| l.from_node == node.id || l.to_node == node.id);
    let links: Vec<&LinkRow> = links.collect();
    if links.is_empty() {
        catalog::delete_node(node.id)?;
        return Ok(format!("node \"{name}\" is forgotten; nothing was made on it"));
    }
    for link in links.iter().filter(|link| link.state != LinkState::Removing) {
        catalog::set_link_state(link.id, LinkState::Removing, false)?;
    }
    catalog::mark_node_gone(node.id)?;
    let registry = rows.origin.id.as_deref().unwrap_or_default();
    let left = links.iter().flat_map(|link| left_behind(registry, link, node, &rows));
    let left: Vec<String> = left.collect();
    Ok(match left.is_empty() {
        true => format!("node \"{name}\" is given up; nodes.apply() cleans the others"),
        false => format!(
            "node \"{name}\" is given up; nodes.apply() cleans the others; on it may be left: {}",
            left.join(", ")
        ),
    })
}

/// What a link may have made on one of its nodes, in words.
fn left_behind(registry: &str, link: &LinkRow, node: &NodeRow, rows: &Rows) -> Vec<String> {
    let (name, source) = (&link.name, link.from_node == node.id);
    let slot = Mark { registry: registry.to_owned(), link: link.id }.slot_name();
    match (&link.spec, source) {
        (Spec::Foreign(_), true) => vec![],
        (Spec::Foreign(spec), false) => {
            let schema = &spec.local_schema;
            vec![format!("server \"{name}\" with its user mappings, schema \"{schema}\"")]
        }
        (Spec::Subscription(spec), true) => {
            let copies = copy_slots(link, rows);
            let copies = format!("slots LIKE '{copies}' of tables whose copy had not ended");
            [format!("publication \"{name}\""), format!("slot \"{slot}\"")]
                .into_iter()
                .chain(spec.copy_data.then_some(copies))
                .collect()
        }
        (Spec::Subscription(_), false) => vec![format!("subscription \"{name}\"")],
        (Spec::Standby(_), true) => vec![format!("slot \"{slot}\"")],
        (Spec::Standby(_), false) => {
            vec!["primary_conninfo, primary_slot_name and pg_nodes.passfile".to_owned()]
        }
    }
}

/// What the slots of a subscription's initial copies are called, as a pattern of LIKE
/// (`ReplicationSlotNameForTablesync`, tablesync.c). Postgres names them, after the subscriber.
fn copy_slots(link: &LinkRow, rows: &Rows) -> String {
    let subscriber = rows.nodes.iter().find(|node| node.id == link.to_node);
    let identifier = subscriber.and_then(|node| node.system_identifier.as_deref());
    format!(r"pg\_%\_sync\_%\_{}", identifier.unwrap_or("%"))
}

/// Marks everything for removal, for `nodes.teardown()`.
pub(super) fn remove_all(rows: &Rows) -> Result<()> {
    for link in &rows.links {
        catalog::set_link_state(link.id, LinkState::Removing, false)?;
    }
    let remove = |node: &NodeRow| catalog::mark_node_removing(node.id);
    rows.nodes.iter().try_for_each(remove)
}
