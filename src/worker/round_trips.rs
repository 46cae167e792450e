//! How long heartbeats took lately.

use crate::record::RoundTrip;
use std::time::Duration;

/// So many are remembered: three minutes at one a second.
const MOST: usize = 180;

#[derive(Default)]
pub struct RoundTrips {
    /// In microseconds, the oldest at `next` once it is full.
    taken: Vec<u32>,
    next: usize,
    last: u32,
    /// p50 and p99, and how many heartbeats came since they were computed.
    known: (f64, f64),
    since: usize,
}

/// Of many heartbeats a few change little.
const STEP: usize = 8;

impl RoundTrips {
    pub fn add(&mut self, took: Duration) {
        self.since += 1;
        self.last = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.taken.len() < MOST {
            self.taken.push(self.last);
        } else {
            self.taken[self.next] = self.last;
            self.next = (self.next + 1) % MOST;
        }
    }

    pub fn summary(&mut self) -> Option<RoundTrip> {
        if self.taken.is_empty() {
            return None;
        }
        if self.since >= STEP.min(self.taken.len() / STEP) {
            self.compute();
        }
        let (p50, p99) = self.known;
        Some(RoundTrip { last: seconds(self.last), p50, p99 })
    }

    fn compute(&mut self) {
        let mut sorted = self.taken.clone();
        let mut at = |percent: usize| {
            let position = (sorted.len() * percent / 100).min(sorted.len() - 1);
            let (_, value, _) = sorted.select_nth_unstable(position);
            seconds(*value)
        };
        self.known = (at(50), at(99));
        self.since = 0;
    }
}

fn seconds(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1e6
}
