//! `nodes.promote()`: asks everybody in the group, promotes, and has the registry say what is now.
//! The registry is where it was: on a server outside the group, or replicated, and then on the new
//! primary, where it can be written from then on.

use super::claim::{claim, claimant};
use super::demote;
use super::desired::Desired;
use super::leader::{self, Writer, forget_awaited, forget_upstream, make_primary, open};
use super::report::warn;
use crate::catalog::{self, Event, Rows};
use crate::error::{Error, Result};
use crate::libpq::reactor;
use crate::observe;
use crate::observe::session::Session;
use futures_util::future::join_all;
use nodes_plan::desired::{NodeId, Registry};
use nodes_plan::name::Mark;
use nodes_plan::promotion::{
    Answer, Change, Evidence, Group, Member, OldPrimary, group_led_by, group_of, is_unmanaged,
    judge, relink,
};
use nodes_plan::quote::Sql;
use nodes_plan::render::render;
use nodes_plan::step::Operation;
use nodes_plan::switchover::link_to;
use pgrx::PgSqlErrorCode as Code;
use std::collections::BTreeMap;

pub fn promote(name: &str, force: bool) -> Result<()> {
    let rows = leader::active_rows()?;
    let desired = Desired::from_rows(&rows)?;
    let candidate = rows.usable_node(name)?.id;
    let group = group_of(&desired.registry, candidate)
        .or_else(|| group_led_by(&desired.registry, candidate))
        .ok_or_else(|| no_standby(name))?;
    let old = rows.node_name(group.primary).to_owned();
    let _claim = reactor::block_on(claim(&desired, candidate))?;
    let answers = reactor::block_on(ask_all(&desired, &group));
    let evidence =
        Evidence { registry: &desired.registry, group: &group, candidate, answers: &answers };
    if group.primary == candidate && !evidence.is_demoted() {
        return Err(no_standby(name));
    }
    let message = format!("node \"{name}\" cannot be promoted now");
    leader::decide(&desired, judge(&evidence), force, message)?;
    let writer = Writer::of(&rows, &desired, candidate)?;
    if !evidence.is_done() {
        reactor::block_on(forget_awaited(&desired, candidate))?;
        reactor::block_on(make_primary(&desired, candidate))?;
        pgrx::notice!("\"{name}\" is a primary");
    }
    let ours = link_to(&desired.registry, candidate).filter(|link| !link.is_unmanaged());
    if let Some(link) = ours {
        let mark = desired.registry.mark(link);
        reactor::block_on(forget_upstream(&desired, candidate, &mark))?;
        if link.from != group.primary {
            reactor::block_on(leave_cascade(&desired, link.from, &mark));
        }
    }
    // From here on the rest is a plan like any other, which others can carry out too.
    let becomes = match evidence.is_demoted() {
        true => OldPrimary::Follows,
        false => old_primary(&desired.registry, candidate),
    };
    writer.relink(name, &old, becomes)?;
    writer.apply(name);
    Ok(())
}

/// A failover manager makes a standby of the old primary as soon as it is back.
pub fn old_primary(registry: &Registry, new: NodeId) -> OldPrimary {
    if is_unmanaged(registry, new) { OldPrimary::Follows } else { OldPrimary::IsGone }
}

/// The standby that the candidate followed lives, and keeps WAL for nobody: soon no link tells of it.
async fn leave_cascade(desired: &Desired, upstream: NodeId, mark: &Mark) {
    let slot = mark.slot_name();
    let dropped = async { demote::drop_slot(&mut open(desired, upstream).await?, &slot).await };
    if let Err(error) = dropped.await {
        let name = desired.registry.node_name(upstream);
        let message = desired.redact(&format!("slot \"{slot}\" is left on \"{name}\": {error}"));
        warn(message, Some("Nobody reads it again: drop it there.".to_owned()));
    }
}

pub fn no_standby(name: &str) -> Error {
    Error::Refused {
        code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("node \"{name}\" is not a standby"),
        detail: Some("No standby link leads to it.".to_owned()),
        hint: "nodes.status shows which nodes are; nodes.add_standby() registers one.",
    }
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

/// Asks the same who and where they are, and nothing more.
pub async fn ask_members(desired: &Desired, group: &Group) -> BTreeMap<NodeId, Answer> {
    let nodes = std::iter::once(group.primary).chain(group.standbys.iter().copied());
    let asked = nodes.map(async |node| {
        let answer = async { look(&mut open(desired, node).await?).await };
        (node, answer.await.map_err(|error| desired.redact(&error.to_string())))
    });
    join_all(asked).await.into_iter().collect()
}

async fn look(session: &mut Session) -> Result<Member> {
    let pulse = observe::pulse(session).await?.pulse;
    let mut timeline = pulse.timeline;
    if pulse.in_recovery {
        timeline = timeline.max(wal_timeline(session).await.unwrap_or_default());
    }
    let lsn = pulse.received.max(pulse.lsn);
    Ok(Member { in_recovery: pulse.in_recovery, timeline, lsn, ..Member::default() })
}

/// The timeline that a standby's WAL has come to: without a receiver, the standby itself tells only
/// where its last restart point was.
pub async fn wal_timeline(session: &mut Session) -> Option<i64> {
    const TIMELINE: &str = "SELECT max(('x' || left(name, 8))::bit(32)::bigint) \
         FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
    let answer = session.connection.query(TIMELINE, &[]).await.ok()?;
    answer.value(0, 0)?.parse().ok()
}

/// Whether an error is the word of a server: one that is down, starts or refuses sends its code,
/// where nobody answers there is none but that of a lost connection.
fn is_word(error: &Error) -> bool {
    match error {
        Error::Peer(error) => error
            .sqlstate
            .as_ref()
            .is_some_and(|code| !code.starts_with("08") && !code.starts_with("53000")),
        Error::PasswordUnused(_) | Error::NoSessions(_) => true,
        _ => false,
    }
}

async fn ask(desired: &Desired, primary: NodeId, node: NodeId) -> Result<Member> {
    let mut session = open(desired, node).await?;
    let member = look(&mut session).await?;
    let follows = desired.registry.links.iter().any(|link| {
        link.to == node
            && link.from == primary
            && matches!(link.spec, nodes_plan::desired::Spec::Standby(_))
    });
    if node == primary || !member.in_recovery {
        return Ok(member);
    }
    let hears_primary = if follows { receives(&mut session).await? } else { None };
    let sees_primary = reaches(&mut session, desired.registry.node_name(primary)).await;
    let claimed_by = claimant(&mut session).await?;
    Ok(Member { hears_primary, sees_primary, claimed_by, ..member })
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

/// What an event of it is called, and says.
pub const PRIMARY_CHANGED: &str = "primary changed";

pub fn changed(new: &str, old: &str, moved: usize) -> String {
    format!("\"{new}\" is the primary in place of \"{old}\" (links moved: {moved})")
}

/// As [`rewrite`], with an event.
pub fn rewrite_and_tell(new: &str, old: &str, becomes: OldPrimary) -> Result<usize> {
    let moved = rewrite(new, old, becomes)?;
    if moved > 0 {
        catalog::append_event(&Event {
            node: Some(new),
            link: None,
            kind: PRIMARY_CHANGED,
            severity: if becomes == OldPrimary::Follows { "info" } else { "warning" },
            message: &changed(new, old, moved),
            detail: None,
        })?;
    }
    Ok(moved)
}

/// Has the registry say that `new` is where `old` was, in the caller's transaction.
pub fn rewrite(new: &str, old: &str, becomes: OldPrimary) -> Result<usize> {
    let rows = Rows::load()?;
    super::check_active(&rows.origin)?;
    let (new, old) = (rows.node(new)?.id, rows.node(old)?.id);
    let changes = relink(&Desired::from_rows(&rows)?.registry, old, new, becomes);
    for change in &changes {
        let step = match *change {
            Change::Move { link, from, to } => Operation::MoveLink { link, from, to },
            Change::Forget { link } => Operation::ForgetLink { link },
        };
        catalog::run_step(render(&step).text())?;
    }
    Ok(changes.len())
}
