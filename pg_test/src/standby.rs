//! Clones of a running server.
use crate::home::make_private;
use crate::{Builder, Install, LONG, Server, user, wait_until};
use std::path::Path;
use std::process::Command;

impl Server {
    /// A clone made by `pg_basebackup` and started as a standby that follows nobody yet: it has
    /// a `standby.signal` and no `primary_conninfo`.
    #[track_caller]
    pub fn clone_standby(&self, name: &str) -> Server {
        self.clone_standby_with(Server::builder(name))
    }

    /// Like [`Server::clone_standby`], with settings of its own.
    #[track_caller]
    pub fn clone_standby_with(&self, builder: Builder) -> Server {
        builder.start_on(|data| {
            let mut command = user::command(Install::get().program("pg_basebackup"));
            command
                .arg("-d")
                .arg(format!("host='{}' port={} user=postgres", self.own_host(), self.port()))
                .args(["--checkpoint=fast", "--no-sync", "-D"])
                .arg(data);
            run(command);
            std::fs::write(data.join("standby.signal"), "").expect("cannot mark a standby");
            user::give(&data.join("standby.signal"));
        })
    }

    /// Until these standbys have all that was done here. Apply workers of subscriptions commit
    /// without waiting for their WAL to be written; a commit that does wait takes theirs along.
    #[track_caller]
    pub fn await_replay(&self, db: &str, standbys: &[&Server]) {
        self.sql(db, "SELECT pg_logical_emit_message(true, 'await_replay', '')");
        let position = self.query_one_text(db, "SELECT pg_current_wal_lsn()");
        let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{position}')::text");
        for standby in standbys {
            wait_until(&format!("{} has replayed", standby.name()), LONG, || {
                standby.query_one_text(db, &replayed) == "true"
            });
        }
    }

    /// A server on the data directory that a shell command fills, say the `pg_basebackup` that a
    /// hint gives word for word. Only its port and socket are changed before it starts.
    #[track_caller]
    pub fn from_command(builder: Builder, command: impl FnOnce(&Path) -> String) -> Server {
        builder.start_on(|data| {
            std::fs::create_dir(data).expect("cannot make a data directory");
            make_private(data);
            user::give(data);
            let path = std::env::var("PATH").unwrap_or_default();
            let mut shell = user::command("sh");
            shell
                .arg("-c")
                .arg(command(data))
                .current_dir(data.parent().expect("a home"))
                .env("PATH", format!("{}:{path}", Install::get().bindir().display()));
            run(shell);
        })
    }
}

#[track_caller]
fn run(mut command: Command) {
    let output = command.output().expect("cannot start a program");
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
