//! One registry and what its servers are seen to have: where every case of a rule begins.

use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::{Mark, TableName, extension_comment};
use nodes_plan::observed::*;
use nodes_plan::plan;
use nodes_plan::step::{Plan, ProblemKind};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const REGISTRY: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
pub const SLOT: &str = "nodes_3f2504e0_1";
/// Commits wait for the reader of that slot.
pub const LISTED: &str = r#"ANY 1 ("nodes_3f2504e0_1")"#;
/// Node ids: paris (primary), london (primary of another group), oslo (standby of paris).
pub const PARIS: NodeId = 1;
pub const LONDON: NodeId = 2;
pub const OSLO: NodeId = 3;
pub const ROME: NodeId = 4;
/// A type of an extension, with a modifier that is not numbers only.
pub const GEOMETRY: &str = "public.geometry(Point,4326)";

/// One registry with one link, and what its nodes say.
pub struct Case {
    pub registry: Registry,
    pub facts: BTreeMap<NodeId, NodeFacts>,
}

pub fn mark() -> Mark {
    Mark { registry: REGISTRY.into(), link: 1 }
}

pub fn comment() -> Option<String> {
    Some(mark().comment())
}

pub fn conninfo(host: &str) -> Conninfo {
    Conninfo::default().with("host", host).with("dbname", "app").with("user", "link")
}

pub fn table(schema: &str, name: &str) -> TableName {
    TableName::new(schema, name)
}

pub fn tables(names: &[&str]) -> BTreeSet<TableName> {
    names.iter().map(|name| table("public", name)).collect()
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub fn relation(schema: &str, name: &str) -> Relation {
    let id = Column { name: "id".into(), data_type: "integer".into(), ..Column::default() };
    Relation {
        name: table(schema, name),
        owner: "admin".into(),
        kind: "r".into(),
        replica_identity: true,
        owned: true,
        columns: vec![id],
        ..Relation::default()
    }
}

pub fn schema(name: &str, comment: Option<String>) -> Schema {
    let grants = BTreeSet::new();
    Schema { name: name.into(), comment, owner: "admin".into(), owned: true, grants }
}

pub fn role(name: &str) -> Role {
    Role { name: name.into(), superuser: false, replication: true }
}

pub fn grants(rights: &[(Option<&str>, &str)]) -> BTreeSet<Grant> {
    let grant = |(role, privilege): &(Option<&str>, &str)| Grant {
        role: role.map(str::to_owned),
        privilege: (*privilege).to_owned(),
    };
    rights.iter().map(grant).collect()
}

/// The table that the foreign link has imported.
pub fn imported(facts: &mut NodeFacts) -> &mut Relation {
    facts.relations.iter_mut().find(|r| r.server.is_some()).expect("imported")
}

/// Renames what the foreign link has made.
pub fn rename(facts: &mut NodeFacts) {
    imported(facts).server = Some("old feed".into());
    imported(facts).name.schema = "old stock".into();
    facts.servers[0].name = "old feed".into();
    facts.servers[0].tables = BTreeSet::from([table("old stock", "items")]);
    let schema = facts.schemas.iter_mut().find(|schema| schema.name == "stock");
    schema.expect("the local schema").name = "old stock".into();
}

pub fn server_facts(system: &str) -> NodeFacts {
    NodeFacts {
        version: 170_010,
        system_identifier: system.into(),
        timeline: 1,
        database: "app".into(),
        role: "admin".into(),
        superuser: true,
        can_replicate: true,
        can_create: true,
        can_create_subscription: true,
        settings: map(&[
            ("wal_level", "logical"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            ("max_logical_replication_workers", "4"),
            ("max_sync_workers_per_subscription", "2"),
            ("max_worker_processes", "8"),
            ("wal_retrieve_retry_interval", "5000"),
        ]),
        file_settings: Some(BTreeMap::new()),
        fdw_available: true,
        public_schema: true,
        roles: vec![role("link")],
        schemas: vec![schema("inventory", None)],
        relations: vec![
            relation("public", "a"),
            relation("public", "b"),
            relation("inventory", "items"),
        ],
        ..NodeFacts::default()
    }
}

impl Case {
    pub fn new(from: NodeId, to: NodeId, spec: Spec) -> Case {
        let mut registry = Registry { id: REGISTRY.into(), ..Registry::default() };
        for (id, name) in [(PARIS, "paris"), (LONDON, "london"), (OSLO, "oslo")] {
            let node = Node { id, name: name.into(), conninfo: conninfo(name), ..Node::default() };
            registry.nodes.insert(id, node);
        }
        let (name, state) = ("feed".to_owned(), LinkState::Active);
        registry.links.push(Link { id: 1, name, from, to, state, spec, keep_data: false });
        let oslo = NodeFacts { in_recovery: true, ..server_facts("71") };
        let facts = [(PARIS, server_facts("71")), (LONDON, server_facts("72")), (OSLO, oslo)];
        Case { registry, facts: facts.into() }
    }

    pub fn standby() -> Case {
        Case::new(PARIS, OSLO, Spec::Standby(StandbySpec::new(true)))
    }

    /// Everything of the standby link made.
    pub fn standby_made() -> Case {
        let slot = Slot { name: SLOT.into(), kind: "physical".into(), ..Slot::default() };
        let follows = conninfo("paris").with("application_name", SLOT);
        Case::standby().with(PARIS, |f| f.slots.push(slot)).with(OSLO, |f| {
            f.primary_conninfo = Some(follows.clone());
            f.primary_conninfo_file = Some(follows);
            let set = map(&[("primary_slot_name", SLOT), ("hot_standby_feedback", "on")]);
            f.settings.extend(set.clone());
            f.file_settings = Some(set);
        })
    }

    /// The same, and commits are to wait for the standby, which streams.
    pub fn synchronous() -> Case {
        let case = Case::standby_made().standby_spec(|spec| spec.synchronous = true);
        case.with(PARIS, |f| f.streaming.insert(SLOT.into()))
    }

    /// What a server's `synchronous_standby_names` is, in force and in its files.
    pub fn names(self, node: NodeId, names: &str) -> Case {
        let set = map(&[("synchronous_standby_names", names)]);
        self.with(node, |f| {
            f.settings.extend(set.clone());
            f.file_settings.iter_mut().for_each(|files| files.extend(set.clone()));
        })
    }

    pub fn standby_spec(self, change: impl FnOnce(&mut StandbySpec)) -> Case {
        self.link(|link| match &mut link.spec {
            Spec::Standby(spec) => change(spec),
            other => panic!("no standby link: {other:?}"),
        })
    }

    pub fn subscription() -> Case {
        let spec = SubscriptionSpec {
            tables: Some(tables(&["a", "b"])),
            copy_data: true,
            replace: false,
            options: BTreeMap::new(),
        };
        Case::new(LONDON, PARIS, Spec::Subscription(spec))
    }

    pub fn subscription_made() -> Case {
        let slot = Slot { name: SLOT.into(), kind: "logical".into(), ..Slot::default() };
        let publication = Publication {
            name: "feed".into(),
            comment: comment(),
            tables: tables(&["a", "b"]),
            published: tables(&["a", "b"]),
            options: map(&[
                ("publish", "insert, update, delete, truncate"),
                ("publish_via_partition_root", "false"),
            ]),
            ..Publication::default()
        };
        let ready = |name: &str| SubscribedTable { table: table("public", name), state: 'r' };
        let subscription = Subscription {
            applied: Moving::default(),
            copied: None,
            oid: 16_400,
            name: "feed".into(),
            comment: comment(),
            enabled: true,
            conninfo: Some(conninfo("london")),
            slot: Some(SLOT.into()),
            publications: BTreeSet::from(["feed".into()]),
            options: map(&[("binary", "false")]),
            tables: BTreeMap::from([("1".into(), ready("a")), ("2".into(), ready("b"))]),
        };
        Case::subscription()
            .with(LONDON, |f| {
                f.slots.push(slot);
                f.publications.push(publication);
            })
            .with(PARIS, |f| {
                f.subscription_oids = BTreeSet::from([16_400]);
                f.subscriptions.push(subscription);
            })
    }

    pub fn foreign() -> Case {
        let spec = ForeignSpec {
            local_schema: "stock".into(),
            remote_schema: "inventory".into(),
            tables: None,
            roles: BTreeSet::new(),
            public: false,
            writable: true,
            options: BTreeMap::new(),
        };
        Case::new(LONDON, PARIS, Spec::Foreign(spec))
    }

    pub fn foreign_made() -> Case {
        let user = Conninfo::default().with("user", "link");
        let imported = Relation {
            kind: "f".into(),
            server: Some("feed".into()),
            remote: Some(table("inventory", "items")),
            ..relation("stock", "items")
        };
        let server = Server {
            name: "feed".into(),
            comment: comment(),
            options: map(&[("host", "london"), ("dbname", "app")]),
            mappings: vec![Mapping { role: Some("admin".into()), options: Some(user) }],
            tables: BTreeSet::from([table("stock", "items")]),
        };
        Case::foreign().with(PARIS, |f| {
            f.fdw_comment = Some(extension_comment(REGISTRY));
            f.servers.push(server);
            f.schemas.push(schema("stock", comment()));
            f.relations.push(imported);
        })
    }

    pub fn with<T>(mut self, node: NodeId, change: impl FnOnce(&mut NodeFacts) -> T) -> Case {
        change(self.facts.get_mut(&node).expect("the node exists"));
        self
    }

    pub fn link(mut self, change: impl FnOnce(&mut Link)) -> Case {
        change(&mut self.registry.links[0]);
        self
    }

    /// Another link of the same kind, to the same node, that is to stay.
    pub fn and_another(mut self, change: impl FnOnce(&mut Link)) -> Case {
        let state = LinkState::Active;
        let mut other =
            Link { id: 2, name: "other".into(), state, ..self.registry.links[0].clone() };
        change(&mut other);
        self.registry.links.push(other);
        self
    }

    /// London is subscribed to paris.
    pub fn and_subscribed(self) -> Case {
        let spec = SubscriptionSpec {
            tables: Some(tables(&["a"])),
            copy_data: true,
            replace: false,
            options: BTreeMap::new(),
        };
        self.and_another(|l| (l.from, l.to, l.spec) = (PARIS, LONDON, Spec::Subscription(spec)))
    }

    pub fn removing(self) -> Case {
        self.link(|link| link.state = LinkState::Removing)
    }

    pub fn password(mut self, node: NodeId) -> Case {
        let node = self.registry.nodes.get_mut(&node).expect("the node exists");
        node.conninfo.set("password", "s3cret");
        self
    }

    pub fn digest(mut self, node: NodeId) -> Case {
        self.registry.nodes.get_mut(&node).expect("the node exists").digest = "0a1b".into();
        self
    }

    pub fn silent(mut self, node: NodeId) -> Case {
        self.facts.remove(&node);
        self
    }

    pub fn world(&self) -> World {
        let mut world = World::default();
        for (id, facts) in &self.facts {
            let facts = Box::new(facts.clone());
            world.nodes.insert(*id, Observation::Seen { age: Duration::ZERO, facts });
        }
        world
    }

    pub fn plan(&self) -> Plan {
        plan(&self.registry, &self.world())
    }

    /// What the plan warns of, a line for each dangerous step: rule and danger.
    pub fn dangers(&self) -> Vec<String> {
        let steps = self.plan().steps.into_iter();
        steps.filter_map(|step| Some(format!("{}: {}", step.rule, step.danger?))).collect()
    }

    /// The plan, a line for each step or problem: rule, node, statement or message and hint.
    pub fn lines(&self) -> Vec<String> {
        let plan = self.plan();
        let steps = plan.steps.iter().map(|step| {
            let node = step.node.map_or("registry", |node| self.registry.node_name(node));
            let danger = step.danger.as_ref().map_or(String::new(), |what| format!(" ! {what}"));
            format!("{} {node}: {}{danger}", step.rule, step.operation.sql().masked())
        });
        let problems =
            plan.problems.iter().map(|p| format!("{}: {} — {}", p.rule, p.message, p.hint));
        steps.chain(problems).collect()
    }

    /// The lines of one rule, which must be these.
    #[track_caller]
    pub fn fires(self, rule: &str, expected: &str) {
        let lines = self.lines();
        let of_rule: Vec<&String> = lines.iter().filter(|line| line.starts_with(rule)).collect();
        let found = of_rule.iter().any(|line| line.contains(expected));
        assert!(found, "{rule} should say {expected:?}, the plan is {lines:#?}");
    }
}

pub fn set_wal_level(facts: &mut NodeFacts, level: &str) {
    facts.settings.insert("wal_level".into(), level.into());
}

/// Oslo follows london, where the link's data is.
pub fn grouped(case: Case) -> Case {
    let standby = Spec::Standby(StandbySpec::new(true));
    let case = case.and_another(|l| (l.from, l.to, l.spec) = (LONDON, OSLO, standby));
    case.with(OSLO, |facts| facts.system_identifier = "72".into())
}

/// The same where the members' conninfos can be told apart: oslo was no member when the link was
/// made.
pub fn joined(case: Case) -> Case {
    let mut case = grouped(case);
    for (id, digest) in [(LONDON, "0a1b"), (OSLO, "2c3d")] {
        case.registry.nodes.get_mut(&id).expect("a node").digest = digest.into();
    }
    let comment = Some(mark().comment_with("0a1b"));
    case.with(PARIS, |f| {
        f.subscriptions.iter_mut().for_each(|found| found.comment.clone_from(&comment));
        f.servers.iter_mut().for_each(|found| found.comment.clone_from(&comment));
    })
}

/// The node has another address.
pub fn moved(mut case: Case, node: NodeId) -> Case {
    let node = case.registry.nodes.get_mut(&node).expect("the node exists");
    node.conninfo.set("host", "elsewhere");
    case
}

/// The foreign link names alice.
pub fn for_alice(case: Case) -> Case {
    let named = case.link(|link| match &mut link.spec {
        Spec::Foreign(spec) => drop(spec.roles.insert("alice".into())),
        Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
    });
    named.with(PARIS, |f| f.roles.push(role("alice")))
}

/// And she has what it gives her.
pub fn given_to_alice(case: Case) -> Case {
    let alice = Some("alice");
    let all = ["SELECT", "INSERT", "UPDATE", "DELETE"].map(|right| (alice, right));
    for_alice(case).with(PARIS, |f| {
        let mapping = f.servers[0].mappings[0].clone();
        f.servers[0].mappings.push(Mapping { role: alice.map(str::to_owned), ..mapping });
        let stock = f.schemas.iter_mut().find(|schema| schema.name == "stock");
        stock.expect("the local schema").grants = grants(&[(alice, "USAGE")]);
        imported(f).grants = grants(&all);
    })
}

pub fn physical(link: LinkId) -> Slot {
    Slot { name: format!("nodes_3f2504e0_{link}"), kind: "physical".into(), ..Slot::default() }
}

/// The problems of links with a rule, each with its link.
pub fn problems(case: &Case, rule: &str) -> Vec<(Option<LinkId>, ProblemKind)> {
    let problems = case.plan().problems.into_iter().filter(|problem| problem.rule == rule);
    problems.map(|problem| (problem.link, problem.kind)).collect()
}

#[track_caller]
pub fn assert_lines(case: &Case, expected: &[&str]) {
    let lines = case.lines();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}
