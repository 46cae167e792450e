//! `nodes.rejoin()`: a server that was the primary of a group returns as a standby of who is now.
//! What it has written since the other left its timeline is taken back by `pg_rewind`, which the
//! server runs on itself, or goes with its data, in place of which it puts a copy, see [`copy`].
//! What is registered first is how the next call, or `nodes.apply()`, knows what an interrupted one
//! has begun.

mod copy;

use super::claim::claim;
use super::clone::{clear_done, unregistered_recipe};
use super::demote;
use super::desired::Desired;
use super::leader::{self, open};
use super::promote::wal_timeline;
use super::report::warn;
use crate::catalog::{self, Event, Rows};
use crate::clone::demote::{Ability, Demotion, Source};
use crate::clone::swap::Stage;
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe::{self, session::Session};
use crate::pg::{lock, spi};
use futures_util::future::join_all;
use nodes_plan::desired::{Link, LinkId, NodeId, Spec, StandbySpec};
use nodes_plan::failover::Reason;
use nodes_plan::lsn::Lsn;
use nodes_plan::pulse::Pulse;
use nodes_plan::rejoin::{
    Divergence, NoPrimary, Past, Returning, Way, free_name, obstacles, primary_for,
};
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use nodes_plan::switchover::link_to;
use pgrx::PgSqlErrorCode as Code;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);
const NOTHING_CHANGED: &str = "Nothing was changed. Correct the cause, or do what is said above.";
const COPY_TRUE: &str = "Nothing was changed. Correct the cause, or pass copy => true to have that \
                         server copied anew.";

/// What the caller wants.
pub struct Request<'a> {
    pub name: &'a str,
    /// How long the server may take to return.
    pub timeout: Duration,
    /// Whether it may be copied anew.
    pub copy: bool,
    /// At which rate, in kilobytes a second.
    pub max_rate: Option<u64>,
}

/// What only the server itself can say.
const RETURNING: &str = "SELECT json_build_object(\
     'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
     'knows_changes', current_setting('wal_log_hints')::boolean \
         OR current_setting('data_checksums')::boolean, \
     'full_page_writes', current_setting('full_page_writes')::boolean)";

pub fn rejoin(request: &Request) -> Result<()> {
    let name = request.name;
    if spi::in_recovery() {
        return Err(Error::InRecovery("nodes.rejoin()"));
    }
    let rows = leader::active_rows()?;
    let desired = Desired::from_rows(&rows)?;
    let returning = rows.usable_node(name)?.id;
    let _claim = reactor::block_on(claim(&desired, returning))?;
    let pulses = reactor::block_on(ask_all(&desired));
    let own = match &pulses[&returning] {
        Ok(pulse) => pulse.clone(),
        Err(why) => return Err(silent(name, why)),
    };
    let primary = primary_of(&desired, &pulses, returning, &own)?;
    leader::check_managed(&desired, primary)?;
    let primary_name = rows.node_name(primary).to_owned();
    let rejoining = Rejoining { request, desired: &desired, name, returning, primary };
    let way = reactor::block_on(rejoining.look(&own))?;
    let (link, is_new) = register(&rows, &desired, name, primary, returning)?;
    // With the link in it.
    let desired = spi::in_own_transaction(super::load_active)?;
    let link = desired.registry.link(link).ok_or_else(|| silent(name, "its link is gone"))?;
    let rejoining = Rejoining { desired: &desired, ..rejoining };
    match way {
        None => {}
        Some(Way::Copy) => rejoining.copy(link, is_new)?,
        Some(Way::Rewind) => {
            // What it needs meanwhile others would take for leftovers.
            let rewind = |_| reactor::block_on(rejoining.rewind(link));
            if let Some(why) = lock::with_apply_lock(None, rewind)? {
                rejoining.copy_after(&why, link, is_new)?;
            }
        }
    }
    // With what was noted meanwhile.
    let desired = spi::in_own_transaction(super::load_active)?;
    reactor::block_on(clear_done(&desired, link.id))?;
    finish(name, &primary_name)
}

fn silent(name: &str, why: &str) -> Error {
    Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("node \"{name}\" does not answer"),
        detail: Some(why.to_owned()),
        hint: "Start that server: it rewinds itself. One that is lost is made anew by \
               nodes.clone_standby().",
    }
}

async fn ask_all(desired: &Desired) -> BTreeMap<NodeId, std::result::Result<Pulse, String>> {
    let asked = desired.targets().into_iter().map(async |(target, _)| {
        let pulse = async {
            let mut session = Session::open(&target).await?;
            Ok::<_, Error>(observe::pulse(&mut session).await?.pulse)
        };
        (target.id, pulse.await.map_err(|error| desired.redact(&error.to_string())))
    });
    join_all(asked).await.into_iter().collect()
}

/// Who is the primary of the server's group now.
fn primary_of(
    desired: &Desired,
    pulses: &BTreeMap<NodeId, std::result::Result<Pulse, String>>,
    returning: NodeId,
    own: &Pulse,
) -> Result<NodeId> {
    let others = pulses.iter().filter(|(id, _)| **id != returning);
    let others = others.filter_map(|(id, pulse)| Some((*id, pulse.as_ref().ok()?)));
    let name = desired.registry.node_name(returning);
    let (message, hint) = match primary_for(own, others) {
        Ok(primary) => return Ok(primary),
        Err(NoPrimary::Silent) => (
            format!("no other primary of the group of \"{name}\" answers"),
            "Register it, or bring it back; nodes.promote() makes one of a standby.",
        ),
        Err(NoPrimary::NotNewer) => (
            format!(
                "\"{name}\" is on timeline {}, which is not older than that of the other primary",
                own.timeline
            ),
            "There are two primaries: have the other one return, or stop this one, and make it \
             anew with nodes.clone_standby().",
        ),
    };
    let code = Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    Err(Error::Refused { code, message, detail: None, hint })
}

/// The link by which the server will follow, and whether it is new.
fn register(
    rows: &Rows,
    desired: &Desired,
    name: &str,
    primary: NodeId,
    returning: NodeId,
) -> Result<(LinkId, bool)> {
    if let Some(link) = link_to(&desired.registry, returning) {
        if link.from != primary {
            let step = Operation::MoveLink { link: link.id, from: primary, to: returning };
            super::run_registry_step(render(&step).text())?;
        }
        return Ok((link.id, false));
    }
    let taken = rows.links.iter().map(|link| link.name.as_str()).collect();
    let link_name = free_name(name, &taken);
    spi::in_own_transaction(|| {
        spi::outlive_a_crash();
        let spec = Spec::Standby(StandbySpec::new(true));
        catalog::insert_link(&link_name, primary, returning, &spec, false)?;
        Ok((Rows::load()?.link(&link_name)?.id, true))
    })
}

struct Rejoining<'a> {
    request: &'a Request<'a>,
    desired: &'a Desired,
    name: &'a str,
    returning: NodeId,
    primary: NodeId,
}

impl Rejoining<'_> {
    fn primary_name(&self) -> &str {
        self.desired.registry.node_name(self.primary)
    }

    /// Says how far the two are apart, refuses what cannot end well, and tells how the server is to
    /// return; `None`: it is a standby that can follow as it is.
    async fn look(&self, own: &Pulse) -> Result<Option<Way>> {
        const HISTORY: &str = "SELECT pg_read_file('pg_wal/' || lpad(upper(to_hex(timeline_id)), \
             8, '0') || '.history') FROM pg_control_checkpoint()";
        const END: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
             ELSE pg_current_wal_lsn() END";
        let mut primary = open(self.desired, self.primary).await?;
        let mut session = open(self.desired, self.returning).await?;
        let timeline = match own.in_recovery {
            true => wal_timeline(&mut session).await.unwrap_or_default().max(own.timeline),
            false => own.timeline,
        };
        let theirs = observe::pulse(&mut primary).await?.pulse.timeline;
        if own.in_recovery && timeline == theirs {
            return Ok(None);
        }
        // Else its control file may still name the timeline that it has left.
        primary.connection.simple("SET statement_timeout = 0").await?;
        primary.connection.simple_each("CHECKPOINT", None, |_| {}).await?;
        let history = primary.connection.query(HISTORY, &[]).await?;
        let end = session.connection.query(END, &[]).await?;
        let past = Past::read(history.value(0, 0).unwrap_or_default());
        let divergence = Divergence {
            name: self.name,
            primary: self.primary_name(),
            timeline,
            end: end.value(0, 0).and_then(Lsn::parse),
            past: &past,
        };
        if own.in_recovery && !divergence.is_real() {
            return Ok(None);
        }
        pgrx::notice!("{}", divergence.explain());
        self.choose(&mut session, &mut primary).await.map(Some)
    }

    /// Rewound where that is possible, else copied.
    async fn choose(&self, session: &mut Session, primary: &mut Session) -> Result<Way> {
        let mark = self.mark(link_to(&self.desired.registry, self.returning), session)?;
        let demotion = Demotion { mark, ..Demotion::default() };
        let ability = demote::ability(session, &demotion).await;
        let on = self.ask(session, &ability).await?;
        match ability.as_ref().map(|ability| ability.stage) {
            Ok(Stage::Named) => return Ok(Way::Copy),
            // What an earlier return has left would be in the way of another copy.
            Ok(Stage::Taken) => demote::finish(session, &demotion).await?,
            Ok(Stage::Nothing | Stage::Complete) | Err(_) => {}
        }
        let against = obstacles(self.name, &on, Way::Rewind);
        if against.is_empty() {
            return Ok(Way::Rewind);
        }
        if !self.request.copy {
            return Err(self.refusal("cannot be rewound", &against, COPY_TRUE));
        }
        let no_copy = self.check_copy(on, session, primary, &demotion.mark).await?;
        if no_copy.is_empty() {
            pgrx::notice!("{}", self.lines(&against));
            return Ok(Way::Copy);
        }
        let mut all = against;
        let others = no_copy.into_iter().filter(|reason| !all.contains(reason));
        let others: Vec<Reason> = others.collect();
        all.extend(others);
        Err(self.refusal("can neither be rewound nor copied anew", &all, NOTHING_CHANGED))
    }

    /// What the server says of itself, and whoever helps it must know.
    async fn ask(
        &self,
        session: &mut Session,
        ability: &std::result::Result<Ability, String>,
    ) -> Result<Returning> {
        let node = self.desired.registry.nodes.get(&self.primary);
        let primary = node.map(|node| node.conninfo.clone()).unwrap_or_default();
        let on: Returning = leader::ask(session, RETURNING, &[]).await?;
        let text = |path: &Path| Some(path.to_string_lossy().into_owned());
        Ok(match ability {
            Ok(ability) => Returning {
                no_rewind: ability.no_rewind.clone(),
                no_copy: ability.no_copy.clone(),
                data_directory: text(&ability.data_directory),
                programs: text(&ability.bin_directory),
                primary,
                ..on
            },
            Err(why) => Returning {
                no_rewind: Some(why.clone()),
                no_copy: Some(why.clone()),
                primary,
                ..on
            },
        })
    }

    fn lines(&self, reasons: &[Reason]) -> String {
        let lines = reasons.iter().map(|r| format!("{} ({}). {}", r.message, r.rule, r.hint));
        self.desired.redact(&lines.collect::<Vec<_>>().join("\n"))
    }

    fn refusal(&self, what: &str, reasons: &[Reason], hint: &'static str) -> Error {
        Error::Refused {
            code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!("\"{}\" {what}", self.name),
            detail: Some(self.lines(reasons)),
            hint,
        }
    }

    /// The name of the slot of a link; of one that is not registered yet, one that nobody has.
    fn mark(&self, link: Option<&Link>, session: &Session) -> Result<String> {
        let Some(link) = link else { return Ok(unregistered_recipe().mark) };
        Ok(demote::recipe_for(&self.desired.registry, link, session)?.mark)
    }

    /// `Some`: it is as it was, for this reason.
    async fn rewind(&self, link: &Link) -> Result<Option<String>> {
        let mut session = open(self.desired, self.returning).await?;
        let recipe = demote::recipe_for(&self.desired.registry, link, &session)?;
        let mut primary = open(self.desired, self.primary).await?;
        demote::make_slot(&mut primary, &recipe.mark).await?;
        demote::tell(&mut session, &recipe).await?;
        let node = self.desired.registry.nodes.get(&self.primary);
        let dbname = node.and_then(|node| node.conninfo.get("dbname")).unwrap_or("postgres");
        let demotion = Demotion {
            mark: recipe.mark.clone(),
            source: Some(Source {
                conninfo: recipe.conninfo.with("dbname", dbname),
                passfile: recipe.passfile,
            }),
            swap: false,
        };
        // Keeps the WAL since its last checkpoint, which may be the last that both have: the one at
        // its end would take it away. It goes with the rewind.
        demote::make_slot(&mut session, &recipe.mark).await?;
        let before = started(&mut session).await?;
        pgrx::notice!("\"{}\" stops, and is rewound", self.name);
        demote::restart(&mut session, self.returning, &demotion).await?;
        let Some(why) = self.await_return(&demotion, &before, None).await? else { return Ok(None) };
        if let Err(error) =
            demote::drop_slot(&mut open(self.desired, self.returning).await?, &demotion.mark).await
        {
            let message = self.desired.redact(&error.to_string());
            let hint = format!("Drop slot \"{}\" there.", demotion.mark);
            warn(format!("\"{}\": {message}", self.name), Some(hint));
        }
        Ok(Some(why))
    }

    /// It comes back as a standby, or as what it was and says why.
    /// `kept`: where its old data is.
    async fn await_return(
        &self,
        demotion: &Demotion,
        before: &str,
        kept: Option<&Path>,
    ) -> Result<Option<String>> {
        let began = Instant::now();
        loop {
            if let Ok(mut session) = open(self.desired, self.returning).await
                && started(&mut session).await.is_ok_and(|now| now != before)
            {
                let answer = session.connection.query("SELECT pg_is_in_recovery()", &[]).await?;
                let ability = demote::ability(&mut session, demotion).await;
                let failure = ability.ok().and_then(|ability| ability.failure);
                if answer.value(0, 0) == Some("t") && failure.is_none() {
                    let seconds = began.elapsed().as_secs_f64();
                    pgrx::notice!("\"{}\" is a standby ({seconds:.1} s)", self.name);
                    return Ok(None);
                }
                let unsaid = || "It does not say why.".to_owned();
                return Ok(Some(failure.map_or_else(unsaid, |why| self.desired.redact(&why))));
            }
            if began.elapsed() > self.request.timeout {
                return Err(Error::Refused {
                    code: Code::ERRCODE_QUERY_CANCELED,
                    message: format!("\"{}\" has not returned yet", self.name),
                    detail: Some(match kept {
                        Some(kept) => format!("Its old data is in \"{}\".", kept.display()),
                        None => "It may still be at it.".to_owned(),
                    }),
                    hint: "What it writes beside its log says how far it is; when it is back, \
                           nodes.apply() does the rest.",
                });
            }
            reactor::sleep(PAUSE).await;
        }
    }
}

async fn started(session: &mut Session) -> Result<String> {
    const STARTED: &str = "SELECT pg_postmaster_start_time()::text";
    let answer = session.connection.query(STARTED, &[]).await?;
    Ok(answer.value(0, 0).unwrap_or_default().to_owned())
}

/// The rest is a plan like any other.
fn finish(name: &str, primary: &str) -> Result<()> {
    let message = format!("\"{name}\" is a standby of \"{primary}\"");
    match lock::with_apply_lock(None, super::apply) {
        Ok(_) => {}
        Err(error) => {
            let hint = "nodes.plan() says what is left; nodes.apply() does it.".to_owned();
            warn(format!("{message}, but not all is done: {error}"), Some(hint));
        }
    }
    let event = Event {
        node: Some(name),
        link: None,
        kind: "rejoined",
        severity: "info",
        message: &message,
        detail: None,
    };
    spi::in_own_transaction(|| catalog::append_event(&event))?;
    pgrx::notice!("{message}");
    Ok(())
}
