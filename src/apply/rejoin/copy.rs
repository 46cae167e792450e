//! The clone that takes the place of a server's own data: made by that server while it runs, beside
//! its data directory, so that a call that fails or is cancelled leaves it as it was. Only the
//! restart, at the end, has it change over.

use super::{COPY_TRUE, Rejoining, started};
use crate::apply::clone::{Job, Parties, call};
use crate::apply::demote;
use crate::apply::leader::{self, open};
use crate::clone::demote::Demotion;
use crate::clone::swap::Stage;
use crate::clone::{Action, Task};
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::Session;
use nodes_plan::clone::Recipe;
use nodes_plan::desired::Link;
use nodes_plan::failover::Reason;
use nodes_plan::rejoin::{Returning, Way, obstacles};
use pgrx::PgSqlErrorCode as Code;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

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
            let recipe = Recipe { mark: mark.to_owned(), ..super::unregistered_recipe() };
            let task = self.task(session, recipe, source.bytes).await?;
            call(session, Action::Check, &task).await?;
        }
        Ok(against)
    }

    /// The copy brings no settings: it is given the server's own, which name its primary.
    async fn task(&self, session: &mut Session, recipe: Recipe, bytes: u64) -> Result<Task> {
        Ok(Task {
            directory: self.directory(session, &recipe.mark).await?,
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

    async fn directory(&self, session: &mut Session, mark: &str) -> Result<PathBuf> {
        let demotion = Demotion { mark: mark.to_owned(), ..Demotion::default() };
        let ability = demote::ability(session, &demotion).await;
        ability.map(|ability| ability.copy).map_err(|why| super::silent(self.name, &why))
    }

    /// After `pg_rewind` has found a reason that could not be seen before.
    pub(super) fn copy_after(&self, why: &str, link: &Link, is_new: bool) -> Result<()> {
        let no_copy = reactor::block_on(async {
            let mut session = open(self.desired, self.returning).await?;
            let mut primary = open(self.desired, self.primary).await?;
            let mark = self.mark(Some(link), &session)?;
            let demotion = Demotion { mark, ..Demotion::default() };
            let mut on: Returning = leader::ask(&mut session, super::RETURNING, &[]).await?;
            on.no_copy = match demote::ability(&mut session, &demotion).await {
                Ok(ability) => ability.no_copy,
                Err(why) => Some(why),
            };
            self.check_copy(on, &mut session, &mut primary, &demotion.mark).await
        })?;
        if self.request.copy && no_copy.is_empty() {
            pgrx::notice!("\"{}\" could not be rewound: {why}", self.name);
            return self.copy(link, is_new);
        }
        Err(Error::Refused {
            code: Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            message: format!("\"{}\" could not be rewound, and is as it was", self.name),
            detail: Some(format!("{why}\n{}", self.lines(&no_copy)).trim_end().to_owned()),
            hint: if self.request.copy {
                "Correct the cause and make the same call again."
            } else {
                COPY_TRUE
            },
        })
    }

    pub(super) fn copy(&self, link: &Link, is_new: bool) -> Result<()> {
        let (recipe, stage) = reactor::block_on(self.prepare(link))?;
        let demotion = Demotion { mark: recipe.mark.clone(), swap: true, ..Demotion::default() };
        if stage != Stage::Named {
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
        reactor::block_on(self.change_over(&recipe, &demotion))
    }

    /// An old directory of an earlier return is in the way.
    async fn prepare(&self, link: &Link) -> Result<(Recipe, Stage)> {
        let mut session = open(self.desired, self.returning).await?;
        let recipe = demote::recipe_for(&self.desired.registry, link, &session)?;
        let demotion = Demotion { mark: recipe.mark.clone(), ..Demotion::default() };
        let ability = demote::ability(&mut session, &demotion).await;
        let stage = ability.map_err(|why| super::silent(self.name, &why))?.stage;
        if stage == Stage::Taken {
            demote::finish(&mut session, &demotion).await?;
        }
        Ok((recipe, stage))
    }

    async fn full_task(&self, recipe: Recipe) -> Result<Task> {
        let mut primary = open(self.desired, self.primary).await?;
        let source: Source = leader::ask(&mut primary, SOURCE, &[]).await?;
        self.task(&mut open(self.desired, self.returning).await?, recipe, source.bytes).await
    }

    async fn change_over(&self, recipe: &Recipe, demotion: &Demotion) -> Result<()> {
        let mut session = open(self.desired, self.returning).await?;
        demote::make_slot(&mut open(self.desired, self.primary).await?, &recipe.mark).await?;
        demote::tell(&mut session, recipe).await?;
        let before = started(&mut session).await?;
        pgrx::notice!("\"{}\" stops, and returns on the copy", self.name);
        demote::restart(&mut session, demotion).await?;
        if let Some(why) = self.await_return(demotion, &before).await? {
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
