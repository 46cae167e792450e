//! What the servers said of themselves. A fact has an age; a node that did not answer, or
//! whose answer is too old, is unknown, and unknown is not absent.

use crate::conninfo::{Conninfo, Secret};
use crate::desired::NodeId;
use crate::lsn::Lsn;
use crate::name::{Mark, TableName};
use crate::rejoin::Past;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Answers older than this are unknown.
pub const MAX_AGE: Duration = Duration::from_secs(30);

/// The last answer of every node.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub nodes: BTreeMap<NodeId, Observation>,
}

#[derive(Debug, Clone)]
pub enum Observation {
    Seen {
        age: Duration,
        facts: Box<NodeFacts>,
    },
    /// The node did not answer; `error` is libpq's message, without secrets.
    Unreachable {
        error: String,
    },
}

impl World {
    /// The facts of a node, if they are known.
    pub fn facts(&self, node: NodeId) -> Option<&NodeFacts> {
        match self.nodes.get(&node) {
            Some(Observation::Seen { age, facts }) if *age <= MAX_AGE => Some(facts),
            Some(Observation::Seen { .. } | Observation::Unreachable { .. }) | None => None,
        }
    }

    /// Why a node's facts are unknown.
    pub fn silence(&self, node: NodeId) -> String {
        match self.nodes.get(&node) {
            Some(Observation::Unreachable { error }) => error.clone(),
            Some(Observation::Seen { age, .. }) => format!("last seen {} s ago", age.as_secs()),
            None => "not asked yet".to_owned(),
        }
    }
}

/// What one server said, through one session in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// `server_version_num`.
    pub version: i32,
    /// From the control file; equal on a primary and all its standbys.
    pub system_identifier: String,
    pub in_recovery: bool,
    pub timeline: i64,
    /// On a primary: how far it has written.
    pub lsn: Moving,
    /// Where a primary has left earlier timelines, where [`crate::desired::Interest::publisher`] says
    /// so and the role is a superuser.
    pub past: Past,
    /// The database of the session.
    pub database: String,
    /// The role of the session, and what it may do.
    pub role: String,
    pub superuser: bool,
    /// Make and drop replication slots.
    pub can_replicate: bool,
    /// Create publications and schemas in the database.
    pub can_create: bool,
    /// Make servers of `postgres_fdw`. `None`: the extension is not there.
    pub can_use_fdw: Option<bool>,
    pub can_create_subscription: bool,
    pub data_directory: Option<String>,
    /// Settings in force.
    pub settings: BTreeMap<String, String>,
    /// What the configuration files say, which a reload would put in force. `None`: not readable.
    pub file_settings: Option<BTreeMap<String, String>>,
    /// `primary_conninfo` in force and in the files.
    pub primary_conninfo: Option<Conninfo>,
    pub primary_conninfo_file: Option<Conninfo>,
    /// The content of `pg_nodes.passfile` in the data directory.
    pub passfile: Option<Secret>,
    /// Whether the second file is there through which the passfile is written.
    pub passfile_unfinished: bool,
    /// Whether a directory has the name of either.
    pub passfile_blocked: bool,
    pub slots: Vec<Slot>,
    pub walsenders: i64,
    /// `application_name` of every standby that streams, where
    /// [`crate::desired::Interest::standby`] says so and the role is a superuser.
    pub streaming: BTreeSet<String>,
    pub publications: Vec<Publication>,
    pub subscriptions: Vec<Subscription>,
    /// Object ids of all subscriptions of the server, of every database. Asked after the slots
    /// of all nodes wherever one of those looks like a slot of a subscription's copy.
    pub subscription_oids: BTreeSet<u32>,
    pub background_workers: i64,
    pub usage: Usage,
    /// The extension `postgres_fdw`: whether it can be made, looked up where
    /// [`crate::desired::Interest::foreign`] says so, and its comment where it exists.
    pub fdw_available: bool,
    pub fdw_comment: Option<String>,
    /// Whether there is a schema `public`.
    pub public_schema: bool,
    /// Servers of `postgres_fdw`.
    pub servers: Vec<Server>,
    pub schemas: Vec<Schema>,
    pub relations: Vec<Relation>,
    pub roles: Vec<Role>,
}

/// The first version whose logical slots can survive a failover.
const WITH_FAILOVER_SLOTS: i32 = 17;

impl NodeFacts {
    pub fn has_failover_slots(&self) -> bool {
        self.major() >= WITH_FAILOVER_SLOTS
    }

    pub fn major(&self) -> i32 {
        self.version / 10_000
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// A setting that is a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// The setting that limits replication origins: one of its own from 18 on.
    pub fn origins_setting(&self) -> &'static str {
        match self.setting("max_active_replication_origins") {
            Some(_) => "max_active_replication_origins",
            None => "max_replication_slots",
        }
    }

    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    pub fn publication(&self, name: &str) -> Option<&Publication> {
        self.publications.iter().find(|publication| publication.name == name)
    }

    pub fn subscription(&self, name: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.name == name)
    }

    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.iter().find(|schema| schema.name == name)
    }

    pub fn relation(&self, name: &TableName) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == *name)
    }

    pub fn relations_in<'a>(&'a self, schema: &'a str) -> impl Iterator<Item = &'a Relation> {
        self.relations.iter().filter(move |relation| relation.name.schema == schema)
    }

    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }
}

/// A position that moves all the time: to find another is no news, and both are equal.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moving(pub Option<Lsn>);

impl PartialEq for Moving {
    fn eq(&self, _: &Moving) -> bool {
        true
    }
}

impl Eq for Moving {}

/// How much of its limits a server uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Client sessions, of every database.
    pub connections: i64,
    /// Apply workers, parallel ones, and workers of initial copies, of every database.
    pub logical_workers: i64,
    /// Workers of initial copies, of the subscription that has most.
    pub sync_workers: i64,
    /// Parallel apply workers, of the subscription that has most; none before 16.
    pub parallel_workers: i64,
    /// Replication origins, of every database.
    pub origins: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// 17 and later: to be copied to standbys.
    pub failover: bool,
    /// On a standby, 17 and later: a copy of a slot of the primary.
    pub synced: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Publication {
    pub name: String,
    pub comment: Option<String>,
    /// The tables as listed.
    pub tables: BTreeSet<TableName>,
    /// Those of them with a row filter or a column list.
    pub filtered: BTreeSet<TableName>,
    /// The schemas listed with all their tables.
    pub schemas: BTreeSet<String>,
    /// Whether it is `FOR ALL TABLES`.
    pub all_tables: bool,
    /// The tables that subscribers see: partitions resolved.
    pub published: BTreeSet<TableName>,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscription {
    pub oid: u32,
    pub name: String,
    pub comment: Option<String>,
    pub enabled: bool,
    /// `None`: not readable.
    pub conninfo: Option<Conninfo>,
    pub slot: Option<String>,
    pub publications: BTreeSet<String>,
    pub options: BTreeMap<String, String>,
    /// How far it has applied what the publisher did; `None`: nothing yet, or not readable.
    pub applied: Moving,
    /// How far the publisher was when the copy of the first table was done; `None`: there is one that
    /// was not copied, or that is not readable.
    pub copied: Option<Lsn>,
    /// Tables with their state (`pg_subscription_rel.srsubstate`).
    pub tables: BTreeMap<String, SubscribedTable>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedTable {
    pub table: TableName,
    /// `i` initialize, `d` data copy, `f` finished copy, `s` synchronized, `r` ready.
    pub state: char,
}

impl Subscription {
    pub fn table_names(&self) -> BTreeSet<TableName> {
        self.tables.values().map(|t| t.table.clone()).collect()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    pub name: String,
    pub comment: Option<String>,
    pub options: BTreeMap<String, String>,
    pub mappings: Vec<Mapping>,
    /// The foreign tables on it, in any schema.
    pub tables: BTreeSet<TableName>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapping {
    /// `None`: PUBLIC.
    pub role: Option<String>,
    /// `None`: not readable.
    pub options: Option<Conninfo>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schema {
    pub name: String,
    pub comment: Option<String>,
    pub owner: String,
    /// Whether the role of the session may act as the owner.
    pub owned: bool,
    pub grants: BTreeSet<Grant>,
}

/// A right that the owner of a schema or foreign table has given to a role that matters. What
/// others passed on is not ours to take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// `None`: PUBLIC.
    pub role: Option<String>,
    pub privilege: String,
}

/// A table, view, foreign table or partitioned table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relation {
    pub name: TableName,
    pub owner: String,
    /// `pg_class.relkind`.
    pub kind: String,
    /// Whether a partition: `IMPORT FOREIGN SCHEMA` skips those.
    pub is_partition: bool,
    /// Rows and bytes when its statistics were made last.
    pub rows: i64,
    pub bytes: i64,
    /// Whether an extension made it.
    pub of_extension: bool,
    /// Whether its rows can be told apart for UPDATE and DELETE by a subscriber.
    pub replica_identity: bool,
    /// Whether the role of the session has the rights of its owner.
    pub owned: bool,
    /// Whether it takes up space before a subscription has filled it, partitions included. Only
    /// looked at where [`crate::desired::Interest::subscriber`] says so.
    pub filled: bool,
    /// For a foreign table: its server and the remote table it shows.
    pub server: Option<String>,
    pub remote: Option<TableName>,
    /// Its other options, and who may use it.
    pub options: BTreeMap<String, String>,
    pub grants: BTreeSet<Grant>,
    pub columns: Vec<Column>,
}

impl Default for TableName {
    fn default() -> Self {
        TableName::new("", "")
    }
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Column {
    pub name: String,
    /// As `format_type()` prints it with `search_path` = `pg_catalog`.
    #[serde(rename = "type")]
    pub data_type: String,
    pub not_null: bool,
    pub generated: bool,
    /// For a foreign table's column: the remote column, where it is called otherwise.
    pub remote: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    pub name: String,
    pub superuser: bool,
    pub replication: bool,
}

/// Whose an object is, by its comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This link made it.
    Ours,
    /// Another link of this registry made it.
    OtherLink(i32),
    /// Somebody else made it, or another registry did.
    Foreign,
}

/// Reads the owner of an object from its comment.
pub fn owner(comment: Option<&str>, mark: &Mark) -> Owner {
    match comment.and_then(|comment| Mark::link_of(&mark.registry, comment)) {
        Some(link) if link == mark.link => Owner::Ours,
        Some(link) => Owner::OtherLink(link),
        None => Owner::Foreign,
    }
}

/// An object that may bear a mark: a link's own keeps it when somebody renames it.
pub trait Marked {
    fn name(&self) -> &str;
    fn comment(&self) -> Option<&str>;
}

impl Marked for Server {
    fn name(&self) -> &str {
        &self.name
    }

    fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

impl Marked for Schema {
    fn name(&self) -> &str {
        &self.name
    }

    fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

impl Marked for Publication {
    fn name(&self) -> &str {
        &self.name
    }

    fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

impl Marked for Subscription {
    fn name(&self) -> &str {
        &self.name
    }

    fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}
