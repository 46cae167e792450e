//! Random registries and random servers, from a seed: first what was asked for and made, then
//! what people change by hand, ask for next, and what goes wrong.

use crate::interpret::{
    change_grants, default_publication_options, default_subscription_options, reload,
    rename_schema, rename_server,
};
use crate::sim::Sim;
use nodes_plan::conninfo::{Conninfo, Secret};
use nodes_plan::desired::*;
use nodes_plan::name::{Mark, TableName};
use nodes_plan::observed::*;
use nodes_plan::standby_names::Method;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// Nodes 1 to n; each belongs to the group of an earlier one, as its standby, or is a primary.
pub fn sim(rng: &mut SmallRng) -> Sim {
    let mut registry =
        Registry { id: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".into(), ..Registry::default() };
    let mut nodes: BTreeMap<NodeId, NodeFacts> = BTreeMap::new();
    for id in 1..=rng.random_range(2..=5) {
        let primaries: Vec<&NodeFacts> = nodes.values().filter(|f| !f.in_recovery).collect();
        let facts = match primaries.choose(rng) {
            Some(primary) if rng.random_bool(0.35) => {
                NodeFacts { in_recovery: true, ..NodeFacts::clone(primary) }
            }
            Some(_) | None => primary(rng, id),
        };
        nodes.insert(id, facts);
        let conninfo = conninfo(rng, id);
        let (name, digest) = (format!("n{id}"), digest(&conninfo));
        registry.nodes.insert(id, Node { id, name, conninfo, digest, ..Node::default() });
    }
    gather(rng, &nodes, &mut registry);
    registry.is_watched = rng.random_bool(0.5);
    for id in 1..=rng.random_range(0..=6) {
        add_link(rng, id, &nodes, &mut registry);
    }
    Sim::new(registry, nodes)
}

/// Has standbys follow the primaries of which they are clones, reached in the same way.
fn gather(rng: &mut SmallRng, nodes: &BTreeMap<NodeId, NodeFacts>, registry: &mut Registry) {
    for (to, standby) in nodes.iter().filter(|(_, facts)| facts.in_recovery) {
        let group = |facts: &&NodeFacts| facts.system_identifier == standby.system_identifier;
        let primary = nodes.iter().find(|(_, facts)| group(facts) && !facts.in_recovery);
        let Some((&from, _)) = primary.filter(|_| rng.random_bool(0.5)) else { continue };
        let spec = Spec::Standby(standby_spec(rng, 0.8));
        let (id, name) = (40 + to, format!("link{}", 40 + to));
        let state = LinkState::Active;
        insert(registry, Link { id, name, from, to: *to, state, spec, keep_data: true });
        if rng.random_bool(0.8) {
            let address = registry.nodes[to].conninfo.get("host").unwrap_or_default().to_owned();
            let conninfo = registry.nodes[&from].conninfo.clone().with("host", address);
            let node = registry.nodes.get_mut(to).expect("every node is registered");
            (node.digest, node.conninfo) = (digest(&conninfo), conninfo);
        }
    }
}

pub fn conninfo(rng: &mut SmallRng, id: NodeId) -> Conninfo {
    let base = Conninfo::default()
        .with("host", format!("10.0.{}.{id}", rng.random_range(0..3)))
        .with("dbname", "app")
        .with("user", "link");
    if rng.random_bool(0.5) {
        base.with("password", format!("secret{}", rng.random_range(0..3)))
    } else {
        base
    }
}

/// As good as the extension's for telling one conninfo from another.
pub fn digest(conninfo: &Conninfo) -> String {
    let mut hasher = DefaultHasher::new();
    conninfo.render().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn primary(rng: &mut SmallRng, id: NodeId) -> NodeFacts {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let slots = if rng.random_bool(0.7) { 20 } else { rng.random_range(0..5) };
    let walsenders = if rng.random_bool(0.8) { 40 } else { rng.random_range(0..4) };
    let workers = if rng.random_bool(0.9) { 20 } else { rng.random_range(1..6) };
    let mut facts = NodeFacts {
        version: *[150_020, 160_009, 170_010, 180_006].choose(rng).unwrap_or(&0),
        system_identifier: format!("7{id:018}"),
        timeline: 1,
        database: "app".into(),
        role: "admin".into(),
        superuser: true,
        can_replicate: true,
        can_create: true,
        can_create_subscription: true,
        settings: BTreeMap::from([
            setting("wal_level", if rng.random_bool(0.9) { "logical" } else { "replica" }),
            setting("max_wal_senders", &walsenders.to_string()),
            setting("max_replication_slots", &slots.to_string()),
            setting("max_logical_replication_workers", &workers.to_string()),
            setting("max_sync_workers_per_subscription", "2"),
            setting("max_worker_processes", "40"),
            setting("wal_retrieve_retry_interval", "5000"),
            setting("primary_slot_name", ""),
            setting("hot_standby_feedback", "off"),
        ]),
        file_settings: Some(BTreeMap::new()),
        fdw_available: true,
        roles: ["link", "alice", "bob", "carol"].map(role).to_vec(),
        schemas: ["public", "inventory"].map(plain_schema).to_vec(),
        ..NodeFacts::default()
    };
    for (schema, name) in
        [("public", "a"), ("public", "b"), ("public", "c"), ("inventory", "x"), ("inventory", "y")]
    {
        facts.relations.push(table(rng, schema, name));
    }
    facts
}

fn role(name: &str) -> Role {
    Role { name: name.into(), superuser: false, replication: true }
}

fn plain_schema(name: &str) -> Schema {
    Schema { name: name.into(), owner: "admin".into(), owned: true, ..Schema::default() }
}

fn table(rng: &mut SmallRng, schema: &str, name: &str) -> Relation {
    let column =
        |name: &str| Column { name: name.into(), data_type: "integer".into(), ..Column::default() };
    Relation {
        name: TableName::new(schema, name),
        owner: "admin".into(),
        kind: "r".into(),
        replica_identity: rng.random_bool(0.97),
        owned: true,
        filled: rng.random_bool(0.03),
        columns: vec![Column { not_null: true, ..column("id") }, column("value")],
        ..Relation::default()
    }
}

/// Adds a link between any two nodes, as far as `nodes.add_*()` would let it.
fn add_link(
    rng: &mut SmallRng,
    id: LinkId,
    nodes: &BTreeMap<NodeId, NodeFacts>,
    registry: &mut Registry,
) {
    let ids: Vec<NodeId> = nodes.keys().copied().collect();
    let (Some(&from), Some(&to)) = (ids.choose(rng), ids.choose(rng)) else { return };
    let spec = match rng.random_range(0..3) {
        0 => Spec::Standby(standby_spec(rng, 0.8)),
        1 => Spec::Subscription(subscription(rng)),
        _ => Spec::Foreign(foreign(rng, id)),
    };
    let name = format!("link{id}");
    insert(registry, Link { id, name, from, to, state: LinkState::Active, spec, keep_data: true });
}

fn insert(registry: &mut Registry, link: Link) {
    let kept = |l: &&Link| l.state != LinkState::Removing;
    let others = || registry.links.iter().filter(kept);
    let standby = |l: &Link| matches!(l.spec, Spec::Standby(_));
    let taken = others().any(|l| l.name == link.name);
    let follows = standby(&link) && others().any(|l| standby(l) && l.to == link.to);
    let above = |node: NodeId| others().find(|l| standby(l) && l.to == node).map(|l| l.from);
    let mut chain = std::iter::successors(Some(link.from), |node| above(*node));
    let cycle = standby(&link) && chain.any(|node| node == link.to);
    if link.from != link.to && !taken && !follows && !cycle {
        registry.links.push(link);
    }
}

fn subscription(rng: &mut SmallRng) -> SubscriptionSpec {
    let names = ["a", "b", "c"].into_iter().filter(|_| rng.random_bool(0.6));
    let tables: BTreeSet<TableName> = names.map(|name| TableName::new("public", name)).collect();
    let mut options = BTreeMap::new();
    for (option, value, odds) in [
        ("binary", "true", 0.3),
        ("publish", "insert", 0.3),
        ("disable_on_error", "true", 0.1),
        ("streaming", "on", 0.1),
        ("streaming", "parallel", 0.05),
        ("origin", "none", 0.05),
    ] {
        if rng.random_bool(odds) {
            options.insert(option.to_owned(), value.to_owned());
        }
    }
    let tables = rng.random_bool(0.8).then_some(tables);
    SubscriptionSpec {
        tables,
        copy_data: rng.random_bool(0.8),
        replace: rng.random_bool(0.2),
        options,
    }
}

fn standby_spec(rng: &mut SmallRng, slot: f64) -> StandbySpec {
    let number = rng.random_bool(0.3).then(|| rng.random_range(1..4));
    let method = rng.random_bool(0.2).then_some(Method::First);
    StandbySpec {
        slot: rng.random_bool(slot),
        synchronous: rng.random_bool(0.4),
        options: StandbyOptions { synchronous_number: number, synchronous_method: method },
        unmanaged: false,
        unfinished: None,
    }
}

fn foreign(rng: &mut SmallRng, id: LinkId) -> ForeignSpec {
    let odds = [("alice", 0.5), ("bob", 0.3), ("nobody", 0.02)];
    let roles = odds.into_iter().filter(|(_, odds)| rng.random_bool(*odds));
    ForeignSpec {
        roles: roles.map(|(role, _)| role.to_owned()).collect(),
        local_schema: if rng.random_bool(0.9) { format!("stock{id}") } else { "stock".into() },
        remote_schema: "inventory".into(),
        tables: rng.random_bool(0.3).then(|| BTreeSet::from(["x".to_owned()])),
        public: rng.random_bool(0.2),
        writable: rng.random_bool(0.8),
        options: BTreeMap::new(),
    }
}

/// Nodes get another address, another password, or none.
fn readdress(rng: &mut SmallRng, registry: &mut Registry) {
    for (id, node) in &mut registry.nodes {
        if rng.random_bool(0.3) {
            node.conninfo = conninfo(rng, *id);
            node.digest = digest(&node.conninfo);
        }
    }
}

/// What people ask for next: other addresses, other details, links gone, links in their place.
pub fn evolve(rng: &mut SmallRng, sim: &mut Sim) {
    let nodes = sim.nodes.clone();
    let registry = &mut sim.registry;
    readdress(rng, registry);
    let mut successors = Vec::new();
    for link in &mut registry.links {
        if rng.random_bool(0.25) {
            link.spec = altered(rng, &link.spec);
        }
        match rng.random_range(0..10) {
            0..3 => {
                link.state = LinkState::Removing;
                link.keep_data = rng.random_bool(0.5);
                successors.push(successor(rng, link, &nodes));
            }
            3 if matches!(link.spec, Spec::Subscription(_)) => link.state = LinkState::Paused,
            _ => {}
        }
    }
    for link in successors.into_iter().flatten() {
        insert(registry, link);
    }
    for id in 21..21 + rng.random_range(0..3) {
        add_link(rng, id, &nodes, registry);
    }
}

/// What `nodes.alter_link()` can change.
fn altered(rng: &mut SmallRng, spec: &Spec) -> Spec {
    match spec {
        Spec::Standby(_) => Spec::Standby(standby_spec(rng, 0.5)),
        Spec::Subscription(old) => {
            let new = subscription(rng);
            let tables = new.tables.or(old.tables.clone());
            Spec::Subscription(SubscriptionSpec { tables, copy_data: old.copy_data, ..new })
        }
        Spec::Foreign(old) => {
            let new = foreign(rng, 0);
            let tables = new.tables.or(old.tables.clone());
            Spec::Foreign(ForeignSpec { tables, local_schema: old.local_schema.clone(), ..new })
        }
    }
}

/// A link made in the place of one that is being removed.
fn successor(rng: &mut SmallRng, old: &Link, nodes: &BTreeMap<NodeId, NodeFacts>) -> Option<Link> {
    let ids: Vec<NodeId> = nodes.keys().copied().collect();
    let other = *ids.choose(rng)?;
    let from = if rng.random_bool(0.5) { other } else { old.from };
    let state = LinkState::Active;
    let link = Link { id: old.id + 10, from, state, spec: altered(rng, &old.spec), ..old.clone() };
    rng.random_bool(0.5).then_some(link)
}

/// What goes wrong meanwhile: rights taken away, servers made read-only, failovers.
pub fn afflict(rng: &mut SmallRng, sim: &mut Sim) {
    for facts in sim.nodes.values_mut() {
        if rng.random_bool(0.05) {
            facts.superuser = false;
            facts.can_create_subscription = facts.version >= 160_000 && rng.random_bool(0.5);
            facts.can_replicate = rng.random_bool(0.7);
            facts.can_create = rng.random_bool(0.7);
            facts.can_use_fdw = Some(rng.random_bool(0.7));
            let own = rng.random_bool(0.7);
            facts.relations.iter_mut().for_each(|relation| relation.owned = own);
        }
        if rng.random_bool(0.03) {
            facts.settings.insert("default_transaction_read_only".into(), "on".into());
        }
    }
    let standbys: Vec<NodeId> =
        sim.nodes.iter().filter(|(_, f)| f.in_recovery).map(|(id, _)| *id).collect();
    let Some(new) = standbys.choose(rng).filter(|_| rng.random_bool(0.2)) else { return };
    let group = sim.nodes[new].system_identifier.clone();
    let old = sim.nodes.iter().find(|(_, f)| f.system_identifier == group && !f.in_recovery);
    if let Some(old) = old.map(|(id, _)| *id) {
        sim.fail_over(old, *new, rng.random_bool(0.5));
    }
}

/// What people do by hand to what was made.
pub fn disturb(rng: &mut SmallRng, sim: &mut Sim) {
    for facts in sim.nodes.values_mut() {
        if facts.in_recovery {
            disturb_standby(rng, facts);
        } else {
            disturb_commits(rng, facts);
            disturb_logical(rng, facts);
            disturb_foreign(rng, facts);
        }
    }
}

fn disturb_standby(rng: &mut SmallRng, facts: &mut NodeFacts) {
    let files = facts.file_settings.get_or_insert_default();
    if rng.random_bool(0.2) {
        files.remove("primary_slot_name");
    }
    if rng.random_bool(0.1) {
        files.insert("primary_slot_name".into(), "elsewhere".into());
        reload(facts);
    }
    if rng.random_bool(0.1) {
        facts.primary_conninfo_file = Some(Conninfo::default().with("host", "elsewhere"));
        reload(facts);
    }
    if rng.random_bool(0.1) {
        facts.passfile = facts.passfile.as_ref().map(|_| Secret::new("*:*:*:*:wrong"));
    }
    facts.passfile_unfinished |= facts.passfile.is_some() && rng.random_bool(0.1);
    if rng.random_bool(0.1) {
        facts.slots.clear();
    }
}

/// Somebody says for himself for whom commits wait, or that they wait for nobody.
fn disturb_commits(rng: &mut SmallRng, facts: &mut NodeFacts) {
    let value = match rng.random_range(0..20) {
        0 => "FIRST 1 (*)",
        1 => "theirs",
        2 => "",
        _ => return,
    };
    let files = facts.file_settings.get_or_insert_default();
    files.insert("synchronous_standby_names".into(), value.into());
    reload(facts);
}

fn disturb_logical(rng: &mut SmallRng, facts: &mut NodeFacts) {
    for subscription in &mut facts.subscriptions {
        subscription.enabled ^= rng.random_bool(0.2);
        if rng.random_bool(0.1) {
            subscription.tables.pop_first();
        }
        if rng.random_bool(0.1) {
            subscription.options.insert("binary".into(), "true".into());
        }
        if rng.random_bool(0.05) {
            subscription.publications.insert("other".into());
        }
        if rng.random_bool(0.05) {
            subscription.slot = None;
            subscription.enabled = false;
        }
    }
    for publication in facts.publications.iter_mut().filter(|_| rng.random_bool(0.2)) {
        publication.tables.pop_last();
        publication.options.insert("publish".into(), "delete".into());
    }
    for publication in &mut facts.publications {
        if rng.random_bool(0.1) {
            publication.filtered.extend(publication.tables.first().cloned());
        }
        if rng.random_bool(0.1) {
            publication.schemas.insert("inventory".into());
        }
        if rng.random_bool(0.03) {
            // Made anew by hand, the comment included.
            publication.all_tables = true;
            publication.tables.clear();
            publication.filtered.clear();
            publication.schemas.clear();
        }
    }
    facts.publications.retain(|_| rng.random_bool(0.95));
    rename_logical(rng, facts);
    facts.slots.retain(|_| rng.random_bool(0.97));
}

/// Renames publications and subscriptions; sometimes somebody takes the name.
fn rename_logical(rng: &mut SmallRng, facts: &mut NodeFacts) {
    for position in 0..facts.publications.len() {
        if rng.random_bool(0.1) {
            let publication = &mut facts.publications[position];
            let name = publication.name.clone();
            publication.name.push_str("_old");
            if rng.random_bool(0.2) {
                facts.publications.push(Publication { name, ..Publication::default() });
            }
        }
    }
    for position in 0..facts.subscriptions.len() {
        if rng.random_bool(0.1) {
            let subscription = &mut facts.subscriptions[position];
            let name = subscription.name.clone();
            subscription.name.push_str("_old");
            if rng.random_bool(0.2) {
                facts.subscriptions.push(Subscription { name, ..Subscription::default() });
            }
        }
    }
}

fn disturb_foreign(rng: &mut SmallRng, facts: &mut NodeFacts) {
    for server in facts.servers.iter_mut().filter(|_| rng.random_bool(0.2)) {
        server.options.insert("fetch_size".into(), "7".into());
        server.mappings.pop();
    }
    let schemas: Vec<String> = facts.servers.iter().map(|s| s.name.clone()).collect();
    if let Some(server) = schemas.choose(rng).filter(|_| rng.random_bool(0.05)) {
        // Somebody uses our server for a table of their own.
        facts.schemas.push(plain_schema("mine"));
        facts.relations.push(Relation {
            kind: "f".into(),
            server: Some(server.clone()),
            remote: Some(TableName::new("inventory", "x")),
            ..table(rng, "mine", "view_of_x")
        });
    }
    rename_foreign(rng, facts);
    disturb_rights(rng, facts);
    for relation in facts.relations.iter_mut().filter(|r| r.server.is_some()) {
        if rng.random_bool(0.05) {
            let table = if rng.random_bool(0.5) { "y" } else { "gone" };
            relation.remote = Some(TableName::new("inventory", table));
        }
        if rng.random_bool(0.05) {
            relation.remote = Some(TableName::new("elsewhere", relation.name.name.clone()));
        }
        if rng.random_bool(0.1) {
            relation.options.insert("updatable".into(), "false".into());
            relation.columns.iter_mut().for_each(|column| column.not_null ^= true);
        }
    }
    if rng.random_bool(0.2) {
        facts.relations.retain(|r| r.kind != "f" || r.name.name != "x");
    }
    if rng.random_bool(0.2) {
        let (name, not_null) = ("more".into(), rng.random_bool(0.5));
        let extra = Column { name, data_type: "text".into(), not_null, ..Column::default() };
        let items = facts.relations.iter_mut().filter(|r| r.name.schema == "inventory");
        items.for_each(|r| r.columns.push(extra.clone()));
    }
    if rng.random_bool(0.05) {
        let stock = |name: &str| name.starts_with("stock");
        facts.relations.retain(|r| !stock(&r.name.schema));
        facts.schemas.retain(|s| !stock(&s.name));
    }
}

/// Gives and takes rights: of roles that links may name, and of one that none does.
fn disturb_rights(rng: &mut SmallRng, facts: &mut NodeFacts) {
    let (alice, carol) = (Some("alice".to_owned()), Some("carol".to_owned()));
    for relation in facts.relations.iter_mut().filter(|r| r.server.is_some()) {
        if rng.random_bool(0.1) {
            relation.grants.clear();
        }
        for (role, privilege) in [(&alice, "DELETE"), (&carol, "SELECT")] {
            let give = rng.random_bool(0.1);
            change_grants(&mut relation.grants, role, &[privilege], give);
        }
    }
    for schema in facts.schemas.iter_mut().filter(|schema| schema.comment.is_some()) {
        if rng.random_bool(0.1) {
            schema.grants.clear();
        }
        change_grants(&mut schema.grants, &carol, &["USAGE"], rng.random_bool(0.1));
    }
}

/// Carol is given rights on all foreign schemas, then the links name other roles, and in the same
/// change nodes get other passwords.
pub fn change_roles(rng: &mut SmallRng, sim: &mut Sim) {
    let carol = Some("carol".to_owned());
    for facts in sim.nodes.values_mut() {
        let foreign = facts.relations.iter_mut().filter(|r| r.server.is_some());
        foreign.for_each(|r| change_grants(&mut r.grants, &carol, &["SELECT", "DELETE"], true));
        let ours = facts.schemas.iter_mut().filter(|schema| schema.comment.is_some());
        ours.for_each(|schema| change_grants(&mut schema.grants, &carol, &["USAGE"], true));
    }
    for link in &mut sim.registry.links {
        if let Spec::Foreign(spec) = &mut link.spec {
            let new = foreign(rng, link.id);
            (spec.roles, spec.public, spec.writable) = (new.roles, new.public, new.writable);
        }
    }
    readdress(rng, &mut sim.registry);
}

/// Renames servers and schemas, now and then to what another link wants its own to be called.
fn rename_foreign(rng: &mut SmallRng, facts: &mut NodeFacts) {
    fn ours<T: Marked>(rng: &mut SmallRng, objects: &[T]) -> Vec<String> {
        let mark = |object: &&T| object.comment().is_some_and(|c| Mark::parse(c).is_some());
        let names = objects.iter().filter(mark).map(|object| object.name().to_owned());
        names.filter(|_| rng.random_bool(0.15)).collect()
    }
    // Postgres refuses a name that is taken, so it stays as it is.
    for name in ours(rng, &facts.servers) {
        let _ = rename_server(facts, &name, &any_name(rng, "link", &name));
    }
    for name in ours(rng, &facts.schemas) {
        let _ = rename_schema(facts, &name, &any_name(rng, "stock", &name));
    }
}

fn any_name(rng: &mut SmallRng, prefix: &str, old: &str) -> String {
    if rng.random_bool(0.3) {
        format!("{prefix}{}", rng.random_range(1..12))
    } else {
        format!("{old}_old")
    }
}

/// Objects of others, some under names that links want.
pub fn strangers(rng: &mut SmallRng, sim: &mut Sim) {
    for facts in sim.nodes.values_mut().filter(|facts| !facts.in_recovery) {
        let name = |rng: &mut SmallRng| format!("link{}", rng.random_range(1..12));
        if rng.random_bool(0.15) {
            facts.publications.push(Publication {
                name: name(rng),
                options: default_publication_options(),
                ..Publication::default()
            });
        }
        if rng.random_bool(0.15) {
            facts.subscriptions.push(Subscription {
                oid: 7,
                name: name(rng),
                options: default_subscription_options(facts.version),
                ..Subscription::default()
            });
        }
        if rng.random_bool(0.1) {
            facts.fdw_comment = Some("somebody's".into());
            facts.servers.push(Server { name: name(rng), ..Server::default() });
        }
        if rng.random_bool(0.1) {
            let (name, kind) = ("somebody_s".into(), "logical".into());
            facts.slots.push(Slot { name, kind, ..Slot::default() });
        }
        if rng.random_bool(0.1) {
            let schema = format!("stock{}", rng.random_range(1..7));
            facts.schemas.push(plain_schema(&schema));
            if rng.random_bool(0.5) {
                facts.relations.push(table(rng, &schema, "z"));
            }
        }
    }
}
