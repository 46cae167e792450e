//! A single-threaded reactor: futures that wait for sockets, for time and for the latch. All
//! sockets are behind one epoll descriptor, which is part of Postgres' own wait event set, so
//! that a thousand connections cost a turn no more than one. Interrupts are served at every
//! turn; an ERROR raised there unwinds through [`block_on`] and drops the futures, which closes
//! their connections.

use crate::pg::fd::{self, ExternalFd};
use crate::pg::wait::{self, WaitEvent, WaitSet};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll as Epoll, Token};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Somebody who waits.
struct Waiter {
    happened: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Waiter {
    fn wake(&self) {
        self.happened.set(true);
        self.waker.borrow().wake_by_ref();
    }
}

#[derive(Clone, Copy)]
enum What {
    Socket { fd: RawFd, read: bool, write: bool },
    Time(Instant),
    Latch,
}

/// Everybody who waits, by what they wait for, and the descriptor behind which sockets are.
#[derive(Default)]
struct Waiters {
    next_id: u64,
    sockets: HashMap<RawFd, (u64, Rc<Waiter>)>,
    times: BTreeMap<(Instant, u64), Rc<Waiter>>,
    latch: BTreeMap<u64, Rc<Waiter>>,
    epoll: Option<Epoll>,
}

impl Waiters {
    /// Takes note of a waiter; returns what it is to be removed by.
    fn add(&mut self, what: What, waiter: Rc<Waiter>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        match what {
            What::Socket { fd, read, write } => {
                if self.watch(fd, read, write).is_err() {
                    // libpq will find out and say what is wrong with it.
                    waiter.wake();
                }
                self.sockets.insert(fd, (id, waiter));
            }
            What::Time(at) => drop(self.times.insert((at, id), waiter)),
            What::Latch => drop(self.latch.insert(id, waiter)),
        }
        id
    }

    /// Arms a socket. One that libpq has closed meanwhile is gone from epoll by itself, and its
    /// number may already be another socket's: so it is changed, and added where it is not known.
    fn watch(&mut self, fd: RawFd, read: bool, write: bool) -> std::io::Result<()> {
        let Some(epoll) = &self.epoll else { return Err(std::io::ErrorKind::NotFound.into()) };
        let interest = match (read, write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (true, false) | (false, false) => Interest::READABLE,
        };
        let (mut source, token) = (SourceFd(&fd), Token(fd.unsigned_abs() as usize));
        match epoll.registry().reregister(&mut source, token, interest) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                epoll.registry().register(&mut source, token, interest)
            }
            outcome => outcome,
        }
    }

    fn remove(&mut self, what: What, id: u64) {
        match what {
            What::Socket { fd, .. } => {
                if self.sockets.get(&fd).is_some_and(|(known, _)| *known == id) {
                    self.sockets.remove(&fd);
                }
            }
            What::Time(at) => drop(self.times.remove(&(at, id))),
            What::Latch => drop(self.latch.remove(&id)),
        }
    }

    /// Wakes those whose sockets are ready. One that nobody waits for stays silent until
    /// somebody arms it again: sockets are watched for edges.
    fn wake_sockets(&mut self, events: &mut Events) {
        let Some(epoll) = &mut self.epoll else { return };
        // An interrupted poll tells at the next turn.
        if epoll.poll(events, Some(Duration::ZERO)).is_err() {
            return;
        }
        for event in events.iter() {
            let fd = RawFd::try_from(event.token().0).unwrap_or(-1);
            if let Some((_, waiter)) = self.sockets.remove(&fd) {
                waiter.wake();
            }
        }
    }

    fn wake_due(&mut self, now: Instant) {
        let later = self.times.split_off(&(now, u64::MAX));
        for waiter in std::mem::replace(&mut self.times, later).into_values() {
            waiter.wake();
        }
    }

    fn wake_latch(&mut self) {
        for waiter in std::mem::take(&mut self.latch).into_values() {
            waiter.wake();
        }
    }

    fn until_next_time(&self) -> Option<Duration> {
        let (at, _) = self.times.first_key_value()?.0;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

thread_local! {
    static WAITERS: RefCell<Waiters> = RefCell::default();
}

/// A future that is ready when its socket is, its time has come or the latch was set.
struct Wait {
    what: What,
    registered: Option<(u64, Rc<Waiter>)>,
}

impl Wait {
    fn new(what: What) -> Self {
        Wait { what, registered: None }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((_, waiter)) = &self.registered {
            if waiter.happened.get() {
                return Poll::Ready(());
            }
            waiter.waker.borrow_mut().clone_from(cx.waker());
            return Poll::Pending;
        }
        let waker = RefCell::new(cx.waker().clone());
        let waiter = Rc::new(Waiter { happened: Cell::new(false), waker });
        let id = WAITERS.with_borrow_mut(|waiters| waiters.add(self.what, waiter.clone()));
        self.registered = Some((id, waiter));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some((id, _)) = self.registered {
            WAITERS.with_borrow_mut(|waiters| waiters.remove(self.what, id));
        }
    }
}

/// Waits until a socket can be read, or written, or either. One future a socket at a time.
pub async fn socket(fd: RawFd, read: bool, write: bool) {
    Wait::new(What::Socket { fd, read, write }).await;
}

pub async fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration).await;
}

pub async fn sleep_until(at: Instant) {
    Wait::new(What::Time(at)).await;
}

/// Waits until somebody sets this process's latch.
pub async fn latch() {
    Wait::new(What::Latch).await;
}

/// A future did not finish in time.
#[derive(Debug)]
pub struct Elapsed;

/// Gives a future a limit; when it has passed, the future is dropped.
pub async fn timeout<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let mut work = pin!(work);
    let mut limit = pin!(sleep(limit));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        limit.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Tells [`block_on`] that its future wants to be polled again.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end.
pub fn block_on<F: Future>(work: F) -> F::Output {
    block_on_as(WaitEvent::EXTENSION, work)
}

/// The same in a process whose waits have a name of their own.
pub fn block_on_as<F: Future>(shown: WaitEvent, work: F) -> F::Output {
    let mut turns = Turns::begin(shown);
    let mut work = pin!(work);
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        while flag.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(output) = work.as_mut().poll(&mut cx) {
                return output;
            }
            wait::check_for_interrupts();
        }
        turns.turn();
        wait::check_for_interrupts();
    }
}

/// What one [`block_on`] waits with.
struct Turns {
    set: WaitSet,
    events: Events,
    shown: WaitEvent,
    _fd: ExternalFd,
}

impl Turns {
    fn begin(shown: WaitEvent) -> Turns {
        let reserved = ExternalFd::reserve().and_then(|fd| Some((fd, Epoll::new().ok()?)));
        let Some((fd, epoll)) = reserved else { fd::raise_exhausted() };
        let set = WaitSet::new(epoll.as_raw_fd());
        WAITERS.with_borrow_mut(|waiters| waiters.epoll = Some(epoll));
        Turns { set, events: Events::with_capacity(1024), shown, _fd: fd }
    }

    /// Waits once and wakes whom it concerns.
    fn turn(&mut self) {
        let limit = WAITERS.with_borrow(Waiters::until_next_time);
        let woken = self.set.wait(limit, self.shown);
        WAITERS.with_borrow_mut(|waiters| {
            if woken.descriptor {
                waiters.wake_sockets(&mut self.events);
            }
            if woken.latch {
                waiters.wake_latch();
            }
            waiters.wake_due(Instant::now());
        });
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        WAITERS.with_borrow_mut(|waiters| waiters.epoll = None);
    }
}
