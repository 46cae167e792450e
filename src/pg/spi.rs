//! SQL in this server: parameters and answers are text, rights are the registry owner's.

use super::user::as_owner;
use super::{extension, xact};
use crate::error::{Error, Result};
use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys};
use std::ffi::{CStr, CString};

fn arguments<'a>(args: &'a [Option<&'a str>]) -> Vec<DatumWithOid<'a>> {
    args.iter().map(|arg| DatumWithOid::from(*arg)).collect()
}

/// The first column of the first row. Reads only: assigns no transaction id, so it works on a
/// standby.
pub fn read_text(sql: &str, args: &[Option<&str>]) -> Result<Option<String>> {
    as_owner(|| {
        Spi::connect(|client| {
            let rows = client.select(sql, Some(1), &arguments(args))?;
            Ok(if rows.is_empty() { None } else { rows.first().get_one()? })
        })
    })
}

/// Changes rows of the registry.
pub fn write(sql: &str, args: &[Option<&str>]) -> Result<()> {
    as_owner(|| {
        Spi::connect_mut(|client| {
            client.update(sql, None, &arguments(args))?;
            Ok(())
        })
    })
}

/// Changes rows and returns the first column of the first one, where the statement has
/// `RETURNING` and did something.
pub fn write_returning(sql: &str, args: &[Option<&str>]) -> Result<Option<String>> {
    as_owner(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(sql, None, &arguments(args))?;
            Ok(if rows.is_empty() { None } else { rows.first().get_one()? })
        })
    })
}

/// Runs `work` on the registry and commits, in a background worker or in a procedure that
/// [`call_is_atomic`] has let through; an error where the extension is gone. The commit is asynchronous: what is written so (logs, events, forgotten
/// links) can be found out again, and a commit that waited for a synchronous standby could wait
/// for the one being made.
pub fn in_own_transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    if xact::is_open() { in_procedure(work) } else { xact::run(|| on_registry(work)) }
}

fn in_procedure<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the procedure was called outside a transaction block; connect, commit and finish
    // are paired, and an error in between aborts the transaction, which closes the connection.
    unsafe {
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        let result = on_registry(work);
        if result.is_ok() {
            pg_sys::SPI_commit();
        }
        pg_sys::SPI_finish();
        result
    }
}

fn on_registry<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !extension::hold() {
        return Err(Error::Dropped);
    }
    set_local(c"synchronous_commit", "off");
    work()
}

/// As `SET LOCAL`: until the end of the transaction.
pub fn set_local(name: &'static CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: within a transaction; both strings live until the call returns.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Whether a procedure was called where it cannot commit.
pub fn call_is_atomic(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: Postgres passes a valid fcinfo; its context is a node, of which the tag tells
    // whether it is a CallContext.
    unsafe {
        let context = (*fcinfo).context.cast::<pg_sys::CallContext>();
        context.is_null()
            || (*context.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_CallContext
            || (*context).atomic
    }
}

/// Whether this server is a standby.
pub fn in_recovery() -> bool {
    // SAFETY: reads a flag.
    unsafe { pg_sys::RecoveryInProgress() }
}
