//! Waiting for sockets and the latch, as Postgres waits (latch.c / waiteventset.c).

use pgrx::pg_sys;
use std::os::fd::RawFd;
use std::time::Duration;

/// A socket and what it is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Socket {
    pub fd: RawFd,
    pub read: bool,
    pub write: bool,
}

/// A wait event set, freed on drop: its epoll descriptor must not outlive an error.
struct WaitSet(*mut pg_sys::WaitEventSet);

impl WaitSet {
    fn with_room_for(events: usize) -> Self {
        let events = i32::try_from(events).unwrap_or(i32::MAX);
        // SAFETY: before 17 the set is allocated in the context given, and TopMemoryContext
        // survives a transaction's abort; from 17 no resource owner means the same.
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let set = unsafe { pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events) };
        // SAFETY: as above.
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let set = unsafe { pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events) };
        WaitSet(set)
    }

    fn add(&mut self, events: u32, fd: RawFd, latch: *mut pg_sys::Latch, tag: usize) {
        // SAFETY: the set has room; the descriptor is open for as long as its owner registers
        // it; the tag is an integer that is never dereferenced.
        unsafe {
            pg_sys::AddWaitEventToSet(self.0, events, fd, latch, tag as *mut _);
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        // SAFETY: made by CreateWaitEventSet, freed once; it raises no error.
        unsafe { pg_sys::FreeWaitEventSet(self.0) }
    }
}

/// Waits until a socket is ready, the latch is set or `timeout` has passed; returns the
/// positions of the ready sockets. Ends the process when the postmaster is gone. Interrupts are
/// served afterwards, when nothing of C is on the stack.
pub fn wait(sockets: &[Socket], timeout: Option<Duration>) -> Vec<usize> {
    let mut set = WaitSet::with_room_for(sockets.len() + 2);
    let no_fd = pg_sys::PGINVALID_SOCKET;
    // SAFETY: MyLatch is this process's latch, valid while the backend lives.
    let latch = unsafe { pg_sys::MyLatch };
    set.add(pg_sys::WL_LATCH_SET, no_fd, latch, 0);
    set.add(pg_sys::WL_EXIT_ON_PM_DEATH, no_fd, std::ptr::null_mut(), 0);
    for (position, socket) in sockets.iter().enumerate() {
        let read = if socket.read { pg_sys::WL_SOCKET_READABLE } else { 0 };
        let write = if socket.write { pg_sys::WL_SOCKET_WRITEABLE } else { 0 };
        set.add(read | write, socket.fd, std::ptr::null_mut(), position + 1);
    }
    // SAFETY: WaitEvent is plain data for which zero is valid.
    let empty: pg_sys::WaitEvent = unsafe { std::mem::zeroed() };
    let mut events = vec![empty; sockets.len() + 2];
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // Rounded up: a timer must not find itself woken a fraction too early. epoll takes an int.
    let timeout = timeout.map_or(-1, |t| t.as_micros().div_ceil(1000).min(i32::MAX as u128) as i64);
    // SAFETY: `events` has room for `room` entries.
    let happened = unsafe {
        pg_sys::WaitEventSetWait(
            set.0,
            timeout,
            events.as_mut_ptr(),
            room,
            pg_sys::PG_WAIT_EXTENSION,
        )
    };
    drop(set);
    let happened = &events[..usize::try_from(happened).unwrap_or(0)];
    if happened.iter().any(|event| event.events & pg_sys::WL_LATCH_SET != 0) {
        // SAFETY: as above.
        unsafe { pg_sys::ResetLatch(latch) };
    }
    happened.iter().filter_map(|event| (event.user_data as usize).checked_sub(1)).collect()
}

/// Serves interrupts: a cancel or a termination arrives as an ERROR, which unwinds.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
