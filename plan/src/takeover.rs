//! Groups whose primary a failover manager chooses: which member it has made the primary, by what
//! all of them say.

use crate::desired::{NodeId, Registry};
use crate::group::{Group, Groups};
use crate::observed::World;
use crate::pulse::Pulse;

/// A primary whose place another member has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    pub old: NodeId,
    pub new: NodeId,
}

/// What has changed hands. `pulse_of` gives `None` for a node that does not answer or is not the
/// server it should be; `identity_of` the system identifier of a node, as far as it is known.
pub fn takeovers<'a>(
    registry: &Registry,
    pulse_of: impl Fn(NodeId) -> Option<&'a Pulse>,
    identity_of: impl Fn(NodeId) -> Option<&'a str>,
) -> Vec<Takeover> {
    let nobody = World::default();
    let groups = Groups::of(registry, &nobody);
    let takeover = |group: &Group<'_>| {
        let old = group.members.first()?.id;
        let identity = identity_of(old)?;
        let primaries = group.members.iter().filter_map(|member| {
            let pulse = pulse_of(member.id).filter(|pulse| !pulse.in_recovery)?;
            (pulse.system_identifier == identity).then_some((pulse.timeline, member.id))
        });
        // Who was promoted last is on the highest timeline.
        let (_, new) = primaries.max_by_key(|(timeline, id)| (*timeline, *id == old))?;
        (new != old).then_some(Takeover { old, new })
    };
    groups.unmanaged().filter_map(takeover).collect()
}
