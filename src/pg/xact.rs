//! Transactions of a background worker, which has none around it (postgres.c, xact.c).

use crate::error::{Error, Result};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Whether a transaction is open: always in a session that runs a statement.
pub fn is_open() -> bool {
    // SAFETY: reads the state of this process.
    unsafe { pg_sys::IsTransactionState() }
}

/// Runs `work` in a transaction of its own and commits it, or rolls back where `work` fails or
/// Postgres raises an error, which becomes ours. A termination is none: it ends the process.
///
/// `work` runs in a subtransaction: the abort of a whole transaction would release the locks
/// that the process holds as a session, too (`ProcReleaseLocks`, proc.c).
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = catch(|| {
        begin();
        let outcome = catch(work).flatten();
        end_subtransaction(outcome.is_ok());
        commit();
        outcome
    });
    if outcome.is_err() {
        abort();
    }
    outcome.flatten()
}

/// The outcome of `work`; an error that Postgres raises becomes ours.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|error| Err(of_caught(error)))
        .execute()
}

fn of_caught(error: CaughtError) -> Error {
    match error {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => Error::Local {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
        },
    }
}

fn begin() {
    // SAFETY: no transaction is open in this process.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
    }
}

fn end_subtransaction(good: bool) {
    // SAFETY: pairs with `begin`.
    unsafe {
        if good {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
    }
}

fn commit() {
    // SAFETY: pairs with `begin`.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
    }
}

fn abort() {
    // SAFETY: leaves whatever transaction state there is, as an error in a session would.
    unsafe { pg_sys::AbortOutOfAnyTransaction() }
}
