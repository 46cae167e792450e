//! What sockets can do beyond the standard library.
use std::io::{self, ErrorKind, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

/// What to wait for on a file descriptor.
pub(super) struct Interest {
    pub(super) fd: RawFd,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// Waits until one of these can be served, or for so long.
pub(super) fn wait(interests: &[Interest], timeout: Option<Duration>) {
    let mut fds: Vec<_> = interests
        .iter()
        // The kernel reports a dead peer to those too who have not asked for anything.
        .filter(|interest| interest.read || interest.write)
        .map(|interest| libc::pollfd { fd: interest.fd, events: events(interest), revents: 0 })
        .collect();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).expect("few descriptors");
    // SAFETY: the array and the timeout live until ppoll(2) returns; the signal mask may be null.
    // An error, as after a signal, is a wake-up like any other.
    unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) };
}

fn events(interest: &Interest) -> libc::c_short {
    (if interest.read { libc::POLLIN } else { 0 }) | if interest.write { libc::POLLOUT } else { 0 }
}

/// Begins to connect to a port of 127.0.0.1. Until the connection stands, reading and writing
/// would block; if it fails, they fail.
pub(super) fn connect(port: u16) -> io::Result<TcpStream> {
    // SAFETY: socket(2) reads nothing from memory.
    let fd = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        checked(libc::socket(libc::AF_INET, kind, 0))?
    };
    // SAFETY: the descriptor is new and nobody else's.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is a sockaddr_in, and its size is given.
    let result = unsafe {
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        checked(libc::connect(fd, (&raw const address).cast(), size))
    };
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Listens, also again, with room for so many connections that wait to be accepted.
pub(super) fn listen(listener: &TcpListener, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) reads nothing from memory.
    checked(unsafe { libc::listen(listener.as_raw_fd(), backlog) }).map(|_| ())
}

/// Listens no more. Unlike a closed socket, this one keeps its port, and it can listen again, but
/// only if this was done to it once.
pub(super) fn stop_listening(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: shutdown(2) reads nothing from memory.
    checked(unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) }).map(|_| ())
}

/// Closes with a FIN, also where bytes lie unread: then close(2) alone would send a RST.
pub(super) fn close(mut stream: TcpStream) {
    // The FIN must be the first thing to leave.
    let _ = stream.shutdown(Shutdown::Write);
    let mut buffer = [0; 32 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Closes with a RST, and forgets what is still on its way.
pub(super) fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option is a linger, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    checked(result).expect("a socket that can be told to linger");
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
