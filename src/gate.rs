//! Whether this server takes writes. One that was a member of a group when it went starts
//! unconfirmed: who commits waits until its worker has asked the other members, or until
//! `pg_nodes.startup_check` has passed. One that has a successor is read-only.

use crate::error::Error;
use crate::guc;
use crate::pg::membership::{self, Membership, Successor};
use crate::pg::process;
use crate::pg::shmem::{self, Gate};
use crate::pg::wait::{self, WaitEvent};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A commit that waits looks this often.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Open = 0,
    /// Nobody has said yet that it has no successor.
    Unconfirmed = 1,
    Superseded = 2,
    /// Open, because nobody has said so in time, which is to be told.
    Overdue = 3,
}

impl State {
    pub fn admits(self) -> bool {
        matches!(self, State::Open | State::Overdue)
    }

    fn of(number: u32) -> State {
        [State::Unconfirmed, State::Superseded, State::Overdue]
            .into_iter()
            .find(|state| *state as u32 == number)
            .unwrap_or(State::Open)
    }
}

/// When the server started, known to all processes from the postmaster.
static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);

/// This process writes what must be written all the same.
static EXEMPT: AtomicBool = AtomicBool::new(false);

/// Begins in the postmaster, when the server starts and after each crash.
pub fn begin() {
    if let Ok(mut begun) = BEGUN.lock() {
        *begun = Some(Instant::now());
    }
    if !process::has_postmaster() || membership::is_to_recover() {
        return;
    }
    let members = match membership::all() {
        Ok(members) => members,
        Err(error) => {
            process::log("could not read the data directory", Some(&error.to_string()), None);
            return;
        }
    };
    let superseded = members
        .iter()
        .find_map(|(database, membership)| Some((*database, membership.superseded_by.as_ref()?)));
    if let Some((database, successor)) = superseded {
        note(database, successor);
        process::log("this server takes no writes", Some(&successor.to_string()), None);
    } else if !members.is_empty() && !guc::startup_check().is_zero() {
        change(&[State::Open], State::Unconfirmed);
        let detail = "Commits wait until the other members of its group are asked, as long as \
                      pg_nodes.startup_check at most.";
        process::log("this server starts unconfirmed", Some(detail), None);
    }
}

pub fn state() -> State {
    shmem::gate().map_or(State::Open, |gate| State::of(gate.state.load(Ordering::Acquire)))
}

/// Whether the change was this one's to make.
fn change(from: &[State], to: State) -> bool {
    let exchange = |gate: &Gate, from: State| {
        let (from, to) = (from as u32, to as u32);
        gate.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    };
    shmem::gate().is_some_and(|gate| from.iter().any(|from| exchange(gate, *from)))
}

/// From here on this process may write whatever the state.
pub fn exempt() {
    EXEMPT.store(true, Ordering::Relaxed);
}

fn is_exempt() -> bool {
    EXEMPT.load(Ordering::Relaxed) || guc::allow_superseded_writes() || process::is_autovacuum()
}

/// Returns when a transaction that has written may commit, or why it must not.
pub fn admit() -> Result<(), Error> {
    let mut shown = None;
    loop {
        let now = state();
        if now.admits() || is_exempt() {
            return Ok(());
        }
        if now == State::Superseded {
            return refuse();
        }
        if !open_if_overdue() {
            let named = || WaitEvent::named(c"PgNodesStartupCheck");
            wait::pause_as(*shown.get_or_insert_with(named), PAUSE);
        }
    }
}

/// Refuses what a server that has a successor must not do, unless this session is allowed to.
pub fn check_not_superseded() -> Result<(), Error> {
    if state() == State::Superseded && !is_exempt() { refuse() } else { Ok(()) }
}

fn refuse<T>() -> Result<T, Error> {
    let successor = successor().map(|successor| successor.to_string()).unwrap_or_default();
    Err(Error::Superseded(successor))
}

/// Opens the server where it was asked for long enough; whether it is open.
pub fn open_if_overdue() -> bool {
    let begun = BEGUN.lock().ok().and_then(|begun| *begun);
    if begun.is_some_and(|at| at.elapsed() < guc::startup_check()) {
        return false;
    }
    if change(&[State::Unconfirmed], State::Overdue) {
        let message = "this server takes writes, and nobody has said that it has no successor";
        process::log(message, None, None);
    }
    true
}

/// Whether the server was opened so, for whoever tells of it.
pub fn take_overdue() -> bool {
    change(&[State::Overdue], State::Open)
}

/// The successor as it is shown; empty where there is none.
pub fn superseded_by() -> String {
    let successor = (state() == State::Superseded).then(successor).flatten();
    successor.map_or(String::new(), |s| format!("{} (timeline {})", s.node, s.timeline))
}

pub fn successor() -> Option<Successor> {
    shmem::read(|segment| segment.control.successor)?.read()
}

fn note(database: u32, successor: &Successor) {
    shmem::write(|segment| segment.control.successor.write(database, successor));
    change(&[State::Open, State::Unconfirmed, State::Overdue], State::Superseded);
}

/// A database's registry has this server in a group.
pub fn join(database: u32) {
    if membership::of(database).is_none() {
        keep(membership::write(database, &Membership::default()));
    }
}

/// A database's worker has found a successor; whether that is new.
pub fn supersede(database: u32, successor: &Successor) -> bool {
    let membership = Membership { superseded_by: Some(successor.clone()) };
    if membership::of(database).as_ref() != Some(&membership) {
        keep(membership::write(database, &membership));
    }
    // The first that is heard may be a standby of it.
    let same = |known: Successor| known.timeline == successor.timeline;
    let is_known = state() == State::Superseded && self::successor().is_some_and(same);
    note(database, successor);
    !is_known
}

/// A database's worker has asked all members and found no successor; whether this server took
/// no writes because of one.
pub fn confirm(database: u32) -> bool {
    if membership::of(database) != Some(Membership::default()) {
        keep(membership::write(database, &Membership::default()));
    }
    change(&[State::Unconfirmed, State::Overdue], State::Open);
    reinstate(database)
}

/// A database's registry does not have this server in a group, or is gone; whether this server
/// took no writes because of it.
pub fn leave(database: u32) -> bool {
    match membership::remove(database) {
        Ok(false) if state() != State::Superseded => return false,
        Ok(_) => {}
        Err(error) => keep(Err(error)),
    }
    if membership::all().is_ok_and(|members| members.is_empty()) {
        change(&[State::Unconfirmed, State::Overdue], State::Open);
    }
    reinstate(database)
}

/// What a database has found does not hold any more.
fn reinstate(database: u32) -> bool {
    let mine = shmem::read(|segment| segment.control.successor.database == database);
    mine == Some(true) && change(&[State::Superseded], State::Open)
}

/// Forgets the databases that are not there any more.
pub fn retain(exists: impl Fn(u32) -> bool) {
    let Ok(members) = membership::all() else { return };
    for (database, _) in members.iter().filter(|(database, _)| !exists(*database)) {
        leave(*database);
    }
}

fn keep(done: io::Result<()>) {
    if let Err(error) = done {
        let message = "could not note in the data directory which group this server is in";
        process::log(message, Some(&error.to_string()), None);
    }
}
