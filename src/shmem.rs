//! What launcher, workers and backends tell each other in shared memory: which databases have
//! a worker, and what each worker last saw of its nodes and links, as texts. Nothing here
//! raises an error, allocates or waits while it holds the lock.

use crate::pg::latch::SharedLatch;
use crate::pg::shmem::{self, CHUNK_BYTES, Chunk, Control, Database, Record, Segment};
use crate::record::epoch_now;
use nodes_plan::desired::{LinkId, NodeId};
use std::collections::BTreeSet;

pub use crate::pg::shmem::{MAX_DATABASES, is_there};

/// What a text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Node(NodeId),
    Link(LinkId),
}

impl Key {
    fn parts(self) -> (u32, i32) {
        match self {
            Key::Node(id) => (1, id),
            Key::Link(id) => (2, id),
        }
    }

    fn of(record: &Record) -> Key {
        if record.kind == 1 { Key::Node(record.id) } else { Key::Link(record.id) }
    }
}

/// Why a text could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All places for nodes, or for links, are taken.
    Places,
    /// There is a place but no room for the text.
    Bytes,
}

/// Publishes a text of a database's worker in place of the last one, and notes where it is for
/// the next time. A server without shared memory has no workers.
pub fn publish(
    database: u32,
    key: Key,
    text: &[u8],
    place: &mut Option<usize>,
) -> Result<(), Full> {
    shmem::write(|mut segment| put(&mut segment, database, key, text, place)).unwrap_or(Ok(()))
}

fn put(
    segment: &mut Segment<'_>,
    database: u32,
    key: Key,
    text: &[u8],
    place: &mut Option<usize>,
) -> Result<(), Full> {
    let is_there = |at: &usize| segment.records.get(*at).is_some_and(|r| is(r, database, key));
    let at = match place.filter(is_there).or_else(|| position(segment, database, key)) {
        Some(at) => at,
        None => take_place(segment, database, key).ok_or(Full::Places)?,
    };
    *place = Some(at);
    let record = segment.records[at];
    free_chunks(segment.control, segment.chunks, record.first);
    segment.records[at] = Record { bytes: 0, first: 0, ..record };
    let first = write_chunks(segment, text).ok_or(Full::Bytes)?;
    segment.records[at] = Record { bytes: text.len() as u32, first, ..record };
    Ok(())
}

fn position(segment: &Segment<'_>, database: u32, key: Key) -> Option<usize> {
    segment.records.iter().position(|record| is(record, database, key))
}

fn is(record: &Record, database: u32, key: Key) -> bool {
    record.database == database && (record.kind, record.id) == key.parts()
}

fn take_place(segment: &mut Segment<'_>, database: u32, key: Key) -> Option<usize> {
    let (kind, id) = key.parts();
    let limit = match key {
        Key::Node(_) => segment.limits.nodes,
        Key::Link(_) => segment.limits.links,
    };
    let taken = segment.records.iter().filter(|r| r.database != 0 && r.kind == kind).count();
    if taken >= limit {
        return None;
    }
    let at = segment.records.iter().position(|record| record.database == 0)?;
    segment.records[at] = Record { database, kind, id, bytes: 0, first: 0 };
    Some(at)
}

fn free_chunks(control: &mut Control, chunks: &mut [Chunk], first: u32) {
    let mut next = first;
    while next != 0 {
        let chunk = &mut chunks[next as usize - 1];
        let after = chunk.next;
        chunk.next = control.free;
        control.free = next;
        next = after;
    }
}

/// Takes chunks, all or none, and returns the first one plus one.
fn write_chunks(segment: &mut Segment<'_>, text: &[u8]) -> Option<u32> {
    let mut first = 0;
    // From the end, so that each piece knows the next.
    for piece in text.chunks(CHUNK_BYTES).rev() {
        let Some(number) = take_chunk(segment.control, segment.chunks) else {
            free_chunks(segment.control, segment.chunks, first);
            return None;
        };
        let chunk = &mut segment.chunks[number as usize - 1];
        chunk.bytes[..piece.len()].copy_from_slice(piece);
        chunk.next = first;
        first = number;
    }
    Some(first)
}

fn take_chunk(control: &mut Control, chunks: &[Chunk]) -> Option<u32> {
    if control.free != 0 {
        let number = control.free;
        control.free = chunks[number as usize - 1].next;
        return Some(number);
    }
    let number = control.used + 1;
    (number as usize <= chunks.len()).then(|| {
        control.used = number;
        number
    })
}

/// Removes what a worker published of all but these.
pub fn retain(database: u32, keep: &BTreeSet<Key>) {
    shmem::write(|segment| {
        for record in segment.records.iter_mut().filter(|record| record.database == database) {
            if !keep.contains(&Key::of(record)) {
                free_chunks(segment.control, segment.chunks, record.first);
                *record = Record { database: 0, kind: 0, id: 0, bytes: 0, first: 0 };
            }
        }
    });
}

/// Copies everything that a database's worker published.
pub fn published(database: u32) -> Vec<(Key, Vec<u8>)> {
    let mut room: Vec<(Key, Vec<u8>)> = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let needed = shmem::read(|segment| copy_all(segment, database, &mut room, &mut bytes));
        match needed.unwrap_or((0, 0)) {
            (0, 0) => return split(room, &bytes),
            // Somewhat more than is needed: others write between two looks.
            (records, size) => {
                room = Vec::with_capacity(records + 16);
                bytes = Vec::with_capacity(size + size / 4);
            }
        }
    }
}

/// Copies into what is allocated already, or tells how much that must be.
fn copy_all(
    segment: &Segment<'_>,
    database: u32,
    room: &mut Vec<(Key, Vec<u8>)>,
    bytes: &mut Vec<u8>,
) -> (usize, usize) {
    let ours = || segment.records.iter().filter(|record| record.database == database);
    let (records, size) = ours().fold((0, 0), |(n, size), r| (n + 1, size + r.bytes as usize));
    if records > room.capacity() || size + records * 4 > bytes.capacity() {
        return (records.max(1), size + records * 4);
    }
    for record in ours() {
        room.push((Key::of(record), Vec::new()));
        bytes.extend_from_slice(&record.bytes.to_le_bytes());
        let (mut left, mut next) = (record.bytes as usize, record.first);
        while next != 0 {
            let chunk = &segment.chunks[next as usize - 1];
            let piece = left.min(CHUNK_BYTES);
            bytes.extend_from_slice(&chunk.bytes[..piece]);
            (left, next) = (left - piece, chunk.next);
        }
    }
    (0, 0)
}

/// Cuts what was copied as one into the single texts.
fn split(mut room: Vec<(Key, Vec<u8>)>, bytes: &[u8]) -> Vec<(Key, Vec<u8>)> {
    let mut rest = bytes;
    for (_, text) in &mut room {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let length = (u32::from_le_bytes(*length) as usize).min(after.len());
        let (own, others) = after.split_at(length);
        (*text, rest) = (own.to_vec(), others);
    }
    room
}

/// Finds a database's entry, or makes one.
fn entry(control: &mut Control, oid: u32) -> Option<&mut Database> {
    let at = match control.databases.iter().position(|database| database.oid == oid) {
        Some(at) => at,
        None => control.databases.iter().position(|database| database.oid == 0)?,
    };
    control.databases[at].oid = oid;
    Some(&mut control.databases[at])
}

/// Forgets an entry that says nothing any more.
fn tidy(database: &mut Database) {
    let says = database.examine || database.absent || database.sent_away || database.failed;
    if database.worker == 0 && database.holders == 0 && !says {
        database.oid = 0;
        database.latch = SharedLatch::NOBODY;
    }
}

/// The launcher is there.
pub fn announce_launcher() {
    let own = SharedLatch::own();
    shmem::write(|segment| segment.control.launcher = own);
}

/// Asks the launcher to see whether a database has the extension now.
pub fn ask_to_examine(oid: u32) {
    let launcher = shmem::write(|segment| {
        if let Some(database) = entry(segment.control, oid) {
            database.examine = true;
        }
        segment.control.launcher
    });
    launcher.unwrap_or(SharedLatch::NOBODY).set();
}

/// Keeps workers out of a database: one that is there leaves at once.
pub fn hold(oid: u32) {
    let latch = shmem::write(|segment| {
        let database = entry(segment.control, oid)?;
        database.holders += 1;
        Some(database.latch)
    });
    latch.flatten().unwrap_or(SharedLatch::NOBODY).set();
}

/// Ends a hold.
pub fn release(oid: u32) {
    let launcher = shmem::write(|segment| {
        if let Some(database) = segment.control.databases.iter_mut().find(|d| d.oid == oid) {
            database.holders = database.holders.saturating_sub(1);
            tidy(database);
        }
        segment.control.launcher
    });
    launcher.unwrap_or(SharedLatch::NOBODY).set();
}

/// What the launcher sees of one database.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub oid: u32,
    pub worker: bool,
    pub held: bool,
    pub examine: bool,
    pub absent: bool,
    pub sent_away: bool,
    pub failed: bool,
}

/// Everything that is noted of databases, into room for [`MAX_DATABASES`]; takes the requests
/// for an examination.
pub fn databases() -> Vec<Seen> {
    let mut seen = Vec::with_capacity(MAX_DATABASES);
    shmem::write(|segment| {
        for database in segment.control.databases.iter_mut().filter(|d| d.oid != 0) {
            seen.push(Seen {
                oid: database.oid,
                worker: database.worker != 0,
                held: database.holders > 0,
                examine: database.examine,
                absent: database.absent,
                sent_away: database.sent_away,
                failed: database.failed,
            });
            (database.examine, database.absent) = (false, false);
            (database.sent_away, database.failed) = (false, false);
            tidy(database);
        }
    });
    seen
}

/// A worker has begun; `false` where it must not: the database is held, or all places are
/// taken.
pub fn begin_worker(oid: u32, process: i32) -> bool {
    let latch = SharedLatch::own();
    let begun = shmem::write(|segment| {
        let Some(database) = entry(segment.control, oid) else { return false };
        if database.holders > 0 {
            database.sent_away = true;
            return false;
        }
        (database.worker, database.latch) = (process, latch);
        (database.absent, database.sent_away, database.failed) = (false, false, false);
        database.woken = true;
        true
    });
    begun.unwrap_or(false)
}

/// Why a worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The database has no such extension, or no longer.
    Absent,
    /// Somebody needs the database without a worker in it.
    SentAway,
    /// It could not go on; another may.
    Failed,
}

/// A worker has ended; what it published goes with it. Only the first word of a worker counts.
pub fn end_worker(oid: u32, process: i32, ended: Ended) {
    retain(oid, &BTreeSet::new());
    let launcher = shmem::write(|segment| {
        let mine = |d: &&mut Database| d.oid == oid && d.worker == process;
        if let Some(database) = segment.control.databases.iter_mut().find(mine) {
            database.worker = 0;
            database.latch = SharedLatch::NOBODY;
            database.absent = ended == Ended::Absent;
            database.sent_away = ended == Ended::SentAway;
            database.failed = ended == Ended::Failed;
        }
        segment.control.launcher
    });
    launcher.unwrap_or(SharedLatch::NOBODY).set();
}

/// Tells a database's worker that a session restarts a node now.
pub fn announce_restart(oid: u32, node: NodeId) {
    shmem::write(|segment| {
        if let Some(database) = segment.control.databases.iter_mut().find(|d| d.oid == oid) {
            (database.restarted, database.restarted_at) = (node, epoch_now());
        }
    });
}

/// Whether a node that does not answer may be one that a session has just restarted.
pub fn may_restart(oid: u32, node: NodeId) -> bool {
    const LIMIT: f64 = 60.0;
    let begun = shmem::read(|segment| {
        let mut databases = segment.control.databases.iter();
        databases.find(|d| d.oid == oid && d.restarted == node).map(|d| d.restarted_at)
    });
    begun.flatten().is_some_and(|begun| (0.0..LIMIT).contains(&(epoch_now() - begun)))
}

/// Tells a database's worker that something was committed.
pub fn wake_worker(oid: u32) {
    let latch = shmem::write(|segment| {
        let database = segment.control.databases.iter_mut().find(|d| d.oid == oid)?;
        database.woken = true;
        Some(database.latch)
    });
    latch.flatten().unwrap_or(SharedLatch::NOBODY).set();
}

/// Whether something was committed since the last call.
pub fn take_wake(oid: u32) -> bool {
    let woken = shmem::write(|segment| {
        let database = segment.control.databases.iter_mut().find(|d| d.oid == oid)?;
        Some(std::mem::take(&mut database.woken))
    });
    woken.flatten().unwrap_or(false)
}

/// Whether a database has a worker now.
pub fn has_worker(oid: u32) -> bool {
    shmem::read(|s| s.control.databases.iter().any(|d| d.oid == oid && d.worker != 0))
        .unwrap_or(false)
}

/// Whether sessions want the database for themselves.
pub fn is_held(oid: u32) -> bool {
    shmem::read(|s| s.control.databases.iter().any(|d| d.oid == oid && d.holders > 0))
        .unwrap_or(false)
}
