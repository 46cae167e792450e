//! What the DBA asked for: the rows of `nodes.registry`, `nodes.node` and `nodes.link`.

use crate::conninfo::Conninfo;
use crate::name::{Mark, TableName};
use crate::standby_names::Method;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub type NodeId = i32;
pub type LinkId = i32;

/// One registry: its nodes and the links that should exist between them.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The registry's uuid, part of every mark.
    pub id: String,
    pub nodes: BTreeMap<NodeId, Node>,
    pub links: Vec<Link>,
    /// Whether a worker watches the nodes: what must be moved on all the time needs one.
    pub is_watched: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    /// How the other nodes reach this one, password included.
    pub conninfo: Conninfo,
    /// Tells one conninfo from another and nothing about either: a hash with a key that only the
    /// registry has. Part of the comment on objects that may hide what was put into them.
    pub digest: String,
    pub removing: bool,
    /// It will never answer again: whatever is removed does not wait for it.
    pub gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub id: LinkId,
    pub name: String,
    /// The node where the data is.
    pub from: NodeId,
    /// The node where the data goes, or appears.
    pub to: NodeId,
    pub state: LinkState,
    pub spec: Spec,
    /// On removal: whether what holds data or shows it stays.
    pub keep_data: bool,
}

impl Link {
    /// Whether a failover manager makes the standby follow, and says who is the primary.
    pub fn is_unmanaged(&self) -> bool {
        matches!(&self.spec, Spec::Standby(spec) if spec.unmanaged)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    Active,
    Paused,
    Removing,
}

/// What a link is, by kind; the `spec` column of `nodes.link`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Spec {
    Standby(StandbySpec),
    Foreign(ForeignSpec),
    Subscription(SubscriptionSpec),
}

impl Spec {
    /// The value of the `kind` column.
    pub fn kind(&self) -> &'static str {
        match self {
            Spec::Standby(_) => "standby",
            Spec::Foreign(_) => "foreign",
            Spec::Subscription(_) => "subscription",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbySpec {
    /// Keep WAL for the standby with a physical slot on its primary.
    pub slot: bool,
    /// Commits on its primary wait for the standby.
    #[serde(default)]
    pub synchronous: bool,
    #[serde(default)]
    pub options: StandbyOptions,
    /// Whether a failover manager makes it follow, and we only watch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
    /// The copy that is to become the standby, from when it is begun until it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
}

/// Where a copy is made: there it is taken away if the link is removed before it is a standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The server that makes it.
    pub on_node: NodeId,
    /// The data directory to be.
    pub directory: String,
    /// The places of its tablespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<String>,
    /// Whether it is to take the place of that server's own data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swap: bool,
}

impl StandbySpec {
    /// One that nobody waits for.
    pub fn new(slot: bool) -> Self {
        let options = StandbyOptions::default();
        StandbySpec { slot, synchronous: false, options, unmanaged: false, unfinished: None }
    }

    /// One whose settings and slots are somebody else's.
    pub fn unmanaged() -> Self {
        StandbySpec { unmanaged: true, ..StandbySpec::new(false) }
    }
}

/// How commits wait for the synchronous standbys of a primary, of which this is one. All of them
/// share one setting: the largest number that any of them asks for counts, and `first` before
/// `any`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StandbyOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_method: Option<Method>,
    /// For how many of them; 1 where nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_number: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignSpec {
    pub local_schema: String,
    pub remote_schema: String,
    /// `None`: every table of the remote schema.
    pub tables: Option<BTreeSet<String>>,
    /// Roles of the local side that get a user mapping, besides the one that pg_nodes uses.
    pub roles: BTreeSet<String>,
    /// Whether PUBLIC gets a user mapping too.
    pub public: bool,
    pub writable: bool,
    /// Further options of the foreign server (`fetch_size`, `async_capable`, …).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// `None`: all tables of the publisher's database.
    pub tables: Option<BTreeSet<TableName>>,
    pub copy_data: bool,
    /// What the tables on the subscriber hold goes before the copy. Only until the link is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Options of the publication and the subscription, see [`PUBLICATION_OPTIONS`] and
    /// [`SUBSCRIPTION_OPTIONS`].
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Options of `add_subscription` that belong to the publication.
pub const PUBLICATION_OPTIONS: &[&str] = &["publish", "publish_via_partition_root"];

/// Options of `add_subscription` that belong to the subscription and can be altered in place.
pub const SUBSCRIPTION_OPTIONS: &[&str] = &[
    "binary",
    "streaming",
    "synchronous_commit",
    "disable_on_error",
    "origin",
    "run_as_owner",
    "password_required",
];

impl SubscriptionSpec {
    /// The initial copy runs beside the apply worker: with a worker, an origin, a walsender and
    /// a slot of its own, one at least.
    pub fn copies(&self) -> i64 {
        i64::from(self.copy_data)
    }

    /// The options that belong to the publication.
    pub fn publication_options(&self) -> BTreeMap<String, String> {
        owned(self.options_in(PUBLICATION_OPTIONS))
    }

    /// The options that belong to the subscription.
    pub fn subscription_options(&self) -> BTreeMap<String, String> {
        owned(self.options_in(SUBSCRIPTION_OPTIONS))
    }

    pub(crate) fn options_in(&self, names: &[&str]) -> impl Iterator<Item = (&str, &str)> {
        let options = self.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        options.filter(|(key, _)| names.contains(key))
    }
}

fn owned<'a>(options: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl Registry {
    pub fn mark(&self, link: &Link) -> Mark {
        Mark { registry: self.id.clone(), link: link.id }
    }

    /// The node's name, for messages; a node that is gone has none.
    pub fn node_name(&self, id: NodeId) -> &str {
        self.nodes.get(&id).map_or("?", |node| node.name.as_str())
    }

    /// Quickly where the links are in order of their ids, as a registry lists them.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        match self.links.binary_search_by_key(&id, |link| link.id) {
            Ok(place) => Some(&self.links[place]),
            Err(_) => self.links.iter().find(|link| link.id == id),
        }
    }
}

/// What must be asked of a node so that its links can be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interest {
    /// How the comments of this registry's marks begin: what bears one matters, whatever it is
    /// called.
    pub marks: String,
    /// Schemas whose relations matter.
    pub schemas: BTreeSet<String>,
    /// Single tables that matter.
    pub tables: BTreeSet<TableName>,
    /// Whether every table of the database matters.
    pub all_tables: bool,
    /// Whether subscriptions are to fill tables of the node.
    pub subscriber: bool,
    /// Whether subscriptions are to take from it.
    pub publisher: bool,
    /// Whether foreign schemas are to be on it.
    pub foreign: bool,
    /// Whether it is to be a standby, or to have one: then what its files say matters.
    pub standby: bool,
    /// Roles whose existence and attributes matter.
    pub roles: BTreeSet<String>,
}

impl Registry {
    /// Collects what the links of `node` need to know about it.
    pub fn interest(&self, node: NodeId) -> Interest {
        let mut interest = Interest { marks: Mark::prefix(&self.id), ..Interest::default() };
        if let Some(user) = self.nodes.get(&node).and_then(|n| n.conninfo.get("user")) {
            interest.roles.insert(user.to_owned());
        }
        for link in self.links.iter().filter(|l| l.from == node || l.to == node) {
            match &link.spec {
                Spec::Standby(_) => interest.standby = true,
                Spec::Subscription(spec) => {
                    interest.subscriber |= link.to == node;
                    interest.publisher |= link.from == node;
                    match &spec.tables {
                        Some(tables) => interest.tables.extend(tables.iter().cloned()),
                        None => interest.all_tables = true,
                    }
                }
                Spec::Foreign(spec) if link.from == node => {
                    interest.schemas.insert(spec.remote_schema.clone());
                }
                Spec::Foreign(spec) => {
                    interest.foreign = true;
                    interest.schemas.insert(spec.local_schema.clone());
                    interest.roles.extend(spec.roles.iter().cloned());
                }
            }
        }
        interest
    }
}
