//! The questions asked of a node and the answers as facts of the planner. Opens the sessions
//! on which they are asked; the executor uses the same ones. Knows no SPI and no rules.

mod kept;
mod pooler;
mod section;
pub mod session;

use crate::error::{Error, Result};
use futures_util::future::join_all;
use nodes_plan::conninfo::{Conninfo, Secret};
use nodes_plan::desired::{Interest, NodeId};
use nodes_plan::failover::Readiness;
use nodes_plan::lsn::Lsn;
use nodes_plan::observed::{Moving, NodeFacts, Observation, World};
use nodes_plan::pulse::Pulse;
use nodes_plan::rejoin::Past;
use section::Sections;
use serde::Deserialize;
use serde_json::Value;
use session::{Session, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const FACTS: &str = include_str!("observe/facts.sql");
const PULSE: &str = include_str!("observe/pulse.sql");
const SUPERUSER_FACTS: &str = include_str!("observe/superuser_facts.sql");
const READINESS: &str = include_str!("observe/readiness.sql");

/// Open sessions by node; a node that did not answer has none.
pub type Sessions = BTreeMap<NodeId, Session>;

pub use kept::{keep, take};

/// Asks every target at the same time. Sessions of an earlier round are used again; one that
/// broke is replaced. `redact` takes passwords out of what people will read.
pub async fn world(
    targets: &[(Target, Interest)],
    sessions: Sessions,
    redact: impl Fn(&str) -> String,
) -> (World, Sessions) {
    let mut sessions = sessions;
    let asked = targets.iter().map(|(target, interest)| {
        let session = sessions.remove(&target.id);
        async move { (target.id, ask(target, interest, session).await) }
    });
    let asked: Vec<_> = asked.collect();
    let mut answers = join_all(asked).await;
    ask_subscriptions_again(&mut answers).await;
    let mut world = World::default();
    let mut open = Sessions::new();
    for (node, answer) in answers {
        let observation = match answer {
            Ok((session, facts)) => {
                open.insert(node, session);
                Observation::Seen { age: Duration::ZERO, facts: Box::new(facts) }
            }
            Err(error) => Observation::Unreachable { error: redact(&error.to_string()) },
        };
        world.nodes.insert(node, observation);
    }
    (world, open)
}

type Answer = (NodeId, Result<(Session, NodeFacts)>);

/// A slot of a subscription's copy is nobody's only where the subscription was looked for after
/// the slot was seen: one that was just made is in no older answer. Asked again is only when
/// there are such slots, which is during a copy and after a crash.
async fn ask_subscriptions_again(answers: &mut [Answer]) {
    let copies = |facts: &NodeFacts| facts.slots.iter().any(|slot| slot.name.contains("_sync_"));
    if !answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(|(_, facts)| copies(facts))) {
        return;
    }
    join_all(answers.iter_mut().map(async |(_, answer)| {
        if let Ok((session, facts)) = answer
            && let Err(error) = subscription_oids(session, facts).await
        {
            *answer = Err(error);
        }
    }))
    .await;
}

async fn subscription_oids(session: &mut Session, facts: &mut NodeFacts) -> Result<()> {
    const OIDS: &str = "SELECT coalesce(json_agg(oid::bigint), '[]') FROM pg_subscription";
    let answer = session.connection.query(OIDS, &[]).await?;
    facts.subscription_oids = from_json(answer.value(0, 0).unwrap_or("null"))?;
    Ok(())
}

async fn ask(
    target: &Target,
    interest: &Interest,
    session: Option<Session>,
) -> Result<(Session, NodeFacts)> {
    let again = session.filter(|session| session.is_like_new(target));
    let (session, facts) = match ask_open(again, interest).await {
        Some(answer) => answer,
        None => {
            let mut session = Session::open(target).await?;
            let facts = facts(&mut session, interest).await?;
            (session, facts)
        }
    };
    check_identity(target, &facts)?;
    Ok((session, facts))
}

/// `None`: there is no session, or not any more.
async fn ask_open(session: Option<Session>, interest: &Interest) -> Option<(Session, NodeFacts)> {
    let mut session = session?;
    session.resume().await.ok()?;
    let facts = facts(&mut session, interest).await.ok()?;
    Some((session, facts))
}

/// What another server says than the node is nothing that the node has said.
fn check_identity(target: &Target, facts: &NodeFacts) -> Result<()> {
    match &target.expected {
        Some(expected) if *expected != facts.system_identifier => Err(Error::WrongIdentity {
            node: target.name.clone(),
            expected: expected.clone(),
            found: facts.system_identifier.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// The answer to a heartbeat, and the same in the node's own words.
pub struct Beat {
    pub pulse: Pulse,
    pub answer: String,
}

/// One heartbeat.
pub async fn pulse(session: &mut Session) -> Result<Beat> {
    let mut answer = session.ask_again(c"pulse", PULSE, &[]).await?;
    let answer = answer.take_value(0, 0).unwrap_or_default();
    let mut pulse: Pulse = from_json(&answer)?;
    if pulse.is_copied() {
        let backups = session.connection.query(BACKUPS, &[]).await?;
        pulse.backups = from_json(backups.value(0, 0).unwrap_or("null"))?;
    }
    Ok(Beat { pulse, answer })
}

/// Who copies a server, and how far that is.
const BACKUPS: &str = "SELECT coalesce(json_agg(json_build_object(\
     'name', a.application_name, 'phase', p.phase, 'total', p.backup_total, \
     'streamed', p.backup_streamed, \
     'elapsed', extract(epoch FROM clock_timestamp() - a.backend_start)::float8)), '[]') \
     FROM pg_stat_progress_basebackup p JOIN pg_stat_activity a USING (pid) \
     WHERE p.phase IS NOT NULL AND a.application_name IS NOT NULL";

/// What matters for a failover on top of a heartbeat.
pub async fn readiness(session: &mut Session) -> Result<Readiness> {
    let answer = session.connection.query(READINESS, &[]).await?;
    from_json(answer.value(0, 0).unwrap_or("null"))
}

/// A heartbeat of every session, all at the same time; one that does not answer is left out.
pub async fn pulses(sessions: &mut Sessions) -> BTreeMap<NodeId, (Pulse, Duration)> {
    let asked = sessions.iter_mut().map(async |(node, session)| {
        let begun = Instant::now();
        let answer = pulse(session).await.ok();
        answer.map(|answer| (*node, (answer.pulse, begun.elapsed())))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The heartbeat of this very session's server, over SPI: by it a server knows itself.
pub fn own_pulse(read: impl FnOnce(&str) -> Result<Option<String>>) -> Result<Pulse> {
    let as_text = format!("SELECT ({PULSE})::text");
    from_json(read(&as_text)?.as_deref().unwrap_or("null"))
}

/// What a superuser learns on top.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SuperuserFacts {
    file_settings: Option<BTreeMap<String, String>>,
    /// In hexadecimal.
    passfile: Option<String>,
    passfile_unfinished: bool,
    passfile_blocked: bool,
    streaming: BTreeSet<String>,
    history: Option<String>,
    conninfos: BTreeMap<String, String>,
    reached: BTreeMap<String, Reached>,
}

/// How far a subscription has come.
#[derive(Clone, Copy, Default, Deserialize)]
struct Reached {
    applied: Option<Lsn>,
    copied: Option<Lsn>,
}

/// Asks one node everything.
pub async fn facts(session: &mut Session, interest: &Interest) -> Result<NodeFacts> {
    // What links make is there, or will be the next time.
    session.sections = session.sections.and(Sections::of(interest));
    let mut value = loop {
        let asked = session.sections;
        let mut answer = facts_in(session, interest, asked).await?;
        let present: Sections =
            serde_json::from_value(answer["present"].take()).map_err(bad_answer)?;
        session.sections = asked.and(present);
        if session.sections == asked {
            break answer;
        }
    };
    let primary_conninfo = take_setting(&mut value, "primary_conninfo");
    let data_directory = take_setting(&mut value, "data_directory");
    let mut facts: NodeFacts = serde_json::from_value(value).map_err(bad_answer)?;
    facts.primary_conninfo = primary_conninfo.and_then(|conninfo| parse(&conninfo));
    facts.data_directory = data_directory;
    let asks_more =
        interest.standby || session.sections.subscriptions || asks_history(interest, &facts);
    if facts.superuser && asks_more {
        let more = superuser_facts(session, interest, &facts).await?;
        add_superuser_facts(&mut facts, more);
    }
    Ok(facts)
}

async fn facts_in(session: &mut Session, interest: &Interest, asked: Sections) -> Result<Value> {
    let interest = to_json(interest)?;
    let options = subscription_options(session.connection.server_version());
    let sql = section::only(FACTS, |name| asked.has(name))
        .replace(":subscription_options", options)
        .replace(":present", section::PRESENT);
    let answer = session.ask_again(asked.statement_name(), &sql, &[Some(&interest)]).await?;
    from_json(answer.value(0, 0).unwrap_or("null"))
}

/// Whether it matters where a server began its timeline: subscribers may have gone past that.
fn asks_history(interest: &Interest, facts: &NodeFacts) -> bool {
    interest.publisher && !facts.in_recovery && facts.timeline > 1
}

/// The server's user may not be able to read what is where our passfile should be: then that
/// alone is not known.
async fn superuser_facts(
    session: &mut Session,
    interest: &Interest,
    facts: &NodeFacts,
) -> Result<SuperuserFacts> {
    const PASSFILE: &str = "encode(pg_read_binary_file(name, 0, 100000, true), 'hex')";
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    let (standby, history) = (interest.standby, asks_history(interest, facts));
    let sql = section::only(SUPERUSER_FACTS, |name| match name {
        "standby" => standby,
        "history" => history,
        _ => false,
    });
    let sql = |passfile| sql.replace(":passfile", passfile);
    let name = match (standby, history) {
        (false, false) => c"superuser_facts",
        (true, false) => c"superuser_facts_s",
        (false, true) => c"superuser_facts_h",
        (true, true) => c"superuser_facts_sh",
    };
    let (answer, readable) = match session.ask_again(name, &sql(PASSFILE), &[]).await {
        Err(error) if error.sqlstate.as_deref() == Some(INSUFFICIENT_PRIVILEGE) => {
            (session.connection.query(&sql("NULL"), &[]).await?, false)
        }
        answer => (answer?, true),
    };
    let more: SuperuserFacts = from_json(answer.value(0, 0).unwrap_or("null"))?;
    Ok(SuperuserFacts { passfile_blocked: more.passfile_blocked || !readable, ..more })
}

fn add_superuser_facts(facts: &mut NodeFacts, more: SuperuserFacts) {
    if let Some(mut files) = more.file_settings {
        facts.primary_conninfo_file = files.remove("primary_conninfo").and_then(|c| parse(&c));
        facts.file_settings = Some(files);
    }
    facts.passfile = more.passfile.map(|hex| passfile(&hex));
    facts.passfile_unfinished = more.passfile_unfinished;
    facts.streaming = more.streaming;
    facts.past = more.history.map(|history| Past::read(&history)).unwrap_or_default();
    facts.passfile_blocked = more.passfile_blocked;
    for subscription in &mut facts.subscriptions {
        subscription.conninfo = more.conninfos.get(&subscription.name).and_then(|c| parse(c));
        let reached = more.reached.get(&subscription.name).copied().unwrap_or_default();
        (subscription.applied, subscription.copied) = (Moving(reached.applied), reached.copied);
    }
}

/// The passfile without its end of line; bytes that are no text are not what we wrote.
fn passfile(hex: &str) -> Secret {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = digits.filter_map(byte).collect();
    Secret::new(String::from_utf8_lossy(&bytes).trim_end_matches('\n'))
}

/// A setting that has a place of its own among the facts; `None`: not readable.
fn take_setting(facts: &mut Value, name: &str) -> Option<String> {
    match facts["settings"].as_object_mut()?.remove(name)? {
        Value::String(setting) => Some(setting),
        _ => None,
    }
}

/// An empty setting is no conninfo.
fn parse(conninfo: &str) -> Option<Conninfo> {
    let pairs = crate::libpq::conninfo::parse(conninfo).ok()?;
    (!pairs.is_empty()).then(|| Conninfo::new(pairs))
}

fn to_json(interest: &Interest) -> Result<String> {
    serde_json::to_string(interest).map_err(bad_answer)
}

fn from_json<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(bad_answer)
}

fn bad_answer(source: serde_json::Error) -> Error {
    Error::Json { context: "a node's answer could not be read", source }
}

macro_rules! options_of_16 {
    ($more:literal) => {
        concat!(
            "json_build_object('binary', s.subbinary::text, \
             'streaming', CASE s.substream WHEN 'f' THEN 'off' WHEN 't' THEN 'on' \
             ELSE 'parallel' END, \
             'synchronous_commit', s.subsynccommit, \
             'disable_on_error', s.subdisableonerr::text, \
             'origin', s.suborigin, \
             'run_as_owner', s.subrunasowner::text, \
             'password_required', s.subpasswordrequired::text",
            $more,
            ")"
        )
    };
}

/// The options of a subscription as text, by server version: `pg_subscription` gains columns
/// with each, and a role that is no superuser may not select them all by `s.*`.
fn subscription_options(version: i32) -> &'static str {
    match version / 10_000 {
        ..=15 => {
            "json_build_object('binary', s.subbinary::text, \
             'streaming', CASE WHEN s.substream THEN 'on' ELSE 'off' END, \
             'synchronous_commit', s.subsynccommit, \
             'disable_on_error', s.subdisableonerr::text)"
        }
        16 => options_of_16!(""),
        _ => options_of_16!(", 'failover', s.subfailover::text"),
    }
}
