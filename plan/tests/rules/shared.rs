//! What links of all kinds have in common: names, room, rights, and each other.

use crate::case::*;
use crate::group::left_behind;
use nodes_plan::desired::*;
use nodes_plan::headroom::headroom;
use nodes_plan::observed::*;
use nodes_plan::plan;
use nodes_plan::step::ProblemKind;
use std::collections::{BTreeMap, BTreeSet};

/// What order.rs adds for several links.
pub fn shared_cases() -> Vec<(&'static str, Case, &'static str)> {
    let mut leaving = Case::standby();
    leaving.registry.links.clear();
    leaving.registry.nodes.get_mut(&LONDON).expect("london").removing = true;
    let others = Server { name: "others".into(), ..Server::default() };
    vec![
        ("RG01", Case::subscription().removing(), "registry: DELETE FROM nodes.link WHERE id = 1"),
        ("RG02", leaving, "registry: DELETE FROM nodes.node WHERE id = 2"),
        (
            "RG03",
            Case::standby().silent(OSLO),
            "node \"oslo\" did not answer: not asked yet — Start it and run nodes.apply() again. If it does not exist yet, create it with: pg_basebackup",
        ),
        (
            "RG03",
            Case::subscription_made().removing().silent(LONDON),
            "The other side is cleaned now",
        ),
        ("RG04", Case::foreign(), "CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public;"),
        (
            "RG04",
            Case::foreign().with(PARIS, |f| f.public_schema = false),
            "CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA pg_catalog;",
        ),
        (
            "RG07",
            Case::standby_made().and_subscribed().with(PARIS, |f| {
                let theirs = map(&[("synchronized_standby_slots", "theirs, nodes_3f2504e0_7")]);
                f.file_settings = Some(theirs);
            }),
            "ALTER SYSTEM SET synchronized_standby_slots = 'theirs, nodes_3f2504e0_1'",
        ),
        (
            "ST40",
            Case::standby_made().removing().with(OSLO, |f| {
                let name = "nodes_3f2504e0_9".into();
                f.slots.push(Slot { name, synced: true, ..Slot::default() });
            }),
            "pg_sync_replication_slots()",
        ),
        (
            "ST36",
            Case::standby_made().removing().with(PARIS, |f| {
                f.superuser = false;
                f.settings.extend(map(&[("synchronized_standby_slots", SLOT)]));
            }),
            "subscribers of \"paris\" wait for slot \"nodes_3f2504e0_1\"",
        ),
        (
            "RG07",
            Case::standby_made().with(PARIS, |f| {
                let ours = map(&[("synchronized_standby_slots", SLOT)]);
                f.settings.extend(ours.clone());
                f.file_settings = Some(ours);
            }),
            "ALTER SYSTEM RESET synchronized_standby_slots",
        ),
        (
            "RG16",
            Case::standby_made()
                .with(PARIS, |f| {
                    f.in_recovery = true;
                    f.primary_conninfo = Some(conninfo("oslo").with("application_name", SLOT));
                })
                .with(OSLO, |f| f.in_recovery = false),
            "registry: UPDATE nodes.link SET from_node = 3, to_node = 1, pending = true WHERE id = 1",
        ),
        (
            "RG08",
            Case::synchronous(),
            "paris: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"nodes_3f2504e0_1\")'",
        ),
        (
            "RG08",
            Case::standby_made().names(PARIS, LISTED),
            "paris: ALTER SYSTEM RESET synchronous_standby_names",
        ),
        (
            "RG08",
            Case::standby_made().names(OSLO, LISTED),
            "oslo: ALTER SYSTEM RESET synchronous_standby_names",
        ),
        (
            "RG09",
            Case::synchronous().names(PARIS, "FIRST 1 (*)"),
            "synchronous_standby_names on \"paris\" is FIRST 1 (*), which is not ours — Reset it",
        ),
        (
            "RG10",
            Case::synchronous().with(PARIS, |f| (f.superuser, f.file_settings) = (false, None)),
            "role \"admin\" cannot alter synchronous_standby_names on \"paris\"",
        ),
        (
            "RG11",
            Case::synchronous().with(PARIS, |f| f.streaming.clear()),
            "of the synchronous standbys (\"oslo\") 0 stream, 1 must — It is set when they stream",
        ),
        (
            "RG12",
            Case::synchronous().standby_spec(|spec| spec.options.synchronous_number = Some(3)),
            "to wait for 3 synchronous standbys, and there are 1 — Until there are more",
        ),
        (
            "RG13",
            Case::synchronous().and_another(|l| (l.from, l.to) = (OSLO, LONDON)),
            "nobody waits for the standby of \"oslo\", which is a standby itself",
        ),
        (
            "ST35",
            Case::synchronous().removing().names(PARIS, r#"ANY 1 ("nodes_3f2504e0_1", theirs)"#),
            "commits on \"paris\" wait for \"oslo\", by a synchronous_standby_names that is not ours",
        ),
        (
            "RG14",
            Case::standby_made().and_subscribed().with(OSLO, |f| f.slots.push(left_behind())),
            "pg_drop_replication_slot('nodes_3f2504e0_2')",
        ),
        ("RG05", Case::foreign_made().removing(), "DROP EXTENSION \"postgres_fdw\""),
        (
            "RG06",
            Case::foreign_made().removing().with(PARIS, |f| f.servers.push(others)),
            "COMMENT ON EXTENSION \"postgres_fdw\" IS 'foreign-data wrapper for remote PostgreSQL servers'",
        ),
    ]
}

/// What is on the living side goes; nobody waits for the other.
#[test]
fn a_node_that_is_gone_delays_no_removal() {
    let gone = |case: Case, id: NodeId| {
        let mut case = case.removing().silent(id);
        let node = case.registry.nodes.get_mut(&id).expect("the node exists");
        (node.removing, node.gone) = (true, true);
        case
    };
    let active = |f: &mut NodeFacts| f.slots[0].active = true;
    for (made, node, drops) in [
        (Case::standby_made().with(PARIS, active), OSLO, "drop_replication_slot"),
        (Case::standby_made(), PARIS, "ALTER SYSTEM RESET primary_conninfo"),
        (Case::subscription_made().with(LONDON, active), PARIS, "drop_replication_slot"),
        (Case::subscription_made(), LONDON, "DROP SUBSCRIPTION"),
        (Case::foreign_made(), LONDON, "DROP SERVER"),
    ] {
        let lines = gone(made, node).lines();
        assert!(lines.iter().any(|line| line.contains(drops)), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("did not answer")), "{lines:#?}");
    }
    for (new, node) in [
        (Case::standby(), OSLO),
        (Case::standby(), PARIS),
        (Case::subscription(), PARIS),
        (Case::subscription(), LONDON),
        (Case::foreign(), PARIS),
        (Case::foreign(), LONDON),
    ] {
        let lines = gone(new, node).lines();
        let forgets =
            |table: &str| lines.iter().any(|l| l.contains(&format!("DELETE FROM {table}")));
        assert!(forgets("nodes.link") && forgets("nodes.node") && lines.len() == 2, "{lines:#?}");
    }
}

#[test]
fn the_living_side_is_cleaned_while_the_other_is_dead() {
    let subscriber = Case::subscription_made().removing().silent(LONDON).lines();
    assert!(subscriber.iter().any(|line| line.contains("DROP SUBSCRIPTION \"feed\"")));
    let publisher = Case::subscription_made().removing().silent(PARIS).lines();
    assert!(publisher.iter().any(|line| line.contains("pg_drop_replication_slot")));
    for lines in [subscriber, publisher] {
        assert!(!lines.iter().any(|line| line.starts_with("RG01")), "not forgotten: {lines:#?}");
    }
}

/// Two links that need the same last slot: the second is refused in the plan, not by the server.
#[test]
fn the_links_of_one_plan_share_the_limits() {
    let case = |slots: &str| {
        let slots = slots.to_owned();
        let case = Case::subscription().and_another(|_| ());
        case.with(LONDON, move |f| f.settings.insert("max_replication_slots".into(), slots)).lines()
    };
    let refused = |lines: &[String]| lines.iter().any(|line| line.starts_with("SU06"));
    assert!(!refused(&case("3")));
    case("2").iter().find(|line| line.starts_with("SU06")).expect("no room for two and a copy");
}

/// What is made needs no right to make it, and nobody is told twice of one role.
#[test]
fn rights_are_asked_for_what_is_to_be_done() {
    for case in [Case::standby_made(), Case::subscription_made(), Case::foreign_made()] {
        let mut case = case;
        for facts in case.facts.values_mut() {
            (facts.can_replicate, facts.can_create) = (false, false);
            facts.can_use_fdw = Some(false);
            facts.relations.iter_mut().for_each(|relation| relation.owned = false);
        }
        assert_eq!(case.lines(), [""; 0]);
    }
    let bare = |f: &mut NodeFacts| {
        f.role = "link".into();
        f.roles[0].replication = false;
        (f.superuser, f.can_replicate) = (false, false);
    };
    let lines = Case::subscription().with(LONDON, bare).lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("SU08"), "{lines:#?}");
}

/// A link is not forgotten while anything bears its mark, even where no rule looks for it.
#[test]
fn a_mark_that_is_left_keeps_the_link() {
    let misplaced = Server { name: "any".into(), comment: comment(), ..Server::default() };
    let lines = Case::subscription().removing().with(PARIS, |f| f.servers.push(misplaced)).lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("RG01: something on \"paris\" still bears"), "{lines:#?}");
}

/// What forbids to make or extend a link is no reason to leave it with an old address.
#[test]
fn a_refused_link_still_follows_its_node() {
    let bare = |f: &mut NodeFacts| f.relations[0].replica_identity = false;
    let feed = moved(Case::subscription_made(), LONDON).with(LONDON, bare);
    let paused = feed.link(|l| l.state = LinkState::Paused);
    let no_items = |f: &mut NodeFacts| f.schemas.clear();
    let stock = moved(Case::foreign_made(), LONDON).with(LONDON, no_items);
    let no_slot = |f: &mut NodeFacts| {
        f.slots.clear();
        f.settings.insert("max_replication_slots".into(), "0".into());
    };
    let oslo = moved(Case::standby_made(), PARIS).with(PARIS, no_slot);
    for (case, expected) in [
        (paused, &["SU25 paris", "SU36 paris", "SU13"][..]),
        (stock.password(LONDON), &["FO21 paris", "FO23 paris", "FO05"]),
        (oslo.password(PARIS), &["ST26 oslo", "ST27 oslo", "ST27 oslo", "ST06"]),
    ] {
        let lines = case.lines();
        let begins: Vec<&str> = lines.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(begins, expected, "{lines:#?}");
    }
}

/// Who cannot be reached as the registry says is left as he is.
#[test]
fn a_connection_that_would_fail_is_not_set() {
    let stranger = |f: &mut NodeFacts| f.roles[0].replication = false;
    let feed = moved(Case::subscription_made(), LONDON).with(LONDON, stranger);
    let oslo = moved(Case::standby_made(), PARIS).with(PARIS, stranger);
    for (case, rule) in [(feed, "SU08"), (oslo, "ST08")] {
        let lines = case.lines();
        assert!(lines.iter().all(|line| line.starts_with(rule)), "{lines:#?}");
    }
}

/// What merely looks like a slot of an old copy stays, and keeps no link from being forgotten.
/// One that is still read keeps it.
#[test]
fn only_slots_that_nobody_can_read_are_dropped() {
    let case = |name: &str, change: &dyn Fn(&mut Slot)| {
        let mut slot = Slot { name: name.into(), kind: "logical".into(), ..Slot::default() };
        change(&mut slot);
        Case::subscription().removing().with(LONDON, |f| f.slots.push(slot))
    };
    let plain = |_: &mut Slot| ();
    for stranger in [
        case("pg_16999_sync_16385_79", &plain),
        case("pg_16999_sync_mine_71", &plain),
        case("pg_16999_sync_16385_71", &|slot| slot.kind = "physical".into()),
        case("pg_16400_sync_16385_71", &plain)
            .with(PARIS, |f| f.subscription_oids = BTreeSet::from([16_400])),
    ] {
        let lines = stranger.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].starts_with("RG01 registry"), "{lines:#?}");
    }
    let active = case("pg_16999_sync_16385_71", &|slot| slot.active = true).lines();
    assert_eq!(active.len(), 1, "{active:#?}");
    assert!(active[0].starts_with("SU41: slot"), "{active:#?}");
    // A standby may not have heard of a new subscription.
    let standby = case("pg_16999_sync_16385_71", &plain).with(PARIS, |f| f.in_recovery = true);
    assert!(!standby.lines().iter().any(|line| line.starts_with("SU41")));
}

/// What loses something, or stops somebody from using it, says so.
#[test]
fn dangers_are_marked() {
    let made = Case::foreign_made;
    let retyped = made().with(LONDON, |f| f.relations[2].columns[0].data_type = "text".into());
    let lost = "FO27: queries and views that use id fail; the remote rows stay";
    assert_eq!(retyped.dangers(), [lost]);
    let dropped = made().with(LONDON, |f| f.relations[2].columns.clear());
    assert_eq!(dropped.dangers(), [lost]);
    let harmless = made().with(LONDON, |f| f.relations[2].columns[0].not_null = true);
    assert_eq!(harmless.dangers(), [""; 0]);
    let removed = made().removing().dangers();
    assert_eq!(
        removed,
        [
            "FO41: queries and views that use it fail; the remote rows stay",
            "FO42: admin can no longer reach \"london\" through it",
            "FO43: nothing reaches \"london\" through it any more",
        ]
    );
}

/// A subscription of which everything is made, on its way out, and two that come after it, on a
/// publisher with so many slots; none copies.
pub fn queue(slots: &'static str) -> Case {
    let no_copy = |link: &mut Link| match &mut link.spec {
        Spec::Subscription(spec) => spec.copy_data = false,
        Spec::Standby(_) | Spec::Foreign(_) => {}
    };
    let third = |link: &mut Link| (link.id, link.name) = (3, "third".into());
    Case::subscription_made()
        .link(no_copy)
        .removing()
        .and_another(|_| ())
        .and_another(third)
        .with(LONDON, move |f| f.settings.insert("max_replication_slots".into(), slots.into()))
}

#[test]
fn a_link_waits_for_what_removed_links_still_use() {
    let case = queue("1");
    let expected = [(Some(3), ProblemKind::Refused), (Some(2), ProblemKind::Waiting)];
    assert_eq!(problems(&case, "SU06"), expected, "{:#?}", case.lines());
    case.fires(
        "SU06",
        "max_replication_slots on node \"london\" is 1; a subscription waits for what removed \
         links still use of it — Set max_replication_slots to at least 2",
    );
    let first = [(Some(3), ProblemKind::Waiting)];
    assert_eq!(problems(&queue("2"), "SU06"), first, "the first has what is free");
    assert_eq!(problems(&queue("3"), "SU06"), [], "there is room for all");
}

/// Who comes later does not take what somebody waits for who comes first.
#[test]
fn a_link_that_waits_for_a_name_keeps_its_place() {
    let waiting = |slots| {
        let mut case = queue(slots).with(LONDON, |f| f.slots[0].name = "somebody_s".into());
        case.registry.links[1].name = "feed".into();
        case
    };
    assert_eq!(problems(&waiting("2"), "SU09"), [(Some(2), ProblemKind::Waiting)]);
    assert_eq!(problems(&waiting("2"), "SU06"), [(Some(3), ProblemKind::Refused)]);
    assert_eq!(problems(&waiting("3"), "SU06"), []);
}

#[test]
fn hostile_names_are_quoted_wherever_they_land() {
    let long = "x".repeat(63);
    for name in ["we\"ird; DROP TABLE x--", "Ünïcode node", "SELECT", "it's", r"back\slash", &long]
    {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        for case in [Case::subscription(), Case::foreign()] {
            let lines = case.link(|link| link.name = name.to_owned()).lines();
            let create = lines
                .iter()
                .find(|l| l.contains("CREATE SUBSCRIPTION") || l.contains("CREATE SERVER"));
            let create = create.unwrap_or_else(|| panic!("nothing is made: {lines:#?}"));
            assert!(create.contains(&quoted), "{create}");
        }
    }
}

/// The rooms of a node, as resource, used, needed, limit.
pub fn rooms(case: &Case, node: NodeId) -> BTreeMap<String, (i64, i64, i64)> {
    let rooms = headroom(&case.registry, &case.world());
    let of_node = rooms.into_iter().filter(|room| room.node == node);
    of_node.map(|room| (room.resource, (room.used, room.needed, room.limit))).collect()
}

#[test]
fn headroom_counts_what_links_have_and_what_they_will_need() {
    let new = Case::subscription().with(LONDON, |f| f.walsenders = 2);
    let publisher = rooms(&new, LONDON);
    assert_eq!(publisher["replication slots"], (0, 2, 10), "one more for the copy");
    assert_eq!(publisher["walsenders"], (2, 2, 10));
    let subscriber = rooms(&new, PARIS);
    assert_eq!(subscriber["logical replication workers"], (0, 2, 4));
    assert_eq!(subscriber["replication origins"], (0, 2, 10));
    assert_eq!(subscriber["sync workers per subscription"], (0, 1, 2));
    let made = Case::subscription_made();
    assert_eq!(rooms(&made, LONDON)["replication slots"], (1, 1, 10), "the copy is done");
    assert_eq!(rooms(&made, PARIS)["logical replication workers"], (0, 1, 4));
    let paused = made.link(|link| link.state = LinkState::Paused);
    assert_eq!(rooms(&paused, PARIS)["logical replication workers"], (0, 0, 4));
    let standby = rooms(&Case::standby_made(), PARIS);
    assert_eq!((standby["replication slots"], standby["walsenders"]), ((1, 1, 10), (0, 1, 10)));
    assert!(!standby.contains_key("connections"), "nothing is said of an unknown limit");
    assert_eq!(rooms(&Case::foreign().silent(LONDON), LONDON), BTreeMap::new());
}

/// What the planner refuses for want of room is tight.
#[test]
fn what_is_refused_for_want_of_room_is_tight() {
    let case = Case::subscription().with(LONDON, |f| {
        f.settings.insert("max_replication_slots".into(), "1".into());
    });
    let world = case.world();
    let refused = plan(&case.registry, &world).problems.into_iter().find(|p| p.rule == "SU06");
    let rooms = headroom(&case.registry, &world);
    let tight: Vec<_> = rooms.into_iter().filter(|room| room.is_tight()).collect();
    assert_eq!(tight.len(), 1, "{tight:#?}");
    assert_eq!(tight[0].hint, refused.map(|problem| problem.hint));
}
