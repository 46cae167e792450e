//! `nodes.switchover()`: a primary hands over to one of its standbys. The primary is shut down
//! first, which waits until its standbys have all it has written; it comes back as a standby of
//! what is still a standby; and when that one has replayed all of it, it is promoted. So at no
//! time two servers take writes, and none diverges. Until the promotion everything can be taken
//! back; after it the rest is a plan like any other.

use super::claim::{claim, claim_by};
use super::desired::Desired;
use super::failover;
use super::leader::{self, Writer, forget_awaited, forget_upstream, make_primary, open};
use super::promote::{ask_members, no_standby};
use super::report::warn;
use super::{demote, identity};
use crate::catalog::{self, Rows};
use crate::clone::demote::Demotion;
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::session::Session;
use crate::pg::{lock, spi, undo};
use futures_util::future::join_all;
use nodes_plan::clone::Recipe;
use nodes_plan::desired::{Link, NodeId};
use nodes_plan::name::Mark;
use nodes_plan::promotion::{Answer, Group, OldPrimary, group_of};
use nodes_plan::quote::Sql;
use nodes_plan::switchover::{Evidence, Stage, Traffic, judge, link_to, turned};
use pgrx::PgSqlErrorCode as Code;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a primary that was taken back may take.
const UNDO_LIMIT: Duration = Duration::from_secs(60);

const TRAFFIC: &str = include_str!("../observe/switchover_traffic.sql");

/// Whoever applies meanwhile would take what is half-made for what was left by somebody. Where the
/// registry is a standby's, he does that on the primary, which ends him.
pub fn switchover(name: &str, timeout: Duration, force: bool) -> Result<()> {
    match spi::in_recovery() {
        true => switch_over(name, timeout, force),
        false => lock::with_apply_lock(Some(timeout), |_| switch_over(name, timeout, force)),
    }
}

fn switch_over(name: &str, timeout: Duration, force: bool) -> Result<()> {
    let rows = leader::active_rows()?;
    let desired = Desired::from_rows(&rows)?;
    let candidate = rows.usable_node(name)?.id;
    let group = group_of(&desired.registry, candidate).ok_or_else(|| no_standby(name))?;
    let link = link_to(&desired.registry, candidate).ok_or_else(|| no_standby(name))?;
    let handover = Handover {
        desired: &desired,
        mark: desired.registry.mark(link),
        link,
        old: group.primary,
        new: candidate,
        timeout,
        touched: Cell::new(false),
        restarted: Cell::new(None),
        promoting: Cell::new(false),
    };
    // What is read outside of a transaction of its own would hold up replay here until the end.
    let here = spi::in_own_transaction(catalog::identity)?;
    if identity::is_here(&desired, &here, group.primary)? {
        return Err(handover.called_on_primary());
    }
    let _claim = reactor::block_on(claim(&desired, candidate))?;
    let stage = handover.check(&rows, &group, force)?;
    let writer = Writer::of(&rows, &desired, candidate)?;
    if stage != Stage::Promoted {
        handover.carry_out(stage)?;
    }
    handover.tell_all(&writer)
}

/// The primary, its successor, and how far things are.
struct Handover<'a> {
    desired: &'a Desired,
    /// The standby link of the successor, which turns round.
    link: &'a Link,
    mark: Mark,
    old: NodeId,
    new: NodeId,
    timeout: Duration,
    /// Whether something on the servers was changed.
    touched: Cell<bool>,
    /// When the primary was told to restart.
    restarted: Cell<Option<Instant>>,
    /// Whether the successor was told to become the primary: from then on it may be one.
    promoting: Cell<bool>,
}

impl<'a> Handover<'a> {
    fn old_name(&self) -> &'a str {
        self.desired.registry.node_name(self.old)
    }

    fn new_name(&self) -> &'a str {
        self.desired.registry.node_name(self.new)
    }

    fn called_on_primary(&self) -> Error {
        Error::Refused {
            code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!(
                "nodes.switchover() cannot run on \"{}\", which it restarts",
                self.old_name()
            ),
            detail: None,
            hint: "Call it on the new primary to be, or on any other server that has the registry.",
        }
    }

    /// Refuses what cannot end well, and tells how far an earlier call came.
    fn check(&self, rows: &Rows, group: &Group, force: bool) -> Result<Stage> {
        let verdicts = failover::judge(self.desired, &failover::lag_limits(rows));
        let obstacles = verdicts.into_iter().find(|verdict| verdict.link == self.link.id);
        let obstacles = obstacles.map_or(vec![], |verdict| verdict.reasons);
        let found = reactor::block_on(self.ask(group))?;
        let evidence = Evidence {
            registry: &self.desired.registry,
            group,
            candidate: self.new,
            answers: &found.answers,
            obstacles: &obstacles,
            cut_off: &found.cut_off,
            traffic: &found.traffic,
            no_restart: found.no_restart.as_deref(),
        };
        let stage = evidence.stage();
        if stage == Stage::Fresh {
            let (old, new) = (self.old_name(), self.new_name());
            let message = format!("\"{old}\" cannot hand over to \"{new}\" now");
            leader::decide(self.desired, judge(&evidence), force, message)?;
        }
        Ok(stage)
    }

    async fn ask(&self, group: &Group) -> Result<Found> {
        let answers = ask_members(self.desired, group).await;
        let cut_off = self.ask_who_is_cut_off(group).await;
        let mut found = Found { answers, cut_off, ..Found::default() };
        let asked = async {
            let mut session = open(self.desired, self.old).await?;
            let slot = self.mark.slot_name();
            let traffic: Traffic = leader::ask(&mut session, TRAFFIC, &[Some(&slot)]).await?;
            Ok::<_, Error>((traffic, demote::ability(&mut session, &self.demotion()).await))
        };
        match asked.await {
            Ok((traffic, ability)) => {
                found.traffic = traffic;
                found.no_restart = match ability {
                    Ok(ability) => ability.no_restart,
                    Err(why) => Some(why),
                };
            }
            // Who does not answer is told of by the answers.
            Err(error) if found.answers.get(&self.old).is_some_and(|answer| answer.is_ok()) => {
                return Err(error);
            }
            Err(_) => {}
        }
        Ok(found)
    }

    /// Members with pg_nodes can say whether they reach the new primary to be.
    async fn ask_who_is_cut_off(&self, group: &Group) -> BTreeMap<NodeId, String> {
        let others = group.standbys.iter().copied().filter(|node| *node != self.new);
        let asked = others.chain([self.old]).map(async |node| {
            let mut session = open(self.desired, node).await.ok()?;
            Some((node, cannot_reach(&mut session, self.new_name()).await?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn demotion(&self) -> Demotion {
        Demotion { mark: self.mark.slot_name(), ..Demotion::default() }
    }

    /// Up to the promotion; whatever ends it before, things are as they were.
    fn carry_out(&self, stage: Stage) -> Result<()> {
        let work = || reactor::block_on(self.hand_over(stage));
        let done = undo::or_undo(work, || {
            if let Err(error) = reactor::block_on(self.take_back()) {
                warn(self.desired.redact(&error.to_string()), self.again());
            }
        });
        let Err(error) = done else { return Ok(()) };
        match reactor::block_on(self.take_back()) {
            Ok(()) => Err(error),
            Err(second) => {
                warn(self.desired.redact(&second.to_string()), self.again());
                Err(error)
            }
        }
    }

    fn again(&self) -> Option<String> {
        let (old, new) = (self.old_name(), self.new_name());
        Some(format!(
            "\"{old}\" may still be a standby, with no primary in the group: the same call goes \
             on; nodes.promote() makes \"{new}\" the primary if \"{old}\" is lost."
        ))
    }

    async fn hand_over(&self, stage: Stage) -> Result<()> {
        let began = Instant::now();
        if stage == Stage::Fresh {
            let mut old = open(self.desired, self.old).await?;
            self.prepare(&mut old).await?;
            self.restarted.set(Some(Instant::now()));
            demote::restart(&mut old, self.old, &self.demotion()).await?;
        } else {
            self.touched.set(true);
        }
        let deadline = self.restarted.get().unwrap_or(began) + self.timeout;
        let position = demote::await_standby(self.desired, self.old, deadline).await?;
        pgrx::notice!("\"{}\" is a standby, at {position}", self.old_name());
        demote::await_replay(self.desired, self.new, position, deadline).await?;
        self.promoting.set(true);
        make_primary(self.desired, self.new).await?;
        match self.restarted.get() {
            Some(since) => {
                let pause = since.elapsed().as_secs_f64() * 1000.0;
                pgrx::notice!(
                    "\"{}\" is the primary: no writes for {pause:.0} ms",
                    self.new_name()
                );
            }
            None => pgrx::notice!("\"{}\" is the primary", self.new_name()),
        }
        Ok(())
    }

    /// What can be done while the primary works.
    async fn prepare(&self, old: &mut Session) -> Result<()> {
        claim_by(old, self.old_name()).await?;
        // Another call may have been quicker.
        let answer = old.connection.query("SELECT pg_is_in_recovery()", &[]).await?;
        if answer.value(0, 0) != Some("f") {
            return Err(Error::Refused {
                code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: format!("\"{}\" is not a primary any more", self.old_name()),
                detail: None,
                hint: "nodes.status shows who is now.",
            });
        }
        let began = Instant::now();
        let checkpoint = "SET statement_timeout = 0; CHECKPOINT";
        old.connection.simple_each(checkpoint, Some(self.timeout), |_| {}).await?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        pgrx::notice!("{}: checkpoint ({took:.0} ms)", self.old_name());
        let recipe = self.recipe(old)?;
        self.touched.set(true);
        forget_awaited(self.desired, self.new).await?;
        let mut new = open(self.desired, self.new).await?;
        if recipe.slot {
            demote::make_slot(&mut new, &recipe.mark).await?;
        }
        demote::tell(old, &recipe).await
    }

    /// How the old primary will follow the new one.
    fn recipe(&self, old: &Session) -> Result<Recipe> {
        let (registry, link) = turned(&self.desired.registry, self.link, self.old);
        demote::recipe_for(&registry, &link, old)
    }

    /// Whether an earlier call has made a standby of the primary.
    async fn is_demoted(&self) -> bool {
        let now = Instant::now();
        demote::await_standby(self.desired, self.old, now).await.is_ok()
    }

    /// Makes the old primary the primary again.
    async fn take_back(&self) -> Result<()> {
        if self.promoting.get() {
            return Err(Error::Refused {
                code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: format!("\"{}\" was told to become the primary", self.new_name()),
                detail: Some("Nothing is taken back from here on.".to_owned()),
                hint: "Make the same call again: it does the rest.",
            });
        }
        if !self.touched.get() {
            return Ok(());
        }
        if self.restarted.get().is_some() || self.is_demoted().await {
            let deadline = Instant::now() + UNDO_LIMIT;
            let back = demote::await_standby(self.desired, self.old, deadline).await;
            if let Err(error) = back {
                // One that has not restarted must not become a standby at some later start.
                let mut old = open(self.desired, self.old).await?;
                demote::cancel(&mut old, &self.demotion()).await?;
                return Err(error);
            }
            make_primary(self.desired, self.old).await?;
            pgrx::notice!("\"{}\" is the primary again", self.old_name());
        }
        forget_upstream(self.desired, self.old, &self.mark).await?;
        let mut new = open(self.desired, self.new).await?;
        demote::drop_slot(&mut new, &self.mark.slot_name()).await
    }

    /// From here on nothing is taken back: what fails is left to the next `nodes.apply()`.
    fn tell_all(&self, writer: &Writer<'_>) -> Result<()> {
        reactor::block_on(forget_upstream(self.desired, self.new, &self.mark))?;
        writer.relink(self.new_name(), self.old_name(), OldPrimary::Follows)?;
        if !writer.apply(self.new_name()) {
            // Who still follows the old primary reads its slot there; the plan drops it then.
            return Ok(());
        }
        let cleaned = reactor::block_on(async {
            let mut old = open(self.desired, self.old).await?;
            demote::drop_stale_slots(&mut old, self.desired).await
        });
        if let Err(error) = cleaned {
            let message = self.desired.redact(&error.to_string());
            let hint = "Its slots that are of no use hold WAL: drop them there.".to_owned();
            warn(format!("\"{}\": {message}", self.old_name()), Some(hint));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Found {
    answers: BTreeMap<NodeId, Answer>,
    cut_off: BTreeMap<NodeId, String>,
    traffic: Traffic,
    no_restart: Option<String>,
}

/// Why a member cannot connect to another, where it has pg_nodes and the same registry to say so.
async fn cannot_reach(session: &mut Session, other: &str) -> Option<String> {
    const HAS: &str = "SELECT to_regprocedure('nodes.test_node(text)') IS NOT NULL";
    let has = session.connection.query(HAS, &[]).await.ok()?;
    if has.value(0, 0) != Some("t") {
        return None;
    }
    let failed = Sql::new("SELECT detail FROM nodes.test_node(")
        .literal(other)
        .raw(") WHERE factor IN ('dns', 'tcp', 'tls', 'authentication', 'session') AND NOT ok");
    let mut why = None;
    let heard = |rows: crate::libpq::connection::Rows| {
        why = rows.value(0, 0).map(str::to_owned);
    };
    let limit = crate::guc::connect_timeout() * 4;
    session.connection.simple_each(failed.text(), Some(limit), heard).await.ok()?;
    why
}
