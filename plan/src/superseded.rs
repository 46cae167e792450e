//! Whether a server may still write: one that was the primary of a group and comes back, or was
//! cut off, may have a successor.

use crate::desired::{NodeId, Registry};
use crate::group::Groups;
use crate::observed::World;
use crate::pulse::Pulse;

/// What the members of its group say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is in no group.
    Alone,
    /// Every other member was asked, and none is further.
    Confirmed,
    /// A member that was not heard may be further.
    Unconfirmed,
    /// A member is on a higher timeline, see [`standing`]: it was promoted in this server's place,
    /// or follows who was.
    Superseded { by: NodeId, timeline: i64 },
}

/// Judges the server that is the node `me` by what the members of its group said last.
/// `pulse_of` gives `None` for a node that does not answer or is not the server it should be.
/// `starting`: it has taken no write since its start. One that finds a primary on its own timeline
/// then has a successor as well: a crash can end a promotion before its timeline begins.
pub fn standing<'a>(
    registry: &Registry,
    me: NodeId,
    starting: bool,
    pulse_of: impl Fn(NodeId) -> Option<&'a Pulse>,
) -> Standing {
    let nobody = World::default();
    let groups = Groups::of(registry, &nobody);
    let Some(group) = groups.get(me) else { return Standing::Alone };
    // Of one that was a standby a moment ago the timeline is not known yet.
    let mine = pulse_of(me).filter(|pulse| !pulse.in_recovery);
    let Some(mine) = mine else { return Standing::Unconfirmed };
    let others = || group.members.iter().map(|node| node.id).filter(|id| *id != me);
    let same = |pulse: &&Pulse| pulse.system_identifier == mine.system_identifier;
    let further = others()
        .filter_map(|id| Some((id, pulse_of(id).filter(same)?)))
        .filter(|(_, pulse)| {
            let writes_it = starting && !pulse.in_recovery && pulse.timeline == mine.timeline;
            writes_it || pulse.timeline > mine.timeline
        })
        // The one that writes is the better name for it.
        .max_by_key(|(id, pulse)| (pulse.timeline, !pulse.in_recovery, std::cmp::Reverse(*id)));
    match further {
        Some((by, pulse)) => Standing::Superseded { by, timeline: pulse.timeline },
        None if others().all(|id| pulse_of(id).is_some_and(|pulse| same(&pulse))) => {
            Standing::Confirmed
        }
        None => Standing::Unconfirmed,
    }
}
