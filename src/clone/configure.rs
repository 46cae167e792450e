//! What makes a copy a standby of its own: settings, password file, `standby.signal`.

use super::task::Task;
use crate::error::Result;
use crate::pg::child::system;
use nodes_plan::render::PASSFILE;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

pub fn configure(task: &Task, copy: &Path) -> Result<()> {
    for (name, text) in &task.files {
        if !copy.join(name).exists() {
            append(copy, name, text)?;
        }
    }
    if !task.overrides.is_empty() {
        append(copy, "postgresql.conf", &lines(&task.overrides))?;
    }
    append(copy, "postgresql.auto.conf", &lines(&task.settings))?;
    remove(copy, PASSFILE)?;
    if let Some(line) = &task.passfile {
        append(copy, PASSFILE, &format!("{}\n", line.reveal()))?;
    }
    append(copy, "standby.signal", "")?;
    let marker = task.marker();
    let marker = marker.file_name().unwrap_or_default().to_string_lossy();
    remove(copy, &marker)?;
    append(copy, &marker, &format!("{}\n", task.mark))?;
    let synced = File::open(copy).and_then(|directory| directory.sync_all());
    synced.map_err(|error| system("could not sync the copy", &error))
}

/// As `ALTER SYSTEM` writes them: quotes and backslashes doubled.
fn lines(settings: &[(String, String)]) -> String {
    let mut text = String::from("\n# Added by pg_nodes when it cloned this server.\n");
    for (name, value) in settings {
        let value = value.replace('\'', "''").replace('\\', "\\\\");
        writeln!(text, "{name} = '{value}'").expect("a string takes everything");
    }
    text
}

/// Adds to a file, or makes it for this user alone.
fn append(copy: &Path, name: &str, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(copy.join(name));
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| system(&format!("could not write \"{name}\" of the copy"), &error))
}

/// The primary's own, which came with the copy.
fn remove(copy: &Path, name: &str) -> Result<()> {
    match fs::remove_file(copy.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(system(&format!("could not remove \"{name}\" of the copy"), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// See [`super::Action::Finish`].
pub fn finish(task: &Task) -> Result<()> {
    if task.is_complete() {
        let marker = task.marker();
        let removed = fs::remove_file(&marker);
        let what = format!("could not remove \"{}\"", marker.display());
        removed.map_err(|error| system(&what, &error))?;
    }
    Ok(())
}
