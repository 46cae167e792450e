//! What promotion, switchover and rejoin have in common: a standby becomes a primary, and the
//! registry, wherever it is written, says what is now.

use super::desired::Desired;
use super::promote::rewrite_and_tell;
use super::report::warn;
use crate::catalog::Rows;
use crate::error::{Error, Result};
use crate::gate;
use crate::libpq::reactor;
use crate::observe;
use crate::observe::session::Session;
use crate::pg::{lock, spi};
use nodes_plan::conninfo::Secret;
use nodes_plan::desired::{Interest, NodeId};
use nodes_plan::failover::Reason;
use nodes_plan::name::Mark;
use nodes_plan::promotion::{OldPrimary, Verdict, is_unmanaged};
use nodes_plan::quote::Sql;
use nodes_plan::render::render;
use nodes_plan::standby_names::{self, StandbyNames};
use nodes_plan::step::Operation;
use pgrx::PgSqlErrorCode as Code;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a server may take to become a primary.
const PROMOTE_LIMIT: Duration = Duration::from_secs(120);

/// A session on a node.
pub async fn open(desired: &Desired, node: NodeId) -> Result<Session> {
    let mut targets = desired.targets().into_iter().map(|(target, _)| target);
    let unknown =
        || Error::UnknownNode { name: desired.registry.node_name(node).to_owned(), known: vec![] };
    let target = targets.find(|target| target.id == node).ok_or_else(unknown)?;
    Session::open(&target).await
}

/// What a failover manager does in its group, nobody else may.
pub fn check_managed(desired: &Desired, node: NodeId) -> Result<()> {
    match is_unmanaged(&desired.registry, node) {
        true => Err(unmanaged(desired.registry.node_name(node))),
        false => Ok(()),
    }
}

pub fn unmanaged(node: &str) -> Error {
    Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("somebody else manages the group of \"{node}\""),
        detail: Some("A standby link of its says managed => false.".to_owned()),
        hint: "Have what manages the group do it; the links follow by themselves.",
    }
}

/// Refuses with this message, or tells what is risked.
pub fn decide(desired: &Desired, verdict: Verdict, force: bool, message: String) -> Result<()> {
    let line = |reason: &Reason| {
        let message = desired.redact(&reason.message);
        format!("{message} ({}). {}", reason.rule, reason.hint)
    };
    let accepted = force && verdict.forbidden.is_empty();
    if accepted {
        verdict.risks.iter().for_each(|risk| warn(line(risk), None));
    }
    let against: Vec<String> = verdict.forbidden.iter().chain(&verdict.risks).map(line).collect();
    if against.is_empty() || accepted {
        return Ok(());
    }
    Err(Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
        detail: Some(against.join("\n")),
        hint: match verdict.forbidden.is_empty() {
            true => "The detail says what would be lost; force => true accepts that.",
            false => "The detail says what to do first; force => true changes nothing about it.",
        },
    })
}

/// The registry's rows, where it may act, read before there is anything to wait for.
pub fn active_rows() -> Result<Rows> {
    spi::in_own_transaction(|| {
        gate::check_not_superseded()?;
        let rows = Rows::load()?;
        super::check_active(&rows.origin)?;
        Ok(rows)
    })
}

/// Has another server do its part by one of our functions there, however long that takes. What it
/// is told may hold a password.
pub async fn call(
    session: &mut Session,
    function: &'static str,
    action: impl Serialize,
    task: &impl Serialize,
) -> Result<String> {
    let json = |source| Error::Json { context: "what another server is to do", source };
    let action = serde_json::to_value(action).map_err(json)?;
    let task = Secret::new(serde_json::to_string(task).map_err(json)?);
    let sql = Sql::new("SELECT ")
        .raw(function)
        .raw("(")
        .literal(action.as_str().unwrap_or_default())
        .raw(", ")
        .secret(&task)
        .raw(")");
    session.connection.simple("SET statement_timeout = 0").await?;
    session.hide_activity(true).await;
    let mut said = String::new();
    let heard = |rows: crate::libpq::connection::Rows| {
        said = rows.value(0, 0).unwrap_or_default().to_owned();
    };
    let done = session.connection.simple_each(sql.text(), None, heard).await;
    session.hide_activity(false).await;
    done?;
    Ok(said)
}

/// Asks a question that is answered in JSON.
pub async fn ask<T: DeserializeOwned>(
    session: &mut Session,
    sql: &str,
    params: &[Option<&str>],
) -> Result<T> {
    let answer = session.connection.query(sql, params).await?;
    let text = answer.value(0, 0).unwrap_or("null");
    serde_json::from_str(text)
        .map_err(|source| Error::Json { context: "a node's answer could not be read", source })
}

/// Promotes a standby and waits until it is a primary.
pub async fn make_primary(desired: &Desired, candidate: NodeId) -> Result<()> {
    const PROMOTE: &str = "SET statement_timeout = 0; SELECT pg_promote(true, 60)";
    let mut session = open(desired, candidate).await?;
    session.connection.simple_each(PROMOTE, Some(PROMOTE_LIMIT), |_| {}).await?;
    let answer = session.connection.query("SELECT pg_is_in_recovery()", &[]).await?;
    if answer.value(0, 0) == Some("f") {
        return Ok(());
    }
    Err(Error::Refused {
        code: Code::ERRCODE_QUERY_CANCELED,
        message: format!(
            "node \"{}\" did not become a primary within a minute",
            desired.registry.node_name(candidate)
        ),
        detail: Some("It was told to, and may still become one.".to_owned()),
        hint: "Its server log says how far it is; make the same call again when it is a primary.",
    })
}

/// Takes from a primary what made it follow by our hand.
pub async fn forget_upstream(desired: &Desired, node: NodeId, mark: &Mark) -> Result<()> {
    let mut session = open(desired, node).await?;
    let interest = Interest { standby: true, ..Interest::default() };
    let facts = observe::facts(&mut session, &interest).await?;
    let own = mark.slot_name();
    let files = facts.file_settings.as_ref();
    let slot = files.and_then(|files| files.get("primary_slot_name"));
    let conninfo = facts.primary_conninfo_file.as_ref();
    let follows = conninfo.is_some_and(|c| c.get("application_name") == Some(&own));
    let mut operations = Vec::new();
    let reset = |setting| Operation::AlterSystem { setting, value: None };
    operations.extend((slot == Some(&own)).then(|| reset("primary_slot_name")));
    operations.extend(follows.then(|| reset("primary_conninfo")));
    operations.extend((!operations.is_empty()).then_some(Operation::Reload));
    let passfile = follows && (facts.passfile.is_some() || facts.passfile_unfinished);
    operations.extend(passfile.then_some(Operation::RemovePassfile));
    for operation in operations {
        session.connection.simple(render(&operation).text()).await?;
    }
    Ok(())
}

/// Has the commits of a standby wait for nobody when it is the primary: what it has from a copy of
/// its primary names standbys that do not follow it, and most likely itself. [`apply`] says for
/// whom they are to wait then.
///
/// [`apply`]: super::apply
pub async fn forget_awaited(desired: &Desired, node: NodeId) -> Result<()> {
    const AWAITED: &str = "SELECT current_setting('synchronous_standby_names')";
    let mut session = open(desired, node).await?;
    let answer = session.connection.query(AWAITED, &[]).await?;
    let names = answer.value(0, 0).and_then(StandbyNames::parse);
    if !names.is_some_and(|names| names.are_of(&desired.registry.id)) {
        return Ok(());
    }
    let reset = Operation::AlterSystem { setting: standby_names::SETTING, value: None };
    for operation in [reset, Operation::Reload] {
        session.connection.simple(render(&operation).text()).await?;
    }
    Ok(())
}

/// Where the registry is written.
pub enum Writer<'a> {
    /// On this server.
    Here,
    /// On the new primary, which has the registry that this standby shows.
    There(&'a Desired, NodeId),
}

impl<'a> Writer<'a> {
    pub fn of(rows: &Rows, desired: &'a Desired, candidate: NodeId) -> Result<Writer<'a>> {
        if !spi::in_recovery() {
            return Ok(Writer::Here);
        }
        let there = rows.nodes.iter().find(|node| node.id == candidate);
        let known = there.and_then(|node| node.system_identifier.as_ref());
        // That of a node that is to be a standby is not noted: then it is asked.
        let same = match known {
            Some(there) => *there == rows.origin.here,
            None => reactor::block_on(system_identifier(desired, candidate))? == rows.origin.here,
        };
        match same {
            true => Ok(Writer::There(desired, candidate)),
            false => Err(Error::InRecovery("nodes.promote() of another group's standby")),
        }
    }

    /// Has the registry say that `new` is where `old` was.
    pub fn relink(&self, new: &str, old: &str, becomes: OldPrimary) -> Result<()> {
        match self {
            Writer::Here => {
                spi::in_own_transaction(|| rewrite_and_tell(new, old, becomes)).map(|_| ())
            }
            Writer::There(desired, node) => {
                let follows = if becomes == OldPrimary::Follows { ", true)" } else { ", false)" };
                let sql = Sql::new("SELECT nodes.move_links(").literal(old).raw(", ").literal(new);
                let sql = sql.raw(follows);
                reactor::block_on(async {
                    let mut session = open(desired, *node).await?;
                    // A synchronous standby may be one that follows only by what is written here.
                    session.connection.simple("SET synchronous_commit = local").await?;
                    Ok(session.connection.simple(sql.text()).await?)
                })
            }
        }
    }

    /// The rest is a plan like any other. The promotion is done: what fails here is told of.
    /// Returns whether all is done.
    pub fn apply(&self, new: &str) -> bool {
        let applied = match self {
            Writer::Here => lock::with_apply_lock(None, super::apply).map(|_| ()),
            Writer::There(desired, node) => reactor::block_on(async {
                let mut session = open(desired, *node).await?;
                session.connection.simple("SET statement_timeout = 0").await?;
                let apply = "CALL nodes.apply()";
                Ok(session.connection.simple_each(apply, None, |_| {}).await?)
            }),
        };
        let why = match applied {
            Ok(()) => {
                pgrx::notice!("all links follow \"{new}\"");
                return true;
            }
            Err(Error::Peer(error)) => {
                format!("{}: {}", error.message, error.detail.unwrap_or_default())
            }
            Err(Error::ApplyFailed { lines, .. }) => lines.join("; "),
            Err(error) => error.to_string(),
        };
        warn(format!("not all follow \"{new}\" yet: {why}"), again());
        false
    }
}

fn again() -> Option<String> {
    Some("nodes.plan() there says what is left; nodes.apply() there does it.".to_owned())
}

async fn system_identifier(desired: &Desired, node: NodeId) -> Result<String> {
    Ok(observe::pulse(&mut open(desired, node).await?).await?.pulse.system_identifier)
}
