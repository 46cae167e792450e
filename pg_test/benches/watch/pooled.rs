//! Peers that are sessions of one real server behind pgbouncer, each under a database name of its
//! own.

use super::fleet::{Peers, Seen};
use pg_test::{Pooler, Pooling, Server};
use postgres::Client;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often the sessions are looked at: so often that no heartbeat is missed.
const PERIOD: Duration = Duration::from_millis(200);

pub struct Pooled {
    pooler: Pooler,
    client: Client,
    gaps: Arc<Mutex<Vec<Duration>>>,
    ending: Arc<AtomicBool>,
    before: (u64, u64),
    _london: Server,
}

impl Pooled {
    pub fn start() -> Pooled {
        let london = Server::builder("london").conf("max_connections", "1200").start();
        london.create_db("app");
        // A session for each name: the worker looks in vain, for a second, for another one.
        let pooler = Pooler::start(&london, Pooling::Session, 1);
        let gaps: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let ending: Arc<AtomicBool> = Arc::default();
        let (client, ended, noted) = (london.client("postgres"), ending.clone(), gaps.clone());
        std::thread::spawn(move || note_gaps(client, &noted, &ended));
        let client = london.client("postgres");
        Pooled { pooler, client, gaps, ending, before: (0, 0), _london: london }
    }

    /// How many sessions of the peers have begun so far.
    fn sessions(&mut self) -> u64 {
        const SESSIONS: &str = "SELECT sessions FROM pg_stat_database WHERE datname = 'app'";
        let sessions: i64 = self.client.query_one(SESSIONS, &[]).expect("a database").get(0);
        sessions.try_into().expect("a number of sessions")
    }
}

impl Peers for Pooled {
    fn conninfo(&self) -> String {
        self.pooler.conninfo("n%")
    }

    fn take_seen(&mut self) -> Seen {
        let now = (self.pooler.questions(), self.sessions());
        let before = std::mem::replace(&mut self.before, now);
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let (questions, sessions) = (now.0 - before.0, now.1 - before.1);
        Seen { gaps: std::mem::take(&mut gaps), questions, sessions }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// Looks again and again when each session was last asked something. The question for everything
/// follows a heartbeat at once and stands for it.
fn note_gaps(mut client: Client, gaps: &Mutex<Vec<Duration>>, ending: &AtomicBool) {
    const ASKED: &str = "SELECT pid, query_start FROM pg_stat_activity
        WHERE datname = 'app' AND backend_type = 'client backend' AND query_start IS NOT NULL";
    let asked = client.prepare(ASKED).expect("the view");
    let mut last: HashMap<i32, SystemTime> = HashMap::new();
    while !ending.load(Ordering::Relaxed) {
        // The server ends before we do.
        let Ok(rows) = client.query(&asked, &[]) else { return };
        let mut gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
        for row in &rows {
            let at: SystemTime = row.get(1);
            let before = last.insert(row.get(0), at);
            let gap = before.and_then(|before| at.duration_since(before).ok());
            gaps.extend(gap.filter(|gap| !gap.is_zero()));
        }
        drop(gaps);
        std::thread::sleep(PERIOD);
    }
}
