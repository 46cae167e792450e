//! Names to addresses without blocking: `getaddrinfo` has no other way than a thread. The
//! thread touches nothing of Postgres and takes none of its signals.

use super::error::Error;
use super::reactor;
use std::io::{Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

/// All addresses of a host, in the resolver's order.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |why: &dyn std::fmt::Display| {
        Error::plain(format!("could not translate host name \"{host}\" to address: {why}"))
    };
    let (mut done, mut signal) = UnixStream::pair().map_err(|error| failed(&error))?;
    let (sender, answer) = mpsc::channel();
    let name = host.to_owned();
    let lookup = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(|list| list.map(|address| address.ip()).collect::<Vec<_>>());
        // The waiting side may be gone: then nobody wants the answer.
        let _ = sender.send(found);
        let _ = signal.write(&[1]);
    };
    without_signals(|| std::thread::Builder::new().spawn(lookup)).map_err(|e| failed(&e))?;
    reactor::socket(done.as_raw_fd(), true, false).await;
    let _ = done.read(&mut [0]);
    let mut addresses = match answer.recv() {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(failed(&error)),
        Err(gone) => return Err(failed(&gone)),
    };
    addresses.dedup();
    Ok(addresses)
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
