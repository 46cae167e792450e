//! What must be taken back when an error of Postgres, a cancel above all, ends some work.

use pgrx::PgTryBuilder;
use std::panic::AssertUnwindSafe;

/// Runs `work`; where Postgres raises an error meanwhile, runs `undo` before the error goes on.
/// `undo` may wait, and may use no SQL of this session: its transaction has failed.
pub fn or_undo<T>(work: impl FnOnce() -> T, undo: impl FnOnce()) -> T {
    let undo = AssertUnwindSafe(std::cell::Cell::new(Some(undo)));
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(move |error| {
            let undo = &undo;
            if let Some(undo) = undo.take() {
                undo();
            }
            error.rethrow()
        })
        .execute()
}
