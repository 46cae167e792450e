//! What a pooler in front of a node does with sessions. One that lends them for a transaction
//! (pgbouncer with `pool_mode = transaction`) would leave our settings to its other clients, and
//! run our statements in sessions that have neither these settings nor what we prepared.

use super::session::READ_COMMITTED;
use crate::libpq::connection::Connection;
use crate::libpq::error::Error;
use std::time::Duration;

/// How long the pooler may take to open the connection that is compared with. Where it has none
/// left, each client keeps its own.
const PATIENCE: Duration = Duration::from_secs(1);

/// In a pool that others use, the same session may come back by chance.
const ROUNDS: usize = 3;

/// Whether sessions are lent for a transaction: then a second connection is given the one that
/// the first has left, or the first another one.
pub async fn lends_for_a_transaction(
    first: &mut Connection,
    params: &[(&str, &str)],
) -> Result<bool, Error> {
    let own = process(first).await?;
    // Poolers make up the number that a client is told at the start.
    if own == first.announced_process().to_string() {
        return Ok(false);
    }
    let Ok(mut second) = Connection::connect(params, PATIENCE).await else { return Ok(false) };
    for _ in 0..ROUNDS {
        let Ok(other) = process(&mut second).await else { return Ok(false) };
        if other == own || process(first).await? != own {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process that answers.
async fn process(connection: &mut Connection) -> Result<String, Error> {
    let sql = format!("{READ_COMMITTED}; SELECT pg_catalog.pg_backend_pid()");
    let answer = connection.simple_rows(&sql).await?;
    Ok(answer.value(0, 0).unwrap_or_default().to_owned())
}
