//! The extension's segment of shared memory (ipci.c, shmem.c): its layout, its size from
//! settings, and its lock. What the parts mean is in [`crate::shmem`].

use super::latch::SharedLatch;
use super::membership::Successor;
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;
use std::mem::{align_of, size_of};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

const NAME: &CStr = c"pg_nodes";

/// Databases that can have a worker or be held at the same time.
pub const MAX_DATABASES: usize = 64;

/// How many of each the segment holds; fixed when the server starts.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    pub nodes: usize,
    pub links: usize,
}

impl Limits {
    fn records(self) -> usize {
        self.nodes + self.links
    }

    /// On average 6 kB for a node and 2 kB for a link; those with less leave more for others.
    fn chunks(self) -> usize {
        self.nodes * 24 + self.links * 8
    }

    fn size(self) -> usize {
        let records = self.records() * size_of::<Record>();
        let heads = size_of::<Gate>() + size_of::<Control>();
        heads + records + self.chunks() * size_of::<Chunk>()
    }
}

/// What is read at every commit, outside the lock: a [`crate::gate::State`].
#[repr(C)]
pub struct Gate {
    pub state: AtomicU32,
    padding: u32,
}

/// The head of what is under the lock. All zeroes is its beginning.
#[repr(C)]
pub struct Control {
    pub launcher: SharedLatch,
    pub successor: Noted,
    pub databases: [Database; MAX_DATABASES],
    /// The first free chunk plus one, and how many were ever taken from the end.
    pub free: u32,
    pub used: u32,
}

/// Who has taken this server's place, and the database whose worker has found it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Noted {
    timeline: i64,
    pub database: u32,
    length: u32,
    name: [u8; pg_sys::NAMEDATALEN as usize],
}

impl Noted {
    pub fn write(&mut self, database: u32, successor: &Successor) {
        let name = successor.node.as_bytes();
        let length = name.len().min(self.name.len());
        self.name[..length].copy_from_slice(&name[..length]);
        (self.timeline, self.database, self.length) = (successor.timeline, database, length as u32);
    }

    /// `None`: nobody was noted.
    pub fn read(&self) -> Option<Successor> {
        let name = self.name.get(..self.length as usize)?;
        let node = String::from_utf8_lossy(name).into_owned();
        (self.length > 0).then_some(Successor { node, timeline: self.timeline })
    }
}

/// What launcher, workers and backends tell each other of one database. `oid` 0: free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Database {
    pub oid: u32,
    /// The worker's process, 0: none.
    pub worker: i32,
    pub latch: SharedLatch,
    /// Sessions that need the database without a worker in it.
    pub holders: u32,
    /// Something may have changed as to whether it has the extension.
    pub examine: bool,
    /// The last worker found no extension, or made way for somebody, or failed: between two
    /// looks of the launcher it may come and go.
    pub absent: bool,
    pub sent_away: bool,
    pub failed: bool,
    /// Something was committed that the worker should look at.
    pub woken: bool,
    /// The node that a session has restarted last, 0: none, and when: seconds since 1970.
    pub restarted: i32,
    pub restarted_at: f64,
}

/// The place of one published text. `database` 0: free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record {
    pub database: u32,
    pub kind: u32,
    pub id: i32,
    pub bytes: u32,
    /// The first chunk plus one.
    pub first: u32,
}

pub const CHUNK_BYTES: usize = 252;

/// A piece of text, and the next piece plus one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Chunk {
    pub next: u32,
    pub bytes: [u8; CHUNK_BYTES],
}

/// The whole segment, under its lock.
pub struct Segment<'a> {
    pub limits: Limits,
    pub control: &'a mut Control,
    pub records: &'a mut [Record],
    pub chunks: &'a mut [Chunk],
}

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(std::ptr::null_mut());
static NODES: AtomicUsize = AtomicUsize::new(0);
static LINKS: AtomicUsize = AtomicUsize::new(0);

fn limits() -> Limits {
    Limits { nodes: NODES.load(Ordering::Relaxed), links: LINKS.load(Ordering::Relaxed) }
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for the segment. Only from `_PG_init` in the postmaster, when settings are read.
pub fn request(limits: Limits) {
    NODES.store(limits.nodes, Ordering::Relaxed);
    LINKS.store(limits.links, Ordering::Relaxed);
    // SAFETY: the postmaster has one thread, and the hooks are its own to chain.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(on_request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    // SAFETY: called by Postgres at the time when requests are allowed.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| previous());
        }
        pg_sys::RequestAddinShmemSpace(limits().size());
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
    }
}

/// Runs in the postmaster alone, also when it starts over after a crash: needs no lock.
#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    // SAFETY: called by Postgres once shared memory is there; the segment has the size that was
    // asked for, and all zeroes is a valid beginning for every part.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| previous());
        }
        let mut found = false;
        let size = limits().size();
        let start = pg_sys::ShmemInitStruct(NAME.as_ptr(), size, &mut found).cast::<u8>();
        if !found {
            start.write_bytes(0, size);
        }
        START.store(start, Ordering::Relaxed);
        let lock = pg_sys::GetNamedLWLockTranche(NAME.as_ptr());
        LOCK.store(&raw mut (*lock).lock, Ordering::Relaxed);
        if !found {
            crate::gate::begin();
        }
    }
}

/// The part outside the lock; `None` where the library is not preloaded.
pub fn gate() -> Option<&'static Gate> {
    let start = START.load(Ordering::Relaxed);
    // SAFETY: lies at the start of the segment, aligned, as long as the server runs; nobody has a
    // unique reference to it, and its parts are atomic.
    (!start.is_null()).then(|| unsafe { &*start.cast::<Gate>() })
}

/// Whether the library was preloaded.
pub fn is_there() -> bool {
    !START.load(Ordering::Relaxed).is_null()
}

/// Looks at the segment, or changes it, under its lock. `work` must neither raise an error nor
/// wait. `None` where the library is not preloaded.
fn locked<T>(mode: pg_sys::LWLockMode::Type, work: impl FnOnce(Segment<'_>) -> T) -> Option<T> {
    const { assert!(align_of::<Control>() <= 8 && size_of::<Control>().is_multiple_of(8)) };
    const { assert!(size_of::<Gate>() == 8) };
    const { assert!(align_of::<Record>() == 4 && align_of::<Chunk>() == 4) };
    let start = START.load(Ordering::Relaxed);
    if start.is_null() {
        return None;
    }
    let (lock, limits) = (LOCK.load(Ordering::Relaxed), limits());
    // SAFETY: the segment lies where it was made, aligned and zeroed, for as long as the server
    // runs; the lock keeps others away. Readers get the same type, and change nothing.
    unsafe {
        pg_sys::LWLockAcquire(lock, mode);
        let control = start.add(size_of::<Gate>()).cast::<Control>();
        let records = control.add(1).cast::<Record>();
        let chunks = records.add(limits.records()).cast::<Chunk>();
        let result = work(Segment {
            limits,
            control: &mut *control,
            records: std::slice::from_raw_parts_mut(records, limits.records()),
            chunks: std::slice::from_raw_parts_mut(chunks, limits.chunks()),
        });
        pg_sys::LWLockRelease(lock);
        Some(result)
    }
}

/// Reads; several may do so at the same time.
pub fn read<T>(work: impl FnOnce(&Segment<'_>) -> T) -> Option<T> {
    locked(pg_sys::LWLockMode::LW_SHARED, |segment| work(&segment))
}

/// Reads and changes, alone.
pub fn write<T>(work: impl FnOnce(Segment<'_>) -> T) -> Option<T> {
    locked(pg_sys::LWLockMode::LW_EXCLUSIVE, work)
}
