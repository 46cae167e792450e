//! The extension as an object of the database: held while its tables are worked with, and
//! followed when it comes and goes.

use pgrx::pg_sys;
use std::ffi::CStr;

const NAME: &CStr = c"pg_nodes";

/// Whether the database has the extension; if so, nobody drops it until the transaction ends.
/// `DROP EXTENSION` locks it before its tables, so does this: neither waits for the other in
/// the middle.
pub fn hold() -> bool {
    // SAFETY: look-ups within a transaction; the lock is released at its end.
    unsafe {
        let mut oid = pg_sys::get_extension_oid(NAME.as_ptr(), true);
        while oid != pg_sys::InvalidOid {
            let share = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, oid, 0, share);
            // It may have been dropped, and made again, while this waited.
            let found = pg_sys::get_extension_oid(NAME.as_ptr(), true);
            if found == oid {
                return true;
            }
            oid = found;
        }
    }
    false
}

/// Whether an object is the extension. Within a transaction.
pub fn is(class: pg_sys::Oid, object: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in a catalog.
    class == pg_sys::ExtensionRelationId
        && unsafe { pg_sys::get_extension_oid(NAME.as_ptr(), true) } == object
}
