//! The port of the proxy: open, deaf or closed. It stays ours all the time.
use crate::names;
use crate::proxy::socket;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

const BACKLOG: i32 = 128;

/// A connection to ourselves that takes longer will not come.
const CONNECT_TIME: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Deaf,
    Closed,
}

pub(super) struct Listener {
    socket: TcpListener,
    state: State,
    /// Our own connections in the queue of those that wait to be accepted.
    fillers: Vec<TcpStream>,
}

impl Listener {
    /// On any free port of the usual address, or on one place.
    pub(super) fn new(place: Option<SocketAddr>) -> io::Result<Listener> {
        let socket = place.map_or_else(bind, TcpListener::bind)?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, state: State::Open, fillers: Vec::new() })
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    pub(super) fn port(&self) -> u16 {
        self.address().port()
    }

    /// Where to wait for connections, if any shall come.
    pub(super) fn fd(&self) -> Option<RawFd> {
        (self.state == State::Open).then(|| self.socket.as_raw_fd())
    }

    /// The next connection of a client.
    pub(super) fn accept(&mut self) -> Option<TcpStream> {
        while self.state == State::Open {
            let (stream, peer) = self.socket.accept().ok()?;
            let is_peer = |filler: &TcpStream| filler.local_addr().is_ok_and(|own| own == peer);
            if let Some(own) = self.fillers.iter().position(is_peer) {
                self.fillers.swap_remove(own);
            } else if stream.set_nonblocking(true).and(stream.set_nodelay(true)).is_ok() {
                return Some(stream);
            }
        }
        None
    }

    pub(super) fn open(&mut self) {
        self.listen(BACKLOG);
        self.state = State::Open;
    }

    /// Has the kernel drop every further SYN, as it does when too many connections wait.
    pub(super) fn be_deaf(&mut self) {
        self.listen(0);
        self.state = State::Deaf;
        // The first that fails proves that the next one would have to wait, too.
        while let Ok(filler) = TcpStream::connect_timeout(&self.address(), CONNECT_TIME) {
            self.fillers.push(filler);
        }
    }

    fn listen(&self, backlog: i32) {
        socket::listen(&self.socket, backlog).expect("the port is still ours");
    }

    /// Has the kernel answer every SYN with a RST.
    pub(super) fn close(&mut self) {
        if self.state == State::Closed {
            return;
        }
        socket::stop_listening(&self.socket).expect("it listens");
        self.state = State::Closed;
        // Those of a deaf time were in the queue, which is gone.
        self.fillers.clear();
    }
}

/// Takes a free port outside the range from which the kernel takes them. A port that the kernel
/// chose for us would be lost with [`Listener::close`].
fn bind() -> io::Result<TcpListener> {
    let mut result = Err(io::Error::from(ErrorKind::AddrInUse));
    for _ in 0..1000 {
        let port = 12_000 + u16::try_from(names::random_u64() % 20_000).expect("below 20000");
        result = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if result.is_ok() {
            break;
        }
    }
    result
}
