//! Whether a directory may become a data directory or a tablespace here.

use super::task::{Task, refuse};
use crate::error::{Error, Result};
use crate::pg::child::{bin_directory, data_directory, system};
use crate::pg::{disk, port};
use nodes_plan::units;
use pgrx::{PgSqlErrorCode as Code, pg_sys};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// Everything that can be known before anything is done; `complete` where all is done but the start.
pub fn check(task: &Task) -> Result<&'static str> {
    check_programs(task)?;
    check_directory(&task.directory)?;
    if task.is_complete() {
        return Ok("complete");
    }
    check_vacant(&task.directory)?;
    check_beside(task, &task.directory)?;
    task.port.map_or(Ok(()), check_port)?;
    for place in task.tablespaces.values() {
        check_directory(place)?;
        if place.starts_with(&task.directory) || task.directory.starts_with(place) {
            let message = format!("{} and {} overlap", place.display(), task.directory.display());
            return refuse(Code::ERRCODE_INVALID_PARAMETER_VALUE, message, OVERLAP);
        }
        check_vacant(place)?;
        check_beside(task, place)?;
    }
    check_space(task)?;
    Ok("vacant")
}

/// What is to go to one file system must fit into it.
fn check_space(task: &Task) -> Result<()> {
    let tablespaces = task.tablespaces.iter().map(|(old, new)| (old.as_str(), new));
    let mut needed: BTreeMap<u64, (u64, &Path)> = BTreeMap::new();
    for (old, place) in tablespaces.chain([("", &task.directory)]) {
        let Some(parent) = place.parent() else { continue };
        let Ok(found) = fs::metadata(parent) else { continue };
        let (bytes, _) = needed.entry(found.dev()).or_insert((0, parent));
        *bytes += task.sizes.get(old).copied().unwrap_or_default();
    }
    for (bytes, place) in needed.into_values() {
        let Some(free) = disk::free_bytes(place).filter(|free| *free < bytes) else { continue };
        let message = format!(
            "the clone needs {} below \"{}\", where {} are free",
            units::bytes(bytes),
            place.display(),
            units::bytes(free)
        );
        let hint = match task.port {
            Some(_) => "Make room there, or name a place on another file system.",
            None => "Make room there, and make the same call again.",
        };
        return refuse(Code::ERRCODE_DISK_FULL, message, hint);
    }
    Ok(())
}

const OVERLAP: &str = "Keep the data directory and each tablespace apart.";

fn check_programs(task: &Task) -> Result<()> {
    let here = pg_sys::PG_VERSION_NUM as i32 / 10_000;
    if here != task.major {
        let message = format!("this server is of version {here}, the primary of {}", task.major);
        let hint = "Name a server of the primary's major version on the target machine.";
        return refuse(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message, hint);
    }
    let verify = task.verify.then_some("pg_verifybackup");
    for program in ["postgres", "pg_basebackup", "pg_ctl"].into_iter().chain(verify) {
        let path = bin_directory().join(program);
        if !path.is_file() {
            let message = format!("there is no {}", path.display());
            let hint = "Install PostgreSQL's server and client programs of this version there.";
            return refuse(Code::ERRCODE_UNDEFINED_FILE, message, hint);
        }
    }
    Ok(())
}

/// As Postgres wants paths of tablespaces: absolute, and not within a server's own directories.
fn check_directory(directory: &Path) -> Result<()> {
    let text = directory.display();
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let control = directory.to_string_lossy().contains(char::is_control);
    if !directory.is_absolute() || !directory.components().all(plain) || control {
        let message = format!("\"{text}\" is not an absolute path without \"..\"");
        let hint = "Write the whole path, as the server on that machine sees it.";
        return refuse(Code::ERRCODE_INVALID_NAME, message, hint);
    }
    if text.to_string().contains(['"', '$', '`', '\\']) {
        let message = format!("\"{text}\" has a character that pg_ctl would give to a shell");
        let hint = "Name a directory without quotation mark, dollar, backquote and backslash.";
        return refuse(Code::ERRCODE_INVALID_NAME, message, hint);
    }
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        let message = format!("\"{text}\" cannot be a data directory");
        return refuse(Code::ERRCODE_INVALID_NAME, message, "Name a directory below it.");
    };
    let Ok(real) = fs::canonicalize(parent) else {
        let message = format!("there is no directory \"{}\"", parent.display());
        let hint = "Make it first, for the operating system user of the server on that machine.";
        return refuse(Code::ERRCODE_UNDEFINED_FILE, message, hint);
    };
    let real = real.join(name);
    for own in own_directories() {
        if real.starts_with(&own) || own.starts_with(&real) {
            let message = format!("\"{text}\" overlaps \"{}\" of this server", own.display());
            return refuse(Code::ERRCODE_INVALID_OBJECT_DEFINITION, message, APART);
        }
    }
    Ok(())
}

const APART: &str = "Name a directory outside this server's data directory and tablespaces.";

/// The data directory, the WAL and the tablespaces of the server that runs this.
fn own_directories() -> Vec<PathBuf> {
    let data = data_directory();
    let tablespaces = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
    let places = [data.clone(), data.join("pg_wal")].into_iter();
    let places = places.chain(tablespaces.map(|entry| entry.path()));
    places.filter_map(|place| fs::canonicalize(place).ok()).collect()
}

/// Absent, or an empty directory that a rename can replace.
pub fn check_vacant(directory: &Path) -> Result<()> {
    let text = directory.display();
    let found = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| system(&format!("could not look at \"{text}\""), &error))?,
    };
    let taken = |message: String, hint| refuse(Code::ERRCODE_DUPLICATE_FILE, message, hint);
    if !found.is_dir() {
        let hint = "Name a directory that does not exist or is empty; of a link, where it leads.";
        return taken(format!("\"{text}\" is not a directory"), hint);
    }
    let parent = directory.parent().and_then(|parent| fs::metadata(parent).ok());
    if parent.is_some_and(|parent| parent.dev() != found.dev()) {
        return taken(format!("\"{text}\" is a mount point"), "Name a directory below it.");
    }
    let mut entries = fs::read_dir(directory)
        .map_err(|error| system(&format!("could not read \"{text}\""), &error))?;
    match entries.next() {
        Some(_) => taken(format!("directory \"{text}\" is not empty"), NOT_OURS),
        None => Ok(()),
    }
}

const NOT_OURS: &str = "What is in it was not made by this link and is not touched: name another \
                        directory, or empty it.";

/// Whether a directory can be made beside: tried, since only that tells.
fn check_beside(task: &Task, directory: &Path) -> Result<()> {
    let beside = task.beside(directory);
    if beside.symlink_metadata().is_ok() {
        return Ok(());
    }
    make_private(&beside)?;
    match fs::remove_dir(&beside) {
        // Another call has tried the same.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed
            .map_err(|error| system(&format!("could not remove \"{}\"", beside.display()), &error)),
    }
}

/// Makes a directory for this user alone, where there is none.
pub fn make_private(directory: &Path) -> Result<()> {
    let made = match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.map_err(|error| {
        let message = system(&format!("could not make \"{}\"", directory.display()), &error);
        match error.kind() {
            ErrorKind::PermissionDenied => Error::Refused {
                code: Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                message: message.to_string(),
                detail: None,
                hint: "The directory above must be writable for the operating system user of the \
                       server on that machine.",
            },
            _ => message,
        }
    })
}

fn check_port(port: u16) -> Result<()> {
    if port::is_free(port) {
        return Ok(());
    }
    refuse(
        Code::ERRCODE_OBJECT_IN_USE,
        format!("port {port} is in use on that machine"),
        "Pass port => … with one that is free.",
    )
}
