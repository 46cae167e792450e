//! Starts a clone that is complete.

use super::task::Task;
use crate::error::{Error, Result};
use crate::pg::child::{Program, SERVER_LOG};
use pgrx::PgSqlErrorCode as Code;
use std::fs;
use std::path::Path;

/// Until then a server may replay what the copy needs to be consistent.
const LIMIT: &str = "--timeout=86400";

pub fn start(task: &Task) -> Result<&'static str> {
    let data = format!("--pgdata={}", task.directory.display());
    let status = Program::start("pg_ctl", &["status".to_owned(), data.clone()], None)?.finish()?;
    if status.status.success() {
        return Ok("running");
    }
    let log = task.directory.join(SERVER_LOG);
    let before = fs::metadata(&log).map_or(0, |log| log.len());
    let arguments = [
        "start".to_owned(),
        data,
        format!("--log={}", log.display()),
        "--wait".to_owned(),
        LIMIT.to_owned(),
        "--silent".to_owned(),
    ];
    let outcome = Program::start_detached("pg_ctl", &arguments)?.finish()?;
    if outcome.status.success() {
        return Ok("started");
    }
    Err(Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("the server in \"{}\" did not start", task.directory.display()),
        detail: Some(format!("{}\n{}", outcome.output, said_since(&log, before)).trim().to_owned()),
        hint: "The copy is complete: correct the cause and make the same call again.",
    })
}

/// The end of what the server has said.
fn said_since(log: &Path, before: u64) -> String {
    const LINES: usize = 20;
    let text = fs::read(log).unwrap_or_default();
    let said = usize::try_from(before).ok().and_then(|before| text.get(before..));
    let said = String::from_utf8_lossy(said.unwrap_or_default()).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
