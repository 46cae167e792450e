//! The SQL surface, statement by statement: every file of `regress/sql` goes through
//! `pg_regress` in a database of its own, and must print what `regress/expected` has.
//!
//! `PG_NODES_BLESS=1` makes what was printed the expectation; look at the diff before you commit.
use pg_test::{Install, Server, temp_dir, user};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn sql_prints_what_is_expected() {
    let server = Server::builder("regress").start();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("regress");
    let work = work_dir(&source);
    let failed: Vec<String> = test_names(&source.join("sql"))
        .into_iter()
        .filter(|test| !run(&server, work.path(), test))
        .collect();
    if std::env::var_os("PG_NODES_BLESS").is_some() {
        bless(work.path(), &source, &failed);
    } else {
        assert!(failed.is_empty(), "differences in {}", failed.join(", "));
    }
}

/// The names of the tests, in a fixed order.
fn test_names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = files(directory)
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect()
}

/// A copy of the input that the servers' user can read, with room for its output. A test without
/// an expectation gets an empty one, so that all it prints is a difference.
fn work_dir(source: &Path) -> tempfile::TempDir {
    let work = temp_dir("regress");
    for part in ["sql", "expected"] {
        let target = work.path().join(part);
        fs::create_dir(&target).expect("cannot make a directory");
        user::give(&target);
        for file in files(&source.join(part)) {
            let copy = target.join(file.file_name().expect("a file name"));
            fs::copy(&file, &copy).expect("cannot copy a test");
            user::give(&copy);
        }
    }
    for test in test_names(&source.join("sql")) {
        let expected = work.path().join("expected").join(format!("{test}.out"));
        if !expected.exists() {
            fs::write(&expected, "").expect("cannot write an empty expectation");
            user::give(&expected);
        }
    }
    work
}

/// Runs one test; prints the differences if there are any.
fn run(server: &Server, work: &Path, test: &str) -> bool {
    let output = user::command(Install::get().pg_regress())
        .arg(format!("--bindir={}", Install::get().bindir().display()))
        .arg(format!("--inputdir={}", work.display()))
        .arg(format!("--outputdir={}", work.display()))
        .arg(format!("--host={}", server.socket_dir().display()))
        .arg(format!("--port={}", server.port()))
        .arg(format!("--dbname=regress_{test}"))
        .args(["--user=postgres", test])
        .current_dir(work)
        .output()
        .expect("cannot run pg_regress");
    if !output.status.success() {
        let diffs = fs::read_to_string(work.join("regression.diffs"));
        println!(
            "{}{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            diffs.unwrap_or_default()
        );
    }
    output.status.success()
}

fn bless(work: &Path, source: &Path, tests: &[String]) {
    for test in tests {
        let printed = work.join("results").join(format!("{test}.out"));
        let expected = source.join("expected").join(format!("{test}.out"));
        fs::copy(printed, expected).expect("cannot copy a result");
        println!("blessed {test}");
    }
}
