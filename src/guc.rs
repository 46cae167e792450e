//! Settings of pg_nodes.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static STEP_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(300_000);

/// How long one address of a node may take to answer a connection attempt.
pub fn connect_timeout() -> Duration {
    Duration::from_millis(CONNECT_TIMEOUT.get().unsigned_abs().into())
}

/// `statement_timeout` on the nodes; zero: none.
pub fn step_timeout() -> Duration {
    Duration::from_millis(STEP_TIMEOUT.get().unsigned_abs().into())
}

/// Defines the settings; they exist whether the library is preloaded or not.
pub fn init() {
    GucRegistry::define_int_guc(
        c"pg_nodes.connect_timeout",
        c"How long one address of a node may take to answer a connection attempt.",
        c"All nodes are asked at the same time, so that silent ones cost this only once.",
        &CONNECT_TIMEOUT,
        100,
        600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.step_timeout",
        c"How long one statement of nodes.apply() may take on a node; 0 for ever.",
        c"Becomes statement_timeout of the sessions that pg_nodes opens.",
        &STEP_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    // SAFETY: called from _PG_init with a static C string.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"pg_nodes".as_ptr()) };
}
