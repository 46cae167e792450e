//! Foreign links are asked through themselves: whether their server answers as the mapped role,
//! and how fast. In a session of its own, since postgres_fdw waits inside it.

use super::state::Shared;
use crate::libpq::reactor::{self, Elapsed};
use crate::observe::session::Session;
use nodes_plan::desired::{LinkId, NodeId};
use nodes_plan::link_health::Probe;
use nodes_plan::name::TableName;
use nodes_plan::render;
use std::time::{Duration, Instant};

/// A node that does not let us in is tried again this often.
const TURN: Duration = Duration::from_secs(1);

/// Asks the foreign links of a node for as long as it is polled, when the control task sees that
/// one is due: most nodes have none.
pub async fn watch(shared: Shared, id: NodeId) {
    let Some(nudge) = shared.probe_nudge(id) else { return };
    loop {
        nudge.taken().await;
        let due = shared.state().probes_due(id);
        if !due.is_empty() {
            Box::pin(ask(&shared, id, due)).await;
            reactor::sleep(TURN).await;
        }
    }
}

/// One session for all that is due; a new one each time, so that what is remembered of a
/// connection, or of a password, proves nothing.
async fn ask(shared: &Shared, id: NodeId, due: Vec<(LinkId, TableName)>) {
    let Some(target) = shared.target(id) else { return };
    let limit = target.connect_timeout;
    // That the node does not let us in is known from its heartbeats.
    let Ok(Ok(mut session)) = reactor::timeout(limit, Session::open(&target)).await else { return };
    for (link, table) in due {
        let begun = Instant::now();
        let sql = render::probe(&table);
        let answer = reactor::timeout(limit, session.connection.simple(sql.text())).await;
        let error = match &answer {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.with_detail()),
            Err(Elapsed) => Some(format!("no answer within {} ms", limit.as_millis())),
        };
        let is_stuck = answer.is_err();
        shared.probed(link, Probe { took: begun.elapsed(), error });
        if is_stuck {
            return;
        }
    }
}
