//! Standby links.

use crate::case::*;
use nodes_plan::conninfo::{Secret, passfile_line};
use nodes_plan::desired::*;
use nodes_plan::observed::*;

pub fn standby_cases() -> Vec<(&'static str, Case, &'static str)> {
    let (new, made) = (Case::standby, Case::standby_made);
    let set = |node, name: &'static str, value: &'static str| {
        new().with(node, move |f| f.settings.insert(name.into(), value.into()))
    };
    vec![
        ("ST22", made().and_subscribed(), "oslo: ALTER SYSTEM SET sync_replication_slots = 'on'"),
        (
            "ST28",
            made().and_subscribed().with(OSLO, |f| set_wal_level(f, "replica")),
            "wal_level on node \"oslo\" is not logical — Set wal_level to logical there",
        ),
        (
            "ST01",
            new().with(OSLO, |f| f.system_identifier = "79".into()),
            "pg_basebackup --dbname='host=paris user=link' --pgdata=DIRECTORY",
        ),
        (
            "ST01",
            new().with(OSLO, |f| f.system_identifier = "79".into()),
            "--create-slot --slot=nodes_3f2504e0_1",
        ),
        (
            "ST02",
            new().with(OSLO, |f| f.in_recovery = false),
            "is a primary of its own (timeline 1)",
        ),
        (
            "ST03",
            new().with(OSLO, |f| f.version = 150_020),
            "runs PostgreSQL 15, \"paris\" runs 17",
        ),
        ("ST04", set(PARIS, "wal_level", "minimal"), "wal_level on node \"paris\" is minimal"),
        (
            "ST05",
            new().with(PARIS, |f| f.walsenders = 10),
            "max_wal_senders on node \"paris\" is 10, of which 10 are in use; a standby needs 1 more — Set max_wal_senders to at least 11",
        ),
        (
            "ST06",
            set(PARIS, "max_replication_slots", "0"),
            "max_replication_slots on node \"paris\" is 0",
        ),
        ("ST07", new().with(OSLO, |f| f.superuser = false), "is not a superuser"),
        ("ST08", new().with(PARIS, |f| f.roles[0].replication = false), "may not replicate"),
        (
            "ST09",
            new().with(PARIS, |f| f.can_replicate = false),
            "role \"admin\" on node \"paris\" may not make slots — Run ALTER ROLE … REPLICATION",
        ),
        (
            "ST10",
            new().password(PARIS).with(OSLO, |f| f.passfile_blocked = true),
            "the password for \"paris\" cannot be written on node \"oslo\"",
        ),
        (
            "ST11",
            made().password(PARIS).with(OSLO, |f| {
                f.settings.insert("allow_alter_system".into(), "off".into());
            }),
            "node \"oslo\" refuses ALTER SYSTEM (allow_alter_system is off)",
        ),
        (
            "ST20",
            new(),
            "paris: SELECT pg_catalog.pg_create_physical_replication_slot('nodes_3f2504e0_1', true)",
        ),
        ("ST21", new().password(PARIS), "oslo: COPY (SELECT '********') TO PROGRAM 'umask 077"),
        (
            "ST22",
            new(),
            "oslo: ALTER SYSTEM SET primary_conninfo = 'host=paris user=link dbname=app application_name=nodes_3f2504e0_1'",
        ),
        ("ST22", new(), "ALTER SYSTEM SET hot_standby_feedback = 'on'"),
        (
            "ST22",
            new().password(PARIS),
            "passfile=pg_nodes.passfile application_name=nodes_3f2504e0_1'",
        ),
        (
            "ST23",
            made().with(OSLO, |f| f.settings.remove("primary_slot_name")),
            "oslo: SELECT pg_catalog.pg_reload_conf()",
        ),
        ("ST26", made().password(PARIS), "oslo: COPY (SELECT '********') TO PROGRAM 'umask 077"),
        (
            "ST27",
            moved(made(), PARIS),
            "oslo: ALTER SYSTEM SET primary_conninfo = 'host=elsewhere user=link",
        ),
        (
            "ST27",
            made().with(OSLO, |f| f.primary_conninfo = None),
            "oslo: SELECT pg_catalog.pg_reload_conf()",
        ),
        (
            "ST24",
            made().with(OSLO, |f| f.passfile = Some(Secret::new("x"))),
            "rm -f pg_nodes.passfile pg_nodes.passfile.new",
        ),
        ("ST24", made().with(OSLO, |f| f.passfile_unfinished = true), "rm -f pg_nodes.passfile"),
        (
            "ST25",
            made().link(|l| l.spec = Spec::Standby(StandbySpec::new(false))),
            "paris: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1') ! \"paris\" keeps no more WAL for \"oslo\"",
        ),
        (
            "ST29",
            made().with(OSLO, |f| f.slots.push(Slot { name: SLOT.into(), ..Slot::default() })),
            "oslo: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1')",
        ),
        (
            "ST29",
            made().with(PARIS, |f| {
                f.file_settings = Some([("primary_slot_name".into(), SLOT.into())].into());
            }),
            "paris: ALTER SYSTEM RESET primary_slot_name",
        ),
        (
            "ST39",
            made().removing().with(PARIS, |f| f.slots[0].active = true),
            "replay_lsn < target",
        ),
        (
            "ST25",
            made()
                .link(|l| l.spec = Spec::Standby(StandbySpec::new(false)))
                .with(PARIS, |f| f.can_replicate = false),
            "role \"admin\" on node \"paris\" may not drop slots",
        ),
        (
            "ST36",
            made().removing().with(PARIS, |f| f.can_replicate = false),
            "role \"admin\" on node \"paris\" may not drop slots — Run ALTER ROLE … REPLICATION",
        ),
        (
            "ST37",
            made().removing().with(OSLO, |f| {
                f.settings.insert("allow_alter_system".into(), "off".into());
            }),
            "node \"oslo\" refuses ALTER SYSTEM",
        ),
        (
            "ST37",
            made().removing().with(OSLO, |f| (f.superuser, f.file_settings) = (false, None)),
            "is not a superuser and cannot alter its settings",
        ),
        (
            "ST38",
            made().removing().and_another(|_| ()),
            "node \"oslo\" follows \"paris\" until link \"other\" makes it follow another node",
        ),
        ("ST40", made().removing(), "oslo: ALTER SYSTEM RESET primary_conninfo"),
        ("ST41", made().removing().with(OSLO, |f| f.passfile = Some(Secret::new("x"))), "rm -f"),
        (
            "ST42",
            made().removing(),
            "paris: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1') ! \"paris\" keeps no more WAL for \"oslo\"",
        ),
    ]
}

#[test]
fn the_passfile_on_the_standby_is_compared_by_its_content() {
    let made = || Case::standby_made().password(PARIS);
    let right = passfile_line(&Secret::new("s3cret"));
    let has = |case: Case, secret| case.with(OSLO, |f| f.passfile = Some(secret));
    has(made(), Secret::new("*:*:*:*:old")).fires("ST26", "COPY (SELECT '********')");
    let lines = has(made(), right.clone()).lines();
    assert!(!lines.iter().any(|line| line.starts_with("ST26")), "{lines:#?}");
    let unfinished = has(made(), right).with(OSLO, |f| f.passfile_unfinished = true);
    unfinished.fires("ST26", "COPY (SELECT '********')");
    // A name that is taken matters to nobody who has no password.
    let blocked = Case::standby_made().with(OSLO, |f| f.passfile_blocked = true);
    assert_eq!(blocked.lines(), [""; 0]);
}

#[test]
fn a_slot_is_made_only_for_a_standby_that_was_seen() {
    for case in
        [Case::standby().silent(OSLO), Case::standby().with(OSLO, |f| f.in_recovery = false)]
    {
        let lines = case.lines();
        assert!(!lines.iter().any(|line| line.contains("replication_slot(")), "{lines:#?}");
    }
}

/// A setting without a mark may be the DBA's own.
#[test]
fn a_removal_leaves_hot_standby_feedback_alone() {
    let lines = Case::standby_made().removing().lines();
    assert!(lines.iter().any(|line| line.contains("RESET primary_slot_name")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("feedback")), "{lines:#?}");
}

/// A standby that follows needs nothing more, whatever other links ask for.
#[test]
fn a_full_server_keeps_the_standby_that_follows() {
    // The limit counts what other links of the plan have claimed too.
    let full = |f: &mut NodeFacts| f.walsenders = 11;
    assert_eq!(Case::standby_made().with(PARIS, full).lines(), [""; 0]);
}

/// A setting taken out of the files is in force until a reload.
#[test]
fn a_slot_name_that_is_only_in_force_is_reloaded_away() {
    let case = Case::standby_made()
        .link(|link| link.spec = Spec::Standby(StandbySpec::new(false)))
        .with(OSLO, |f| f.file_settings.as_mut().map(|files| files.remove("primary_slot_name")));
    let lines = case.lines();
    let position = |text: &str| lines.iter().position(|line| line.contains(text));
    let (reload, drop) = (position("ST23 oslo"), position("pg_drop_replication_slot"));
    assert!(reload.is_some() && reload < drop, "{lines:#?}");
}

/// While one side of a kept link is silent the other loses nothing.
#[test]
fn a_silent_standby_keeps_its_slot_and_a_silent_primary_its_passfile() {
    let no_slot = |link: &mut Link| link.spec = Spec::Standby(StandbySpec::new(false));
    let slot = Case::standby_made().link(no_slot).silent(OSLO).lines();
    let passfile = Case::standby_made().with(OSLO, |f| f.passfile = Some(Secret::new("x")));
    let passfile = passfile.silent(PARIS).lines();
    for lines in [slot, passfile] {
        assert!(lines.iter().all(|line| line.starts_with("RG03")), "{lines:#?}");
    }
}

/// A standby that moves to another primary is never without one, and keeps its passfile.
#[test]
fn a_standby_moves_without_a_gap() {
    let moving = || Case::standby_made().removing().and_another(|link| link.from = PARIS);
    let before = moving().with(OSLO, |f| f.passfile = Some(Secret::new("x"))).lines();
    assert!(before.iter().any(|line| line.starts_with("ST22 oslo: ALTER SYSTEM SET")));
    let lost = |line: &&String| line.contains("RESET") || line.starts_with("ST4");
    assert_eq!(before.iter().find(lost), None, "{before:#?}");

    let after = moving().with(OSLO, |f| {
        let next =
            f.primary_conninfo.take().map(|c| c.with("application_name", "nodes_3f2504e0_2"));
        f.primary_conninfo.clone_from(&next);
        f.primary_conninfo_file = next;
        f.settings.insert("primary_slot_name".into(), "nodes_3f2504e0_2".into());
        f.file_settings
            .as_mut()
            .map(|s| s.insert("primary_slot_name".into(), "nodes_3f2504e0_2".into()))
    });
    after.fires("ST42", "paris: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1')");
}

/// What a standby need not be told does not matter.
#[test]
fn a_standby_that_is_right_may_refuse_alter_system() {
    let off = |f: &mut NodeFacts| f.settings.insert("allow_alter_system".into(), "off".into());
    assert_eq!(Case::standby_made().with(OSLO, off).lines(), [""; 0]);
}
