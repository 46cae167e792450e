//! What one operation does to one server, and when a server refuses it, as Postgres would.

use crate::sim::{Outcome, ensure};
use nodes_plan::conninfo::Conninfo;
use nodes_plan::name::{FDW_COMMENT, TableName};
use nodes_plan::observed::*;
use nodes_plan::step::{ColumnChange, Operation, OptionChange};
use std::collections::{BTreeMap, BTreeSet};

/// `there` is the other end of the link, where the data is.
pub fn interpret(
    here: &mut NodeFacts,
    there: &mut NodeFacts,
    oid: u32,
    operation: &Operation,
) -> Outcome {
    permitted(here, operation)?;
    physical(here, operation)
        .or_else(|| published(here, operation))
        .or_else(|| subscribed(here, there, oid, operation))
        .or_else(|| foreign(here, there, operation))
        .unwrap_or_else(|| Err(format!("not simulated: {operation:?}")))
}

/// Whether server and role allow it at all.
fn permitted(facts: &NodeFacts, operation: &Operation) -> Outcome {
    match operation {
        Operation::WritePassfile { .. }
        | Operation::RemovePassfile
        | Operation::AlterSystem { .. }
        | Operation::SetPrimaryConninfo { .. }
        | Operation::Reload => ensure(facts.superuser, "permission denied"),
        Operation::CreateFdwExtension { .. } => {
            writable(facts)?;
            ensure(facts.superuser, "permission denied to create extension")
        }
        Operation::DropSlot { .. }
        | Operation::CreatePhysicalSlot { .. }
        | Operation::SyncSlots => {
            ensure(facts.can_replicate, "permission denied to use replication slots")
        }
        Operation::CreateLogicalSlot { .. } => {
            ensure(facts.can_replicate, "permission denied to use replication slots")?;
            ensure(facts.setting("wal_level") == Some("logical"), "wal_level is not logical")
        }
        Operation::AwaitReplay { .. } => ensure(!facts.in_recovery, "recovery is in progress"),
        Operation::CreateSubscription { .. } => {
            writable(facts)?;
            let granted = facts.can_create_subscription && facts.version >= 160_000;
            ensure(facts.superuser || granted, "permission denied to create subscription")
        }
        Operation::CreatePublication { tables, .. }
        | Operation::AddPublicationTables { tables, .. }
        | Operation::RelistPublicationTables { tables, .. } => {
            writable(facts)?;
            let create = matches!(operation, Operation::CreatePublication { .. });
            ensure(facts.can_create || !create, "permission denied for database")?;
            let owned = |table| facts.relation(table).is_none_or(|relation| relation.owned);
            ensure(tables.iter().all(owned), "must be owner of table")
        }
        Operation::CreateServer { .. } => {
            writable(facts)?;
            ensure(facts.can_use_fdw != Some(false), "permission denied for wrapper")
        }
        Operation::CreateSchema { .. } => {
            writable(facts)?;
            ensure(facts.can_create, "permission denied for database")
        }
        _ => writable(facts),
    }
}

fn writable(facts: &NodeFacts) -> Outcome {
    ensure(!facts.in_recovery, "recovery is in progress")?;
    let read_only = facts.setting("default_transaction_read_only") == Some("on");
    ensure(!read_only, "cannot execute in a read-only transaction")
}

/// Slots, settings and files.
fn physical(facts: &mut NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreatePhysicalSlot { slot } => add_slot(facts, slot, "physical"),
        Operation::CreateLogicalSlot { slot, failover } => {
            ensure(!failover || facts.version >= 170_000, "no such parameter")
                .and_then(|()| add_slot(facts, slot, "logical"))
                .and_then(|()| {
                    let slot = find(&mut facts.slots, |s| s.name == *slot, "slot")?;
                    slot.failover = *failover;
                    Ok(())
                })
        }
        Operation::DropSlot { slot } => {
            // Subscribers would wait for it for ever.
            let named = facts.setting("synchronized_standby_slots").unwrap_or_default();
            ensure(!named.split(", ").any(|name| name == slot), "slot is waited for")
                .and_then(|()| remove(&mut facts.slots, |s| s.name == *slot, "slot"))
        }
        Operation::AwaitReplay { .. } => Ok(()),
        Operation::SyncSlots => ensure(facts.in_recovery, "recovery is not in progress"),
        Operation::WritePassfile { content } => {
            facts.passfile = Some(content.clone());
            facts.passfile_unfinished = false;
            Ok(())
        }
        Operation::RemovePassfile => {
            facts.passfile = None;
            facts.passfile_unfinished = false;
            Ok(())
        }
        Operation::AlterSystem { setting, value } => {
            let files = facts.file_settings.get_or_insert_default();
            match (*setting, value) {
                ("primary_conninfo", None) => facts.primary_conninfo_file = None,
                (name, Some(value)) => drop(files.insert(name.to_owned(), value.clone())),
                (name, None) => drop(files.remove(name)),
            }
            Ok(())
        }
        Operation::SetPrimaryConninfo { conninfo } => {
            facts.primary_conninfo_file = Some(conninfo.clone());
            Ok(())
        }
        Operation::Reload => {
            reload(facts);
            Ok(())
        }
        _ => return None,
    })
}

/// Puts in force what the files say.
pub fn reload(facts: &mut NodeFacts) {
    let files = facts.file_settings.clone().unwrap_or_default();
    for (name, default) in [
        ("primary_slot_name", ""),
        ("hot_standby_feedback", "off"),
        ("sync_replication_slots", "off"),
        ("synchronized_standby_slots", ""),
        ("synchronous_standby_names", ""),
    ] {
        let value = files.get(name).map_or(default, String::as_str);
        facts.settings.insert(name.to_owned(), value.to_owned());
    }
    facts.primary_conninfo.clone_from(&facts.primary_conninfo_file);
}

fn add_slot(facts: &mut NodeFacts, name: &str, kind: &str) -> Outcome {
    ensure(facts.slot(name).is_none(), "slot exists")?;
    ensure(free_slots(facts) > 0, "all replication slots are in use")?;
    facts.slots.push(Slot { name: name.into(), kind: kind.into(), ..Slot::default() });
    Ok(())
}

fn free_slots(facts: &NodeFacts) -> i64 {
    let limit = facts.number("max_replication_slots").unwrap_or(i64::MAX);
    limit - facts.slots.len() as i64
}

fn remove<T>(items: &mut Vec<T>, which: impl Fn(&T) -> bool, class: &str) -> Outcome {
    let before = items.len();
    items.retain(|item| !which(item));
    ensure(items.len() < before, &format!("no such {class}"))
}

fn find<'a, T>(
    items: &'a mut [T],
    which: impl Fn(&T) -> bool,
    class: &str,
) -> Result<&'a mut T, String> {
    items.iter_mut().find(|item| which(item)).ok_or_else(|| format!("no such {class}"))
}

fn published(facts: &mut NodeFacts, operation: &Operation) -> Option<Outcome> {
    let publication =
        |facts: &mut NodeFacts, name: &str, change: &dyn Fn(&mut Publication) -> Outcome| {
            change(find(&mut facts.publications, |p| p.name == name, "publication")?)
        };
    Some(match operation {
        Operation::CreatePublication { name, tables, options, mark } => (|| {
            ensure(facts.publication(name).is_none(), "publication exists")?;
            ensure(tables.iter().all(|t| facts.relation(t).is_some()), "no such table")?;
            let mut all = default_publication_options();
            all.extend(options.clone());
            facts.publications.push(Publication {
                name: name.clone(),
                comment: Some(mark.comment()),
                tables: tables.clone(),
                options: all,
                ..Publication::default()
            });
            Ok(())
        })(),
        Operation::AddPublicationTables { name, tables } => publication(facts, name, &|p| {
            ensure(!p.all_tables, "publication is FOR ALL TABLES")?;
            ensure(p.tables.is_disjoint(tables), "already in the publication")?;
            p.tables.extend(tables.iter().cloned());
            Ok(())
        }),
        Operation::DropPublicationTables { name, tables } => publication(facts, name, &|p| {
            ensure(tables.is_subset(&p.tables), "not in the publication")?;
            p.tables.retain(|table| !tables.contains(table));
            p.filtered.retain(|table| !tables.contains(table));
            Ok(())
        }),
        Operation::RelistPublicationTables { name, tables } => publication(facts, name, &|p| {
            ensure(tables.is_subset(&p.tables), "not in the publication")?;
            p.filtered.retain(|table| !tables.contains(table));
            Ok(())
        }),
        Operation::DropPublicationSchemas { name, schemas } => publication(facts, name, &|p| {
            ensure(schemas.is_subset(&p.schemas), "not in the publication")?;
            p.schemas.retain(|schema| !schemas.contains(schema));
            Ok(())
        }),
        Operation::SetPublicationOptions { name, options } => publication(facts, name, &|p| {
            p.options.extend(options.clone());
            Ok(())
        }),
        Operation::RenamePublication { name, to } => (|| {
            ensure(facts.publication(to).is_none(), "publication exists")?;
            publication(facts, name, &|p| {
                p.name.clone_from(to);
                Ok(())
            })
        })(),
        Operation::DropPublication { name } => {
            remove(&mut facts.publications, |p| p.name == *name, "publication")
        }
        _ => return None,
    })
}

fn subscribed(
    facts: &mut NodeFacts,
    publisher: &mut NodeFacts,
    oid: u32,
    operation: &Operation,
) -> Option<Outcome> {
    let version = facts.version;
    let system = facts.system_identifier.clone();
    let subscription =
        |facts: &mut NodeFacts,
         name: &str,
         change: &mut dyn FnMut(&mut Subscription) -> Outcome| {
            change(find(&mut facts.subscriptions, |s| s.name == name, "subscription")?)
        };
    Some(match operation {
        Operation::CreateSubscription { .. } => {
            create_subscription(facts, publisher, oid, operation)
        }
        Operation::SetSubscriptionConninfo { name, conninfo, comment } => {
            subscription(facts, name, &mut |s| {
                s.conninfo = Some(conninfo.clone());
                s.comment = Some(comment.clone());
                Ok(())
            })
        }
        Operation::SetSubscriptionPublication { name, publication } => {
            subscription(facts, name, &mut |s| {
                s.publications = BTreeSet::from([publication.clone()]);
                Ok(())
            })
        }
        Operation::SetSubscriptionSlot { name, slot } => subscription(facts, name, &mut |s| {
            s.slot = Some(slot.clone());
            Ok(())
        }),
        Operation::SetSubscriptionOptions { name, options } => {
            subscription(facts, name, &mut |s| {
                known_options(version, options)?;
                s.options.extend(options.clone());
                Ok(())
            })
        }
        Operation::SetSubscriptionFailover { name } => subscription(facts, name, &mut |s| {
            ensure(version >= 170_000, "unrecognized parameter")?;
            ensure(!s.enabled, "cannot set failover for enabled subscription")?;
            let slot = s.slot.as_ref().ok_or("no slot name")?;
            find(&mut publisher.slots, |found| found.name == *slot, "slot")?.failover = true;
            s.options.insert("failover".into(), "true".into());
            Ok(())
        }),
        Operation::EnableSubscription { name } => subscription(facts, name, &mut |s| {
            ensure(s.slot.is_some(), "subscription has no slot")?;
            s.enabled = true;
            begin_copies(s, publisher, &system);
            Ok(())
        }),
        Operation::DisableSubscription { name } => subscription(facts, name, &mut |s| {
            s.enabled = false;
            Ok(())
        }),
        Operation::TruncateTables { tables } => {
            let emptied = facts.relations.iter_mut().filter(|r| tables.contains(&r.name));
            emptied.for_each(|relation| relation.filled = false);
            ensure(!facts.in_recovery, "a standby cannot truncate")
        }
        Operation::RefreshSubscription { name, copy_data } => {
            refresh(facts, publisher, name, *copy_data)
        }
        Operation::RenameSubscription { name, to } => (|| {
            ensure(facts.subscription(to).is_none(), "subscription exists")?;
            subscription(facts, name, &mut |s| {
                s.name.clone_from(to);
                Ok(())
            })
        })(),
        // Without its slot; those of its copies stay behind.
        Operation::DropSubscription { name } => {
            remove(&mut facts.subscriptions, |s| s.name == *name, "subscription")
        }
        _ => return None,
    })
}

fn refresh(
    facts: &mut NodeFacts,
    publisher: &mut NodeFacts,
    name: &str,
    copy_data: bool,
) -> Outcome {
    let system = facts.system_identifier.clone();
    let s = find(&mut facts.subscriptions, |s| s.name == name, "subscription")?;
    ensure(s.enabled, "refresh of a disabled subscription")?;
    let published = published_by(publisher, &s.publications);
    let ended = s.tables.iter().filter(|(_, t)| !published.contains(&t.table));
    let ended: Vec<String> = ended.map(|(key, _)| copy_slot(s.oid, key, &system)).collect();
    publisher.slots.retain(|slot| !ended.contains(&slot.name));
    s.tables.retain(|_, t| published.contains(&t.table));
    let known = s.table_names();
    for (key, table) in new_tables(&published, copy_data) {
        s.tables.entry(key).or_insert(table);
    }
    begin_copies(s, publisher, &system);
    let new = published.difference(&known).cloned().collect();
    fill(facts, &new, copy_data);
    Ok(())
}

/// A copy leaves rows, even one that does not get far.
fn fill(facts: &mut NodeFacts, tables: &BTreeSet<TableName>, copy_data: bool) {
    let copied = facts.relations.iter_mut().filter(|r| copy_data && tables.contains(&r.name));
    copied.for_each(|relation| relation.filled = true);
}

fn create_subscription(
    facts: &mut NodeFacts,
    publisher: &mut NodeFacts,
    oid: u32,
    operation: &Operation,
) -> Outcome {
    let Operation::CreateSubscription {
        name,
        conninfo,
        publication,
        slot,
        copy_data,
        options,
        comment,
    } = operation
    else {
        return Err("not a subscription".into());
    };
    ensure(facts.subscription(name).is_none(), "subscription exists")?;
    ensure(publisher.publication(publication).is_some(), "no such publication")?;
    ensure(publisher.slot(slot).is_some(), "no such slot on the publisher")?;
    known_options(facts.version, options)?;
    let mut all = default_subscription_options(facts.version);
    all.extend(options.clone());
    if let Some(failover) = all.get("failover") {
        let slot = find(&mut publisher.slots, |found| found.name == *slot, "slot")?;
        slot.failover = failover == "true";
    }
    let publications = BTreeSet::from([publication.clone()]);
    let published = published_by(publisher, &publications);
    fill(facts, &published, *copy_data);
    facts.subscriptions.push(Subscription {
        applied: Moving::default(),
        copied: None,
        oid,
        name: name.clone(),
        comment: Some(comment.clone()),
        enabled: false,
        conninfo: Some(conninfo.clone()),
        slot: Some(slot.clone()),
        publications,
        options: all,
        tables: new_tables(&published, *copy_data),
    });
    Ok(())
}

fn published_by(publisher: &NodeFacts, names: &BTreeSet<String>) -> BTreeSet<TableName> {
    let publications = names.iter().filter_map(|name| publisher.publication(name));
    publications.flat_map(|p| published_tables(publisher, p)).collect()
}

/// The tables that a publication's subscribers see.
pub fn published_tables(facts: &NodeFacts, publication: &Publication) -> BTreeSet<TableName> {
    let tables = facts.relations.iter().filter(|relation| relation.kind == "r");
    let of_schema = tables
        .filter(|r| publication.all_tables || publication.schemas.contains(&r.name.schema))
        .map(|relation| relation.name.clone());
    publication.tables.iter().cloned().chain(of_schema).collect()
}

fn new_tables(tables: &BTreeSet<TableName>, copy_data: bool) -> BTreeMap<String, SubscribedTable> {
    let state = if copy_data { 'i' } else { 'r' };
    let new = |table: &TableName| SubscribedTable { table: table.clone(), state };
    tables.iter().map(|table| (table.to_string(), new(table))).collect()
}

/// Copies begin where the publisher has slots in plenty, and wait elsewhere. (When exactly they
/// take the last slots from somebody else is nothing that a plan could know.)
fn begin_copies(subscription: &mut Subscription, publisher: &mut NodeFacts, system: &str) {
    for (key, table) in subscription.tables.iter_mut().filter(|(_, t)| t.state == 'i') {
        let slot = copy_slot(subscription.oid, key, system);
        if free_slots(publisher) > 10 && add_slot(publisher, &slot, "logical").is_ok() {
            table.state = 'd';
        }
    }
}

/// `ReplicationSlotNameForTablesync` (tablesync.c).
fn copy_slot(subscription: u32, table: &str, system: &str) -> String {
    let table = table.bytes().map(u32::from).sum::<u32>();
    format!("pg_{subscription}_sync_{table}_{system}")
}

/// The slots of a subscription's unfinished copies.
pub fn copies(subscription: &Subscription, system: &str) -> Vec<String> {
    let copying = subscription.tables.iter().filter(|(_, table)| table.state == 'd');
    copying.map(|(key, _)| copy_slot(subscription.oid, key, system)).collect()
}

pub fn default_publication_options() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("publish".into(), "insert, update, delete, truncate".into()),
        ("publish_via_partition_root".into(), "false".into()),
    ])
}

pub fn default_subscription_options(version: i32) -> BTreeMap<String, String> {
    let streaming = if version >= 180_000 { "parallel" } else { "off" };
    let mut options = vec![
        ("binary", "false"),
        ("streaming", streaming),
        ("synchronous_commit", "off"),
        ("disable_on_error", "false"),
    ];
    if version >= 170_000 {
        options.push(("failover", "false"));
    }
    if version >= 160_000 {
        options.extend([
            ("origin", "any"),
            ("run_as_owner", "false"),
            ("password_required", "true"),
        ]);
    }
    options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn known_options(version: i32, options: &BTreeMap<String, String>) -> Outcome {
    let known = default_subscription_options(version);
    ensure(options.keys().all(|key| known.contains_key(key)), "unrecognized parameter")?;
    let parallel = options.get("streaming").is_some_and(|value| value == "parallel");
    ensure(!parallel || version >= 160_000, "streaming requires a Boolean value")
}

/// Extension, servers, mappings, schemas and foreign tables.
fn foreign(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreateFdwExtension { comment, .. } => {
            facts.fdw_comment = Some(comment.clone());
            Ok(())
        }
        Operation::DropFdwExtension => (|| {
            ensure(facts.servers.is_empty(), "servers depend on the extension")?;
            ensure(facts.fdw_comment.take().is_some(), "no such extension")
        })(),
        Operation::ReleaseFdwExtension => {
            facts.fdw_comment = Some(FDW_COMMENT.to_owned());
            Ok(())
        }
        Operation::CreateServer { name, options, comment } => (|| {
            ensure(facts.fdw_comment.is_some(), "no such foreign-data wrapper")?;
            ensure(facts.server(name).is_none(), "server exists")?;
            facts.servers.push(Server {
                name: name.clone(),
                comment: Some(comment.clone()),
                options: options.clone(),
                ..Server::default()
            });
            Ok(())
        })(),
        Operation::RenameServer { name, to } => rename_server(facts, name, to),
        Operation::DropServer { name } => (|| {
            let tables = facts.relations.iter().any(|r| r.server.as_ref() == Some(name));
            ensure(!tables, "foreign tables depend on the server")?;
            let mapped = |s: &Server| s.name == *name && !s.mappings.is_empty();
            ensure(!facts.servers.iter().any(mapped), "mappings depend on the server")?;
            remove(&mut facts.servers, |s| s.name == *name, "server")
        })(),
        other => return server(facts, other).or_else(|| schema(facts, source, other)),
    })
}

pub fn rename_server(facts: &mut NodeFacts, name: &str, to: &str) -> Outcome {
    ensure(facts.server(to).is_none(), "server exists")?;
    find(&mut facts.servers, |s| s.name == name, "server")?.name = to.to_owned();
    let on_it = facts.relations.iter_mut().filter(|r| r.server.as_deref() == Some(name));
    on_it.for_each(|relation| relation.server = Some(to.to_owned()));
    Ok(())
}

pub fn rename_schema(facts: &mut NodeFacts, name: &str, to: &str) -> Outcome {
    ensure(facts.schema(to).is_none(), "schema exists")?;
    find(&mut facts.schemas, |s| s.name == name, "schema")?.name = to.to_owned();
    let in_it = facts.relations.iter_mut().filter(|r| r.name.schema == name);
    in_it.for_each(|relation| relation.name.schema = to.to_owned());
    Ok(())
}

fn server(facts: &mut NodeFacts, operation: &Operation) -> Option<Outcome> {
    let known: BTreeSet<Option<String>> = (facts.roles.iter())
        .map(|role| Some(role.name.clone()))
        .chain([None, Some(facts.role.clone())])
        .collect();
    let with = |facts: &mut NodeFacts, name: &str, change: &dyn Fn(&mut Server) -> Outcome| {
        change(find(&mut facts.servers, |s| s.name == name, "server")?)
    };
    Some(match operation {
        Operation::AlterServer { name, change } => with(facts, name, &|server| {
            let mut options = Conninfo::new(server.options.clone());
            change_options(&mut options, change)?;
            server.options = options.iter().map(|(k, v)| (k.into(), v.into())).collect();
            Ok(())
        }),
        Operation::CreateMapping { server, role, options } => with(facts, server, &|s| {
            ensure(known.contains(role), "no such role")?;
            ensure(s.mappings.iter().all(|m| m.role != *role), "mapping exists")?;
            s.mappings.push(Mapping { role: role.clone(), options: Some(options.clone()) });
            Ok(())
        }),
        Operation::AlterMapping { server, role, change } => with(facts, server, &|s| {
            let mapping = find(&mut s.mappings, |m| m.role == *role, "mapping")?;
            change_options(mapping.options.get_or_insert_default(), change)
        }),
        Operation::ReplaceMapping { server, role, options } => with(facts, server, &|s| {
            let mapping = find(&mut s.mappings, |m| m.role == *role, "mapping")?;
            mapping.options = Some(options.clone());
            Ok(())
        }),
        Operation::MarkServer { name, comment } => with(facts, name, &|s| {
            s.comment = Some(comment.clone());
            Ok(())
        }),
        Operation::DropMapping { server, role } => {
            with(facts, server, &|s| remove(&mut s.mappings, |m| m.role == *role, "mapping"))
        }
        Operation::ReleaseServer { name } => with(facts, name, &|s| {
            s.comment = None;
            Ok(())
        }),
        _ => return None,
    })
}

fn change_options(options: &mut Conninfo, change: &OptionChange) -> Outcome {
    for (key, value) in change.add.iter() {
        ensure(options.get(key).is_none(), "ADD of an option that is there")?;
        options.set(key, value);
    }
    for (key, value) in change.set.iter() {
        ensure(options.get(key).is_some(), "SET of an option that is not there")?;
        options.set(key, value);
    }
    for key in &change.drop {
        ensure(options.get(key).is_some(), "DROP of an option that is not there")?;
        *options = options.clone().without(key);
    }
    Ok(())
}

fn schema(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Option<Outcome> {
    Some(match operation {
        Operation::CreateSchema { name, mark } => (|| {
            ensure(facts.schema(name).is_none(), "schema exists")?;
            facts.schemas.push(Schema {
                name: name.clone(),
                comment: Some(mark.comment()),
                owner: facts.role.clone(),
                owned: true,
                grants: BTreeSet::new(),
            });
            Ok(())
        })(),
        Operation::RenameSchema { name, to } => rename_schema(facts, name, to),
        Operation::DropSchema { name } => (|| {
            ensure(facts.relations_in(name).next().is_none(), "schema is not empty")?;
            remove(&mut facts.schemas, |s| s.name == *name, "schema")
        })(),
        Operation::ReleaseSchema { name } => {
            find(&mut facts.schemas, |s| s.name == *name, "schema").map(|s| s.comment = None)
        }
        Operation::ImportTables { .. } => import(facts, source, operation),
        Operation::GrantUsage { .. }
        | Operation::RevokeUsage { .. }
        | Operation::GrantTables { .. }
        | Operation::RevokeTables { .. } => rights(facts, operation),
        Operation::AlterForeignTable { table, changes } => {
            find(&mut facts.relations, |r| r.name == *table && r.server.is_some(), "foreign table")
                .and_then(|relation| changes.iter().try_for_each(|c| alter(relation, c)))
        }
        Operation::AlterTableOptions { table, change } => {
            find(&mut facts.relations, |r| r.name == *table && r.server.is_some(), "foreign table")
                .and_then(|relation| alter_table_options(relation, change))
        }
        Operation::DropForeignTable { table } => remove(
            &mut facts.relations,
            |r| r.name == *table && r.server.is_some(),
            "foreign table",
        ),
        _ => return None,
    })
}

fn rights(facts: &mut NodeFacts, operation: &Operation) -> Outcome {
    let usage = |facts: &mut NodeFacts, schema: &str, role: &Option<String>, give: bool| {
        let schema = find(&mut facts.schemas, |s| s.name == schema, "schema")?;
        ensure(schema.owned, "permission denied for schema")?;
        change_grants(&mut schema.grants, role, &["USAGE"], give);
        Ok(())
    };
    let on_tables =
        |facts: &mut NodeFacts, tables: &BTreeSet<TableName>, role, privileges, give| {
            for table in tables {
                let relation = find(&mut facts.relations, |r| r.name == *table, "table")?;
                change_grants(&mut relation.grants, role, privileges, give);
            }
            Ok(())
        };
    let known = |facts: &NodeFacts, role: &Option<String>| {
        ensure(role.as_ref().is_none_or(|role| facts.role(role).is_some()), "no such role")
    };
    match operation {
        Operation::GrantUsage { schema, role } => {
            known(facts, role)?;
            usage(facts, schema, role, true)
        }
        Operation::RevokeUsage { schema, role } => usage(facts, schema, role, false),
        Operation::GrantTables { tables, role, rights } => {
            known(facts, role)?;
            on_tables(facts, tables, role, rights.privileges(), true)
        }
        Operation::RevokeTables { tables, role, rights } => {
            on_tables(facts, tables, role, rights.privileges(), false)
        }
        other => Err(format!("no right: {other:?}")),
    }
}

pub fn change_grants(
    grants: &mut BTreeSet<Grant>,
    role: &Option<String>,
    privileges: &[&str],
    give: bool,
) {
    for privilege in privileges {
        let grant = Grant { role: role.clone(), privilege: (*privilege).to_owned() };
        if give {
            grants.insert(grant)
        } else {
            grants.remove(&grant)
        };
    }
}

fn import(facts: &mut NodeFacts, source: &NodeFacts, operation: &Operation) -> Outcome {
    let Operation::ImportTables { server, remote_schema, local_schema, tables, .. } = operation
    else {
        return Err("not an import".into());
    };
    let me = Some(facts.role.clone());
    let found = facts.server(server).ok_or("no such server")?;
    let mapped = found.mappings.iter().any(|m| m.role == me || m.role.is_none());
    ensure(mapped, "no user mapping for the importing role")?;
    ensure(facts.schema(local_schema).is_some(), "no such local schema")?;
    let listed = |r: &&Relation| tables.as_ref().is_none_or(|t| t.contains(&r.name.name));
    let mut imported = Vec::new();
    for there in source.relations_in(remote_schema).filter(listed) {
        let name = TableName::new(local_schema, &there.name.name);
        ensure(facts.relation(&name).is_none(), "relation exists")?;
        imported.push(Relation {
            name,
            kind: "f".into(),
            server: Some(server.clone()),
            remote: Some(there.name.clone()),
            owner: facts.role.clone(),
            ..there.clone()
        });
    }
    facts.relations.extend(imported);
    Ok(())
}

fn alter_table_options(relation: &mut Relation, change: &OptionChange) -> Outcome {
    let remote = relation.remote.get_or_insert_with(|| relation.name.clone());
    let mut options =
        Conninfo::new(relation.options.clone()).with("table_name", remote.name.clone());
    change_options(&mut options, change)?;
    remote.name = options.get("table_name").unwrap_or_default().to_owned();
    options = options.without("table_name");
    relation.options = options.iter().map(|(k, v)| (k.into(), v.into())).collect();
    Ok(())
}

fn alter(relation: &mut Relation, change: &ColumnChange) -> Outcome {
    match change {
        ColumnChange::Add { name, data_type, not_null } => {
            ensure(relation.column(name).is_none(), "column exists")?;
            let (name, data_type) = (name.clone(), data_type.as_str().to_owned());
            let not_null = *not_null;
            relation.columns.push(Column { name, data_type, not_null, ..Column::default() });
            Ok(())
        }
        ColumnChange::SetNotNull { name } => {
            find(&mut relation.columns, |c| c.name == *name, "column").map(|c| c.not_null = true)
        }
        ColumnChange::DropNotNull { name } => {
            find(&mut relation.columns, |c| c.name == *name, "column").map(|c| c.not_null = false)
        }
        ColumnChange::Drop { name } => remove(&mut relation.columns, |c| c.name == *name, "column"),
        ColumnChange::Retype { name, data_type } => {
            find(&mut relation.columns, |c| c.name == *name, "column")
                .map(|column| column.data_type = data_type.as_str().to_owned())
        }
    }
}
