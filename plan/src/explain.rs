//! `nodes.explain()`: the chain of facts that leads to the state of a node or link, and last
//! the next action.

use crate::commits;
use crate::desired::{Link, LinkId, LinkState, NodeId, Registry, Spec};
use crate::growth::{self, End};
use crate::headroom::Room;
use crate::link_health::{LinkHealth, LinkStatus};
use crate::node_health::NodeState;
use crate::pulse::Pulse;
use crate::quote::literal;
use crate::units::{bytes, time};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of all nodes and links.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    pub registry: &'a Registry,
    pub nodes: BTreeMap<NodeId, KnownNode<'a>>,
    pub links: BTreeMap<LinkId, KnownLink<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct KnownNode<'a> {
    pub state: NodeState,
    pub rule: &'a str,
    /// How long it has been in its state, and when it answered last: ages.
    pub lasted: Option<Duration>,
    pub last_answer: Option<Duration>,
    pub reason: Option<&'a str>,
    pub hint: Option<&'a str>,
    /// The last answer, however old.
    pub pulse: Option<&'a Pulse>,
    pub rooms: &'a [Room],
    /// By slot: WAL that it keeps more every second, in bytes.
    pub growth: &'a BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Copy)]
pub struct KnownLink<'a> {
    pub health: &'a LinkHealth,
    /// How long it has been in its state.
    pub lasted: Option<Duration>,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub part: Part,
    pub fact: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is to be explained.
    State,
    /// Why the line before is so.
    Because,
    /// What else bears on it.
    Also,
    /// What to do.
    Next,
}

impl Part {
    pub fn label(self) -> &'static str {
        match self {
            Part::State => "state",
            Part::Because => "because",
            Part::Also => "also",
            Part::Next => "next",
        }
    }
}

/// Lines in the making.
#[derive(Default)]
struct Chain(Vec<Line>);

impl Chain {
    fn add(&mut self, part: Part, fact: impl Into<String>) {
        self.0.push(Line { part, fact: fact.into() });
    }

    fn extend(&mut self, part: Part, facts: impl IntoIterator<Item = String>) {
        facts.into_iter().for_each(|fact| self.add(part, fact));
    }
}

const NOTHING: &str = "Nothing needs to be done.";

/// Why a node is in its state. Nothing is said of one that is not registered.
pub fn explain_node(known: &Known<'_>, id: NodeId) -> Vec<Line> {
    let mut chain = Chain::default();
    let name = known.registry.node_name(id);
    let Some(node) = known.nodes.get(&id) else {
        if known.registry.nodes.contains_key(&id) {
            chain.add(Part::State, format!("node \"{name}\" has not been heard yet"));
            chain.add(Part::Next, with_name("See nodes.test_node().", name));
        }
        return chain.0;
    };
    tell_node(&mut chain, name, node);
    chain.extend(Part::Also, others_silent(known, id));
    let awaiting = node.pulse.filter(|_| node.state.answers());
    let blocked = awaiting.and_then(|pulse| commits::explain(pulse, name));
    let commits = awaiting.filter(|_| blocked.is_some()).map(|p| commits::hint(known.registry, p));
    chain.extend(Part::Also, blocked);
    chain.extend(Part::Also, standbys(known, id));
    chain.extend(Part::Also, waiting_links(known, id));
    chain.extend(Part::Also, wal_kept_for(known, id));
    let tight: Vec<&Room> = node.rooms.iter().filter(|room| room.is_tight()).collect();
    chain.extend(Part::Also, tight.iter().map(|room| room_fact(known, room)));
    let hints = node.hint.into_iter().chain(tight.iter().filter_map(|room| room.hint.as_deref()));
    let hints = hints.map(|hint| with_name(hint, name)).chain(commits).collect();
    add_next(&mut chain, hints);
    chain.0
}

/// Why a link is in its state. Nothing is said of one that is not registered.
pub fn explain_link(known: &Known<'_>, id: LinkId) -> Vec<Line> {
    let mut chain = Chain::default();
    let Some(link) = known.registry.link(id) else { return chain.0 };
    let head = link_head(known, link);
    let Some(found) = known.links.get(&id) else {
        chain.add(Part::State, format!("{head} has not been judged yet"));
        chain.add(Part::Next, "See nodes.plan().");
        return chain.0;
    };
    let health = found.health;
    let verdict = verdict(health.state.label(), found.lasted, health.rule);
    chain.add(Part::State, format!("{head} {verdict}"));
    let mut hints = Vec::new();
    if health.state == LinkStatus::Waiting {
        for id in [link.from, link.to] {
            hints.extend(blame(&mut chain, known, id));
        }
    }
    if hints.is_empty() {
        chain.extend(Part::Because, health.reason.clone());
    }
    chain.extend(Part::Also, numbers(health));
    chain.extend(Part::Also, slot_loss(known, link));
    if health.state.is_trouble() || health.state == LinkStatus::Initializing {
        chain.extend(Part::Also, siblings(known, link));
        for room in tight_rooms(known, link) {
            chain.add(Part::Also, room_fact(known, room));
            hints.extend(room.hint.clone());
        }
    }
    // A node that does not answer is to be mended first, and its own hint says how.
    if hints.is_empty() || health.state != LinkStatus::Waiting {
        hints.extend(health.hint.clone());
    }
    add_next(&mut chain, hints);
    chain.0
}

fn add_next(chain: &mut Chain, mut hints: Vec<String>) {
    hints.dedup();
    if hints.is_empty() {
        hints.push(NOTHING.to_owned());
    }
    chain.extend(Part::Next, hints);
}

/// `has been down for 3 min (rule NH01)`
fn verdict(state: &str, lasted: Option<Duration>, rule: &str) -> String {
    let state = match lasted {
        Some(lasted) => format!("has been {state} for {}", time(lasted)),
        None => format!("is {state}"),
    };
    if rule.is_empty() { state } else { format!("{state} (rule {rule})") }
}

/// Puts the node's name into the calls that a hint names.
pub(crate) fn with_name(hint: &str, name: &str) -> String {
    let name = literal(name);
    hint.replace("nodes.alter_node()", &format!("nodes.alter_node({name}, …)"))
        .replace("nodes.set_password()", &format!("nodes.set_password({name}, …)"))
        .replace("nodes.test_node()", &format!("nodes.test_node({name})"))
}

fn tell_node(chain: &mut Chain, name: &str, node: &KnownNode<'_>) {
    let verdict = verdict(node.state.label(), node.lasted, node.rule);
    chain.add(Part::State, format!("node \"{name}\" {verdict}"));
    chain.extend(Part::Because, node.reason.map(str::to_owned));
    if node.state != NodeState::Up {
        chain.add(
            Part::Also,
            match node.last_answer {
                Some(age) => format!("it answered {} ago for the last time", time(age)),
                None => "it has not answered since this server began to watch".to_owned(),
            },
        );
    }
}

/// Tells of a node that a link waits for, with the way out.
fn blame(chain: &mut Chain, known: &Known<'_>, id: NodeId) -> Option<String> {
    let node = known.nodes.get(&id).filter(|node| !node.state.answers())?;
    let name = known.registry.node_name(id);
    let verdict = verdict(node.state.label(), node.lasted, node.rule);
    let why = node.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    chain.add(Part::Because, format!("node \"{name}\" {verdict}{why}"));
    chain.extend(Part::Also, others_silent(known, id));
    node.hint.map(|hint| with_name(hint, name))
}

/// Many silent nodes are rarely many faults.
fn others_silent(known: &Known<'_>, id: NodeId) -> Option<String> {
    let silent =
        |(other, node): &(&NodeId, &KnownNode<'_>)| **other != id && node.state == NodeState::Down;
    let is_down = known.nodes.get(&id).is_some_and(|node| node.state == NodeState::Down);
    let others = known.nodes.iter().filter(silent).count();
    (is_down && others > 0).then(|| {
        format!(
            "{} of {} nodes are down: what they share may be at fault, or this server's network",
            others + 1,
            known.nodes.len()
        )
    })
}

/// Who could take over from a primary that is down.
fn standbys(known: &Known<'_>, id: NodeId) -> Vec<String> {
    let down = known.nodes.get(&id).filter(|node| !node.state.answers());
    let Some(primary) = down.and_then(|node| node.pulse).filter(|pulse| !pulse.in_recovery) else {
        return vec![];
    };
    let mut facts = Vec::new();
    for (other, node) in &known.nodes {
        let Some(pulse) = node.pulse.filter(|_| node.state.answers() && *other != id) else {
            continue;
        };
        if !pulse.in_recovery || pulse.system_identifier != primary.system_identifier {
            continue;
        }
        let behind = primary.lsn.zip(pulse.wal_end()).map(|(end, has)| end.since(has));
        let behind =
            behind.map(|behind| format!(", {} short of what it last wrote", bytes(behind)));
        facts.push(format!(
            "its standby \"{}\" answers{}",
            known.registry.node_name(*other),
            behind.unwrap_or_default()
        ));
    }
    facts
}

fn waiting_links(known: &Known<'_>, id: NodeId) -> Option<String> {
    let waits = |link: &&Link| {
        let found = known.links.get(&link.id);
        (link.from == id || link.to == id)
            && found.is_some_and(|found| found.health.state == LinkStatus::Waiting)
    };
    let names: Vec<String> = known
        .registry
        .links
        .iter()
        .filter(waits)
        .map(|link| format!("\"{}\"", link.name))
        .collect();
    (!names.is_empty()).then(|| format!("links that wait for it: {}", names.join(", ")))
}

/// WAL that other nodes keep while this one does not read it.
fn wal_kept_for(known: &Known<'_>, id: NodeId) -> Vec<String> {
    if known.nodes.get(&id).is_none_or(|node| node.state.answers()) {
        return vec![];
    }
    let mut facts = Vec::new();
    for link in known.registry.links.iter().filter(|link| link.to == id) {
        let retained = known.links.get(&link.id).and_then(|found| found.health.retained_bytes);
        let Some(retained) = retained else { continue };
        let left =
            slot_time_left(known, link).map(|(left, _)| format!(", for {} more", time(left)));
        facts.push(format!(
            "\"{}\" keeps {} of WAL for it{}",
            known.registry.node_name(link.from),
            bytes(retained),
            left.unwrap_or_default()
        ));
    }
    facts
}

fn link_head(known: &Known<'_>, link: &Link) -> String {
    format!(
        "link \"{}\" ({}, from \"{}\" to \"{}\")",
        link.name,
        link.spec.kind(),
        known.registry.node_name(link.from),
        known.registry.node_name(link.to)
    )
}

fn numbers(health: &LinkHealth) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(lag) = health.lag_bytes {
        let late = health.lag_seconds.and_then(|late| Duration::try_from_secs_f64(late).ok());
        let late = late.map(|late| format!(", {}", time(late))).unwrap_or_default();
        facts.push(format!("it is {}{late} behind", bytes(lag)));
    }
    if let (Some(ready), Some(tables)) = (health.tables_ready, health.tables)
        && ready < tables
        && health.state != LinkStatus::Copying
    {
        facts.push(format!("{ready} of {tables} tables are copied"));
    }
    facts
}

/// When the link's slot comes to its end at the present rate.
fn slot_time_left(known: &Known<'_>, link: &Link) -> Option<(Duration, End)> {
    let source = known.nodes.get(&link.from)?;
    let pulse = source.pulse?;
    let slot = pulse.slot(&known.registry.mark(link).slot_name())?;
    let rate = source.growth.get(&slot.name).copied().unwrap_or_default();
    growth::slot_time_left(pulse, slot, rate)
}

fn slot_loss(known: &Known<'_>, link: &Link) -> Option<String> {
    // A disk that is full in a month is no news at night.
    const SOON: Duration = Duration::from_secs(7 * 24 * 3600);
    let (left, end) = slot_time_left(known, link)?;
    if end == End::DiskFull && left > SOON {
        return None;
    }
    let (source, left) = (known.registry.node_name(link.from), time(left));
    Some(match end {
        End::SlotLost => format!(
            "at the present rate its slot on \"{source}\" is lost in {left} (max_slot_wal_keep_size)"
        ),
        End::DiskFull => format!("at the present rate the disk of \"{source}\" is full in {left}"),
    })
}

/// What links of the same kind between the same nodes tell about the way between them.
fn siblings(known: &Known<'_>, link: &Link) -> Vec<String> {
    let kind = link.spec.kind();
    let is_sibling = |other: &&Link| {
        other.id != link.id
            && (other.from, other.to, other.spec.kind()) == (link.from, link.to, kind)
            && other.state != LinkState::Removing
    };
    let states =
        known.registry.links.iter().filter(is_sibling).filter_map(|other| {
            Some((other.name.as_str(), known.links.get(&other.id)?.health.state))
        });
    let (well, ill): (Vec<_>, Vec<_>) =
        states.filter(|(_, s)| s.is_well() || s.is_trouble()).partition(|(_, s)| s.is_well());
    let mut facts = Vec::new();
    if let Some((name, _)) = well.first() {
        facts.push(format!(
            "link \"{name}\" between the same nodes is well: network and password are good"
        ));
    } else if let Some((name, state)) = ill.first() {
        let state = state.label();
        facts.push(format!("link \"{name}\" between the same nodes is {state} too"));
    }
    facts
}

/// Limits of both nodes that the link runs into.
fn tight_rooms<'a>(known: &Known<'a>, link: &Link) -> Vec<&'a Room> {
    let nodes = [link.from, link.to].map(|id| known.nodes.get(&id));
    let rooms = nodes.into_iter().flatten().flat_map(|node| node.rooms);
    // Sessions that query foreign tables are all that such a link needs.
    let foreign = matches!(link.spec, Spec::Foreign(_));
    let concerns = |room: &&Room| (room.setting == "max_connections") == foreign;
    rooms.filter(|room| room.is_tight()).filter(concerns).collect()
}

fn room_fact(known: &Known<'_>, room: &Room) -> String {
    format!(
        "\"{}\" uses {} of {} {}; its links need {} ({})",
        known.registry.node_name(room.node),
        room.used,
        room.limit,
        room.resource,
        room.needed,
        room.setting
    )
}
