//! `nodes.clone_standby()`: registers the standby, has a server on its machine make and start the
//! clone, and tells how far that is. What is registered first is how the next call knows what an
//! interrupted one has begun.

mod leftover;
mod prepare;

pub use leftover::{clear_done, clear_removed, clear_returned};
pub use prepare::{Parties, Request, call, unregistered_recipe};

use super::desired::Desired;
use super::leader::{self, open};
use super::report::warn;
use super::{demote, identity, load_active, run_registry_step};
use crate::catalog::{self, Event};
use crate::clone::{Action, Task};
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::Session;
use crate::pg::lock::{self, Work};
use crate::pg::{spi, undo};
use futures_util::future::{Either, select};
use nodes_plan::clone::{copier, progress, recipe};
use nodes_plan::desired::{LinkId, NodeId, Unfinished};
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use pgrx::PgSqlErrorCode as Code;
use prepare::{check, look, register, registered, task};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

/// How long a server that has started may take to answer, and to stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long what was cancelled may take to be gone.
const UNDO_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// Progress is told at most this often.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

pub fn clone_standby(request: &Request) -> Result<()> {
    let rows = leader::active_rows()?;
    let desired = Desired::from_rows(&rows)?;
    let parties = Parties {
        primary: rows.usable_node(&request.primary)?.id,
        machine: match &request.on_node {
            Some(name) => rows.usable_node(name)?.id,
            None => identity::this_node(&desired, &spi::in_own_transaction(catalog::identity)?)?,
        },
    };
    leader::check_managed(&desired, parties.primary)?;
    let known = registered(&rows, request, parties.primary)?;
    let (source, machine) = reactor::block_on(look(&desired, parties, request))?;
    let link = match known {
        Some(link) => link,
        None => {
            let task = task(request, &source, &machine, unregistered_recipe());
            reactor::block_on(check(&desired, parties, &task))?;
            register(request, &rows, parties)?
        }
    };
    let lock = lock::acquire(Work::Clone(link), None)?;
    let desired = spi::in_own_transaction(load_active)?;
    let found = desired.registry.link(link).and_then(|link| {
        let recipe = recipe(&desired.registry, link, source.version / 10_000)?;
        Some((link.to, recipe))
    });
    let Some((node, recipe)) = found else {
        // Whoever had the lock before has taken back what was registered.
        drop(lock);
        return clone_standby(request);
    };
    let task = task(request, &source, &machine, recipe);
    Job::new(&desired, parties, node, link, task).run(known.is_none())
}

/// A copy for a node that is registered.
pub struct Job<'a> {
    desired: &'a Desired,
    parties: Parties,
    node: NodeId,
    link: LinkId,
    task: Task,
    /// Whether this call has begun to make something.
    begun: Cell<bool>,
    /// The process on the target machine while it copies.
    copying: Cell<Option<i32>>,
}

impl<'a> Job<'a> {
    pub fn new(
        desired: &'a Desired,
        parties: Parties,
        node: NodeId,
        link: LinkId,
        task: Task,
    ) -> Job<'a> {
        let (begun, copying) = (Cell::new(false), Cell::new(None));
        Job { desired, parties, node, link, task, begun, copying }
    }

    /// `is_new`: whether this very call has registered it.
    fn run(&self, is_new: bool) -> Result<()> {
        self.fetch(is_new, || {
            run_registry_step(render(&Operation::ForgetNode { node: self.node }).text())
        })?;
        reactor::block_on(self.start())?;
        self.tell("cloned")?;
        let links = BTreeSet::from([self.link]);
        let lines = lock::with_apply_lock(None, |_| reactor::block_on(super::converge(links)))?;
        lines.into_iter().for_each(|line| warn(line, None));
        Ok(())
    }

    /// Makes the copy. What fails is taken back, also in the registry where this call has made the
    /// link: `forget` does what is left to do after that.
    pub fn fetch(&self, is_new: bool, forget: impl FnOnce() -> Result<()>) -> Result<()> {
        let Err(error) = self.copy_or_undo() else { return Ok(()) };
        // What cannot be taken back now is found by the next call, by what is registered.
        if reactor::block_on(self.undo()).is_ok() && is_new {
            run_registry_step(render(&Operation::ForgetLink { link: self.link }).text())?;
            forget()?;
        }
        Err(error)
    }

    fn copy_or_undo(&self) -> Result<()> {
        let undo = || drop(reactor::block_on(self.undo()));
        undo::or_undo(|| reactor::block_on(self.copy()), undo)
    }

    fn name(&self) -> &str {
        self.desired.registry.node_name(self.node)
    }

    async fn copy(&self) -> Result<()> {
        if self.is_running().await? {
            return Ok(());
        }
        let mut primary = open(self.desired, self.parties.primary).await?;
        let mut machine = open(self.desired, self.parties.machine).await?;
        if call(&mut machine, Action::Check, &self.task).await? == "vacant" {
            if demote::streams(&mut primary, &self.task.mark).await? {
                return Err(self.taken("It streams from its primary.".to_owned()));
            }
            leftover::note(self.desired, self.link, &self.place()).await?;
            self.begun.set(true);
            self.make_slot(&mut primary).await?;
        }
        let pid = machine.connection.query("SELECT pg_backend_pid()", &[]).await?;
        self.copying.set(pid.value(0, 0).and_then(|pid| pid.parse().ok()));
        let started = Instant::now();
        let copied = pin!(call(&mut machine, Action::Copy, &self.task));
        let told = pin!(self.tell_progress(&mut primary));
        let said = match select(copied, told).await {
            Either::Left((said, _)) => said,
            Either::Right((never, _)) => match never {},
        }?;
        self.copying.set(None);
        let took = started.elapsed().as_secs_f64();
        pgrx::notice!("{}: {said} ({took:.1} s)", self.name());
        Ok(())
    }

    fn place(&self) -> Unfinished {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Unfinished {
            on_node: self.parties.machine,
            directory: text(&self.task.directory),
            tablespaces: self.task.tablespaces.values().map(|path| text(path)).collect(),
            swap: self.task.port.is_none(),
        }
    }

    /// Whether the node answers as the clone that is wanted. Any other server but the one that a copy
    /// is to replace must not lose its slot to a clone.
    async fn is_running(&self) -> Result<bool> {
        let Ok(mut session) = open(self.desired, self.node).await else { return Ok(false) };
        if self.is_clone(&mut session).await? {
            return Ok(true);
        }
        if self.task.port.is_none() {
            return Ok(false);
        }
        const DIRECTORY: &str = "SELECT current_setting('data_directory')";
        let answer = session.connection.query(DIRECTORY, &[]).await?;
        let directory = answer.value(0, 0).unwrap_or_default();
        Err(self.taken(format!("It runs in \"{directory}\".")))
    }

    fn taken(&self, detail: String) -> Error {
        Error::Refused {
            code: Code::ERRCODE_OBJECT_IN_USE,
            message: format!("node \"{}\" is another server already", self.name()),
            detail: Some(detail),
            hint: "Choose another name for the clone, or stop that server if the clone is to take \
                   its place.",
        }
    }

    async fn is_clone(&self, session: &mut Session) -> Result<bool> {
        const WHERE: &str = "SELECT current_setting('data_directory') \
             WHERE pg_is_in_recovery() AND current_setting('primary_slot_name') = $1";
        let answer = session.connection.query(WHERE, &[Some(&self.task.mark)]).await?;
        Ok(answer.value(0, 0) == Some(&*self.task.directory.to_string_lossy()))
    }

    /// A slot of an earlier call serves this one, unless it has lost its WAL.
    async fn make_slot(&self, primary: &mut Session) -> Result<()> {
        const STATUS: &str = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
        let slot = self.task.mark.clone();
        let found = primary.connection.query(STATUS, &[Some(&slot)]).await?;
        if found.value(0, 0) == Some("lost") {
            self.drop_slot(primary).await?;
        } else if !found.is_empty() {
            return demote::end_reader(primary, &slot).await;
        }
        let create = render(&Operation::CreatePhysicalSlot { slot });
        Ok(primary.connection.simple(create.text()).await?)
    }

    async fn drop_slot(&self, primary: &mut Session) -> Result<()> {
        demote::drop_slot(primary, &self.task.mark).await
    }

    /// Ends what copies, and takes files and slot back.
    async fn undo(&self) -> Result<()> {
        if !self.begun.get() {
            // The slot may be that of a standby that is down.
            return Ok(());
        }
        let files = self.undo_files().await;
        let slot =
            async { self.drop_slot(&mut open(self.desired, self.parties.primary).await?).await };
        slot.await.and(files)
    }

    async fn undo_files(&self) -> Result<()> {
        let mut machine = open(self.desired, self.parties.machine).await?;
        if let Some(pid) = self.copying.take() {
            end_process(&mut machine, pid).await?;
        }
        call(&mut machine, Action::Clear, &self.task).await.map(|_| ())
    }

    /// Until it is no more listened to.
    async fn tell_progress(&self, primary: &mut Session) -> std::convert::Infallible {
        const PROGRESS: &str = "SELECT p.phase, p.backup_streamed, p.backup_total \
             FROM pg_stat_progress_basebackup p JOIN pg_stat_replication r USING (pid) \
             WHERE r.application_name = $1";
        let copier = copier(&self.task.mark);
        let mut streaming: Option<Instant> = None;
        let mut said = String::new();
        loop {
            reactor::sleep(NOTICE_INTERVAL).await;
            let answer = primary.connection.query(PROGRESS, &[Some(&copier)]).await;
            let Some((phase, answer)) =
                answer.ok().and_then(|answer| Some((answer.value(0, 0)?.to_owned(), answer)))
            else {
                continue;
            };
            let number = |column| answer.value(0, column).and_then(|text| text.parse().ok());
            let line = match number(1) {
                Some(done) if done > 0 => {
                    let since = streaming.get_or_insert_with(Instant::now).elapsed();
                    format!("{phase}, {}", progress(done, number(2), since))
                }
                Some(_) | None => phase,
            };
            if line != said {
                pgrx::notice!("{}: {line}", self.name());
                said = line;
            }
        }
    }

    async fn start(&self) -> Result<()> {
        let mut machine = open(self.desired, self.parties.machine).await?;
        let said = call(&mut machine, Action::Start, &self.task).await?;
        pgrx::notice!("{}: {said}", self.name());
        self.await_answer().await?;
        self.await_stream().await?;
        // While its marker is there, a complete clone is no leftover.
        leftover::note_done(self.link)?;
        call(&mut machine, Action::Finish, &self.task).await.map(|_| ())
    }

    /// The server is up; now it must be the one that the registry reaches by its name.
    async fn await_answer(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = match open(self.desired, self.node).await {
                Ok(mut session) => self.is_clone(&mut session).await,
                Err(error) => Err(error),
            };
            let why = match answer {
                Ok(true) => return Ok(()),
                Ok(false) => "another server answers there".to_owned(),
                Err(error) => self.desired.redact(&error.to_string()),
            };
            if started.elapsed() > ANSWER_LIMIT {
                return Err(Error::Refused {
                    code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    message: format!("the clone runs, but not as node \"{}\"", self.name()),
                    detail: Some(crate::error::sentence(&why)),
                    hint: "Correct how it is reached with nodes.alter_node(), or its pg_hba.conf, \
                           and make the same call again.",
                });
            }
            reactor::sleep(PAUSE).await;
        }
    }

    /// One that takes longer is told of, but no failure.
    async fn await_stream(&self) -> Result<()> {
        let mut primary = open(self.desired, self.parties.primary).await?;
        let started = Instant::now();
        while started.elapsed() < ANSWER_LIMIT {
            if demote::streams(&mut primary, &self.task.mark).await? {
                return Ok(());
            }
            reactor::sleep(PAUSE).await;
        }
        let hint = format!("The server log of \"{}\" says why.", self.name());
        warn(format!("standby \"{}\" does not stream yet", self.name()), Some(hint));
        Ok(())
    }

    fn tell(&self, kind: &str) -> Result<()> {
        let primary = self.desired.registry.node_name(self.parties.primary);
        let message = format!("\"{}\" is a clone of \"{primary}\" and follows it", self.name());
        let event = Event {
            node: Some(self.name()),
            link: Some(self.desired.link_name(self.link)),
            kind,
            severity: "info",
            message: &message,
            detail: None,
        };
        spi::in_own_transaction(|| catalog::append_event(&event))?;
        pgrx::notice!("{message}");
        Ok(())
    }
}

/// Cancels what a process of that server does, and waits for its end, since nobody holds its
/// connection any more.
async fn end_process(session: &mut Session, pid: i32) -> Result<()> {
    const CANCEL: &str = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
         WHERE pid = $1::integer AND application_name = 'pg_nodes'";
    let started = Instant::now();
    while started.elapsed() < UNDO_LIMIT {
        let answer = session.connection.query(CANCEL, &[Some(&pid.to_string())]).await?;
        if answer.is_empty() {
            return Ok(());
        }
        reactor::sleep(PAUSE).await;
    }
    Ok(())
}
