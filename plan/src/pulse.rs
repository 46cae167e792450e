//! What a heartbeat brings: the part of a server's state that changes by itself, in one round
//! trip. What is planned by is in [`crate::observed`].

use crate::clone::{progress, time_left};
use crate::lsn::Lsn;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One answer of one server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pulse {
    /// `server_version_num`.
    pub version: i32,
    pub system_identifier: String,
    /// The timeline that it writes, or replays.
    pub timeline: i64,
    pub in_recovery: bool,
    /// When the server was started, in seconds since 1970 by its own clock.
    pub started: f64,
    /// A random number of this start of the server, where pg_nodes is preloaded there.
    pub boot_id: Option<String>,
    /// The database of the session.
    pub database: String,
    /// Bytes that are free on the disk of its WAL, where pg_nodes is preloaded there.
    pub wal_free: Option<i64>,
    /// How far its WAL is: written on a primary, replayed on a standby.
    pub lsn: Option<Lsn>,
    /// On a standby: how far it has received WAL by streaming.
    pub received: Option<Lsn>,
    /// On a standby: age of the last commit that it has replayed, in seconds.
    pub replay_age: Option<f64>,
    pub replay_paused: bool,
    pub slots: Vec<SlotPulse>,
    pub senders: Vec<Sender>,
    /// Asked for only while a sender is in state `backup`.
    pub backups: Vec<Backup>,
    /// On a primary: for whom commits wait; `None`: for nobody.
    pub synchronous: Option<Synchronous>,
    pub receiver: Option<Receiver>,
    pub subscriptions: Vec<SubscriptionPulse>,
}

/// A row of `pg_replication_slots`, as far as all versions and roles see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotPulse {
    #[serde(rename = "slot_name")]
    pub name: String,
    /// `physical` or `logical`.
    #[serde(rename = "slot_type")]
    pub kind: String,
    pub plugin: Option<String>,
    pub temporary: bool,
    pub active: bool,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    pub restart_lsn: Option<Lsn>,
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes until the slot is in danger of being lost; `None` without
    /// `max_slot_wal_keep_size`.
    pub safe_wal_size: Option<i64>,
    /// 17 and later: to be copied to standbys.
    pub failover: bool,
    /// On a standby, 17 and later: a copy of a slot of the primary.
    pub synced: bool,
}

/// A row of `pg_stat_replication`: a process that streams to somebody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sender {
    pub pid: i32,
    /// `startup`, `catchup`, `streaming`, `backup` or `stopping`; `None`: not readable.
    pub state: Option<String>,
    pub sent_lsn: Option<Lsn>,
    pub flush_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    /// Seconds from the writing of WAL here to the word that it was replayed there.
    pub replay_lag: Option<f64>,
    pub sync_state: Option<String>,
}

/// A row of `pg_stat_progress_basebackup`, as far as the role may see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backup {
    /// Its `application_name`.
    pub name: String,
    pub phase: String,
    pub streamed: Option<i64>,
    /// An estimate, as soon as there is one.
    pub total: Option<i64>,
    /// Seconds since it has connected.
    pub elapsed: f64,
}

impl Backup {
    /// `streaming database files, 12 % (1.2 GB of 10 GB), 3 min left`
    pub fn describe(&self) -> String {
        match self.streamed() {
            0 => self.phase.clone(),
            done => {
                let progress = progress(done, self.total(), self.elapsed());
                format!("{}, {progress}", self.phase)
            }
        }
    }

    pub fn time_left(&self) -> Option<Duration> {
        time_left(self.streamed(), self.total()?, self.elapsed())
    }

    fn streamed(&self) -> u64 {
        self.streamed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
    }

    fn total(&self) -> Option<u64> {
        self.total.and_then(|bytes| u64::try_from(bytes).ok())
    }

    fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.elapsed).unwrap_or_default()
    }
}

/// For which standbys commits wait, and who waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synchronous {
    /// `synchronous_standby_names`.
    pub names: String,
    /// How many wait now, as far as the role may see, and for how many seconds at most.
    pub waiting: i64,
    pub longest: Option<f64>,
}

/// The row of `pg_stat_wal_receiver`: how a standby receives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receiver {
    pub status: Option<String>,
    pub slot_name: Option<String>,
    pub sender_host: Option<String>,
    pub sender_port: Option<i32>,
}

/// A subscription of the session's database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionPulse {
    pub name: String,
    pub enabled: bool,
    /// Whether its apply worker runs now.
    pub running: bool,
    /// Processes that copy tables now.
    pub copying: i64,
    pub tables: i64,
    /// Tables whose initial copy is done.
    pub ready: i64,
    /// Rows and bytes of the copies that run now.
    pub copied_rows: i64,
    pub copied_bytes: i64,
    /// Errors since the statistics were reset.
    pub apply_errors: i64,
    pub sync_errors: i64,
    /// How far the publisher said that its WAL is, and what of it has arrived.
    pub received_lsn: Option<Lsn>,
    pub latest_end_lsn: Option<Lsn>,
    /// Age of the last message of the publisher, in seconds.
    pub silent_for: Option<f64>,
}

impl Pulse {
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }

    pub fn slot(&self, name: &str) -> Option<&SlotPulse> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Who streams to the reader of a slot.
    pub fn sender_of(&self, slot: &SlotPulse) -> Option<&Sender> {
        self.senders.iter().find(|sender| Some(sender.pid) == slot.active_pid)
    }

    /// Whether somebody takes a base backup.
    pub fn is_copied(&self) -> bool {
        self.senders.iter().any(|sender| sender.state.as_deref() == Some("backup"))
    }

    /// The base backup that somebody takes under a name.
    pub fn backup(&self, name: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.name == name)
    }

    pub fn subscription(&self, name: &str) -> Option<&SubscriptionPulse> {
        self.subscriptions.iter().find(|subscription| subscription.name == name)
    }

    /// How far this server's WAL is: what a slot retains ends here.
    pub fn wal_end(&self) -> Option<Lsn> {
        if self.in_recovery { self.received.max(self.lsn) } else { self.lsn }
    }

    /// Whether both are of one server and database.
    pub fn is_same_server(&self, other: &Pulse) -> bool {
        let key = |pulse: &Pulse| (pulse.started.to_bits(), pulse.boot_id.clone());
        self.system_identifier == other.system_identifier
            && self.database == other.database
            && key(self) == key(other)
    }

    /// What must be the same for an inventory of the server to be still true: everything that
    /// does not move by itself.
    pub fn has_shape_of(&self, other: &Pulse) -> bool {
        fn server(pulse: &Pulse) -> impl PartialEq {
            let start = (pulse.started.to_bits(), pulse.version);
            let place = (&pulse.system_identifier, pulse.timeline, pulse.in_recovery);
            let names = pulse.synchronous.as_ref().map(|synchronous| &synchronous.names);
            // Only who streams can be waited for.
            let streams = |sender: &&Sender| sender.state.as_deref() == Some("streaming");
            let streaming = pulse.senders.iter().filter(streams).count();
            (start, place, &pulse.database, (pulse.senders.len(), streaming, names))
        }
        fn slots(pulse: &Pulse) -> impl Iterator<Item: PartialEq> {
            pulse.slots.iter().map(|slot| (&slot.name, &slot.wal_status))
        }
        fn subscriptions(pulse: &Pulse) -> impl Iterator<Item: PartialEq> {
            let found = pulse.subscriptions.iter();
            found.map(|found| (&found.name, found.enabled, found.tables, found.ready))
        }
        server(self) == server(other)
            && slots(self).eq(slots(other))
            && subscriptions(self).eq(subscriptions(other))
    }

    /// What comes and goes with the connections that links have: whether each slot is read, the
    /// server receives WAL, each subscription runs.
    pub fn connections(&self) -> impl Iterator<Item = bool> {
        let slots = self.slots.iter().map(|slot| slot.active);
        let subscriptions = self.subscriptions.iter().map(|subscription| subscription.running);
        slots.chain([self.receiver.is_some()]).chain(subscriptions)
    }

    /// WAL that is kept for a slot, in bytes.
    pub fn retained(&self, slot: &SlotPulse) -> Option<u64> {
        Some(self.wal_end()?.since(slot.restart_lsn?))
    }
}
