//! Links follow a group: one conninfo lists a primary and its standbys.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::Mark;
use nodes_plan::observed::*;
use nodes_plan::plan;
use nodes_plan::step::Operation;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const REGISTRY: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
/// Paris with its standby oslo, from which rome cascades; london reads.
const PARIS: NodeId = 1;
const OSLO: NodeId = 2;
const ROME: NodeId = 3;
const LONDON: NodeId = 4;
const LINK: LinkId = 9;

struct Case {
    registry: Registry,
    facts: BTreeMap<NodeId, NodeFacts>,
}

fn node(id: NodeId, name: &str, conninfo: &[(&str, &str)]) -> Node {
    let pairs = conninfo.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let (conninfo, digest) = (Conninfo::new(pairs), format!("d{id}"));
    Node { id, name: name.into(), conninfo, digest, ..Node::default() }
}

fn link(id: LinkId, from: NodeId, to: NodeId, spec: Spec) -> Link {
    let (name, state) = (format!("link{id}"), LinkState::Active);
    Link { id, name, from, to, state, spec, keep_data: true }
}

fn foreign(writable: bool) -> Spec {
    Spec::Foreign(ForeignSpec {
        local_schema: "stock".into(),
        remote_schema: "inventory".into(),
        tables: None,
        roles: BTreeSet::new(),
        public: false,
        writable,
        options: BTreeMap::new(),
    })
}

fn subscription() -> Spec {
    let (tables, options) = (Some(BTreeSet::new()), BTreeMap::new());
    Spec::Subscription(SubscriptionSpec { tables, copy_data: true, replace: false, options })
}

impl Case {
    fn new(from: NodeId, to: NodeId, spec: Spec) -> Case {
        let mut registry = Registry { id: REGISTRY.into(), ..Registry::default() };
        let mut facts = BTreeMap::new();
        for (id, name) in [(PARIS, "paris"), (OSLO, "oslo"), (ROME, "rome"), (LONDON, "london")] {
            registry.nodes.insert(id, node(id, name, &[("host", name), ("dbname", "app")]));
            let group = NodeFacts {
                version: 160_000,
                system_identifier: if id == LONDON { "72" } else { "71" }.into(),
                in_recovery: id == OSLO || id == ROME,
                superuser: true,
                can_replicate: true,
                can_create: true,
                can_create_subscription: true,
                fdw_available: true,
                role: "admin".into(),
                schemas: vec![Schema { name: "inventory".into(), ..Schema::default() }],
                ..NodeFacts::default()
            };
            facts.insert(id, group);
        }
        let standby = || Spec::Standby(StandbySpec::managed(true));
        registry.links = vec![link(1, PARIS, OSLO, standby()), link(2, OSLO, ROME, standby())];
        registry.links.push(link(LINK, from, to, spec));
        Case { registry, facts }
    }

    fn node(mut self, id: NodeId, conninfo: &[(&str, &str)]) -> Case {
        let name = self.registry.nodes[&id].name.clone();
        self.registry.nodes.insert(id, node(id, &name, conninfo));
        self
    }

    fn silent(mut self, id: NodeId) -> Case {
        self.facts.remove(&id);
        self
    }

    /// The subscription is there, made of the conninfos with these digests.
    fn subscribed(mut self, conninfo: &Conninfo, digests: &str) -> Case {
        let mark = Mark { registry: REGISTRY.into(), link: LINK };
        let facts = self.facts.get_mut(&LONDON).expect("london");
        facts.subscriptions.push(Subscription {
            name: format!("link{LINK}"),
            comment: Some(mark.comment_with(digests)),
            conninfo: Some(conninfo.clone()),
            ..Subscription::default()
        });
        self
    }

    fn operations(&self) -> Vec<Operation> {
        let seen = |facts: &NodeFacts| Observation::Seen {
            age: Duration::ZERO,
            facts: Box::new(facts.clone()),
        };
        let nodes = self.facts.iter().map(|(id, facts)| (*id, seen(facts))).collect();
        let steps = plan(&self.registry, &World { nodes }).steps.into_iter();
        steps.filter(|step| step.link == Some(LINK)).map(|step| step.operation).collect()
    }

    /// How the plan would have the link reach its data; nothing: it leaves that as it is.
    fn reached(&self) -> String {
        let find = |operation: &Operation| match operation {
            Operation::CreateSubscription { conninfo, .. }
            | Operation::SetSubscriptionConninfo { conninfo, .. } => Some(conninfo.render()),
            Operation::CreateServer { options, .. } => {
                let pairs = options.iter().map(|(key, value)| (key.clone(), value.clone()));
                Some(Conninfo::new(pairs).without("updatable").render())
            }
            _ => None,
        };
        self.operations().iter().find_map(find).unwrap_or_default()
    }
}

fn listing() -> Conninfo {
    let pairs =
        [("host", "paris,oslo,rome"), ("dbname", "app"), ("target_session_attrs", "read-write")];
    Conninfo::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

#[test]
fn all_members_are_listed_the_primary_first() {
    let listed = "host=paris,oslo,rome dbname=app target_session_attrs=read-write";
    assert_eq!(Case::new(PARIS, LONDON, subscription()).reached(), listed);
    assert_eq!(Case::new(PARIS, LONDON, foreign(true)).reached(), listed);
    let rather = "host=paris,oslo,rome dbname=app target_session_attrs=prefer-standby";
    assert_eq!(Case::new(PARIS, LONDON, foreign(false)).reached(), rather);
    // Who names a standby gets it first, or alone where it should be written to.
    let named = "host=rome,paris,oslo dbname=app target_session_attrs=prefer-standby";
    assert_eq!(Case::new(ROME, LONDON, foreign(false)).reached(), named);
    assert_eq!(Case::new(ROME, LONDON, foreign(true)).reached(), "host=rome dbname=app");
    // Nobody connects to itself.
    let others = "host=oslo,rome dbname=app target_session_attrs=prefer-standby";
    assert_eq!(Case::new(OSLO, PARIS, foreign(false)).reached(), others);
    assert_eq!(Case::new(LONDON, PARIS, subscription()).reached(), "host=london dbname=app");
}

#[test]
fn every_list_has_an_item_for_each_host() {
    let reached = |paris: &[(&str, &str)], oslo: &[(&str, &str)]| {
        let case = Case::new(PARIS, LONDON, subscription()).node(PARIS, paris).node(OSLO, oslo);
        case.node(ROME, &[("host", "rome"), ("user", "other")]).reached()
    };
    let attributes = "target_session_attrs=read-write";
    assert_eq!(
        reached(&[("host", "p"), ("port", "5501")], &[("host", "o")]),
        format!("host=p,o port=5501, {attributes}")
    );
    assert_eq!(
        reached(&[("host", "p"), ("port", "1")], &[("hostaddr", "10.0.0.2"), ("port", "2")]),
        format!("host=p, hostaddr=,10.0.0.2 port=1,2 {attributes}")
    );
    assert_eq!(
        reached(&[("host", "p,q"), ("port", "1,2")], &[("host", "o,m"), ("port", "3")]),
        format!("host=p,q,o,m port=1,2,3,3 {attributes}")
    );
    // Where a service file says where a node is, no list can.
    assert_eq!(reached(&[("service", "paris")], &[("service", "oslo")]), "service=paris");
    // libpq would refuse these.
    assert_eq!(
        reached(&[("host", "p,q"), ("port", "1,2,3")], &[("host", "o")]),
        "host=p,q port=1,2,3"
    );
}

#[test]
fn a_member_that_is_reached_otherwise_is_left_out() {
    let oslo = [("host", "oslo"), ("dbname", "app"), ("sslmode", "require")];
    let case = Case::new(PARIS, LONDON, subscription()).node(OSLO, &oslo);
    assert_eq!(case.reached(), "host=paris,rome dbname=app target_session_attrs=read-write");
}

#[test]
fn another_server_is_no_member() {
    let mut case = Case::new(PARIS, LONDON, foreign(true));
    case.facts.get_mut(&OSLO).expect("oslo").system_identifier = "79".into();
    assert_eq!(case.reached(), "host=paris,rome dbname=app target_session_attrs=read-write");
}

/// What is not heard stays as it is: listed, or not yet.
#[test]
fn silence_changes_no_list() {
    for silent in [PARIS, OSLO, ROME] {
        let case = Case::new(PARIS, LONDON, subscription()).silent(silent);
        assert_eq!(case.subscribed(&listing(), "d1+d2+d3").reached(), "", "{silent} is silent");
        let short = Conninfo::default().with("host", "paris").with("dbname", "app");
        let case = Case::new(PARIS, LONDON, subscription()).silent(silent);
        let joined = case.subscribed(&short, "d1").reached();
        let heard = match silent {
            OSLO => "host=paris,rome dbname=app target_session_attrs=read-write",
            ROME => "host=paris,oslo dbname=app target_session_attrs=read-write",
            _ => "",
        };
        assert_eq!(joined, heard, "{silent} is silent");
    }
}

#[test]
fn who_joins_or_leaves_is_altered_in_place() {
    let made = || Case::new(PARIS, LONDON, subscription()).subscribed(&listing(), "d1+d2+d3");
    assert_eq!(made().reached(), "");
    let mut left = made();
    left.registry.links[1].state = LinkState::Removing;
    assert_eq!(left.reached(), "host=paris,oslo dbname=app target_session_attrs=read-write");
    let dropped = |operation: &Operation| matches!(operation, Operation::DropSubscription { .. });
    assert!(!left.operations().iter().any(dropped));
    left.registry.links[0].state = LinkState::Removing;
    assert_eq!(left.reached(), "host=paris dbname=app");
}
