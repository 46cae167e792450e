//! A C library that lies to a server: its clock jumps, and of names that begin with `silent`
//! no name server ever says anything.
use crate::{Builder, user};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lies.c");

/// What servers that [`Builder::lies`] are told.
pub struct Lies {
    library: PathBuf,
    clock: PathBuf,
    offset: File,
}

impl Lies {
    /// Compiles them into a directory from which programs may be loaded, as
    /// `CARGO_TARGET_TMPDIR` is. For now everything is true.
    pub fn new(directory: &Path, name: &str) -> Lies {
        let path = |what: &str| directory.join(format!("{name}-{}.{what}", std::process::id()));
        let (library, clock) = (path("so"), path("clock"));
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let compiled = compile.arg(&library).args([SOURCE, "-ldl"]).output().expect("cc runs");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let offset = File::create(&clock).expect("a file in that directory");
        let lies = Lies { library, clock, offset };
        lies.set_clock_wrong_by(0);
        for path in [&lies.library, &lies.clock] {
            user::give(path);
        }
        lies
    }

    /// From now on their clocks are wrong by so many seconds.
    pub fn set_clock_wrong_by(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file of ours");
    }
}

impl Drop for Lies {
    fn drop(&mut self) {
        for path in [&self.library, &self.clock] {
            // What is left is only a small file among those of a build.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Builder {
    /// A server that is lied to; the lies must outlive it.
    pub fn lies(self, lies: &Lies) -> Builder {
        self.env("LD_PRELOAD", &lies.library.to_string_lossy())
            .env("PG_NODES_CLOCK", &lies.clock.to_string_lossy())
    }
}
