//! The launcher: finds the databases that have the extension and keeps one worker in each. It
//! is connected to no database itself; whether one has the extension only a worker can see, so
//! every new database gets one, which leaves at once where there is nothing to do.

use crate::gate;
use crate::libpq::reactor;
use crate::pg::databases::{self, Database};
use crate::pg::wait::WaitEvent;
use crate::pg::{process, spi};
use crate::shmem::{self, Seen};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// New databases are looked for this often, unless somebody says that there is something new.
const INTERVAL: Duration = Duration::from_millis(500);
/// A standby hears of nothing: its databases are examined again this often.
const STANDBY_INTERVAL: Duration = Duration::from_secs(10);
/// Workers that are on their way at the same time; the places are everybody's.
const MAX_STARTING: usize = 2;
/// A worker that was asked for and is not there after this long will not come.
const START_LIMIT: Duration = Duration::from_secs(5);
/// A worker that ends sooner than this has failed.
const STABLE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LAST_DELAY: Duration = Duration::from_secs(60);

/// Runs until the server stops.
pub fn run() {
    shmem::announce_launcher();
    let mut launcher = Launcher::default();
    let shown = WaitEvent::named(c"PgNodesLauncherMain");
    reactor::block_on_as(shown, async {
        loop {
            process::reload_settings();
            launcher.turn();
            // Whoever sets the latch ends the wait, time does as well.
            let _ = reactor::timeout(INTERVAL, reactor::latch()).await;
        }
    })
}

/// What the launcher knows of one database.
#[derive(Default)]
struct Known {
    /// `None`: nobody has looked yet.
    has_extension: Option<bool>,
    asked: Option<Instant>,
    began: Option<Instant>,
    /// Workers in a row that failed.
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Default)]
struct Launcher {
    known: BTreeMap<u32, Known>,
    examined: Option<Instant>,
    told_full: bool,
}

impl Launcher {
    fn turn(&mut self) {
        let Ok(databases) = databases::all() else { return };
        self.forget_dropped(&databases);
        self.examine_standby();
        let now = Instant::now();
        let seen = shmem::databases();
        for database in &databases {
            let known = self.known.entry(database.oid).or_default();
            let seen = seen.iter().find(|seen| seen.oid == database.oid);
            known.learn(seen, now);
        }
        for database in &databases {
            let held = seen.iter().any(|seen| seen.oid == database.oid && seen.held);
            if !held {
                self.start(database, now);
            }
        }
    }

    /// At the beginning, too: a database may have been dropped, and the server stopped.
    fn forget_dropped(&mut self, databases: &[Database]) {
        let exists = |oid: u32| databases.iter().any(|database| database.oid == oid);
        if self.known.is_empty() || !self.known.keys().all(|oid| exists(*oid)) {
            self.known.retain(|oid, _| exists(*oid));
            gate::retain(exists);
        }
    }

    /// On a standby the extension comes and goes by replication.
    fn examine_standby(&mut self) {
        let due = self.examined.is_none_or(|at| at.elapsed() >= STANDBY_INTERVAL);
        if due && spi::in_recovery() {
            self.examined = Some(Instant::now());
            for known in self.known.values_mut().filter(|k| k.has_extension == Some(false)) {
                known.has_extension = None;
            }
        }
    }

    fn start(&mut self, database: &Database, now: Instant) {
        let starting = self.known.values().filter(|known| known.asked.is_some()).count();
        let Some(known) = self.known.get_mut(&database.oid) else { return };
        if starting >= MAX_STARTING || !known.wants_worker(now) {
            return;
        }
        if process::start_worker(database.oid, &database.name) {
            known.asked = Some(now);
            self.told_full = false;
        } else if !std::mem::replace(&mut self.told_full, true) {
            process::log(
                &format!("could not start a worker for database \"{}\"", database.name),
                Some("All background workers are in use."),
                Some("Raise max_worker_processes."),
            );
        }
    }
}

impl Known {
    /// Takes in what the database's entry in shared memory says.
    fn learn(&mut self, seen: Option<&Seen>, now: Instant) {
        if seen.is_some_and(|seen| seen.examine) {
            self.has_extension = None;
        }
        if seen.is_some_and(|seen| seen.absent) {
            self.has_extension = Some(false);
            (self.asked, self.began, self.failures) = (None, None, 0);
        }
        if seen.is_some_and(|seen| seen.sent_away) {
            (self.asked, self.began, self.failures, self.not_before) = (None, None, 0, None);
        }
        let running = seen.is_some_and(|seen| seen.worker);
        let overdue = self.asked.is_some_and(|at| now.duration_since(at) >= START_LIMIT);
        let failed = overdue || seen.is_some_and(|seen| seen.failed);
        match (running, self.began) {
            (true, None) => (self.asked, self.began) = (None, Some(now)),
            (true, Some(_)) => {}
            (false, Some(began)) => self.failed(now.duration_since(began), now),
            (false, None) if failed => self.failed(Duration::ZERO, now),
            (false, None) => {}
        }
    }

    /// The worker is gone and nobody sent it away: the next one gets some time to find out why.
    fn failed(&mut self, lived: Duration, now: Instant) {
        (self.asked, self.began) = (None, None);
        self.failures = if lived >= STABLE { 1 } else { self.failures + 1 };
        let delay = FIRST_DELAY * 2_u32.saturating_pow(self.failures - 1);
        self.not_before = Some(now + delay.min(LAST_DELAY));
    }

    fn wants_worker(&self, now: Instant) -> bool {
        self.has_extension != Some(false)
            && self.asked.is_none()
            && self.began.is_none()
            && self.not_before.is_none_or(|at| at <= now)
    }
}
