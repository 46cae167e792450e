//! Which node is this server? Found by asking, never stored: a standby carries the same
//! registry.

use super::desired::Desired;
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::{Session, Target};
use crate::pg::user;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nodes_plan::desired::NodeId;

/// Asked here by SPI and there by libpq: equal for one server and one database only.
pub const IDENTITY: &str = "SELECT system_identifier::text || '/' || \
     extract(epoch FROM pg_postmaster_start_time())::text || '/' || current_database() \
     FROM pg_control_system()";

/// Asks all nodes at once and returns the first that turns out to be this server. What a node
/// says of itself binds only a caller who is not a superuser, unless a superuser vouches for it:
/// else anybody's server could pass for this one and be given what this one is to have.
/// `here` is [`crate::catalog::identity`].
pub fn this_node(desired: &Desired, here: &str) -> Result<NodeId> {
    let targets = desired.targets().into_iter().map(|(target, _)| target);
    let believed = |target: &Target| !(target.password_required && user::is_superuser());
    let (asked, others): (Vec<_>, Vec<_>) = targets.partition(believed);
    let (found, mut tried) = reactor::block_on(async {
        let asked = asked.into_iter().map(async |target| {
            let answer = ask(&target).await;
            (target, answer)
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut tried = Vec::new();
        while let Some((target, answer)) = asked.next().await {
            match answer {
                Ok(there) if there == here => return (Some(target.id), tried),
                Ok(_) => tried.push(format!("\"{}\" is another server", target.name)),
                Err(error) => {
                    let why = desired.redact(&error.to_string());
                    tried.push(format!("\"{}\": {why}", target.name));
                }
            }
        }
        (None, tried)
    });
    let unasked = |target: &Target| format!("no superuser vouches for \"{}\"", target.name);
    tried.extend(others.iter().map(unasked));
    found.ok_or(Error::NotRegistered { tried })
}

/// Whether a node is this server; of one that does not answer it is not known.
/// `here` is [`crate::catalog::identity`].
pub fn is_here(desired: &Desired, here: &str, node: NodeId) -> Result<bool> {
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

async fn identity(session: &mut Session) -> Result<String> {
    let answer = session.connection.query(IDENTITY, &[]).await?;
    Ok(answer.value(0, 0).unwrap_or_default().to_owned())
}
