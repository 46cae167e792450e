//! One case for every rule: the smallest change of a healthy world in which it fires, and what
//! it says or does then. Rules are found by number, so a rule without a case fails the last
//! test.

use nodes_plan::conninfo::{Conninfo, Secret, passfile_line};
use nodes_plan::desired::*;
use nodes_plan::headroom::headroom;
use nodes_plan::lsn::Lsn;
use nodes_plan::name::{Mark, TableName, extension_comment};
use nodes_plan::observed::*;
use nodes_plan::rejoin::Past;
use nodes_plan::step::{Operation, Plan, ProblemKind};
use nodes_plan::{plan, rules};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const REGISTRY: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
const SLOT: &str = "nodes_3f2504e0_1";
/// Commits wait for the reader of that slot.
const LISTED: &str = r#"ANY 1 ("nodes_3f2504e0_1")"#;
/// Node ids: paris (primary), london (primary of another group), oslo (standby of paris).
const PARIS: NodeId = 1;
const LONDON: NodeId = 2;
const OSLO: NodeId = 3;
const ROME: NodeId = 4;
/// A type of an extension, with a modifier that is not numbers only.
const GEOMETRY: &str = "public.geometry(Point,4326)";

/// One registry with one link, and what its nodes say.
struct Case {
    registry: Registry,
    facts: BTreeMap<NodeId, NodeFacts>,
}

fn mark() -> Mark {
    Mark { registry: REGISTRY.into(), link: 1 }
}

fn comment() -> Option<String> {
    Some(mark().comment())
}

fn conninfo(host: &str) -> Conninfo {
    Conninfo::default().with("host", host).with("dbname", "app").with("user", "link")
}

fn table(schema: &str, name: &str) -> TableName {
    TableName::new(schema, name)
}

fn tables(names: &[&str]) -> BTreeSet<TableName> {
    names.iter().map(|name| table("public", name)).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn relation(schema: &str, name: &str) -> Relation {
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

fn schema(name: &str, comment: Option<String>) -> Schema {
    let grants = BTreeSet::new();
    Schema { name: name.into(), comment, owner: "admin".into(), owned: true, grants }
}

fn role(name: &str) -> Role {
    Role { name: name.into(), superuser: false, replication: true }
}

fn grants(rights: &[(Option<&str>, &str)]) -> BTreeSet<Grant> {
    let grant = |(role, privilege): &(Option<&str>, &str)| Grant {
        role: role.map(str::to_owned),
        privilege: (*privilege).to_owned(),
    };
    rights.iter().map(grant).collect()
}

/// The table that the foreign link has imported.
fn imported(facts: &mut NodeFacts) -> &mut Relation {
    facts.relations.iter_mut().find(|r| r.server.is_some()).expect("imported")
}

/// Renames what the foreign link has made.
fn rename(facts: &mut NodeFacts) {
    imported(facts).server = Some("old feed".into());
    imported(facts).name.schema = "old stock".into();
    facts.servers[0].name = "old feed".into();
    facts.servers[0].tables = BTreeSet::from([table("old stock", "items")]);
    let schema = facts.schemas.iter_mut().find(|schema| schema.name == "stock");
    schema.expect("the local schema").name = "old stock".into();
}

fn server_facts(system: &str) -> NodeFacts {
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
    fn new(from: NodeId, to: NodeId, spec: Spec) -> Case {
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

    fn standby() -> Case {
        Case::new(PARIS, OSLO, Spec::Standby(StandbySpec::new(true)))
    }

    /// Everything of the standby link made.
    fn standby_made() -> Case {
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
    fn synchronous() -> Case {
        let case = Case::standby_made().standby_spec(|spec| spec.synchronous = true);
        case.with(PARIS, |f| f.streaming.insert(SLOT.into()))
    }

    /// What a server's `synchronous_standby_names` is, in force and in its files.
    fn names(self, node: NodeId, names: &str) -> Case {
        let set = map(&[("synchronous_standby_names", names)]);
        self.with(node, |f| {
            f.settings.extend(set.clone());
            f.file_settings.iter_mut().for_each(|files| files.extend(set.clone()));
        })
    }

    fn standby_spec(self, change: impl FnOnce(&mut StandbySpec)) -> Case {
        self.link(|link| match &mut link.spec {
            Spec::Standby(spec) => change(spec),
            other => panic!("no standby link: {other:?}"),
        })
    }

    fn subscription() -> Case {
        let spec = SubscriptionSpec {
            tables: Some(tables(&["a", "b"])),
            copy_data: true,
            replace: false,
            options: BTreeMap::new(),
        };
        Case::new(LONDON, PARIS, Spec::Subscription(spec))
    }

    fn subscription_made() -> Case {
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

    fn foreign() -> Case {
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

    fn foreign_made() -> Case {
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

    fn with<T>(mut self, node: NodeId, change: impl FnOnce(&mut NodeFacts) -> T) -> Case {
        change(self.facts.get_mut(&node).expect("the node exists"));
        self
    }

    fn link(mut self, change: impl FnOnce(&mut Link)) -> Case {
        change(&mut self.registry.links[0]);
        self
    }

    /// Another link of the same kind, to the same node, that is to stay.
    fn and_another(mut self, change: impl FnOnce(&mut Link)) -> Case {
        let state = LinkState::Active;
        let mut other =
            Link { id: 2, name: "other".into(), state, ..self.registry.links[0].clone() };
        change(&mut other);
        self.registry.links.push(other);
        self
    }

    /// London is subscribed to paris.
    fn and_subscribed(self) -> Case {
        let spec = SubscriptionSpec {
            tables: Some(tables(&["a"])),
            copy_data: true,
            replace: false,
            options: BTreeMap::new(),
        };
        self.and_another(|l| (l.from, l.to, l.spec) = (PARIS, LONDON, Spec::Subscription(spec)))
    }

    fn removing(self) -> Case {
        self.link(|link| link.state = LinkState::Removing)
    }

    fn password(mut self, node: NodeId) -> Case {
        let node = self.registry.nodes.get_mut(&node).expect("the node exists");
        node.conninfo.set("password", "s3cret");
        self
    }

    fn digest(mut self, node: NodeId) -> Case {
        self.registry.nodes.get_mut(&node).expect("the node exists").digest = "0a1b".into();
        self
    }

    fn silent(mut self, node: NodeId) -> Case {
        self.facts.remove(&node);
        self
    }

    fn world(&self) -> World {
        let mut world = World::default();
        for (id, facts) in &self.facts {
            let facts = Box::new(facts.clone());
            world.nodes.insert(*id, Observation::Seen { age: Duration::ZERO, facts });
        }
        world
    }

    fn plan(&self) -> Plan {
        plan(&self.registry, &self.world())
    }

    /// What the plan warns of, a line for each dangerous step: rule and danger.
    fn dangers(&self) -> Vec<String> {
        let steps = self.plan().steps.into_iter();
        steps.filter_map(|step| Some(format!("{}: {}", step.rule, step.danger?))).collect()
    }

    /// The plan, a line for each step or problem: rule, node, statement or message and hint.
    fn lines(&self) -> Vec<String> {
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
    fn fires(self, rule: &str, expected: &str) {
        let lines = self.lines();
        let of_rule: Vec<&String> = lines.iter().filter(|line| line.starts_with(rule)).collect();
        let found = of_rule.iter().any(|line| line.contains(expected));
        assert!(found, "{rule} should say {expected:?}, the plan is {lines:#?}");
    }
}

fn set_wal_level(facts: &mut NodeFacts, level: &str) {
    facts.settings.insert("wal_level".into(), level.into());
}

/// Oslo follows london, where the link's data is.
fn grouped(case: Case) -> Case {
    let standby = Spec::Standby(StandbySpec::new(true));
    let case = case.and_another(|l| (l.from, l.to, l.spec) = (LONDON, OSLO, standby));
    case.with(OSLO, |facts| facts.system_identifier = "72".into())
}

/// The same where the members' conninfos can be told apart: oslo was no member when the link was
/// made.
fn joined(case: Case) -> Case {
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
fn moved(mut case: Case, node: NodeId) -> Case {
    let node = case.registry.nodes.get_mut(&node).expect("the node exists");
    node.conninfo.set("host", "elsewhere");
    case
}

/// A rule's number, a world in which it fires, and part of what it then says.
fn cases() -> Vec<(&'static str, Case, &'static str)> {
    [
        standby_cases(),
        subscription_cases(),
        subscription_removals(),
        foreign_cases(),
        shared_cases(),
        sibling_cases(),
        unmanaged_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn standby_cases() -> Vec<(&'static str, Case, &'static str)> {
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

fn subscription_cases() -> Vec<(&'static str, Case, &'static str)> {
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

fn subscription_removals() -> Vec<(&'static str, Case, &'static str)> {
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

/// The foreign link names alice.
fn for_alice(case: Case) -> Case {
    let named = case.link(|link| match &mut link.spec {
        Spec::Foreign(spec) => drop(spec.roles.insert("alice".into())),
        Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
    });
    named.with(PARIS, |f| f.roles.push(role("alice")))
}

/// And she has what it gives her.
fn given_to_alice(case: Case) -> Case {
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

/// And then she is taken off the link while the node gets another password.
fn locked_out() -> Case {
    let case = given_to_alice(Case::foreign_made()).link(|link| match &mut link.spec {
        Spec::Foreign(spec) => spec.roles.clear(),
        Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
    });
    case.password(LONDON)
}

fn foreign_cases() -> Vec<(&'static str, Case, &'static str)> {
    let (new, made) = (Case::foreign, Case::foreign_made);
    let spec = |case: Case, change: &dyn Fn(&mut ForeignSpec)| {
        case.link(|link| match &mut link.spec {
            Spec::Foreign(spec) => change(spec),
            Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
        })
    };
    let more = Column { name: "more".into(), data_type: "text".into(), ..Column::default() };
    let keep = |link: &mut Link| link.keep_data = true;
    let renamed = || made().with(PARIS, rename);
    vec![
        (
            "FO01",
            new().with(PARIS, |f| f.in_recovery = true),
            "is a standby and accepts no changes",
        ),
        ("FO02", new().with(PARIS, |f| f.fdw_available = false), "postgres_fdw is not available"),
        ("FO03", made().with(PARIS, |f| f.servers[0].comment = None), "server \"feed\" exists"),
        (
            "FO04",
            new().with(PARIS, |f| {
                f.schemas.push(schema("stock", None));
                f.relations.push(relation("stock", "mine"));
            }),
            "holds 1 other tables or views: \"stock\".\"mine\"",
        ),
        (
            "FO05",
            new().with(LONDON, |f| f.schemas.clear()),
            "schema \"inventory\" does not exist on node \"london\"",
        ),
        (
            "FO06",
            spec(new(), &|s| s.tables = Some(BTreeSet::from(["nothing".into()]))),
            "table \"inventory\".\"nothing\" does not exist",
        ),
        (
            "FO07",
            spec(new(), &|s| {
                s.roles.insert("alice".into());
            }),
            "role \"alice\" does not exist on node \"paris\"",
        ),
        ("FO08", new().with(PARIS, |f| f.superuser = false), "has no password"),
        (
            "FO04",
            new().with(PARIS, |f| {
                let comment = Some(Mark { link: 9, ..mark() }.comment());
                f.schemas.push(schema("stock", comment));
            }),
            "schema \"stock\" still belongs to link 9",
        ),
        (
            "FO04",
            new().and_another(|_| ()),
            "schema \"stock\" on node \"paris\" is that of link \"feed\"",
        ),
        (
            "FO09",
            new().password(LONDON).with(PARIS, |f| f.superuser = false),
            "lacks the extension postgres_fdw",
        ),
        (
            "FO12",
            new().with(PARIS, |f| f.can_use_fdw = Some(false)),
            "role \"admin\" on node \"paris\" may not use postgres_fdw — Run GRANT USAGE",
        ),
        (
            "FO12",
            new().with(PARIS, |f| f.can_create = false),
            "may not create schemas — Run GRANT CREATE ON DATABASE \"app\"",
        ),
        (
            "FO20",
            new(),
            "CREATE SERVER \"feed\" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (\"dbname\" 'app', \"host\" 'london')",
        ),
        ("FO20", spec(new(), &|s| s.writable = false), "\"updatable\" 'false'"),
        (
            "FO21",
            made().with(PARIS, |f| f.servers[0].options.insert("host".into(), "old".into())),
            "ALTER SERVER \"feed\" OPTIONS (SET \"host\" 'london')",
        ),
        (
            "FO22",
            new().password(LONDON),
            "CREATE USER MAPPING FOR \"admin\" SERVER \"feed\" OPTIONS (\"user\" 'link', \"password\" '********')",
        ),
        (
            "FO22",
            spec(made(), &|s| s.public = true),
            "CREATE USER MAPPING FOR PUBLIC SERVER \"feed\"",
        ),
        (
            "FO23",
            made().password(LONDON),
            "ALTER USER MAPPING FOR \"admin\" SERVER \"feed\" OPTIONS (ADD \"password\" '********')",
        ),
        (
            "FO23",
            made().digest(LONDON).with(PARIS, |f| f.servers[0].mappings[0].options = None),
            "DROP USER MAPPING FOR \"admin\" SERVER \"feed\"; CREATE USER MAPPING FOR \"admin\"",
        ),
        (
            "FO37",
            locked_out(),
            "REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        ("FO37", locked_out(), "REVOKE USAGE ON SCHEMA \"stock\" FROM \"alice\""),
        ("FO37", locked_out(), "DROP USER MAPPING FOR \"alice\" SERVER \"feed\""),
        ("FO36", made().digest(LONDON), "COMMENT ON SERVER \"feed\" IS"),
        (
            "FO28",
            made().with(PARIS, |f| {
                let mapping = Mapping { role: None, ..f.servers[0].mappings[0].clone() };
                f.servers[0].mappings.push(mapping);
            }),
            "DROP USER MAPPING FOR PUBLIC SERVER \"feed\"",
        ),
        ("FO24", new(), "CREATE SCHEMA \"stock\"; COMMENT ON SCHEMA \"stock\""),
        (
            "FO25",
            made().with(LONDON, |f| f.relations.retain(|r| r.name.schema != "inventory")),
            "DROP FOREIGN TABLE \"stock\".\"items\"",
        ),
        ("FO26", new(), "IMPORT FOREIGN SCHEMA \"inventory\" FROM SERVER \"feed\" INTO \"stock\""),
        (
            "FO26",
            made().with(LONDON, |f| f.relations.push(relation("inventory", "new"))),
            "IMPORT FOREIGN SCHEMA \"inventory\" LIMIT TO (\"new\")",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns.push(more)),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ADD COLUMN \"more\" text",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns[0].data_type = GEOMETRY.into()),
            "ALTER COLUMN \"id\" TYPE public.geometry(Point,4326)",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns[0].not_null = true),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ALTER COLUMN \"id\" SET NOT NULL",
        ),
        (
            "FO27",
            made().with(PARIS, |f| imported(f).columns[0].not_null = true),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ALTER COLUMN \"id\" DROP NOT NULL",
        ),
        (
            "FO33",
            made().with(PARIS, |f| imported(f).options = map(&[("updatable", "false")])),
            "ALTER FOREIGN TABLE \"stock\".\"items\" OPTIONS (DROP \"updatable\")",
        ),
        (
            "FO34",
            made().with(LONDON, |f| f.relations[2].columns[0].data_type = "x('y')".into()),
            "type x('y') of column \"id\" of \"inventory\".\"items\" on \"london\" cannot be read as a type — Give \"stock\".\"items\" that column by hand",
        ),
        (
            "FO50",
            grouped(made()).password(OSLO),
            "its conninfo differs from that of \"london\" (password)",
        ),
        ("FO38", joined(made()), "ADD \"target_session_attrs\" 'read-write'"),
        ("FO38", joined(made()), "COMMENT ON SERVER \"feed\" IS"),
        (
            "FO25",
            spec(made(), &|s| s.tables = Some(BTreeSet::new())),
            "DROP FOREIGN TABLE \"stock\".\"items\"",
        ),
        (
            "FO35",
            made().with(PARIS, |f| imported(f).remote = Some(table("elsewhere", "items"))),
            "\"stock\".\"items\" is in the way of a foreign table for \"inventory\".\"items\"",
        ),
        (
            "FO35",
            made()
                .with(PARIS, |f| f.relations.push(relation("stock", "new")))
                .with(LONDON, |f| f.relations.push(relation("inventory", "new"))),
            "\"stock\".\"new\" is in the way",
        ),
        (
            "FO33",
            made().with(PARIS, |f| imported(f).remote = Some(table("inventory", "other"))),
            "ALTER FOREIGN TABLE \"stock\".\"items\" OPTIONS (SET \"table_name\" 'items')",
        ),
        ("FO31", for_alice(new()), "GRANT USAGE ON SCHEMA \"stock\" TO \"alice\""),
        (
            "FO31",
            for_alice(new()),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" TO \"alice\"",
        ),
        (
            "FO31",
            spec(for_alice(made()), &|s| s.writable = false),
            "GRANT SELECT ON TABLE \"stock\".\"items\" TO \"alice\"",
        ),
        (
            "FO31",
            spec(made(), &|s| s.public = true),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" TO PUBLIC",
        ),
        (
            "FO31",
            for_alice(made()).with(PARIS, |f| {
                let stock = f.schemas.iter_mut().find(|schema| schema.name == "stock");
                let stock = stock.expect("the local schema");
                (stock.comment, stock.owner, stock.owned) = (None, "bob".into(), false);
            }),
            "alice may not use schema \"stock\", which is that of bob — Have bob grant USAGE on it to alice.",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.roles.clear()),
            "REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.roles.clear()),
            "REVOKE USAGE ON SCHEMA \"stock\" FROM \"alice\"",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.writable = false),
            "REVOKE INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        ("FO29", renamed(), "ALTER SERVER \"old feed\" RENAME TO \"feed\""),
        ("FO30", renamed(), "ALTER SCHEMA \"old stock\" RENAME TO \"stock\""),
        (
            "FO27",
            renamed().with(LONDON, |f| f.relations[2].columns.clear()),
            "ALTER FOREIGN TABLE \"stock\".\"items\" DROP COLUMN \"id\"",
        ),
        (
            "FO03",
            renamed().with(PARIS, |f| {
                f.servers.push(Server { name: "feed".into(), ..Server::default() });
            }),
            "server \"feed\" exists and was not made by this registry",
        ),
        (
            "FO10",
            renamed().with(PARIS, |f| {
                f.schemas.push(schema("stock", None));
            }),
            "is called \"old stock\" now, and another is called \"stock\" — Rename or drop schema \"stock\"",
        ),
        ("FO40", renamed().removing().link(keep), "COMMENT ON SERVER \"old feed\" IS NULL"),
        ("FO40", renamed().removing().link(keep), "COMMENT ON SCHEMA \"old stock\" IS NULL"),
        ("FO41", renamed().removing(), "DROP FOREIGN TABLE \"old stock\".\"items\""),
        ("FO42", renamed().removing(), "DROP USER MAPPING FOR \"admin\" SERVER \"old feed\""),
        ("FO43", renamed().removing(), "DROP SERVER \"old feed\""),
        ("FO44", renamed().removing(), "DROP SCHEMA \"old stock\""),
        (
            "FO39",
            made().removing().with(PARIS, |f| f.in_recovery = true),
            "node \"paris\" is a standby",
        ),
        ("FO40", made().removing().link(keep), "COMMENT ON SERVER \"feed\" IS NULL"),
        ("FO40", made().removing().link(keep), "COMMENT ON SCHEMA \"stock\" IS NULL"),
        ("FO41", made().removing(), "DROP FOREIGN TABLE \"stock\".\"items\""),
        ("FO42", made().removing(), "DROP USER MAPPING FOR \"admin\" SERVER \"feed\""),
        ("FO43", made().removing(), "DROP SERVER \"feed\""),
        (
            "FO43",
            made().removing().with(PARIS, |f| {
                f.servers[0].tables.insert(table("mine", "items"));
            }),
            "COMMENT ON SERVER \"feed\" IS NULL",
        ),
        ("FO44", made().removing(), "DROP SCHEMA \"stock\""),
        (
            "FO44",
            made().removing().with(PARIS, |f| f.relations.push(relation("stock", "mine"))),
            "COMMENT ON SCHEMA \"stock\" IS NULL",
        ),
    ]
}

/// Paris with oslo and rome, which keep a slot for each other.
fn siblings() -> Case {
    let mut case = Case::standby_made();
    case.registry.is_watched = true;
    let node = Node { id: ROME, name: "rome".into(), ..case.registry.nodes[&OSLO].clone() };
    case.registry.nodes.insert(ROME, Node { conninfo: conninfo("rome"), ..node });
    let link = Link { id: 2, name: "rome".into(), to: ROME, ..case.registry.links[0].clone() };
    case.registry.links.push(link);
    let rome = case.facts[&OSLO].clone();
    case.facts.insert(ROME, rome);
    case.with(PARIS, |f| f.slots.push(physical(2)))
        .with(OSLO, |f| f.slots.push(physical(2)))
        .with(ROME, |f| f.slots.push(physical(1)))
}

fn physical(link: LinkId) -> Slot {
    Slot { name: format!("nodes_3f2504e0_{link}"), kind: "physical".into(), ..Slot::default() }
}

/// A subscriber that has come so far, its slot gone, from london on its third timeline.
fn missing(applied: Option<u64>, copied: Option<u64>) -> Case {
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
fn replacing(case: Case) -> Case {
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

fn sibling_cases() -> Vec<(&'static str, Case, &'static str)> {
    let leaving = || {
        let mut case = siblings();
        case.registry.links[1].state = LinkState::Removing;
        let case = case.with(PARIS, |f| drop(f.slots.pop()));
        case.with(ROME, |f| {
            f.slots.clear();
            let facts = NodeFacts::default();
            (f.settings, f.file_settings) = (facts.settings, Some(BTreeMap::new()));
            (f.primary_conninfo, f.primary_conninfo_file, f.passfile) = (None, None, None);
        })
    };
    let mut unwatched = siblings();
    unwatched.registry.is_watched = false;
    vec![
        (
            "RG15",
            siblings().with(OSLO, |f| f.slots.clear()),
            "oslo: SELECT pg_catalog.pg_create_physical_replication_slot('nodes_3f2504e0_2', true)",
        ),
        (
            "RG15",
            siblings().with(OSLO, |f| {
                f.slots.clear();
                f.settings.insert("max_replication_slots".into(), "0".into());
            }),
            "leaves no slot for \"rome\", which may have to be cloned anew if \"oslo\" takes over",
        ),
        ("RG14", unwatched, "pg_drop_replication_slot('nodes_3f2504e0_1')"),
        (
            "RG14",
            siblings().with(OSLO, |f| f.slots[0].wal_status = Some("lost".into())),
            "pg_drop_replication_slot('nodes_3f2504e0_2')",
        ),
        ("RG14", leaving(), "pg_drop_replication_slot('nodes_3f2504e0_2')"),
        (
            "RG14",
            leaving().silent(OSLO),
            "\"oslo\" did not answer: it may keep a slot for \"rome\"",
        ),
        (
            "RG14",
            leaving().with(OSLO, |f| f.can_replicate = false),
            "on node \"oslo\" may not drop slots",
        ),
        (
            "RG14",
            leaving().with(OSLO, |f| f.slots[0].active = true),
            "somebody reads slot \"nodes_3f2504e0_2\", which \"oslo\" kept for another",
        ),
    ]
}

/// Paris and oslo as a failover manager has set them up, to which london is subscribed.
fn unmanaged() -> Case {
    let case = Case::new(PARIS, OSLO, Spec::Standby(StandbySpec::unmanaged()));
    let theirs = map(&[("sync_replication_slots", "on"), ("hot_standby_feedback", "on")]);
    let guard = map(&[("synchronized_standby_slots", "oslo")]);
    let slot = || Slot { name: "oslo".into(), kind: "physical".into(), ..Slot::default() };
    let mut case = case.and_subscribed().with(PARIS, |f| {
        f.slots.push(slot());
        f.settings.extend(guard.clone());
    });
    // What is not in force yet is put in force by whom it is.
    case.registry.is_watched = true;
    case.with(OSLO, |f| f.settings.extend(theirs))
}

fn unmanaged_cases() -> Vec<(&'static str, Case, &'static str)> {
    let copy = |failover| {
        let slot = Slot { failover, ..left_behind() };
        unmanaged().with(OSLO, |f| f.slots.push(slot))
    };
    vec![
        (
            "ST50",
            unmanaged().with(OSLO, |f| f.system_identifier = "79".into()),
            "node \"oslo\" is not a clone of \"paris\"",
        ),
        (
            "ST51",
            unmanaged().with(OSLO, |f| f.in_recovery = false),
            "\"oslo\" is a primary now, and links still follow \"paris\"",
        ),
        (
            "ST52",
            unmanaged().with(OSLO, |f| drop(f.settings.remove("sync_replication_slots"))),
            "sync_replication_slots is off on \"oslo\" — Have what manages the group set that.",
        ),
        // An old one of ours that keeps the copy away.
        ("RG14", copy(true), "pg_drop_replication_slot(\'nodes_3f2504e0_2\')"),
        ("RG03", unmanaged().silent(OSLO), "Start it, or correct its address"),
    ]
}

/// Nothing is done on a member but what a subscription or a foreign schema needs there.
#[test]
fn what_others_manage_stays_as_it_is() {
    let on_members = |case: &Case| {
        let steps = case.plan().steps.into_iter();
        let members = steps.filter(|step| [Some(PARIS), Some(OSLO)].contains(&step.node));
        members.map(|step| step.rule).collect::<BTreeSet<_>>()
    };
    let made = unmanaged();
    assert_eq!(on_members(&made), BTreeSet::from(["SU20", "SU23"]), "{:#?}", made.lines());
    // Before 17 the manager has copies of its own of the slot.
    let copied = unmanaged().with(OSLO, |f| f.slots.push(left_behind()));
    assert_eq!(on_members(&copied), on_members(&made));
    let leaves = unmanaged().removing();
    assert!(leaves.lines().iter().any(|line| line.contains("DELETE FROM nodes.link WHERE id = 1")));
    let failover =
        unmanaged().plan().steps.into_iter().any(|step| {
            matches!(step.operation, Operation::CreateLogicalSlot { failover: true, .. })
        });
    assert!(failover, "the slot of the subscription is to survive");
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

#[test]
fn nobody_keeps_a_slot_in_vain() {
    let case = siblings();
    let steps = plan(&case.registry, &case.world()).steps;
    let shared: Vec<_> = steps.iter().filter(|step| step.rule.starts_with("RG")).collect();
    assert!(shared.is_empty(), "{shared:#?}");
}

/// What order.rs adds for several links.
fn shared_cases() -> Vec<(&'static str, Case, &'static str)> {
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

/// The slot of the subscription, on a standby.
fn left_behind() -> Slot {
    let (name, kind) = ("nodes_3f2504e0_2".into(), "logical".into());
    Slot { name, kind, ..Slot::default() }
}

#[test]
fn a_slot_on_a_member_stays_while_it_may_be_of_use() {
    let dropped = |change: fn(&mut Slot), on: NodeId, facts: fn(&mut NodeFacts)| {
        let mut slot = left_behind();
        change(&mut slot);
        let case = Case::standby_made().and_subscribed().with(OSLO, |f| f.slots.push(slot));
        case.with(on, facts).plan().steps.iter().any(|step| step.rule == "RG14")
    };
    let same = |_: &mut NodeFacts| {};
    assert!(dropped(|_| {}, OSLO, same));
    assert!(!dropped(|slot| slot.synced = true, OSLO, same), "a copy of the primary's");
    assert!(!dropped(|slot| slot.active = true, OSLO, same));
    assert!(!dropped(|slot| slot.name = SLOT.into(), OSLO, same), "oslo may be to hand over");
    assert!(!dropped(|slot| slot.name = "nodes_3f2504e0_9".into(), OSLO, same), "of no link");
    assert!(!dropped(|_| {}, PARIS, |f| f.in_recovery = true), "nobody leads");
    assert!(!dropped(|_| {}, OSLO, |f| f.timeline = 7), "the registry is of old");
}

#[test]
fn every_rule_fires_in_its_case() {
    for (rule, case, expected) in cases() {
        case.fires(rule, expected);
    }
}

#[test]
fn every_rule_has_a_case_and_a_number_of_its_own() {
    let with_case: BTreeSet<&str> = cases().iter().map(|(rule, ..)| *rule).collect();
    const ELSEWHERE: [&str; 5] = ["health", "failover", "promotion", "rejoin", "switchover"];
    let mut seen = BTreeSet::new();
    for rule in rules().iter().filter(|rule| rule.id != "RG00") {
        // Those of health and of failover have their cases in files of their own.
        let has_case = ELSEWHERE.contains(&rule.purpose) || with_case.contains(rule.id);
        assert!(has_case, "no case for {} ({})", rule.id, rule.when);
        assert!(seen.insert(rule.id), "{} is there twice", rule.id);
    }
}

#[test]
fn a_made_link_needs_nothing() {
    for case in [Case::standby_made(), Case::subscription_made(), Case::foreign_made()] {
        assert_eq!(case.lines(), [""; 0]);
    }
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
fn a_slot_is_made_only_for_a_standby_that_was_seen() {
    for case in
        [Case::standby().silent(OSLO), Case::standby().with(OSLO, |f| f.in_recovery = false)]
    {
        let lines = case.lines();
        assert!(!lines.iter().any(|line| line.contains("replication_slot(")), "{lines:#?}");
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

/// A setting without a mark may be the DBA's own.
#[test]
fn a_removal_leaves_hot_standby_feedback_alone() {
    let lines = Case::standby_made().removing().lines();
    assert!(lines.iter().any(|line| line.contains("RESET primary_slot_name")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("feedback")), "{lines:#?}");
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

/// A standby that follows needs nothing more, whatever other links ask for.
#[test]
fn a_full_server_keeps_the_standby_that_follows() {
    // The limit counts what other links of the plan have claimed too.
    let full = |f: &mut NodeFacts| f.walsenders = 11;
    assert_eq!(Case::standby_made().with(PARIS, full).lines(), [""; 0]);
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

/// Once its node is forgotten nobody would know of an extension that is still there.
#[test]
fn postgres_fdw_goes_before_the_link_and_the_node() {
    let mut case = Case::foreign().removing();
    case.registry.nodes.get_mut(&PARIS).expect("paris").removing = true;
    let case = case.with(PARIS, |f| f.fdw_comment = Some(extension_comment(REGISTRY)));
    let lines = case.lines();
    assert!(lines[0].starts_with("RG05") && lines[1].starts_with("RG01"), "{lines:#?}");
    assert_eq!(lines.len(), 2, "the node is forgotten later: {lines:#?}");
}

/// Who made a mapping with a name and password of their own keeps it.
#[test]
fn a_mapping_with_other_credentials_stays() {
    let theirs = Conninfo::default().with("user", "alice").with("password", "hers");
    let mapping = Mapping { role: Some("alice".into()), options: Some(theirs) };
    let case = Case::foreign_made().with(PARIS, |f| f.servers[0].mappings.push(mapping));
    assert_eq!(case.lines(), [""; 0]);
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

/// A foreign table in our schema, on our server, that shows what the link does not.
#[test]
fn a_table_of_another_remote_schema_stays() {
    let theirs = || Relation {
        kind: "f".into(),
        server: Some("feed".into()),
        remote: Some(table("elsewhere", "items")),
        ..relation("stock", "theirs")
    };
    let made = || {
        Case::foreign_made().with(PARIS, |f| {
            f.servers[0].tables.insert(theirs().name);
            f.relations.push(theirs());
        })
    };
    assert_eq!(made().lines(), [""; 0]);
    let removed = made().removing().lines();
    assert!(!removed.iter().any(|line| line.contains("theirs")), "{removed:#?}");
    for kept in ["COMMENT ON SERVER \"feed\" IS NULL", "COMMENT ON SCHEMA \"stock\" IS NULL"] {
        assert!(removed.iter().any(|line| line.contains(kept)), "{removed:#?}");
    }
}

/// Rights are given on the link's tables only, and those that others have are left alone.
#[test]
fn rights_are_those_of_the_link_and_its_roles() {
    let theirs = |name: &str, server: Option<&str>| Relation {
        kind: if server.is_some() { "f" } else { "r" }.into(),
        server: server.map(str::to_owned),
        remote: server.map(|_| table("elsewhere", name)),
        ..relation("stock", name)
    };
    let with_theirs = |f: &mut NodeFacts| {
        f.relations.push(theirs("wages", None));
        f.relations.push(theirs("bills", Some("feed")));
    };
    let lines = for_alice(Case::foreign_made()).with(PARIS, with_theirs).lines();
    let granted: Vec<&String> = lines.iter().filter(|line| line.starts_with("FO31")).collect();
    assert_eq!(granted.len(), 2, "{lines:#?}");
    assert!(!granted.iter().any(|line| line.contains("wages") || line.contains("bills")));

    assert_eq!(given_to_alice(Case::foreign_made()).lines(), [""; 0]);
    let to_others = given_to_alice(Case::foreign_made()).with(PARIS, |f| {
        let more =
            grants(&[(Some("carol"), "DELETE"), (None, "SELECT"), (Some("alice"), "TRUNCATE")]);
        imported(f).grants.extend(more);
    });
    assert_eq!(to_others.lines(), [""; 0]);
    // An owner needs no grant, and is not robbed of its own.
    let owner = for_alice(Case::foreign_made()).with(PARIS, |f| imported(f).owner = "alice".into());
    assert!(!owner.lines().iter().any(|line| line.contains("ON TABLE")), "{:#?}", owner.lines());
}

/// Without our server nothing of the schema is dropped, so it cannot be dropped either.
#[test]
fn a_schema_with_tables_that_stay_is_released() {
    let lines = Case::foreign_made().removing().with(PARIS, |f| f.servers[0].comment = None);
    lines.fires("FO44", "COMMENT ON SCHEMA \"stock\" IS NULL");
}

/// Nothing is forgotten while something stands in the way of its removal.
#[test]
fn what_cannot_be_removed_is_not_forgotten() {
    let read_only = |f: &mut NodeFacts| f.in_recovery = true;
    for case in [Case::foreign_made(), Case::subscription_made()] {
        let lines = case.removing().with(PARIS, read_only).lines();
        assert!(!lines.iter().any(|line| line.starts_with("RG01")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains(" paris: ")), "a step there: {lines:#?}");
    }
}

/// A subscription of which everything is made, on its way out, and two that come after it, on a
/// publisher with so many slots; none copies.
fn queue(slots: &'static str) -> Case {
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

/// The problems of links with a rule, each with its link.
fn problems(case: &Case, rule: &str) -> Vec<(Option<LinkId>, ProblemKind)> {
    let problems = case.plan().problems.into_iter().filter(|problem| problem.rule == rule);
    problems.map(|problem| (problem.link, problem.kind)).collect()
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

/// What a standby need not be told does not matter.
#[test]
fn a_standby_that_is_right_may_refuse_alter_system() {
    let off = |f: &mut NodeFacts| f.settings.insert("allow_alter_system".into(), "off".into());
    assert_eq!(Case::standby_made().with(OSLO, off).lines(), [""; 0]);
}

#[test]
fn a_backslash_stays_out_of_the_publication_name() {
    let lines = Case::subscription().link(|link| link.name = r"a\b".into()).lines();
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has(&format!("CREATE PUBLICATION \"{SLOT}\"")), "{lines:#?}");
    assert!(has(r#"CREATE SUBSCRIPTION "a\b""#), "{lines:#?}");
    assert!(has(&format!("PUBLICATION \"{SLOT}\" WITH")), "{lines:#?}");
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
fn rooms(case: &Case, node: NodeId) -> BTreeMap<String, (i64, i64, i64)> {
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

/// Two standbys of paris for which commits are to wait: oslo and london.
fn two_synchronous() -> Case {
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

const SECOND: &str = "nodes_3f2504e0_2";
const BOTH: &str = r#"ANY 1 ("nodes_3f2504e0_1", "nodes_3f2504e0_2")"#;

#[track_caller]
fn assert_lines(case: &Case, expected: &[&str]) {
    let lines = case.lines();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

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
