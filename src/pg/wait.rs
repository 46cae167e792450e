//! Waiting as Postgres waits (latch.c, waiteventset.c): for the latch, the postmaster's death
//! and one descriptor, behind which the reactor keeps all others.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::time::Duration;

/// What `pg_stat_activity.wait_event` shows. Names of our own exist from 17 on.
#[derive(Debug, Clone, Copy)]
pub struct WaitEvent(u32);

impl WaitEvent {
    /// `Extension`, as all versions know it.
    pub const EXTENSION: WaitEvent = WaitEvent(pg_sys::PG_WAIT_EXTENSION);

    /// A name of our own, in a process that may use shared memory.
    pub fn named(name: &'static CStr) -> WaitEvent {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        // SAFETY: the name is a C string; Postgres copies it.
        return WaitEvent(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) });
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            let _ = name;
            WaitEvent::EXTENSION
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Woken {
    pub latch: bool,
    pub descriptor: bool,
}

/// A wait event set, freed on drop: its epoll descriptor must not outlive an error.
pub struct WaitSet(*mut pg_sys::WaitEventSet);

impl WaitSet {
    /// Waits for the latch, the postmaster's death and, to be read, one descriptor.
    pub fn new(descriptor: RawFd) -> Self {
        const EVENTS: i32 = 3;
        // SAFETY: before 17 the set is allocated in the context given, and TopMemoryContext
        // survives a transaction's abort; from 17 no resource owner means the same.
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let set = unsafe { pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, EVENTS) };
        // SAFETY: as above.
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let set = unsafe { pg_sys::CreateWaitEventSet(std::ptr::null_mut(), EVENTS) };
        let set = WaitSet(set);
        // SAFETY: MyLatch is this process's latch, valid while the backend lives.
        let latch = unsafe { pg_sys::MyLatch };
        set.add(pg_sys::WL_LATCH_SET, pg_sys::PGINVALID_SOCKET, latch);
        set.add(pg_sys::WL_EXIT_ON_PM_DEATH, pg_sys::PGINVALID_SOCKET, std::ptr::null_mut());
        set.add(pg_sys::WL_SOCKET_READABLE, descriptor, std::ptr::null_mut());
        set
    }

    fn add(&self, events: u32, fd: RawFd, latch: *mut pg_sys::Latch) {
        // SAFETY: the set has room for three; the descriptor outlives the set.
        unsafe { pg_sys::AddWaitEventToSet(self.0, events, fd, latch, std::ptr::null_mut()) };
    }

    /// Waits until something happens or `timeout` has passed, rounded up to milliseconds: a
    /// timer must not find itself woken a fraction too early. Ends the process when the
    /// postmaster is gone. Interrupts are served afterwards, when nothing of C is on the stack.
    pub fn wait(&self, timeout: Option<Duration>, shown: WaitEvent) -> Woken {
        let timeout = timeout
            .map_or(-1, |t| t.as_micros().div_ceil(1000).min(i32::MAX as u128) as std::ffi::c_long);
        // SAFETY: WaitEvent is plain data for which zero is valid.
        let mut events: [pg_sys::WaitEvent; 3] = unsafe { std::mem::zeroed() };
        // SAFETY: `events` has room for three.
        let happened =
            unsafe { pg_sys::WaitEventSetWait(self.0, timeout, events.as_mut_ptr(), 3, shown.0) };
        let mut woken = Woken::default();
        for event in &events[..usize::try_from(happened).unwrap_or(0)] {
            woken.latch |= event.events & pg_sys::WL_LATCH_SET != 0;
            woken.descriptor |= event.events & pg_sys::WL_SOCKET_READABLE != 0;
        }
        if woken.latch {
            // SAFETY: as above.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        }
        woken
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        // SAFETY: made by CreateWaitEventSet, freed once; it raises no error.
        unsafe { pg_sys::FreeWaitEventSet(self.0) }
    }
}

/// Serves interrupts: a cancel or a termination arrives as an ERROR, which unwinds.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Waits for a while, or until something may be of interest; serves interrupts.
pub fn pause(duration: Duration) {
    pause_as(WaitEvent::EXTENSION, duration);
}

/// The same, shown as something.
pub fn pause_as(shown: WaitEvent, duration: Duration) {
    const EVENTS: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let limit = duration.as_millis().max(1) as std::ffi::c_long;
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, EVENTS as i32, limit, shown.0);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_for_interrupts();
}
