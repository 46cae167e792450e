//! The cluster that every server starts as: one `initdb` per installation, then copies.
use crate::{Install, temp_dir, user};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Fills `data` with a fresh cluster of its own identity. Superuser `postgres`, `trust`.
pub(crate) fn copy_to(data: &Path) {
    copy(template(), data);
    crate::control::new_identity(data);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cannot run cp");
    assert!(status.success(), "cp -a {} failed", from.display());
}

/// The template, made by whoever needs it first. Test binaries race for it: each would make its
/// own aside, and one rename wins.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let template = Install::get().cache_dir().join("pg_nodes_test_template");
        if !template.exists() {
            let home = temp_dir("template");
            let data = home.path().join("data");
            initdb(&data);
            let aside = template.with_extension(std::process::id().to_string());
            copy(&data, &aside);
            if fs::rename(&aside, &template).is_err() {
                fs::remove_dir_all(&aside).expect("cannot remove a spare template");
            }
        }
        template
    })
}

fn initdb(data: &Path) {
    let output = user::command(Install::get().program("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
        .args(["--locale=C", "--no-sync", "-D"])
        .arg(data)
        .output()
        .expect("cannot run initdb");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}
