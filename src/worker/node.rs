//! One node's task: keeps a connection open and sends heartbeats through it, and between them
//! the question for everything that is planned by. Ends only when it is dropped.

use super::backoff::Backoff;
use super::state::Shared;
use crate::error::Error;
use crate::libpq::error::Cause;
use crate::libpq::reactor::{self, Elapsed};
use crate::observe;
use crate::observe::session::Session;
use futures_util::future::{self, Either};
use nodes_plan::desired::NodeId;
use nodes_plan::node_health::{Failure, FailureKind};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the question for everything may take.
const INVENTORY_LIMIT: Duration = Duration::from_secs(30);

/// While another server answers, its address is looked up and connected to anew this often: an
/// address that leads elsewhere is often put right where we do not see it, in a name server.
const ELSEWHERE_LIMIT: Duration = Duration::from_secs(5);

/// Watches a node for as long as it is polled.
pub async fn watch(shared: Shared, id: NodeId) {
    let mut backoff = Backoff::default();
    loop {
        // What is rare has its own memory, not a part of every node's.
        match Box::pin(open(&shared, id)).await {
            Ok(session) => {
                shared.connected(id);
                let Err(failure) = keep(&shared, id, session, &mut backoff).await else {
                    continue;
                };
                shared.failed(id, failure);
            }
            Err(failure) => shared.failed(id, failure),
        }
        // A nudge says that the node may be back.
        let pause = pin!(reactor::sleep(backoff.next()));
        let nudge = shared.nudge(id);
        future::select(pause, pin!(nudge.taken())).await;
    }
}

/// Each look-up and each address has `connect_timeout`: one that is dead takes nothing from the
/// next.
async fn open(shared: &Shared, id: NodeId) -> Result<Session, Failure> {
    let Some(target) = shared.target(id) else {
        return Err(Failure::new(FailureKind::NoAddress, "it is not registered any more"));
    };
    Session::open(&target).await.map_err(|error| failure(&error, FailureKind::of_connect))
}

/// Sends heartbeats until the connection is of no more use, or leads to another server for long.
async fn keep(
    shared: &Shared,
    id: NodeId,
    mut session: Session,
    backoff: &mut Backoff,
) -> Result<(), Failure> {
    let opened = Instant::now();
    let mut label: Rc<str> = "".into();
    loop {
        let begun = Instant::now();
        beat(shared, id, &mut session).await?;
        backoff.reset();
        name_session(shared, &mut session, &mut label).await?;
        advance_slots(shared, id, &mut session).await?;
        if let Some(wanted) = shared.wants_inventory(id) {
            Box::pin(take_inventory(shared, id, wanted, &mut session)).await?;
        }
        rest(shared, id, &mut session, begun).await?;
        if shared.is_another_server(id) && opened.elapsed() >= ELSEWHERE_LIMIT {
            return Ok(());
        }
    }
}

async fn beat(shared: &Shared, id: NodeId, session: &mut Session) -> Result<(), Failure> {
    let begun = Instant::now();
    let limit = shared.limits(id).patience();
    match reactor::timeout(limit, observe::pulse(session)).await {
        Ok(Ok(beat)) => {
            shared.answered(id, beat, begun.elapsed());
            Ok(())
        }
        Ok(Err(error)) => Err(failure(&error, FailureKind::of_query)),
        Err(Elapsed) => Err(Failure::new(FailureKind::Silent, "a heartbeat was not answered")),
    }
}

/// Tells the peer's `pg_stat_activity` who watches it, once that is known.
async fn name_session(
    shared: &Shared,
    session: &mut Session,
    label: &mut Rc<str>,
) -> Result<(), Failure> {
    let wanted = shared.label();
    if wanted == *label {
        return Ok(());
    }
    let renamed = session.rename(&wanted).await;
    *label = wanted;
    renamed.map_err(|error| failure(&Error::Peer(error), FailureKind::of_query))
}

/// Moves on what nobody reads yet. What the node refuses is tried again after the next heartbeat:
/// one that replays slowly lets a slot go no further than it is itself.
async fn advance_slots(shared: &Shared, id: NodeId, session: &mut Session) -> Result<(), Failure> {
    const ADVANCE: &str = "SELECT pg_replication_slot_advance($1, $2::pg_lsn)";
    for (slot, position) in shared.slots_behind(id) {
        let position = position.to_string();
        let advanced = session.connection.query(ADVANCE, &[Some(&slot), Some(&position)]).await;
        if let Err(error) = advanced
            && error.sqlstate.is_none()
        {
            return Err(failure(&Error::Peer(error), FailureKind::of_query));
        }
    }
    Ok(())
}

async fn take_inventory(
    shared: &Shared,
    id: NodeId,
    wanted: u64,
    session: &mut Session,
) -> Result<(), Failure> {
    let interest = shared.interest(id);
    match reactor::timeout(INVENTORY_LIMIT, observe::facts(session, &interest)).await {
        Ok(Ok(facts)) => {
            shared.took_inventory(id, wanted, facts);
            Ok(())
        }
        Ok(Err(error)) => Err(failure(&error, FailureKind::of_query)),
        Err(Elapsed) => {
            Err(Failure::new(FailureKind::Silent, "it did not tell what it has in time"))
        }
    }
}

/// Waits until it is time for the next heartbeat. A connection that ends meanwhile is noticed
/// at once; a nudge asks for a heartbeat now.
async fn rest(
    shared: &Shared,
    id: NodeId,
    session: &mut Session,
    begun: Instant,
) -> Result<(), Failure> {
    let next = shared.next_heartbeat(id, begun);
    let nudge = shared.nudge(id);
    let (sleep, nudged) = (pin!(reactor::sleep_until(next)), pin!(nudge.taken()));
    let lost = pin!(session.connection.until_lost());
    match future::select(future::select(sleep, nudged), lost).await {
        Either::Left(_) => Ok(()),
        Either::Right((error, _)) => Err(failure(&Error::Peer(error), |sqlstate| {
            match FailureKind::of_query(sqlstate) {
                // Without a word of the peer's own the connection is simply gone.
                FailureKind::Faulty => FailureKind::Lost,
                kind => kind,
            }
        })),
    }
}

/// An error as the node's watch understands it.
fn failure(error: &Error, of_sqlstate: impl Fn(&str) -> FailureKind) -> Failure {
    let (kind, sqlstate) = match error {
        Error::Peer(peer) => {
            let kind = match (&peer.sqlstate, peer.cause) {
                (_, Cause::Descriptors) => FailureKind::NoResources,
                (Some(sqlstate), _) if sqlstate.starts_with("08") => FailureKind::Lost,
                (Some(sqlstate), _) => of_sqlstate(sqlstate),
                (None, Cause::Name) => FailureKind::NoAddress,
                (None, Cause::Refused) => FailureKind::NobodyListens,
                (None, Cause::Certificate) => FailureKind::Rejected,
                (None, Cause::Silent) => FailureKind::Silent,
                (None, Cause::Other) => FailureKind::Faulty,
            };
            (kind, peer.sqlstate.clone())
        }
        Error::PasswordMissing(_) | Error::PasswordUnused(_) => (FailureKind::Rejected, None),
        Error::NoSessions(_) => (FailureKind::Rejected, Some(error.sqlstate())),
        _ => (FailureKind::Faulty, None),
    };
    Failure { sqlstate, ..Failure::new(kind, error.to_string()) }
}
