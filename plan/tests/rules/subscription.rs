//! Subscriptions.

use crate::case::*;
use nodes_plan::desired::*;
use nodes_plan::lsn::Lsn;
use nodes_plan::observed::*;
use nodes_plan::plan;
use nodes_plan::rejoin::Past;
use nodes_plan::step::ProblemKind;
use std::collections::{BTreeMap, BTreeSet};

pub fn subscription_cases() -> Vec<(&'static str, Case, &'static str)> {
    let (new, made) = (Case::subscription, Case::subscription_made);
    let set = |node, name: &'static str, value: &'static str| {
        new().with(node, move |f| f.settings.insert(name.into(), value.into()))
    };
    let options = |case: Case, options: &[(&str, &str)]| {
        let options = map(options);
        case.link(|link| match &mut link.spec {
            Spec::Subscription(spec) => spec.options = options,
            Spec::Standby(_) | Spec::Foreign(_) => unreachable!("a subscription"),
        })
    };
    let stranger = || Publication { name: "feed".into(), ..Publication::default() };
    vec![
        (
            "SU01",
            new().with(LONDON, |f| f.system_identifier = "71".into()),
            "belong to one group (system identifier 71)",
        ),
        ("SU02", new().with(LONDON, |f| f.in_recovery = true), "node \"london\" is a standby"),
        (
            "SU02",
            set(LONDON, "default_transaction_read_only", "on"),
            "node \"london\" is read-only",
        ),
        ("SU03", new().with(PARIS, |f| f.in_recovery = true), "node \"paris\" is a standby"),
        ("SU04", set(LONDON, "wal_level", "replica"), "wal_level on node \"london\" is replica"),
        (
            "SU05",
            set(LONDON, "output_plugin_libraries", "wal2json, test_decoding"),
            "lacks pgoutput",
        ),
        (
            "SU06",
            set(LONDON, "max_replication_slots", "0"),
            "max_replication_slots on node \"london\" is 0",
        ),
        (
            "SU06",
            new().with(LONDON, |f| f.walsenders = 10),
            "max_wal_senders on node \"london\" is 10, of which 10 are in use",
        ),
        ("SU07", set(PARIS, "max_logical_replication_workers", "1"), "a subscription needs 2 more"),
        (
            "SU07",
            set(PARIS, "max_worker_processes", "1"),
            "max_worker_processes on node \"paris\" is 1",
        ),
        (
            "SU07",
            set(PARIS, "max_active_replication_origins", "0"),
            "max_active_replication_origins",
        ),
        (
            "SU08",
            new().with(PARIS, |f| (f.superuser, f.version) = (false, 150_020)),
            "PostgreSQL 15 lets only superusers subscribe",
        ),
        (
            "SU08",
            new().with(PARIS, |f| (f.superuser, f.can_create_subscription) = (false, false)),
            "pg_create_subscription",
        ),
        ("SU08", new().with(PARIS, |f| f.superuser = false), "node \"london\" has no password"),
        ("SU08", new().with(LONDON, |f| f.roles[0].replication = false), "may not replicate"),
        (
            "SU09",
            new().with(LONDON, |f| f.publications.push(stranger())),
            "publication \"feed\" exists and was not made by this registry",
        ),
        (
            "SU10",
            made().with(PARIS, |f| f.subscriptions[0].comment = None),
            "subscription \"feed\" exists",
        ),
        (
            "SU11",
            new().with(PARIS, |f| f.relations.clear()),
            "table \"public\".\"a\" does not exist on node \"paris\"",
        ),
        (
            "SU12",
            new().with(PARIS, |f| f.relations[0].columns.clear()),
            "column \"id\" of table \"public\".\"a\"",
        ),
        (
            "SU13",
            new().with(LONDON, |f| f.relations[0].replica_identity = false),
            "UPDATE and DELETE on it would fail",
        ),
        ("SU14", made().with(LONDON, |f| f.slots.clear()), "is gone: changes have been missed"),
        (
            "SU14",
            made().with(LONDON, |f| f.slots.clear()).with(PARIS, |f| {
                f.subscriptions[0].applied = Moving(Some(Lsn(0x300_0148)));
            }),
            "all changes from 0/3000148 have been missed, and more until a new slot is made — \
             SELECT nodes.resync('feed') empties",
        ),
        (
            "SU14",
            made().with(LONDON, |f| (f.slots, f.lsn) = (vec![], Moving(Some(Lsn(0x400_0000))))),
            "is gone: changes to 0/4000000 have been missed, and more until",
        ),
        (
            "SU14",
            missing(None, Some(0x300_0148)),
            "all changes from 0/3000148 to 0/4000000 have been missed",
        ),
        (
            "SU14",
            missing(Some(0x350_0000), Some(0x300_0148)),
            "all changes from 0/3500000 to 0/4000000 have been missed",
        ),
        (
            "SU14",
            missing(Some(0x350_0001), Some(0x300_0148)),
            "\"london\" left timeline 2 at 0/3500000, and \"paris\" has applied up to 0/3500001: \
             changes from 0/3500000 to 0/4000000 may have been missed, and more until a new slot is \
             made, and what it has from there may be lost",
        ),
        (
            "SU14",
            missing(Some(0x380_0000), Some(0x350_0001)),
            "all changes from 0/3800000 to 0/4000000 have been missed",
        ),
        (
            "SU14",
            missing(Some(0x300_0000), None),
            "\"london\" left timeline 1 at 0/1000000, and \"paris\" has applied up to 0/3000000",
        ),
        ("SU52", made().with(LONDON, |f| f.slots.clear()), "ALTER SUBSCRIPTION \"feed\" DISABLE"),
        (
            "SU19",
            replacing(new()).with(PARIS, |f| f.relations[0].filled = true),
            "TRUNCATE \"public\".\"a\" ! \"paris\" loses all rows of these tables",
        ),
        (
            "SU14",
            made().with(LONDON, |f| f.slots[0].wal_status = Some("lost".into())),
            "has lost its WAL",
        ),
        (
            "SU15",
            options(new(), &[("origin", "none")]).with(PARIS, |f| f.version = 150_020),
            "option origin = none needs PostgreSQL 16 or newer on node \"paris\", which runs 15",
        ),
        (
            "SU15",
            options(new(), &[("streaming", "parallel")]).with(PARIS, |f| f.version = 150_020),
            "Take the option out",
        ),
        (
            "SU16",
            new().with(LONDON, |f| f.can_replicate = false),
            "role \"admin\" on node \"london\" may not make slots",
        ),
        (
            "SU16",
            new().with(LONDON, |f| f.can_create = false),
            "may not create publications — Run GRANT CREATE ON DATABASE \"app\" TO that role",
        ),
        (
            "SU17",
            new().with(LONDON, |f| f.relations[0].owned = false),
            "role \"admin\" on node \"london\" is not the owner of table \"public\".\"a\"",
        ),
        (
            "SU17",
            made().with(LONDON, |f| {
                f.relations[0].owned = false;
                f.publications[0].filtered = tables(&["a"]);
            }),
            "is not the owner of table \"public\".\"a\"",
        ),
        (
            "SU18",
            new().with(PARIS, |f| f.relations[0].filled = true),
            "table \"public\".\"a\" on node \"paris\" is to be copied and is not empty — TRUNCATE it",
        ),
        (
            "SU20",
            new(),
            "london: CREATE PUBLICATION \"feed\" FOR TABLE \"public\".\"a\", \"public\".\"b\"; COMMENT ON PUBLICATION \"feed\"",
        ),
        (
            "SU21",
            made().with(LONDON, |f| f.publications[0].tables = tables(&["a"])),
            "ALTER PUBLICATION \"feed\" ADD TABLE \"public\".\"b\"",
        ),
        (
            "SU21",
            made().with(LONDON, |f| f.publications[0].tables.extend(tables(&["c"]))),
            "ALTER PUBLICATION \"feed\" DROP TABLE \"public\".\"c\" ! \"paris\" receives no more changes of \"public\".\"c\"",
        ),
        (
            "SU34",
            made().with(LONDON, |f| f.publications[0].filtered = tables(&["a"])),
            "london: ALTER PUBLICATION \"feed\" DROP TABLE \"public\".\"a\"; ALTER PUBLICATION \"feed\" ADD TABLE \"public\".\"a\" ! \"paris\" lacks what the filter held back",
        ),
        (
            "SU35",
            made().with(LONDON, |f| {
                f.publications[0].schemas.insert("inventory".into());
                f.publications[0].published.insert(table("inventory", "items"));
            }),
            "london: ALTER PUBLICATION \"feed\" DROP TABLES IN SCHEMA \"inventory\" ! \"paris\" receives no more",
        ),
        (
            "SU20",
            made().with(LONDON, |f| f.publications[0].all_tables = true),
            "london: DROP PUBLICATION \"feed\" ! \"paris\" receives no more",
        ),
        (
            "SU20",
            made().with(LONDON, |f| f.publications.clear()),
            " ! if rows changed meanwhile, \"paris\" cannot go on",
        ),
        (
            "SU20",
            made().with(LONDON, |f| (f.version, f.publications) = (180_000, vec![])),
            " ! \"paris\" lacks what changed meanwhile",
        ),
        (
            "SU32",
            made().with(LONDON, |f| f.publications[0].name = "old".into()),
            "london: ALTER PUBLICATION \"old\" RENAME TO \"feed\" ! what changed meanwhile stops \"paris\": if so, ALTER SUBSCRIPTION \"feed\" SET PUBLICATION \"old\" WITH (refresh = false)",
        ),
        (
            "SU33",
            made().with(PARIS, |f| f.subscriptions[0].name = "old".into()),
            "paris: ALTER SUBSCRIPTION \"old\" RENAME TO \"feed\"",
        ),
        (
            "SU22",
            options(made(), &[("publish", "insert")]),
            "ALTER PUBLICATION \"feed\" SET (\"publish\" = 'insert')",
        ),
        (
            "SU23",
            new(),
            "london: SELECT pg_catalog.pg_create_logical_replication_slot('nodes_3f2504e0_1', 'pgoutput')",
        ),
        (
            "SU24",
            new().password(LONDON),
            "paris: CREATE SUBSCRIPTION \"feed\" CONNECTION 'host=london dbname=app user=link password=********' PUBLICATION \"feed\" WITH (create_slot = false, enabled = false, slot_name = 'nodes_3f2504e0_1', copy_data = true)",
        ),
        (
            "SU25",
            made().password(LONDON),
            "ALTER SUBSCRIPTION \"feed\" CONNECTION 'host=london dbname=app user=link password=********'",
        ),
        (
            "SU25",
            made().digest(LONDON).with(PARIS, |f| f.subscriptions[0].conninfo = None),
            "link 1, conninfo 0a1b'",
        ),
        (
            "SU26",
            made().with(PARIS, |f| f.subscriptions[0].publications.insert("x".into())),
            "SET PUBLICATION \"feed\" WITH (refresh = false)",
        ),
        (
            "SU27",
            made().with(PARIS, |f| f.subscriptions[0].slot = None),
            "ALTER SUBSCRIPTION \"feed\" SET (slot_name = 'nodes_3f2504e0_1')",
        ),
        (
            "SU27",
            made().with(PARIS, |f| f.subscriptions[0].slot = Some("other".into())),
            "ALTER SUBSCRIPTION \"feed\" DISABLE ! \"paris\" receives nothing until",
        ),
        (
            "SU28",
            options(made(), &[("binary", "true")]),
            "ALTER SUBSCRIPTION \"feed\" SET (\"binary\" = 'true')",
        ),
        (
            "SU28",
            made().with(PARIS, |f| {
                f.subscriptions[0].options.insert("streaming".into(), "on".into())
            }),
            "ALTER SUBSCRIPTION \"feed\" SET (\"streaming\" = 'off')",
        ),
        (
            "SU29",
            made().with(PARIS, |f| f.subscriptions[0].enabled = false),
            "ALTER SUBSCRIPTION \"feed\" ENABLE",
        ),
        (
            "SU36",
            made().link(|l| l.state = LinkState::Paused),
            "ALTER SUBSCRIPTION \"feed\" DISABLE",
        ),
        (
            "SU30",
            made().with(PARIS, |f| f.subscriptions[0].tables.remove("2")),
            "REFRESH PUBLICATION WITH (copy_data = true)",
        ),
        (
            "SU31",
            new().with(PARIS, |f| f.relations[0].columns[0].data_type = "text".into()),
            "is integer on \"london\" and text on \"paris\"",
        ),
        (
            "SU50",
            grouped(made()).password(OSLO),
            "its conninfo differs from that of \"london\" (password) — Give both",
        ),
        ("SU51", grouped(made()), "ALTER SUBSCRIPTION \"feed\" SET (failover = true)"),
        ("SU23", grouped(new()), "'pgoutput', failover => true)"),
        ("SU24", grouped(new()), "\"failover\" = 'true')"),
        (
            "SU53",
            joined(made()),
            "CONNECTION 'host=london,oslo dbname=app user=link target_session_attrs=read-write'",
        ),
        ("SU54", joined(made()), "ALTER SUBSCRIPTION \"feed\" SET (failover = true)"),
    ]
}

pub fn subscription_removals() -> Vec<(&'static str, Case, &'static str)> {
    let made = || Case::subscription_made().removing();
    let orphan =
        Slot { name: "pg_16999_sync_16385_71".into(), kind: "logical".into(), ..Slot::default() };
    let read_only =
        |f: &mut NodeFacts| f.settings.insert("default_transaction_read_only".into(), "on".into());
    vec![
        (
            "SU37",
            made().with(LONDON, |f| f.can_replicate = false),
            "role \"admin\" on node \"london\" may not drop slots — Run ALTER ROLE … REPLICATION",
        ),
        ("SU38", made().with(PARIS, |f| f.in_recovery = true), "node \"paris\" is a standby"),
        ("SU39", made().with(LONDON, read_only), "node \"london\" is read-only"),
        (
            "SU40",
            made(),
            "ALTER SUBSCRIPTION \"feed\" DISABLE; ALTER SUBSCRIPTION \"feed\" SET (slot_name = NONE); COMMENT ON SUBSCRIPTION \"feed\" IS NULL; DROP SUBSCRIPTION \"feed\"",
        ),
        (
            "SU41",
            made().with(LONDON, |f| f.slots.push(orphan)),
            "pg_drop_replication_slot('pg_16999_sync_16385_71')",
        ),
        (
            "SU42",
            made(),
            "london: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1') ! what \"paris\" has not received is lost",
        ),
        ("SU43", made(), "london: DROP PUBLICATION \"feed\" ! subscriptions of others"),
        (
            "SU40",
            made().with(PARIS, |f| f.subscriptions[0].name = "old".into()),
            "DROP SUBSCRIPTION \"old\"",
        ),
        (
            "SU43",
            made().with(LONDON, |f| f.publications[0].name = "old".into()),
            "DROP PUBLICATION \"old\"",
        ),
    ]
}

/// A subscriber that has come so far, its slot gone, from london on its third timeline.
pub fn missing(applied: Option<u64>, copied: Option<u64>) -> Case {
    let history = "1\t0/1000000\tx\n2\t0/3500000\tx\n";
    Case::subscription_made()
        .with(LONDON, |f| {
            (f.slots, f.lsn) = (vec![], Moving(Some(Lsn(0x400_0000))));
            f.past = Past::read(history);
        })
        .with(PARIS, |f| {
            let found = &mut f.subscriptions[0];
            (found.applied, found.copied) = (Moving(applied.map(Lsn)), copied.map(Lsn));
        })
}

/// Its tables are to be copied anew.
pub fn replacing(case: Case) -> Case {
    case.link(|link| {
        let Spec::Subscription(spec) = &mut link.spec else { panic!("no subscription") };
        spec.replace = true;
    })
}

/// A list that has no other reason than the group is nobody's change; what somebody has changed
/// besides stays a step of its own.
#[test]
fn lists_are_told_apart_from_what_people_change() {
    let follows = |case: Case| {
        let plan = plan(&case.registry, &case.world());
        let steps = plan.steps.iter().filter(|step| step.link == Some(1));
        steps.map(|step| (step.rule, step.follows_group())).collect::<BTreeSet<_>>()
    };
    let subscription = || joined(Case::subscription_made());
    assert_eq!(follows(subscription()), [("SU53", true), ("SU54", true)].into());
    let disabled = subscription().with(PARIS, |f| f.subscriptions[0].enabled = false);
    assert_eq!(follows(disabled), [("SU53", true), ("SU54", true), ("SU29", false)].into());
    let server = || joined(Case::foreign_made());
    assert_eq!(follows(server()), [("FO38", true)].into());
    let slow = server().with(PARIS, |f| {
        f.servers[0].options.insert("fetch_size".into(), "1".into());
    });
    assert_eq!(follows(slow), [("FO38", true), ("FO21", false)].into());
    // By hand: the mark is of now, and the list is not.
    let by_hand = |case: Case| {
        case.with(PARIS, |f| {
            let comment = Some(mark().comment_with("0a1b+2c3d"));
            f.subscriptions.iter_mut().for_each(|found| found.comment.clone_from(&comment));
            f.servers.iter_mut().for_each(|found| found.comment.clone_from(&comment));
        })
    };
    assert_eq!(follows(by_hand(subscription())), [("SU25", false), ("SU51", false)].into());
    assert_eq!(follows(by_hand(server())), [("FO21", false)].into());
}

#[test]
fn only_what_is_copied_anew_is_emptied() {
    let emptied = |case: Case| {
        let case = case.with(PARIS, |f| f.relations.iter_mut().for_each(|r| r.filled = true));
        let plan = plan(&case.registry, &case.world());
        let sql = plan.steps.iter().map(|step| step.operation.sql().text().to_owned());
        sql.filter(|sql| sql.starts_with("TRUNCATE")).collect::<Vec<_>>()
    };
    assert_eq!(emptied(Case::subscription()), [""; 0]);
    assert_eq!(emptied(replacing(Case::subscription_made())), [""; 0], "it is there already");
    let both = ["TRUNCATE \"public\".\"a\", \"public\".\"b\""];
    assert_eq!(emptied(replacing(Case::subscription())), both);
}

#[test]
fn copies_of_slots_hold_no_link_back() {
    let copy = Slot { kind: "logical".into(), synced: true, failover: true, ..physical(9) };
    let mut case = Case::standby_made().removing().with(PARIS, |f| f.slots.clear());
    let link =
        Link { id: 9, name: "nine".into(), ..Case::subscription_made().registry.links[0].clone() };
    case.registry.links.push(Link { from: PARIS, to: LONDON, ..link });
    let case = case.with(OSLO, |f| {
        f.slots.push(copy);
        let facts = NodeFacts::default();
        (f.settings, f.file_settings) = (facts.settings, Some(BTreeMap::new()));
        (f.primary_conninfo, f.primary_conninfo_file, f.passfile) = (None, None, None);
    });
    case.fires("RG01", "registry: DELETE FROM nodes.link WHERE id = 1");
}

/// A subscription that somebody dropped is not made again on top of its rows, unless it is to
/// copy nothing.
#[test]
fn a_dropped_subscription_does_not_copy_again() {
    let dropped = || {
        Case::subscription_made().with(PARIS, |f| {
            f.subscriptions.clear();
            f.relations.iter_mut().for_each(|relation| relation.filled = true);
        })
    };
    let lines = dropped().lines();
    assert!(lines.iter().all(|line| line.starts_with("SU18")), "{lines:#?}");
    let no_copy = dropped().link(|link| match &mut link.spec {
        Spec::Subscription(spec) => spec.copy_data = false,
        Spec::Standby(_) | Spec::Foreign(_) => unreachable!("a subscription"),
    });
    no_copy.fires("SU24", "copy_data = false");
}

/// Our object under another name is still ours; what took its name is not.
#[test]
fn what_was_renamed_is_not_made_again() {
    let renamed = || {
        Case::subscription_made()
            .with(LONDON, |f| f.publications[0].name = "old".into())
            .with(PARIS, |f| f.subscriptions[0].name = "old".into())
    };
    let lines = renamed().lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let enabled = renamed().with(PARIS, |f| f.subscriptions[0].enabled = false).lines();
    assert!(enabled.contains(&"SU29 paris: ALTER SUBSCRIPTION \"feed\" ENABLE".to_owned()));
    let stranger = Subscription { name: "feed".into(), ..Subscription::default() };
    let taken = moved(renamed(), LONDON).with(PARIS, |f| f.subscriptions.push(stranger));
    let taken = taken.lines();
    assert!(taken[0].starts_with("SU25 paris: ALTER SUBSCRIPTION \"old\""), "{taken:#?}");
    assert!(taken[1].starts_with("SU10"), "{taken:#?}");
    assert_eq!(taken.len(), 2, "{taken:#?}");
}

/// Two removed subscriptions between the same servers both see the slot of an old copy.
#[test]
fn a_slot_is_dropped_once() {
    let name = "pg_16999_sync_16385_71";
    let orphan = Slot { name: name.into(), kind: "logical".into(), ..Slot::default() };
    let case = Case::subscription_made().removing().and_another(|link| {
        link.state = LinkState::Removing;
    });
    let lines = case.with(LONDON, |f| f.slots.push(orphan)).lines();
    assert_eq!(lines.iter().filter(|line| line.contains(name)).count(), 1, "{lines:#?}");
}

/// A copy needs a slot for its time: the next link leaves it that.
#[test]
fn the_slot_of_a_copy_is_not_given_away() {
    let case = Case::subscription().and_another(|link| match &mut link.spec {
        Spec::Subscription(spec) => spec.copy_data = false,
        Spec::Standby(_) | Spec::Foreign(_) => {}
    });
    let case = case.with(LONDON, |f| f.settings.insert("max_replication_slots".into(), "2".into()));
    assert_eq!(problems(&case, "SU06"), [(Some(2), ProblemKind::Refused)]);
}

/// A slot without its reader keeps WAL: who cannot drop it leaves the reader too.
#[test]
fn a_slot_that_cannot_be_dropped_keeps_its_reader() {
    let no_rights = |f: &mut NodeFacts| f.can_replicate = false;
    let subscription = Case::subscription_made().removing().with(LONDON, no_rights);
    let standby = Case::standby_made().removing().with(PARIS, no_rights);
    for case in [subscription, standby] {
        let plan = case.plan();
        assert_eq!(plan.steps, [], "{:#?}", plan.steps);
        assert_eq!(plan.problems.len(), 1, "{:#?}", plan.problems);
    }
}

#[test]
fn a_backslash_stays_out_of_the_publication_name() {
    let lines = Case::subscription().link(|link| link.name = r"a\b".into()).lines();
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has(&format!("CREATE PUBLICATION \"{SLOT}\"")), "{lines:#?}");
    assert!(has(r#"CREATE SUBSCRIPTION "a\b""#), "{lines:#?}");
    assert!(has(&format!("PUBLICATION \"{SLOT}\" WITH")), "{lines:#?}");
}
