//! The rules of a standby link: `from` is the primary (or the standby to cascade from), `to`
//! the standby. What is made: a physical slot there, `primary_conninfo`, `primary_slot_name`
//! and a passfile here.

mod copies;
mod handover;
mod unmanaged;

use crate::claims::{Claims, Lacking, Leftover};
use crate::conninfo::{Conninfo, Secret, passfile_line};
use crate::desired::{Link, LinkState, Spec, StandbySpec};
use crate::name::Mark;
use crate::observed::NodeFacts;
use crate::refuse::{Headroom, cannot_drop_slot, cannot_make_slot};
use crate::render::PASSFILE;
use crate::rule::{Context, Rule, Table, Verdict};
use crate::step::Operation;
use crate::synchronized;
use crate::synchronous;
use copies::{SYNC_SLOTS, cannot_copy_slots, copies_slots};

pub(crate) use unmanaged::TABLE as UNMANAGED;

pub(crate) const TABLE: Table = Table {
    forbid: FORBID,
    follow: FOLLOW,
    refuse: REFUSE,
    keep: KEEP,
    remove: REMOVE,
    lacking,
    leftover,
};

const FORBID: &[Rule] = &[
    Rule { id: "ST01", when: "the standby is not a clone of its primary", then: not_a_clone },
    Rule { id: "ST02", when: "the standby is not in recovery", then: not_in_recovery },
    Rule { id: "ST07", when: "the role on the standby cannot alter its settings", then: no_rights },
    Rule { id: "ST08", when: "the role of the conninfo cannot replicate", then: no_replication },
    Rule { id: "ST10", when: "the place of the passfile is taken", then: no_passfile },
    Rule { id: "ST11", when: "the standby refuses ALTER SYSTEM", then: no_alter_system },
];

const FOLLOW: &[Rule] = &[
    Rule { id: "ST26", when: "a standby that follows has another passfile", then: follow_password },
    Rule { id: "ST27", when: "a standby that follows has another conninfo", then: follow_conninfo },
];

const REFUSE: &[Rule] = &[
    Rule { id: "ST03", when: "the two servers differ in major version", then: other_version },
    Rule { id: "ST04", when: "wal_level of the primary is minimal", then: wal_level_minimal },
    Rule { id: "ST05", when: "the primary has no free walsender", then: no_walsender },
    Rule { id: "ST06", when: "the primary has no free replication slot", then: no_slot_left },
    Rule { id: "ST09", when: "the role on the primary cannot make the slot", then: no_slot_rights },
];

const KEEP: &[Rule] = &[
    Rule { id: "ST20", when: "the slot on the primary is missing", then: create_slot },
    Rule { id: "ST21", when: "the standby's passfile is not right", then: write_passfile },
    Rule { id: "ST22", when: "the standby's settings are not right", then: alter_settings },
    Rule { id: "ST23", when: "a setting in the files is not in force", then: reload },
    Rule { id: "ST24", when: "a passfile is no longer needed", then: remove_stale_passfile },
    Rule { id: "ST25", when: "a slot is there and should not be", then: drop_unwanted_slot },
    Rule { id: "ST28", when: "it cannot copy the primary's slots", then: cannot_copy_slots },
    Rule { id: "ST29", when: "a switchover was interrupted early", then: handover::forget },
];

const REMOVE: &[Rule] = &[
    Rule { id: "ST35", when: "commits on the primary wait for the standby", then: awaited },
    Rule { id: "ST36", when: "the role on the primary may not drop the slot", then: no_slot_drop },
    Rule { id: "ST37", when: "the role may not reset the standby's settings", then: no_reset },
    Rule { id: "ST38", when: "another link makes the standby follow first", then: await_successor },
    Rule { id: "ST39", when: "the standby still streams", then: await_replay },
    Rule { id: "ST40", when: "the standby still follows by our settings", then: reset_settings },
    Rule { id: "ST41", when: "our passfile is still on the standby", then: remove_passfile },
    Rule { id: "ST42", when: "our slot is still on the primary", then: drop_slot },
];

pub(crate) fn spec(ctx: &Context<'_>) -> Option<StandbySpec> {
    match &ctx.link.spec {
        Spec::Standby(spec) => Some(spec.clone()),
        Spec::Foreign(_) | Spec::Subscription(_) => None,
    }
}

/// The command that makes the missing clone, exactly: it creates the link's slot (`-C`), so
/// that no WAL is lost until the clone streams.
pub(crate) fn basebackup_command(ctx: &Context<'_>) -> String {
    let slot = match spec(ctx) {
        Some(StandbySpec { slot: true, .. }) => format!(" --create-slot --slot={}", ctx.slot()),
        Some(StandbySpec { slot: false, .. }) | None => String::new(),
    };
    let conninfo = replication_conninfo(ctx.from.conninfo.clone().without("password"));
    let directory = ctx.target.and_then(|target| target.data_directory.as_deref());
    format!(
        "pg_basebackup --dbname={} --pgdata={} --write-recovery-conf --wal-method=stream \
         --checkpoint=fast{slot}",
        shell_quote(&conninfo.to_string()),
        directory.map_or("DIRECTORY".to_owned(), shell_quote)
    )
}

/// As one word of a shell command.
pub(crate) fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Options of a node's conninfo that make no sense to a walreceiver.
pub(crate) fn replication_conninfo(conninfo: Conninfo) -> Conninfo {
    conninfo.without("dbname").without("target_session_attrs").without("options")
}

fn not_a_clone(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, target)) = ctx.both() else {
        return vec![];
    };
    if source.system_identifier == target.system_identifier {
        return vec![];
    }
    let message = format!(
        "node \"{}\" is not a clone of \"{}\": their system identifiers are {} and {}",
        ctx.to.name, ctx.from.name, target.system_identifier, source.system_identifier
    );
    let hint = format!(
        "Stop \"{}\", empty its data directory, run: {}",
        ctx.to.name,
        basebackup_command(ctx)
    );
    vec![Verdict::refuse(ctx.to.id, message, hint)]
}

fn not_in_recovery(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, target)) = ctx.both() else {
        return vec![];
    };
    let same = source.system_identifier == target.system_identifier;
    if !same || target.in_recovery {
        return vec![];
    }
    let message = format!(
        "node \"{}\" is a primary of its own (timeline {}), not a standby of \"{}\" (timeline {})",
        ctx.to.name, target.timeline, ctx.from.name, source.timeline
    );
    let hint = format!(
        "If \"{0}\" is to follow: CALL nodes.rejoin({1}) has it rewind itself or copied anew; or \
         clone it by hand with: {2}, and create standby.signal in its data directory.",
        ctx.to.name,
        crate::quote::literal(&ctx.to.name),
        basebackup_command(ctx)
    );
    vec![Verdict::refuse(ctx.to.id, message, hint)]
}

fn other_version(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, target)) = ctx.both() else {
        return vec![];
    };
    if source.major() == target.major() {
        return vec![];
    }
    let message = format!(
        "node \"{}\" runs PostgreSQL {}, \"{}\" runs {}",
        ctx.to.name,
        target.major(),
        ctx.from.name,
        source.major()
    );
    let hint = "Streaming replication needs the same major version; use a subscription instead.";
    vec![Verdict::refuse(ctx.to.id, message, hint)]
}

fn wal_level_minimal(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.source.and_then(|source| source.setting("wal_level")) {
        Some("minimal") => vec![Verdict::refuse(
            ctx.from.id,
            format!("wal_level on node \"{}\" is minimal", ctx.from.name),
            "Set wal_level to replica or logical there and restart that server.",
        )],
        Some(_) | None => vec![],
    }
}

/// Whether the standby already streams through our slot: then it needs nothing more.
fn streams(ctx: &Context<'_>) -> bool {
    ctx.source.and_then(|source| source.slot(ctx.slot())).is_some_and(|slot| slot.active)
}

fn no_walsender(ctx: &Context<'_>) -> Vec<Verdict> {
    let check = |room: Headroom<'_>| {
        room.check("max_wal_senders", room.facts.walsenders_taken(), |c| c.walsenders, "a standby")
    };
    let found = ctx.headroom_there(lacking(ctx).from).and_then(check);
    // Each would wait for the other: the removed link until this one makes the standby follow.
    let succeeds = |verdict: &Verdict| matches!(verdict, Verdict::Wait { .. }) && follows_here(ctx);
    found.filter(|verdict| !succeeds(verdict)).into_iter().collect()
}

/// Whether the standby is told to follow the same primary by another link of this registry, whose
/// walsender this one takes over.
fn follows_here(ctx: &Context<'_>) -> bool {
    let conninfo = ctx.target.and_then(|target| target.primary_conninfo_file.as_ref());
    let name = conninfo.and_then(|conninfo| conninfo.get("application_name"));
    let ours = Mark::slot_prefix(&ctx.mark.registry);
    name.is_some_and(|name| {
        name.starts_with(&ours) && ctx.source.is_some_and(|source| source.slot(name).is_some())
    })
}

/// Whether the standby's settings already point to the primary by our hand.
fn follows(ctx: &Context<'_>) -> bool {
    is_marked(ctx, ctx.target.and_then(|target| target.primary_conninfo.as_ref()))
}

fn no_slot_left(ctx: &Context<'_>) -> Vec<Verdict> {
    let check = |room: Headroom<'_>| {
        let used = room.facts.slots.len() as i64;
        room.check("max_replication_slots", used, |c| c.slots, "a standby")
    };
    ctx.headroom_there(lacking(ctx).from).and_then(check).into_iter().collect()
}

/// One that has a slot, or follows without, needs no further walsender.
fn lacking(ctx: &Context<'_>) -> Lacking {
    let found = ctx.source.and_then(|source| source.slot(ctx.slot()));
    let wanted = spec(ctx).is_some_and(|spec| spec.slot);
    let from = Claims {
        slots: i64::from(wanted && found.is_none()),
        walsenders: i64::from(found.is_none() && !follows(ctx)),
        ..Claims::default()
    };
    Lacking { from, to: Claims::default() }
}

/// The slot of a removed link, and one that should not be there.
fn leftover(ctx: &Context<'_>) -> Leftover {
    let readers = ctx.link.state == LinkState::Removing;
    let unwanted = readers || spec(ctx).is_some_and(|spec| !spec.slot);
    let slot = ctx.source.filter(|_| unwanted).and_then(|source| source.slot(ctx.slot()));
    Leftover { slot: slot.cloned(), readers, ..Leftover::default() }
}

fn no_rights(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target {
        Some(target) if !target.superuser => vec![Verdict::refuse(
            ctx.to.id,
            format!(
                "role \"{}\" on node \"{}\" is not a superuser and cannot alter its settings",
                target.role, ctx.to.name
            ),
            "Give the node an admin_conninfo of a superuser with nodes.alter_node().",
        )],
        Some(_) | None => vec![],
    }
}

fn no_replication(ctx: &Context<'_>) -> Vec<Verdict> {
    let user = ctx.from.conninfo.get("user");
    let role = user.and_then(|user| ctx.source.and_then(|source| source.role(user)));
    match role {
        Some(role) if !role.superuser && !role.replication => vec![Verdict::refuse(
            ctx.from.id,
            format!("role \"{}\" on node \"{}\" may not replicate", role.name, ctx.from.name),
            "Run ALTER ROLE … REPLICATION there.",
        )],
        Some(_) | None => vec![],
    }
}

fn no_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target {
        Some(target) if target.passfile_blocked && wanted_passfile(ctx).is_some() => {
            vec![Verdict::refuse(
                ctx.to.id,
                format!(
                    "the password for \"{}\" cannot be written on node \"{}\": {PASSFILE} or \
                     {PASSFILE}.new in its data directory is a directory, or not that server's to read",
                    ctx.from.name, ctx.to.name
                ),
                "Remove it, or take the password out with nodes.set_password() and let the \
                 primary trust the standby by certificate.",
            )]
        }
        Some(_) | None => vec![],
    }
}

/// From 17 on an administrator can forbid it: then something else writes the files.
fn no_alter_system(ctx: &Context<'_>) -> Vec<Verdict> {
    let alters = |verdict: &Verdict| {
        let Verdict::Do { operation, .. } = verdict else { return false };
        matches!(operation, Operation::AlterSystem { .. } | Operation::SetPrimaryConninfo { .. })
    };
    let mut steps = follow_conninfo(ctx).into_iter().chain(alter_settings(ctx));
    if steps.any(|step| alters(&step)) { refuses_alter_system(ctx) } else { vec![] }
}

fn refuses_alter_system(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target.and_then(|target| target.setting("allow_alter_system")) {
        Some("off") => vec![Verdict::refuse(
            ctx.to.id,
            format!("node \"{}\" refuses ALTER SYSTEM (allow_alter_system is off)", ctx.to.name),
            "Turn allow_alter_system on there and reload, then run nodes.apply() again.",
        )],
        Some(_) | None => vec![],
    }
}

fn no_slot_rights(ctx: &Context<'_>) -> Vec<Verdict> {
    let wanted = spec(ctx).is_some_and(|spec| spec.slot);
    match ctx.source {
        Some(source) if wanted && source.slot(ctx.slot()).is_none() => {
            cannot_make_slot(ctx.from, source).into_iter().collect()
        }
        Some(_) | None => vec![],
    }
}

fn create_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    // A slot that no standby will read keeps WAL for ever: only for a standby that was seen.
    let (Some((source, _)), Some(spec)) = (ctx.both(), spec(ctx)) else {
        return vec![];
    };
    if !spec.slot || source.slot(ctx.slot()).is_some() {
        return vec![];
    }
    let reason = format!("keeps the WAL that \"{}\" has not received yet", ctx.to.name);
    vec![Verdict::act(
        ctx.from.id,
        Operation::CreatePhysicalSlot { slot: ctx.slot().to_owned() },
        reason,
    )]
}

/// The line that the standby's passfile should hold.
pub(crate) fn wanted_passfile(ctx: &Context<'_>) -> Option<Secret> {
    ctx.from.conninfo.password().map(|password| passfile_line(&password))
}

/// Whether the files make the standby follow by our hand: then its connection is kept right
/// whatever else is wrong.
fn is_told_to_follow(ctx: &Context<'_>) -> bool {
    is_marked(ctx, ctx.target.and_then(|target| target.primary_conninfo_file.as_ref()))
}

fn follow_password(ctx: &Context<'_>) -> Vec<Verdict> {
    if is_told_to_follow(ctx) { right_passfile(ctx) } else { vec![] }
}

fn write_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    if is_told_to_follow(ctx) { vec![] } else { right_passfile(ctx) }
}

fn right_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    let (Some(target), Some(wanted)) = (ctx.target, wanted_passfile(ctx)) else {
        return vec![];
    };
    if target.passfile.as_ref() == Some(&wanted) && !target.passfile_unfinished {
        return vec![];
    }
    let reason = format!("holds the password for \"{}\", so that no log shows it", ctx.from.name);
    vec![Verdict::act(ctx.to.id, Operation::WritePassfile { content: wanted }, reason)]
}

/// `primary_conninfo` as it should be. The password is in the passfile, because a reload logs
/// the whole setting. From 17 the slot synchronization needs a `dbname`
/// (manual, "Replication Slot Synchronization").
pub(crate) fn wanted_conninfo(ctx: &Context<'_>, target: &NodeFacts) -> Conninfo {
    let own = ctx.from.conninfo.clone().without("password");
    let mut conninfo = replication_conninfo(own);
    if let (true, Some(dbname)) = (target.major() >= 17, ctx.from.conninfo.get("dbname")) {
        conninfo.set("dbname", dbname);
    }
    if ctx.from.conninfo.password().is_some() {
        conninfo.set("passfile", PASSFILE);
    }
    conninfo.with("application_name", ctx.slot())
}

/// The simple settings of a standby, each with its value; `None` for one that must not be set.
pub(crate) fn wanted_settings(
    ctx: &Context<'_>,
    target: &NodeFacts,
) -> Vec<(&'static str, Option<String>)> {
    let slot = spec(ctx).is_some_and(|spec| spec.slot).then(|| ctx.slot().to_owned());
    let mut settings = vec![("primary_slot_name", slot)];
    if target.major() >= 17 {
        settings.push(("hot_standby_feedback", Some("on".to_owned())));
    }
    if copies_slots(ctx, target) {
        settings.push((SYNC_SLOTS, Some("on".to_owned())));
    }
    settings
}

fn follow_conninfo(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((_, target)) = ctx.both().filter(|_| is_told_to_follow(ctx)) else {
        return vec![];
    };
    let conninfo = wanted_conninfo(ctx, target);
    let mut verdicts = Vec::new();
    if target.primary_conninfo_file.as_ref() != Some(&conninfo) {
        let reason = format!("does not say what the registry says of \"{}\"", ctx.from.name);
        let set = Operation::SetPrimaryConninfo { conninfo };
        verdicts.push(Verdict::act(ctx.to.id, set, reason));
    }
    if !verdicts.is_empty() || target.primary_conninfo != target.primary_conninfo_file {
        verdicts.push(Verdict::act(ctx.to.id, Operation::Reload, "puts the settings in force"));
    }
    verdicts
}

fn alter_settings(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((_, target)) = ctx.both() else {
        return vec![];
    };
    let mut verdicts = Vec::new();
    if !is_told_to_follow(ctx) {
        verdicts.push(set_conninfo(ctx, wanted_conninfo(ctx, target)));
    }
    let files = target.file_settings.as_ref();
    for (setting, value) in wanted_settings(ctx, target) {
        let current = files.and_then(|files| files.get(setting)).filter(|v| !v.is_empty());
        if current == value.as_ref() {
            continue;
        }
        let reason = match setting {
            "primary_slot_name" => format!("its slot on \"{}\"", ctx.from.name),
            _ => "slots that must survive a failover need it".to_owned(),
        };
        verdicts.push(Verdict::act(ctx.to.id, Operation::AlterSystem { setting, value }, reason));
    }
    if !verdicts.is_empty() {
        verdicts.push(Verdict::act(ctx.to.id, Operation::Reload, "puts the settings in force"));
    }
    verdicts
}

fn set_conninfo(ctx: &Context<'_>, conninfo: Conninfo) -> Verdict {
    let reason = format!("makes \"{}\" follow \"{}\"", ctx.to.name, ctx.from.name);
    let step = Verdict::act(ctx.to.id, Operation::SetPrimaryConninfo { conninfo }, reason);
    let stranger = ctx.target.and_then(|target| target.primary_conninfo.as_ref());
    match stranger {
        Some(now) if now.get("application_name") != Some(ctx.slot()) => {
            step.danger(format!("\"{}\" stops following: {now}", ctx.to.name))
        }
        Some(_) | None => step,
    }
}

fn reload(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((_, target)) = ctx.both() else {
        return vec![];
    };
    let Some(files) = &target.file_settings else {
        return vec![];
    };
    if !follow_conninfo(ctx).is_empty() || !alter_settings(ctx).is_empty() {
        return vec![];
    }
    let stale = wanted_settings(ctx, target).into_iter().any(|(setting, _)| {
        files.get(setting).map_or("", String::as_str) != target.setting(setting).unwrap_or("")
    });
    if !stale {
        return vec![];
    }
    vec![Verdict::act(ctx.to.id, Operation::Reload, "puts the settings in force")]
}

fn remove_stale_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    // As long as the primary is unknown the standby's settings still name the file.
    if wanted_passfile(ctx).is_some() || ctx.both().is_none() {
        return vec![];
    }
    drop_passfile(ctx)
}

fn drop_unwanted_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    // A standby that is not heard may still need it.
    match (spec(ctx), ctx.both()) {
        (Some(StandbySpec { slot: false, .. }), Some(_)) => {
            let refused = no_slot_drop(ctx);
            if refused.is_empty() { drop_slot(ctx) } else { refused }
        }
        (Some(StandbySpec { .. }) | None, _) => vec![],
    }
}

/// Whether the standby's settings, in force or in the files, are ours. The slot's name is what
/// a role that is no superuser sees of them.
fn is_configured(ctx: &Context<'_>) -> bool {
    is_in_force(ctx) || is_in_files(ctx)
}

fn is_in_files(ctx: &Context<'_>) -> bool {
    let files = ctx.target.and_then(|target| target.file_settings.as_ref());
    let slot = files.and_then(|files| files.get("primary_slot_name"));
    is_told_to_follow(ctx) || slot.is_some_and(|slot| slot == ctx.slot())
}

fn is_in_force(ctx: &Context<'_>) -> bool {
    let Some(target) = ctx.target else { return false };
    is_marked(ctx, target.primary_conninfo.as_ref())
        || target.setting("primary_slot_name") == Some(ctx.slot())
}

/// Whether a `primary_conninfo` bears our mark.
fn is_marked(ctx: &Context<'_>, conninfo: Option<&Conninfo>) -> bool {
    conninfo.is_some_and(|c| c.get("application_name") == Some(ctx.slot()))
}

/// The link that will make the standby follow somebody else. Until it has done so nothing is
/// taken from the standby: it would be without a primary meanwhile.
fn successor<'a>(ctx: &Context<'a>) -> Option<&'a Link> {
    ctx.others.standby(ctx.to.id).filter(|_| is_configured(ctx))
}

/// Whether the standby keeps following by our settings although the link is being removed.
fn is_held(ctx: &Context<'_>) -> bool {
    !no_slot_drop(ctx).is_empty()
        || !no_reset(ctx).is_empty()
        || successor(ctx).is_some()
        || !awaited(ctx).is_empty()
}

fn awaited(ctx: &Context<'_>) -> Vec<Verdict> {
    let refuse = |(message, hint)| Verdict::refuse(ctx.from.id, message, hint);
    synchronous::why_awaited(ctx).map(refuse).into_iter().collect()
}

fn no_slot_drop(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(source) = ctx.source.filter(|source| source.slot(ctx.slot()).is_some()) else {
        return vec![];
    };
    let awaited = synchronized::is_awaited(source, ctx.slot()).then(|| {
        let message = format!(
            "subscribers of \"{}\" wait for slot \"{}\" ({}), and role \"{}\" cannot alter that",
            ctx.from.name,
            ctx.slot(),
            synchronized::SETTING,
            source.role
        );
        let hint = "Take it out of that setting and reload, or give the node an admin_conninfo of \
                    a superuser and turn allow_alter_system on.";
        Verdict::refuse(ctx.from.id, message, hint)
    });
    awaited.into_iter().chain(cannot_drop_slot(ctx.from, source)).collect()
}

fn no_reset(ctx: &Context<'_>) -> Vec<Verdict> {
    let mut verdicts = if is_configured(ctx) { no_rights(ctx) } else { vec![] };
    if is_in_files(ctx) {
        verdicts.extend(refuses_alter_system(ctx));
    }
    verdicts
}

fn await_successor(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(successor) = successor(ctx) else { return vec![] };
    let message = format!(
        "node \"{}\" follows \"{}\" until link \"{}\" makes it follow another node",
        ctx.to.name, ctx.from.name, successor.name
    );
    let hint = "It is removed as soon as that link is made; run nodes.apply().";
    vec![Verdict::wait(ctx.to.id, message, hint)]
}

fn await_replay(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some((source, _)) = ctx.both() else { return vec![] };
    if !streams(ctx) || source.in_recovery || is_held(ctx) {
        return vec![];
    }
    let reason = format!("\"{}\" keeps all that was done until now", ctx.to.name);
    vec![Verdict::act(ctx.from.id, Operation::AwaitReplay { slot: ctx.slot().to_owned() }, reason)]
}

fn reset_settings(ctx: &Context<'_>) -> Vec<Verdict> {
    let Some(target) = ctx.target.filter(|_| is_configured(ctx) && !is_held(ctx)) else {
        return vec![];
    };
    let in_files = |setting: &str| target.file_settings.as_ref()?.get(setting);
    let slot_is_ours = in_files("primary_slot_name").is_some_and(|slot| slot == ctx.slot());
    let conninfo_is_ours = is_marked(ctx, target.primary_conninfo_file.as_ref());
    let mut verdicts = if slot_is_ours { copies::stop(ctx, target) } else { vec![] };
    let mut reset = |setting: &'static str| {
        let operation = Operation::AlterSystem { setting, value: None };
        verdicts.push(Verdict::act(ctx.to.id, operation, "the link is being removed"));
    };
    // hot_standby_feedback bears no mark: whether we set it or somebody else is not known, so
    // it stays. primary_conninfo bears the mark that proves the rest is ours: it goes last.
    if slot_is_ours {
        reset("primary_slot_name");
    }
    if conninfo_is_ours {
        reset("primary_conninfo");
    }
    // Settings that never were in force are gone with the files.
    if is_in_force(ctx) {
        let reload = Verdict::act(ctx.to.id, Operation::Reload, "puts the settings in force");
        verdicts.push(reload.danger(format!("\"{}\" stops following", ctx.to.name)));
    }
    verdicts
}

fn remove_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    // The file serves every link to the standby: the next one keeps it or takes it away.
    if is_held(ctx) || ctx.others.standby(ctx.to.id).is_some() {
        return vec![];
    }
    drop_passfile(ctx)
}

fn drop_passfile(ctx: &Context<'_>) -> Vec<Verdict> {
    match ctx.target {
        // Somebody else's settings read it: those of another registry.
        Some(target) if reads_passfile(target) && !is_configured(ctx) => vec![],
        Some(target) if target.passfile.is_some() || target.passfile_unfinished => {
            vec![Verdict::act(
                ctx.to.id,
                Operation::RemovePassfile,
                "the password in it is no longer needed",
            )]
        }
        Some(_) | None => vec![],
    }
}

/// Whether the standby's settings name the passfile.
fn reads_passfile(target: &NodeFacts) -> bool {
    let conninfo = target.primary_conninfo_file.as_ref();
    conninfo.is_some_and(|c| c.get("passfile") == Some(PASSFILE))
}

fn drop_slot(ctx: &Context<'_>) -> Vec<Verdict> {
    if ctx.link.state == LinkState::Removing && is_held(ctx) {
        return vec![];
    }
    let slot = ctx.source.and_then(|source| source.slot(ctx.slot()));
    match slot {
        // Somebody reads it and we cannot tell the standby to stop: it must answer first.
        Some(slot) if slot.active && ctx.target.is_none() && !ctx.to.gone => vec![],
        Some(slot) => {
            let operation = Operation::DropSlot { slot: slot.name.clone() };
            let step = Verdict::act(ctx.from.id, operation, "nobody will read it");
            let (from, to) = (&ctx.from.name, &ctx.to.name);
            vec![step.danger(format!("\"{from}\" keeps no more WAL for \"{to}\""))]
        }
        None => vec![],
    }
}
