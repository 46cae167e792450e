//! One case for every rule: the smallest change of a healthy world in which it fires, and what
//! it says or does then. Rules are found by number, so a rule without a case fails the last
//! test.

use nodes_plan::conninfo::{Conninfo, Secret, passfile_line};
use nodes_plan::desired::*;
use nodes_plan::name::{Mark, TableName, extension_comment};
use nodes_plan::observed::*;
use nodes_plan::{plan, rules};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const REGISTRY: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
const SLOT: &str = "nodes_3f2504e0_1";
/// Node ids: paris (primary), london (primary of another group), oslo (standby of paris).
const PARIS: NodeId = 1;
const LONDON: NodeId = 2;
const OSLO: NodeId = 3;

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
        kind: "r".into(),
        replica_identity: true,
        columns: vec![id],
        ..Relation::default()
    }
}

fn server_facts(system: &str) -> NodeFacts {
    NodeFacts {
        version: 170_010,
        system_identifier: system.into(),
        timeline: 1,
        database: "app".into(),
        role: "admin".into(),
        superuser: true,
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
        roles: vec![Role { name: "link".into(), superuser: false, replication: true }],
        schemas: vec![Schema { name: "inventory".into(), comment: None }],
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
        Case::new(PARIS, OSLO, Spec::Standby(StandbySpec { slot: true }))
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

    fn subscription() -> Case {
        let spec = SubscriptionSpec {
            tables: Some(tables(&["a", "b"])),
            copy_data: true,
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
        };
        let ready = |name: &str| SubscribedTable { table: table("public", name), state: 'r' };
        let subscription = Subscription {
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
            f.schemas.push(Schema { name: "stock".into(), comment: comment() });
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

    /// The plan, a line for each step or problem: rule, node, statement or message and hint.
    fn lines(&self) -> Vec<String> {
        let mut world = World::default();
        for (id, facts) in &self.facts {
            let facts = Box::new(facts.clone());
            world.nodes.insert(*id, Observation::Seen { age: Duration::ZERO, facts });
        }
        let plan = plan(&self.registry, &world);
        let steps = plan.steps.iter().map(|step| {
            let node = step.node.map_or("registry", |node| self.registry.node_name(node));
            format!("{} {node}: {}", step.rule, step.operation.sql().masked())
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

/// A rule's number, a world in which it fires, and part of what it then says.
fn cases() -> Vec<(&'static str, Case, &'static str)> {
    [
        standby_cases(),
        subscription_cases(),
        subscription_removals(),
        foreign_cases(),
        shared_cases(),
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
            new().password(PARIS).with(OSLO, |f| f.passfile_blocked = true),
            "the password for \"paris\" cannot be written on node \"oslo\"",
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
            made().link(|l| l.spec = Spec::Standby(StandbySpec { slot: false })),
            "paris: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1')",
        ),
        (
            "ST39",
            made().removing().with(PARIS, |f| f.slots[0].active = true),
            "replay_lsn < target",
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
        ("ST40", made().removing(), "oslo: ALTER SYSTEM RESET hot_standby_feedback"),
        ("ST41", made().removing().with(OSLO, |f| f.passfile = Some(Secret::new("x"))), "rm -f"),
        (
            "ST42",
            made().removing(),
            "paris: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1')",
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
            "ALTER PUBLICATION \"feed\" DROP TABLE \"public\".\"c\"",
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
            "SU29",
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
    ]
}

fn subscription_removals() -> Vec<(&'static str, Case, &'static str)> {
    let made = || Case::subscription_made().removing();
    let orphan =
        Slot { name: "pg_16999_sync_16385_71".into(), kind: "logical".into(), ..Slot::default() };
    let read_only =
        |f: &mut NodeFacts| f.settings.insert("default_transaction_read_only".into(), "on".into());
    vec![
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
        ("SU42", made(), "london: SELECT pg_catalog.pg_drop_replication_slot('nodes_3f2504e0_1')"),
        ("SU43", made(), "london: DROP PUBLICATION \"feed\""),
    ]
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
                f.schemas.push(Schema { name: "stock".into(), comment: None });
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
                f.schemas.push(Schema { name: "stock".into(), comment });
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
        ("FO29", made().digest(LONDON), "COMMENT ON SERVER \"feed\" IS"),
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
            "FO25",
            made().with(PARIS, |f| {
                let imported = f.relations.iter_mut().find(|r| r.server.is_some());
                imported.expect("imported").remote = Some(table("elsewhere", "items"));
            }),
            "DROP FOREIGN TABLE \"stock\".\"items\"",
        ),
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
        ("RG04", Case::foreign(), "CREATE EXTENSION IF NOT EXISTS postgres_fdw"),
        ("RG05", Case::foreign_made().removing(), "DROP EXTENSION \"postgres_fdw\""),
        (
            "RG06",
            Case::foreign_made().removing().with(PARIS, |f| f.servers.push(others)),
            "COMMENT ON EXTENSION \"postgres_fdw\" IS 'foreign-data wrapper for remote PostgreSQL servers'",
        ),
    ]
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
    let mut seen = BTreeSet::new();
    for rule in rules().iter().filter(|rule| rule.id != "RG00") {
        assert!(with_case.contains(rule.id), "no case for {} ({})", rule.id, rule.when);
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
    has(made(), Secret::new("*:*:*:*:old")).fires("ST21", "COPY (SELECT '********')");
    let lines = has(made(), right.clone()).lines();
    assert!(!lines.iter().any(|line| line.starts_with("ST21")), "{lines:#?}");
    let unfinished = has(made(), right).with(OSLO, |f| f.passfile_unfinished = true);
    unfinished.fires("ST21", "COPY (SELECT '********')");
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

/// Two removed subscriptions between the same servers both see the slot of an old copy.
#[test]
fn a_slot_is_dropped_once() {
    let name = "pg_16999_sync_16385_71";
    let orphan = Slot { name: name.into(), active: true, ..Slot::default() };
    let case = Case::subscription_made().removing().and_another(|link| {
        link.state = LinkState::Removing;
    });
    let lines = case.with(LONDON, |f| f.slots.push(orphan)).lines();
    assert_eq!(lines.iter().filter(|line| line.contains(name)).count(), 1, "{lines:#?}");
}

/// A setting taken out of the files is in force until a reload.
#[test]
fn a_slot_name_that_is_only_in_force_is_reloaded_away() {
    let case = Case::standby_made()
        .link(|link| link.spec = Spec::Standby(StandbySpec { slot: false }))
        .with(OSLO, |f| f.file_settings.as_mut().map(|files| files.remove("primary_slot_name")));
    let lines = case.lines();
    let position = |text: &str| lines.iter().position(|line| line.contains(text));
    let (reload, drop) = (position("ST23 oslo"), position("pg_drop_replication_slot"));
    assert!(reload.is_some() && reload < drop, "{lines:#?}");
}

/// While one side of a kept link is silent the other loses nothing.
#[test]
fn a_silent_standby_keeps_its_slot_and_a_silent_primary_its_passfile() {
    let no_slot = |link: &mut Link| link.spec = Spec::Standby(StandbySpec { slot: false });
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
