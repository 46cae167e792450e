//! One call of a kind at a time: locks of the session, which a commit does not release and the
//! end of the backend does. They are on objects that no SQL command locks in this way (tables
//! have a kind of lock of their own), so that nobody can keep others out on purpose.

use super::spi;
use crate::error::{Error, Result};
use nodes_plan::desired::LinkId;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// What only one session does at a time.
#[derive(Clone, Copy)]
pub enum Work {
    /// Whatever changes links.
    Apply,
    /// The clone that becomes the standby of a link.
    Clone(LinkId),
}

impl Work {
    fn call(self) -> &'static str {
        match self {
            Work::Apply => "nodes.apply()",
            Work::Clone(_) => "nodes.clone_standby()",
        }
    }
}

/// The lock, held until this is dropped.
pub struct SessionLock(pg_sys::LOCKTAG);

impl Drop for SessionLock {
    fn drop(&mut self) {
        // An ERROR that unwinds ends in an abort, which releases locks of the session too
        // (`ProcReleaseLocks`, proc.c).
        if !std::thread::panicking() {
            // SAFETY: ours; where it is not held, `LockRelease` only warns.
            unsafe { pg_sys::LockRelease(&self.0, MODE, true) };
        }
    }
}

/// Runs `work` while holding the lock; waits for another run, saying whose it is. The wait is
/// part of `limit`, and `work` is told how much of it is left.
pub fn with_apply_lock<T>(
    limit: Option<Duration>,
    work: impl FnOnce(Option<Duration>) -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let _lock = acquire(Work::Apply, limit)?;
    work(limit.map(|limit| limit.saturating_sub(started.elapsed())))
}

/// Takes the lock where it is free. Within a transaction.
pub fn try_acquire(work: Work) -> Option<SessionLock> {
    let tag = tag(work);
    // SAFETY: a valid tag; no wait, so nothing to clean up after.
    let got = unsafe { pg_sys::LockAcquire(&tag, MODE, true, true) };
    // Dropped, it would be released: it must not even be made where it is not held.
    (got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL).then(|| SessionLock(tag))
}

/// Waits for the lock, saying whose it is, no longer than `limit`.
pub fn acquire(work: Work, limit: Option<Duration>) -> Result<SessionLock> {
    spi::in_own_transaction(|| {
        if let Some(lock) = try_acquire(work) {
            return Ok(lock);
        }
        let tag = tag(work);
        let object = [tag.locktag_field2, tag.locktag_field3].map(|field| field.to_string());
        let holder = spi::read_text(HOLDER, &object.each_ref().map(|field| Some(&**field)))?;
        let holder = holder.unwrap_or_else(|| "another session".to_owned());
        pgrx::notice!("waiting for {} of {holder}", work.call());
        let limited = limit.is_some_and(set_lock_timeout);
        let wait = || {
            // SAFETY: a valid tag; an error while waiting cleans up after itself.
            unsafe { pg_sys::LockAcquire(&tag, MODE, true, false) };
            Ok(SessionLock(tag))
        };
        PgTryBuilder::new(AssertUnwindSafe(wait))
            .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |error| match limited {
                // Raised as an error of our own, which ends the transaction as this one would.
                true => Err(Error::Busy { call: work.call(), holder: holder.clone() }),
                false => error.rethrow(),
            })
            .execute()
    })
}

/// As `SET LOCAL lock_timeout`; a shorter one of the caller stays, and this returns false.
fn set_lock_timeout(limit: Duration) -> bool {
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: reads a setting.
    let own = unsafe { pg_sys::LockTimeout };
    if own > 0 && own <= limit {
        return false;
    }
    spi::set_local(c"lock_timeout", &limit.to_string());
    true
}

/// As for a database object (`SET_LOCKTAG_OBJECT`, lock.h): of the catalog of relations the
/// registry, of the table of links, as if it were a catalog, a row.
fn tag(work: Work) -> pg_sys::LOCKTAG {
    let table = |name: &CStr| {
        // SAFETY: look-ups in the caller's transaction.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"nodes".as_ptr(), false);
            pg_sys::get_relname_relid(name.as_ptr(), schema).to_u32()
        }
    };
    let (class, object) = match work {
        Work::Apply => (pg_sys::RelationRelationId.to_u32(), table(c"registry")),
        Work::Clone(link) => (table(c"link"), link.cast_unsigned()),
    };
    pg_sys::LOCKTAG {
        // SAFETY: a variable that is set since the start.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: class,
        locktag_field3: object,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Who holds the lock, in words.
const HOLDER: &str = "SELECT format('process %s (role %I, since %s)', l.pid, a.usename, \
     date_trunc('second', a.query_start)) FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
     WHERE l.locktype = 'object' AND l.granted AND l.objsubid = 0 \
     AND l.classid = $1::oid AND l.objid = $2::oid \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
