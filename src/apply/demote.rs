//! A server is made to return as a standby: told whom to follow, by the very settings that the
//! rules of a standby link would give it, and restarted by itself.

use super::desired::Desired;
use super::leader::{call, open};
use crate::clone::demote::{Ability, Action, Demotion};
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::Session;
use crate::pg::process;
use crate::shmem;
use nodes_plan::clone::{Recipe, recipe};
use nodes_plan::desired::{Link, NodeId, Registry};
use nodes_plan::lsn::Lsn;
use nodes_plan::name::Mark;
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);
/// What ends on its own may take so long to be gone.
const SLOT_LIMIT: Duration = Duration::from_secs(10);

/// How a server will follow by a link of a registry that may be one to come.
pub fn recipe_for(registry: &Registry, link: &Link, session: &Session) -> Result<Recipe> {
    let major = session.connection.server_version() / 10_000;
    recipe(registry, link, major)
        .ok_or_else(|| Error::UnknownLink { name: link.name.clone(), known: vec![] })
}

/// What the server is able to do; or why it cannot be asked.
pub async fn ability(
    session: &mut Session,
    demotion: &Demotion,
) -> std::result::Result<Ability, String> {
    let said = call(session, FUNCTION, Action::Check, demotion).await;
    let said = said.map_err(|error| match &error {
        Error::Peer(peer) if matches!(peer.sqlstate.as_deref(), Some("42883" | "3F000")) => {
            "it has no pg_nodes in the database that its conninfo names".to_owned()
        }
        _ => error.to_string(),
    })?;
    serde_json::from_str(&said).map_err(|error| error.to_string())
}

const FUNCTION: &str = "nodes.demote_step";

/// Tells the server whom to follow after its next start.
pub async fn tell(session: &mut Session, recipe: &Recipe) -> Result<()> {
    let passfile = recipe.passfile.clone();
    let passfile = passfile.map(|content| Operation::WritePassfile { content });
    let settings = recipe
        .settings
        .iter()
        .map(|(setting, value)| Operation::AlterSystem { setting, value: Some(value.clone()) });
    for operation in passfile.into_iter().chain(settings) {
        session.connection.simple(render(&operation).text()).await?;
    }
    Ok(())
}

/// Ends the node's server; it returns by itself.
pub async fn restart(session: &mut Session, node: NodeId, demotion: &Demotion) -> Result<()> {
    shmem::announce_restart(process::database(), node);
    match call(session, FUNCTION, Action::Restart, demotion).await {
        // It may be gone before it has answered.
        Err(Error::Peer(error)) if matches!(error.sqlstate.as_deref(), Some("57P01" | "08006")) => {
            Ok(())
        }
        done => done.map(|_| ()),
    }
}

/// Has a server that still runs as a primary stay one at its next start.
pub async fn cancel(session: &mut Session, demotion: &Demotion) -> Result<()> {
    call(session, FUNCTION, Action::Cancel, demotion).await.map(|_| ())
}

/// Has a server that runs on a copy of its own take away what it was before.
pub async fn finish(session: &mut Session, demotion: &Demotion) -> Result<()> {
    call(session, FUNCTION, Action::Finish, demotion).await.map(|_| ())
}

/// How far a standby has replayed. Its settings do not count: somebody who applies meanwhile takes
/// from a primary what makes it follow.
async fn replayed(desired: &Desired, node: NodeId) -> Result<Option<Lsn>> {
    const REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() WHERE pg_is_in_recovery()";
    let answer = open(desired, node).await?.connection.query(REPLAYED, &[]).await?;
    Ok(answer.value(0, 0).and_then(Lsn::parse))
}

/// Waits until the server has returned as a standby, and tells how far its WAL goes.
pub async fn await_standby(desired: &Desired, node: NodeId, deadline: Instant) -> Result<Lsn> {
    loop {
        let why = match replayed(desired, node).await {
            Ok(Some(replayed)) => return Ok(replayed),
            Ok(None) => "it is not a standby yet".to_owned(),
            Err(error) => desired.redact(&error.to_string()),
        };
        if Instant::now() > deadline {
            let node = desired.registry.node_name(node);
            return Err(Error::Timeout(format!("\"{node}\" to return as a standby ({why})")));
        }
        reactor::sleep(PAUSE).await;
    }
}

/// Whether a standby streams from the session's server by a link's mark.
pub async fn streams(session: &mut Session, mark: &str) -> Result<bool> {
    const STREAMING: &str =
        "SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
    Ok(!session.connection.query(STREAMING, &[Some(mark)]).await?.is_empty())
}

/// Waits until a standby has replayed so far.
pub async fn await_replay(
    desired: &Desired,
    node: NodeId,
    position: Lsn,
    deadline: Instant,
) -> Result<()> {
    const REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn";
    let mut session = open(desired, node).await?;
    let position = position.to_string();
    while session.connection.query(REPLAYED, &[Some(&position)]).await?.value(0, 0) != Some("t") {
        if Instant::now() > deadline {
            let node = desired.registry.node_name(node);
            return Err(Error::Timeout(format!("\"{node}\" to replay up to {position}")));
        }
        reactor::sleep(PAUSE).await;
    }
    Ok(())
}

/// Makes the slot that the server will read, unless it is there.
pub async fn make_slot(session: &mut Session, slot: &str) -> Result<()> {
    const FOUND: &str = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1";
    if session.connection.query(FOUND, &[Some(slot)]).await?.is_empty() {
        let create = Operation::CreatePhysicalSlot { slot: slot.to_owned() };
        session.connection.simple(render(&create).text()).await?;
    }
    Ok(())
}

/// Ends whoever reads a slot, and waits for it.
pub async fn end_reader(session: &mut Session, slot: &str) -> Result<()> {
    const END: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
         WHERE slot_name = $1 AND active";
    let started = Instant::now();
    while !session.connection.query(END, &[Some(slot)]).await?.is_empty() {
        if started.elapsed() > SLOT_LIMIT {
            return Err(Error::Timeout(format!("the reader of slot \"{slot}\" to end")));
        }
        reactor::sleep(PAUSE).await;
    }
    Ok(())
}

/// Drops a slot that is there; its reader is ended.
pub async fn drop_slot(session: &mut Session, slot: &str) -> Result<()> {
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE slot_name = $1";
    end_reader(session, slot).await?;
    session.connection.query(DROP, &[Some(slot)]).await?;
    Ok(())
}

/// Drops the slots of this registry on a server that is a primary no more, or soon none: nobody
/// reads them there again. Whose reader does not let go is left.
pub async fn drop_stale_slots(session: &mut Session, desired: &Desired) -> Result<()> {
    const STALE: &str = "FROM pg_replication_slots WHERE starts_with(slot_name::text, $1) \
         AND NOT temporary AND coalesce(to_jsonb(pg_replication_slots) ->> 'synced', '') <> 'true'";
    let prefix = Mark::slot_prefix(&desired.registry.id);
    let prefix = [Some(prefix.as_str())];
    let drop = format!("SELECT pg_drop_replication_slot(slot_name) {STALE} AND NOT active");
    let left = format!("SELECT 1 {STALE}");
    let started = Instant::now();
    loop {
        session.connection.query(&drop, &prefix).await?;
        let none = session.connection.query(&left, &prefix).await?.is_empty();
        if none || started.elapsed() > SLOT_LIMIT {
            return Ok(());
        }
        reactor::sleep(PAUSE * 5).await;
    }
}
