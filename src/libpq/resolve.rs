//! Names to addresses without blocking: `getaddrinfo` has no other way than a thread. The
//! thread touches nothing of Postgres and takes none of its signals.

use super::error::{Cause, Error};
use super::reactor;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

type Answer = Result<Vec<String>, String>;

/// Look-ups that are not finished, also those that nobody waits for any more: a name server
/// that is down keeps each for half a minute, and asking again would only add threads.
static RUNNING: Mutex<BTreeMap<String, Arc<OnceLock<Answer>>>> = Mutex::new(BTreeMap::new());

/// All addresses of a host, in the resolver's order, as `hostaddr` takes them.
pub async fn addresses(host: &str) -> Result<Vec<String>, Error> {
    let failed = |why| {
        Error::of(
            Cause::Name,
            format!("could not translate host name \"{host}\" to address: {why}"),
        )
    };
    let answer = look_up(host).map_err(|error| failed(error.to_string()))?;
    // The thread cannot wake the reactor; most answers are there at the first or second look.
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = answer.get() {
            return answer.clone().map_err(failed);
        }
        reactor::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}

/// Starts a look-up, or joins the one of the same name that runs.
fn look_up(host: &str) -> std::io::Result<Arc<OnceLock<Answer>>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = running.get(host) {
        return Ok(answer.clone());
    }
    let answer = Arc::new(OnceLock::new());
    let (name, result) = (host.to_owned(), answer.clone());
    let work = move || {
        // Nobody else sets it.
        let _ = result.set(resolve(&name));
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    };
    without_signals(|| std::thread::Builder::new().spawn(work))?;
    running.insert(host.to_owned(), answer.clone());
    Ok(answer)
}

fn resolve(name: &str) -> Answer {
    match (name, 0).to_socket_addrs() {
        Ok(found) => {
            let mut addresses: Vec<String> = found.map(address).collect();
            addresses.dedup();
            Ok(addresses)
        }
        // Without the standard library's own words before getaddrinfo's.
        Err(error) => {
            Err(error.to_string().rsplit(": ").next().unwrap_or("it is not known").to_owned())
        }
    }
}

/// A link-local address is nothing without its interface.
fn address(found: SocketAddr) -> String {
    match found {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => found.ip().to_string(),
    }
}

/// A thread inherits the signal mask: with all blocked, Postgres' handlers run only on the
/// main thread.
fn without_signals<T>(spawn: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain data, filled before it is used; the old mask is restored.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let result = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        result
    }
}
