//! From rules to a plan: asks every link's rules, adds what several links share, and puts all
//! in order.

use crate::desired::{Link, LinkState, Node, NodeId, Registry, Spec};
use crate::name::extension_comment;
use crate::observed::{NodeFacts, World};
use crate::rule::{Context, Rule, Table, Verdict};
use crate::step::{Operation, Phase, Plan, Problem, ProblemKind, Step};
use std::collections::BTreeSet;

/// What is decided here, for `nodes.rules()`. RG00 is the extension's: only it knows where the
/// registry was made.
pub(crate) const RULES: &[(&str, &str)] = &[
    ("RG00", "the registry was made on another server"),
    ("RG01", "nothing of a removed link is left"),
    ("RG02", "a removed node has no links"),
    ("RG03", "a node did not answer"),
    ("RG04", "the first foreign server of a node needs postgres_fdw"),
    ("RG05", "postgres_fdw was made for servers that are gone"),
    ("RG06", "postgres_fdw was made here and is used by others"),
];

/// The difference between what should be and what is. The same input gives the same plan.
pub fn plan(registry: &Registry, world: &World) -> Plan {
    let mut plan = Plan::default();
    for link in &registry.links {
        if let Some(ctx) = Context::new(registry, world, link) {
            plan_link(&ctx, &mut plan);
        }
    }
    for (id, node) in &registry.nodes {
        // A standby shows what its primary has and can change none of it.
        if let Some(facts) = world.facts(*id).filter(|facts| !facts.in_recovery) {
            plan_extension(registry, *id, facts, &mut plan);
        }
        if node.removing {
            forget_node(registry, node, &mut plan);
        }
    }
    plan.steps.sort_by_key(|step| step.phase);
    plan.problems.sort_by_key(|problem| problem.kind);
    plan
}

fn table(link: &Link) -> &'static Table {
    match link.spec {
        Spec::Standby(_) => &crate::standby::TABLE,
        Spec::Foreign(_) => &crate::foreign::TABLE,
        Spec::Subscription(_) => &crate::subscription::TABLE,
    }
}

fn plan_link(ctx: &Context<'_>, plan: &mut Plan) {
    let table = table(ctx.link);
    let before = plan.problems.len();
    match ctx.link.state {
        LinkState::Active | LinkState::Paused => {
            ask(table.refuse, ctx, plan);
            if plan.problems.len() == before {
                ask(table.keep, ctx, plan);
            }
        }
        LinkState::Removing => {
            ask(table.remove, ctx, plan);
            forget_link(ctx, plan);
        }
    }
    wait_for_silent_nodes(ctx, plan);
}

fn ask(rules: &'static [Rule], ctx: &Context<'_>, plan: &mut Plan) {
    for rule in rules {
        for verdict in (rule.then)(ctx) {
            record(rule.id, ctx, verdict, plan);
        }
    }
}

fn record(rule: &'static str, ctx: &Context<'_>, verdict: Verdict, plan: &mut Plan) {
    let link = Some(ctx.link.id);
    let problem =
        |kind, node, message, hint| Problem { kind, rule, link, node: Some(node), message, hint };
    let leaving = ctx.link.state == LinkState::Removing;
    let phase = match ctx.link.spec {
        Spec::Standby(_) if leaving => Phase::Detach,
        Spec::Standby(_) | Spec::Foreign(_) | Spec::Subscription(_) => Phase::Link,
    };
    match verdict {
        Verdict::Do { node, operation, reason, danger } => {
            plan.steps.push(Step { phase, rule, link, node: Some(node), operation, reason, danger })
        }
        Verdict::Refuse { node, message, hint } => {
            plan.problems.push(problem(ProblemKind::Refused, node, message, hint));
        }
        Verdict::Wait { node, message, hint } => {
            plan.problems.push(problem(ProblemKind::Waiting, node, message, hint));
        }
        Verdict::Warn { node, message, hint } => {
            plan.problems.push(problem(ProblemKind::Warning, node, message, hint));
        }
    }
}

/// A removed link is forgotten when both its nodes have said that nothing of it is left: never
/// in the plan that still removes something, since that may leave what only a new look finds.
fn forget_link(ctx: &Context<'_>, plan: &mut Plan) {
    // All that a foreign link makes is on one node.
    let only_target = matches!(ctx.link.spec, Spec::Foreign(_));
    let unknown = ctx.target.is_none() || (ctx.source.is_none() && !only_target);
    if unknown || plan.steps.iter().any(|step| step.link == Some(ctx.link.id)) {
        return;
    }
    plan.steps.push(Step {
        phase: Phase::Finish,
        rule: "RG01",
        link: Some(ctx.link.id),
        node: None,
        operation: Operation::ForgetLink { link: ctx.link.id },
        reason: "nothing of the link is left on any node".to_owned(),
        danger: None,
    });
}

/// A removed node is forgotten with its last link, or at once if it has none.
fn forget_node(registry: &Registry, node: &Node, plan: &mut Plan) {
    let forgotten = |link: &Link| {
        let operation = Operation::ForgetLink { link: link.id };
        plan.steps.iter().any(|step| step.operation == operation)
    };
    let mut links = registry.links.iter().filter(|l| l.from == node.id || l.to == node.id);
    if !links.all(forgotten) {
        return;
    }
    plan.steps.push(Step {
        phase: Phase::Finish,
        rule: "RG02",
        link: None,
        node: None,
        operation: Operation::ForgetNode { node: node.id },
        reason: format!("node \"{}\" has no links any more", node.name),
        danger: None,
    });
}

fn wait_for_silent_nodes(ctx: &Context<'_>, plan: &mut Plan) {
    let removing = ctx.link.state == LinkState::Removing;
    let source_matters = !(removing && matches!(ctx.link.spec, Spec::Foreign(_)));
    let silent =
        [(ctx.from, ctx.source.is_none() && source_matters), (ctx.to, ctx.target.is_none())];
    for (node, _) in silent.into_iter().filter(|(_, silent)| *silent) {
        let standby = matches!(ctx.link.spec, Spec::Standby(_)) && node.id == ctx.to.id;
        let hint = if removing {
            "The other side is cleaned now; this one when the node answers again. \
             Run nodes.apply() then."
                .to_owned()
        } else if standby {
            format!(
                "Start it and run nodes.apply() again. If it does not exist yet, create it with: {}",
                crate::standby::basebackup_command(ctx)
            )
        } else {
            "Start it, or correct its address with nodes.alter_node(), \
             and run nodes.apply() again."
                .to_owned()
        };
        plan.problems.push(Problem {
            kind: ProblemKind::Waiting,
            rule: "RG03",
            link: Some(ctx.link.id),
            node: Some(node.id),
            message: format!(
                "node \"{}\" did not answer: {}",
                node.name,
                ctx.world.silence(node.id)
            ),
            hint,
        });
    }
}

/// `postgres_fdw` is made once for all foreign links of a node, and dropped with the last of
/// them if this registry made it and nobody else uses it.
fn plan_extension(registry: &Registry, node: NodeId, facts: &NodeFacts, plan: &mut Plan) {
    let comment = extension_comment(&registry.id);
    let needs = |step: &&Step| {
        step.node == Some(node) && matches!(step.operation, Operation::CreateServer { .. })
    };
    let first_use = plan.steps.iter().find(needs).and_then(|step| step.link);
    let step = |phase, rule, link, operation, reason: &str| Step {
        phase,
        rule,
        link,
        node: Some(node),
        operation,
        reason: reason.to_owned(),
        danger: None,
    };
    if let (Some(link), None) = (first_use, &facts.fdw_comment) {
        let operation = Operation::CreateFdwExtension { comment };
        let reason = "foreign servers need it";
        plan.steps.push(step(Phase::Prepare, "RG04", Some(link), operation, reason));
        return;
    }
    let wanted = registry.links.iter().any(|link| {
        link.to == node
            && link.state != LinkState::Removing
            && matches!(link.spec, Spec::Foreign(_))
    });
    if wanted || facts.fdw_comment.as_deref() != Some(comment.as_str()) {
        return;
    }
    let (rule, operation, reason) = if has_other_servers(node, facts, plan) {
        ("RG06", Operation::ReleaseFdwExtension, "other servers use it: it is yours from now on")
    } else {
        ("RG05", Operation::DropFdwExtension, "the last server that used it is gone")
    };
    plan.steps.push(step(Phase::Finish, rule, None, operation, reason));
}

/// Whether servers remain when the plan is done.
fn has_other_servers(node: NodeId, facts: &NodeFacts, plan: &Plan) -> bool {
    let dropped: BTreeSet<&str> = plan
        .steps
        .iter()
        .filter(|step| step.node == Some(node))
        .filter_map(|step| match &step.operation {
            Operation::DropServer { name } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    facts.servers.iter().any(|server| !dropped.contains(server.name.as_str()))
}
