//! The room that the disk of this server's WAL has, as a setting that is read and never kept:
//! whoever may connect can ask for it, in any database, with or without the extension.

use super::process;
use pgrx::pg_sys;
use std::ffi::c_char;

/// Defines `pg_nodes.wal_free_bytes`. Only from `_PG_init`.
pub fn define_setting() {
    process::define_shown_setting(
        c"pg_nodes.wal_free_bytes",
        c"Bytes that are free on the disk of this server's WAL.",
        c"",
        pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_DISALLOW_IN_FILE,
        show,
    );
}

/// What `current_setting()` says. Nothing here can fail or raise an error.
unsafe extern "C-unwind" fn show() -> *const c_char {
    process::shown(free_bytes().map_or(String::new(), |bytes| bytes.to_string()))
}

/// What is left for a process without privileges; every process of a server works in its data
/// directory.
fn free_bytes() -> Option<u64> {
    // SAFETY: plain data, filled where the call succeeds.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        let known = libc::statvfs(c"pg_wal".as_ptr(), &mut stat) == 0;
        known.then(|| (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }
}
