//! Asks the other members of this server's group whether it has a successor, and has the server
//! take writes, or none, by what they say.

use super::events::Event;
use super::state::State;
use crate::catalog;
use crate::gate;
use crate::pg::membership::Successor;
use crate::pg::spi;
use nodes_plan::desired::{NodeId, Spec};
use nodes_plan::node_health::NodeState;
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use nodes_plan::superseded::{Standing, standing};
use nodes_plan::transition::Severity;

#[derive(Default)]
pub struct Watch {
    /// What the gate was told last.
    told: Option<Standing>,
}

impl Watch {
    /// Takes in what the members said last.
    pub fn turn(&mut self, state: &mut State, database: u32) {
        let standing = state.standing();
        let is_settled = gate::state() == gate::State::Open || standing == Standing::Unconfirmed;
        if self.told != Some(standing) || !is_settled {
            self.told = Some(standing);
            let event = tell_gate(state, database, standing);
            state.events.extend(event);
        }
        self.tell_overdue(state);
        if gate::state() == gate::State::Superseded {
            disable_subscriptions(state);
        }
    }

    /// Said once after a start, by a worker whose registry has a group.
    fn tell_overdue(&self, state: &mut State) {
        if self.told == Some(Standing::Alone) {
            return;
        }
        gate::open_if_overdue();
        if gate::take_overdue() {
            let event = unconfirmed(state);
            state.events.push(event);
        }
    }
}

fn tell_gate(state: &State, database: u32, standing: Standing) -> Option<Event> {
    match standing {
        Standing::Alone => gate::leave(database).then(confirmed),
        Standing::Confirmed => gate::confirm(database).then(confirmed),
        Standing::Unconfirmed => {
            gate::join(database);
            None
        }
        Standing::Superseded { by, timeline } => {
            let node = state.nodes.get(&by)?.name.clone();
            let successor = Successor { node, timeline };
            gate::supersede(database, &successor).then(|| superseded(successor))
        }
    }
}

impl State {
    /// What the members of its group say of this server.
    fn standing(&self) -> Standing {
        let Some(rows) = &self.rows else { return Standing::Unconfirmed };
        // A copy of a registry is nobody's member.
        let Some(desired) = &self.desired else { return Standing::Alone };
        let has_group = rows.links.iter().any(|link| matches!(link.spec, Spec::Standby(_)));
        let pulse_of = |id: NodeId| self.nodes.get(&id)?.answer();
        let starting = !gate::state().admits();
        match self.myself() {
            _ if !has_group => Standing::Alone,
            Some((me, _)) => match standing(&desired.registry, me, starting, pulse_of) {
                Standing::Alone => Standing::Alone,
                // Its recovery gives a standby its place.
                _ if spi::in_recovery() => Standing::Confirmed,
                standing => standing,
            },
            // All answer, and this is none of them.
            None if self.nodes.values().all(|node| node.watch.state() == NodeState::Up) => {
                Standing::Alone
            }
            None => Standing::Unconfirmed,
        }
    }
}

/// A subscription has one reader, and that is the successor now.
fn disable_subscriptions(state: &mut State) {
    let Some((me, node)) = state.myself() else { return };
    let (Some(desired), Some(pulse)) = (&state.desired, &node.pulse) else { return };
    let links = desired.registry.links.iter();
    let read_here =
        links.filter(|link| link.to == me && matches!(link.spec, Spec::Subscription(_)));
    let enabled = |name: &&str| pulse.subscription(name).is_some_and(|s| s.enabled);
    let names: Vec<String> =
        read_here.map(|link| link.name.as_str()).filter(enabled).map(str::to_owned).collect();
    if !names.is_empty() {
        // What fails is tried again after the next heartbeat; commits are refused meanwhile.
        let disable = |name: &String| Operation::DisableSubscription { name: name.clone() };
        state.write(|| {
            names.iter().try_for_each(|name| catalog::run_step(render(&disable(name)).text()))
        });
    }
}

fn of_this_server(
    node: Option<String>,
    kind: &'static str,
    severity: Severity,
    message: String,
    hint: Option<&str>,
) -> Event {
    let hint = hint.map(str::to_owned);
    Event { node, link: None, kind, severity, message, rule: "", hint }
}

fn superseded(successor: Successor) -> Event {
    let message = format!("this server is superseded and takes no writes: {successor}");
    let hint = "CALL nodes.rejoin() on the primary of its group makes this server a standby.";
    let (kind, severity) = ("superseded", Severity::Critical);
    of_this_server(Some(successor.node), kind, severity, message, Some(hint))
}

fn confirmed() -> Event {
    let message = "this server has no successor any more and takes writes again".to_owned();
    of_this_server(None, "confirmed", Severity::Info, message, None)
}

fn unconfirmed(state: &State) -> Event {
    let silent = state.nodes.values().filter(|node| !node.watch.state().answers());
    let silent: Vec<String> = silent.map(|node| format!("\"{}\"", node.name)).collect();
    let why = match silent.as_slice() {
        [] => String::new(),
        names => format!(", because these nodes do not answer: {}", names.join(", ")),
    };
    let message =
        format!("this server takes writes, and nobody has said that it has no successor{why}");
    let hint = "See to it that no other member of its group was promoted.";
    of_this_server(None, "unconfirmed", Severity::Warning, message, Some(hint))
}
