//! The registry's tables, over SPI: desired state in and out, events and step log appended.
//! All SQL runs as the extension's owner with a safe `search_path`. Nothing here knows libpq.

mod history;

use crate::error::{Error, Result};
use crate::pg::spi;
pub use history::{
    Event, LastTold, LoggedStep, append_event, forget_events, last_told, log_step_ends, log_steps,
};
use nodes_plan::desired::{Link, LinkId, LinkState, Node, NodeId, Registry, Spec, Unfinished};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A row of `nodes.node` with its secrets.
#[derive(Clone, Deserialize)]
pub struct NodeRow {
    pub id: NodeId,
    pub name: String,
    pub conninfo: String,
    pub admin_conninfo: Option<String>,
    /// The role that is no superuser and gave the address; `None`: a superuser vouches for it.
    pub registered_by: Option<String>,
    /// Also where it is gone.
    pub removing: bool,
    pub gone: bool,
    pub password: Option<String>,
    pub admin_password: Option<String>,
    pub options: NodeOptions,
    pub system_identifier: Option<String>,
}

/// What a node may have of its own; the column `options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeOptions {
    /// In milliseconds, both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_timeout: Option<u32>,
}

/// What a link may have of its own; the column `limits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnLimits {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag_bytes: Option<u64>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<u64>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retained_wal: Option<u64>,
}

/// A row of `nodes.link`.
#[derive(Clone, Deserialize)]
pub struct LinkRow {
    pub id: LinkId,
    pub name: String,
    pub from_node: NodeId,
    pub to_node: NodeId,
    pub spec: Spec,
    pub state: LinkState,
    pub keep_data: bool,
    pub heal: bool,
    pub limits: OwnLimits,
    pub pending: bool,
}

/// Which registry it is, and where this is.
#[derive(Clone, Deserialize)]
pub struct Origin {
    pub id: Option<String>,
    /// System identifier of the server that may act for the registry.
    pub made_on: Option<String>,
    /// Whether this is the database that may act: the one where the registry was made, renamed
    /// perhaps, or one made again under its name.
    pub made_in_this_database: bool,
    /// System identifier of this server.
    pub here: String,
}

/// Everything that the registry says.
#[derive(Clone, Deserialize)]
pub struct Rows {
    pub origin: Origin,
    /// See [`crate::apply::digest`].
    pub key: Option<String>,
    pub nodes: Vec<NodeRow>,
    pub links: Vec<LinkRow>,
}

/// The registry without addresses and secrets: all that views show, and quickly read.
#[derive(Deserialize)]
pub struct Outline {
    pub origin: Origin,
    pub nodes: Vec<(NodeId, String)>,
    pub links: Vec<LinkRow>,
}

const ORIGIN: &str = "(SELECT json_build_object(
    'id', r.id, 'made_on', r.system_identifier,
    'made_in_this_database',
      coalesce(r.database_oid = d.oid OR r.database_name = d.datname, true),
    'here', (SELECT system_identifier::text FROM pg_control_system()))
  FROM pg_database d LEFT JOIN nodes.registry r ON true WHERE d.datname = current_database())";

const NODES: &str = "'key', (SELECT key FROM nodes.registry),
  'nodes', (SELECT coalesce(json_agg(json_build_object(
    'id', n.id, 'name', n.name, 'conninfo', n.conninfo, 'admin_conninfo', n.admin_conninfo,
    'registered_by', n.registered_by, 'removing', n.state <> 'active', 'gone', n.state = 'gone',
    'options', n.options, 'system_identifier', n.system_identifier,
    'password', s.password, 'admin_password', s.admin_password) ORDER BY n.id), '[]')
  FROM nodes.node n LEFT JOIN nodes.secret s ON s.node = n.id)";

const NODE_NAMES: &str = "'nodes', (
  SELECT coalesce(json_agg(json_build_array(id, name) ORDER BY id), '[]') FROM nodes.node)";

const LINKS: &str = "(SELECT coalesce(json_agg(json_build_object(
    'id', id, 'name', name, 'from_node', from_node, 'to_node', to_node,
    'spec', spec || jsonb_build_object('kind', kind), 'state', state,
    'keep_data', keep_data, 'heal', heal, 'limits', limits, 'pending', pending)
    ORDER BY id), '[]')
  FROM nodes.link)";

impl Origin {
    pub fn load() -> Result<Origin> {
        read_json(&format!("SELECT {ORIGIN}::text"))
    }
}

/// Reads the registry as the caller's transaction sees it, of the nodes so much.
fn load<T: DeserializeOwned>(nodes: &str) -> Result<T> {
    read_json(&format!(
        "SELECT json_build_object('origin', {ORIGIN}, {nodes}, 'links', {LINKS})::text"
    ))
}

fn read_json<T: DeserializeOwned>(sql: &str) -> Result<T> {
    from_json(&spi::read_text(sql, &[])?.unwrap_or_default())
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| Error::Json { context: "registry", source })
}

impl Outline {
    pub fn load() -> Result<Outline> {
        load(NODE_NAMES)
    }

    /// What the planner calls a registry, all addresses left out.
    pub fn registry(&self) -> Registry {
        let named = |(id, name): &(NodeId, String)| {
            (*id, Node { id: *id, name: name.clone(), ..Node::default() })
        };
        Registry {
            id: self.origin.id.clone().unwrap_or_default(),
            nodes: self.nodes.iter().map(named).collect(),
            links: self.links.iter().map(LinkRow::link).collect(),
            ..Registry::default()
        }
    }
}

impl LinkRow {
    pub fn link(&self) -> Link {
        Link {
            id: self.id,
            name: self.name.clone(),
            from: self.from_node,
            to: self.to_node,
            state: self.state,
            spec: self.spec.clone(),
            keep_data: self.keep_data,
        }
    }
}

impl Rows {
    pub fn load() -> Result<Rows> {
        load(NODES)
    }

    pub fn node(&self, name: &str) -> Result<&NodeRow> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| Error::UnknownNode {
            name: name.to_owned(),
            known: self.nodes.iter().map(|node| node.name.clone()).collect(),
        })
    }

    /// A node that new links may use.
    pub fn usable_node(&self, name: &str) -> Result<&NodeRow> {
        let node = self.node(name)?;
        if node.removing { Err(Error::NodeRemoving(name.to_owned())) } else { Ok(node) }
    }

    pub fn node_name(&self, id: NodeId) -> &str {
        self.nodes.iter().find(|node| node.id == id).map_or("?", |node| &node.name)
    }

    /// Whether a node is to be a standby: until it is cloned it is another server. Which one it
    /// must be then is a rule of the planner.
    pub fn may_become_clone(&self, node: NodeId) -> bool {
        self.links.iter().any(|link| {
            link.to_node == node
                && link.state != LinkState::Removing
                && matches!(link.spec, Spec::Standby(_))
        })
    }

    /// Every link in words, for a detail.
    pub fn describe_links(&self) -> Vec<String> {
        let describe = |link: &LinkRow| {
            let (from, to) = (self.node_name(link.from_node), self.node_name(link.to_node));
            format!("{} \"{}\" from \"{from}\" to \"{to}\"", link.spec.kind(), link.name)
        };
        self.links.iter().map(describe).collect()
    }

    /// A link that is not being removed.
    pub fn link(&self, name: &str) -> Result<&LinkRow> {
        let mut live = self.links.iter().filter(|link| link.state != LinkState::Removing);
        live.clone().find(|link| link.name == name).ok_or_else(|| Error::UnknownLink {
            name: name.to_owned(),
            known: live.by_ref().map(|link| link.name.clone()).collect(),
        })
    }
}

/// Makes the registry's row with the first node; later calls change nothing.
pub fn ensure_registry() -> Result<()> {
    spi::write(
        "INSERT INTO nodes.registry (system_identifier, database_oid, database_name) \
         SELECT system_identifier::text, oid, datname FROM pg_control_system(), pg_database \
         WHERE datname = current_database() ON CONFLICT DO NOTHING",
        &[],
    )
}

/// Whether a node of that name is on its way out.
pub fn is_removing(node: &str) -> Result<bool> {
    const REMOVING: &str = "SELECT name FROM nodes.node WHERE name = $1 AND state <> 'active'";
    Ok(spi::read_text(REMOVING, &[Some(node)])?.is_some())
}

/// What `nodes.add_node()` and `nodes.alter_node()` store.
pub struct NewNode<'a> {
    pub name: &'a str,
    pub conninfo: &'a str,
    pub admin_conninfo: Option<&'a str>,
    pub registered_by: Option<&'a str>,
    pub password: Option<&'a str>,
    pub admin_password: Option<&'a str>,
    pub options: NodeOptions,
    /// Whether another server may be there now.
    pub elsewhere: bool,
}

pub fn insert_node(node: &NewNode<'_>) -> Result<()> {
    let id = spi::write_returning(
        "INSERT INTO nodes.node (name, conninfo, admin_conninfo, registered_by, options) \
         VALUES ($1, $2, $3, $4, $5::jsonb) ON CONFLICT DO NOTHING RETURNING id::text",
        &[
            Some(node.name),
            Some(node.conninfo),
            node.admin_conninfo,
            node.registered_by,
            Some(&json(&node.options)?),
        ],
    )?;
    match id {
        Some(id) => write_secret(&id, node),
        None => duplicate_node(node.name),
    }
}

/// Who has the name that a node should get; nobody whom this transaction sees, if another one
/// was quicker.
fn duplicate_node<T>(name: &str) -> Result<T> {
    let conninfo =
        spi::read_text("SELECT conninfo FROM nodes.node WHERE name = $1", &[Some(name)])?;
    Err(Error::DuplicateNode { name: name.to_owned(), conninfo })
}

pub fn update_node(id: NodeId, node: &NewNode<'_>) -> Result<()> {
    let id = id.to_string();
    spi::write(
        "UPDATE nodes.node SET conninfo = $2, admin_conninfo = $3, \
         registered_by = $4, options = $5::jsonb, \
         system_identifier = CASE WHEN $6::boolean THEN NULL ELSE system_identifier END \
         WHERE id = $1::integer",
        &[
            Some(&id),
            Some(node.conninfo),
            node.admin_conninfo,
            node.registered_by,
            Some(&json(&node.options)?),
            flag(node.elsewhere),
        ],
    )?;
    spi::write(
        "UPDATE nodes.link SET pending = true WHERE $1::integer IN (from_node, to_node)",
        &[Some(&id)],
    )?;
    write_secret(&id, node)
}

fn write_secret(id: &str, node: &NewNode<'_>) -> Result<()> {
    if node.password.is_none() && node.admin_password.is_none() {
        return spi::write("DELETE FROM nodes.secret WHERE node = $1::integer", &[Some(id)]);
    }
    spi::write(
        "INSERT INTO nodes.secret VALUES ($1::integer, $2, $3) ON CONFLICT (node) \
         DO UPDATE SET password = EXCLUDED.password, admin_password = EXCLUDED.admin_password",
        &[Some(id), node.password, node.admin_password],
    )
}

fn flag(value: bool) -> Option<&'static str> {
    Some(if value { "true" } else { "false" })
}

pub fn rename_node(id: NodeId, new: &str) -> Result<()> {
    let renamed = spi::write_returning(
        "UPDATE nodes.node SET name = $2 WHERE id = $1::integer \
         AND NOT EXISTS (SELECT FROM nodes.node WHERE name = $2) RETURNING id::text",
        &[Some(&id.to_string()), Some(new)],
    )?;
    if renamed.is_some() { Ok(()) } else { duplicate_node(new) }
}

/// Marks a node for removal; it goes with its last link. One that is gone stays so.
pub fn mark_node_removing(id: NodeId) -> Result<()> {
    spi::write(
        "UPDATE nodes.node SET state = 'removing' WHERE id = $1::integer AND state = 'active'",
        &[Some(&id.to_string())],
    )
}

/// The same for a node that will never answer again.
pub fn mark_node_gone(id: NodeId) -> Result<()> {
    spi::write(
        "UPDATE nodes.node SET state = 'gone' WHERE id = $1::integer",
        &[Some(&id.to_string())],
    )
}

pub fn delete_node(id: NodeId) -> Result<()> {
    spi::write("DELETE FROM nodes.node WHERE id = $1::integer", &[Some(&id.to_string())])
}

pub fn insert_link(name: &str, from: NodeId, to: NodeId, spec: &Spec, heal: bool) -> Result<()> {
    let id = spi::write_returning(
        "INSERT INTO nodes.link (name, kind, from_node, to_node, spec, heal) \
         VALUES ($1, $2, $3::integer, $4::integer, $5::jsonb - 'kind', $6::boolean) \
         ON CONFLICT DO NOTHING RETURNING id::text",
        &[
            Some(name),
            Some(spec.kind()),
            Some(&from.to_string()),
            Some(&to.to_string()),
            Some(&json(spec)?),
            flag(heal),
        ],
    )?;
    if id.is_some() { Ok(()) } else { duplicate_link(name) }
}

/// Removes a link and makes one like it, of another spec, with a number of its own.
pub fn renew_link(id: LinkId, spec: &Spec) -> Result<()> {
    set_link_state(id, LinkState::Removing, true)?;
    spi::write(
        "INSERT INTO nodes.link (name, kind, from_node, to_node, spec, heal, limits) \
         SELECT name, kind, from_node, to_node, $2::jsonb - 'kind', heal, limits \
         FROM nodes.link WHERE id = $1::integer",
        &[Some(&id.to_string()), Some(&json(spec)?)],
    )
}

/// As [`duplicate_node`].
fn duplicate_link(name: &str) -> Result<()> {
    let link = spi::read_text(
        "SELECT format('a %s link from \"%s\" to \"%s\"', l.kind, f.name, t.name) \
         FROM nodes.link l JOIN nodes.node f ON f.id = l.from_node \
         JOIN nodes.node t ON t.id = l.to_node WHERE l.name = $1 AND l.state <> 'removing'",
        &[Some(name)],
    )?;
    Err(Error::DuplicateLink { name: name.to_owned(), link })
}

pub fn update_link_spec(id: LinkId, spec: &Spec) -> Result<()> {
    spi::write(
        "UPDATE nodes.link SET spec = $2::jsonb - 'kind', pending = true WHERE id = $1::integer",
        &[Some(&id.to_string()), Some(&json(spec)?)],
    )
}

/// Notes the copy that is to become a link's standby, or that it is one. No server is to change.
pub fn note_unfinished(id: LinkId, unfinished: Option<&Unfinished>) -> Result<()> {
    spi::write(
        "UPDATE nodes.link SET spec = CASE WHEN $2::jsonb IS NULL THEN spec - 'unfinished' \
         ELSE jsonb_set(spec, '{unfinished}', $2::jsonb) END WHERE id = $1::integer",
        &[Some(&id.to_string()), unfinished.map(json).transpose()?.as_deref()],
    )
}

/// Has the links looked at again whose standbys commits of a node wait for.
pub fn mark_synchronous_pending(primary: NodeId) -> Result<()> {
    spi::write(
        "UPDATE nodes.link SET pending = true WHERE kind = 'standby' \
         AND from_node = $1::integer AND (spec->>'synchronous')::boolean AND NOT pending",
        &[Some(&primary.to_string())],
    )
}

/// Whether a link heals by itself, and its own limits: what the worker goes by, and no server.
pub fn update_link_watch(id: LinkId, heal: bool, limits: &OwnLimits) -> Result<()> {
    spi::write(
        "UPDATE nodes.link SET heal = $2::boolean, limits = $3::jsonb WHERE id = $1::integer",
        &[Some(&id.to_string()), flag(heal), Some(&json(limits)?)],
    )
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::Json { context: "registry", source })
}

/// Sets a link's state; `keep_data` matters on removal only.
pub fn set_link_state(id: LinkId, state: LinkState, keep_data: bool) -> Result<()> {
    let state = match state {
        LinkState::Active => "active",
        LinkState::Paused => "paused",
        LinkState::Removing => "removing",
    };
    spi::write(
        "UPDATE nodes.link SET state = $2, keep_data = $3::boolean, pending = true \
         WHERE id = $1::integer",
        &[Some(&id.to_string()), Some(state), flag(keep_data)],
    )
}

/// Lets the registry act on this server from now on, under a new id: the objects of the old
/// one are not its own.
pub fn take_over() -> Result<Option<String>> {
    spi::write_returning(
        "UPDATE nodes.registry SET id = gen_random_uuid(), key = gen_random_uuid(), \
         system_identifier = (SELECT system_identifier::text FROM pg_control_system()), \
         (database_oid, database_name) = (SELECT oid, datname FROM pg_database \
         WHERE datname = current_database()) \
         RETURNING id::text",
        &[],
    )
}

/// Tables and views of a local schema, for the refusal at `nodes.add_foreign_schema()`.
pub fn relations_in_schema(schema: &str) -> Result<Option<String>> {
    spi::read_text(
        "SELECT string_agg(relname, ', ') FROM (SELECT relname FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         ORDER BY relname LIMIT 5) first",
        &[Some(schema)],
    )
}

/// Runs a step in this database: one of the registry's own, or what no plan has to say first.
pub fn run_step(sql: &str) -> Result<()> {
    spi::write(sql, &[])
}

/// Something that changes with every row of the registry that is added, changed or removed.
pub fn fingerprint() -> Result<Option<String>> {
    spi::read_text(
        "SELECT concat_ws(' ', \
         (SELECT sum(hashtextextended(ctid::text, xmin::text::bigint)) FROM nodes.registry), \
         (SELECT sum(hashtextextended(ctid::text, xmin::text::bigint)) FROM nodes.node), \
         (SELECT sum(hashtextextended(ctid::text, xmin::text::bigint)) FROM nodes.secret), \
         (SELECT sum(hashtextextended(ctid::text, xmin::text::bigint)) FROM nodes.link))",
        &[],
    )
}

/// The boot id of this server, where pg_nodes is preloaded, and the name of this database.
pub fn here() -> Result<(Option<String>, String)> {
    let boot_id = spi::read_text("SELECT current_setting('pg_nodes.boot_id', true)", &[])?;
    let database = spi::read_text("SELECT current_database()::text", &[])?;
    Ok((boot_id, database.unwrap_or_default()))
}

/// Notes which servers the nodes are, where that is not known yet.
pub fn learn_identities(identities: &[(NodeId, String)]) -> Result<()> {
    identities.iter().try_for_each(|(node, system_identifier)| {
        spi::write(
            "UPDATE nodes.node SET system_identifier = $2 \
             WHERE id = $1::integer AND system_identifier IS NULL",
            &[Some(&node.to_string()), Some(system_identifier)],
        )
    })
}

/// Notes that what was said of these links has been brought about.
pub fn settle_links(links: &[LinkId]) -> Result<()> {
    let list: Vec<String> = links.iter().map(LinkId::to_string).collect();
    spi::write(
        // A subscription that is made again by hand one day does not empty tables.
        "UPDATE nodes.link SET pending = false, spec = spec - 'replace' \
         WHERE pending AND id = ANY ($1::integer[])",
        &[Some(&format!("{{{}}}", list.join(",")))],
    )
}

/// This server's answer to [`crate::apply::identity::IDENTITY`].
pub fn identity() -> Result<String> {
    Ok(spi::read_text(crate::apply::identity::IDENTITY, &[])?.unwrap_or_default())
}
