//! Which Postgres is under test, and where its programs and files lie.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A Postgres installation with the extension in it, as its `pg_config` describes it.
#[derive(Debug)]
pub struct Install {
    pg_config: PathBuf,
    bindir: PathBuf,
    major: u32,
}

impl Install {
    /// The installation that `PG_NODES_PG_CONFIG` names.
    ///
    /// # Panics
    /// When the variable is not set: the tests must never guess, or they would run against a
    /// server without the extension, or with an old one.
    pub fn get() -> &'static Install {
        static INSTALL: OnceLock<Install> = OnceLock::new();
        INSTALL.get_or_init(|| {
            let path = std::env::var_os("PG_NODES_PG_CONFIG").unwrap_or_else(|| {
                panic!(
                    "PG_NODES_PG_CONFIG is not set: run these tests with `make test` \
                     (one version: `make test PG=15`, one file: `make test TEST=harness`)"
                )
            });
            Install::of(PathBuf::from(path))
        })
    }

    fn of(pg_config: PathBuf) -> Install {
        let bindir = PathBuf::from(ask(&pg_config, "--bindir"));
        let version = ask(&pg_config, "--version");
        let major = version
            .trim_start_matches("PostgreSQL ")
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("no major version in {version:?}"));
        Install { pg_config, bindir, major }
    }

    /// As the variable names it.
    pub fn pg_config(&self) -> &Path {
        &self.pg_config
    }

    /// 15, 16, 17 or 18.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The directory of `postgres`, `psql` and the others.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// The path of one of Postgres' own programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// `pg_regress`, which lies outside `bindir`.
    pub fn pg_regress(&self) -> PathBuf {
        let makefiles = PathBuf::from(ask(&self.pg_config, "--pgxs"));
        let src = makefiles.ancestors().nth(2).expect("…/src above pgxs.mk");
        src.join("test/regress/pg_regress")
    }

    /// A directory next to the programs where the harness may keep a prepared cluster.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        PathBuf::from(ask(&self.pg_config, "--sharedir"))
    }

    /// Whether it has a module, say `pg_stat_statements`.
    pub fn has_module(&self, name: &str) -> bool {
        PathBuf::from(ask(&self.pg_config, "--pkglibdir")).join(format!("{name}.so")).exists()
    }

    /// Whether the server was built with OpenSSL.
    pub fn supports_tls(&self) -> bool {
        ask(&self.pg_config, "--configure").contains("openssl")
    }
}

fn ask(pg_config: &Path, question: &str) -> String {
    let output = Command::new(pg_config)
        .arg(question)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", pg_config.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
