//! What is to be cloned, and where to: what the registry's server tells the one on the target
//! machine.

use crate::error::{Error, Result};
use nodes_plan::conninfo::{Conninfo, Secret};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Changes nothing.
    Check,
    Copy,
    /// Takes away what an interrupted copy has left; `cleared` where that is all there was, else
    /// `complete` or `taken`.
    Clear,
    Start,
    /// Takes away what shows whose the clone is: it is a server of its own now.
    Finish,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Task {
    /// The data directory to be.
    pub directory: PathBuf,
    /// The name of the link's slot.
    pub mark: String,
    /// How to reach the primary, without a password.
    pub conninfo: Conninfo,
    /// The line of a password file that opens it.
    pub passfile: Option<Secret>,
    /// Whether the link's slot is read.
    pub slot: bool,
    /// In kilobytes a second.
    pub max_rate: Option<u64>,
    /// Places of tablespaces, on the primary and here.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// Bytes of each of them, by its place on the primary; of the rest by an empty one.
    #[serde(default)]
    pub sizes: BTreeMap<String, u64>,
    /// Whether the checksums of pages are looked at while they are read.
    pub checksums: bool,
    /// Whether the copy is read again and compared with its manifest.
    pub verify: bool,
    /// Of the new server; `None` where the copy is for one that runs.
    pub port: Option<u16>,
    /// Major version of the primary.
    pub major: i32,
    /// Lines of `postgresql.auto.conf`.
    pub settings: Vec<(String, String)>,
    /// Files to be made where the copy brings none: those that the primary keeps elsewhere.
    pub files: BTreeMap<String, String>,
    /// Lines for the end of `postgresql.conf`, for what may stand nowhere else.
    pub overrides: Vec<(String, String)>,
}

impl Task {
    /// Where a directory is filled before it gets its name.
    pub fn beside(&self, directory: &Path) -> PathBuf {
        let mut name = directory.as_os_str().to_owned();
        name.push(".");
        name.push(&self.mark);
        PathBuf::from(name)
    }

    /// The file in a complete clone that says whose it is, until it is a server of its own.
    pub fn marker(&self) -> PathBuf {
        self.directory.join(super::swap::MARKER)
    }

    /// Whether the final directory is there, and of this link.
    pub fn is_complete(&self) -> bool {
        std::fs::read_to_string(self.marker()).is_ok_and(|text| text.trim() == self.mark)
    }
}

/// A refusal with its way out.
pub fn refuse<T>(code: PgSqlErrorCode, message: String, hint: &'static str) -> Result<T> {
    Err(Error::Refused { code, message, detail: None, hint })
}
