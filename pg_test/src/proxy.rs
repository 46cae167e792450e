//! A TCP proxy in front of a server: a network that lies.
//!
//! One thread does it all, so that a fault which [`Proxy::set`] has set holds for every byte that
//! comes after, on existing connections and on new ones.
mod connection;
mod flow;
mod listener;
mod relay;
mod session;
mod socket;

use crate::proxy::relay::{Order, Relay, Request};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the network does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: every byte passes at once.
    None,
    /// All bytes, and the end of the stream, arrive so much later; as many per second as before.
    /// To connect takes no longer.
    Delay(Duration),
    /// So many bytes per second pass in each direction.
    Throttle(u32),
    /// A connection is closed after so many further bytes from the server.
    CutAfter(u64),
    /// Connections are reset (RST), new ones as soon as they are accepted: it may be connect()
    /// that fails, or the first read.
    Reset,
    /// Connections stay open and are accepted, but nothing passes any more.
    HalfOpen,
    /// Like `HalfOpen`, and new connections are not accepted either: the SYN is not answered.
    /// Who waits for that answer when the fault is healed gets it when its kernel asks again.
    BlackHole,
    /// Nobody listens: connection refused. Existing ones are closed.
    Refuse,
    /// Each byte from the server is replaced by one that depends on this seed and on its place.
    /// None of them is a type of message or the start of a valid length.
    Garbage(u64),
    /// The bytes from the server arrive one by one, with this pause after each.
    Drip(Duration),
}

/// How far a connection must be for a fault to begin on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the start.
    Connect,
    /// The client asks for TLS; the server does not know yet.
    Tls,
    /// The startup packet has passed; the server's answer has not.
    Authentication,
    /// The first `ReadyForQuery` has passed.
    FirstQuery,
    /// Three of them have passed.
    SteadyState,
    /// Half of a `DataRow` of any query has passed.
    MidResult,
}

/// Listens on a port of its own and passes everything on to a server and back, as far as the
/// [`Fault`] lets it. Dropping it closes all connections and the port.
pub struct Proxy {
    port: u16,
    requests: Option<Sender<Request>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to `127.0.0.1:port`, where nobody needs to listen yet. A client's connection is
    /// reset when the server refuses it.
    pub fn to(port: u16) -> Proxy {
        Proxy::start(None, port)
    }

    /// Like [`Proxy::to`], on a loopback address and port of its own.
    pub fn at(place: SocketAddr, port: u16) -> Proxy {
        Proxy::start(Some(place), port)
    }

    fn start(place: Option<SocketAddr>, port: u16) -> Proxy {
        let (requests, inbox) = mpsc::channel();
        let (wake, alarm) = UnixStream::pair().expect("cannot make a pair of sockets");
        let relay = Relay::new(place, port, inbox, alarm).expect("cannot listen there");
        let port = relay.port();
        let thread = std::thread::Builder::new().name(format!("proxy {port}"));
        let thread = thread.spawn(move || relay.run()).expect("cannot start a thread");
        Proxy { port, requests: Some(requests), wake, thread: Some(thread) }
    }

    /// The port for clients; it stays the same, whatever the fault.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.ask(Order::Count)
    }

    /// Replaces the fault, everywhere and at once; [`Fault::None`] heals. What was held back
    /// then passes.
    pub fn set(&self, fault: Fault) {
        self.set_at(Phase::Connect, fault);
    }

    /// Replaces the fault by one that begins on each connection when it is in that phase, which
    /// may be now. Until then the connection is healthy.
    ///
    /// Only at [`Phase::Connect`] do [`Fault::BlackHole`] and [`Fault::Refuse`] keep new
    /// connections out; later they silence or close those that have come so far. An encrypted
    /// connection never gets past [`Phase::Tls`].
    pub fn set_at(&self, phase: Phase, fault: Fault) {
        self.ask(Order::Set(phase, fault));
    }

    /// Closes all present connections (FIN); the fault stays as it is.
    pub fn cut(&self) {
        self.ask(Order::Cut);
    }

    /// Returns when the order is carried out.
    fn ask(&self, order: Order) -> usize {
        let (reply, answer) = mpsc::channel();
        let requests = self.requests.as_ref().expect("taken by drop() only");
        requests.send(Request { order, reply }).expect("the proxy's thread runs");
        self.wake();
        answer.recv().expect("the proxy's thread runs")
    }

    fn wake(&self) {
        // A full socket has woken the thread already, and a closed one needs no waking.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.requests = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has said so, and whoever asked it has failed.
            let _ = thread.join();
        }
    }
}
