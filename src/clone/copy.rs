//! Fills the directory beside, configures what is there, and gives it its name.

use super::configure;
use super::place::{check_vacant, make_private};
use super::swap;
use super::task::Task;
use crate::error::{Error, Result};
use crate::pg::child::{Program, handed_path, nameless_file, system};
use crate::pg::wait;
use nodes_plan::clone::copier;
use pgrx::PgSqlErrorCode as Code;
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The whole copy; `complete` where an earlier call had made it already.
pub fn copy(task: &Task) -> Result<&'static str> {
    let copying = Copying::begin(task)?;
    // Whoever had the lock before may just have finished.
    if task.is_complete() {
        move_tablespaces(task)?;
        return Ok("complete");
    }
    check_vacant(&task.directory)?;
    copying.clear()?;
    for place in task.tablespaces.values() {
        check_vacant(place)?;
    }
    base_backup(task, &copying.beside)?;
    if task.verify {
        verify(&copying.beside)?;
    }
    point_to_tablespaces(task, &copying.beside)?;
    configure::configure(task, &copying.beside)?;
    let renamed = fs::rename(&copying.beside, &task.directory);
    let what = format!("could not rename the copy to \"{}\"", task.directory.display());
    renamed.map_err(|error| system(&what, &error))?;
    sync_parent(&task.directory)?;
    move_tablespaces(task)?;
    Ok("copied")
}

/// See [`super::Action::Clear`]. A complete clone may be somebody's server by now; a complete copy
/// in place of which a server runs on its own data is nobody's.
pub fn clear(task: &Task) -> Result<&'static str> {
    let copying = Copying::begin(task)?;
    copying.clear()?;
    if task.port.is_none() {
        if task.is_complete() {
            let what = format!("could not remove \"{}\"", task.directory.display());
            remove(&task.directory).map_err(|error| system(&what, &error))?;
        }
        swap::finish(&task.mark)?;
    } else if task.is_complete() {
        return Ok("complete");
    } else if check_vacant(&task.directory).is_err() {
        return Ok("taken");
    }
    Ok("cleared")
}

/// The directories beside while they are filled. Locked, so that no other call is at it; what is
/// in them goes with whoever fills them.
struct Copying<'a> {
    task: &'a Task,
    beside: PathBuf,
    _lock: File,
}

impl<'a> Copying<'a> {
    /// Waits a while for another call: one that was ended goes when it has cleared up.
    fn begin(task: &'a Task) -> Result<Copying<'a>> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let beside = task.beside(&task.directory);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = lock(&beside)? {
                return Ok(Copying { task, beside, _lock: lock });
            }
            if Instant::now() >= until {
                return Err(Error::Refused {
                    code: Code::ERRCODE_OBJECT_IN_USE,
                    message: format!("\"{}\" is being filled by another call", beside.display()),
                    detail: None,
                    hint: "Wait for it, or end it with pg_cancel_backend().",
                });
            }
            wait::pause(Duration::from_millis(10));
        }
    }

    /// The one that is locked comes last: without it another call begins.
    fn places(&self) -> impl Iterator<Item = PathBuf> {
        let tablespaces = self.task.tablespaces.values();
        let tablespaces = tablespaces.map(|place| self.task.beside(place));
        tablespaces.chain([self.beside.clone()])
    }

    /// What a call left behind that was killed.
    fn clear(&self) -> Result<()> {
        for place in self.places() {
            let could_not =
                |error| system(&format!("could not empty \"{}\"", place.display()), &error);
            let entries = match fs::read_dir(&place) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(could_not)?,
            };
            for entry in entries.flatten() {
                remove(&entry.path()).map_err(could_not)?;
            }
        }
        Ok(())
    }
}

/// Locks a directory, made where there is none; `None` where another call has it.
fn lock(directory: &Path) -> Result<Option<File>> {
    let could_not = |error| system(&format!("could not open \"{}\"", directory.display()), &error);
    make_private(directory)?;
    let lock = match File::open(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(could_not)?,
    };
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    // Whoever had the lock before may have taken the directory away, or given it its name.
    let locked = lock.metadata().map_err(could_not)?;
    let same = |found: Metadata| (found.dev(), found.ino()) == (locked.dev(), locked.ino());
    Ok(directory.symlink_metadata().is_ok_and(same).then_some(lock))
}

impl Drop for Copying<'_> {
    /// After the rename there is nothing of this name any more.
    fn drop(&mut self) {
        for place in self.places() {
            // What cannot be removed now is removed by the next call.
            let _ = fs::remove_dir_all(place);
        }
    }
}

/// Whatever is there: links go themselves, not what they lead to.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

fn base_backup(task: &Task, beside: &Path) -> Result<()> {
    let passfile = task.passfile.as_ref();
    let passfile = passfile.map(|line| nameless_file(format!("{}\n", line.reveal()).as_bytes()));
    let passfile = passfile.transpose()?;
    let mut conninfo = task.conninfo.clone().with("application_name", copier(&task.mark));
    if let Some(file) = &passfile {
        conninfo.set("passfile", handed_path(file));
    }
    let mut arguments = vec![
        format!("--pgdata={}", beside.display()),
        format!("--dbname={}", conninfo.render()),
        "--format=plain".to_owned(),
        "--wal-method=stream".to_owned(),
        "--checkpoint=fast".to_owned(),
        "--no-password".to_owned(),
    ];
    if task.slot {
        arguments.push(format!("--slot={}", task.mark));
    }
    arguments.extend(task.max_rate.map(|rate| format!("--max-rate={rate}")));
    if !task.checksums {
        arguments.push("--no-verify-checksums".to_owned());
    }
    for (old, new) in &task.tablespaces {
        let escape = |path: &str| path.replace('=', "\\=");
        let new = task.beside(new);
        let (old, new) = (escape(old), escape(&new.to_string_lossy()));
        arguments.push(format!("--tablespace-mapping={old}={new}"));
    }
    run("pg_basebackup", &arguments, passfile.as_ref())
}

fn verify(beside: &Path) -> Result<()> {
    run("pg_verifybackup", &["--quiet".to_owned(), beside.display().to_string()], None)
}

/// Runs a program to its end; what it said is the detail where it failed.
fn run(program: &'static str, arguments: &[String], handed: Option<&File>) -> Result<()> {
    let outcome = Program::start(program, arguments, handed)?.finish()?;
    if outcome.status.success() {
        return Ok(());
    }
    let how = match outcome.status.code() {
        Some(code) => format!("it ended with code {code}"),
        None => outcome.status.to_string(),
    };
    let said = outcome.output;
    Err(Error::Refused {
        code: Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
        message: format!("{program} failed"),
        detail: Some(if said.is_empty() { how } else { said }),
        hint: "Correct the cause and make the same call again.",
    })
}

/// The links to tablespaces lead to where those will be.
fn point_to_tablespaces(task: &Task, beside: &Path) -> Result<()> {
    let links = beside.join("pg_tblspc");
    let could_not = |error| system("could not change the link of a tablespace", &error);
    for entry in fs::read_dir(&links).map_err(could_not)?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(place) = task.tablespaces.values().find(|place| task.beside(place) == target)
        else {
            continue;
        };
        fs::remove_file(entry.path()).map_err(could_not)?;
        std::os::unix::fs::symlink(place, entry.path()).map_err(could_not)?;
    }
    File::open(&links).and_then(|links| links.sync_all()).map_err(could_not)
}

/// A complete clone's tablespaces get their names after it: the links lead there already.
fn move_tablespaces(task: &Task) -> Result<()> {
    for place in task.tablespaces.values() {
        let beside = task.beside(place);
        if beside.symlink_metadata().is_err() {
            continue;
        }
        let what = format!("could not rename a tablespace to \"{}\"", place.display());
        fs::rename(&beside, place).map_err(|error| system(&what, &error))?;
        sync_parent(place)?;
    }
    Ok(())
}

/// Makes a rename last.
pub fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|error| system(&format!("could not sync \"{}\"", parent.display()), &error))
}
