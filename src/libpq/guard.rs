//! Two versions of libpq in one process call each other's functions and crash it (an 18 server
//! with libpq 15 loaded first dies in `dblink_cancel_query`). Checked before the first
//! connection; several copies of one version are fine.

use super::error::{Cause, Error};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::OnceLock;

/// Refuses where more than one version of libpq is mapped.
pub fn check() -> Result<(), Error> {
    static CHECKED: OnceLock<Result<(), Error>> = OnceLock::new();
    CHECKED.get_or_init(look).clone()
}

fn look() -> Result<(), Error> {
    // The server's own user of libpq, so that its copy is mapped before we look.
    // SAFETY: loads a module that ships with every server.
    unsafe { pgrx::pg_sys::load_file(c"libpqwalreceiver".as_ptr(), false) };
    let found: Vec<(String, i32)> = mapped().into_iter().filter_map(version).collect();
    let versions: BTreeSet<i32> = found.iter().map(|(_, version)| *version).collect();
    if versions.len() <= 1 {
        return Ok(());
    }
    let list: Vec<String> = found.iter().map(|(path, v)| format!("{path} is {v}")).collect();
    Err(Error {
        cause: Cause::Other,
        sqlstate: Some("0A000".to_owned()),
        message: "two versions of libpq are loaded into this server process".to_owned(),
        detail: Some(format!("{}.", list.join(", "))),
        hint: Some("Build pg_nodes with the pg_config of this very server.".to_owned()),
    })
}

/// Paths of every libpq in this process.
fn mapped() -> Vec<String> {
    unsafe extern "C" fn each(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a valid entry; `found` is the vector given below.
        let (path, found) = unsafe {
            (CStr::from_ptr((*info).dlpi_name).to_string_lossy(), &mut *found.cast::<Vec<String>>())
        };
        let file = path.rsplit('/').next().unwrap_or_default();
        if file.starts_with("libpq.so") || file.starts_with("libpq-") {
            found.push(path.into_owned());
        }
        0
    }
    let mut found: Vec<String> = Vec::new();
    // SAFETY: the callback neither unwinds nor keeps the pointer.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut found).cast()) };
    found
}

fn version(path: String) -> Option<(String, i32)> {
    let name = CString::new(path.as_str()).ok()?;
    // SAFETY: NOLOAD only finds what is mapped; the symbol has this signature in every libpq.
    unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if handle.is_null() {
            return None;
        }
        let symbol = libc::dlsym(handle, c"PQlibVersion".as_ptr());
        let version = (!symbol.is_null())
            .then(|| std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(symbol)());
        libc::dlclose(handle);
        version.map(|version| (path, version))
    }
}
