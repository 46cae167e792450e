//! Latches of other processes (latch.c).

use pgrx::pg_sys;

/// A process's latch, kept in shared memory. It lies in Postgres' array of processes, which
/// every process sees at the same address for as long as the server runs: setting the latch
/// of one that is gone at worst wakes its successor for nothing. All zeroes: nobody's.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SharedLatch(usize);

impl SharedLatch {
    pub const NOBODY: SharedLatch = SharedLatch(0);

    /// This process's own.
    pub fn own() -> Self {
        // SAFETY: reads a pointer that is set when the process has its place in shared memory.
        SharedLatch(unsafe { pg_sys::MyLatch } as usize)
    }

    pub fn set(self) {
        if self != SharedLatch::NOBODY {
            // SAFETY: an address that `own` gave, see above.
            unsafe { pg_sys::SetLatch(self.0 as *mut pg_sys::Latch) }
        }
    }
}
