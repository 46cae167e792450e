//! `nodes.promote()`, and what it has the new primary do.

use super::{active_rows, check_superuser};
use crate::apply::promote;
use crate::error::Error;
use crate::pg::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// A link takes passwords along to the server that it leads to: to move links is to say where.
const WHY_SUPERUSER: &str = "The passwords of nodes go where their links go.";

#[pg_extern(
    name = "promote",
    sql = "
CREATE PROCEDURE nodes.promote(name text, force boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn promote_node(
    name: Option<&str>,
    force: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    check_superuser("nodes.promote()", WHY_SUPERUSER)?;
    // On a standby too: that is where the registry of a dead primary can be read.
    if spi::call_is_atomic(fcinfo) {
        return Err(Error::InTransactionBlock("nodes.promote()").into());
    }
    let name = name.ok_or_else(|| Error::BadOption {
        option: "name".to_owned(),
        why: "It cannot be NULL.".to_owned(),
    })?;
    Ok(promote::promote(name, force.unwrap_or(false))?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn move_links(old_primary: &str, new_primary: &str) -> std::result::Result<String, ErrorReport> {
    check_superuser("nodes.move_links()", WHY_SUPERUSER)?;
    active_rows("nodes.move_links()")?;
    let moved = promote::rewrite(new_primary, old_primary)?;
    Ok(format!("{moved} links of \"{old_primary}\" are of \"{new_primary}\" now"))
}
