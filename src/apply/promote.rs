//! `nodes.promote()`: asks everybody in the group, promotes, and has the registry say what is now.
//! The registry is where it was: on a server outside the group, or replicated, and then on the new
//! primary, where it can be written from then on.

use super::desired::Desired;
use super::report::warn;
use crate::catalog::Rows;
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe;
use crate::observe::session::{Session, Target};
use crate::pg::{lock, spi};
use futures_util::future::join_all;
use nodes_plan::desired::{Interest, NodeId};
use nodes_plan::failover::Reason;
use nodes_plan::name::Mark;
use nodes_plan::promotion::{Answer, Change, Evidence, Group, Member, group_of, judge, relink};
use nodes_plan::quote::Sql;
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use pgrx::PgSqlErrorCode as Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server may take to become a primary.
const PROMOTE_LIMIT: Duration = Duration::from_secs(120);

pub fn promote(name: &str, force: bool) -> Result<()> {
    let rows = spi::in_own_transaction(|| {
        let rows = Rows::load()?;
        super::check_active(&rows.origin)?;
        Ok(rows)
    })?;
    let desired = Desired::from_rows(&rows)?;
    let candidate = rows.usable_node(name)?.id;
    let group = group_of(&desired.registry, candidate).ok_or_else(|| no_standby(name))?;
    let old = rows.node_name(group.primary).to_owned();
    let answers = reactor::block_on(ask_all(&desired, &group));
    let evidence =
        Evidence { registry: &desired.registry, group: &group, candidate, answers: &answers };
    decide(&desired, &evidence, name, force)?;
    let writer = Writer::of(&rows, &desired, candidate)?;
    if !evidence.is_done() {
        reactor::block_on(make_primary(&desired, candidate))?;
        pgrx::notice!("\"{name}\" is a primary");
    }
    let mark = desired.registry.links.iter().find(|link| {
        link.to == candidate && matches!(link.spec, nodes_plan::desired::Spec::Standby(_))
    });
    let mark = mark.map(|link| desired.registry.mark(link));
    if let Some(mark) = mark {
        reactor::block_on(forget_upstream(&desired, candidate, &mark))?;
    }
    // From here on the rest is a plan like any other, which others can carry out too.
    writer.relink(name, &old)?;
    writer.apply(name)
}

fn no_standby(name: &str) -> Error {
    Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("node \"{name}\" is not a standby"),
        detail: Some("No standby link leads to it.".to_owned()),
        hint: "nodes.status shows which nodes are; nodes.add_standby() registers one.",
    }
}

/// Refuses, or tells what is risked.
fn decide(desired: &Desired, evidence: &Evidence<'_>, name: &str, force: bool) -> Result<()> {
    let verdict = judge(evidence);
    let line = |reason: &Reason| {
        let message = desired.redact(&reason.message);
        format!("{message} ({}). {}", reason.rule, reason.hint)
    };
    let accepted = force && verdict.forbidden.is_empty();
    if accepted {
        verdict.risks.iter().for_each(|risk| warn(line(risk), None));
    }
    let against: Vec<String> = verdict.forbidden.iter().chain(&verdict.risks).map(line).collect();
    if against.is_empty() || accepted {
        return Ok(());
    }
    Err(Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("node \"{name}\" cannot be promoted now"),
        detail: Some(against.join("\n")),
        hint: match verdict.forbidden.is_empty() {
            true => "The detail says what would be lost; force => true accepts that.",
            false => "The detail says what to do first; force => true changes nothing about it.",
        },
    })
}

fn target(desired: &Desired, node: NodeId) -> Option<Target> {
    desired.targets().into_iter().map(|(target, _)| target).find(|target| target.id == node)
}

async fn open(desired: &Desired, node: NodeId) -> Result<Session> {
    let unknown = || no_standby(desired.registry.node_name(node));
    Session::open(&target(desired, node).ok_or_else(unknown)?).await
}

/// Asks the primary and all its standbys at the same time.
async fn ask_all(desired: &Desired, group: &Group) -> BTreeMap<NodeId, Answer> {
    let nodes = std::iter::once(group.primary).chain(group.standbys.iter().copied());
    let asked = nodes.map(async |node| {
        let answer = match ask(desired, group.primary, node).await {
            // It lets us not in, and lives.
            Err(error) if node == group.primary && is_word(&error) => Ok(Member::default()),
            answer => answer,
        };
        (node, answer.map_err(|error| desired.redact(&error.to_string())))
    });
    join_all(asked).await.into_iter().collect()
}

/// Whether an error is the word of a server: one that is down, starts or refuses sends its code,
/// where nobody answers there is none but that of a lost connection.
fn is_word(error: &Error) -> bool {
    match error {
        Error::Peer(error) => error
            .sqlstate
            .as_ref()
            .is_some_and(|code| !code.starts_with("08") && !code.starts_with("53000")),
        Error::PasswordUnused(_) => true,
        _ => false,
    }
}

async fn ask(desired: &Desired, primary: NodeId, node: NodeId) -> Result<Member> {
    let mut session = open(desired, node).await?;
    let pulse = observe::pulse(&mut session).await?.pulse;
    let follows = desired.registry.links.iter().any(|link| {
        link.to == node
            && link.from == primary
            && matches!(link.spec, nodes_plan::desired::Spec::Standby(_))
    });
    let sees_primary = match (follows, node == primary) {
        (_, true) => None,
        (true, false) => match receives(&mut session).await? {
            Some(how) => Some(how),
            None => reaches(&mut session, desired.registry.node_name(primary)).await,
        },
        (false, false) => reaches(&mut session, desired.registry.node_name(primary)).await,
    };
    Ok(Member {
        in_recovery: pulse.in_recovery,
        timeline: pulse.timeline,
        lsn: pulse.received.max(pulse.lsn),
        sees_primary: sees_primary.filter(|_| pulse.in_recovery),
    })
}

/// Whether a standby's stream from its primary is open.
async fn receives(session: &mut Session) -> Result<Option<String>> {
    const STREAMS: &str = "SELECT format('it streams from there, and heard of it %s s ago', \
         round(extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::numeric, 1)) \
         FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    let answer = session.connection.query(STREAMS, &[]).await?;
    Ok(answer.value(0, 0).map(str::to_owned))
}

/// Whether a member that has pg_nodes can connect to the primary, be it by another way than ours.
/// One that cannot say sees nothing.
async fn reaches(session: &mut Session, primary: &str) -> Option<String> {
    const HAS: &str = "SELECT to_regprocedure('nodes.test_node(text)') IS NOT NULL";
    let has = session.connection.query(HAS, &[]).await.ok()?;
    if has.value(0, 0) != Some("t") {
        return None;
    }
    let connects = Sql::new("SELECT 1 FROM nodes.test_node(")
        .literal(primary)
        .raw(") WHERE factor IN ('tls', 'authentication', 'session') AND ok");
    let mut connected = false;
    let heard = |rows: crate::libpq::connection::Rows| connected = !rows.is_empty();
    // Several addresses, each with its own limit.
    let limit = crate::guc::connect_timeout() * 4;
    let asked = session.connection.simple_each(connects.text(), Some(limit), heard).await;
    (asked.is_ok() && connected).then(|| "it can connect to it".to_owned())
}

/// Promotes a standby and waits until it is a primary.
async fn make_primary(desired: &Desired, candidate: NodeId) -> Result<()> {
    const PROMOTE: &str = "SET statement_timeout = 0; SELECT pg_promote(true, 60)";
    let mut session = open(desired, candidate).await?;
    session.connection.simple_each(PROMOTE, Some(PROMOTE_LIMIT), |_| {}).await?;
    let answer = session.connection.query("SELECT pg_is_in_recovery()", &[]).await?;
    if answer.value(0, 0) == Some("f") {
        return Ok(());
    }
    Err(Error::Refused {
        code: Code::ERRCODE_QUERY_CANCELED,
        message: format!(
            "node \"{}\" did not become a primary within a minute",
            desired.registry.node_name(candidate)
        ),
        detail: Some("It was told to, and may still become one.".to_owned()),
        hint: "Its server log says how far it is; make the same call again when it is a primary.",
    })
}

/// Takes from a primary what made it follow by our hand.
async fn forget_upstream(desired: &Desired, node: NodeId, mark: &Mark) -> Result<()> {
    let mut session = open(desired, node).await?;
    let facts =
        observe::facts(&mut session, &Interest { standby: true, ..Interest::default() }).await?;
    let own = mark.slot_name();
    let files = facts.file_settings.as_ref();
    let slot = files.and_then(|files| files.get("primary_slot_name"));
    let conninfo = facts.primary_conninfo_file.as_ref();
    let follows = conninfo.is_some_and(|c| c.get("application_name") == Some(&own));
    let mut operations = Vec::new();
    let reset = |setting| Operation::AlterSystem { setting, value: None };
    operations.extend((slot == Some(&own)).then(|| reset("primary_slot_name")));
    operations.extend(follows.then(|| reset("primary_conninfo")));
    operations.extend((!operations.is_empty()).then_some(Operation::Reload));
    let passfile = follows && (facts.passfile.is_some() || facts.passfile_unfinished);
    operations.extend(passfile.then_some(Operation::RemovePassfile));
    for operation in operations {
        session.connection.simple(render(&operation).text()).await?;
    }
    Ok(())
}

/// Where the registry is written.
enum Writer<'a> {
    /// On this server.
    Here,
    /// On the new primary, which has the registry that this standby shows.
    There(&'a Desired, NodeId),
}

impl<'a> Writer<'a> {
    fn of(rows: &Rows, desired: &'a Desired, candidate: NodeId) -> Result<Writer<'a>> {
        if !spi::in_recovery() {
            return Ok(Writer::Here);
        }
        let there = rows.nodes.iter().find(|node| node.id == candidate);
        let known = there.and_then(|node| node.system_identifier.as_ref());
        // That of a node that is to be a standby is not noted: then it is asked.
        let same = match known {
            Some(there) => *there == rows.origin.here,
            None => reactor::block_on(system_identifier(desired, candidate))? == rows.origin.here,
        };
        match same {
            true => Ok(Writer::There(desired, candidate)),
            false => Err(Error::InRecovery("nodes.promote() of another group's standby")),
        }
    }

    fn relink(&self, new: &str, old: &str) -> Result<()> {
        match self {
            Writer::Here => spi::in_own_transaction(|| rewrite(new, old)).map(|_| ()),
            Writer::There(desired, node) => {
                let sql = Sql::new("SELECT nodes.move_links(").literal(old).raw(", ").literal(new);
                let sql = sql.raw(")");
                reactor::block_on(async {
                    let mut session = open(desired, *node).await?;
                    Ok(session.connection.simple(sql.text()).await?)
                })
            }
        }
    }

    /// The rest is a plan like any other. The promotion is done: what fails here is told of.
    fn apply(&self, new: &str) -> Result<()> {
        let applied = match self {
            Writer::Here => lock::with_apply_lock(None, super::apply).map(|_| ()),
            Writer::There(desired, node) => reactor::block_on(async {
                let mut session = open(desired, *node).await?;
                session.connection.simple("SET statement_timeout = 0").await?;
                let apply = "CALL nodes.apply()";
                Ok(session.connection.simple_each(apply, None, |_| {}).await?)
            }),
        };
        match applied {
            Ok(()) => pgrx::notice!("all links follow \"{new}\""),
            Err(Error::Peer(error)) => {
                let detail = error.detail.unwrap_or_default();
                warn(format!("not all follow \"{new}\" yet: {}: {detail}", error.message), again());
            }
            Err(Error::ApplyFailed { lines, .. }) => {
                warn(format!("not all follow \"{new}\" yet: {}", lines.join("; ")), again());
            }
            Err(error) => warn(format!("not all follow \"{new}\" yet: {error}"), again()),
        }
        Ok(())
    }
}

fn again() -> Option<String> {
    Some("nodes.plan() there says what is left; nodes.apply() there does it.".to_owned())
}

async fn system_identifier(desired: &Desired, node: NodeId) -> Result<String> {
    Ok(observe::pulse(&mut open(desired, node).await?).await?.pulse.system_identifier)
}

/// Has the registry say that `new` is where `old` was, in the caller's transaction.
pub fn rewrite(new: &str, old: &str) -> Result<usize> {
    let rows = Rows::load()?;
    super::check_active(&rows.origin)?;
    let (new, old) = (rows.node(new)?.id, rows.node(old)?.id);
    let changes = relink(&Desired::from_rows(&rows)?.registry, old, new);
    for change in &changes {
        match change {
            Change::Move { link, from, to } => crate::catalog::move_link(*link, *from, *to)?,
            Change::Forget { link } => {
                let forget = render(&Operation::ForgetLink { link: *link });
                crate::catalog::run_step(forget.text())?;
            }
        }
    }
    Ok(changes.len())
}
