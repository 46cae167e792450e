//! Who is calling, and acting as the owner of the registry for a moment.

use pgrx::pg_sys;
use std::ffi::CStr;

/// What holds while the owner acts: a `search_path` that no caller can poison, no plan in the log,
/// since it may hold a password, and numbers written out as nodes write them.
const OWN_SETTINGS: [(&CStr, &CStr); 5] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"extra_float_digits", c"1"),
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
];

/// Runs `work` with the rights of the bootstrap superuser and settings of our own, as a `SECURITY
/// DEFINER` function would; a procedure that commits may not be one. An error inside ends in a
/// transaction abort, which restores both.
pub fn as_owner<T>(work: impl FnOnce() -> T) -> T {
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the out-pointers live on this stack; the settings' names and values are static.
    let level = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut role, &mut context);
        let inside = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), inside);
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in OWN_SETTINGS {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        level
    };
    let result = work();
    // SAFETY: restores what was read above, in reverse order.
    unsafe {
        pg_sys::AtEOXact_GUC(true, level);
        pg_sys::SetUserIdAndSecContext(role, context);
    }
    result
}

/// Whether the caller is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: a look-up in the caller's transaction.
    unsafe { pg_sys::superuser() }
}

/// The caller's role.
pub fn current_role() -> String {
    // SAFETY: `GetUserNameFromId` returns a palloc'd C string for an id that exists.
    let name = unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)) };
    name.to_string_lossy().into_owned()
}
