//! One client, the server behind the proxy, and the fault between them.
use crate::proxy::flow::{Flow, Rule};
use crate::proxy::session::{Session, Way};
use crate::proxy::socket::{self, Interest};
use crate::proxy::{Fault, Phase};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a FIN to both sides.
    Close,
    /// With a RST to both sides.
    Reset,
}

impl From<io::Error> for End {
    /// What one side suffers, the other shall see.
    fn from(_: io::Error) -> End {
        End::Reset
    }
}

pub(super) struct Connection {
    client: TcpStream,
    /// Connected when the fault lets something pass for the first time: until then the server
    /// knows of nobody.
    server: Option<TcpStream>,
    server_port: u16,
    to_server: Flow,
    to_client: Flow,
    session: Session,
    fault: Fault,
    next_fault: Option<(Phase, Fault)>,
    /// Bytes to the client since the fault began.
    passed: u64,
}

impl Connection {
    pub(super) fn new(client: TcpStream, server_port: u16) -> Connection {
        let now = Instant::now();
        Connection {
            client,
            server: None,
            server_port,
            to_server: Flow::new(now),
            to_client: Flow::new(now),
            session: Session::new(),
            fault: Fault::None,
            next_fault: None,
            passed: 0,
        }
    }

    /// Replaces the fault by one that begins in that phase.
    pub(super) fn set(&mut self, phase: Phase, fault: Fault) {
        self.begin(Fault::None);
        self.next_fault = Some((phase, fault));
        if self.session.is_in(phase) {
            self.begin(fault);
        }
    }

    fn begin(&mut self, fault: Fault) {
        let now = Instant::now();
        self.fault = fault;
        self.next_fault = None;
        self.passed = 0;
        self.to_server.forget_pause(now);
        self.to_client.forget_pause(now);
    }

    fn is_silent(&self) -> bool {
        matches!(self.fault, Fault::HalfOpen | Fault::BlackHole)
    }

    fn flow(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }

    fn rule(&self, way: Way) -> Rule {
        Rule::of(self.fault, way, self.passed)
    }

    /// Sender and receiver.
    fn ends(&self, way: Way) -> (&TcpStream, &TcpStream) {
        let server = self.server.as_ref().expect("connected before anything passes");
        match way {
            Way::ToServer => (&self.client, server),
            Way::ToClient => (server, &self.client),
        }
    }

    /// Does all that can be done now.
    pub(super) fn turn(&mut self) -> Result<(), End> {
        self.survive()?;
        if self.is_silent() {
            return Ok(());
        }
        if self.server.is_none() {
            self.server = Some(socket::connect(self.server_port)?);
        }
        let now = Instant::now();
        for way in [Way::ToServer, Way::ToClient] {
            self.receive(way, now)?;
            while self.pass(way, now)? {
                self.survive()?;
            }
        }
        if self.to_server.is_closed && self.to_client.is_closed {
            return Err(End::Close);
        }
        Ok(())
    }

    /// Fails when the fault is the connection's end.
    fn survive(&self) -> Result<(), End> {
        match self.fault {
            Fault::Reset => Err(End::Reset),
            Fault::Refuse => Err(End::Close),
            Fault::CutAfter(limit) if self.passed >= limit => Err(End::Close),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, way: Way, now: Instant) -> Result<(), End> {
        let rule = self.rule(way);
        if !self.flow(way).wants_more(rule) {
            return Ok(());
        }
        let mut buffer = [0; 32 * 1024];
        let (mut sender, _) = self.ends(way);
        match unless_blocked(sender.read(&mut buffer))? {
            Some(0) => self.flow(way).end(now),
            Some(count) => self.flow(way).push(buffer[..count].to_vec(), now),
            None => {}
        }
        Ok(())
    }

    /// Passes on the next bytes, or the FIN, if they are due; false: nothing can be done now.
    fn pass(&mut self, way: Way, now: Instant) -> Result<bool, End> {
        let rule = self.rule(way);
        let is_due = self.flow(way).due(rule).is_some_and(|due| due <= now);
        if self.is_silent() || !is_due {
            return Ok(false);
        }
        let mut bytes = self.flow(way).front(rule).to_vec();
        if bytes.is_empty() {
            self.flow(way).is_closed = true;
            self.ends(way).1.shutdown(Shutdown::Write)?;
            return Ok(false);
        }
        if let Some((phase, fault)) = self.next_fault
            && let Some(until) = self.session.bytes_until(phase, way, &bytes)
        {
            if until == 0 {
                self.begin(fault);
                return Ok(true);
            }
            bytes.truncate(until);
        }
        let sent = self.send(way, &bytes)?;
        self.flow(way).is_blocked = sent.is_none();
        let Some(count) = sent else { return Ok(false) };
        self.flow(way).remove(count, rule, now);
        self.note_passed(way, &bytes[..count]);
        Ok(true)
    }

    fn send(&self, way: Way, bytes: &[u8]) -> io::Result<Option<usize>> {
        let (_, mut receiver) = self.ends(way);
        match (self.fault, way) {
            (Fault::Garbage(seed), Way::ToClient) => {
                unless_blocked(receiver.write(&garbage(seed, self.passed, bytes.len())))
            }
            _ => unless_blocked(receiver.write(bytes)),
        }
    }

    fn note_passed(&mut self, way: Way, bytes: &[u8]) {
        self.session.advance(way, bytes);
        if way == Way::ToClient {
            self.passed += bytes.len() as u64;
        }
        if let Some((phase, fault)) = self.next_fault
            && self.session.is_in(phase)
        {
            self.begin(fault);
        }
    }

    /// What to wait for on either socket.
    pub(super) fn interests(&self) -> Vec<Interest> {
        let Some(server) = self.server.as_ref().filter(|_| !self.is_silent()) else {
            return Vec::new();
        };
        let may_read = |flow: &Flow, way| flow.wants_more(self.rule(way));
        vec![
            Interest {
                fd: self.client.as_raw_fd(),
                read: may_read(&self.to_server, Way::ToServer),
                write: self.to_client.is_blocked,
            },
            Interest {
                fd: server.as_raw_fd(),
                read: may_read(&self.to_client, Way::ToClient),
                write: self.to_server.is_blocked,
            },
        ]
    }

    /// When something is due that waits for nothing but the time.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        if self.is_silent() {
            return None;
        }
        [(&self.to_server, Way::ToServer), (&self.to_client, Way::ToClient)]
            .into_iter()
            .filter(|(flow, _)| !flow.is_blocked)
            .filter_map(|(flow, way)| flow.due(self.rule(way)))
            .min()
    }

    pub(super) fn end(self, end: End) {
        for stream in [Some(self.client), self.server].into_iter().flatten() {
            match end {
                End::Close => socket::close(stream),
                End::Reset => socket::reset(stream),
            }
        }
    }
}

/// `None` where the socket would have to wait.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part of an endless stream. With its highest bit set, a byte is no type of message, and as
/// the first one of a length it makes that negative.
fn garbage(seed: u64, start: u64, count: usize) -> Vec<u8> {
    (start..).take(count).map(|place| 0x80 | mix(mix(seed) ^ place).to_be_bytes()[0]).collect()
}

/// The finaliser of SplitMix64: neighbours become strangers.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
