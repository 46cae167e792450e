//! What SQL sees: functions of a few lines that check, call the other rooms and answer.

mod ask;
mod clone;
mod explain;
mod failover;
mod group;
mod link;
mod node;
mod plan;
mod promote;
mod seen;
mod status;
mod trust;
mod wake;

use crate::apply;
use crate::catalog::{Origin, Rows};
use crate::error::{Error, Result};
use crate::observe;
use crate::pg::spi;
use crate::pg::units::{self, Unit};
use crate::pg::user;
use nodes_plan::commits;
use nodes_plan::name::check_name;
use pgrx::{JsonB, PgSqlErrorCode};
use serde_json::Value;
use std::collections::BTreeMap;

fn checked_name(name: &str) -> Result<()> {
    check_name(name).map_err(|why| Error::BadName { name: name.to_owned(), why })
}

/// A standby shows the registry of its primary and changes nothing.
fn check_writable(call: &'static str) -> Result<()> {
    if spi::in_recovery() { Err(Error::InRecovery(call)) } else { Ok(()) }
}

/// A passive copy of a registry stays as it is.
fn check_active(call: &'static str) -> Result<()> {
    check_writable(call)?;
    apply::check_active(&Origin::load()?)?;
    pass_waiting_commits()
}

/// The registry, for calls that change it.
fn active_rows(call: &'static str) -> Result<Rows> {
    check_writable(call)?;
    let rows = Rows::load()?;
    apply::check_active(&rows.origin)?;
    pass_waiting_commits()?;
    Ok(rows)
}

/// Where commits wait for standbys that do not answer, the caller's does not: it may be the one that
/// says that they are not to be waited for any more.
fn pass_waiting_commits() -> Result<()> {
    const NAMES: &str = "SELECT nullif(current_setting('synchronous_standby_names'), '')";
    const WAITS: &str =
        "SELECT 'yes' WHERE current_setting('synchronous_commit') NOT IN ('off', 'local')";
    if spi::read_text(NAMES, &[])?.is_none() || spi::read_text(WAITS, &[])?.is_none() {
        return Ok(());
    }
    let pulse = observe::own_pulse(|sql| spi::read_text(sql, &[]))?;
    if commits::blocked(&pulse, commits::PATIENCE).is_some() {
        spi::set_local(c"synchronous_commit", "local");
    }
    Ok(())
}

/// What nobody is to do but superusers, whatever is granted.
fn check_superuser(call: &str, why: &str) -> Result<()> {
    if user::is_superuser() {
        return Ok(());
    }
    Err(Error::Refused {
        code: PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        message: format!("{call} is for superusers"),
        detail: Some(why.to_owned()),
        hint: "Ask a superuser to call it.",
    })
}

/// `options => '{"fetch_size": 100}'`: an object whose values are plain.
fn plain_options(options: JsonB) -> Result<BTreeMap<String, String>> {
    let bad = |option: &str, why: &str| Error::BadOption { option: option.into(), why: why.into() };
    let Value::Object(map) = options.0 else {
        return Err(bad("options", "It must be a JSON object."));
    };
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Bool(_) | Value::Number(_) => Ok((key, value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(bad(&key, "It must be a string, a number, true or false."))
            }
        })
        .collect()
}

/// A value with a unit among JSON options: a string that a setting would take, or a number of
/// the unit. Negative ones and those below `least` are refused.
fn with_unit(option: &str, value: &str, unit: Unit, least: i32) -> Result<u64> {
    let bad = |why: String| Error::BadOption { option: option.to_owned(), why };
    let number = units::parse(value, unit)
        .map_err(|hint| bad(hint.unwrap_or_else(|| "It must be a number with a unit.".into())))?;
    u64::try_from(number)
        .ok()
        .filter(|_| number >= least)
        .ok_or_else(|| bad(format!("It must be at least {least} {}.", unit.label())))
}
