//! `nodes.promote()`, and what it has the new primary do.

use super::clone::checked_rate;
use super::plan::duration;
use super::{active_rows, check_superuser};
use crate::apply::{promote, rejoin, switchover};
use crate::clone::demote::{self, Action, Demotion};
use crate::clone::swap;
use crate::error::{Error, Result};
use crate::pg::spi;
use nodes_plan::promotion::OldPrimary;
use pgrx::JsonB;
use pgrx::datum::Interval;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::Duration;

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
fn move_links(
    old_primary: &str,
    new_primary: &str,
    follows: default!(bool, false),
) -> std::result::Result<String, ErrorReport> {
    check_superuser("nodes.move_links()", WHY_SUPERUSER)?;
    active_rows("nodes.move_links()")?;
    let becomes = if follows { OldPrimary::Follows } else { OldPrimary::IsGone };
    let moved = promote::rewrite_and_tell(new_primary, old_primary, becomes)?;
    Ok(format!("{moved} links of \"{old_primary}\" are of \"{new_primary}\" now"))
}

#[pg_extern(sql = "
CREATE PROCEDURE nodes.switchover(
  new_primary text,
  timeout interval DEFAULT '1 minute',
  force boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
fn switchover(
    new_primary: Option<&str>,
    timeout: Option<Interval>,
    force: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    check_superuser("nodes.switchover()", WHY_SUPERUSER)?;
    let (name, timeout) = checked("nodes.switchover()", new_primary, timeout, fcinfo)?;
    Ok(switchover::switchover(name, timeout, force.unwrap_or(false))?)
}

/// The arguments that both calls take.
fn checked<'a>(
    call: &'static str,
    name: Option<&'a str>,
    timeout: Option<Interval>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(&'a str, Duration)> {
    if spi::call_is_atomic(fcinfo) {
        return Err(Error::InTransactionBlock(call));
    }
    let null = || Error::BadOption {
        option: "its arguments".to_owned(),
        why: "None can be NULL.".to_owned(),
    };
    let (name, timeout) = name.zip(timeout).ok_or_else(null)?;
    Ok((name, duration(timeout)?))
}

#[pg_extern(
    name = "rejoin",
    sql = "
CREATE PROCEDURE nodes.rejoin(
  name text,
  timeout interval DEFAULT '1 hour',
  copy boolean DEFAULT true,
  max_rate text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn rejoin_node(
    name: Option<&str>,
    timeout: Option<Interval>,
    copy: Option<bool>,
    max_rate: Option<&str>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    check_superuser("nodes.rejoin()", WHY_SUPERUSER)?;
    let (name, timeout) = checked("nodes.rejoin()", name, timeout, fcinfo)?;
    let max_rate = max_rate.map(checked_rate).transpose()?.flatten();
    let request = rejoin::Request { name, timeout, copy: copy.unwrap_or(true), max_rate };
    Ok(rejoin::rejoin(&request)?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn demote_step(action: &str, task: JsonB) -> std::result::Result<String, ErrorReport> {
    check_superuser("nodes.demote_step()", "It restarts the server.")?;
    let read = |source| Error::Json { context: "a demotion", source };
    let action: Action = serde_json::from_value(action.into()).map_err(read)?;
    let demotion: Demotion = serde_json::from_value(task.0).map_err(read)?;
    let said = match action {
        Action::Check => serde_json::to_string(&demote::check(&demotion)).map_err(read)?,
        Action::Restart => demote::restart(&demotion).map(|()| "restarting".to_owned())?,
        Action::Finish => swap::finish(&demotion.mark).map(|()| "finished".to_owned())?,
        Action::Cancel => demote::cancel().map(|()| "cancelled".to_owned())?,
    };
    Ok(said)
}
