//! From rules to a plan: asks every link's rules, adds what several links share, and puts all
//! in order.

use crate::desired::{Link, LinkId, LinkState, Node, NodeId, Registry, Spec};
use crate::handed_over;
use crate::index::Index;
use crate::name::extension_comment;
use crate::observed::{NodeFacts, World};
use crate::others::Others;
use crate::refuse::read_only;
use crate::rule::{Context, Rule, Table, Verdict};
use crate::siblings;
use crate::stale_slots::{self, Left};
use crate::step::{Operation, Phase, Plan, Problem, ProblemKind, Step};
use crate::synchronized;
use crate::synchronous;
use std::collections::{BTreeMap, BTreeSet};

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
    ("RG07", "a primary does not wait for just those standbys that keep its slots"),
    ("RG08", "commits wait for others than the synchronous standbys"),
    ("RG09", "synchronous_standby_names was set by somebody else"),
    ("RG10", "the role cannot alter synchronous_standby_names"),
    ("RG11", "too few of the standbys that are to be synchronous stream"),
    ("RG12", "commits are to wait for more standbys than are synchronous"),
    ("RG13", "a standby of a standby is to be synchronous"),
    ("RG14", "a slot is left on a member of a group where nobody will read it"),
    ("RG15", "a member of a group has no slot for one that may have to follow it"),
    ("RG16", "a switchover was interrupted after the promotion"),
];

/// The difference between what should be and what is. The same input gives the same plan.
pub fn plan(registry: &Registry, world: &World) -> Plan {
    let mut plan = Plan::default();
    let index = Index::new(registry, world);
    let mut others = Others::of(registry, world);
    plan.steps = handed_over::plan(registry, &index, &others);
    if !plan.steps.is_empty() {
        // By what the registry says until then everything else would be wrong.
        return plan;
    }
    free_leftovers(registry, &index, &mut others);
    // Links that go are asked last: what takes their place is known then.
    let (leaving, staying): (Vec<&Link>, Vec<&Link>) =
        registry.links.iter().partition(|link| link.state == LinkState::Removing);
    for link in staying.into_iter().chain(leaving) {
        let (steps, problems) = (plan.steps.len(), plan.problems.len());
        let mut lacking = None;
        if let Some(ctx) = Context::new(registry, &index, &others, link) {
            plan_link(&ctx, registry, &index, world, &mut plan);
            // A link to a node that is not heard gets nothing yet.
            let is_next = link.state != LinkState::Removing && ctx.both().is_some();
            lacking = is_next.then(|| (table(link).lacking)(&ctx));
        }
        let problems = &plan.problems[problems..];
        others.note(link, &plan.steps[steps..], problems);
        if let Some(lacking) = lacking {
            others.ledger.claim(link, lacking, problems);
        }
    }
    let mut uses = Uses::of(registry, &plan);
    for (id, node) in &registry.nodes {
        if let Some(facts) = index.get(*id) {
            plan.steps.extend(synchronized::plan_node(registry, node, facts, &others));
            let stale = stale_slots::plan_node(registry, node, &index, &others, &plan);
            plan.steps.extend(stale);
            synchronous::plan_node(registry, node, facts, &others, &mut plan);
        }
        siblings::plan_node(registry, node, &index, &others, &mut plan);
        let node_uses = uses.0.remove(id).unwrap_or_default();
        let steps = plan.steps.len();
        // A standby shows what its primary has and can change none of it.
        let facts = world.facts(*id);
        if let Some(facts) = facts.filter(|facts| read_only(*id, &node.name, facts).is_none()) {
            plan_extension(registry, *id, facts, &node_uses, &mut plan);
        }
        let unchanged = plan.steps.len() == steps;
        if node.removing && node_uses.links == 0 && unchanged {
            forget_node(node, &mut plan);
        }
    }
    // Within a phase the registry's own rows come last: what they stand for is gone then.
    plan.steps.sort_by_key(|step| (step.phase, step.node.is_none()));
    plan.problems.sort_by_key(|problem| problem.kind);
    plan
}

/// What removed links give back counts from the start, and so does the slot of a standby that
/// should have none.
fn free_leftovers(registry: &Registry, index: &Index<'_>, others: &mut Others<'_>) {
    let gives =
        |link: &&Link| link.state == LinkState::Removing || matches!(link.spec, Spec::Standby(_));
    for link in registry.links.iter().filter(gives) {
        let leftover =
            Context::new(registry, index, others, link).map(|ctx| (table(link).leftover)(&ctx));
        if let Some(leftover) = leftover {
            others.ledger.free(link, leftover);
        }
    }
}

fn table(link: &Link) -> &'static Table {
    match link.spec {
        Spec::Standby(_) if link.is_unmanaged() => &crate::standby::UNMANAGED,
        Spec::Standby(_) => &crate::standby::TABLE,
        Spec::Foreign(_) => &crate::foreign::TABLE,
        Spec::Subscription(_) => &crate::subscription::TABLE,
    }
}

fn plan_link(
    ctx: &Context<'_>,
    registry: &Registry,
    index: &Index<'_>,
    world: &World,
    plan: &mut Plan,
) {
    let table = table(ctx.link);
    let before = plan.problems.len();
    let steps = plan.steps.len();
    match ctx.link.state {
        LinkState::Active | LinkState::Paused => {
            ask(table.forbid, ctx, plan);
            if plan.problems.len() == before {
                ask(table.follow, ctx, plan);
            }
            ask(table.refuse, ctx, plan);
            if plan.problems.len() == before {
                ask(table.keep, ctx, plan);
            }
        }
        LinkState::Removing => {
            ask(table.remove, ctx, plan);
            if plan.steps.len() == steps && plan.problems.len() == before {
                match stale_slots::left(registry, index, ctx.others, ctx.link) {
                    Left::Nothing => forget_link(ctx, plan),
                    Left::Slot => {}
                    Left::Held(verdict) => record("RG14", ctx, *verdict, plan),
                }
            }
        }
    }
    wait_for_silent_nodes(ctx, world, plan);
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

/// A removed link of which there is nothing to remove is forgotten when both its nodes have
/// said so and nothing there bears its mark: never in the plan that still removes something,
/// since that may leave what only a new look finds.
fn forget_link(ctx: &Context<'_>, plan: &mut Plan) {
    // All that a foreign link makes is on one node.
    let only_target = matches!(ctx.link.spec, Spec::Foreign(_));
    let target = ctx.target.is_some() || ctx.to.gone;
    let source = ctx.source.is_some() || ctx.from.gone || only_target;
    let unknown = !(source && target);
    if unknown {
        return;
    }
    let sides = [(ctx.from, &ctx.made_there), (ctx.to, &ctx.made_here)];
    if let Some((node, _)) = sides.into_iter().find(|(_, made)| !made.is_empty()) {
        let (link, comment) = (&ctx.link.name, ctx.mark.comment());
        let message = format!("something on \"{}\" still bears the mark of \"{link}\"", node.name);
        let hint = format!("It is none of the link's own: take the comment '{comment}' off it.");
        record("RG01", ctx, Verdict::refuse(node.id, message, hint), plan);
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
fn forget_node(node: &Node, plan: &mut Plan) {
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

fn wait_for_silent_nodes(ctx: &Context<'_>, world: &World, plan: &mut Plan) {
    let removing = ctx.link.state == LinkState::Removing;
    let source_matters = !(removing && matches!(ctx.link.spec, Spec::Foreign(_)));
    let silent =
        [(ctx.from, ctx.source.is_none() && source_matters), (ctx.to, ctx.target.is_none())];
    for (node, _) in silent.into_iter().filter(|(node, silent)| *silent && !node.gone) {
        let standby = matches!(ctx.link.spec, Spec::Standby(_)) && !ctx.link.is_unmanaged();
        let standby = standby && node.id == ctx.to.id;
        let hint = if removing {
            "The other side is cleaned now; this one when the node answers again. \
             Run nodes.apply() then, or nodes.forget_node() if it never will."
                .to_owned()
        } else if standby {
            format!(
                "Start it and run nodes.apply() again. If it does not exist yet, create it with: {}",
                crate::standby::basebackup_command(ctx)
            )
        } else {
            "Start it, or correct its address or password with nodes.alter_node(), \
             and run nodes.apply() again."
                .to_owned()
        };
        plan.problems.push(Problem {
            kind: ProblemKind::Waiting,
            rule: "RG03",
            link: Some(ctx.link.id),
            node: Some(node.id),
            message: format!("node \"{}\" did not answer: {}", node.name, world.silence(node.id)),
            hint,
        });
    }
}

/// What the links of one node come to, collected in one pass over all links and steps.
#[derive(Default)]
struct NodeUses {
    /// Links that this plan does not forget.
    links: usize,
    /// Whether a foreign schema should be there.
    foreign: bool,
    /// The first link that makes a foreign server there.
    first_server: Option<LinkId>,
    dropped_servers: BTreeSet<String>,
}

struct Uses(BTreeMap<NodeId, NodeUses>);

impl Uses {
    fn of(registry: &Registry, plan: &Plan) -> Uses {
        let mut uses: BTreeMap<NodeId, NodeUses> = BTreeMap::new();
        let mut forgotten = BTreeSet::new();
        for step in &plan.steps {
            let of_node = step.node.map(|node| uses.entry(node).or_default());
            match (&step.operation, of_node) {
                (Operation::ForgetLink { link }, _) => {
                    forgotten.insert(*link);
                }
                (Operation::CreateServer { .. }, Some(node)) => {
                    node.first_server = node.first_server.or(step.link);
                }
                (Operation::DropServer { name }, Some(node)) => {
                    node.dropped_servers.insert(name.clone());
                }
                _ => {}
            }
        }
        for link in registry.links.iter().filter(|link| !forgotten.contains(&link.id)) {
            uses.entry(link.from).or_default().links += 1;
            let to = uses.entry(link.to).or_default();
            to.links += 1;
            let stays = link.state != LinkState::Removing;
            to.foreign |= stays && matches!(link.spec, Spec::Foreign(_));
        }
        Uses(uses)
    }
}

/// `postgres_fdw` is made once for all foreign links of a node, and dropped with the last of
/// them if this registry made it and nobody else uses it.
fn plan_extension(
    registry: &Registry,
    node: NodeId,
    facts: &NodeFacts,
    uses: &NodeUses,
    plan: &mut Plan,
) {
    let comment = extension_comment(&registry.id);
    let ours = facts.fdw_comment.as_deref() == Some(comment.as_str());
    let dropped = |name: &String| uses.dropped_servers.contains(name);
    let (phase, rule, operation, reason) = if uses.first_server.is_some() {
        if facts.fdw_comment.is_some() {
            return;
        }
        // Where people look for it; else where nobody drops it together with a schema.
        let operation = Operation::CreateFdwExtension { public: facts.public_schema, comment };
        (Phase::Prepare, "RG04", operation, "foreign servers need it")
    } else if uses.foreign || !ours {
        return;
    } else if facts.servers.iter().all(|server| dropped(&server.name)) {
        let reason = "the last server that used it is gone";
        (Phase::Finish, "RG05", Operation::DropFdwExtension, reason)
    } else {
        let reason = "other servers use it: it is yours from now on";
        (Phase::Finish, "RG06", Operation::ReleaseFdwExtension, reason)
    };
    plan.steps.push(Step {
        phase,
        rule,
        link: uses.first_server,
        node: Some(node),
        operation,
        reason: reason.to_owned(),
        danger: None,
    });
}
