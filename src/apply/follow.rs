//! What the last step begins and the servers finish by themselves: initial copies, and
//! standbys that start to stream. Watched to the end, with progress.

use super::demote;
use super::desired::Desired;
use super::report::{Report, warn};
use crate::libpq::error::Error as PeerError;
use crate::libpq::reactor;
use crate::observe::Sessions;
use crate::observe::session::Session;
use futures_util::future::join_all;
use futures_util::lock::Mutex;
use nodes_plan::desired::{Link, LinkId, LinkState, NodeId, Spec};
use nodes_plan::observed::World;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);
const LASTING_PAUSE: Duration = Duration::from_millis(100);
/// Progress is told at most this often.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// A copy without a lasting apply worker for this long, and for as long again as the launcher
/// may take to serve all subscriptions, does not come back by itself: workers are started
/// again every `wal_retrieve_retry_interval`, 5 s by default.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// So many workers in a row that copied nothing: another one will not either. The statistics
/// do not count those that fail to stream.
const FRUITLESS_LIMIT: usize = 3;
/// A walreceiver tries again every `wal_retrieve_retry_interval`.
const STREAM_LIMIT: Duration = Duration::from_secs(15);
/// A copy that gets no further for so long may wait for a standby.
const WAIT_LIMIT: Duration = Duration::from_secs(3);
/// How long the worker of a copy may take to end after the copy is done.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(2);

type Shared = BTreeMap<NodeId, Mutex<Session>>;

/// Watches every active link that is not in `skip`, all at the same time; gives the sessions back.
pub async fn all(
    desired: &Desired,
    world: &World,
    sessions: Sessions,
    skip: &BTreeSet<LinkId>,
    report: &mut Report,
) -> Sessions {
    let sessions: Shared = sessions.into_iter().map(|(n, s)| (n, Mutex::new(s))).collect();
    let report = RefCell::new(report);
    let active = |link: &&Link| link.state == LinkState::Active && !skip.contains(&link.id);
    let watched = desired.registry.links.iter().filter(active).map(async |link| {
        let outcome = match &link.spec {
            Spec::Subscription(_) => watch_copy(link, world, &sessions).await,
            Spec::Standby(_) => watch_standby(desired, link, &sessions).await,
            Spec::Foreign(_) => Ok(()),
        };
        if let Err(line) = outcome {
            let line = desired.redact(&format!("link \"{}\": {line}", link.name));
            report.borrow_mut().fail(Some(link.id), line, Some("55000"));
        }
    });
    join_all(watched).await;
    sessions.into_iter().map(|(node, session)| (node, session.into_inner())).collect()
}

/// How far an initial copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    ready: i64,
    tables: i64,
    rows: i64,
    errors: i64,
    /// The apply worker's process; one that fails at once has another each time.
    worker: Option<String>,
    /// The processes that copy now.
    copiers: BTreeSet<String>,
    enabled: bool,
}

/// Counts the copy workers that came and went while nothing got further.
#[derive(Default)]
struct Fruitless {
    reached: (i64, i64),
    gone: usize,
    present: BTreeSet<String>,
    /// All that copy now did so at the last look.
    lasting: bool,
}

impl Fruitless {
    fn count(&mut self, now: &Progress) -> usize {
        let reached = (now.ready, now.rows);
        if reached != self.reached {
            (self.reached, self.gone) = (reached, 0);
        }
        self.gone += self.present.difference(&now.copiers).count();
        self.lasting = !now.copiers.is_empty() && now.copiers == self.present;
        self.present.clone_from(&now.copiers);
        self.gone
    }
}

/// Asks the functions behind the statistics views: on a new session to plan those takes longer
/// than a small copy.
const PROGRESS: &str = "
SELECT count(*) FILTER (WHERE r.srsubstate IN ('r', 's')), count(*),
  (SELECT coalesce(sum(p.param3), 0)::bigint FROM pg_stat_get_progress_info('COPY') p
   WHERE p.param5 = 1 AND p.datid = s.subdbid AND p.relid = ANY (array_agg(r.srrelid))),
  (SELECT coalesce(sum(e.sync_error_count + e.apply_error_count), 0)::bigint
   FROM pg_stat_get_subscription_stats(s.oid) e),
  (SELECT min(w.pid) FROM pg_stat_get_subscription(NULL) w
   WHERE w.subid = s.oid AND w.relid IS NULL),
  s.subenabled,
  (SELECT string_agg(w.pid::text, ' ') FROM pg_stat_get_subscription(NULL) w
   WHERE w.subid = s.oid AND w.relid IS NOT NULL)
FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
WHERE s.subname = $1
  AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY s.oid, s.subdbid, s.subenabled";

async fn progress(session: &mut Session, name: &str) -> std::result::Result<Progress, PeerError> {
    let answer = session.ask_again(c"progress", PROGRESS, &[Some(name)]).await?;
    let number =
        |column| answer.value(0, column).and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Progress {
        ready: number(0),
        tables: number(1),
        rows: number(2),
        errors: number(3),
        worker: answer.value(0, 4).map(str::to_owned),
        enabled: answer.value(0, 5) == Some("t"),
        copiers: answer
            .value(0, 6)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    })
}

async fn watch_copy(
    link: &Link,
    world: &World,
    sessions: &Shared,
) -> std::result::Result<(), String> {
    let facts = world.facts(link.to).and_then(|facts| facts.subscription(&link.name));
    let copying = facts.is_some_and(|s| s.tables.values().any(|t| !matches!(t.state, 'r' | 's')));
    // Without its publisher no copy goes on; the plan has told of that.
    let copying = copying && sessions.contains_key(&link.from);
    let (true, Some(session)) = (copying, sessions.get(&link.to)) else { return Ok(()) };
    let mut first: Option<Progress> = None;
    let mut fruitless = Fruitless::default();
    let mut said = Instant::now();
    let (mut alive, mut worker) = (Instant::now(), None);
    let (mut reached, mut moved) = ((0, 0), Instant::now());
    let (limit, begun) = (stall_limit(world, link), Instant::now());
    loop {
        let now = progress(&mut *session.lock().await, &link.name)
            .await
            .map_err(|error| format!("the initial copy could not be followed: {error}"))?;
        let first = first.get_or_insert_with(|| now.clone());
        if now.ready == now.tables {
            let rows = rows_copied(session, &link.name).await;
            let rows = rows.map_or(String::new(), |rows| format!(", {}", counted(rows, "row")));
            let tables = counted(now.tables, "table");
            pgrx::notice!("link \"{}\": initial copy done, {tables}{rows}", link.name);
            return Ok(());
        }
        if now.errors > first.errors {
            return Err("the initial copy fails; the subscriber's server log says why".to_owned());
        }
        if !now.enabled {
            return Err("the subscription was disabled during the initial copy".to_owned());
        }
        if fruitless.count(&now) >= FRUITLESS_LIMIT {
            return Err(stuck(&mut *session.lock().await, &link.name).await);
        }
        let lasting = now.worker.is_some() && now.worker == worker;
        if lasting {
            alive = Instant::now();
        } else if alive.elapsed() > limit {
            let why = "no apply worker lasts; the subscriber's server log says why";
            return Err(why.to_owned());
        }
        worker.clone_from(&now.worker);
        if reached != (now.ready, now.rows) {
            (reached, moved) = ((now.ready, now.rows), Instant::now());
        } else if moved.elapsed() >= WAIT_LIMIT {
            moved = Instant::now();
            await_no_standby(link, sessions).await?;
        }
        if said.elapsed() >= NOTICE_INTERVAL {
            said = Instant::now();
            pgrx::notice!(
                "link \"{}\": initial copy, {} of {} tables done, {} rows of the others",
                link.name,
                now.ready,
                now.tables,
                now.rows
            );
        }
        reactor::sleep(pause_after(begun.elapsed(), fruitless.lasting)).await;
    }
}

/// From 17 on a publisher sends subscribers nothing that certain standbys lack. One that is down
/// holds up a copy for as long as it is.
async fn await_no_standby(link: &Link, sessions: &Shared) -> std::result::Result<(), String> {
    const UNREAD: &str = "SELECT string_agg(quote_ident(slot_name), ', ') FROM pg_replication_slots \
         WHERE NOT active AND slot_name = ANY (regexp_split_to_array( \
         replace(current_setting('synchronized_standby_slots', true), '\"', ''), '\\s*,\\s*'))";
    let Some(publisher) = sessions.get(&link.from) else { return Ok(()) };
    let answer = publisher.lock().await.connection.query(UNREAD, &[]).await;
    match answer.as_ref().map(|answer| answer.value(0, 0)) {
        Ok(Some(slots)) => Err(format!(
            "the initial copy waits until the standbys of these slots of its publisher are back, see \
             synchronized_standby_slots: {slots}"
        )),
        Ok(None) => Ok(()),
        Err(error) => Err(format!("its publisher could not be asked: {error}")),
    }
}

/// A short copy is soon seen to be done; looks at a long one take little from it. As long as no
/// worker lasts, one that comes, fails and goes must be seen.
fn pause_after(elapsed: Duration, lasting: bool) -> Duration {
    let most = if lasting { LASTING_PAUSE } else { PAUSE };
    (elapsed / 16).clamp(Duration::from_millis(2), most)
}

fn counted(number: i64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The rows of all tables of a subscription whose copies are done, by the statistics: their
/// workers report what they did before they end. `None`: not known. The statistics of a table
/// do not survive a crash, and to learn whether one without is empty takes a lock.
async fn rows_copied(session: &Mutex<Session>, name: &str) -> Option<i64> {
    const ROWS: &str = "SELECT CASE WHEN bool_and(live > 0 OR pg_relation_size(relid) = 0) \
           THEN sum(live)::bigint END \
         FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid \
         CROSS JOIN LATERAL (SELECT r.srrelid UNION \
           SELECT relid FROM pg_partition_tree(r.srrelid) WHERE isleaf) t (relid) \
         CROSS JOIN LATERAL pg_stat_get_live_tuples(t.relid) AS live \
         WHERE s.subname = $1 AND s.subdbid = \
         (SELECT oid FROM pg_database WHERE datname = current_database())";
    let started = Instant::now();
    while started.elapsed() < LAST_WORDS_LIMIT {
        let now = progress(&mut *session.lock().await, name).await;
        match now {
            Ok(now) if now.copiers.is_empty() => break,
            Ok(_) => reactor::sleep(LAST_WORDS_PAUSE).await,
            Err(_) => return None,
        }
    }
    let mut session = session.lock().await;
    session.connection.simple("SET lock_timeout = '100ms'").await.ok()?;
    let answer = session.connection.query(ROWS, &[Some(name)]).await;
    session.connection.simple("RESET lock_timeout").await.ok()?;
    answer.ok()?.value(0, 0).and_then(|rows| rows.parse().ok())
}

/// Postgres drops the slot of a table's copy before it is on disk that the copy is done. A crash
/// of the subscriber in between leaves a copy that only starting over can finish, and that is
/// for a person: the table may hold more than was copied.
async fn stuck(session: &mut Session, name: &str) -> String {
    const TABLES: &str = "SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ') \
         FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid \
         JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE s.subname = $1 AND r.srsubstate NOT IN ('r', 's') AND s.subdbid = \
         (SELECT oid FROM pg_database WHERE datname = current_database())";
    let answer = session.connection.query(TABLES, &[Some(name)]).await;
    let tables = answer.ok().and_then(|rows| rows.value(0, 0).map(str::to_owned));
    format!(
        "the initial copy of {} does not go on; the subscriber's server log says why. If its slot \
         does not exist, that server crashed while the copy ended: empty the table there, take it \
         off the link with nodes.alter_link(), run nodes.apply(), and add it again",
        tables.as_deref().unwrap_or("some tables")
    )
}

/// See [`STALL_LIMIT`].
fn stall_limit(world: &World, link: &Link) -> Duration {
    let launcher = world.facts(link.to).map_or(Duration::ZERO, |facts| {
        let interval = facts.number("wal_retrieve_retry_interval").unwrap_or_default();
        let subscriptions = facts.subscription_oids.len().try_into().unwrap_or(u32::MAX);
        Duration::from_millis(interval.unsigned_abs()) * subscriptions
    });
    STALL_LIMIT + launcher
}

/// A standby has been told whom to follow; until it does, the job is not done. One that takes
/// longer is told of, but no failure: it may still be replaying an archive.
async fn watch_standby(
    desired: &Desired,
    link: &Link,
    sessions: &Shared,
) -> std::result::Result<(), String> {
    let (Some(session), true) = (sessions.get(&link.from), sessions.contains_key(&link.to)) else {
        return Ok(());
    };
    let mark = desired.registry.mark(link).slot_name();
    let started = Instant::now();
    while started.elapsed() < STREAM_LIMIT {
        let streams = demote::streams(&mut *session.lock().await, &mark).await;
        match streams {
            Ok(false) => reactor::sleep(PAUSE).await,
            Ok(true) => return Ok(()),
            Err(error) => return Err(format!("its primary could not be asked: {error}")),
        }
    }
    let node = desired.registry.node_name(link.to);
    warn(
        format!("standby \"{node}\" does not stream yet"),
        Some(format!("The server log of \"{node}\" says why.")),
    );
    Ok(())
}
