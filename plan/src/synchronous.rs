//! `synchronous_standby_names` of a primary: for which standbys commits wait. One setting for all
//! standbys of a node, named by their `application_name`: a list in which every name has our
//! prefix is ours, any other stays as it is. It is never set to what would let no commit through
//! now, and nobody is taken out because he is down: whoever waits, and for whom, is for a person.

use crate::desired::{Link, LinkId, LinkState, Node, Registry, Spec, StandbyOptions};
use crate::index::Indexed;
use crate::name::Mark;
use crate::observed::NodeFacts;
use crate::others::Others;
use crate::quote::literal;
use crate::rule::Context;
use crate::standby_names::{SETTING, StandbyNames};
use crate::step::{Operation, Phase, Plan, Problem, ProblemKind, Step};
use std::collections::BTreeSet;

/// The rule behind a setting that waits until enough standbys stream.
pub const TOO_FEW_STREAM: &str = "RG11";

/// The setting of one node: as it should be, as it is, and what it could be changed to.
struct Setting<'a> {
    node: &'a Node,
    facts: &'a NodeFacts,
    registry: &'a str,
    /// Links by which a synchronous standby follows the node, with their options.
    links: Vec<(&'a Link, StandbyOptions)>,
    /// `None`: commits should wait for nobody.
    wanted: Option<StandbyNames>,
    in_files: &'a str,
    in_force: &'a str,
}

/// What can be done about it.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Right,
    Change,
    /// Somebody else has set it.
    Foreign,
    NoRights,
    /// Commits would wait: so many of those wanted stream.
    TooFew(usize),
}

impl<'a> Setting<'a> {
    /// `None`: it is not known, or left alone. That of a server which is no primary where it
    /// should be one, or one where it should not, matters again when that is settled.
    fn of(
        node: &'a Node,
        facts: &'a NodeFacts,
        others: &Others<'a>,
        registry: &'a str,
    ) -> Option<Self> {
        let group = others.groups.get(node.id);
        let leads = group.is_some_and(|group| group.is_primary(node.id));
        if group.is_some() && leads == facts.in_recovery {
            return None;
        }
        let in_force = facts.setting(SETTING).unwrap_or_default();
        let files = facts.file_settings.as_ref();
        let in_files = match files {
            Some(files) => files.get(SETTING).map_or("", String::as_str),
            // Who is no superuser cannot read them.
            None if !facts.superuser => in_force,
            None => return None,
        };
        let links = group.filter(|_| leads).map_or(&[][..], |group| &group.links);
        let synchronous = |link: &&'a Link| match &link.spec {
            Spec::Standby(spec) if spec.synchronous && link.from == node.id => {
                Some((*link, spec.options))
            }
            _ => None,
        };
        let mut links: Vec<_> = links.iter().filter_map(synchronous).collect();
        links.sort_by_key(|(link, _)| link.id);
        let wanted = wanted(&links, registry);
        Some(Setting { node, facts, registry, links, wanted, in_files, in_force })
    }

    fn state(&self) -> State {
        let theirs = [self.in_files, self.in_force].into_iter().any(|value| !self.is_ours(value));
        let is_right = self.is_wanted(self.in_files) && self.is_wanted(self.in_force);
        if is_right || theirs && self.wanted.is_none() {
            State::Right
        } else if theirs {
            State::Foreign
        } else if !can_set(self.facts) {
            State::NoRights
        } else {
            match self.wanted.as_ref().map(|names| (names, self.streaming(names))) {
                // Where commits wait already, nothing is lost by waiting for others.
                Some((names, some)) if some < names.number && !self.is_blocked() => {
                    State::TooFew(some)
                }
                Some(_) | None => State::Change,
            }
        }
    }

    fn is_wanted(&self, value: &str) -> bool {
        match (StandbyNames::parse(value), &self.wanted) {
            (Some(names), Some(wanted)) => names.is_same(wanted),
            (names, wanted) => names.is_none() && wanted.is_none(),
        }
    }

    fn is_ours(&self, value: &str) -> bool {
        let names = StandbyNames::parse(value);
        value.is_empty() || names.is_some_and(|names| names.are_of(self.registry))
    }

    fn streaming(&self, names: &StandbyNames) -> usize {
        names.names.iter().filter(|name| self.facts.streaming.contains(*name)).count()
    }

    fn is_blocked(&self) -> bool {
        let names = StandbyNames::parse(self.in_force);
        names.is_some_and(|names| self.streaming(&names) < names.number)
    }

    /// Whether commits wait for the reader of a slot, or will after a reload.
    fn lists(&self, name: &str) -> bool {
        let values = [self.in_files, self.in_force].into_iter();
        values.filter_map(StandbyNames::parse).any(|names| names.lists(name))
    }

    /// What stands in the way, for each link that is not as it should be.
    fn problems(&self, state: &State, registry: &Registry) -> Vec<Problem> {
        let Some((kind, rule, message, hint)) = self.obstacle(state, registry) else {
            return vec![];
        };
        let problem = |link: LinkId| Problem {
            kind,
            rule,
            link: Some(link),
            node: Some(self.node.id),
            message: message.clone(),
            hint: hint.clone(),
        };
        let wanted: BTreeSet<LinkId> = self.links.iter().map(|(link, _)| link.id).collect();
        let listed: BTreeSet<LinkId> = self.listed(self.in_force).into_iter().collect();
        let known = |id: &LinkId| registry.link(*id).is_some();
        // Those that are not waited for as they should be; else all, for the number is not right.
        let wrong: Vec<LinkId> =
            (wanted.symmetric_difference(&listed).copied().filter(known)).collect();
        let links = if wrong.is_empty() { wanted.into_iter().collect() } else { wrong };
        links.into_iter().map(problem).collect()
    }

    fn obstacle(
        &self,
        state: &State,
        registry: &Registry,
    ) -> Option<(ProblemKind, &'static str, String, String)> {
        let node = &self.node.name;
        Some(match state {
            State::Right | State::Change => return None,
            State::Foreign => {
                let value = if self.is_ours(self.in_files) { self.in_force } else { self.in_files };
                let message = format!("{SETTING} on \"{node}\" is {value}, which is not ours");
                let hint = "Reset it and reload, then run nodes.apply(); or let no link be \
                            synchronous and go on to set it yourself.";
                (ProblemKind::Refused, "RG09", message, hint.to_owned())
            }
            State::NoRights => {
                let role = &self.facts.role;
                let message = format!("role \"{role}\" cannot alter {SETTING} on \"{node}\"");
                let hint = "Give the node an admin_conninfo of a superuser with \
                            nodes.alter_node(), and turn allow_alter_system on there.";
                (ProblemKind::Refused, "RG10", message, hint.to_owned())
            }
            State::TooFew(streaming) => {
                let (message, hint) = self.too_few(*streaming, registry)?;
                (ProblemKind::Waiting, TOO_FEW_STREAM, message, hint)
            }
        })
    }

    fn too_few(&self, streaming: usize, registry: &Registry) -> Option<(String, String)> {
        let number = self.wanted.as_ref()?.number;
        let stream = if streaming == 1 { "streams" } else { "stream" };
        let message = format!(
            "commits on \"{}\" would wait: of the synchronous standbys ({}) {streaming} {stream}, \
             {number} must",
            self.node.name,
            self.standbys(registry)
        );
        let link = self.links.first().map_or("", |(link, _)| link.name.as_str());
        let hint = format!(
            "It is set when they stream. If one will not: nodes.alter_link({}, synchronous => \
             false), or options with a smaller synchronous_number.",
            literal(link)
        );
        Some((message, hint))
    }

    /// The links whose standbys a value lists.
    fn listed(&self, value: &str) -> Vec<LinkId> {
        let prefix = Mark::slot_prefix(self.registry);
        let names = StandbyNames::parse(value).map_or(vec![], |names| names.names);
        names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect()
    }

    /// The standbys that commits are to wait for, in words.
    fn standbys(&self, registry: &Registry) -> String {
        let name = |(link, _): &(&Link, _)| format!("\"{}\"", registry.node_name(link.to));
        self.links.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The link to which a change belongs: the worker makes only those right that were spoken of.
    fn concerned(&self, registry: &Registry) -> Option<LinkId> {
        let listed = [self.listed(self.in_files), self.listed(self.in_force)].concat();
        let wanted: Vec<LinkId> = self.links.iter().map(|(link, _)| link.id).collect();
        let known = |id: &LinkId| registry.link(*id).is_some();
        let leaves = |id: &LinkId| !wanted.contains(id) && known(id);
        let removing =
            |id: &LinkId| registry.link(*id).is_some_and(|l| l.state == LinkState::Removing);
        let gone = || listed.iter().copied().filter(leaves);
        gone()
            .find(removing)
            .or_else(|| gone().next())
            .or_else(|| wanted.iter().copied().find(|id| !listed.contains(id)))
            .or_else(|| wanted.first().copied())
    }

    fn reason(&self, registry: &Registry) -> String {
        let Some(wanted) = &self.wanted else {
            return match self.facts.in_recovery {
                true => "a standby would wait for others as soon as it is promoted".to_owned(),
                false => "no standby is synchronous any more".to_owned(),
            };
        };
        let (method, number) = (wanted.method.label(), wanted.number);
        format!("commits wait for {method} {number} of {}", self.standbys(registry))
    }
}

fn can_set(facts: &NodeFacts) -> bool {
    facts.superuser && facts.setting("allow_alter_system") != Some("off")
}

fn wanted(links: &[(&Link, StandbyOptions)], registry: &str) -> Option<StandbyNames> {
    let name = |link: &Link| Mark { registry: registry.to_owned(), link: link.id }.slot_name();
    let names: Vec<String> = links.iter().map(|(link, _)| name(link)).collect();
    if names.is_empty() {
        return None;
    }
    let methods = links.iter().filter_map(|(_, options)| options.synchronous_method);
    Some(StandbyNames {
        method: methods.max().unwrap_or_default(),
        // Postgres would wait for one that is not listed for ever.
        number: asked_for(links).min(names.len()),
        names,
    })
}

fn asked_for(links: &[(&Link, StandbyOptions)]) -> usize {
    let numbers = links.iter().filter_map(|(_, options)| options.synchronous_number);
    numbers.max().and_then(|number| usize::try_from(number).ok()).unwrap_or(1)
}

/// What makes the setting right on one node. It comes first: a standby that goes is taken out
/// before it goes.
pub(crate) fn plan_node<'a>(
    registry: &'a Registry,
    node: &'a Node,
    facts: &'a Indexed<'_>,
    others: &Others<'a>,
    plan: &mut Plan,
) {
    warn_of_cascades(node, others, plan);
    let Some(setting) = Setting::of(node, facts, others, &registry.id) else { return };
    warn_of_number(&setting, plan);
    let state = setting.state();
    if state == State::Change {
        plan.steps.extend(steps(&setting, registry, others));
        return;
    }
    let removing = |link| registry.link(link).is_some_and(|l| l.state == LinkState::Removing);
    // That of a link that goes is told by its own rule.
    let problems = setting.problems(&state, registry).into_iter();
    plan.problems.extend(problems.filter(|problem| !problem.link.is_some_and(removing)));
}

fn steps(setting: &Setting<'_>, registry: &Registry, others: &Others<'_>) -> Vec<Step> {
    let own = others.standby(setting.node.id).map(|link| link.id);
    let link = own.or_else(|| setting.concerned(registry));
    let step = |operation, reason: String| Step {
        phase: Phase::Prepare,
        rule: "RG08",
        link,
        node: Some(setting.node.id),
        operation,
        reason,
        danger: None,
    };
    let mut steps = Vec::new();
    if !setting.is_wanted(setting.in_files) {
        let value = setting.wanted.as_ref().map(StandbyNames::to_string);
        let alter = Operation::AlterSystem { setting: SETTING, value };
        steps.push(step(alter, setting.reason(registry)));
    }
    steps.push(step(Operation::Reload, "puts the setting in force".to_owned()));
    steps
}

/// Only the standbys of a primary can be waited for.
fn warn_of_cascades(node: &Node, others: &Others<'_>, plan: &mut Plan) {
    let Some(group) = others.groups.get(node.id).filter(|group| !group.is_primary(node.id)) else {
        return;
    };
    let synchronous = |link: &&&Link| {
        link.from == node.id && matches!(&link.spec, Spec::Standby(spec) if spec.synchronous)
    };
    for link in group.links.iter().filter(synchronous) {
        plan.problems.push(Problem {
            kind: ProblemKind::Warning,
            rule: "RG13",
            link: Some(link.id),
            node: Some(node.id),
            message: format!(
                "nobody waits for the standby of \"{}\", which is a standby itself",
                node.name
            ),
            hint: format!(
                "It counts when \"{}\" is the primary; until then only standbys of the primary can \
                 be synchronous.",
                node.name
            ),
        });
    }
}

fn warn_of_number(setting: &Setting<'_>, plan: &mut Plan) {
    let (asked, there) = (asked_for(&setting.links), setting.links.len());
    let asks = |(_, options): &&(&Link, StandbyOptions)| {
        options.synchronous_number.is_some_and(|number| usize::try_from(number) == Ok(asked))
    };
    let Some((link, _)) = setting.links.iter().find(asks).filter(|_| asked > there) else {
        return;
    };
    plan.problems.push(Problem {
        kind: ProblemKind::Warning,
        rule: "RG12",
        link: Some(link.id),
        node: Some(setting.node.id),
        message: format!(
            "commits on \"{}\" are to wait for {asked} synchronous standbys, and there are {there}",
            setting.node.name
        ),
        hint: format!("Until there are more they wait for {there}."),
    });
}

/// Why a standby that is removed must stay for now: its primary waits for it, and that cannot be
/// changed. What [`plan_node`] changes comes before the standby goes.
pub(crate) fn why_awaited(ctx: &Context<'_>) -> Option<(String, &'static str)> {
    let facts = ctx.source.filter(|source| !source.in_recovery)?;
    let (from, to) = (&ctx.from.name, &ctx.to.name);
    let in_force = facts.setting(SETTING).unwrap_or_default();
    let listed = |value: &str| StandbyNames::parse(value).is_some_and(|n| n.lists(ctx.slot()));
    let Some(setting) = Setting::of(ctx.from, facts, ctx.others, &ctx.mark.registry) else {
        return listed(in_force).then(|| {
            let message = format!("commits on \"{from}\" wait for \"{to}\" ({SETTING})");
            (message, "That is a primary where the registry has a standby: settle that first.")
        });
    };
    if !setting.lists(ctx.slot()) {
        return None;
    }
    let message = |why: &str| format!("commits on \"{from}\" wait for \"{to}\", {why}");
    match setting.state() {
        State::Change => None,
        State::TooFew(_) => Some((
            message(
                "and would wait for ever without it: too few others that are synchronous stream",
            ),
            "Start the others, or make them asynchronous with nodes.alter_link(), synchronous => \
             false.",
        )),
        State::NoRights => Some((
            message(&format!("and role \"{}\" cannot alter {SETTING}", facts.role)),
            "Take it out of that setting and reload, or give the node an admin_conninfo of a \
             superuser and turn allow_alter_system on.",
        )),
        State::Right | State::Foreign => Some((
            message(&format!("by a {SETTING} that is not ours")),
            "Take it out of that setting and reload, then run nodes.apply().",
        )),
    }
}
