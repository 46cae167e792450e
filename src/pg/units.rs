//! Values with units, read as the settings of postgresql.conf are (`parse_int`, guc.c).

use pgrx::pg_sys;
use std::ffi::{CStr, CString};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Seconds,
    Kilobytes,
    Megabytes,
}

impl Unit {
    /// As it is written behind a number.
    pub fn label(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Kilobytes => "kB",
            Unit::Megabytes => "MB",
        }
    }
}

/// Reads `250ms`, `5min`, `16MB`, or a plain number of the unit; the error is Postgres' hint,
/// where it has one.
pub fn parse(text: &str, unit: Unit) -> Result<i32, Option<String>> {
    let flags = match unit {
        Unit::Milliseconds => pg_sys::GUC_UNIT_MS,
        Unit::Seconds => pg_sys::GUC_UNIT_S,
        Unit::Kilobytes => pg_sys::GUC_UNIT_KB,
        Unit::Megabytes => pg_sys::GUC_UNIT_MB,
    };
    let Ok(text) = CString::new(text) else { return Err(None) };
    let (mut value, mut hint) = (0, std::ptr::null());
    // SAFETY: the text is a C string and both pointers are valid; the hint is a static string.
    unsafe {
        if pg_sys::parse_int(text.as_ptr(), &mut value, flags as _, &mut hint) {
            return Ok(value);
        }
        Err((!hint.is_null()).then(|| CStr::from_ptr(hint).to_string_lossy().into_owned()))
    }
}
