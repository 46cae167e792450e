//! Who a failover manager has made the primary.

use nodes_plan::desired::*;
use nodes_plan::pulse::Pulse;
use nodes_plan::takeover::{Takeover, takeovers};
use std::collections::BTreeMap;

const PARIS: NodeId = 1;
const OSLO: NodeId = 2;
const ROME: NodeId = 3;

/// Paris with oslo and rome.
fn registry(spec: fn() -> StandbySpec) -> Registry {
    let node = |id| (id, Node { id, name: format!("node {id}"), ..Node::default() });
    let link = |(id, to)| Link {
        id,
        name: format!("link {id}"),
        from: PARIS,
        to,
        state: LinkState::Active,
        spec: Spec::Standby(spec()),
        keep_data: true,
    };
    let links = [(1, OSLO), (2, ROME)].map(link).into();
    Registry { nodes: [PARIS, OSLO, ROME].map(node).into(), links, ..Registry::default() }
}

fn pulse(timeline: i64, in_recovery: bool) -> Pulse {
    Pulse { system_identifier: "7".to_owned(), timeline, in_recovery, ..Pulse::default() }
}

fn found_in(
    registry: &Registry,
    pulses: &[(NodeId, Pulse)],
    identity: Option<&str>,
) -> Vec<Takeover> {
    let pulses: BTreeMap<_, _> = pulses.iter().cloned().collect();
    takeovers(registry, |id| pulses.get(&id), |_| identity)
}

fn found(pulses: &[(NodeId, Pulse)]) -> Vec<Takeover> {
    found_in(&registry(StandbySpec::unmanaged), pulses, Some("7"))
}

#[test]
fn a_standby_that_was_promoted_takes_over() {
    let oslo = [Takeover { old: PARIS, new: OSLO }];
    assert_eq!(found(&[(OSLO, pulse(2, false)), (ROME, pulse(1, true))]), oslo, "paris is silent");
    assert_eq!(found(&[(PARIS, pulse(2, true)), (OSLO, pulse(2, false))]), oslo, "paris follows");
    assert_eq!(
        found(&[(PARIS, pulse(1, false)), (OSLO, pulse(2, false))]),
        oslo,
        "paris is behind"
    );
    let twice = [(OSLO, pulse(2, false)), (ROME, pulse(3, false))];
    assert_eq!(found(&twice), [Takeover { old: PARIS, new: ROME }]);
}

#[test]
fn nobody_takes_over_without_a_promotion() {
    assert_eq!(found(&[]), []);
    assert_eq!(found(&[(PARIS, pulse(1, false)), (OSLO, pulse(1, true))]), []);
    assert_eq!(found(&[(OSLO, pulse(1, true)), (ROME, pulse(1, true))]), []);
    assert_eq!(found(&[(PARIS, pulse(2, false)), (OSLO, pulse(2, false))]), [], "who was it stays");
    assert_eq!(found(&[(PARIS, pulse(3, false)), (OSLO, pulse(2, false))]), []);
    let stranger = Pulse { system_identifier: "8".to_owned(), ..pulse(2, false) };
    assert_eq!(found(&[(OSLO, stranger)]), []);
}

/// Of a group that is ours a person decides; and nobody is taken for a member unseen.
#[test]
fn only_what_is_known_and_unmanaged_moves() {
    let oslo = [(OSLO, pulse(2, false))];
    assert_eq!(found_in(&registry(StandbySpec::unmanaged), &oslo, None), []);
    assert_eq!(found_in(&registry(|| StandbySpec::new(true)), &oslo, Some("7")), []);
}
