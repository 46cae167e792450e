//! Where the files of a server lie: short paths, a quick disk, and what stays after a failure.
use crate::{process, user};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

const PREFIX: &str = "pg_nodes-";

/// The file that names the process a temporary directory belongs to.
const OWNER: &str = "owner";

/// The directory of one server. Holds its data directory, its log and its Unix socket.
pub(crate) struct Home {
    path: PathBuf,
    /// Removes the directory in the end; a fixed home has none.
    temporary: Option<TempDir>,
}

impl Home {
    /// A short path: that of a Unix socket may have 107 bytes.
    pub(crate) fn temporary(name: &str) -> Home {
        let label: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        let directory = temp_dir(&label);
        Home { path: directory.path().to_owned(), temporary: Some(directory) }
    }

    pub(crate) fn fixed(path: &Path) -> Home {
        fs::create_dir_all(path)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        user::give(path);
        Home { path: path.to_owned(), temporary: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Writes a file of the data directory, as only the server may read it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        user::give(&path);
    }

    /// Saves the files from removal and returns where they are, on a real disk.
    pub(crate) fn keep(&mut self) -> PathBuf {
        let Some(directory) = self.temporary.take() else {
            return self.path.clone();
        };
        let path = directory.keep();
        fs::remove_file(path.join(OWNER)).expect("every home has an owner");
        let kept = std::env::temp_dir().join(path.file_name().expect("a directory has a name"));
        let moved = kept != path
            && Command::new("mv")
                .args([&path, &kept])
                .status()
                .is_ok_and(|status| status.success());
        if moved { kept } else { path }
    }
}

/// A directory for the servers' user that vanishes with the value.
pub fn temp_dir(label: &str) -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{label}-"))
        .tempdir_in(scratch())
        .expect("cannot make a temporary directory");
    fs::write(directory.path().join(OWNER), std::process::id().to_string())
        .expect("cannot write into a new directory");
    user::give(directory.path());
    directory
}

/// Removes the directories that test processes left when they were killed.
fn sweep(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let owner = fs::read_to_string(entry.path().join(OWNER)).ok();
        let abandoned = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && owner.and_then(|pid| pid.parse().ok()).is_some_and(process::is_gone);
        if abandoned {
            // Another test process may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Lets only the owner look into a directory, as Postgres wants it.
pub(crate) fn make_private(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
        .unwrap_or_else(|error| panic!("cannot chmod {}: {error}", directory.display()));
}

/// A cluster has a thousand files: memory makes them ten times faster than many a disk. Small
/// shared memory, as containers have it, is left alone.
fn scratch() -> &'static Path {
    const ENOUGH_MIB: u64 = 4096;
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let scratch = match std::env::var_os("TMPDIR") {
            None if free_mib(memory) >= ENOUGH_MIB => memory.to_owned(),
            _ => std::env::temp_dir(),
        };
        sweep(&scratch);
        scratch
    })
}

fn free_mib(directory: &Path) -> u64 {
    let output = Command::new("df").args(["-BM", "--output=avail"]).arg(directory).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().nth(1)?.trim().trim_end_matches('M').parse().ok())
        .unwrap_or(0)
}
