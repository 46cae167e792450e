//! What a switchover leaves behind that was killed before the primary was restarted: the slot that
//! the primary would have read as a standby, and the settings by which it would have followed.

use super::is_marked;
use crate::rule::{Context, Verdict};
use crate::step::Operation;

const REASON: &str = "a switchover was interrupted before anything had changed hands";

pub(super) fn forget(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, target)) = ctx.both() else { return vec![] };
    // Where the primary has become a standby, the call that did it can be repeated.
    if source.in_recovery || !target.in_recovery {
        return vec![];
    }
    let files = source.file_settings.as_ref();
    let names_slot = files.and_then(|files| files.get("primary_slot_name"));
    let follows = is_marked(ctx, source.primary_conninfo_file.as_ref());
    let reset = |setting| Operation::AlterSystem { setting, value: None };
    let mut settings = Vec::new();
    let named = names_slot.is_some_and(|slot| slot == ctx.slot());
    settings.extend(named.then(|| reset("primary_slot_name")));
    settings.extend(follows.then(|| reset("primary_conninfo")));
    settings.extend((!settings.is_empty()).then_some(Operation::Reload));
    let passfile = follows && (source.passfile.is_some() || source.passfile_unfinished);
    settings.extend(passfile.then_some(Operation::RemovePassfile));
    let settings = settings.into_iter().map(|step| Verdict::act(ctx.from.id, step, REASON));
    let slot = target.slot(ctx.slot()).filter(|slot| !slot.active);
    let drop = |_| {
        let slot = ctx.slot().to_owned();
        Verdict::act(ctx.to.id, Operation::DropSlot { slot }, REASON)
    };
    settings.chain(slot.map(drop)).collect()
}
