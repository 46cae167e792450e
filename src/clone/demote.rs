//! A server makes itself a standby: `standby.signal`, and a restart, by a script that lives on
//! when the server ends, or by the command that a person has set where a service manager owns
//! it. Where it has diverged, `pg_rewind` comes in between.

use super::place::make_private;
use super::swap::{self, Stage};
use super::task::refuse;
use crate::error::Result;
use crate::guc;
use crate::pg::child::{self, bin_directory, data_directory, nameless_file, system};
use nodes_plan::conninfo::{Conninfo, Secret};
use pgrx::PgSqlErrorCode as Code;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Changes nothing; says what this server is able to do.
    Check,
    /// Ends this server, and has it come back as a standby.
    Restart,
    /// Undoes what a restart that did not come about has prepared.
    Cancel,
    /// Takes away what the server was before it ran on a copy.
    Finish,
}

/// How this server is to return.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Demotion {
    /// The name of the link's slot.
    pub mark: String,
    /// Where it has diverged: whom to be rewound against.
    pub source: Option<Source>,
    /// Whether it returns on the complete copy beside.
    #[serde(default)]
    pub swap: bool,
}

/// How `pg_rewind` connects.
#[derive(Clone, Serialize, Deserialize)]
pub struct Source {
    /// Without a password.
    pub conninfo: Conninfo,
    /// The line of a password file that opens it.
    pub passfile: Option<Secret>,
}

/// What [`Action::Check`] finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ability {
    /// Why this server cannot be restarted, where it cannot.
    pub no_restart: Option<String>,
    /// Why it cannot be rewound by itself, where it cannot.
    pub no_rewind: Option<String>,
    /// Why it cannot be given a copy in place of its data, where it cannot.
    pub no_copy: Option<String>,
    /// Where that copy is made, and the old data is until the copy runs.
    pub copy: PathBuf,
    pub stage: Stage,
    pub data_directory: PathBuf,
    pub bin_directory: PathBuf,
    /// Why the last attempt failed, where it left a word.
    pub failure: Option<String>,
}

const SCRIPT: &str = include_str!("demote.sh");

pub fn check(demotion: &Demotion) -> Ability {
    Ability {
        no_restart: no_restart(),
        no_rewind: no_rewind(demotion),
        no_copy: no_pause().or_else(|| swap::obstacle(&demotion.mark)),
        copy: swap::place(&demotion.mark),
        stage: swap::stage(&demotion.mark),
        data_directory: data_directory(),
        bin_directory: bin_directory(),
        failure: fs::read_to_string(data_directory().join("pg_nodes.demote"))
            .ok()
            .map(|text| text.trim().to_owned()),
    }
}

fn no_program(name: &str) -> Option<String> {
    let path = bin_directory().join(name);
    (!path.is_file()).then(|| format!("there is no {}", path.display()))
}

fn no_restart() -> Option<String> {
    if guc::restart_command().is_some() {
        return None;
    }
    if let Some(unit) = service_unit() {
        return Some(format!(
            "it belongs to the service manager as {unit}, and \"sudo systemctl restart {unit}\" \
             restarts it"
        ));
    }
    no_program("pg_ctl")
}

/// Why nothing can be done to its files between stop and start, where it cannot.
fn no_pause() -> Option<String> {
    match guc::restart_command() {
        Some(_) => Some("pg_nodes.restart_command owns it".to_owned()),
        None => no_restart(),
    }
}

fn no_rewind(demotion: &Demotion) -> Option<String> {
    let vacant = || {
        let kept = kept(demotion);
        match make_private(&kept) {
            Ok(()) => fs::remove_dir(&kept).err().map(|error| error.to_string()),
            Err(error) => (!kept.is_dir()).then(|| error.to_string()),
        }
    };
    no_pause().or_else(|| no_program("pg_rewind")).or_else(vacant)
}

/// Beside the data directory: what is within goes with the rewind.
fn kept(demotion: &Demotion) -> PathBuf {
    let mut name = data_directory().into_os_string();
    name.push(".");
    name.push(&demotion.mark);
    PathBuf::from(name)
}

/// The unit of a service manager that owns this server: it would take the end of the server for
/// a failure, and what we start for no part of it.
fn service_unit() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let names = groups.lines().filter_map(|line| line.rsplit('/').next());
    let mut units = names.filter(|name| name.ends_with(".service") && name.contains("postgres"));
    units.next().map(str::to_owned)
}

/// Takes `standby.signal` away from a server that is a primary.
pub fn cancel() -> Result<()> {
    if crate::pg::spi::in_recovery() {
        return Ok(());
    }
    match fs::remove_file(data_directory().join("standby.signal")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(system("could not remove standby.signal", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes the history of later timelines away from a primary. A promotion that a crash has ended
/// before its first record leaves one (xlog.c removes `standby.signal` before that), and the server
/// goes on as a primary on the timeline before; as a standby it would look for the later one, and
/// not start.
fn forget_later_timelines() -> Result<()> {
    const TIMELINE: &str = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) \
         WHERE NOT pg_is_in_recovery()";
    let Some(own) = crate::pg::spi::read_text(TIMELINE, &[])? else { return Ok(()) };
    let directory = data_directory().join("pg_wal");
    let could_not = |error| system("could not look through pg_wal", &error);
    for entry in fs::read_dir(&directory).map_err(could_not)? {
        let name = entry.map_err(could_not)?.file_name();
        let timeline = name.to_str().and_then(|name| name.strip_suffix(".history"));
        // Eight digits each.
        if timeline.is_some_and(|timeline| timeline.len() == own.len() && *timeline > *own) {
            fs::remove_file(directory.join(&name)).map_err(could_not)?;
        }
    }
    Ok(())
}

/// Returns when the restart has begun.
pub fn restart(demotion: &Demotion) -> Result<()> {
    let on_its_own_data = demotion.source.is_none() && !demotion.swap;
    if on_its_own_data {
        forget_later_timelines()?;
    }
    let signal = data_directory().join("standby.signal");
    if let Some(command) = guc::restart_command() {
        if !on_its_own_data {
            let message = "a server with pg_nodes.restart_command is rewound by hand".to_owned();
            let hint = "Stop it, run pg_rewind, create standby.signal and start it.";
            return refuse(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message, hint);
        }
        let made = File::create(&signal).and_then(|file| file.sync_all());
        made.map_err(|error| system("could not make standby.signal", &error))?;
        let started = child::launch(&command, &[], None);
        if started.is_err() {
            // Else the next restart would be a surprise.
            let _ = fs::remove_file(&signal);
        }
        return started;
    }
    let source = demotion.source.as_ref();
    let passfile = source.and_then(|source| source.passfile.as_ref());
    let passfile = passfile.map(|line| nameless_file(format!("{}\n", line.reveal()).as_bytes()));
    let passfile = passfile.transpose()?;
    let conninfo = source.map(|source| {
        let own = source.conninfo.clone().with("application_name", &demotion.mark);
        match &passfile {
            Some(file) => own.with("passfile", child::handed_path(file)),
            None => own,
        }
    });
    let own = swap::own_files()?;
    if demotion.swap {
        swap::swap(&demotion.mark, &own)?;
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut arguments = vec![
        text(bin_directory()),
        text(data_directory()),
        text(kept(demotion)),
        conninfo.map(|conninfo| conninfo.render()).unwrap_or_default(),
        text(swap::running_directory(&demotion.mark)),
    ];
    arguments.extend(own);
    let launched = child::launch(SCRIPT, &arguments, passfile.as_ref());
    if launched.is_err() && demotion.swap {
        swap::swap_back(&demotion.mark)?;
    }
    launched
}
