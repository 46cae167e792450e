//! The properties of the planner, over random registries and servers: it converges from any
//! partial state, a crash changes nothing about the end, it touches only what is its own, and
//! what it does not know it does not destroy.
//!
//! `SEEDS=100000` runs more, `SEED=17` one. The failing seed is printed; it becomes a test of
//! its own below.

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod interpret;
mod judge;
mod sim;

use generate::{afflict, change_roles, disturb, evolve, rng, strangers};
use judge::{is_right, marked, not_ours, rights_are_exact};
use nodes_plan::desired::{LinkId, LinkState, NodeId, Spec};
use nodes_plan::name::Mark;
use nodes_plan::plan;
use nodes_plan::standby_names::StandbyNames;
use nodes_plan::step::{Operation, Phase, Plan, ProblemKind, Step};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use sim::{End, Sim};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many rounds as `nodes.apply()` allows itself (src/apply.rs).
const MAX_ROUNDS: usize = 10;

fn for_every_seed(property: fn(&mut SmallRng)) {
    common::for_every_seed(10_000, property);
}

/// A world in which an apply of an earlier registry got some way, then people did things by
/// hand, and now want something else.
fn worn_world(rng: &mut SmallRng) -> Sim {
    let mut sim = generate::sim(rng);
    strangers(rng, &mut sim);
    let steps = rng.random_range(0..40);
    run_steps(&mut sim, steps);
    disturb(rng, &mut sim);
    evolve(rng, &mut sim);
    sim
}

/// The same, and things go wrong too: rights are missing, servers are read-only, a standby
/// took over.
fn hard_world(rng: &mut SmallRng) -> Sim {
    let mut sim = worn_world(rng);
    afflict(rng, &mut sim);
    sim
}

/// Plans and runs until so many steps have been run, or nothing is left to do.
fn run_steps(sim: &mut Sim, limit: usize) {
    let mut left = limit;
    while left > 0 {
        sim.tick();
        let todo = plan(&sim.registry, &sim.world());
        if todo.steps.is_empty() {
            return;
        }
        for step in todo.steps.iter().take(left) {
            run(sim, step);
        }
        left = left.saturating_sub(todo.steps.len());
    }
}

/// Plans and runs until nothing is left to do.
fn run_all(sim: &mut Sim) -> Plan {
    for _ in 0..MAX_ROUNDS {
        sim.tick();
        let todo = plan(&sim.registry, &sim.world());
        if todo.steps.is_empty() {
            return todo;
        }
        todo.steps.iter().for_each(|step| run(sim, step));
    }
    panic!("no end after {MAX_ROUNDS} rounds: {:#?}", plan(&sim.registry, &sim.world()).steps);
}

#[track_caller]
fn run(sim: &mut Sim, step: &Step) {
    if let Err(why) = sim.run(step) {
        panic!(
            "{} {:?}: {:?} on node {:?}: {why}",
            step.rule, step.link, step.operation, step.node
        );
    }
}

/// Links that cannot be made right now, and say why.
fn stuck(plan: &Plan) -> BTreeSet<LinkId> {
    let stuck = plan.problems.iter().filter(|p| p.kind != ProblemKind::Warning);
    stuck.filter_map(|problem| problem.link).collect()
}

/// Links found right; a property that judges nothing proves nothing.
static JUDGED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn every_world_converges_and_what_is_planned_is_right() {
    for_every_seed(|rng| {
        let mut sim = hard_world(rng);
        let end = run_all(&mut sim);
        let stuck = stuck(&end);
        for link in sim.registry.links.iter().filter(|link| !stuck.contains(&link.id)) {
            assert_ne!(link.state, LinkState::Removing, "link {} was not forgotten", link.id);
            if let Err(what) = is_right(&sim, link) {
                panic!("link {} is not right: {what}\n{link:#?}\n{sim:#?}", link.id);
            }
            JUDGED.fetch_add(1, Ordering::Relaxed);
        }
    });
    let judged = JUDGED.load(Ordering::Relaxed);
    println!("{judged} links were made and found right");
    assert!(judged > 0, "no link was judged");
}

/// Links that would copy into a table with rows, which is refused. The rows of a table that
/// another subscription fills are not looked at: where that one lets go of the table, what to
/// copy into it is refused or not by whether it was made before. That cannot be undone. Nor can
/// what a removed standby has lost before a reload, for something else, put a list in force by
/// which commits wait for it.
fn undecided(plan: &Plan) -> impl Iterator<Item = LinkId> {
    let refused = plan.problems.iter().filter(|problem| matches!(problem.rule, "SU18" | "ST35"));
    refused.filter_map(|problem| problem.link)
}

/// Fails with the lines in which two ends differ.
#[track_caller]
fn assert_same_end(left: &Sim, right: &Sim, what: &str) {
    assert_same(left.end(), right.end(), what);
}

#[track_caller]
fn assert_same(left: End, right: End, what: &str) {
    if left == right {
        return;
    }
    let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
    let only_in = |text: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        text.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    let (here, there) = (only_in(&left, &right), only_in(&right, &left));
    panic!("{what}: only here {here:#?}, only there {there:#?}");
}

#[test]
fn a_crash_after_any_step_leads_to_the_same_end() {
    for_every_seed(|rng| {
        let start = hard_world(rng);
        let mut undisturbed = start.clone();
        let end = run_all(&mut undisturbed);
        let steps = plan(&start.registry, &start.world()).steps.len();
        let crashes: Vec<usize> =
            if steps == 0 { vec![] } else { vec![1, rng.random_range(1..=steps), steps] };
        for crash in crashes {
            let mut sim = start.clone();
            let todo = plan(&sim.registry, &sim.world());
            todo.steps.iter().take(crash).for_each(|step| run(&mut sim, step));
            let end_after = run_all(&mut sim);
            let except: BTreeSet<LinkId> = undecided(&end).chain(undecided(&end_after)).collect();
            let (left, right) = (sim.end_without(&except), undisturbed.end_without(&except));
            assert_same(left, right, &format!("crash after step {crash} of {steps}"));
        }
    });
}

/// The steps of one phase as the executor may run them: each link's in order, links in any.
fn shuffled(rng: &mut SmallRng, steps: &[Step]) -> Vec<Step> {
    let mut all = Vec::new();
    for phase in [Phase::Prepare, Phase::Link, Phase::Detach, Phase::Finish] {
        let of_phase: Vec<&Step> = steps.iter().filter(|step| step.phase == phase).collect();
        let mut links: Vec<Option<LinkId>> = of_phase.iter().map(|step| step.link).collect();
        let mut queues: BTreeMap<Option<LinkId>, Vec<&Step>> = BTreeMap::new();
        for step in of_phase.into_iter().rev() {
            queues.entry(step.link).or_default().push(step);
        }
        if phase != Phase::Finish {
            links.shuffle(rng);
        }
        let next = links.iter().filter_map(|link| queues.get_mut(link)?.pop().cloned());
        all.extend(next);
    }
    all
}

#[test]
fn links_do_not_wait_for_each_other() {
    for_every_seed(|rng| {
        let start = hard_world(rng);
        let mut in_order = start.clone();
        run_all(&mut in_order);
        let mut sim = start;
        let todo = plan(&sim.registry, &sim.world());
        shuffled(rng, &todo.steps).iter().for_each(|step| run(&mut sim, step));
        run_all(&mut sim);
        assert_same_end(&sim, &in_order, "in another order");
    });
}

#[test]
fn the_same_input_gives_the_same_plan_and_no_step_comes_twice() {
    for_every_seed(|rng| {
        let mut sim = hard_world(rng);
        let todo = plan(&sim.registry, &sim.world());
        assert_eq!(todo, plan(&sim.registry, &sim.world()));
        todo.steps.iter().for_each(|step| run(&mut sim, step));
        if rng.random_bool(0.5) {
            sim.tick();
        }
        // What another setting needs anew is another reload.
        let again = plan(&sim.registry, &sim.world()).steps;
        let reloads = |step: &Step| step.operation == Operation::Reload;
        for step in again.iter().filter(|step| !reloads(step) || again.iter().all(reloads)) {
            assert!(!todo.steps.contains(step), "planned again after it was done: {step:?}");
        }
    });
}

#[test]
fn what_others_made_is_never_touched() {
    for_every_seed(|rng| {
        let mut sim = hard_world(rng);
        let before = not_ours(&sim);
        run_all(&mut sim);
        let after: BTreeSet<String> = not_ours(&sim).into_iter().collect();
        for thing in before {
            assert!(after.contains(&thing), "touched: {thing}");
        }
    });
}

/// Who may use a foreign schema is whom its link names, whomever it named before.
#[test]
fn rights_follow_the_link() {
    for_every_seed(|rng| {
        let mut sim = generate::sim(rng);
        let mut stuck = stuck(&run_all(&mut sim));
        change_roles(rng, &mut sim);
        run_steps(&mut sim, rng.random_range(0..12));
        stuck.extend(self::stuck(&run_all(&mut sim)));
        for link in sim.registry.links.iter().filter(|link| !stuck.contains(&link.id)) {
            let Spec::Foreign(spec) = &link.spec else { continue };
            if let Err(what) = rights_are_exact(&sim, link, spec) {
                panic!("link {}: {what}\n{link:#?}\n{sim:#?}", link.id);
            }
        }
    });
}

/// Operations after which something is gone.
fn destroys(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::DropSlot { .. }
            | Operation::RemovePassfile
            | Operation::AlterSystem {
                setting: "primary_conninfo" | "primary_slot_name",
                value: None
            }
            | Operation::DropPublicationTables { .. }
            | Operation::DropPublicationSchemas { .. }
            | Operation::DropPublication { .. }
            | Operation::DropSubscription { .. }
            | Operation::DropFdwExtension
            | Operation::DropServer { .. }
            | Operation::DropMapping { .. }
            | Operation::RevokeUsage { .. }
            | Operation::RevokeTables { .. }
            | Operation::DropSchema { .. }
            | Operation::DropForeignTable { .. }
    )
}

fn any_node(rng: &mut SmallRng, sim: &Sim) -> NodeId {
    let ids: Vec<NodeId> = sim.nodes.keys().copied().collect();
    *ids.choose(rng).expect("there are nodes")
}

#[test]
fn what_is_unknown_destroys_nothing() {
    for_every_seed(|rng| {
        let mut sim = hard_world(rng);
        let silent = any_node(rng, &sim);
        if rng.random_bool(0.5) {
            sim.down.insert(silent);
        } else {
            sim.stale.insert(silent);
        }
        for step in plan(&sim.registry, &sim.world()).steps {
            assert_ne!(step.node, Some(silent), "a step on a silent node: {step:?}");
            let link = step.link.and_then(|link| sim.registry.link(link));
            let Some(link) = link else { continue };
            let kept = link.state != LinkState::Removing;
            let concerned = link.from == silent || link.to == silent;
            assert!(!(kept && concerned && destroys(&step.operation)), "{step:?}");
            run(&mut sim, &step);
        }
        run_all(&mut sim);
    });
}

/// The links whose marks and slots are on the servers.
fn links_of_marks(sim: &Sim) -> BTreeSet<LinkId> {
    let mut links = BTreeSet::new();
    for facts in sim.nodes.values() {
        let comments = (facts.publications.iter().map(|p| &p.comment))
            .chain(facts.subscriptions.iter().map(|s| &s.comment))
            .chain(facts.servers.iter().map(|s| &s.comment))
            .chain(facts.schemas.iter().map(|s| &s.comment));
        let marks = comments.flatten().filter_map(|comment| Mark::parse(comment));
        links.extend(marks.filter(|mark| mark.registry == sim.registry.id).map(|mark| mark.link));
        let of_slot = |name: &str| name.strip_prefix("nodes_3f2504e0_")?.parse::<LinkId>().ok();
        links.extend(facts.slots.iter().filter_map(|slot| of_slot(&slot.name)));
        // On a server in recovery nobody waits: its list is put right when it is settled what the
        // server is.
        let names = facts.setting("synchronous_standby_names").filter(|_| !facts.in_recovery);
        let names = names.and_then(StandbyNames::parse).map_or(vec![], |names| names.names);
        links.extend(names.iter().filter_map(|name| of_slot(name)));
        // Who is no superuser cannot see the settings of a standby without a slot.
        let readable = [&facts.primary_conninfo, &facts.primary_conninfo_file];
        for conninfo in readable.into_iter().filter(|_| facts.superuser) {
            let app = conninfo.as_ref().and_then(|c| c.get("application_name"));
            links.extend(app.and_then(of_slot));
        }
    }
    links
}

#[test]
fn what_is_forgotten_has_left_nothing() {
    for_every_seed(|rng| {
        let mut sim = hard_world(rng);
        for _ in 0..MAX_ROUNDS {
            if rng.random_bool(0.5) {
                sim.tick();
            }
            let silent = rng.random_bool(0.3).then(|| any_node(rng, &sim));
            let came = silent.is_some_and(|node| sim.down.insert(node));
            let steps = plan(&sim.registry, &sim.world()).steps;
            let crash = rng.random_range(0..=steps.len());
            for step in steps.iter().take(crash) {
                run(&mut sim, step);
                let known: BTreeSet<LinkId> = sim.registry.links.iter().map(|l| l.id).collect();
                let lost: Vec<LinkId> = links_of_marks(&sim).difference(&known).copied().collect();
                assert!(
                    lost.is_empty(),
                    "forgotten with {step:?}: {lost:?} of {:#?}",
                    marked(&sim)
                );
            }
            if let Some(node) = silent.filter(|_| came) {
                sim.down.remove(&node);
            }
        }
        let extension = nodes_plan::name::extension_comment(&sim.registry.id);
        for (id, facts) in &sim.nodes {
            let ours = facts.fdw_comment.as_ref() == Some(&extension);
            assert!(!ours || sim.registry.nodes.contains_key(id), "extension left on {id}");
        }
    });
}

fn remove_everything(sim: &mut Sim) {
    for node in sim.registry.nodes.values_mut() {
        node.removing = true;
    }
    for link in &mut sim.registry.links {
        link.state = LinkState::Removing;
        link.keep_data = false;
    }
}

#[test]
fn a_teardown_leaves_nothing_even_when_a_node_was_dead_meanwhile() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        remove_everything(&mut sim);
        if rng.random_bool(0.5) {
            let dead = any_node(rng, &sim);
            sim.down.insert(dead);
            run_all(&mut sim);
            sim.down.clear();
        }
        run_all(&mut sim);
        assert_eq!(marked(&sim), [""; 0]);
        assert!(sim.registry.links.is_empty(), "links left: {:#?}", sim.registry.links);
        assert!(sim.registry.nodes.is_empty(), "nodes left");
    });
}

/// Whether a person has renamed a server or schema of ours.
fn is_renamed(sim: &Sim) -> bool {
    sim.registry.links.iter().any(|link| {
        let mark = sim.registry.mark(link);
        let ours = |comment: &Option<String>| comment.as_deref().is_some_and(|c| mark.is(c));
        let servers = &sim.nodes[&link.to].servers;
        servers.iter().any(|server| ours(&server.comment) && server.name != link.name)
    })
}

/// Properties that hold for want of cases prove nothing.
#[test]
fn worlds_are_as_varied_as_the_properties_need() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..1000 {
        let sim = hard_world(&mut rng(seed));
        let mut count = |what, found: bool| *seen.entry(what).or_default() += usize::from(found);
        let links = &sim.registry.links;
        let removing = |l: &&nodes_plan::desired::Link| l.state == LinkState::Removing;
        count("removing", links.iter().any(|l| removing(&l)));
        count("paused", links.iter().any(|l| l.state == LinkState::Paused));
        for kind in ["standby", "subscription", "foreign"] {
            count(kind, links.iter().any(|l| l.spec.kind() == kind));
        }
        let again = |l: &nodes_plan::desired::Link| {
            links.iter().filter(removing).any(|old| old.name == l.name && old.id != l.id)
        };
        count("successors", links.iter().any(again));
        let standby = |l: &nodes_plan::desired::Link| matches!(l.spec, Spec::Standby(_));
        count("standbys moved", links.iter().any(|l| again(l) && standby(l)));
        count("made", !links_of_marks(&sim).is_empty());
        let servers = sim.nodes.values().flat_map(|facts| &facts.servers);
        let hosts = |server: &nodes_plan::observed::Server| server.options.get("host").cloned();
        count("groups", servers.filter_map(hosts).any(|hosts| hosts.contains(',')));
        count("renamed", is_renamed(&sim));
        count("dead", !sim.down.is_empty());
        let refused = plan(&sim.registry, &sim.world()).problems;
        for rule in ["ST05", "ST06", "SU06", "SU07"] {
            count(rule, refused.iter().any(|problem| problem.rule == rule));
        }
        let synchronous = |facts: &nodes_plan::observed::NodeFacts| {
            let names = facts.setting("synchronous_standby_names");
            names.is_some_and(|names| names.contains("nodes_3f2504e0_"))
        };
        count("synchronous", sim.nodes.values().any(synchronous));
        for rule in ["RG09", "RG11"] {
            count(rule, refused.iter().any(|problem| problem.rule == rule));
        }
        count("without rights", sim.nodes.values().any(|f| !f.superuser));
    }
    println!("{seen:#?}");
    assert!(seen.values().all(|count| *count > 5), "hardly ever seen: {seen:#?}");
}
