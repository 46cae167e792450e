//! What has come from one side of a connection and has not gone to the other yet.
use crate::proxy::Fault;
use crate::proxy::session::Way;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More than this is left in the kernel, so that whoever sends feels that nobody receives.
const ROOM: usize = 64 * 1024;

/// But what is under way on a long road is no queue.
const ROOM_ON_A_LONG_ROAD: usize = 64 * 1024 * 1024;

/// How a fault lets bytes pass.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    delay: Duration,
    /// How many bytes at a time.
    slice: usize,
    /// The pause after each of them.
    pause: Duration,
    room: usize,
}

impl Rule {
    /// `passed`: the bytes that have passed in this direction since the fault began.
    pub(super) fn of(fault: Fault, way: Way, passed: u64) -> Rule {
        let free =
            Rule { delay: Duration::ZERO, slice: usize::MAX, pause: Duration::ZERO, room: ROOM };
        match (fault, way) {
            (Fault::Delay(delay), _) => Rule { delay, room: ROOM_ON_A_LONG_ROAD, ..free },
            (Fault::Throttle(per_second), _) => {
                let per_second = per_second.max(1);
                let pause = Duration::from_secs(1) / per_second;
                Rule { slice: (per_second as usize / 50).max(1), pause, ..free }
            }
            (Fault::CutAfter(limit), Way::ToClient) => {
                let left = limit.saturating_sub(passed);
                Rule { slice: usize::try_from(left).unwrap_or(usize::MAX), ..free }
            }
            (Fault::Drip(pause), Way::ToClient) => Rule { slice: 1, pause, ..free },
            _ => free,
        }
    }
}

struct Chunk {
    came: Instant,
    bytes: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
}

pub(super) struct Flow {
    chunks: VecDeque<Chunk>,
    held: usize,
    /// When the sender's FIN came.
    ended: Option<Instant>,
    /// Whether it has been passed on.
    pub(super) is_closed: bool,
    /// The receiver's kernel takes no more for now.
    pub(super) is_blocked: bool,
    /// The pause after the last bytes ends here.
    pause_ends: Instant,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Flow {
        Flow {
            chunks: VecDeque::new(),
            held: 0,
            ended: None,
            is_closed: false,
            is_blocked: false,
            pause_ends: now,
        }
    }

    pub(super) fn wants_more(&self, rule: Rule) -> bool {
        self.ended.is_none() && self.held < rule.room
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>, now: Instant) {
        self.held += bytes.len();
        self.chunks.push_back(Chunk { came: now, bytes, gone: 0 });
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// When the next bytes, or the FIN, may pass.
    pub(super) fn due(&self, rule: Rule) -> Option<Instant> {
        let came = match self.chunks.front() {
            Some(chunk) => chunk.came,
            None if self.is_closed => return None,
            None => self.ended?,
        };
        Some((came + rule.delay).max(self.pause_ends))
    }

    /// The bytes that may pass together; none left: it is the FIN's turn.
    pub(super) fn front(&self, rule: Rule) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| {
            let rest = &chunk.bytes[chunk.gone..];
            &rest[..rest.len().min(rule.slice)]
        })
    }

    pub(super) fn remove(&mut self, count: usize, rule: Rule, now: Instant) {
        let chunk = self.chunks.front_mut().expect("bytes to remove");
        chunk.gone += count;
        if chunk.gone == chunk.bytes.len() {
            self.chunks.pop_front();
        }
        self.held -= count;
        self.pause_ends = now + rule.pause.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(super) fn forget_pause(&mut self, now: Instant) {
        self.pause_ends = now;
    }
}
