//! What a server must know of itself before it can read a registry: whether it is a member of a
//! group, and who has taken its place there. A small file in the data directory for each
//! database whose registry says so.

use super::child::data_directory;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

const PREFIX: &str = "pg_nodes.group.";

/// Who has taken a server's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    pub node: String,
    pub timeline: i64,
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node \"{}\" is on timeline {}", self.node, self.timeline)
    }
}

/// What the file of one database says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    pub superseded_by: Option<Successor>,
}

fn path(database: u32) -> PathBuf {
    data_directory().join(format!("{PREFIX}{database}"))
}

/// The files of all databases. One that cannot be read still says that there is a group.
pub fn all() -> io::Result<Vec<(u32, Membership)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data_directory())? {
        let name = entry?.file_name();
        let database = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if let Some(database) = database {
            found.push((database, of(database).unwrap_or_default()));
        }
    }
    Ok(found)
}

/// The file of a database; `None`: it has none that can be read.
pub fn of(database: u32) -> Option<Membership> {
    serde_json::from_slice(&fs::read(path(database)).ok()?).ok()
}

/// Writes the file of a database so that a crash leaves the old or the new one.
pub fn write(database: u32, membership: &Membership) -> io::Result<()> {
    let path = path(database);
    let new = path.with_extension(format!("{database}.new"));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(membership)?)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync(&path)
}

/// Removes the file of a database; whether it had one.
pub fn remove(database: u32) -> io::Result<bool> {
    let path = path(database);
    match fs::remove_file(&path) {
        Ok(()) => sync(&path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Whether this server is about to start as a standby, or to recover to some point: it takes no
/// writes before somebody promotes it.
pub fn is_to_recover() -> bool {
    ["standby.signal", "recovery.signal"].iter().any(|file| data_directory().join(file).exists())
}
