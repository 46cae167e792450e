//! Processes by their id: starting, signalling, finding the children, seeing the end.
use crate::wait::{LONG, wait_until};
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a process from a thread that lives as long as we do.
///
/// The kernel sends the parent-death signal when the *thread* that forked ends. A server started
/// by a short-lived thread would die with it.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static NURSERY: OnceLock<Sender<Order>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The one who asked is waiting; nobody else could use the answer.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    nursery.send((command, reply)).expect("the nursery thread runs for ever");
    answer.recv().expect("the nursery thread runs for ever")
}

/// Sends a signal; false when there is no such process.
pub(crate) fn signal(pid: u32, signal: i32) -> bool {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    assert!(pid > 1, "refusing to signal process {pid}");
    // SAFETY: kill(2) reads nothing from memory.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// The processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&candidate| stat(candidate).is_some_and(|(_, parent)| parent == pid))
        .collect()
}

/// Whether a process has ended. A zombie has: it only waits for a parent who may never look.
pub fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z')
}

pub(crate) fn wait_gone(pids: &[u32]) {
    wait_until(&format!("processes {pids:?} are gone"), LONG, || {
        pids.iter().all(|&pid| is_gone(pid))
    });
}

/// State and parent of a process, from the fields behind its parenthesised name.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
