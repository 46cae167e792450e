//! The room that the disk of this server's WAL has, as a setting that is read and never kept:
//! whoever may connect can ask for it, in any database, with or without the extension.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// Defines `pg_nodes.wal_free_bytes`. Only from `_PG_init`.
pub fn define_setting() {
    // Postgres wants a place for the value that is never used.
    static mut NOTHING: *mut c_char = std::ptr::null_mut();
    // SAFETY: all strings are static; Postgres alone uses the place.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            c"pg_nodes.wal_free_bytes".as_ptr(),
            c"Bytes that are free on the disk of this server's WAL.".as_ptr(),
            std::ptr::null(),
            &raw mut NOTHING,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_INTERNAL,
            (pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_DISALLOW_IN_FILE) as i32,
            None,
            None,
            Some(show),
        );
    }
}

thread_local! {
    static SHOWN: RefCell<CString> = RefCell::default();
}

/// What `current_setting()` says. Nothing here can fail or raise an error.
unsafe extern "C-unwind" fn show() -> *const c_char {
    let text = free_bytes().map_or(String::new(), |bytes| bytes.to_string());
    SHOWN.with_borrow_mut(|shown| {
        *shown = CString::new(text).unwrap_or_default();
        shown.as_ptr()
    })
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
