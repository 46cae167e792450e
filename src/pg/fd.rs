//! Descriptors that Postgres does not open itself but must count (fd.c, `AcquireExternalFD`).

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// One reserved descriptor, given back on drop.
#[derive(Debug)]
pub struct ExternalFd(());

impl ExternalFd {
    /// `None` when a third of `max_files_per_process` is reserved already.
    pub fn reserve() -> Option<Self> {
        // SAFETY: only counts; it neither throws nor touches memory of ours.
        unsafe { pg_sys::AcquireExternalFD() }.then(|| ExternalFd(()))
    }
}

impl Drop for ExternalFd {
    fn drop(&mut self) {
        // SAFETY: infallible, and paired with the reservation.
        unsafe { pg_sys::ReleaseExternalFD() }
    }
}

/// What to do when none is left.
pub const EXHAUSTED: &str = "too many open files in this server process";
pub const EXHAUSTED_HINT: &str = "Raise max_files_per_process.";

/// Ends the transaction: without a descriptor nothing can be waited for.
pub fn raise_exhausted() -> ! {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES;
    ErrorReport::new(code, EXHAUSTED, "").set_hint(EXHAUSTED_HINT).report(PgLogLevel::ERROR);
    unreachable!("an ERROR unwinds")
}
