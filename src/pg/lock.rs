//! One `nodes.apply()` at a time: a session-level advisory lock, which a commit does not
//! release and the end of the backend does.

use super::spi;
use crate::error::Result;
use pgrx::{IntoDatum, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// `nodes_ap` in ASCII.
const KEY: i64 = 0x6e6f_6465_735f_6170;

/// Runs `work` while holding the lock; waits for another run, saying whose it is.
pub fn with_apply_lock<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    acquire()?;
    let work = AssertUnwindSafe(work);
    PgTryBuilder::new(AssertUnwindSafe(move || {
        let result = { work }.0();
        release();
        result
    }))
    .catch_others(|error| {
        release();
        error.rethrow()
    })
    .execute()
}

/// Takes the lock if nobody has it; the holder releases it.
pub fn try_acquire() -> Result<bool> {
    spi::in_own_transaction(|| take(&KEY.to_string()))
}

fn take(key: &str) -> Result<bool> {
    let got = spi::read_text("SELECT pg_try_advisory_lock($1::bigint)::text", &[Some(key)])?;
    Ok(got.as_deref() == Some("true"))
}

fn acquire() -> Result<()> {
    let key = KEY.to_string();
    spi::in_own_transaction(|| {
        if take(&key)? {
            return Ok(());
        }
        let holder = spi::read_text(HOLDER, &[Some(&key)])?;
        if let Some(holder) = holder {
            pgrx::notice!("waiting for nodes.apply() of {holder}");
        }
        spi::read_text("SELECT pg_advisory_lock($1::bigint)::text", &[Some(&key)]).map(|_| ())
    })
}

/// Who holds the lock, in words.
const HOLDER: &str = "SELECT format('process %s (role %I, since %s)', l.pid, a.usename, \
     date_trunc('second', a.query_start)) FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND l.classid = ($1::bigint >> 32)::bigint::oid \
     AND l.objid = ($1::bigint & 4294967295)::bigint::oid \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Gives the lock back.
pub fn release() {
    // SAFETY: releasing a session lock that this backend holds needs no transaction and raises
    // no error (`LockRelease`, lock.c): it is safe while an error is being handled.
    unsafe {
        pgrx::direct_function_call::<bool>(pg_sys::pg_advisory_unlock_int8, &[KEY.into_datum()]);
    }
}
