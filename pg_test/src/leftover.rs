//! Servers that an earlier process left running on purpose: see [`crate::Builder::at`].
use crate::process;
use crate::wait::{LONG, wait_until};
use std::fs;
use std::path::Path;

/// Stops the server whose files lie in `directory`, if it runs, and removes the files.
///
/// A process id in a file may belong to somebody else by now. A postmaster stays in its data
/// directory: that is how we know ours.
pub fn remove_leftover(directory: &Path) {
    let data = directory.join("data");
    if let Some(pid) = postmaster_of(&data) {
        process::signal(pid, libc::SIGINT);
        wait_until(&format!("{} has stopped", directory.display()), LONG, || process::is_gone(pid));
    }
    if directory.exists() {
        fs::remove_dir_all(directory)
            .unwrap_or_else(|error| panic!("cannot remove {}: {error}", directory.display()));
    }
}

fn postmaster_of(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.parse().ok()?;
    let lives_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (lives_in == data.canonicalize().ok()?).then_some(pid)
}
