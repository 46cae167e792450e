//! Steps and problems: a plan as data.

mod column;

pub use column::{ColumnChange, ColumnType};

use crate::conninfo::{Conninfo, Secret};
use crate::desired::{LinkId, NodeId};
use crate::name::{Mark, TableName};
use crate::quote::Sql;
use crate::{foreign, subscription};
use std::collections::{BTreeMap, BTreeSet};

/// What must be done, in order, and what stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub problems: Vec<Problem>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.problems.is_empty()
    }

    /// Subscriptions whose slot is gone or lost: what they have missed is as exact as the facts.
    pub fn cut_off(&self) -> impl Iterator<Item = LinkId> {
        let problems = self.problems.iter().filter(|p| p.rule == subscription::SLOT_LOST);
        problems.filter_map(|problem| problem.link)
    }
}

/// When a step may run. Within [`Phase::Link`] the steps of one link keep their order, and
/// links do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before all links: what several of them share.
    Prepare,
    Link,
    /// After the other links: standbys that stop following have replayed all of the above.
    Detach,
    /// After all links: what several of them shared, and the registry's own rows.
    Finish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    /// The rule that asks for it, see [`crate::rules`].
    pub rule: &'static str,
    /// `None`: a node's own clean-up.
    pub link: Option<LinkId>,
    /// `None`: in the registry.
    pub node: Option<NodeId>,
    pub operation: Operation,
    pub reason: String,
    /// What is lost or stops, where something does.
    pub danger: Option<String>,
}

impl Step {
    /// Whether it only has an object follow the members that a group has now: no person has changed
    /// the object, and none needs to be asked.
    pub fn follows_group(&self) -> bool {
        let rules = [subscription::LISTS_OTHERS, subscription::HAS_JOINED, foreign::LISTS_OTHERS];
        rules.contains(&self.rule)
    }
}

/// Why something cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub rule: &'static str,
    pub link: Option<LinkId>,
    pub node: Option<NodeId>,
    pub message: String,
    pub hint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The link is not made right until a person acts.
    Refused,
    /// The rest is done by a later `apply()`, when the node answers.
    Waiting,
    /// Done, but a person should know.
    Warning,
}

impl ProblemKind {
    /// How the `action` column of `nodes.plan()` calls it.
    pub fn label(self) -> &'static str {
        match self {
            ProblemKind::Refused => "problem",
            ProblemKind::Waiting => "waiting",
            ProblemKind::Warning => "warning",
        }
    }
}

/// One change on one server. [`Operation::sql`] renders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    CreatePhysicalSlot {
        slot: String,
    },
    /// With `failover`, standbys copy it: 17 and later.
    CreateLogicalSlot {
        slot: String,
        failover: bool,
    },
    DropSlot {
        slot: String,
    },
    WritePassfile {
        content: Secret,
    },
    RemovePassfile,
    /// On a primary: lets the standby that streams through `slot` catch up, for a few seconds.
    AwaitReplay {
        slot: String,
    },
    /// On a standby that copies no slots by itself now: lets copies go whose slots the primary no
    /// longer has. Nobody else may drop them there.
    SyncSlots,
    /// `value` `None`: `ALTER SYSTEM RESET`.
    AlterSystem {
        setting: &'static str,
        value: Option<String>,
    },
    SetPrimaryConninfo {
        conninfo: Conninfo,
    },
    Reload,
    CreatePublication {
        name: String,
        tables: BTreeSet<TableName>,
        options: BTreeMap<String, String>,
        mark: Mark,
    },
    AddPublicationTables {
        name: String,
        tables: BTreeSet<TableName>,
    },
    DropPublicationTables {
        name: String,
        tables: BTreeSet<TableName>,
    },
    /// Lists the tables anew, whole: without row filter and column list.
    RelistPublicationTables {
        name: String,
        tables: BTreeSet<TableName>,
    },
    DropPublicationSchemas {
        name: String,
        schemas: BTreeSet<String>,
    },
    SetPublicationOptions {
        name: String,
        options: BTreeMap<String, String>,
    },
    /// `name` is what it is called now.
    RenamePublication {
        name: String,
        to: String,
    },
    DropPublication {
        name: String,
    },
    CreateSubscription {
        name: String,
        conninfo: Conninfo,
        publication: String,
        slot: String,
        copy_data: bool,
        options: BTreeMap<String, String>,
        comment: String,
    },
    SetSubscriptionConninfo {
        name: String,
        conninfo: Conninfo,
        comment: String,
    },
    SetSubscriptionPublication {
        name: String,
        publication: String,
    },
    SetSubscriptionSlot {
        name: String,
        slot: String,
    },
    SetSubscriptionOptions {
        name: String,
        options: BTreeMap<String, String>,
    },
    /// The subscription must be disabled; its slot is altered too.
    SetSubscriptionFailover {
        name: String,
    },
    EnableSubscription {
        name: String,
    },
    DisableSubscription {
        name: String,
    },
    /// Takes all rows from tables, for their copies to take the place.
    TruncateTables {
        tables: BTreeSet<TableName>,
    },
    RefreshSubscription {
        name: String,
        copy_data: bool,
    },
    /// `name` is what it is called now.
    RenameSubscription {
        name: String,
        to: String,
    },
    DropSubscription {
        name: String,
    },
    /// Into schema `public`, or else into `pg_catalog`.
    CreateFdwExtension {
        public: bool,
        comment: String,
    },
    DropFdwExtension,
    /// Takes our mark off, see [`Operation::ReleaseServer`].
    ReleaseFdwExtension,
    CreateServer {
        name: String,
        options: BTreeMap<String, String>,
        comment: String,
    },
    AlterServer {
        name: String,
        change: OptionChange,
    },
    /// Gives back the name that a person has changed.
    RenameServer {
        name: String,
        to: String,
    },
    /// Renews our mark.
    MarkServer {
        name: String,
        comment: String,
    },
    DropServer {
        name: String,
    },
    /// `role` `None`: PUBLIC.
    CreateMapping {
        server: String,
        role: Option<String>,
        options: Conninfo,
    },
    AlterMapping {
        server: String,
        role: Option<String>,
        change: OptionChange,
    },
    /// Where the options may not be read: nothing hangs from a mapping.
    ReplaceMapping {
        server: String,
        role: Option<String>,
        options: Conninfo,
    },
    DropMapping {
        server: String,
        role: Option<String>,
    },
    CreateSchema {
        name: String,
        mark: Mark,
    },
    RenameSchema {
        name: String,
        to: String,
    },
    DropSchema {
        name: String,
    },
    /// `tables` `None`: the whole remote schema.
    ImportTables {
        server: String,
        remote_schema: String,
        local_schema: String,
        tables: Option<BTreeSet<String>>,
    },
    GrantUsage {
        schema: String,
        role: Option<String>,
    },
    RevokeUsage {
        schema: String,
        role: Option<String>,
    },
    GrantTables {
        tables: BTreeSet<TableName>,
        role: Option<String>,
        rights: Rights,
    },
    RevokeTables {
        tables: BTreeSet<TableName>,
        role: Option<String>,
        rights: Rights,
    },
    AlterForeignTable {
        table: TableName,
        changes: Vec<ColumnChange>,
    },
    AlterTableOptions {
        table: TableName,
        change: OptionChange,
    },
    DropForeignTable {
        table: TableName,
    },
    /// Takes our mark off: from now on the object is the DBA's.
    ReleaseServer {
        name: String,
    },
    ReleaseSchema {
        name: String,
    },
    /// Gives a link other ends.
    MoveLink {
        link: LinkId,
        from: NodeId,
        to: NodeId,
    },
    ForgetLink {
        link: LinkId,
    },
    ForgetNode {
        node: NodeId,
    },
}

/// Rights on tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    Read,
    Write,
    All,
}

impl Rights {
    pub fn privileges(self) -> &'static [&'static str] {
        const ALL: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE"];
        match self {
            Rights::Read => &ALL[..1],
            Rights::Write => &ALL[1..],
            Rights::All => ALL,
        }
    }
}

/// What people call a role, or everybody.
pub fn role_name(role: Option<&str>) -> &str {
    role.unwrap_or("PUBLIC")
}

/// The difference between two sets of `OPTIONS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionChange {
    pub add: Conninfo,
    pub set: Conninfo,
    pub drop: BTreeSet<String>,
}

impl OptionChange {
    /// What turns `have` into `want`.
    pub fn between(have: &BTreeMap<&str, &str>, want: &BTreeMap<&str, &str>) -> Self {
        let new = want.iter().filter(|(key, _)| !have.contains_key(*key));
        let other = want.iter().filter(|(key, value)| have.get(*key).is_some_and(|v| v != *value));
        let stale = have.keys().filter(|key| !want.contains_key(*key));
        let owned = |(key, value): (&&str, &&str)| (key.to_string(), value.to_string());
        OptionChange {
            add: Conninfo::new(new.map(owned)),
            set: Conninfo::new(other.map(owned)),
            drop: stale.map(|key| key.to_string()).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.set.is_empty() && self.drop.is_empty()
    }

    /// The names of what changes, for a reason that people read.
    pub fn keys(&self) -> String {
        let changed = self.add.iter().chain(self.set.iter()).map(|(key, _)| key);
        let keys: BTreeSet<&str> = changed.chain(self.drop.iter().map(String::as_str)).collect();
        keys.into_iter().collect::<Vec<_>>().join(", ")
    }
}

impl Operation {
    /// Whether it can share a transaction with its neighbours: then a batch of them is sent as
    /// one and takes effect as one.
    pub fn is_transactional(&self) -> bool {
        match self {
            Operation::CreatePhysicalSlot { .. }
            | Operation::CreateLogicalSlot { .. }
            | Operation::DropSlot { .. }
            | Operation::WritePassfile { .. }
            | Operation::RemovePassfile
            | Operation::AwaitReplay { .. }
            | Operation::SyncSlots
            | Operation::AlterSystem { .. }
            | Operation::SetPrimaryConninfo { .. }
            | Operation::Reload
            | Operation::TruncateTables { .. }
            | Operation::RefreshSubscription { .. }
            | Operation::SetSubscriptionFailover { .. }
            | Operation::DropSubscription { .. }
            | Operation::MoveLink { .. }
            | Operation::ForgetLink { .. }
            | Operation::ForgetNode { .. } => false,
            Operation::CreatePublication { .. }
            | Operation::AddPublicationTables { .. }
            | Operation::DropPublicationTables { .. }
            | Operation::RelistPublicationTables { .. }
            | Operation::DropPublicationSchemas { .. }
            | Operation::SetPublicationOptions { .. }
            | Operation::RenamePublication { .. }
            | Operation::DropPublication { .. }
            | Operation::CreateSubscription { .. }
            | Operation::SetSubscriptionConninfo { .. }
            | Operation::SetSubscriptionPublication { .. }
            | Operation::SetSubscriptionSlot { .. }
            | Operation::SetSubscriptionOptions { .. }
            | Operation::EnableSubscription { .. }
            | Operation::DisableSubscription { .. }
            | Operation::RenameSubscription { .. }
            | Operation::CreateFdwExtension { .. }
            | Operation::DropFdwExtension
            | Operation::ReleaseFdwExtension
            | Operation::CreateServer { .. }
            | Operation::AlterServer { .. }
            | Operation::RenameServer { .. }
            | Operation::MarkServer { .. }
            | Operation::ReplaceMapping { .. }
            | Operation::DropServer { .. }
            | Operation::CreateMapping { .. }
            | Operation::AlterMapping { .. }
            | Operation::DropMapping { .. }
            | Operation::CreateSchema { .. }
            | Operation::RenameSchema { .. }
            | Operation::DropSchema { .. }
            | Operation::ImportTables { .. }
            | Operation::GrantUsage { .. }
            | Operation::RevokeUsage { .. }
            | Operation::GrantTables { .. }
            | Operation::RevokeTables { .. }
            | Operation::AlterForeignTable { .. }
            | Operation::AlterTableOptions { .. }
            | Operation::DropForeignTable { .. }
            | Operation::ReleaseServer { .. }
            | Operation::ReleaseSchema { .. } => true,
        }
    }

    /// Whether "object in use" (55006) passes by itself: a slot is free a moment after its
    /// reader was told to stop.
    pub fn retries_while_in_use(&self) -> bool {
        matches!(self, Operation::DropSlot { .. })
    }

    /// Whether "undefined object" (42704) means that somebody else has done it meanwhile.
    pub fn is_done_if_undefined(&self) -> bool {
        matches!(self, Operation::DropSlot { .. })
    }

    /// Whether a plan that begins with it makes its link from nothing.
    pub fn begins_link(&self) -> bool {
        matches!(
            self,
            Operation::CreatePhysicalSlot { .. }
                | Operation::CreatePublication { .. }
                | Operation::CreateLogicalSlot { .. }
                | Operation::CreateServer { .. }
                | Operation::CreateFdwExtension { .. }
        )
    }

    /// What to do when it fails, where the server's own words do not tell.
    pub fn failure_hint(&self) -> Option<&'static str> {
        match self {
            Operation::WritePassfile { .. } | Operation::RemovePassfile => Some(
                "The server changes pg_nodes.passfile in its data directory through a shell (COPY \
                 … TO PROGRAM): it must be able to run sh, cat, mv and rm, and to write there. Its \
                 log has their words",
            ),
            _ => None,
        }
    }

    /// The statement, byte for byte as it is sent.
    pub fn sql(&self) -> Sql {
        crate::render::render(self)
    }

    /// What is done, in two or three words: the `action` column of `nodes.plan()`.
    pub fn label(&self) -> &'static str {
        match self {
            Operation::CreatePhysicalSlot { .. } | Operation::CreateLogicalSlot { .. } => {
                "create slot"
            }
            Operation::DropSlot { .. } => "drop slot",
            Operation::WritePassfile { .. } => "write passfile",
            Operation::RemovePassfile => "remove passfile",
            Operation::AwaitReplay { .. } => "await replay",
            Operation::SyncSlots => "synchronize slots",
            Operation::AlterSystem { value: None, .. } => "reset setting",
            Operation::AlterSystem { .. } | Operation::SetPrimaryConninfo { .. } => "alter setting",
            Operation::Reload => "reload",
            Operation::CreatePublication { .. } => "create publication",
            Operation::AddPublicationTables { .. }
            | Operation::DropPublicationTables { .. }
            | Operation::RelistPublicationTables { .. }
            | Operation::DropPublicationSchemas { .. }
            | Operation::SetPublicationOptions { .. } => "alter publication",
            Operation::RenamePublication { .. } => "rename publication",
            Operation::DropPublication { .. } => "drop publication",
            Operation::CreateSubscription { .. } => "create subscription",
            Operation::SetSubscriptionConninfo { .. }
            | Operation::SetSubscriptionPublication { .. }
            | Operation::SetSubscriptionSlot { .. }
            | Operation::SetSubscriptionFailover { .. }
            | Operation::SetSubscriptionOptions { .. } => "alter subscription",
            Operation::EnableSubscription { .. } => "enable subscription",
            Operation::DisableSubscription { .. } => "disable subscription",
            Operation::TruncateTables { .. } => "truncate tables",
            Operation::RefreshSubscription { .. } => "refresh subscription",
            Operation::RenameSubscription { .. } => "rename subscription",
            Operation::DropSubscription { .. } => "drop subscription",
            Operation::CreateFdwExtension { .. } => "create extension",
            Operation::DropFdwExtension => "drop extension",
            Operation::ReleaseFdwExtension => "release extension",
            Operation::CreateServer { .. } => "create server",
            Operation::AlterServer { .. } | Operation::MarkServer { .. } => "alter server",
            Operation::RenameServer { .. } => "rename server",
            Operation::DropServer { .. } => "drop server",
            Operation::CreateMapping { .. } => "create user mapping",
            Operation::AlterMapping { .. } | Operation::ReplaceMapping { .. } => {
                "alter user mapping"
            }
            Operation::DropMapping { .. } => "drop user mapping",
            Operation::CreateSchema { .. } => "create schema",
            Operation::RenameSchema { .. } => "rename schema",
            Operation::DropSchema { .. } => "drop schema",
            Operation::ImportTables { .. } => "import tables",
            Operation::GrantUsage { .. } | Operation::GrantTables { .. } => "grant",
            Operation::RevokeUsage { .. } | Operation::RevokeTables { .. } => "revoke",
            Operation::AlterForeignTable { .. } | Operation::AlterTableOptions { .. } => {
                "alter foreign table"
            }
            Operation::DropForeignTable { .. } => "drop foreign table",
            Operation::ReleaseServer { .. } => "release server",
            Operation::ReleaseSchema { .. } => "release schema",
            Operation::MoveLink { .. } => "move link",
            Operation::ForgetLink { .. } => "forget link",
            Operation::ForgetNode { .. } => "forget node",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_changes_add_set_and_drop() {
        let have = BTreeMap::from([("host", "a"), ("port", "1")]);
        let want = BTreeMap::from([("host", "b"), ("dbname", "d")]);
        let change = OptionChange::between(&have, &want);
        assert_eq!(change.add.get("dbname"), Some("d"));
        assert_eq!(change.set.get("host"), Some("b"));
        assert!(change.drop.contains("port"));
        assert_eq!(change.keys(), "dbname, host, port");
        assert!(OptionChange::between(&want, &want).is_empty());
    }
}
