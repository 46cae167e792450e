//! Every operation becomes SQL, whatever things are called, and none shows a secret.

use nodes_plan::conninfo::{Conninfo, Secret};
use nodes_plan::name::{MAX_NAME_BYTES, Mark, TableName};
use nodes_plan::quote::{MASK, ident, literal};
use nodes_plan::step::{ColumnChange, ColumnType, Operation, OptionChange, Rights};
use std::collections::{BTreeMap, BTreeSet};

const SECRET: &str = "hunter2'\\:";

/// Names that people are free to give.
fn names() -> Vec<String> {
    let plain = ["we\"ird; DROP TABLE x--", "Ünïcode node", "SELECT", "it's", r"back\slash", "$$"];
    let long = ["x".repeat(MAX_NAME_BYTES), format!("{}\"", "é".repeat(31))];
    plain.into_iter().map(str::to_owned).chain(long).collect()
}

/// The position of an operation among all of them. A new one does not compile until it is
/// here, and [`every_operation_renders`] fails until [`operations`] has it too.
fn position(operation: &Operation) -> usize {
    match operation {
        Operation::CreatePhysicalSlot { .. } => 0,
        Operation::CreateLogicalSlot { .. } => 1,
        Operation::DropSlot { .. } => 2,
        Operation::WritePassfile { .. } => 3,
        Operation::RemovePassfile => 4,
        Operation::AwaitReplay { .. } => 5,
        Operation::SyncSlots => 55,
        Operation::AlterSystem { .. } => 6,
        Operation::SetPrimaryConninfo { .. } => 7,
        Operation::Reload => 8,
        Operation::CreatePublication { .. } => 9,
        Operation::AddPublicationTables { .. } => 10,
        Operation::DropPublicationTables { .. } => 11,
        Operation::RelistPublicationTables { .. } => 12,
        Operation::DropPublicationSchemas { .. } => 13,
        Operation::SetPublicationOptions { .. } => 14,
        Operation::RenamePublication { .. } => 15,
        Operation::DropPublication { .. } => 16,
        Operation::CreateSubscription { .. } => 17,
        Operation::SetSubscriptionConninfo { .. } => 18,
        Operation::SetSubscriptionPublication { .. } => 19,
        Operation::SetSubscriptionSlot { .. } => 20,
        Operation::SetSubscriptionOptions { .. } => 21,
        Operation::EnableSubscription { .. } => 22,
        Operation::SetSubscriptionFailover { .. } => 54,
        Operation::TruncateTables { .. } => 56,
        Operation::DisableSubscription { .. } => 23,
        Operation::RefreshSubscription { .. } => 24,
        Operation::RenameSubscription { .. } => 25,
        Operation::DropSubscription { .. } => 26,
        Operation::CreateFdwExtension { .. } => 27,
        Operation::DropFdwExtension => 28,
        Operation::ReleaseFdwExtension => 29,
        Operation::CreateServer { .. } => 30,
        Operation::AlterServer { .. } => 31,
        Operation::DropServer { .. } => 32,
        Operation::CreateMapping { .. } => 33,
        Operation::AlterMapping { .. } => 34,
        Operation::DropMapping { .. } => 35,
        Operation::CreateSchema { .. } => 36,
        Operation::DropSchema { .. } => 37,
        Operation::ImportTables { .. } => 38,
        Operation::AlterForeignTable { .. } => 39,
        Operation::DropForeignTable { .. } => 40,
        Operation::ReleaseServer { .. } => 41,
        Operation::ReleaseSchema { .. } => 42,
        Operation::ForgetLink { .. } => 43,
        Operation::ForgetNode { .. } => 44,
        Operation::AlterTableOptions { .. } => 45,
        Operation::RenameServer { .. } => 46,
        Operation::RenameSchema { .. } => 47,
        Operation::GrantUsage { .. } => 48,
        Operation::RevokeUsage { .. } => 49,
        Operation::GrantTables { .. } => 50,
        Operation::RevokeTables { .. } => 51,
        Operation::MarkServer { .. } => 52,
        Operation::ReplaceMapping { .. } => 53,
    }
}

const OPERATIONS: usize = 57;

/// One of each operation, everything in it that people name called `name`.
fn operations(name: &str) -> Vec<Operation> {
    let mark = Mark { registry: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".into(), link: 7 };
    let name = || name.to_owned();
    let conninfo = || Conninfo::default().with("user", name()).with("password", SECRET);
    let table = || TableName::new(name(), name());
    let tables = || BTreeSet::from([table(), TableName::new("public", name())]);
    let options = || BTreeMap::from([("binary".to_owned(), name())]);
    let slot = || mark.slot_name();
    let change = OptionChange {
        add: conninfo(),
        set: Conninfo::default().with("sslpassword", SECRET),
        drop: BTreeSet::from([name()]),
    };
    let integer = ColumnType::parse("numeric(10,2)").expect("a type");
    let changes = vec![
        ColumnChange::Add { name: name(), data_type: integer.clone(), not_null: true },
        ColumnChange::SetNotNull { name: name() },
        ColumnChange::DropNotNull { name: name() },
        ColumnChange::Drop { name: name() },
        ColumnChange::Retype { name: name(), data_type: integer },
    ];
    vec![
        Operation::CreatePhysicalSlot { slot: slot() },
        Operation::CreateLogicalSlot { slot: slot(), failover: true },
        Operation::DropSlot { slot: slot() },
        Operation::WritePassfile { content: Secret::new(SECRET) },
        Operation::RemovePassfile,
        Operation::AwaitReplay { slot: slot() },
        Operation::SyncSlots,
        Operation::AlterSystem { setting: "primary_slot_name", value: Some(slot()) },
        Operation::AlterSystem { setting: "primary_slot_name", value: None },
        Operation::SetPrimaryConninfo { conninfo: conninfo() },
        Operation::Reload,
        Operation::CreatePublication {
            name: name(),
            tables: tables(),
            options: options(),
            mark: mark.clone(),
        },
        Operation::AddPublicationTables { name: name(), tables: tables() },
        Operation::DropPublicationTables { name: name(), tables: tables() },
        Operation::RelistPublicationTables { name: name(), tables: tables() },
        Operation::DropPublicationSchemas { name: name(), schemas: BTreeSet::from([name()]) },
        Operation::SetPublicationOptions { name: name(), options: options() },
        Operation::RenamePublication { name: name(), to: name() },
        Operation::DropPublication { name: name() },
        Operation::CreateSubscription {
            name: name(),
            conninfo: conninfo(),
            publication: name(),
            slot: slot(),
            copy_data: true,
            options: options(),
            comment: name(),
        },
        Operation::SetSubscriptionConninfo { name: name(), conninfo: conninfo(), comment: name() },
        Operation::SetSubscriptionPublication { name: name(), publication: name() },
        Operation::SetSubscriptionSlot { name: name(), slot: slot() },
        Operation::SetSubscriptionOptions { name: name(), options: options() },
        Operation::EnableSubscription { name: name() },
        Operation::SetSubscriptionFailover { name: name() },
        Operation::DisableSubscription { name: name() },
        Operation::TruncateTables { tables: tables() },
        Operation::RefreshSubscription { name: name(), copy_data: false },
        Operation::RenameSubscription { name: name(), to: name() },
        Operation::DropSubscription { name: name() },
        Operation::CreateFdwExtension { public: true, comment: name() },
        Operation::DropFdwExtension,
        Operation::ReleaseFdwExtension,
        Operation::CreateServer { name: name(), options: options(), comment: name() },
        Operation::MarkServer { name: name(), comment: name() },
        Operation::ReplaceMapping { server: name(), role: Some(name()), options: conninfo() },
        Operation::AlterServer { name: name(), change: change.clone() },
        Operation::RenameServer { name: name(), to: name() },
        Operation::DropServer { name: name() },
        Operation::CreateMapping { server: name(), role: Some(name()), options: conninfo() },
        Operation::CreateMapping { server: name(), role: None, options: conninfo() },
        Operation::AlterMapping { server: name(), role: Some(name()), change: change.clone() },
        Operation::AlterTableOptions { table: table(), change },
        Operation::DropMapping { server: name(), role: None },
        Operation::CreateSchema { name: name(), mark: mark.clone() },
        Operation::RenameSchema { name: name(), to: name() },
        Operation::DropSchema { name: name() },
        Operation::ImportTables {
            server: name(),
            remote_schema: name(),
            local_schema: name(),
            tables: Some(BTreeSet::from([name()])),
        },
        Operation::GrantUsage { schema: name(), role: Some(name()) },
        Operation::RevokeUsage { schema: name(), role: None },
        Operation::GrantTables { tables: tables(), role: Some(name()), rights: Rights::All },
        Operation::RevokeTables { tables: tables(), role: None, rights: Rights::Write },
        Operation::AlterForeignTable { table: table(), changes },
        Operation::DropForeignTable { table: table() },
        Operation::ReleaseServer { name: name() },
        Operation::ReleaseSchema { name: name() },
        Operation::ForgetLink { link: 7 },
        Operation::ForgetNode { node: 7 },
    ]
}

#[test]
fn every_operation_renders() {
    for name in names() {
        let mut seen = BTreeSet::new();
        for operation in operations(&name) {
            seen.insert(position(&operation));
            assert!(!operation.sql().text().is_empty(), "no SQL for {operation:?}");
            assert!(!operation.label().is_empty(), "no label for {operation:?}");
        }
        assert_eq!(seen, (0..OPERATIONS).collect(), "an operation has no example");
    }
}

#[test]
fn no_secret_shows_in_what_people_see() {
    for operation in operations("plain") {
        let sql = operation.sql();
        for shown in [sql.masked().to_owned(), format!("{sql:?} {operation:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(sql.has_secret(), sql.text().contains("hunter2"), "{operation:?}");
        assert_eq!(sql.has_secret(), sql.masked().contains(MASK), "{operation:?}");
    }
}

/// Takes quoted identifiers, literals and `$$` bodies out of SQL, as the server's scanner
/// would; what is left was written by us.
fn skeleton(sql: &str) -> String {
    let mut left = String::new();
    let mut rest = sql;
    while let Some(start) = rest.find(['"', '\'', '$']) {
        let (before, quoted) = rest.split_at(start);
        left.push_str(before);
        let end = match quoted.as_bytes() {
            [b'"', ..] => closing(quoted, '"', false),
            [b'\'', ..] => closing(quoted, '\'', before.ends_with('E')),
            _ => quoted[2..].find("$$").map(|end| end + 4),
        };
        left.push('?');
        rest = &quoted[end.unwrap_or_else(|| panic!("unterminated: {sql}"))..];
    }
    left + rest
}

/// Where the quoted text that `text` begins with ends.
fn closing(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if (escapes && c == '\\')
            || (c == quote && chars.peek().is_some_and(|(_, next)| *next == quote))
        {
            chars.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

#[test]
fn names_never_leave_their_quotes() {
    let plain: Vec<String> =
        operations("plain").iter().map(|operation| skeleton(operation.sql().text())).collect();
    for name in names() {
        for (operation, plain) in operations(&name).iter().zip(&plain) {
            // A backslash turns a literal into an E'' string.
            let found = skeleton(operation.sql().text()).replace("E?", "?");
            assert_eq!(found, plain.replace("E?", "?"), "{}", operation.sql().masked());
        }
    }
}

#[test]
fn the_statements_of_a_step_are_counted() {
    for operation in operations("a;b") {
        let sql = operation.sql();
        let semicolons = skeleton(sql.text()).matches(';').count();
        assert_eq!(sql.statements(), semicolons + 1, "{}", sql.masked());
    }
}

#[test]
fn what_is_quoted_reads_back() {
    for name in names() {
        assert_eq!(skeleton(&ident(&name)), "?", "{name}");
        assert_eq!(skeleton(&literal(&name)).replace('E', ""), "?", "{name}");
    }
}
