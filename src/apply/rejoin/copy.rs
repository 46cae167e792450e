//! The clone that takes the place of a server's own data: made by that server while it runs, beside
//! its data directory, so that a call that fails or is cancelled leaves it as it was. Only the
//! restart, at the end, has it change over.

use super::{COPY_TRUE, Rejoining, silent, started};
use crate::apply::clone::{Job, Parties, call, unregistered_recipe};
use crate::apply::demote;
use crate::apply::leader::{self, open};
use crate::clone::demote::{Ability, Demotion};
use crate::clone::swap::Stage;
use crate::clone::{Action, Task};
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::Session;
use crate::pg::lock;
use nodes_plan::clone::Recipe;
use nodes_plan::desired::Link;
use nodes_plan::failover::Reason;
use nodes_plan::rejoin::{Returning, Way, obstacles};
use pgrx::PgSqlErrorCode as Code;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What the primary says of what is to be copied.
#[derive(Deserialize)]
struct Source {
    tablespaces: bool,
    bytes: u64,
}

const SOURCE: &str = "SELECT json_build_object(\
     'tablespaces', bool_or(spcname NOT IN ('pg_default', 'pg_global')), \
     'bytes', sum(pg_tablespace_size(oid))) FROM pg_tablespace";

impl Rejoining<'_> {
    /// Everything that can be known before anything is done.
    pub(super) async fn check_copy(
        &self,
        returning: Returning,
        session: &mut Session,
        primary: &mut Session,
        mark: &str,
    ) -> Result<Vec<Reason>> {
        let source: Source = leader::ask(primary, SOURCE, &[]).await?;
        let returning = Returning { tablespaces: source.tablespaces, ..returning };
        let against = obstacles(self.name, &returning, Way::Copy);
        if against.is_empty() {
            let recipe = Recipe { mark: mark.to_owned(), ..unregistered_recipe() };
            let task = self.task(session, recipe, source.bytes).await?;
            call(session, Action::Check, &task).await?;
        }
        Ok(against)
    }

    /// The copy brings no settings: it is given the server's own, which name its primary.
    async fn task(&self, session: &mut Session, recipe: Recipe, bytes: u64) -> Result<Task> {
        Ok(Task {
            directory: self.ability(session, &recipe.mark).await?.copy,
            major: session.connection.server_version() / 10_000,
            mark: recipe.mark,
            conninfo: recipe.conninfo,
            passfile: recipe.passfile,
            slot: recipe.slot,
            max_rate: self.request.max_rate,
            tablespaces: BTreeMap::new(),
            sizes: BTreeMap::from([(String::new(), bytes)]),
            checksums: true,
            verify: false,
            port: None,
            settings: vec![],
            files: BTreeMap::new(),
            overrides: vec![],
        })
    }

    /// After `pg_rewind` has found a reason that could not be seen before.
    pub(super) fn copy_after(&self, why: &str, link: &Link, is_new: bool) -> Result<()> {
        let refuse = |detail: String, hint| {
            Err(Error::Refused {
                code: Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                message: format!("\"{}\" could not be rewound, and is as it was", self.name),
                detail: Some(detail),
                hint,
            })
        };
        if !self.request.copy {
            return refuse(why.to_owned(), COPY_TRUE);
        }
        let no_copy = reactor::block_on(self.check_copy_now(link))?;
        if !no_copy.is_empty() {
            let detail = format!("{why}\n{}", self.lines(&no_copy));
            return refuse(detail, "Correct the cause and make the same call again.");
        }
        pgrx::notice!("\"{}\" could not be rewound: {why}", self.name);
        self.copy(link, is_new)
    }

    async fn check_copy_now(&self, link: &Link) -> Result<Vec<Reason>> {
        let mut session = open(self.desired, self.returning).await?;
        let mut primary = open(self.desired, self.primary).await?;
        let mark = self.mark(Some(link), &session)?;
        let ability = self.ability(&mut session, &mark).await?;
        let on = self.ask(&mut session, &Ok(ability)).await?;
        self.check_copy(on, &mut session, &mut primary, &mark).await
    }

    pub(super) fn copy(&self, link: &Link, is_new: bool) -> Result<()> {
        let (recipe, ability) = reactor::block_on(self.prepare(link))?;
        if ability.stage != Stage::Named {
            pgrx::notice!(
                "\"{}\" is copied anew from \"{}\"; what it writes until that is done is lost as well",
                self.name,
                self.primary_name()
            );
            let task = reactor::block_on(self.full_task(recipe.clone()))?;
            let parties = Parties { primary: self.primary, machine: self.returning };
            let job = Job::new(self.desired, parties, self.returning, link.id, task);
            job.fetch(is_new, || Ok(()))?;
        }
        let change_over = |_| reactor::block_on(self.change_over(&recipe, &ability.copy));
        lock::with_apply_lock(None, change_over)
    }

    async fn prepare(&self, link: &Link) -> Result<(Recipe, Ability)> {
        let mut session = open(self.desired, self.returning).await?;
        let recipe = demote::recipe_for(&self.desired.registry, link, &session)?;
        let ability = self.ability(&mut session, &recipe.mark).await?;
        if ability.stage == Stage::Complete && !self.slot_is_whole(&recipe.mark).await? {
            let task = self.task(&mut session, recipe.clone(), 0).await?;
            call(&mut session, Action::Clear, &task).await?;
        }
        Ok((recipe, ability))
    }

    /// Whether the WAL that a complete copy needs is kept; else it could not follow.
    async fn slot_is_whole(&self, mark: &str) -> Result<bool> {
        const WHOLE: &str = "SELECT 1 FROM pg_replication_slots \
             WHERE slot_name = $1 AND wal_status <> 'lost'";
        let mut primary = open(self.desired, self.primary).await?;
        Ok(!primary.connection.query(WHOLE, &[Some(mark)]).await?.is_empty())
    }

    async fn ability(&self, session: &mut Session, mark: &str) -> Result<Ability> {
        let demotion = Demotion { mark: mark.to_owned(), ..Demotion::default() };
        let ability = demote::ability(session, &demotion).await;
        ability.map_err(|why| silent(self.name, &why))
    }

    async fn full_task(&self, recipe: Recipe) -> Result<Task> {
        let mut primary = open(self.desired, self.primary).await?;
        let source: Source = leader::ask(&mut primary, SOURCE, &[]).await?;
        self.task(&mut open(self.desired, self.returning).await?, recipe, source.bytes).await
    }

    /// `old`: where its data is after that.
    async fn change_over(&self, recipe: &Recipe, old: &Path) -> Result<()> {
        let demotion = Demotion { mark: recipe.mark.clone(), swap: true, ..Demotion::default() };
        let mut session = open(self.desired, self.returning).await?;
        demote::make_slot(&mut open(self.desired, self.primary).await?, &recipe.mark).await?;
        demote::tell(&mut session, recipe).await?;
        let before = started(&mut session).await?;
        pgrx::notice!("\"{}\" stops, and returns on the copy", self.name);
        demote::restart(&mut session, self.returning, &demotion).await?;
        if let Some(why) = self.await_return(&demotion, &before, Some(old)).await? {
            return Err(Error::Refused {
                code: Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                message: format!("\"{}\" has returned, but not as a standby", self.name),
                detail: Some(why),
                hint: "Make the same call again.",
            });
        }
        Ok(())
    }
}
