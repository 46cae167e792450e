//! How far a Postgres session is, told from the bytes that have passed.
use crate::proxy::Phase;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The first byte of a TLS handshake, where a packet of Postgres has the first of its length.
const TLS_HANDSHAKE: u8 = 0x16;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

#[derive(Clone)]
pub(super) struct Session {
    stage: Stage,
    asked_for_tls: bool,
    message: Message,
    ready_for_query: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A packet of the client: `seen` bytes of it, the first eight of them in `start`.
    Packet { seen: u32, start: u64 },
    /// One byte of the server will say whether it agrees to encryption.
    EncryptionRequested,
    /// The startup packet has passed: now the server sends messages.
    Started,
    /// Encrypted, or a request to cancel: there is nothing to understand.
    Opaque,
}

const NEW_PACKET: Stage = Stage::Packet { seen: 0, start: 0 };

impl Session {
    pub(super) fn new() -> Session {
        Session {
            stage: NEW_PACKET,
            asked_for_tls: false,
            message: Message::default(),
            ready_for_query: 0,
        }
    }

    pub(super) fn is_in(&self, phase: Phase) -> bool {
        match phase {
            Phase::Connect => true,
            Phase::Tls => self.asked_for_tls,
            Phase::Authentication => self.stage == Stage::Started,
            Phase::FirstQuery => self.ready_for_query >= 1,
            Phase::SteadyState => self.ready_for_query >= 3,
            Phase::MidResult => {
                self.ready_for_query >= 1
                    && self.message.kind == b'D'
                    && self.message.is_half_complete()
            }
        }
    }

    /// How many of these bytes may pass until the phase begins, if it does.
    pub(super) fn bytes_until(&self, phase: Phase, way: Way, bytes: &[u8]) -> Option<usize> {
        let mut session = self.clone();
        let mut passed = 0;
        while passed < bytes.len() {
            passed += session.step(way, &bytes[passed..]);
            if session.is_in(phase) {
                // The server shall not know of the client's request.
                return Some(if phase == Phase::Tls { 0 } else { passed });
            }
        }
        None
    }

    /// Takes notice of bytes that have passed.
    pub(super) fn advance(&mut self, way: Way, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(way, bytes)..];
        }
    }

    /// Takes notice of the first bytes, up to where the phase may change; returns how many.
    fn step(&mut self, way: Way, bytes: &[u8]) -> usize {
        match (way, self.stage) {
            (Way::ToServer, Stage::Packet { seen, start }) => {
                self.packet_byte(seen, start, bytes[0]);
                1
            }
            (Way::ToClient, Stage::EncryptionRequested) => {
                self.stage = if bytes[0] == b'N' { NEW_PACKET } else { Stage::Opaque };
                1
            }
            (Way::ToClient, Stage::Started) => {
                let taken = self.message.step(bytes);
                if self.message.is_complete() && self.message.kind == b'Z' {
                    self.ready_for_query += 1;
                }
                taken
            }
            _ => bytes.len(),
        }
    }

    fn packet_byte(&mut self, seen: u32, start: u64, byte: u8) {
        let start = if seen < 8 { start << 8 | u64::from(byte) } else { start };
        let seen = seen + 1;
        let length = u32::try_from(start >> 32).expect("half of it");
        let code = u32::try_from(start & u64::from(u32::MAX)).expect("half of it");
        self.stage = match (seen, code) {
            (1, _) if byte == TLS_HANDSHAKE => Stage::Opaque,
            (..=7, _) => Stage::Packet { seen, start },
            (8, SSL_REQUEST | GSSENC_REQUEST) => Stage::EncryptionRequested,
            (8, CANCEL_REQUEST) => Stage::Opaque,
            _ if seen < length => Stage::Packet { seen, start },
            _ => Stage::Started,
        };
        self.asked_for_tls |= match self.stage {
            Stage::EncryptionRequested => code == SSL_REQUEST,
            Stage::Opaque => seen == 1,
            _ => false,
        };
    }
}

/// A message of the server: its type, its length, which counts itself, and its body.
#[derive(Clone, Default)]
struct Message {
    kind: u8,
    length: u32,
    /// How many bytes of type and length have passed.
    header: u8,
    /// How many bytes of the body have not.
    missing: u32,
}

const HEADER: u8 = 5;

impl Message {
    /// Takes the next byte of the header, or the body up to its half or its end.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.is_complete() {
            *self = Message { kind: bytes[0], header: 1, ..Message::default() };
            return 1;
        }
        if self.header < HEADER {
            self.length = self.length << 8 | u32::from(bytes[0]);
            self.header += 1;
            self.missing = self.body();
            return 1;
        }
        let half = self.body() / 2;
        let until = if self.missing > half { self.missing - half } else { self.missing };
        let taken = until.min(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.missing -= taken;
        taken as usize
    }

    fn body(&self) -> u32 {
        self.length.saturating_sub(4)
    }

    /// Also before the first one: then the next byte begins a new one.
    fn is_complete(&self) -> bool {
        self.header == 0 || (self.header == HEADER && self.missing == 0)
    }

    fn is_half_complete(&self) -> bool {
        self.header == HEADER && !self.is_complete() && self.missing <= self.body() / 2
    }
}
