//! Steps become SQL text: `nodes.plan()`, `nodes.step_log` and the executor show the same.

use crate::conninfo::{Secret, is_secret_key};
use crate::name::{FDW_COMMENT, Mark, TableName};
use crate::quote::Sql;
use crate::step::{ColumnChange, Operation, OptionChange, Rights};
use std::collections::{BTreeMap, BTreeSet};

/// The file in a standby's data directory that holds the password for its primary.
/// Relative: a server's working directory is its data directory.
pub const PASSFILE: &str = "pg_nodes.passfile";

/// Renders an operation as the statement, or the few statements of one transaction, to send.
pub fn render(operation: &Operation) -> Sql {
    match operation {
        Operation::CreatePhysicalSlot { slot } => {
            Sql::new("SELECT pg_catalog.pg_create_physical_replication_slot(")
                .literal(slot)
                .raw(", true)")
        }
        Operation::CreateLogicalSlot { slot, failover } => {
            Sql::new("SELECT pg_catalog.pg_create_logical_replication_slot(")
                .literal(slot)
                .raw(if *failover { ", 'pgoutput', failover => true)" } else { ", 'pgoutput')" })
        }
        Operation::DropSlot { slot } => {
            Sql::new("SELECT pg_catalog.pg_drop_replication_slot(").literal(slot).raw(")")
        }
        Operation::WritePassfile { content } => write_passfile(content),
        Operation::RemovePassfile => Sql::new(
            "COPY (SELECT) TO PROGRAM \
                 'cat > /dev/null; rm -f pg_nodes.passfile pg_nodes.passfile.new'",
        ),
        Operation::AwaitReplay { slot } => await_replay(slot),
        Operation::SyncSlots => sync_slots(),
        Operation::AlterSystem { setting, value: Some(value) } => {
            Sql::new("ALTER SYSTEM SET ").raw(setting).raw(" = ").literal(value)
        }
        Operation::AlterSystem { setting, value: None } => {
            Sql::new("ALTER SYSTEM RESET ").raw(setting)
        }
        Operation::SetPrimaryConninfo { conninfo } => {
            Sql::new("ALTER SYSTEM SET primary_conninfo = ").conninfo(conninfo)
        }
        Operation::Reload => Sql::new("SELECT pg_catalog.pg_reload_conf()"),
        Operation::MoveLink { link, from, to } => Sql::new("UPDATE nodes.link SET from_node = ")
            .number(i64::from(*from))
            .raw(", to_node = ")
            .number(i64::from(*to))
            .raw(", pending = true WHERE id = ")
            .number(i64::from(*link)),
        Operation::ForgetLink { link } => {
            Sql::new("DELETE FROM nodes.link WHERE id = ").number(i64::from(*link))
        }
        Operation::ForgetNode { node } => {
            Sql::new("DELETE FROM nodes.node WHERE id = ").number(i64::from(*node))
        }
        logical => render_logical(logical),
    }
}

/// Asks a foreign table for nothing: its server must answer as the mapped role all the same
/// (`postgresBeginForeignScan`, postgres_fdw.c).
pub fn probe(table: &TableName) -> Sql {
    Sql::new("SELECT 1 FROM ").table(table).raw(" LIMIT 0")
}

/// Publications and subscriptions.
fn render_logical(operation: &Operation) -> Sql {
    match operation {
        Operation::CreatePublication { name, tables, options, mark } => {
            create_publication(name, tables, options, mark)
        }
        Operation::AddPublicationTables { name, tables } => {
            table_list(alter_publication(name).raw(" ADD TABLE "), tables)
        }
        Operation::DropPublicationTables { name, tables } => {
            table_list(alter_publication(name).raw(" DROP TABLE "), tables)
        }
        // SET TABLE would drop what else is listed.
        Operation::RelistPublicationTables { name, tables } => {
            table_list(alter_publication(name).raw(" DROP TABLE "), tables)
                .then(table_list(alter_publication(name).raw(" ADD TABLE "), tables))
        }
        Operation::DropPublicationSchemas { name, schemas } => alter_publication(name)
            .raw(" DROP TABLES IN SCHEMA ")
            .list(schemas, |sql, schema| sql.ident(schema)),
        Operation::SetPublicationOptions { name, options } => {
            with_options(alter_publication(name).raw(" SET"), options)
        }
        Operation::RenamePublication { name, to } => {
            alter_publication(name).raw(" RENAME TO ").ident(to)
        }
        Operation::DropPublication { name } => drop_object("PUBLICATION", name),
        Operation::CreateSubscription { .. } => create_subscription(operation),
        Operation::SetSubscriptionConninfo { name, conninfo, comment } => alter_subscription(name)
            .raw(" CONNECTION ")
            .conninfo(conninfo)
            .then(comment_on("SUBSCRIPTION", name, Some(comment))),
        Operation::SetSubscriptionPublication { name, publication } => alter_subscription(name)
            .raw(" SET PUBLICATION ")
            .ident(publication)
            .raw(" WITH (refresh = false)"),
        Operation::SetSubscriptionSlot { name, slot } => {
            alter_subscription(name).raw(" SET (slot_name = ").literal(slot).raw(")")
        }
        Operation::SetSubscriptionOptions { name, options } => {
            with_options(alter_subscription(name).raw(" SET"), options)
        }
        Operation::SetSubscriptionFailover { name } => {
            alter_subscription(name).raw(" SET (failover = true)")
        }
        Operation::EnableSubscription { name } => alter_subscription(name).raw(" ENABLE"),
        Operation::DisableSubscription { name } => alter_subscription(name).raw(" DISABLE"),
        Operation::TruncateTables { tables } => table_list(Sql::new("TRUNCATE "), tables),
        Operation::RefreshSubscription { name, copy_data } => alter_subscription(name)
            .raw(" REFRESH PUBLICATION WITH (copy_data = ")
            .raw(if *copy_data { "true)" } else { "false)" }),
        Operation::RenameSubscription { name, to } => {
            alter_subscription(name).raw(" RENAME TO ").ident(to)
        }
        // Without its slot a subscription can be dropped while the publisher is down; we drop
        // the slot on the publisher ourselves. The comment goes first because DROP
        // SUBSCRIPTION forgets to remove it from pg_description.
        Operation::DropSubscription { name } => alter_subscription(name)
            .raw(" DISABLE")
            .then(alter_subscription(name).raw(" SET (slot_name = NONE)"))
            .then(comment_on("SUBSCRIPTION", name, None))
            .then(drop_object("SUBSCRIPTION", name)),
        foreign => render_foreign(foreign),
    }
}

/// Foreign servers, mappings, schemas and tables.
fn render_foreign(operation: &Operation) -> Sql {
    match operation {
        Operation::CreateFdwExtension { public, comment } => {
            Sql::new("CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA ")
                .raw(if *public { "public" } else { "pg_catalog" })
                .then(comment_on("EXTENSION", "postgres_fdw", Some(comment)))
        }
        Operation::DropFdwExtension => drop_object("EXTENSION", "postgres_fdw"),
        Operation::ReleaseFdwExtension => {
            comment_on("EXTENSION", "postgres_fdw", Some(FDW_COMMENT))
        }
        Operation::CreateServer { name, options, comment } => {
            let create =
                Sql::new("CREATE SERVER ").ident(name).raw(" FOREIGN DATA WRAPPER postgres_fdw");
            options_clause(create.raw(" "), pairs(options)).then(comment_on(
                "SERVER",
                name,
                Some(comment),
            ))
        }
        Operation::MarkServer { name, comment } => comment_on("SERVER", name, Some(comment)),
        Operation::AlterServer { name, change } => {
            alter_options(Sql::new("ALTER SERVER ").ident(name).raw(" "), change)
        }
        Operation::RenameServer { name, to } => rename("SERVER", name, to),
        Operation::DropServer { name } => drop_object("SERVER", name),
        Operation::CreateMapping { server, role, options } => {
            let create = mapping(Sql::new("CREATE USER MAPPING FOR "), role.as_deref(), server);
            options_clause(create.raw(" "), options.iter())
        }
        Operation::AlterMapping { server, role, change } => {
            let alter = mapping(Sql::new("ALTER USER MAPPING FOR "), role.as_deref(), server);
            alter_options(alter.raw(" "), change)
        }
        Operation::ReplaceMapping { server, role, options } => {
            let drop = mapping(Sql::new("DROP USER MAPPING FOR "), role.as_deref(), server);
            let create = mapping(Sql::new("CREATE USER MAPPING FOR "), role.as_deref(), server);
            drop.then(options_clause(create.raw(" "), options.iter()))
        }
        Operation::DropMapping { server, role } => {
            mapping(Sql::new("DROP USER MAPPING FOR "), role.as_deref(), server)
        }
        Operation::CreateSchema { name, mark } => Sql::new("CREATE SCHEMA ")
            .ident(name)
            .then(comment_on("SCHEMA", name, Some(&mark.comment()))),
        Operation::RenameSchema { name, to } => rename("SCHEMA", name, to),
        Operation::DropSchema { name } => drop_object("SCHEMA", name),
        Operation::ImportTables { .. } => import_tables(operation),
        Operation::GrantUsage { schema, role } => {
            let grant = Sql::new("GRANT USAGE ON SCHEMA ").ident(schema);
            grantee(grant.raw(" TO "), role.as_deref())
        }
        Operation::RevokeUsage { schema, role } => {
            let revoke = Sql::new("REVOKE USAGE ON SCHEMA ").ident(schema);
            grantee(revoke.raw(" FROM "), role.as_deref())
        }
        Operation::GrantTables { tables, role, rights } => {
            let grant = rights_on(Sql::new("GRANT "), *rights, tables);
            grantee(grant.raw(" TO "), role.as_deref())
        }
        Operation::RevokeTables { tables, role, rights } => {
            let revoke = rights_on(Sql::new("REVOKE "), *rights, tables);
            grantee(revoke.raw(" FROM "), role.as_deref())
        }
        Operation::AlterForeignTable { table, changes } => {
            let alter = Sql::new("ALTER FOREIGN TABLE ").table(table).raw(" ");
            alter.list(changes, column_change)
        }
        Operation::AlterTableOptions { table, change } => {
            alter_options(Sql::new("ALTER FOREIGN TABLE ").table(table).raw(" "), change)
        }
        Operation::DropForeignTable { table } => Sql::new("DROP FOREIGN TABLE ").table(table),
        Operation::ReleaseServer { name } => comment_on("SERVER", name, None),
        Operation::ReleaseSchema { name } => comment_on("SCHEMA", name, None),
        other => unreachable_operation(other),
    }
}

/// The three functions above share one match over all operations; this arm is never taken, and
/// the test `every_operation_renders` proves it.
fn unreachable_operation(operation: &Operation) -> Sql {
    debug_assert!(false, "no rendering for {operation:?}");
    Sql::default()
}

/// `COPY … TO PROGRAM` is the way to a file with mode 0600; libpq ignores any other. The line
/// goes through CSV with a quote character that no password can hold, so nothing is escaped,
/// and through a second file, so that no reader meets a half-written one. That one is made anew:
/// one that is there would keep its mode.
fn write_passfile(content: &Secret) -> Sql {
    Sql::new("COPY (SELECT ").secret(content).raw(
        ") TO PROGRAM 'umask 077 && rm -f pg_nodes.passfile.new && \
         cat > pg_nodes.passfile.new && \
         mv -f pg_nodes.passfile.new pg_nodes.passfile' \
         (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')",
    )
}

/// Bounded, since a standby may be far behind or waiting for a query.
fn await_replay(slot: &str) -> Sql {
    Sql::new(
        "DO $$ DECLARE target pg_lsn := pg_current_wal_lsn(); \
         BEGIN FOR i IN 1..100 LOOP \
         EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots s \
         JOIN pg_stat_replication r ON r.pid = s.active_pid \
         WHERE r.replay_lsn < target AND s.slot_name = ",
    )
    .literal(slot)
    .raw("); PERFORM pg_sleep(0.05); END LOOP; END $$")
}

/// The worker that did it until now may take a moment to stop. Where settings forbid it there is
/// nothing to synchronize either.
fn sync_slots() -> Sql {
    Sql::new(
        "DO $$ BEGIN FOR i IN 1..100 LOOP BEGIN \
         PERFORM pg_catalog.pg_sync_replication_slots(); EXIT; \
         EXCEPTION WHEN object_not_in_prerequisite_state THEN \
         PERFORM pg_catalog.pg_sleep(0.05); \
         WHEN connection_failure OR invalid_parameter_value THEN EXIT; END; \
         END LOOP; END $$",
    )
}

fn create_publication(
    name: &str,
    tables: &BTreeSet<TableName>,
    options: &BTreeMap<String, String>,
    mark: &Mark,
) -> Sql {
    let create = Sql::new("CREATE PUBLICATION ").ident(name);
    let create =
        if tables.is_empty() { create } else { table_list(create.raw(" FOR TABLE "), tables) };
    let create =
        if options.is_empty() { create } else { with_options(create.raw(" WITH"), options) };
    create.then(comment_on("PUBLICATION", name, Some(&mark.comment())))
}

fn create_subscription(operation: &Operation) -> Sql {
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
        return unreachable_operation(operation);
    };
    let create = Sql::new("CREATE SUBSCRIPTION ")
        .ident(name)
        .raw(" CONNECTION ")
        .conninfo(conninfo)
        .raw(" PUBLICATION ")
        .ident(publication)
        .raw(" WITH (create_slot = false, enabled = false, slot_name = ")
        .literal(slot)
        .raw(if *copy_data { ", copy_data = true" } else { ", copy_data = false" });
    let create = options
        .iter()
        .fold(create, |sql, (key, value)| sql.raw(", ").ident(key).raw(" = ").literal(value));
    create.raw(")").then(comment_on("SUBSCRIPTION", name, Some(comment)))
}

fn import_tables(operation: &Operation) -> Sql {
    let Operation::ImportTables { server, remote_schema, local_schema, tables } = operation else {
        return unreachable_operation(operation);
    };
    let mut sql = Sql::new("IMPORT FOREIGN SCHEMA ").ident(remote_schema);
    if let Some(tables) = tables {
        sql = sql.raw(" LIMIT TO (").list(tables, |sql, table| sql.ident(table)).raw(")");
    }
    sql.raw(" FROM SERVER ").ident(server).raw(" INTO ").ident(local_schema)
}

/// `SELECT, … ON TABLE …, …`
fn rights_on(sql: Sql, rights: Rights, tables: &BTreeSet<TableName>) -> Sql {
    let sql = sql.list(rights.privileges(), |sql, privilege| sql.raw(privilege));
    table_list(sql.raw(" ON TABLE "), tables)
}

fn grantee(sql: Sql, role: Option<&str>) -> Sql {
    match role {
        Some(role) => sql.ident(role),
        None => sql.raw("PUBLIC"),
    }
}

fn mapping(sql: Sql, role: Option<&str>, server: &str) -> Sql {
    grantee(sql, role).raw(" SERVER ").ident(server)
}

fn alter_publication(name: &str) -> Sql {
    Sql::new("ALTER PUBLICATION ").ident(name)
}

fn alter_subscription(name: &str) -> Sql {
    Sql::new("ALTER SUBSCRIPTION ").ident(name)
}

fn drop_object(class: &'static str, name: &str) -> Sql {
    Sql::new("DROP ").raw(class).raw(" ").ident(name)
}

fn rename(class: &'static str, name: &str, to: &str) -> Sql {
    Sql::new("ALTER ").raw(class).raw(" ").ident(name).raw(" RENAME TO ").ident(to)
}

fn comment_on(class: &'static str, name: &str, comment: Option<&str>) -> Sql {
    let sql = Sql::new("COMMENT ON ").raw(class).raw(" ").ident(name).raw(" IS ");
    match comment {
        Some(comment) => sql.literal(comment),
        None => sql.raw("NULL"),
    }
}

fn table_list(sql: Sql, tables: &BTreeSet<TableName>) -> Sql {
    sql.list(tables, |sql, table| sql.table(table))
}

/// ` (key = 'value', …)`, as publications and subscriptions take their options.
fn with_options(sql: Sql, options: &BTreeMap<String, String>) -> Sql {
    let each =
        |sql: Sql, (key, value): (&String, &String)| sql.ident(key).raw(" = ").literal(value);
    sql.raw(" (").list(options, each).raw(")")
}

fn pairs(options: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    options.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// One `key 'value'` of an `OPTIONS` list, its value masked where it is a secret.
fn option_value(sql: Sql, (key, value): (&str, &str)) -> Sql {
    let sql = sql.ident(key).raw(" ");
    if is_secret_key(key) { sql.secret(&Secret::new(value)) } else { sql.literal(value) }
}

fn options_clause<'a>(sql: Sql, options: impl Iterator<Item = (&'a str, &'a str)>) -> Sql {
    sql.raw("OPTIONS (").list(options, option_value).raw(")")
}

fn alter_options(sql: Sql, change: &OptionChange) -> Sql {
    enum Item<'a> {
        Add((&'a str, &'a str)),
        Set((&'a str, &'a str)),
        Drop(&'a str),
    }
    let items = (change.add.iter().map(Item::Add))
        .chain(change.set.iter().map(Item::Set))
        .chain(change.drop.iter().map(|key| Item::Drop(key)));
    let each = |sql: Sql, item: Item<'_>| match item {
        Item::Add(pair) => option_value(sql.raw("ADD "), pair),
        Item::Set(pair) => option_value(sql.raw("SET "), pair),
        Item::Drop(key) => sql.raw("DROP ").ident(key),
    };
    sql.raw("OPTIONS (").list(items, each).raw(")")
}

fn column_change(sql: Sql, change: &ColumnChange) -> Sql {
    match change {
        ColumnChange::Add { name, data_type, not_null } => sql
            .raw("ADD COLUMN ")
            .ident(name)
            .raw(" ")
            .data_type(data_type)
            .raw(if *not_null { " NOT NULL" } else { "" }),
        ColumnChange::Drop { name } => sql.raw("DROP COLUMN ").ident(name),
        ColumnChange::Retype { name, data_type } => {
            sql.raw("ALTER COLUMN ").ident(name).raw(" TYPE ").data_type(data_type)
        }
        ColumnChange::SetNotNull { name } => {
            sql.raw("ALTER COLUMN ").ident(name).raw(" SET NOT NULL")
        }
        ColumnChange::DropNotNull { name } => {
            sql.raw("ALTER COLUMN ").ident(name).raw(" DROP NOT NULL")
        }
    }
}
