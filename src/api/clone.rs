//! `nodes.clone_standby()`, and what it has another server do.

use super::link::standby_options;
use super::plan::check_call;
use super::{check_superuser, checked_name, plain_options, with_unit};
use crate::apply::clone::{Request, clone_standby as make_clone};
use crate::clone::{self, Action, Task};
use crate::error::{Error, Result};
use crate::pg::units::Unit;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, pg_sys};
use std::path::Path;

#[pg_extern(sql = "
CREATE PROCEDURE nodes.clone_standby(
  name text,
  primary_node text,
  data_directory text,
  port integer DEFAULT 5432,
  on_node text DEFAULT NULL,
  conninfo text DEFAULT NULL,
  admin_conninfo text DEFAULT NULL,
  max_rate text DEFAULT NULL,
  tablespaces jsonb DEFAULT '{}',
  checksums boolean DEFAULT true,
  verify boolean DEFAULT false,
  synchronous boolean DEFAULT false,
  options jsonb DEFAULT '{}',
  heal boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
#[expect(clippy::too_many_arguments, reason = "they are those of the procedure")]
fn clone_standby(
    name: Option<&str>,
    primary_node: Option<&str>,
    data_directory: Option<&str>,
    port: Option<i32>,
    on_node: Option<&str>,
    conninfo: Option<&str>,
    admin_conninfo: Option<&str>,
    max_rate: Option<&str>,
    tablespaces: Option<JsonB>,
    checksums: Option<bool>,
    verify: Option<bool>,
    synchronous: Option<bool>,
    options: Option<JsonB>,
    heal: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> std::result::Result<(), ErrorReport> {
    const CALL: &str = "nodes.clone_standby()";
    check_superuser(CALL, WHY_SUPERUSER)?;
    check_call(CALL, fcinfo)?;
    let request = Request {
        name: required("name", name)?,
        primary: required("primary_node", primary_node)?,
        // As a server says it: without what leads nowhere.
        directory: Path::new(&required("data_directory", data_directory)?).components().collect(),
        port: checked_port(port.unwrap_or(5432))?,
        on_node: on_node.map(str::to_owned),
        conninfo: conninfo.map(str::to_owned),
        admin_conninfo: admin_conninfo.map(str::to_owned),
        max_rate: max_rate.map(checked_rate).transpose()?.flatten(),
        tablespaces: tablespaces.map(plain_options).transpose()?.unwrap_or_default(),
        checksums: checksums.unwrap_or(true),
        verify: verify.unwrap_or(false),
        synchronous: synchronous.unwrap_or(false),
        options: options.map(standby_options).transpose()?.unwrap_or_default(),
        heal: heal.unwrap_or(false),
    };
    checked_name(&request.name)?;
    Ok(make_clone(&request)?)
}

fn required(option: &str, value: Option<&str>) -> Result<String> {
    value.map(str::to_owned).ok_or_else(|| Error::BadOption {
        option: option.to_owned(),
        why: "It cannot be NULL.".to_owned(),
    })
}

fn checked_port(port: i32) -> Result<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| Error::BadOption {
        option: "port".to_owned(),
        why: "A port is a number from 1 to 65535.".to_owned(),
    })
}

/// In kilobytes a second; more than a gigabyte is no limit to `pg_basebackup`.
pub fn checked_rate(rate: &str) -> Result<Option<u64>> {
    let rate = with_unit("max_rate", rate, Unit::Kilobytes, 32)?;
    Ok(Some(rate).filter(|rate| *rate <= 1 << 20))
}

/// Files and programs of the server are for superusers.
const WHY_SUPERUSER: &str = "It acts with the rights of the server's operating system user.";

#[pg_extern(volatile, parallel_unsafe)]
fn clone_step(action: &str, task: JsonB) -> std::result::Result<String, ErrorReport> {
    check_superuser("nodes.clone_step()", WHY_SUPERUSER)?;
    let read = |source| Error::Json { context: "a clone", source };
    let action: Action = serde_json::from_value(action.into()).map_err(read)?;
    let task: Task = serde_json::from_value(task.0).map_err(read)?;
    Ok(clone::run(action, &task)?.to_owned())
}
