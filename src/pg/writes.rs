//! Where Postgres asks whether a transaction that has written may commit, and where it tells a new
//! session whether it may write (xact.c, auth.c).

use super::process;
use crate::gate::{self, State};
use pgrx::pg_sys::libpq::be::Port;
use pgrx::pg_sys::libpq::{ClientAuthentication_hook, ClientAuthentication_hook_type};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use std::ffi::{c_char, c_int, c_void};

static mut PREVIOUS: ClientAuthentication_hook_type = None;

/// Has every commit and every new session ask from now on. Only from `_PG_init` in the
/// postmaster, from which all processes have it.
pub fn install() {
    // SAFETY: the postmaster has one thread; the callback lives as long as the process, and the
    // hook is its own to chain.
    unsafe {
        pg_sys::RegisterXactCallback(Some(before_commit), std::ptr::null_mut());
        PREVIOUS = ClientAuthentication_hook;
        ClientAuthentication_hook = Some(on_authentication);
    }
}

/// Raises an error where the transaction must not commit: it is rolled back then.
#[pg_guard]
unsafe extern "C-unwind" fn before_commit(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as E;
    let before = matches!(event, E::XACT_EVENT_PRE_COMMIT | E::XACT_EVENT_PRE_PREPARE);
    // SAFETY: reads the state of this process.
    let has_written =
        || unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
    if before && has_written() {
        admit();
    }
}

/// Returns when what has been written may be committed; raises an error where it must not.
pub fn admit() {
    if let Err(error) = gate::admit() {
        ErrorReport::from(error).report(PgLogLevel::ERROR);
    }
}

/// Clients that look for a server to write to (`target_session_attrs`) go on to the next one.
#[pg_guard]
unsafe extern "C-unwind" fn on_authentication(port: *mut Port, status: c_int) {
    // SAFETY: what Postgres passes goes on as it came.
    unsafe {
        if let Some(previous) = PREVIOUS {
            pg_guard_ffi_boundary(|| previous(port, status));
        }
    }
    if gate::state() == State::Superseded {
        process::set_own_setting(c"default_transaction_read_only", "on");
    }
}

/// Defines `pg_nodes.superseded_by`. Only from `_PG_init`.
pub fn define_setting() {
    process::define_shown_setting(
        c"pg_nodes.superseded_by",
        c"The node that has taken this server's place as the primary of its group.",
        c"Where it is not empty, this server takes no writes.",
        pg_sys::GUC_DISALLOW_IN_FILE,
        show,
    );
}

/// What `current_setting()` says. Nothing here can fail or raise an error.
unsafe extern "C-unwind" fn show() -> *const c_char {
    process::shown(gate::superseded_by())
}
