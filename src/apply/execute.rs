//! Drives the steps of one plan: links run beside each other, each link's steps one after the
//! other, neighbouring steps that can share a transaction as one. A step that fails stops its
//! own link and no other.

use super::desired::Desired;
use super::report::Report;
use super::run_registry_step;
use crate::catalog::{self, LoggedStep};
use crate::error::Result;
use crate::libpq::error::Error as PeerError;
use crate::libpq::reactor;
use crate::observe::Sessions;
use crate::observe::session::Session;
use crate::pg::spi;
use futures_util::future::join_all;
use futures_util::lock::Mutex;
use nodes_plan::desired::NodeId;
use nodes_plan::quote::Sql;
use nodes_plan::step::{Operation, Phase, Plan, Step};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a slot may take to become free after its reader was told to stop.
const IN_USE_LIMIT: Duration = Duration::from_secs(20);
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// How long a server may take to put reloaded settings in force.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);
const RELOAD_PAUSE: Duration = Duration::from_millis(10);

pub struct Execution<'a> {
    desired: &'a Desired,
    /// One session a node: its statements come one at a time, in turn.
    sessions: BTreeMap<NodeId, Mutex<Session>>,
}

/// Steps sent as one: neighbours on one node, all transactional, or a single step.
type Batch<'a> = &'a [Step];

impl<'a> Execution<'a> {
    pub fn new(desired: &'a Desired, sessions: Sessions) -> Self {
        let sessions = sessions.into_iter().map(|(node, s)| (node, Mutex::new(s))).collect();
        Execution { desired, sessions }
    }

    /// Runs the plan and gives the sessions back.
    pub async fn run(&mut self, plan: Plan, report: &mut Report) -> Result<Sessions> {
        let report = RefCell::new(report);
        let phase = |phase| plan.steps.iter().filter(move |step| step.phase == phase).cloned();
        self.run_groups(group(phase(Phase::Prepare), |step| step.node), &report).await?;
        self.run_groups(group(phase(Phase::Link), |step| step.link), &report).await?;
        self.run_groups(group(phase(Phase::Detach), |step| step.link), &report).await?;
        for step in phase(Phase::Finish) {
            self.run_steps(&[step], &report).await?;
        }
        let sessions = std::mem::take(&mut self.sessions);
        Ok(sessions.into_iter().map(|(node, s)| (node, s.into_inner())).collect())
    }

    /// Runs groups of steps beside each other.
    async fn run_groups(
        &self,
        groups: Vec<Vec<Step>>,
        report: &RefCell<&mut Report>,
    ) -> Result<()> {
        let all = groups.iter().map(|steps| self.run_steps(steps, report));
        join_all(all).await.into_iter().collect()
    }

    /// Runs the steps in order until one fails.
    async fn run_steps(&self, steps: &[Step], report: &RefCell<&mut Report>) -> Result<()> {
        for batch in batches(steps) {
            let failed = |step: &Step| {
                step.link.is_some_and(|link| report.borrow().failed_links().contains(&link))
            };
            if batch.iter().any(failed) {
                return Ok(());
            }
            if let Err(failure) = self.run_batch(batch, report).await? {
                self.record_failure(&batch[failure.position], &failure, report);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Logs, runs and logs again; the outer error is ours, the inner one the peer's.
    async fn run_batch(
        &self,
        batch: Batch<'_>,
        report: &RefCell<&mut Report>,
    ) -> Result<std::result::Result<(), Failure>> {
        let steps: Vec<Sql> = batch.iter().map(|step| step.operation.sql()).collect();
        let logged = batch.iter().zip(&steps).map(|(step, sql)| self.logged(step, sql));
        let logged: Vec<LoggedStep<'_>> = logged.collect();
        let ids = spi::in_own_transaction(|| catalog::log_steps(&logged))?;
        let outcome = self.send(batch).await;
        spi::in_own_transaction(|| log_outcome(&ids, &outcome))?;
        match outcome {
            Ok(took) => {
                report.borrow().done(self.desired, batch, took);
                Ok(Ok(()))
            }
            Err(failure) => Ok(Err(failure)),
        }
    }

    fn logged<'s>(&'s self, step: &'s Step, sql: &'s Sql) -> LoggedStep<'s> {
        LoggedStep {
            node: step.node.map(|node| self.desired.registry.node_name(node)),
            link: step.link.map(|link| self.desired.link_name(link)),
            rule: step.rule,
            command: sql.masked(),
        }
    }

    async fn send(&self, batch: Batch<'_>) -> std::result::Result<Duration, Failure> {
        self.send_plainly(batch).await.map_err(|failure| failure.redacted(self.desired))
    }

    async fn send_plainly(&self, batch: Batch<'_>) -> std::result::Result<Duration, Failure> {
        let Some(first) = batch.first() else { return Ok(Duration::ZERO) };
        let Some(node) = first.node else { return self.run_in_registry(first) };
        let Some(session) = self.sessions.get(&node) else {
            return Err(Failure::without_session());
        };
        let mut session = session.lock().await;
        let secret = batch.iter().any(|step| step.operation.sql().has_secret());
        if secret {
            session.hide_activity(true).await;
        }
        let sent = send_until_free(&mut session, batch).await;
        if secret {
            session.hide_activity(false).await;
        }
        if matches!(first.operation, Operation::Reload) && sent.is_ok() {
            await_reload(&mut session).await.map_err(|error| Failure::new(0, error))?;
        }
        sent
    }

    fn run_in_registry(&self, step: &Step) -> std::result::Result<Duration, Failure> {
        let started = Instant::now();
        run_registry_step(step.operation.sql().text()).map(|()| started.elapsed()).map_err(
            |error| Failure {
                position: 0,
                sqlstate: Some(error.sqlstate()),
                message: error.to_string(),
            },
        )
    }

    fn record_failure(&self, step: &Step, failure: &Failure, report: &RefCell<&mut Report>) {
        let node = step.node.map_or("registry", |node| self.desired.registry.node_name(node));
        let link = match step.link {
            Some(link) => format!("link \"{}\": ", self.desired.link_name(link)),
            None => String::new(),
        };
        let mut line = format!(
            "{link}{} on node \"{node}\" failed: {}",
            step.operation.label(),
            failure.message
        );
        if let Some(hint) = step.operation.failure_hint() {
            line = format!("{line}. {hint}");
        }
        report.borrow_mut().fail(step.link, line, failure.sqlstate.as_deref());
    }
}

/// Why a batch failed, and at which of its steps.
struct Failure {
    position: usize,
    sqlstate: Option<String>,
    message: String,
}

impl Failure {
    fn new(position: usize, error: PeerError) -> Self {
        let mut message = error.message.clone();
        for more in [&error.detail, &error.hint].into_iter().flatten() {
            message.push_str(" — ");
            message.push_str(more);
        }
        Failure { position, sqlstate: error.sqlstate.clone(), message }
    }

    fn without_session() -> Self {
        Failure { position: 0, sqlstate: None, message: "the connection is gone".to_owned() }
    }

    fn redacted(self, desired: &Desired) -> Self {
        Failure { message: desired.redact(&self.message), ..self }
    }

    fn in_use(&self) -> bool {
        self.sqlstate.as_deref() == Some("55006")
    }

    fn undefined(&self) -> bool {
        self.sqlstate.as_deref() == Some("42704")
    }
}

/// Groups steps by a key, in order of first appearance.
fn group<K: PartialEq>(
    steps: impl Iterator<Item = Step>,
    key: impl Fn(&Step) -> K,
) -> Vec<Vec<Step>> {
    let mut groups: Vec<(K, Vec<Step>)> = Vec::new();
    for step in steps {
        let of = key(&step);
        match groups.iter_mut().find(|(known, _)| *known == of) {
            Some((_, group)) => group.push(step),
            None => groups.push((of, vec![step])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Cuts a link's steps into runs that can be sent as one transaction.
fn batches(steps: &[Step]) -> impl Iterator<Item = Batch<'_>> {
    steps.chunk_by(|a, b| {
        a.node == b.node && a.operation.is_transactional() && b.operation.is_transactional()
    })
}

fn log_outcome(ids: &[i64], outcome: &std::result::Result<Duration, Failure>) -> Result<()> {
    let Err(failure) = outcome else { return catalog::log_step_ends(ids, None, None) };
    let (failed, others): (Vec<_>, Vec<_>) =
        ids.iter().enumerate().partition(|(position, _)| *position == failure.position);
    let numbers =
        |steps: Vec<(usize, &i64)>| steps.into_iter().map(|(_, id)| *id).collect::<Vec<_>>();
    let (failed, others) = (numbers(failed), numbers(others));
    catalog::log_step_ends(&failed, failure.sqlstate.as_deref(), Some(&failure.message))?;
    catalog::log_step_ends(&others, Some("25P02"), Some("rolled back"))
}

/// Sends a batch, again while what it drops is still in use and that can pass. What is gone
/// already is dropped.
async fn send_until_free(
    session: &mut Session,
    batch: Batch<'_>,
) -> std::result::Result<Duration, Failure> {
    let retries = batch.iter().any(|step| step.operation.retries_while_in_use());
    let done_if_undefined = batch.iter().all(|step| step.operation.is_done_if_undefined());
    let started = Instant::now();
    loop {
        match send_once(session, batch).await {
            Err(failure) if retries && failure.in_use() && started.elapsed() < IN_USE_LIMIT => {
                reactor::sleep(IN_USE_PAUSE).await;
            }
            Err(failure) if done_if_undefined && failure.undefined() => {
                return Ok(started.elapsed());
            }
            outcome => return outcome,
        }
    }
}

/// One round trip for the whole batch. The results that came before an error tell which of
/// its steps failed.
async fn send_once(
    session: &mut Session,
    batch: Batch<'_>,
) -> std::result::Result<Duration, Failure> {
    let statements: Vec<Sql> = batch.iter().map(|step| step.operation.sql()).collect();
    let text: Vec<&str> = statements.iter().map(Sql::text).collect();
    let started = Instant::now();
    let mut arrived = 0;
    let limit = session.step_limit(statements.iter().map(Sql::statements).sum());
    let sent = session.connection.simple_each(&text.join("; "), limit, |_| arrived += 1).await;
    sent.map(|()| started.elapsed()).map_err(|error| {
        let ends = statements.iter().scan(0, |end, sql| {
            *end += sql.statements();
            Some(*end)
        });
        let position = ends.into_iter().position(|end| arrived < end);
        Failure::new(position.unwrap_or(batch.len() - 1), error)
    })
}

/// `pg_reload_conf()` only asks. Waits until what the files say of a standby is in force, so
/// that the next look at the server finds what was done. One that does not get there is left
/// to the next plan.
async fn await_reload(session: &mut Session) -> std::result::Result<(), PeerError> {
    const PENDING: &str = "SELECT count(*) FROM pg_settings s LEFT JOIN (\
         SELECT DISTINCT ON (name) name, setting FROM pg_file_settings ORDER BY name, seqno DESC) f \
         ON f.name = s.name WHERE s.name IN ('primary_conninfo', 'primary_slot_name') \
         AND coalesce(f.setting, s.boot_val) IS DISTINCT FROM s.setting";
    let started = Instant::now();
    while started.elapsed() < RELOAD_LIMIT {
        let answer = session.connection.query(PENDING, &[]).await?;
        if answer.value(0, 0) == Some("0") {
            return Ok(());
        }
        reactor::sleep(RELOAD_PAUSE).await;
    }
    Ok(())
}
