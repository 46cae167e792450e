//! The room that disks have, and what they do in one step; the room of this server's WAL as a setting that is read and never kept:
//! whoever may connect can ask for it, in any database, with or without the extension.

use super::process;
use pgrx::pg_sys;
use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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
    // Every process of a server works in its data directory.
    let free = free_bytes(Path::new("pg_wal"));
    process::shown(free.map_or(String::new(), |bytes| bytes.to_string()))
}

/// What a process without privileges may still write below a path.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: plain data, filled where the call succeeds; the path is a C string.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        let known = libc::statvfs(path.as_ptr(), &mut stat) == 0;
        known.then(|| (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }
}

/// Has two paths of one file system change their names, in one step.
pub fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (one, other) = (one?, other?);
    let (here, how) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both paths are C strings, which the call only reads.
    match unsafe { libc::renameat2(here, one.as_ptr(), here, other.as_ptr(), how) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
