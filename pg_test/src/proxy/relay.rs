//! The proxy's thread: waits, accepts, obeys, passes on.
use crate::proxy::connection::{Connection, End};
use crate::proxy::listener::Listener;
use crate::proxy::socket::{self, Interest};
use crate::proxy::{Fault, Phase};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Instant;

pub(super) enum Order {
    Set(Phase, Fault),
    Cut,
    /// Nothing but the answer.
    Count,
}

pub(super) struct Request {
    pub(super) order: Order,
    /// Is told how many connections have been accepted.
    pub(super) reply: Sender<usize>,
}

pub(super) struct Relay {
    listener: Listener,
    server_port: u16,
    inbox: Receiver<Request>,
    /// Can be read when the inbox has changed.
    alarm: UnixStream,
    connections: Vec<Connection>,
    phase: Phase,
    fault: Fault,
    accepted: usize,
}

impl Relay {
    pub(super) fn new(
        place: Option<SocketAddr>,
        server_port: u16,
        inbox: Receiver<Request>,
        alarm: UnixStream,
    ) -> io::Result<Relay> {
        alarm.set_nonblocking(true)?;
        Ok(Relay {
            listener: Listener::new(place)?,
            server_port,
            inbox,
            alarm,
            connections: Vec::new(),
            phase: Phase::Connect,
            fault: Fault::None,
            accepted: 0,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Runs until nobody can send requests any more.
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            self.accept();
            match self.inbox.try_recv() {
                Ok(request) => {
                    self.obey(request.order);
                    self.turn();
                    // The one who asked is waiting.
                    let _ = request.reply.send(self.accepted);
                }
                Err(TryRecvError::Empty) => self.turn(),
                Err(TryRecvError::Disconnected) => return self.stop(),
            }
        }
    }

    fn wait(&mut self) {
        let mut interests = vec![Interest { fd: self.alarm.as_raw_fd(), read: true, write: false }];
        interests.extend(self.listener.fd().map(|fd| Interest { fd, read: true, write: false }));
        interests.extend(self.connections.iter().flat_map(Connection::interests));
        let wakes_at = self.connections.iter().filter_map(Connection::wakes_at).min();
        let timeout = wakes_at.map(|at| at.saturating_duration_since(Instant::now()));
        socket::wait(&interests, timeout);
        // One byte for each request: what is left wakes us again for the next one.
        let _ = self.alarm.read(&mut [0]);
    }

    fn accept(&mut self) {
        while let Some(client) = self.listener.accept() {
            let mut connection = Connection::new(client, self.server_port);
            connection.set(self.phase, self.fault);
            self.connections.push(connection);
            self.accepted += 1;
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Set(phase, fault) => self.set(phase, fault),
            Order::Cut => self.cut(),
            Order::Count => {}
        }
    }

    fn set(&mut self, phase: Phase, fault: Fault) {
        (self.phase, self.fault) = (phase, fault);
        match (phase, fault) {
            (Phase::Connect, Fault::BlackHole) => self.listener.be_deaf(),
            (Phase::Connect, Fault::Refuse) => self.listener.close(),
            _ => self.listener.open(),
        }
        for connection in &mut self.connections {
            connection.set(phase, fault);
        }
    }

    fn cut(&mut self) {
        for connection in self.connections.drain(..) {
            connection.end(End::Close);
        }
    }

    fn stop(&mut self) {
        // Closing the socket is not enough while a child of ours, before its exec(), has a copy.
        self.listener.close();
        self.cut();
    }

    fn turn(&mut self) {
        for mut connection in std::mem::take(&mut self.connections) {
            match connection.turn() {
                Ok(()) => self.connections.push(connection),
                Err(end) => connection.end(end),
            }
        }
    }
}
