//! The questions asked of a node and the answers as facts of the planner. Opens the sessions
//! on which they are asked; the executor uses the same ones. Knows no SPI and no rules.

pub mod session;

use crate::error::{Error, Result};
use futures_util::future::join_all;
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::{Interest, NodeId};
use nodes_plan::observed::{NodeFacts, Observation, World};
use serde::Deserialize;
use serde_json::Value;
use session::{Session, Target};
use std::collections::BTreeMap;
use std::time::Duration;

const FACTS: &str = include_str!("observe/facts.sql");
const SUPERUSER_FACTS: &str = include_str!("observe/superuser_facts.sql");

/// Open sessions by node; a node that did not answer has none.
pub type Sessions = BTreeMap<NodeId, Session>;

/// Asks every target at the same time. Sessions of an earlier round are used again; one that
/// broke is replaced.
pub async fn world(targets: &[(Target, Interest)], sessions: Sessions) -> (World, Sessions) {
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
            Err(error) => Observation::Unreachable { error: error.to_string() },
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
    if let Some(mut session) = session
        && let Ok(facts) = facts(&mut session, interest).await
    {
        return Ok((session, facts));
    }
    let mut session = Session::open(target).await?;
    let facts = facts(&mut session, interest).await?;
    Ok((session, facts))
}

/// What a superuser learns on top.
#[derive(Deserialize)]
struct SuperuserFacts {
    file_settings: BTreeMap<String, String>,
    passfile: Option<String>,
    conninfos: BTreeMap<String, String>,
}

/// Asks one node everything.
pub async fn facts(session: &mut Session, interest: &Interest) -> Result<NodeFacts> {
    let interest = to_json(interest)?;
    let options = subscription_options(session.connection.server_version());
    let sql = FACTS.replace(":subscription_options", options);
    let answer = session.ask_again(c"facts", &sql, &[Some(&interest)]).await?;
    let mut value: Value = from_json(answer.value(0, 0).unwrap_or("null"))?;
    let primary_conninfo = take_primary_conninfo(&mut value["settings"]);
    let mut facts: NodeFacts = serde_json::from_value(value).map_err(bad_answer)?;
    facts.primary_conninfo = primary_conninfo;
    if facts.superuser {
        let answer = session.connection.query(SUPERUSER_FACTS, &[]).await?;
        add_superuser_facts(&mut facts, from_json(answer.value(0, 0).unwrap_or("null"))?);
    }
    Ok(facts)
}

fn add_superuser_facts(facts: &mut NodeFacts, more: SuperuserFacts) {
    let mut files = more.file_settings;
    facts.primary_conninfo_file = files.remove("primary_conninfo").and_then(|c| parse(&c));
    facts.file_settings = Some(files);
    facts.passfile = more.passfile.map(nodes_plan::conninfo::Secret::new);
    for subscription in &mut facts.subscriptions {
        subscription.conninfo = more.conninfos.get(&subscription.name).and_then(|c| parse(c));
    }
}

/// An empty setting is no conninfo.
fn take_primary_conninfo(settings: &mut Value) -> Option<Conninfo> {
    let text = settings.as_object_mut()?.remove("primary_conninfo")?;
    parse(text.as_str()?)
}

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
        _ => {
            "json_build_object('binary', s.subbinary::text, \
             'streaming', CASE s.substream WHEN 'f' THEN 'off' WHEN 't' THEN 'on' \
             ELSE 'parallel' END, \
             'synchronous_commit', s.subsynccommit, \
             'disable_on_error', s.subdisableonerr::text, \
             'origin', s.suborigin, \
             'run_as_owner', s.subrunasowner::text, \
             'password_required', s.subpasswordrequired::text)"
        }
    }
}
