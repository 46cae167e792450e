//! Wakes one task from another of the same process.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Set from anywhere, awaited by one task; a nudge that nobody awaits is kept.
#[derive(Default)]
pub struct Nudge {
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Nudge {
    pub fn give(&self) {
        self.given.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub async fn taken(&self) {
        poll_fn(|cx| {
            if self.given.replace(false) {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
