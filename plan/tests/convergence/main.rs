//! The properties of the planner, over random registries and servers: it converges from any
//! partial state, a crash changes nothing about the end, it touches only what is its own, and
//! what it does not know it does not destroy.
//!
//! `SEEDS=100000` runs more, `SEED=17` one. The failing seed is printed; it becomes a test of
//! its own below.

mod generate;
mod sim;

use generate::{disturb, rng, strangers};
use nodes_plan::desired::{LinkId, LinkState};
use nodes_plan::observed::{Owner, owner};
use nodes_plan::plan;
use nodes_plan::step::{Operation, Plan, ProblemKind, Step};
use rand::Rng;
use rand::rngs::SmallRng;
use sim::{Sim, is_right};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_ROUNDS: usize = 8;

/// Runs a property for every seed and names the one that fails.
fn for_every_seed(property: fn(&mut SmallRng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(10_000),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| property(&mut rng(seed)));
        if let Err(panic) = outcome {
            eprintln!("failing seed: SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A world part of which an earlier registry made, with passwords and addresses of its own.
fn worn_world(rng: &mut SmallRng) -> Sim {
    let mut sim = generate::sim(rng);
    strangers(rng, &mut sim);
    let wanted = sim.registry.clone();
    for link in &mut sim.registry.links {
        link.state = LinkState::Active;
    }
    for (id, node) in &mut sim.registry.nodes {
        if rng.random_bool(0.3) {
            node.conninfo = generate::conninfo(rng, *id);
        }
    }
    let steps = rng.random_range(0..40);
    run_steps(&mut sim, Some(steps));
    sim.registry = wanted;
    disturb(rng, &mut sim);
    sim
}

/// Plans and runs until nothing is left to do, or until `limit` steps have been run.
fn run_steps(sim: &mut Sim, limit: Option<usize>) -> Plan {
    let mut left = limit.unwrap_or(usize::MAX);
    for _ in 0..MAX_ROUNDS {
        let todo = plan(&sim.registry, &sim.world());
        if todo.steps.is_empty() {
            return todo;
        }
        for step in &todo.steps {
            if left == 0 {
                return todo;
            }
            left -= 1;
            run(sim, step);
        }
    }
    if limit.is_none() {
        let todo = plan(&sim.registry, &sim.world());
        panic!("no end after {MAX_ROUNDS} rounds: {:#?}", todo.steps);
    }
    plan(&sim.registry, &sim.world())
}

#[track_caller]
fn run(sim: &mut Sim, step: &Step) {
    if let Err(why) = sim.run(step) {
        panic!("{}: {:?} on node {:?}: {why}", step.rule, step.operation, step.node);
    }
}

fn refused(plan: &Plan) -> BTreeSet<LinkId> {
    let stuck = plan.problems.iter().filter(|p| p.kind != ProblemKind::Warning);
    stuck.filter_map(|problem| problem.link).collect()
}

/// Links found right; a property that judges nothing proves nothing.
static JUDGED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn every_world_converges_and_what_is_planned_is_right() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        let end = run_steps(&mut sim, None);
        let stuck = refused(&end);
        for link in sim.registry.links.iter().filter(|link| !stuck.contains(&link.id)) {
            assert_ne!(link.state, LinkState::Removing, "link {} was not forgotten", link.id);
            if let Err(what) = is_right(&sim, link) {
                panic!("link {} is not right: {what}\n{sim:#?}", link.id);
            }
            JUDGED.fetch_add(1, Ordering::Relaxed);
        }
    });
    let judged = JUDGED.load(Ordering::Relaxed);
    println!("{judged} links were made and found right");
    assert!(judged > 0, "no link was judged");
}

/// The lines in which two ends differ.
fn difference(left: &str, right: &str) -> String {
    let only_in = |text: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        text.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    if left == right {
        return String::new();
    }
    format!("only here: {:#?}, only there: {:#?}", only_in(left, right), only_in(right, left))
}

#[test]
fn a_crash_after_any_step_leads_to_the_same_end() {
    for_every_seed(|rng| {
        let start = worn_world(rng);
        let mut undisturbed = start.clone();
        run_steps(&mut undisturbed, None);
        let steps = plan(&start.registry, &start.world()).steps.len();
        let crashes: Vec<usize> =
            if steps == 0 { vec![] } else { vec![1, rng.random_range(1..=steps), steps] };
        for crash in crashes {
            let mut sim = start.clone();
            run_steps(&mut sim, Some(crash));
            run_steps(&mut sim, None);
            let difference = difference(&sim.normalized(), &undisturbed.normalized());
            assert_eq!(difference, "", "crash after step {crash} of {steps}");
        }
    });
}

#[test]
fn the_same_input_gives_the_same_plan_and_no_step_comes_twice() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        let todo = plan(&sim.registry, &sim.world());
        assert_eq!(todo, plan(&sim.registry, &sim.world()));
        todo.steps.iter().for_each(|step| run(&mut sim, step));
        for step in plan(&sim.registry, &sim.world()).steps {
            assert!(!todo.steps.contains(&step), "planned again after it was done: {step:?}");
        }
    });
}

/// Everything that does not bear our mark, in words.
fn not_ours(sim: &Sim) -> Vec<String> {
    let mut found = Vec::new();
    let ours = |comment: &Option<String>| {
        let mark = |link| nodes_plan::name::Mark { registry: sim.registry.id.clone(), link };
        !matches!(owner(comment.as_deref(), &mark(0)), Owner::Foreign)
    };
    for (id, facts) in &sim.nodes {
        for publication in facts.publications.iter().filter(|p| !ours(&p.comment)) {
            found.push(format!("{id} {publication:?}"));
        }
        for subscription in facts.subscriptions.iter().filter(|s| !ours(&s.comment)) {
            found.push(format!("{id} {subscription:?}"));
        }
        for server in facts.servers.iter().filter(|s| !ours(&s.comment)) {
            found.push(format!("{id} {server:?}"));
        }
        for slot in facts.slots.iter().filter(|s| !s.name.starts_with("nodes_3f2504e0_")) {
            found.push(format!("{id} {slot:?}"));
        }
        for relation in facts.relations.iter().filter(|r| r.kind != "f") {
            found.push(format!("{id} {relation:?}"));
        }
    }
    found
}

#[test]
fn what_others_made_is_never_touched() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        let before = not_ours(&sim);
        run_steps(&mut sim, None);
        let after: BTreeSet<String> = not_ours(&sim).into_iter().collect();
        for thing in before {
            assert!(after.contains(&thing), "touched: {thing}");
        }
    });
}

/// Operations after which something is gone.
fn destroys(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::DropSlot { .. }
            | Operation::RemovePassfile
            | Operation::AlterSystem { value: None, .. }
            | Operation::DropPublicationTables { .. }
            | Operation::DropPublication { .. }
            | Operation::DropSubscription { .. }
            | Operation::DropFdwExtension
            | Operation::DropServer { .. }
            | Operation::DropMapping { .. }
            | Operation::DropSchema { .. }
            | Operation::DropForeignTable { .. }
    )
}

#[test]
fn what_is_unknown_destroys_nothing() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        let ids: Vec<_> = sim.nodes.keys().copied().collect();
        let silent = ids[rng.random_range(0..ids.len())];
        sim.down.insert(silent);
        for step in plan(&sim.registry, &sim.world()).steps {
            assert_ne!(step.node, Some(silent), "a step on a silent node: {step:?}");
            let link = step.link.and_then(|link| sim.registry.link(link));
            let Some(link) = link else { continue };
            let kept = link.state != LinkState::Removing;
            let concerned = link.from == silent || link.to == silent;
            // What the link itself no longer wants does not depend on the silent node.
            let unwanted = matches!(step.rule, "ST24" | "ST25" | "ST22");
            assert!(!(kept && concerned && destroys(&step.operation)) || unwanted, "{step:?}");
        }
    });
}

#[test]
fn a_teardown_leaves_nothing_even_when_a_node_was_dead_meanwhile() {
    for_every_seed(|rng| {
        let mut sim = worn_world(rng);
        for node in sim.registry.nodes.values_mut() {
            node.removing = true;
        }
        for link in &mut sim.registry.links {
            link.state = LinkState::Removing;
            link.keep_data = false;
        }
        if rng.random_bool(0.5) {
            let ids: Vec<_> = sim.nodes.keys().copied().collect();
            sim.down.insert(ids[rng.random_range(0..ids.len())]);
            run_steps(&mut sim, None);
            sim.down.clear();
        }
        run_steps(&mut sim, None);
        assert_eq!(sim.marked(), [""; 0]);
        assert!(sim.registry.links.is_empty(), "links left: {:#?}", sim.registry.links);
        assert!(sim.registry.nodes.is_empty(), "nodes left");
    });
}
