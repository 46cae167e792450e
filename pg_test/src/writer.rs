//! A client that writes all the time, as an application does that must not lose anything: while a
//! primary changes it connects again to whoever takes writes.
use crate::Server;
use postgres::NoTls;
use postgres::config::TargetSessionAttrs;
use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes one number after another, wherever it may, and keeps those that were acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// What was acknowledged.
pub struct Written {
    pub numbers: Vec<i32>,
    /// From one acknowledgement to the next.
    pub longest_pause: Duration,
}

impl Written {
    /// Fails unless a table has all of it in its column `id`.
    #[track_caller]
    pub fn assert_kept(&self, server: &Server, table: &str) {
        let kept = server.query_texts("app", &format!("SELECT id FROM {table}"));
        let kept: BTreeSet<String> = kept.into_iter().collect();
        let lost = self.numbers.iter().filter(|number| !kept.contains(&number.to_string())).count();
        assert_eq!(lost, 0, "of {} that were acknowledged", self.numbers.len());
    }
}

impl Writer {
    /// Into the first column of a table in database `app` of whichever server is the primary.
    pub fn start(servers: &[&Server], table: &str) -> Writer {
        let insert = format!("INSERT INTO {table} VALUES ($1)");
        let mut config = postgres::Config::new();
        config.user("postgres").dbname("app").connect_timeout(Duration::from_secs(2));
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        for server in servers {
            config.host("127.0.0.1").port(server.port());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut written = Written { numbers: Vec::new(), longest_pause: Duration::ZERO };
            let (mut last, mut next): (Option<Instant>, i32) = (None, 1);
            while !stopped.load(Ordering::Relaxed) {
                let Ok(mut client) = config.connect(NoTls) else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                while !stopped.load(Ordering::Relaxed) {
                    match client.execute(&insert, &[&next]) {
                        Ok(_) => {
                            let pause = last.replace(Instant::now()).map(|last| last.elapsed());
                            written.longest_pause =
                                written.longest_pause.max(pause.unwrap_or_default());
                            written.numbers.push(next);
                        }
                        Err(error) => {
                            assert_is_reconnect(&error);
                            next += 1;
                            break;
                        }
                    }
                    next += 1;
                }
            }
            written
        });
        Writer { stop, thread }
    }

    /// Stops, and returns what was acknowledged.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it saw no other error")
    }
}

/// A client may be told that the server goes or is read-only, and nothing else.
fn assert_is_reconnect(error: &postgres::Error) {
    let allowed = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    let known = error.code().is_some_and(|code| allowed.contains(code));
    assert!(known || error.code().is_none(), "{error:?}");
}
