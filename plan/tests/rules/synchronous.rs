//! Standbys that commits wait for.

use crate::case::*;
use nodes_plan::observed::*;

/// Two standbys of paris for which commits are to wait: oslo and london.
pub fn two_synchronous() -> Case {
    let case = Case::synchronous().and_another(|link| link.to = LONDON);
    let slot = Slot { name: SECOND.into(), kind: "physical".into(), ..Slot::default() };
    let follows = conninfo("paris").with("application_name", SECOND);
    let london = |f: &mut NodeFacts| {
        *f = NodeFacts { in_recovery: true, ..server_facts("71") };
        f.primary_conninfo = Some(follows.clone());
        f.primary_conninfo_file = Some(follows);
        let set = map(&[("primary_slot_name", SECOND), ("hot_standby_feedback", "on")]);
        f.settings.extend(set.clone());
        f.file_settings = Some(set);
    };
    case.with(LONDON, london).with(PARIS, |f| {
        f.slots.push(slot);
        f.streaming.insert(SECOND.into());
    })
}

pub const SECOND: &str = "nodes_3f2504e0_2";
pub const BOTH: &str = r#"ANY 1 ("nodes_3f2504e0_1", "nodes_3f2504e0_2")"#;

#[test]
fn commits_wait_for_as_many_as_the_links_say() {
    let set =
        |value: &str| format!("paris: ALTER SYSTEM SET synchronous_standby_names = '{value}'");
    assert_lines(&two_synchronous(), &[&set(BOTH), "pg_reload_conf"]);
    assert_lines(&two_synchronous().names(PARIS, BOTH), &[]);
    // In the files, and not in force yet; by another hand, in another form.
    let reload = two_synchronous().names(PARIS, BOTH).with(PARIS, |f| f.settings.clear());
    assert_lines(
        &reload.with(PARIS, |f| f.settings = server_facts("71").settings),
        &["RG08 paris: SELECT pg_catalog.pg_reload_conf()"],
    );
    let reordered = "any 1 (nodes_3f2504e0_2,nodes_3f2504e0_1)";
    assert_lines(&two_synchronous().names(PARIS, reordered), &[]);
    // The larger number and FIRST count, whichever link says so.
    let both = two_synchronous().standby_spec(|spec| {
        spec.options.synchronous_number = Some(2);
        spec.options.synchronous_method = Some(nodes_plan::standby_names::Method::First);
    });
    let first = r#"FIRST 2 ("nodes_3f2504e0_1", "nodes_3f2504e0_2")"#;
    assert_lines(&both.names(PARIS, BOTH), &[&set(first), "pg_reload_conf"]);
}

#[test]
fn what_somebody_else_has_set_stays() {
    for theirs in ["*", "theirs", r#"ANY 1 ("nodes_3f2504e0_1", theirs)"#, "not valid ("] {
        let none = Case::standby_made().names(PARIS, theirs);
        assert_lines(&none, &[]);
        assert_lines(&Case::synchronous().names(PARIS, theirs), &["RG09"]);
    }
    // Nobody waits for what a standby names.
    assert_lines(&Case::standby_made().names(OSLO, "theirs"), &[]);
}

#[test]
fn nothing_is_set_that_would_block() {
    let number = |number| {
        let case = two_synchronous().names(PARIS, BOTH);
        case.standby_spec(|spec| spec.options.synchronous_number = Some(number))
    };
    number(2).fires("RG08", "ANY 2");
    // As long as that is so, neither link is as it should be.
    assert_lines(&number(2).with(PARIS, |f| f.streaming.remove(SECOND)), &["RG11", "RG11"]);
    // Where commits wait already, other standbys may help.
    let alone = Case::synchronous().names(PARIS, r#"ANY 1 ("nodes_3f2504e0_1")"#);
    assert_lines(&alone.with(PARIS, |f| f.streaming.clear()), &[]);
    let blocked = two_synchronous().names(PARIS, LISTED).with(PARIS, |f| f.streaming.clear());
    blocked.fires("RG08", "ANY 1 (\"nodes_3f2504e0_1\", \"nodes_3f2504e0_2\")");
    // Nor is anybody taken out because he is down.
    assert_lines(&two_synchronous().names(PARIS, BOTH).with(PARIS, |f| f.streaming.clear()), &[]);
}

#[test]
fn a_synchronous_standby_that_is_down_can_be_removed() {
    let gone = |case: Case| case.removing().silent(OSLO).with(PARIS, |f| f.streaming.remove(SLOT));
    let lines = gone(two_synchronous().names(PARIS, BOTH)).lines();
    let at = |part: &str| lines.iter().position(|line| line.contains(part));
    let shrinks = at(
        "RG08 paris: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"nodes_3f2504e0_2\")'",
    );
    let drops = at("pg_drop_replication_slot('nodes_3f2504e0_1')");
    assert!(shrinks.is_some() && shrinks < drops, "{lines:#?}");
    let lines = gone(Case::synchronous().names(PARIS, LISTED)).lines();
    assert!(lines[0].contains("RESET synchronous_standby_names"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("pg_drop_replication_slot")), "{lines:#?}");
    // Both are down, and commits wait whatever is done.
    let both = two_synchronous().names(PARIS, BOTH).with(PARIS, |f| f.streaming.clear());
    gone(both).fires("RG08", "ANY 1 (\"nodes_3f2504e0_2\")");
}

#[test]
fn one_that_commits_need_stays_until_they_do_not() {
    let last = two_synchronous().names(PARIS, BOTH).removing();
    let last = last.with(PARIS, |f| f.streaming.remove(SECOND));
    assert_lines(&last, &["too few others that are synchronous stream"]);
    let rights = Case::synchronous().names(PARIS, LISTED).removing();
    let rights =
        rights.with(PARIS, |f| f.settings.insert("allow_alter_system".into(), "off".into()));
    assert_lines(&rights, &["ST35"]);
}

/// Between a switchover's restart and its promotion there is no primary: what was the one keeps
/// its setting, in case it is to be the primary again.
#[test]
fn the_setting_of_a_primary_that_is_none_is_left_alone() {
    let none = Case::synchronous().names(PARIS, LISTED).with(PARIS, |f| f.in_recovery = true);
    let lines = none.lines();
    assert!(!lines.iter().any(|line| line.contains("synchronous_standby_names")), "{lines:#?}");
}
