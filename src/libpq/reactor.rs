//! A single-threaded reactor: futures that wait for sockets and for time, driven by
//! Postgres' own wait event set, with interrupts served at every turn. An ERROR raised there
//! unwinds through [`block_on`] and drops the futures, which closes their connections.

use crate::pg::wait::{self, Socket};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Somebody who waits. `happened` tells its future why it was woken.
struct Waiter {
    id: u64,
    what: What,
    happened: Rc<Cell<bool>>,
    waker: Waker,
}

#[derive(Clone, Copy)]
enum What {
    Socket(Socket),
    Time(Instant),
}

thread_local! {
    static WAITERS: RefCell<Vec<Waiter>> = const { RefCell::new(Vec::new()) };
    static NEXT_ID: Cell<u64> = const { Cell::new(0) };
}

/// A future that is ready when its socket is, or its time has come.
struct Wait {
    what: What,
    registered: Option<(u64, Rc<Cell<bool>>)>,
}

impl Wait {
    fn new(what: What) -> Self {
        Wait { what, registered: None }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((id, happened)) = &self.registered {
            if happened.get() {
                return Poll::Ready(());
            }
            WAITERS.with_borrow_mut(|waiters| {
                if let Some(waiter) = waiters.iter_mut().find(|waiter| waiter.id == *id) {
                    waiter.waker.clone_from(cx.waker());
                }
            });
            return Poll::Pending;
        }
        let id = NEXT_ID.replace(NEXT_ID.get() + 1);
        let happened = Rc::new(Cell::new(false));
        let waiter =
            Waiter { id, what: self.what, happened: happened.clone(), waker: cx.waker().clone() };
        WAITERS.with_borrow_mut(|waiters| waiters.push(waiter));
        self.registered = Some((id, happened));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some((id, _)) = self.registered {
            WAITERS.with_borrow_mut(|waiters| waiters.retain(|waiter| waiter.id != id));
        }
    }
}

/// Waits until a socket can be read, or written, or either. One future a socket at a time:
/// epoll takes no descriptor twice.
pub async fn socket(fd: RawFd, read: bool, write: bool) {
    Wait::new(What::Socket(Socket { fd, read, write })).await;
}

pub async fn sleep(duration: Duration) {
    Wait::new(What::Time(Instant::now() + duration)).await;
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
        turn();
        wait::check_for_interrupts();
    }
}

/// Waits once and wakes whom it concerns. Who has been woken and not polled yet is left out: a
/// socket that stays ready would turn the wait into a busy loop.
fn turn() {
    let (ids, sockets) = registered_sockets();
    let ready = wait::wait(&sockets, time_to_next_timer());
    let now = Instant::now();
    let ready: Vec<u64> = ready.into_iter().filter_map(|at| ids.get(at).copied()).collect();
    WAITERS.with_borrow(|waiters| {
        for waiter in waiting(waiters) {
            let due = match waiter.what {
                What::Socket(_) => ready.contains(&waiter.id),
                What::Time(at) => at <= now,
            };
            if due {
                waiter.happened.set(true);
                waiter.waker.wake_by_ref();
            }
        }
    });
}

fn waiting(waiters: &[Waiter]) -> impl Iterator<Item = &Waiter> {
    waiters.iter().filter(|waiter| !waiter.happened.get())
}

fn registered_sockets() -> (Vec<u64>, Vec<Socket>) {
    WAITERS.with_borrow(|waiters| {
        let sockets = waiting(waiters).filter_map(|waiter| match waiter.what {
            What::Socket(socket) => Some((waiter.id, socket)),
            What::Time(_) => None,
        });
        sockets.unzip()
    })
}

fn time_to_next_timer() -> Option<Duration> {
    WAITERS.with_borrow(|waiters| {
        let times = waiting(waiters).filter_map(|waiter| match waiter.what {
            What::Time(at) => Some(at),
            What::Socket(_) => None,
        });
        times.min().map(|at| at.saturating_duration_since(Instant::now()))
    })
}
