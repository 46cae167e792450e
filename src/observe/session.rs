//! A session on a node: a libpq connection that leaves no secret in any log and does not
//! outlive our interest in it.

use super::pooler;
use super::section::{PRESENT, Sections};
use crate::error::{Error, Result};
use crate::libpq::connection::{Connection, Rows};
use crate::libpq::error::Error as PeerError;
use crate::libpq::trace::Trace;
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::NodeId;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::time::Duration;

/// Whom to connect to, and how.
#[derive(Clone)]
pub struct Target {
    pub id: NodeId,
    pub name: String,
    /// As this registry reaches the node, password included.
    pub conninfo: Conninfo,
    /// System identifier of the node; `None`: not learnt yet, or it may change.
    pub expected: Option<String>,
    /// For nodes that a role without superuser registered: refuse any connection that the
    /// node grants without a password, since it would lend our operating system identity.
    pub password_required: bool,
    pub connect_timeout: Duration,
    /// `statement_timeout` of the session; zero: none.
    pub step_timeout: Duration,
}

impl Target {
    /// Whether a session for one would do for the other.
    pub fn is_same(&self, other: &Target) -> bool {
        self.conninfo == other.conninfo && self.password_required == other.password_required
    }
}

pub struct Session {
    pub connection: Connection,
    /// What the node is to be asked for: what it was last seen to have, at least.
    pub sections: Sections,
    target: Target,
    /// Left to itself until it is used again.
    rests: bool,
    /// Names of the questions that the node has prepared.
    prepared: BTreeSet<&'static CStr>,
}

/// For the statements that are sent together with it. A hot standby answers nothing where
/// `default_transaction_isolation` is serializable (`GetSerializableTransactionSnapshot`,
/// predicate.c).
pub const READ_COMMITTED: &str = "SET LOCAL transaction_isolation = 'read committed'";

/// Settings that any role may change. A server notices within a second that we are gone, and
/// gives up what it was doing for us. All read our literals alike, and write numbers and names of
/// types alike.
const ANY_ROLE: &str = "SET default_transaction_isolation = 'read committed'; \
     SET search_path = pg_catalog, pg_temp; \
     SET standard_conforming_strings = on; SET quote_all_identifiers = off; \
     SET extra_float_digits = 1; \
     SET client_connection_check_interval = '1s'; SET client_min_messages = warning; \
     SET plan_cache_mode = force_generic_plan; SET jit = off; SET debug_print_parse = off; \
     SET debug_print_rewritten = off; SET debug_print_plan = off";

/// Settings that keep statements with secrets out of the log and out of pg_stat_statements, each
/// where the role may change it; asking first leaves no error in that server's log. For a
/// superuser those of extensions that are not loaded become placeholders, which is harmless.
const QUIET: &str = "; SELECT set_config(name, value, false) FROM (VALUES \
     ('log_statement', 'none'), ('log_min_duration_statement', '-1'), \
     ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), \
     ('log_min_error_statement', 'panic'), ('pg_stat_statements.track', 'none'), \
     ('pgaudit.log', 'none'), ('auto_explain.log_min_duration', '-1')) quiet (name, value) \
     WHERE has_parameter_privilege(name, 'SET')";

/// What a server may have against sessions that wait for others, and against transactions that
/// copy or wait for replay; `statement_timeout` limits those that should be.
fn patience(server_version: i32) -> &'static str {
    match server_version {
        170_000.. => "; SET idle_session_timeout = 0; SET transaction_timeout = 0",
        140_000.. => "; SET idle_session_timeout = 0",
        _ => "",
    }
}

/// A node that is there answers to nothing at once.
const RESUME_LIMIT: Duration = Duration::from_secs(1);

impl Session {
    pub async fn open(target: &Target) -> Result<Session> {
        Self::open_traced(target, &mut Trace::default()).await
    }

    /// The same, telling what happened on the way.
    pub async fn open_traced(target: &Target, trace: &mut Trace) -> Result<Session> {
        let conninfo = target.conninfo.clone().with("application_name", "pg_nodes");
        // Without one, libpq would take a password from our own user's files.
        if target.password_required && conninfo.get("password").is_none_or(str::is_empty) {
            return Err(Error::PasswordMissing(target.name.clone()));
        }
        let params: Vec<(&str, &str)> = conninfo.iter().collect();
        let limit = target.connect_timeout;
        let mut connection = Connection::connect_traced(&params, limit, trace).await?;
        if target.password_required && !connection.used_password() {
            return Err(Error::PasswordUnused(target.name.clone()));
        }
        if pooler::lends_for_a_transaction(&mut connection, &params).await? {
            return Err(Error::NoSessions(target.name.clone()));
        }
        // Before 15 parameters had no privileges; such a server is told of by others.
        let quiet = if connection.server_version() >= 150_000 { QUIET } else { "" };
        let timeout = target.step_timeout.as_millis();
        let patience = patience(connection.server_version());
        let sql = format!(
            "{READ_COMMITTED}; {ANY_ROLE}; SET statement_timeout = {timeout}{patience}{quiet}; {PRESENT}"
        );
        let answer = connection.simple_rows(&sql).await?;
        // One that is not understood is not needed: the question itself looks again.
        let sections = answer.value(0, 0).and_then(|text| serde_json::from_str(text).ok());
        Ok(Session {
            connection,
            sections: sections.unwrap_or_default(),
            target: target.clone(),
            rests: false,
            prepared: BTreeSet::new(),
        })
    }

    /// Whether a session that is opened now would be like this one.
    pub fn is_like_new(&self, target: &Target) -> bool {
        let limits = |target: &Target| (target.connect_timeout, target.step_timeout);
        self.target.is_same(target) && limits(&self.target) == limits(target)
    }

    /// Leaves the session to itself: the node ends it after a while, without a word in its log
    /// where the role may say so.
    pub async fn rest(&mut self, most: Duration) -> std::result::Result<(), PeerError> {
        let sql = format!(
            "SET idle_session_timeout = {}; {}",
            most.as_millis(),
            set_where_allowed("log_min_messages", Some("panic"))
        );
        self.rests = true;
        self.connection.simple(&sql).await
    }

    /// Takes the session up again, if it is still there.
    pub async fn resume(&mut self) -> std::result::Result<(), PeerError> {
        if !std::mem::take(&mut self.rests) {
            return Ok(());
        }
        let again = set_where_allowed("log_min_messages", None);
        let sql = format!("SET idle_session_timeout = 0; {again}");
        self.connection.simple_each(&sql, Some(RESUME_LIMIT), |_| {}).await
    }

    /// How long the answer to so many statements may take: the node ends each of them by
    /// itself after `statement_timeout`, unless it is gone. `None`: for ever.
    pub fn step_limit(&self, statements: usize) -> Option<Duration> {
        let statements = u32::try_from(statements).unwrap_or(u32::MAX);
        let all = self.target.step_timeout.saturating_mul(statements);
        (!all.is_zero()).then(|| all.saturating_add(self.target.connect_timeout))
    }

    /// Asks a question that comes again: parsed and planned the first time only.
    pub async fn ask_again(
        &mut self,
        name: &'static CStr,
        sql: &str,
        params: &[Option<&str>],
    ) -> std::result::Result<Rows, PeerError> {
        if !self.prepared.contains(name) {
            self.connection.prepare(name, sql).await?;
            self.prepared.insert(name);
        }
        self.connection.query_prepared(&name.to_string_lossy(), params).await
    }

    /// Changes what `pg_stat_activity` there shows as `application_name`.
    pub async fn rename(&mut self, name: &str) -> std::result::Result<(), PeerError> {
        let sql = "SELECT set_config('application_name', $1, false)";
        self.connection.query(sql, &[Some(name)]).await.map(|_| ())
    }

    /// Hides what the session runs from `pg_stat_activity`, or shows it again; where the role
    /// may not, everything stays as it is.
    pub async fn hide_activity(&mut self, hide: bool) {
        let sql = set_where_allowed("track_activities", hide.then_some("off"));
        // A refusal is no reason to fail the step: the issue is one of rights on that server.
        let _ = self.connection.simple(&sql).await;
    }
}

/// Sets a parameter, or with `None` resets it, where the role may; asking first leaves no error in
/// that server's log.
fn set_where_allowed(parameter: &str, value: Option<&str>) -> String {
    let value = value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
    format!(
        "SELECT set_config(name, {value}, false) FROM (VALUES ('{parameter}')) quiet (name) \
         WHERE has_parameter_privilege(name, 'SET')"
    )
}
