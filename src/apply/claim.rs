//! Who is about to change which server is the primary, or what a server is in its group: no two
//! calls do so at once, wherever they are made. A call claims the server by a lock there, which
//! ends with the call's session or with the server's restart.

use super::desired::Desired;
use super::leader::open;
use crate::error::{Error, Result};
use crate::observe::session::Session;
use nodes_plan::desired::NodeId;
use pgrx::PgSqlErrorCode as Code;

/// The session of a call that has just ended may still be there for a moment.
const CLAIM: &str = "SET lock_timeout = '2s'; \
     SELECT pg_advisory_lock(hashtext('pg_nodes role')::bigint); RESET lock_timeout";

const TRY: &str = "SELECT pg_try_advisory_lock(hashtext('pg_nodes role')::bigint)";

/// A key of one bigint is shown in two halves (the manual's chapter on `pg_locks`). Anybody can take
/// this lock; that of a role that could change nothing counts for nothing.
const CLAIMANT: &str = "SELECT format('process %s there (role %I, since %s)', l.pid, r.rolname, \
         date_trunc('second', a.backend_start)) \
     FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_roles r ON r.oid = a.usesysid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND (l.classid::bigint << 32 | l.objid::bigint) = hashtext('pg_nodes role')::bigint \
     AND (r.rolsuper OR r.rolname = current_user)";

const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Holds the lock.
pub struct Claim(#[expect(dead_code, reason = "it is there to be closed")] Session);

/// `None`: the server does not answer; whoever asks what it is tells of that.
pub async fn claim(desired: &Desired, node: NodeId) -> Result<Option<Claim>> {
    let Ok(mut session) = open(desired, node).await else { return Ok(None) };
    claim_by(&mut session, desired.registry.node_name(node)).await?;
    Ok(Some(Claim(session)))
}

/// Claims the server of a session for as long as that lasts.
pub async fn claim_by(session: &mut Session, name: &str) -> Result<()> {
    let Err(error) = session.connection.simple(CLAIM).await else { return Ok(()) };
    if error.sqlstate.as_deref() != Some(LOCK_NOT_AVAILABLE) {
        return Err(error.into());
    }
    let Some(who) = claimant(session).await? else {
        // It was let go just now, or counts for nothing.
        return Ok(session.connection.simple(TRY).await?);
    };
    Err(Error::Refused {
        code: Code::ERRCODE_LOCK_NOT_AVAILABLE,
        message: format!("another call is changing what \"{name}\" is"),
        detail: Some(format!("It is made by {who}.")),
        hint: "Wait for its end. One whose caller is gone ends with pg_terminate_backend() there.",
    })
}

/// Who has claimed a server, in words.
pub async fn claimant(session: &mut Session) -> Result<Option<String>> {
    let answer = session.connection.query(CLAIMANT, &[]).await?;
    Ok(answer.value(0, 0).map(str::to_owned))
}
