//! Which node is this server? Found by asking, never stored: a standby carries the same
//! registry.

use super::desired::Desired;
use crate::catalog;
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::Sessions;
use crate::observe::session::{Session, Target};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use nodes_plan::desired::NodeId;
use std::collections::BTreeMap;

/// Asked here by SPI and there by libpq: equal for one server and one database only.
pub const IDENTITY: &str = "SELECT system_identifier::text || '/' || \
     extract(epoch FROM pg_postmaster_start_time())::text || '/' || current_database() \
     FROM pg_control_system()";

/// Asks all nodes at once and returns the first that turns out to be this server.
pub fn this_node(desired: &Desired) -> Result<NodeId> {
    let here = catalog::identity()?;
    let (found, tried) = reactor::block_on(async {
        let asked = desired.targets().into_iter().map(async |(target, _)| {
            let answer = ask(&target).await;
            (target, answer)
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut tried = Vec::new();
        while let Some((target, answer)) = asked.next().await {
            match answer {
                Ok(there) if there == here => return (Some(target.id), tried),
                Ok(_) => tried.push(format!("\"{}\" is another server", target.name)),
                Err(error) => tried.push(format!("\"{}\": {error}", target.name)),
            }
        }
        (None, tried)
    });
    found.ok_or(Error::NotRegistered { tried })
}

/// Whether a node is this server; of one that does not answer it is not known.
pub fn is_here(desired: &Desired, node: NodeId) -> Result<bool> {
    let here = catalog::identity()?;
    let mut targets = desired.targets().into_iter().map(|(target, _)| target);
    let Some(target) = targets.find(|target| target.id == node) else {
        return Ok(false);
    };
    let there = reactor::block_on(ask(&target));
    Ok(there.is_ok_and(|there| there == here))
}

async fn ask(target: &Target) -> Result<String> {
    identity(&mut Session::open(target).await?).await
}

/// What every open session's server says; one that does not answer is left out.
pub async fn of_all(sessions: &mut Sessions) -> BTreeMap<NodeId, String> {
    let asked = sessions.iter_mut().map(async |(node, session)| {
        let answer = identity(session).await.ok();
        answer.map(|answer| (*node, answer))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn identity(session: &mut Session) -> Result<String> {
    let answer = session.connection.query(IDENTITY, &[]).await?;
    Ok(answer.value(0, 0).unwrap_or_default().to_owned())
}
