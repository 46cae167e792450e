//! Has links follow the primary that a failover manager has chosen: only the registry changes, and
//! what follows from it is a plan like any other.

use super::events::Event;
use super::state::State;
use crate::apply::promote::{PRIMARY_CHANGED, changed, rewrite};
use nodes_plan::desired::NodeId;
use nodes_plan::promotion::OldPrimary;
use nodes_plan::takeover::{Takeover, takeovers};
use nodes_plan::transition::Severity;

impl State {
    /// Moves the links of groups whose primary is another member now.
    pub fn follow_managers(&mut self) {
        let (Some(desired), Some(rows)) = (self.desired.clone(), self.rows.clone()) else { return };
        let pulse_of = |id: NodeId| self.nodes.get(&id)?.answer();
        let identity_of = |id: NodeId| {
            let row = rows.nodes.iter().find(|row| row.id == id)?;
            row.system_identifier.as_deref()
        };
        for Takeover { old, new } in takeovers(&desired.registry, pulse_of, identity_of) {
            let (old, new) = (rows.node_name(old), rows.node_name(new));
            let mut moved = 0;
            let done = self.write(|| {
                moved = rewrite(new, old, OldPrimary::Follows)?;
                Ok(())
            });
            // Until the rows are read again, they say what they said.
            if done && moved > 0 {
                self.events.push(taken_over(old, new, moved));
            }
        }
    }
}

fn taken_over(old: &str, new: &str, moved: usize) -> Event {
    Event {
        node: Some(new.to_owned()),
        link: None,
        kind: PRIMARY_CHANGED,
        severity: Severity::Warning,
        message: changed(new, old, moved),
        rule: "",
        hint: None,
    }
}
