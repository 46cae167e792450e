//! The databases of this server, read without being connected to any of them, as autovacuum's
//! launcher does (`get_database_list`, autovacuum.c).

use super::xact;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A database that sessions may connect to.
pub struct Database {
    pub oid: u32,
    pub name: String,
}

/// All of them, in a transaction of its own.
pub fn all() -> Result<Vec<Database>> {
    xact::run(|| Ok(scan()))
}

fn scan() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: a sequential scan of a shared catalog within a transaction, as Postgres' own
    // launchers do it; the tuple is valid until the next one is asked for.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let data = (*tuple).t_data;
            let form = data.cast::<u8>().add((*data).t_hoff as usize);
            let form = &*form.cast::<pg_sys::FormData_pg_database>();
            if form.datallowconn && form.datconnlimit != INVALID_DATABASE {
                let name = CStr::from_ptr(form.datname.data.as_ptr());
                found.push(Database {
                    oid: form.oid.to_u32(),
                    name: name.to_string_lossy().into_owned(),
                });
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// `datconnlimit` of a database whose removal was interrupted (pg_database.h; 15 has it since a
/// minor release).
const INVALID_DATABASE: i32 = -2;
