//! The workers: a launcher for the server, and in each database with the extension one worker
//! that watches all nodes of its registry and brings about what is said of their links. Has no
//! rules of its own: those are the planner's.

mod backoff;
mod control;
mod converge;
mod events;
pub mod launcher;
mod links;
mod node;
mod nudge;
mod probe;
mod publish;
mod registry;
mod round_trips;
mod standing;
mod state;
mod takeover;

use crate::gate;
use crate::libpq::reactor;
use crate::pg::process;
use crate::pg::wait::WaitEvent;
use crate::shmem::{self, Ended};
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, abortable, join};
use futures_util::stream::FuturesUnordered;
use state::Shared;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

/// Runs in its database until it is not needed there.
pub fn run(database: u32) {
    let shown = WaitEvent::named(c"PgNodesWorkerMain");
    let ended = reactor::block_on_as(shown, watch(database));
    if ended == Ended::Absent {
        gate::leave(database);
    }
    shmem::end_worker(database, process::id(), ended);
}

/// Polls the control task and, through it, the tasks of the nodes; then publishes what they
/// have learnt.
async fn watch(database: u32) -> Ended {
    let shared = match registry::begin() {
        Ok(shared) => shared,
        Err(ended) => return ended,
    };
    let fleet = Fleet::default();
    let mut control = pin!(control::run(shared.clone(), fleet.clone(), database));
    let mut tasks = FuturesUnordered::new();
    poll_fn(|cx| {
        if let Poll::Ready(ended) = control.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        fleet.poll(&mut tasks, cx);
        publish::stale(&shared, database);
        Poll::Pending
    })
    .await
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks that run beside the control task, which starts and ends them.
#[derive(Clone, Default)]
pub struct Fleet {
    new: Rc<RefCell<Vec<Task>>>,
    nodes: Rc<RefCell<BTreeMap<i32, AbortHandle>>>,
}

impl Fleet {
    /// Begins to watch a node, anew if it is watched already.
    pub fn watch(&self, shared: &Shared, node: i32) {
        let (heart, probe) =
            (node::watch(shared.clone(), node), probe::watch(shared.clone(), node));
        let (watch, handle) = abortable(join(heart, probe));
        self.start(async {
            // It ends only by being aborted.
            let _ = watch.await;
        });
        if let Some(old) = self.nodes.borrow_mut().insert(node, handle) {
            old.abort();
        }
    }

    /// Ends the watch of a node and closes its connection.
    pub fn leave(&self, node: i32) {
        if let Some(handle) = self.nodes.borrow_mut().remove(&node) {
            handle.abort();
        }
    }

    /// Starts a task that ends by itself.
    pub fn start(&self, task: impl Future<Output = ()> + 'static) {
        self.new.borrow_mut().push(Box::pin(task));
    }

    fn poll(&self, tasks: &mut FuturesUnordered<Task>, cx: &mut Context<'_>) {
        loop {
            tasks.extend(self.new.take());
            match tasks.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }
}
