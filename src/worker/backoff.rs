//! Pauses between attempts to connect: each random between the shortest and three times the
//! last one ("decorrelated jitter"), so that many workers do not try in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Backoff {
    last: Option<Duration>,
    drawn: u64,
    /// Seeded at random by the standard library.
    random: RandomState,
}

impl Backoff {
    /// The next pause; none before the first attempt after a success.
    pub fn next(&mut self) -> Duration {
        let Some(last) = self.last else {
            self.last = Some(SHORTEST);
            return Duration::ZERO;
        };
        let spread = (last * 3).saturating_sub(SHORTEST);
        self.drawn += 1;
        let part = self.random.hash_one(self.drawn) as f64 / u64::MAX as f64;
        let pause = (SHORTEST + spread.mul_f64(part)).min(LONGEST);
        self.last = Some(pause);
        pause
    }

    pub fn reset(&mut self) {
        self.last = None;
    }
}
