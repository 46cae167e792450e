//! The registry as the worker reads it: again when something was committed, and, because a
//! standby is not told of commits, when its rows look different.

use super::Fleet;
use super::state::{Here, Shared, State, Watched};
use crate::apply::{self, desired::Desired};
use crate::catalog::{self, Rows};
use crate::error::{Error, Result};
use crate::observe::session::Target;
use crate::pg::{process, spi};
use crate::shmem::{self, Ended};
use nodes_plan::desired::NodeId;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A standby hears of no commits: it looks this often.
const STANDBY_INTERVAL: Duration = Duration::from_millis(500);
/// What could not be read is read again after this long.
const PAUSE: Duration = Duration::from_secs(1);

/// By then all nodes have said what they have, after the registry has changed.
const SETTLED: Duration = Duration::from_secs(10);

/// The beginning, or why there is none: the database does not have the extension, or cannot be
/// read.
pub fn begin() -> std::result::Result<Shared, Ended> {
    match spi::in_own_transaction(|| Ok((catalog::here()?, catalog::last_told()?))) {
        Ok(((boot_id, database), told)) => Ok(Shared::new(Here { boot_id, database }, told)),
        Err(Error::Dropped) => Err(Ended::Absent),
        Err(error) => {
            process::log("the worker cannot begin", Some(&error.to_string()), None);
            Err(Ended::Failed)
        }
    }
}

#[derive(Default)]
pub struct Registry {
    /// What was committed is not read yet.
    unread: bool,
    not_before: Option<Instant>,
    fingerprint: Option<String>,
    told: Option<String>,
    /// When it changed last, until it is tidied up after.
    changed: Option<Instant>,
}

impl Registry {
    /// Looks whether there is something new, and takes it in; `false`: the extension is gone.
    pub fn look(&mut self, shared: &Shared, fleet: &Fleet, database: u32) -> bool {
        let standby = spi::in_recovery();
        self.unread |= shmem::take_wake(database);
        let early = self.not_before.is_some_and(|at| Instant::now() < at);
        if early || !self.unread && !standby {
            return true;
        }
        let taken = match spi::in_own_transaction(|| self.read(standby)) {
            Err(Error::Dropped) => return false,
            Err(error) => Err(error),
            Ok(rows) => {
                self.unread = false;
                self.changed = rows.as_ref().map(|_| Instant::now()).or(self.changed);
                rows.map_or(Ok(()), |rows| take(rows, shared, fleet, database))
            }
        };
        let pause = if standby { Some(STANDBY_INTERVAL) } else { self.unread.then_some(PAUSE) };
        self.not_before = pause.map(|pause| Instant::now() + pause);
        self.tell(taken);
        true
    }

    /// The rows, where they are others than the last time.
    fn read(&mut self, standby: bool) -> Result<Option<Rows>> {
        if standby {
            let fingerprint = catalog::fingerprint()?;
            if fingerprint == self.fingerprint && !self.unread {
                return Ok(None);
            }
            self.fingerprint = fingerprint;
        }
        Ok(Some(Rows::load()?))
    }

    /// Gives back what the first answers of many nodes have left in memory. Not more often: it
    /// stops all of them for a moment.
    pub fn tidy(&mut self) {
        if self.changed.take_if(|at| at.elapsed() >= SETTLED).is_some() {
            process::trim_memory();
        }
    }

    /// One line of the log for a registry that cannot be read, and none for its repetition.
    fn tell(&mut self, outcome: Result<()>) {
        let said = outcome.err().map(|error| error.to_string());
        if let Some(said) = said.as_ref().filter(|said| self.told.as_ref() != Some(said)) {
            process::log("the worker cannot read the registry", Some(said), None);
        }
        self.told = said;
    }
}

/// Takes new rows in: begins to watch nodes, goes on with others, leaves those that are gone.
fn take(rows: Rows, shared: &Shared, fleet: &Fleet, database: u32) -> Result<()> {
    // A copy of a registry touches nobody.
    let passive = apply::check_active(&rows.origin).is_err();
    let desired = if passive { None } else { Some(Rc::new(Desired::from_rows(&rows)?)) };
    let targets: Vec<Target> = desired.as_ref().map_or(vec![], |desired| {
        desired.targets().into_iter().map(|(target, _)| target).collect()
    });
    let mut state = shared.state_mut();
    let present: BTreeSet<NodeId> = targets.iter().map(|target| target.id).collect();
    let gone: Vec<NodeId> =
        state.nodes.keys().copied().filter(|node| !present.contains(node)).collect();
    for node in gone {
        state.nodes.remove(&node);
        fleet.leave(node);
    }
    for target in targets {
        take_node(&mut state, target, &rows, shared, fleet);
    }
    let told = std::mem::take(&mut state.told.links);
    state.links.take(&rows, passive, &told);
    state.learnt.clear();
    state.settled.clear();
    state.desired = desired;
    state.rows = Some(Rc::new(rows));
    state.replan = true;
    let keys = state.keys();
    state.board.retain(database, &keys);
    Ok(())
}

fn take_node(state: &mut State, target: Target, rows: &Rows, shared: &Shared, fleet: &Fleet) {
    let Some(row) = rows.nodes.iter().find(|row| row.id == target.id) else { return };
    let (id, now) = (target.id, state.now());
    let expected = target.expected.clone();
    let node = match state.nodes.get_mut(&id) {
        Some(node) => {
            if !node.target.is_same(&target) {
                node.target = target;
                node.watch.forget(now);
                fleet.watch(shared, id);
            }
            node
        }
        None => {
            fleet.watch(shared, id);
            let mut node = Watched::new(&row.name, target, row.options, now);
            if let Some(told) = state.told.nodes.remove(&row.name) {
                node.resume(&told);
            }
            if state.told.blocked.remove(&row.name) {
                node.commits.resume();
            }
            state.nodes.entry(id).or_insert(node)
        }
    };
    node.name.clone_from(&row.name);
    node.options = row.options;
    node.watch.expect(expected);
    // What it should have may be different now, and so may what must be asked of it.
    node.want_inventory();
    node.nudge.give();
    state.stale_nodes.insert(id);
    state.judge(id);
}
