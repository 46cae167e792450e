//! What a copy leaves that never became a standby: where it is made is noted with the link, and
//! the server that made it takes it away.

use super::call;
use crate::apply::demote;
use crate::apply::desired::Desired;
use crate::apply::leader::open;
use crate::apply::report::warn;
use crate::catalog;
use crate::clone::{Action, Task};
use crate::error::Result;
use crate::pg::spi;
use nodes_plan::clone::copier;
use nodes_plan::desired::{Link, LinkId, LinkState, Spec, Unfinished};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Notes where a copy is about to be made. What is left of one elsewhere is taken away.
pub async fn note(desired: &Desired, link: LinkId, place: &Unfinished) -> Result<()> {
    let known = desired.registry.link(link).and_then(|link| Some((link, unfinished(link)?)));
    match known {
        Some((_, old)) if old == place => return Ok(()),
        Some((link, old)) => {
            clear_or_tell(desired, link, old).await;
        }
        None => {}
    }
    spi::in_own_transaction(|| {
        spi::outlive_a_crash();
        catalog::note_unfinished(link, Some(place))
    })
}

/// Notes that a copy has become the standby.
pub fn note_done(link: LinkId) -> Result<()> {
    spi::in_own_transaction(|| catalog::note_unfinished(link, None))
}

/// Takes away what a server does not need that has returned, on a copy or without it.
pub async fn clear_done(desired: &Desired, link: LinkId) -> Result<()> {
    let Some(link) = desired.registry.link(link) else { return Ok(()) };
    let Some(place) = unfinished(link) else { return Ok(()) };
    match clear_or_tell(desired, link, place).await {
        true => note_done(link.id),
        false => Ok(()),
    }
}

/// The same for all that have returned without whoever called for it.
pub async fn clear_returned(desired: &Desired) -> Result<()> {
    let returned = |link: &&Link| unfinished(link).is_some_and(|place| place.swap);
    for link in desired.registry.links.iter().filter(returned) {
        // One that is copied in place of a standby is a standby, too, and receives nothing.
        let streams = async {
            let mut primary = open(desired, link.from).await?;
            demote::streams(&mut primary, &desired.registry.mark(link).slot_name()).await
        };
        if streams.await.unwrap_or(false) {
            clear_done(desired, link.id).await?;
        }
    }
    Ok(())
}

/// Takes away what copies for removed links have left; whether the registry says something else
/// now. A node that is to go and that never was more than such a copy needs no further look.
pub async fn clear_removed(desired: &Desired, only: Option<&BTreeSet<LinkId>>) -> Result<bool> {
    let meant = |link: &&Link| {
        link.state == LinkState::Removing && only.is_none_or(|only| only.contains(&link.id))
    };
    let mut changed = false;
    for link in desired.registry.links.iter().filter(meant) {
        let Some(place) = unfinished(link) else { continue };
        // Without the primary, it has ended.
        let _ = end_copy(desired, link).await;
        if !clear_or_tell(desired, link, place).await {
            continue;
        }
        let is_removing = desired.registry.nodes.get(&link.to).is_some_and(|node| node.removing);
        spi::in_own_transaction(|| {
            catalog::note_unfinished(link.id, None)?;
            if is_removing && !place.swap { catalog::mark_node_gone(link.to) } else { Ok(()) }
        })?;
        changed = true;
    }
    Ok(changed)
}

/// Whoever has called for the copy hears that it failed, and takes back what was begun.
async fn end_copy(desired: &Desired, link: &Link) -> Result<()> {
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication \
         WHERE application_name = $1";
    let copier = copier(&desired.registry.mark(link).slot_name());
    open(desired, link.from).await?.connection.query(END, &[Some(&copier)]).await?;
    Ok(())
}

fn unfinished(link: &Link) -> Option<&Unfinished> {
    match &link.spec {
        Spec::Standby(spec) => spec.unfinished.as_ref(),
        Spec::Foreign(_) | Spec::Subscription(_) => None,
    }
}

/// Whether nothing is left; else people hear where that is.
async fn clear_or_tell(desired: &Desired, link: &Link, place: &Unfinished) -> bool {
    let (machine, directory) = (desired.registry.node_name(place.on_node), &place.directory);
    match clear(desired, link, place).await.as_deref() {
        Ok("cleared") => {
            pgrx::notice!("{machine}: nothing is left of an unfinished copy in \"{directory}\"");
            true
        }
        Ok("complete") => {
            let message = format!("{machine}: a complete clone is left in \"{directory}\"");
            let hint = "Keep it, or stop the server in it, if one runs, and remove it.".to_owned();
            warn(message, Some(hint));
            false
        }
        // It is not what we have made, or not any more.
        Ok(_) => false,
        Err(error) => {
            let why = desired.redact(&error.to_string());
            let mark = desired.registry.mark(link).slot_name();
            let left = place.tablespaces.iter().chain([directory]);
            let left: Vec<String> = left.map(|path| format!("\"{path}.{mark}\"")).collect();
            let message = format!("{machine}: an unfinished copy could not be removed: {why}");
            let hint = format!("Remove there what is left of it: {}.", left.join(", "));
            warn(message, Some(hint));
            false
        }
    }
}

async fn clear(desired: &Desired, link: &Link, place: &Unfinished) -> Result<String> {
    let tablespaces = place.tablespaces.iter();
    let task = Task {
        directory: PathBuf::from(&place.directory),
        mark: desired.registry.mark(link).slot_name(),
        tablespaces: tablespaces.map(|path| (path.clone(), PathBuf::from(path))).collect(),
        port: (!place.swap).then_some(0),
        ..Task::default()
    };
    call(&mut open(desired, place.on_node).await?, Action::Clear, &task).await
}
