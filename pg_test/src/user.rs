//! Who the servers run as. Postgres refuses to run as root, so root's servers run as `nobody`.
//!
//! The clone may lie where `nobody` cannot look, as under a 0700 home directory. Then the
//! programs get the right to read there, and no more, as an ambient capability: it reaches
//! whatever they start, down to the shell of a `COPY … TO PROGRAM`. Postgres looks for its own
//! programs with access(2), which forgets capabilities unless `no_setuid_fixup` is set.
use crate::Install;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// What becomes of a program when the process that started it dies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// A server is told to shut down at once.
    WithUs,
    /// A manager is told to stop what it runs, and itself.
    Manages,
    /// It lives on, in a session of its own.
    Detached,
}

#[derive(Debug)]
struct Account {
    uid: u32,
    gid: u32,
    capability: Option<&'static str>,
}

/// A command that runs `program` as the servers' user, without the caller's Postgres settings.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut words = Words::new();
    words.become_server_user();
    words.into_command(program.as_ref())
}

/// Like [`command`], for a program that stays.
pub(crate) fn daemon(program: impl AsRef<OsStr>, life: Life) -> Command {
    let mut words = Words::new();
    match life {
        Life::WithUs => words.push(&["setpriv", "--pdeathsig", "QUIT"]),
        Life::Manages => words.push(&["setpriv", "--pdeathsig", "TERM"]),
        Life::Detached => words.push(&["setsid"]),
    }
    words.become_server_user();
    words.into_command(program.as_ref())
}

/// Makes the servers' user the owner of a file or directory.
pub fn give(path: &Path) {
    if let Some(account) = account() {
        chown(path, Some(account.uid), Some(account.gid))
            .unwrap_or_else(|error| panic!("cannot chown {}: {error}", path.display()));
    }
}

/// The words before the program: `setpriv` and its options.
struct Words(Vec<String>);

impl Words {
    fn new() -> Words {
        Words(Vec::new())
    }

    fn push(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|&word| word.to_owned()));
    }

    fn become_server_user(&mut self) {
        if let Some(account) = account() {
            if !self.0.iter().any(|word| word == "setpriv") {
                self.push(&["setpriv"]);
            }
            self.0.extend(account.options());
        }
    }

    fn into_command(self, program: &OsStr) -> Command {
        let mut words = self.0.iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        forget_postgres_settings(&mut command);
        command
    }
}

/// `PGPORT` and its like, set by the person who runs the tests, must not reach any program.
pub(crate) fn forget_postgres_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("RUST_BACKTRACE", "0");
}

impl Account {
    fn options(&self) -> Vec<String> {
        let mut options = vec![
            format!("--reuid={}", self.uid),
            format!("--regid={}", self.gid),
            "--clear-groups".to_owned(),
        ];
        if let Some(capability) = self.capability {
            options.push(format!("--inh-caps=+{capability}"));
            options.push(format!("--ambient-caps=+{capability}"));
            options.push("--securebits=+no_setuid_fixup".to_owned());
        }
        options
    }

    fn can_read(&self, path: &Path) -> bool {
        Command::new("setpriv")
            .args(self.options())
            .args(["test", "-r"])
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

/// The account for the servers; `None` when we are nobody special ourselves.
fn account() -> Option<&'static Account> {
    static ACCOUNT: OnceLock<Option<Account>> = OnceLock::new();
    ACCOUNT
        .get_or_init(|| {
            let me = fs::metadata("/proc/self").expect("/proc is mounted").uid();
            (me == 0).then(choose_account)
        })
        .as_ref()
}

/// `nobody` with the least right that lets it read the programs. Containers often withhold
/// `dac_read_search` but leave `dac_override`.
fn choose_account() -> Account {
    let (uid, gid) = ids_of_nobody();
    let postgres = Install::get().program("postgres");
    [None, Some("dac_read_search"), Some("dac_override")]
        .into_iter()
        .map(|capability| Account { uid, gid, capability })
        .find(|account| account.can_read(&postgres))
        .unwrap_or_else(|| {
            panic!(
                "the user nobody cannot read {}: put the clone where other users can enter, \
                 or run this as a user other than root",
                postgres.display()
            )
        })
}

fn ids_of_nobody() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").expect("cannot read /etc/passwd");
    passwd
        .lines()
        .filter_map(|line| line.strip_prefix("nobody:"))
        .find_map(|rest| {
            let mut fields = rest.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .expect("no user nobody in /etc/passwd")
}
