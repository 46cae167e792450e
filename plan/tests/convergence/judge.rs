//! What is right, ours or not ours, judged from the servers alone, without the planner.

use crate::interpret::{change_grants, default_publication_options, default_subscription_options};
use crate::sim::{Outcome, Sim, ensure};
use nodes_plan::conninfo::{Conninfo, passfile_line};
use nodes_plan::desired::*;
use nodes_plan::name::{Mark, TableName};
use nodes_plan::observed::*;
use nodes_plan::standby_names::StandbyNames;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a link's objects stand as they should.
pub fn is_right(sim: &Sim, link: &Link) -> Outcome {
    match &link.spec {
        Spec::Standby(spec) => standby_is_right(sim, link, spec),
        Spec::Subscription(spec) => subscription_is_right(sim, link, spec),
        Spec::Foreign(spec) => foreign_is_right(sim, link, spec),
    }
}

fn standby_is_right(sim: &Sim, link: &Link, spec: &StandbySpec) -> Outcome {
    let slot = sim.registry.mark(link).slot_name();
    let (source, target) = (sim.facts(link.from), sim.facts(link.to));
    let from = &sim.registry.nodes[&link.from].conninfo;
    ensure(source.slot(&slot).is_some() == spec.slot, "slot")?;
    siblings_keep(sim, link, spec, &slot)?;
    let subscribed = |l: &Link| {
        let reads = matches!(l.spec, Spec::Subscription(_)) && l.from == link.from;
        reads && l.state != LinkState::Removing
    };
    let is_primary = group(sim, link.from).first() == Some(&link.from) && !source.in_recovery;
    let keeps = is_primary && sim.registry.links.iter().any(subscribed);
    let logical = target.setting("wal_level") == Some("logical");
    if source.version >= 170_000 && source.superuser && keeps {
        let named = source.setting("synchronized_standby_slots").unwrap_or_default();
        ensure(named.contains(&slot) == spec.slot, "synchronized_standby_slots")?;
        let copies = target.setting("sync_replication_slots") == Some("on");
        ensure(copies || !(spec.slot && logical), "sync_replication_slots")?;
    }
    if is_primary && source.superuser {
        let names = source.setting(NAMES).and_then(StandbyNames::parse);
        let listed = names.is_some_and(|names| names.lists(&slot));
        ensure(listed == spec.synchronous || is_their_choice(&source), NAMES)?;
    }
    let used = target.setting("primary_slot_name") == Some(slot.as_str());
    ensure(used == spec.slot, "primary_slot_name")?;
    let conninfo = target.primary_conninfo.as_ref().ok_or("primary_conninfo")?;
    ensure(target.primary_conninfo_file.as_ref() == Some(conninfo), "file")?;
    for key in ["host", "port", "user"] {
        ensure(conninfo.get(key) == from.get(key), key)?;
    }
    ensure(conninfo.get("password").is_none(), "password in primary_conninfo")?;
    ensure(conninfo.get("application_name") == Some(slot.as_str()), "application_name")?;
    ensure(conninfo.get("passfile").is_some() == from.password().is_some(), "passfile option")?;
    ensure(!target.passfile_unfinished, "second passfile")?;
    ensure(target.passfile == from.password().map(|p| passfile_line(&p)), "passfile")
}

/// Whether the other members keep a slot for the standby, and only where one moves it on.
fn siblings_keep(sim: &Sim, link: &Link, spec: &StandbySpec, slot: &str) -> Outcome {
    let group = group(sim, link.from);
    for member in group.iter().filter(|id| ![link.from, link.to].contains(id)) {
        let facts = sim.facts(*member);
        let is_primary = group.first() == Some(member);
        let same = facts.system_identifier == sim.facts(group[0]).system_identifier;
        let is_there = facts.slot(slot).is_some();
        if !(sim.registry.is_watched && spec.slot) {
            let kept = !facts.can_replicate || !is_settled(sim, &group);
            ensure(!is_there || kept, "a slot that nobody moves on")?;
        } else if facts.in_recovery != is_primary && same && facts.can_replicate {
            let ample = facts.number("max_replication_slots") >= Some(20);
            ensure(is_there || !ample, "a sibling's slot")?;
        }
    }
    Ok(())
}

/// Whether the registry's primary is the group's, and knows of all that its standbys do.
fn is_settled(sim: &Sim, group: &[NodeId]) -> bool {
    let primary = sim.facts(group[0]);
    let follows = |facts: NodeFacts| facts.in_recovery && facts.timeline <= primary.timeline;
    !primary.in_recovery && group[1..].iter().all(|id| follows(sim.facts(*id)))
}

/// Whether somebody else has said for whom commits wait.
fn is_their_choice(facts: &NodeFacts) -> bool {
    let files = facts.file_settings.as_ref().and_then(|files| files.get(NAMES));
    let values = [facts.setting(NAMES), files.map(String::as_str)].into_iter().flatten();
    let names = values.filter_map(StandbyNames::parse).flat_map(|names| names.names);
    names.into_iter().any(|name| !name.starts_with("nodes_3f2504e0_"))
}

const NAMES: &str = "synchronous_standby_names";

fn subscription_is_right(sim: &Sim, link: &Link, spec: &SubscriptionSpec) -> Outcome {
    let slot = sim.registry.mark(link).slot_name();
    let (source, target) = (sim.facts(link.from), sim.facts(link.to));
    let publication = source.publication(&link.name).ok_or("publication")?;
    if let Some(tables) = &spec.tables {
        ensure(publication.tables == *tables, "published tables")?;
    }
    ensure(publication.filtered.is_empty(), "row filters and column lists")?;
    ensure(publication.schemas.is_empty() && !publication.all_tables, "unlisted tables")?;
    let with = |mut options: BTreeMap<String, String>, more: BTreeMap<String, String>| {
        options.extend(more);
        options
    };
    let wanted = with(default_publication_options(), spec.publication_options());
    ensure(publication.options == wanted, "publication's options")?;
    ensure(source.slot(&slot).is_some(), "slot")?;
    let found = target.subscription(&link.name).ok_or("subscription")?;
    ensure(found.slot.as_ref() == Some(&slot), "subscription's slot")?;
    ensure(found.publications == BTreeSet::from([link.name.clone()]), "publications")?;
    let active = link.state == LinkState::Active;
    ensure(found.enabled == active, "enabled")?;
    ensure(!active || found.table_names() == publication.tables, "subscribed tables")?;
    let mut options = default_subscription_options(target.version);
    if source.version >= 170_000 && has_slots(sim, link.from) {
        options.entry("failover".into()).and_modify(|value| *value = "true".into());
        let kept = source.slot(&slot).is_some_and(|slot| slot.failover);
        ensure(kept || target.version < 170_000, "failover slot")?;
    } else if let Some(found) = found.options.get("failover") {
        // Nobody is there to keep the slot: either will do.
        options.insert("failover".into(), found.clone());
    }
    let wanted = with(options, spec.subscription_options());
    ensure(found.options == wanted, "subscription's options")?;
    let conninfo = found.conninfo.as_ref().ok_or("conninfo")?;
    let from = &sim.registry.nodes[&link.from].conninfo;
    ensure(conninfo.password() == from.password(), "password")?;
    reaches_the_group(sim, link, |key| conninfo.get(key))
}

/// Whether the hosts are those of all members of the group of `from` that are the same servers and
/// reached in the same way; those that are dead may be listed or not.
fn reaches_the_group<'a>(
    sim: &Sim,
    link: &Link,
    option: impl Fn(&str) -> Option<&'a str>,
) -> Outcome {
    let writable = !matches!(&link.spec, Spec::Foreign(spec) if !spec.writable);
    let members = group(sim, link.from);
    let alone = writable && members.first() != Some(&link.from);
    let node = |id: &NodeId| &sim.registry.nodes[id];
    let rest = |id: &NodeId| node(id).conninfo.clone().without("host");
    let same = |id: &NodeId| {
        let system = |id: &NodeId| &sim.nodes[id].system_identifier;
        system(id) == system(&link.from) && rest(id) == rest(&link.from) && *id != link.to
    };
    let host = |id: &NodeId| node(id).conninfo.get("host").unwrap_or_default();
    let heard = |id: &NodeId| !sim.down.contains(id);
    let others = members.iter().filter(|id| **id != link.from && same(id) && !alone);
    let (must, may): (Vec<&NodeId>, Vec<&NodeId>) =
        others.partition(|id| heard(id) && heard(&link.from));
    let listed: Vec<&str> = option("host").unwrap_or_default().split(',').collect();
    ensure(listed.first() == Some(&host(&link.from)), "the first host")?;
    ensure(must.iter().all(|id| listed.contains(&host(id))), "a member is not listed")?;
    let known_host = |found: &&str| must.iter().chain(&may).any(|id| host(id) == *found);
    ensure(listed.iter().skip(1).all(known_host), "a host of nobody")?;
    let attribute = match listed.len() {
        1 => None,
        _ if writable => Some("read-write"),
        _ => Some("prefer-standby"),
    };
    ensure(option("target_session_attrs") == attribute, "target_session_attrs")
}

/// Whether a primary has standbys with slots, which could keep a subscription's.
fn has_slots(sim: &Sim, node: NodeId) -> bool {
    let mut links = sim.registry.links.iter().filter(|l| l.state != LinkState::Removing);
    let slot = |l: &Link| matches!(&l.spec, Spec::Standby(spec) if spec.slot);
    group(sim, node).first() == Some(&node) && links.any(|l| l.from == node && slot(l))
}

/// The members of a node's group by the registry's links, the primary first.
fn group(sim: &Sim, node: NodeId) -> Vec<NodeId> {
    let links = || {
        let active = sim.registry.links.iter().filter(|l| l.state != LinkState::Removing);
        active.filter(|l| matches!(l.spec, Spec::Standby(_)))
    };
    let mut primary = node;
    for _ in 0..sim.nodes.len() {
        primary = links().find(|l| l.to == primary).map_or(primary, |l| l.from);
    }
    let mut members = vec![primary];
    for _ in 0..sim.nodes.len() {
        let next = links().filter(|l| members.contains(&l.from) && !members.contains(&l.to));
        let next: Vec<NodeId> = next.map(|l| l.to).collect();
        members.extend(next);
    }
    members
}

fn foreign_is_right(sim: &Sim, link: &Link, spec: &ForeignSpec) -> Outcome {
    let (source, target) = (sim.facts(link.from), sim.facts(link.to));
    let from = &sim.registry.nodes[&link.from].conninfo;
    let server = target.server(&link.name).ok_or("server")?;
    reaches_the_group(sim, link, |key| server.options.get(key).map(String::as_str))?;
    ensure(!server.options.contains_key("password"), "password of the server")?;
    let read_only = server.options.get("updatable").is_some_and(|value| value == "false");
    ensure(read_only != spec.writable, "updatable")?;
    let roles = mapped_roles(&target, spec);
    for role in &roles {
        let mapping = server.mappings.iter().find(|m| m.role == *role).ok_or("mapping")?;
        let password = mapping.options.as_ref().and_then(Conninfo::password);
        ensure(password == from.password(), "password of a mapping")?;
    }
    tables_are_right(&source, &target, spec)?;
    let mut grantees = roles.iter().filter(|role| **role != Some(target.role.clone()));
    grantees.try_for_each(|role| rights_are_right(&target, spec, role))
}

/// The tables that a foreign link shows.
fn shown<'a>(target: &'a NodeFacts, spec: &'a ForeignSpec) -> impl Iterator<Item = &'a Relation> {
    let ours = |r: &&Relation| r.remote.as_ref().is_some_and(|t| t.schema == spec.remote_schema);
    target.relations_in(&spec.local_schema).filter(ours)
}

fn rights_are_right(target: &NodeFacts, spec: &ForeignSpec, role: &Option<String>) -> Outcome {
    let has = |grants: &BTreeSet<Grant>, privilege: &str| {
        grants.contains(&Grant { role: role.clone(), privilege: privilege.to_owned() })
    };
    let schema = target.schema(&spec.local_schema).ok_or("schema")?;
    ensure(has(&schema.grants, "USAGE"), "rights on the schema")?;
    for table in shown(target, spec) {
        ensure(has(&table.grants, "SELECT"), "right to read")?;
        for right in ["INSERT", "UPDATE", "DELETE"] {
            ensure(has(&table.grants, right) == spec.writable, "right to write")?;
        }
    }
    Ok(())
}

/// Who may connect by a foreign link: whom it names, and the role that made it.
fn mapped_roles(target: &NodeFacts, spec: &ForeignSpec) -> BTreeSet<Option<String>> {
    let mut roles: BTreeSet<Option<String>> = spec.roles.iter().cloned().map(Some).collect();
    roles.insert(Some(target.role.clone()));
    roles.extend(spec.public.then_some(None));
    roles
}

/// Whether exactly the roles that the link names have mappings and rights, and carol what
/// somebody gave her.
pub fn rights_are_exact(sim: &Sim, link: &Link, spec: &ForeignSpec) -> Outcome {
    let target = sim.facts(link.to);
    let server = target.server(&link.name).ok_or("server")?;
    let mapped = server.mappings.iter().map(|mapping| mapping.role.clone()).collect();
    ensure(mapped_roles(&target, spec) == mapped, "mappings")?;
    for table in shown(&target, spec) {
        let rights: &[&str] =
            if spec.writable { &["SELECT", "INSERT", "UPDATE", "DELETE"] } else { &["SELECT"] };
        let mut wanted = BTreeSet::new();
        for role in spec.roles.iter().cloned().map(Some).chain(spec.public.then_some(None)) {
            change_grants(&mut wanted, &role, rights, true);
        }
        change_grants(&mut wanted, &Some("carol".into()), &["SELECT", "DELETE"], true);
        ensure(table.grants == wanted, "rights on a table")?;
    }
    Ok(())
}

fn tables_are_right(source: &NodeFacts, target: &NodeFacts, spec: &ForeignSpec) -> Outcome {
    let columns = |r: &Relation| -> BTreeMap<String, (String, bool)> {
        r.columns.iter().map(|c| (c.name.clone(), (c.data_type.clone(), c.not_null))).collect()
    };
    let listed = |r: &&Relation| spec.tables.as_ref().is_none_or(|t| t.contains(&r.name.name));
    let wanted: Vec<&Relation> = source.relations_in(&spec.remote_schema).filter(listed).collect();
    for here in shown(target, spec) {
        let found = wanted.iter().any(|there| here.remote.as_ref() == Some(&there.name));
        ensure(found, "a table that should not be shown")?;
    }
    for there in wanted {
        let here = TableName::new(&spec.local_schema, &there.name.name);
        let here = target.relation(&here).ok_or("foreign table")?;
        if shown(target, spec).all(|ours| ours.name != here.name) {
            // Somebody else's, in the way.
            continue;
        }
        ensure(here.remote.as_ref() == Some(&there.name), "remote table")?;
        ensure(columns(here) == columns(there), "columns")?;
        ensure(here.options.is_empty(), "options of a foreign table")?;
    }
    Ok(())
}

/// Everything on the servers that bears this registry's mark, in words. What a standby shows
/// is its primary's.
pub fn marked(sim: &Sim) -> Vec<String> {
    let ours =
        |comment: &Option<String>| comment.as_ref().is_some_and(|c| c.contains(&sim.registry.id));
    let prefix = format!("nodes_{}_", &sim.registry.id[..8]);
    let mut found = Vec::new();
    for (id, facts) in &sim.nodes {
        let mut say = |what: &str, name: &str| found.push(format!("{what} {name} on {id}"));
        let slots = facts.slots.iter().map(|s| &s.name);
        slots
            .filter(|s| s.starts_with(&prefix) || s.contains("_sync_"))
            .for_each(|s| say("slot", s));
        facts
            .publications
            .iter()
            .filter(|p| ours(&p.comment))
            .for_each(|p| say("publication", &p.name));
        let subscriptions = facts.subscriptions.iter().filter(|s| ours(&s.comment));
        subscriptions.for_each(|s| say("subscription", &s.name));
        facts.servers.iter().filter(|s| ours(&s.comment)).for_each(|s| say("server", &s.name));
        facts.schemas.iter().filter(|s| ours(&s.comment)).for_each(|s| say("schema", &s.name));
        if ours(&facts.fdw_comment) {
            say("extension", "postgres_fdw");
        }
        if facts.passfile.is_some() || facts.passfile_unfinished {
            say("file", "pg_nodes.passfile");
        }
        for conninfo in [&facts.primary_conninfo, &facts.primary_conninfo_file] {
            let app = conninfo.as_ref().and_then(|c| c.get("application_name"));
            app.filter(|app| app.starts_with(&prefix)).iter().for_each(|app| say("conninfo", app));
        }
        let slot = facts.setting("primary_slot_name").filter(|slot| slot.starts_with(&prefix));
        slot.iter().for_each(|slot| say("setting", slot));
        let named = facts.setting("synchronized_standby_slots").unwrap_or_default();
        named.split(", ").filter(|s| s.starts_with(&prefix)).for_each(|s| say("setting", s));
        let files = facts.file_settings.as_ref().and_then(|files| files.get(NAMES));
        let values = [facts.setting(NAMES), files.map(String::as_str)].into_iter().flatten();
        values.filter(|value| value.contains(&prefix)).for_each(|value| say("setting", value));
    }
    found
}

/// Everything that does not bear our mark, in words.
pub fn not_ours(sim: &Sim) -> Vec<String> {
    let mut found = Vec::new();
    let mark = Mark { registry: sim.registry.id.clone(), link: 0 };
    let foreign = |comment: &Option<String>| owner(comment.as_deref(), &mark) == Owner::Foreign;
    for (id, facts) in &sim.nodes {
        for publication in facts.publications.iter().filter(|p| foreign(&p.comment)) {
            found.push(format!("{id} {publication:?}"));
        }
        for subscription in facts.subscriptions.iter().filter(|s| foreign(&s.comment)) {
            found.push(format!("{id} {subscription:?}"));
        }
        for server in facts.servers.iter().filter(|s| foreign(&s.comment)) {
            found.push(format!("{id} {server:?}"));
        }
        if is_their_choice(facts) {
            found.push(format!("{id} {:?}", facts.setting(NAMES)));
        }
        let ours = |slot: &Slot| slot.name.starts_with("nodes_3f2504e0_");
        for slot in facts.slots.iter().filter(|s| !ours(s) && !s.name.contains("_sync_")) {
            found.push(format!("{id} {slot:?}"));
        }
        for schema in facts.schemas.iter().filter(|s| foreign(&s.comment)) {
            // Roles of a link get rights on the schema that they find its tables in.
            found.push(format!("{id} schema {} {:?}", schema.name, schema.comment));
        }
        for relation in facts.relations.iter().filter(|r| is_others(facts, r, &foreign)) {
            // Rows may come, and its schema and its server may get their names back: the table is
            // the same.
            let (name, server) = (TableName::new("", &relation.name.name), None);
            let relation = Relation { filled: false, name, server, ..relation.clone() };
            found.push(format!("{id} {relation:?}"));
        }
    }
    found
}

/// Tables, and foreign tables that are on somebody else's server or in a place of their own.
fn is_others(
    facts: &NodeFacts,
    relation: &Relation,
    foreign: &impl Fn(&Option<String>) -> bool,
) -> bool {
    let server = relation.server.as_ref().and_then(|name| facts.server(name));
    server.is_none_or(|server| foreign(&server.comment))
        || relation.name.schema == "mine"
        || relation.remote.as_ref().is_some_and(|remote| remote.schema == "elsewhere")
}
