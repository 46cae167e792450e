//! What a clone is made with.

use nodes_plan::clone::{conninfo_at, progress, recipe};
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::observed::{NodeFacts, Observation, Slot, World};
use nodes_plan::plan;
use std::time::Duration;

const SLOT: &str = "nodes_3f2504e0_1";

fn conninfo(pairs: &[(&str, &str)]) -> Conninfo {
    Conninfo::new(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())))
}

fn registry() -> Registry {
    let node = |id, name: &str| {
        let at = [("host", name), ("dbname", "app"), ("user", "link"), ("password", "p:w")];
        (id, Node { id, name: name.into(), conninfo: conninfo(&at), ..Node::default() })
    };
    let link = Link {
        id: 1,
        name: "oslo".into(),
        from: 1,
        to: 2,
        state: LinkState::Active,
        spec: Spec::Standby(StandbySpec::new(true)),
        keep_data: true,
    };
    Registry {
        id: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".into(),
        nodes: [node(1, "paris"), node(2, "oslo")].into(),
        links: vec![link],
        ..Registry::default()
    }
}

/// A server that is made by the recipe is what the planner wants: its plan is empty.
#[test]
fn a_clone_needs_no_step() {
    let registry = registry();
    for major in [15, 17, 18] {
        let recipe = recipe(&registry, &registry.links[0], major).expect("a standby link");
        assert_eq!(recipe.conninfo.to_string(), "host=paris user=link");
        let settings = recipe.settings.into_iter();
        let mut settings: std::collections::BTreeMap<String, String> =
            settings.map(|(name, value)| (name.to_owned(), value)).collect();
        let text = settings.remove("primary_conninfo").expect("it follows");
        assert!(!text.contains("p:w"), "{text}");
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        let following = conninfo(&pairs.collect::<Vec<_>>());
        let slot =
            Slot { name: SLOT.into(), kind: "physical".into(), active: true, ..Slot::default() };
        let paris = NodeFacts {
            version: major * 10_000,
            system_identifier: "1".into(),
            superuser: true,
            can_replicate: true,
            slots: vec![slot],
            ..NodeFacts::default()
        };
        let oslo = NodeFacts {
            in_recovery: true,
            settings: settings.clone(),
            file_settings: Some(settings),
            primary_conninfo: Some(following.clone()),
            primary_conninfo_file: Some(following),
            passfile: recipe.passfile,
            slots: vec![],
            ..paris.clone()
        };
        let seen = |facts| Observation::Seen { age: Duration::ZERO, facts: Box::new(facts) };
        let world = World { nodes: [(1, seen(paris)), (2, seen(oslo))].into() };
        let plan = plan(&registry, &world);
        assert!(plan.is_empty(), "{plan:#?}");
    }
}

#[test]
fn a_clone_has_the_address_of_its_machine() {
    let paris = conninfo(&[("host", "10.0.0.1"), ("port", "5501"), ("dbname", "app")]);
    let at = |place: &[(&str, &str)]| {
        conninfo_at(&paris, &conninfo(place), 6000).map(|found| found.to_string())
    };
    let there = at(&[("host", "oslo"), ("hostaddr", "10.0.0.9"), ("user", "other")]);
    assert_eq!(there.as_deref(), Some("host=oslo hostaddr=10.0.0.9 port=6000 dbname=app"));
    assert_eq!(at(&[("dbname", "x")]).as_deref(), Some("port=6000 dbname=app"));
    for unclear in [("host", "a,b"), ("hostaddr", "1,2"), ("service", "s")] {
        assert_eq!(at(&[unclear]), None);
    }
}

#[test]
fn progress_reads_well() {
    let ten = Duration::from_secs(10);
    let cases = [
        (5 << 20, None, ten, "5120 kB"),
        (1 << 30, Some(4 << 30), ten, "25 % (1024 MB of 4096 MB), 30 s left"),
        (1 << 30, Some(4 << 30), Duration::ZERO, "25 % (1024 MB of 4096 MB)"),
        (5 << 30, Some(4 << 30), ten, "100 % (5120 MB of 5120 MB)"),
        (0, Some(4 << 30), ten, "0 % (0 bytes of 4096 MB)"),
    ];
    for (done, total, elapsed, expected) in cases {
        assert_eq!(progress(done, total, elapsed), expected);
    }
}
