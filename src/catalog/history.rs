//! What was done and what happened: the step log and the events. Nothing is decided from the one,
//! and from the other only what need not be told again.

use super::{from_json, json, read_json};
use crate::error::Result;
use crate::pg::spi;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A statement that is about to be sent.
#[derive(Serialize)]
pub struct LoggedStep<'a> {
    pub node: Option<&'a str>,
    pub link: Option<&'a str>,
    pub rule: &'a str,
    /// Secrets masked.
    pub command: &'a str,
}

/// Begins rows of the step log; returns their numbers.
pub fn log_steps(steps: &[LoggedStep<'_>]) -> Result<Vec<i64>> {
    let ids = spi::write_returning(
        "WITH logged AS (INSERT INTO nodes.step_log (node, link, rule, command) \
         SELECT node, link, rule, command FROM json_to_recordset($1::json) \
         AS step (node text, link text, rule text, command text) RETURNING id) \
         SELECT json_agg(id ORDER BY id)::text FROM logged",
        &[Some(&json(&steps)?)],
    )?;
    from_json(&ids.unwrap_or_default())
}

/// Ends rows of the step log, all in the same way.
pub fn log_step_ends(ids: &[i64], sqlstate: Option<&str>, message: Option<&str>) -> Result<()> {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    spi::write(
        "UPDATE nodes.step_log SET finished = clock_timestamp(), sqlstate = $2, message = $3 \
         WHERE id = ANY ($1::bigint[])",
        &[Some(&format!("{{{}}}", ids.join(","))), sqlstate, message],
    )
}

/// What happened to a link or a node, for `nodes.event`.
pub struct Event<'a> {
    pub node: Option<&'a str>,
    pub link: Option<&'a str>,
    pub kind: &'a str,
    pub severity: &'a str,
    pub message: &'a str,
    /// JSON.
    pub detail: Option<&'a str>,
}

/// Appends a row and notifies the channel `pg_nodes` of it, as far as a payload is long.
pub fn append_event(event: &Event<'_>) -> Result<()> {
    spi::write(
        "WITH added AS (INSERT INTO nodes.event (node, link, kind, severity, message, detail) \
         VALUES ($1, $2, $3, $4, $5, $6::jsonb) RETURNING *) \
         SELECT pg_notify('pg_nodes', CASE WHEN octet_length(payload) < 8000 THEN payload \
         ELSE short END) FROM (SELECT to_jsonb(added)::text, \
         (to_jsonb(added) - 'message' - 'detail')::text FROM added) told(payload, short)",
        &[
            event.node,
            event.link,
            Some(event.kind),
            Some(event.severity),
            Some(event.message),
            event.detail,
        ],
    )
}

/// What was told last of each node and link that is still registered: names and kinds.
#[derive(Default, Deserialize)]
pub struct LastTold {
    pub nodes: BTreeMap<String, String>,
    pub links: BTreeMap<String, String>,
    /// Nodes of which was told last that commits wait.
    pub blocked: BTreeSet<String>,
}

/// Reads it from `nodes.event`; that something flaps, or no longer, is no state.
pub fn last_told() -> Result<LastTold> {
    read_json(
        "WITH told AS (SELECT DISTINCT ON (node, link) node, link, kind FROM nodes.event \
         WHERE kind NOT IN ('flapping', 'stable', 'superseded', 'confirmed', 'unconfirmed', \
           'headroom', 'synchronous_blocked', 'synchronous_ok') \
         AND (node IS NULL) <> (link IS NULL) ORDER BY node, link, id DESC) \
         SELECT json_build_object( \
         'nodes', (SELECT coalesce(json_object_agg(node, kind), '{}') FROM told \
                   WHERE node IN (SELECT name FROM nodes.node)), \
         'links', (SELECT coalesce(json_object_agg(link, kind), '{}') FROM told \
                   WHERE link IN (SELECT name FROM nodes.link WHERE state <> 'removing')), \
         'blocked', (SELECT coalesce(json_agg(node), '[]') FROM ( \
           SELECT DISTINCT ON (node) node, kind FROM nodes.event \
           WHERE kind IN ('synchronous_blocked', 'synchronous_ok') \
           ORDER BY node, id DESC) last WHERE kind = 'synchronous_blocked'))::text",
    )
}

/// Removes old events.
pub fn forget_events(retention: Duration) -> Result<()> {
    spi::write(
        "DELETE FROM nodes.event WHERE at < clock_timestamp() - $1::interval",
        &[Some(&format!("{} seconds", retention.as_secs()))],
    )
}
