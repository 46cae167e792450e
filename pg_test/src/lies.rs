//! A C library that lies to a server: its clock jumps, and its name server says what it is told.
use crate::{Builder, user};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lies.c");

/// What servers that [`Builder::lies`] are told.
pub struct Lies {
    library: PathBuf,
    clock: PathBuf,
    offset: File,
    /// A file for each name that is lied about.
    names: PathBuf,
}

/// What a name server says of a name.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    Addresses(&'a [&'a str]),
    /// The same, so much later.
    Slowly(Duration, &'a [&'a str]),
    /// `EAI_AGAIN`: a temporary failure.
    TryAgain,
    /// Nothing, until it has another answer.
    Silence,
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
        let names = path("names");
        fs::create_dir(&names).expect("a directory in that directory");
        let lies = Lies { library, clock, offset, names };
        lies.set_clock_wrong_by(0);
        for path in [&lies.library, &lies.clock, &lies.names] {
            user::give(path);
        }
        lies
    }

    /// From now on their clocks are wrong by so many seconds.
    pub fn set_clock_wrong_by(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file of ours");
    }

    /// From now on their name server says this of a name, also to those who wait in
    /// [`Answer::Silence`].
    pub fn set_name(&self, name: &str, answer: Answer) {
        let text = match answer {
            Answer::Addresses(list) => format!("0 {}", list.join(" ")),
            Answer::Slowly(delay, list) => format!("{} {}", delay.as_millis(), list.join(" ")),
            Answer::TryAgain => "0 again".to_owned(),
            Answer::Silence => "10 silent".to_owned(),
        };
        // Whoever reads sees the old answer or the new one, never a part. No host's name ends so.
        let new = self.names.join(format!("{name}.new"));
        fs::write(&new, text).expect("a file in a directory of ours");
        user::give(&new);
        fs::rename(&new, self.names.join(name)).expect("a file of ours");
    }
}

impl Drop for Lies {
    fn drop(&mut self) {
        for path in [&self.library, &self.clock] {
            // What is left is only a small file among those of a build.
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir_all(&self.names);
    }
}

impl Builder {
    /// A server that is lied to; the lies must outlive it.
    pub fn lies(self, lies: &Lies) -> Builder {
        self.env("LD_PRELOAD", &lies.library.to_string_lossy())
            .env("PG_NODES_CLOCK", &lies.clock.to_string_lossy())
            .env("PG_NODES_NAMES", &lies.names.to_string_lossy())
    }
}
