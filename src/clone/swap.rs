//! A complete copy takes the place of the data directory of the server that runs this: the two
//! change names in one step, so that the one name always leads to a whole server. What runs keeps
//! its files open, since a server works in its directory whatever that is called, and stops; what
//! starts then finds the copy. Only when that runs does the old directory go.

use super::copy::{remove, sync_parent};
use super::place::make_private;
use super::task::refuse;
use crate::error::Result;
use crate::pg::child::{bin_directory, data_directory, system};
use crate::pg::{disk, spi};
use pgrx::PgSqlErrorCode as Code;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};

/// The file in a complete copy that says whose it is, until it is a server of its own.
pub const MARKER: &str = "pg_nodes.clone";

/// What of a data directory is the server's own and no part of the data that it holds, besides what
/// its settings name.
const OWN_FILES: [&str; 10] = [
    "postgresql.conf",
    "postgresql.auto.conf",
    "pg_hba.conf",
    "pg_ident.conf",
    "conf.d",
    "postmaster.opts",
    "pg_nodes.passfile",
    "server.crt",
    "server.key",
    "root.crt",
];

/// Files that settings read or are read from, within the data directory or relative to it.
const NAMED_FILES: &str = "SELECT string_agg(DISTINCT file, E'\\n') FROM (
     SELECT sourcefile AS file FROM pg_file_settings
     UNION ALL SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file',
       'ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file', 'ssl_crl_dir',
       'ssl_dh_params_file', 'krb_server_keyfile')) named";

/// The files and directories at the top of the data directory that are this server's own.
pub fn own_files() -> Result<BTreeSet<String>> {
    let named = spi::read_text(NAMED_FILES, &[])?.unwrap_or_default();
    let data = data_directory();
    let named = named.lines().filter_map(|path| top_of(Path::new(path), &data));
    Ok(OWN_FILES.into_iter().map(str::to_owned).chain(named).collect())
}

/// What leads to a file from the data directory; `None`: that is outside, or Postgres' own.
fn top_of(path: &Path, data: &Path) -> Option<String> {
    let inner = if path.is_absolute() { path.strip_prefix(data).ok()? } else { path };
    let Component::Normal(top) = inner.components().next()? else { return None };
    let top = top.to_str()?;
    let is_postgres = top == "base" || top == "global" || top.starts_with("pg_");
    (!(is_postgres && data.join(top).is_dir())).then(|| top.to_owned())
}

/// How far a copy is on its way into the place of this server's data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// There is none that is complete.
    Nothing,
    Complete,
    /// It has the name, and this server still runs on the old directory.
    Named,
    /// This server runs on it; the old directory may be there.
    Taken,
}

/// Where the copy is to be made, and where the old data directory is after it has the name.
pub fn place(mark: &str) -> PathBuf {
    let mut name = data().into_os_string();
    name.push(".");
    name.push(mark);
    name.push(".swap");
    PathBuf::from(name)
}

/// This server's data directory by its own name, where it is known by that of a link.
fn data() -> PathBuf {
    let data = data_directory();
    fs::canonicalize(&data).unwrap_or(data)
}

pub fn stage(mark: &str) -> Stage {
    let bears_mark = |directory: &Path| {
        fs::read_to_string(directory.join(MARKER)).is_ok_and(|text| text.trim() == mark)
    };
    let place = place(mark);
    if bears_mark(&data()) {
        match runs_in(&place) {
            true => Stage::Named,
            false => Stage::Taken,
        }
    } else if bears_mark(&place) {
        Stage::Complete
    } else {
        Stage::Nothing
    }
}

/// Where this server works, whatever that is called now.
fn runs_in(directory: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    identity(Path::new(".")).is_ok_and(|here| identity(directory).is_ok_and(|it| it == here))
}

/// Where the server that runs is to be stopped.
pub fn running_directory(mark: &str) -> PathBuf {
    match stage(mark) {
        Stage::Named => place(mark),
        Stage::Nothing | Stage::Complete | Stage::Taken => data_directory(),
    }
}

/// Why this server's data directory cannot be replaced by a copy, where it cannot.
pub fn obstacle(mark: &str) -> Option<String> {
    let data = data();
    if fs::symlink_metadata(data.join("pg_wal")).is_ok_and(|found| found.is_symlink()) {
        return Some("its WAL is outside of the data directory".to_owned());
    }
    if fs::read_dir(data.join("pg_tblspc")).is_ok_and(|mut links| links.next().is_some()) {
        return Some("it has tablespaces".to_owned());
    }
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if data.parent().is_none_or(|parent| device(parent) != device(&data)) {
        return Some(format!("{} is a mount point", data.display()));
    }
    let program = bin_directory().join("pg_basebackup");
    if !program.is_file() {
        return Some(format!("there is no {}", program.display()));
    }
    try_exchange(mark).err().map(|error| error.to_string())
}

/// Tried with two empty directories, since only that tells.
fn try_exchange(mark: &str) -> Result<()> {
    let mut place = place(mark).into_os_string();
    let other = {
        let mut name = place.clone();
        name.push(".other");
        PathBuf::from(name)
    };
    place.push(".try");
    let place = PathBuf::from(place);
    let directories = [&place, &other];
    for directory in directories {
        // Of a call that was killed here.
        let _ = fs::remove_dir(directory);
    }
    let tried = make_private(&place).and_then(|()| make_private(&other)).and_then(|()| {
        disk::exchange(&place, &other).map_err(|error| system(COULD_NOT_EXCHANGE, &error))
    });
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
    tried
}

const COULD_NOT_EXCHANGE: &str = "could not have two directories change their names";

/// Gives the complete copy this server's own files and the name of its data directory. What fails
/// here has changed nothing.
pub fn swap(mark: &str, own: &BTreeSet<String>) -> Result<()> {
    match stage(mark) {
        Stage::Named => return Ok(()),
        Stage::Complete => {}
        Stage::Nothing | Stage::Taken => {
            let message = format!("there is no complete copy in \"{}\"", place(mark).display());
            let hint = "Make the same call again: it makes one.";
            return refuse(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, hint);
        }
    }
    let (data, copy) = (data(), place(mark));
    for name in own {
        let given = give(&data.join(name), &copy.join(name));
        given.map_err(|error| system(&format!("could not copy \"{name}\""), &error))?;
    }
    let synced = File::open(&copy).and_then(|directory| directory.sync_all());
    synced.map_err(|error| system("could not sync the copy", &error))?;
    exchange(&data, &copy)
}

/// Takes a swap back after which the server could not be told to stop.
pub fn swap_back(mark: &str) -> Result<()> {
    match stage(mark) {
        Stage::Named => exchange(&data(), &place(mark)),
        Stage::Nothing | Stage::Complete | Stage::Taken => Ok(()),
    }
}

fn exchange(data: &Path, copy: &Path) -> Result<()> {
    disk::exchange(data, copy).map_err(|error| system(COULD_NOT_EXCHANGE, &error))?;
    sync_parent(data)
}

/// A file, a link or a directory of either, in place of what is there.
fn give(from: &Path, to: &Path) -> io::Result<()> {
    let absent = |result: io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    absent(remove(to))?;
    let found = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if !found.is_dir() {
        fs::copy(from, to)?;
        return File::open(to)?.sync_all();
    }
    fs::create_dir(to)?;
    fs::set_permissions(to, found.permissions())?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        give(&from.join(&name), &to.join(&name))?;
    }
    File::open(to)?.sync_all()
}

/// Takes the old data directory away when this server runs on the copy, and then what shows whose
/// that is.
pub fn finish(mark: &str) -> Result<()> {
    if stage(mark) != Stage::Taken {
        return Ok(());
    }
    for path in [place(mark), data().join(MARKER)] {
        match remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(system(&format!("could not remove \"{}\"", path.display()), &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
