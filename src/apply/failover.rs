//! Which standbys could take the place of their primaries now: asks every node that has links,
//! and judges by the planner's rules.

use super::desired::Desired;
use crate::guc;
use crate::libpq::reactor;
use crate::observe::{self, Sessions};
use futures_util::future::join_all;
use nodes_plan::desired::{Link, LinkId, LinkState, NodeId, Spec};
use nodes_plan::failover::{
    Evidence, LogicalSlot, Reason, Side, lag_bytes, logical_slots, obstacles,
};
use std::collections::BTreeMap;

/// What there is to say of one standby link.
pub struct Verdict {
    pub link: LinkId,
    pub lag_bytes: Option<u64>,
    /// None: it is ready.
    pub reasons: Vec<Reason>,
    pub slots: Vec<SlotVerdict>,
}

/// What there is to say of one logical slot of the primary.
pub struct SlotVerdict {
    pub slot: String,
    /// The subscription link that reads it.
    pub subscription: Option<String>,
    /// Those of the standby's reasons that are about it.
    pub reasons: Vec<Reason>,
}

/// Judges every standby link that is to stay.
pub fn judge(desired: &Desired, limits: &BTreeMap<LinkId, Option<u64>>) -> Vec<Verdict> {
    let (world, sides, plan) = reactor::block_on(async {
        let targets = desired.linked_targets();
        let (world, mut sessions) = super::ask(desired, &targets, Sessions::new()).await;
        let plan = nodes_plan::plan(&desired.registry, &world);
        let sides = sides(desired, &mut sessions).await;
        (world, sides, plan)
    });
    let standby =
        |link: &&Link| matches!(link.spec, Spec::Standby(_)) && link.state != LinkState::Removing;
    let judged = desired.registry.links.iter().filter(standby).map(|link| {
        let (from, to) = (world.silence(link.from), world.silence(link.to));
        let side = |node: NodeId, silence: &'_ str| match sides.get(&node) {
            Some(Ok(side)) => Ok(side.clone()),
            Some(Err(why)) => Err(why.clone()),
            None => Err(desired.redact(silence)),
        };
        let (primary, standby) = (side(link.from, &from), side(link.to, &to));
        let evidence = Evidence {
            registry: &desired.registry,
            link,
            primary: primary.as_ref().map_err(String::as_str),
            standby: standby.as_ref().map_err(String::as_str),
            plan: &plan,
            max_lag_bytes: limits.get(&link.id).copied().flatten(),
        };
        Verdict {
            link: link.id,
            lag_bytes: lag_bytes(&evidence),
            reasons: obstacles(&evidence),
            slots: slots(&evidence),
        }
    });
    judged.collect()
}

fn slots(evidence: &Evidence<'_>) -> Vec<SlotVerdict> {
    let verdict = |(found, reasons): (LogicalSlot<'_>, Vec<Reason>)| SlotVerdict {
        slot: found.slot.name.clone(),
        subscription: found.subscription.map(str::to_owned),
        reasons,
    };
    logical_slots(evidence).into_iter().map(verdict).collect()
}

type Sides = BTreeMap<NodeId, Result<Side, String>>;

/// Asks every open session at the same time.
async fn sides(desired: &Desired, sessions: &mut Sessions) -> Sides {
    let asked = sessions.iter_mut().map(async |(node, session)| {
        let side = async {
            let pulse = observe::pulse(session).await?.pulse;
            let readiness = observe::readiness(session).await?;
            Ok::<_, crate::error::Error>(Side { pulse, readiness })
        };
        (*node, side.await.map_err(|error| desired.redact(&error.to_string())))
    });
    join_all(asked).await.into_iter().collect()
}

/// The most that a standby may be behind, by link.
pub fn lag_limits(rows: &crate::catalog::Rows) -> BTreeMap<LinkId, Option<u64>> {
    rows.links.iter().map(|row| (row.id, guc::link_limits(&row.limits).max_lag_bytes)).collect()
}
