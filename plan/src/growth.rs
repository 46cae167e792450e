//! How fast the WAL that a slot keeps grows, and when that hurts.

use crate::pulse::{Pulse, SlotPulse};
use std::time::Duration;

/// What happened so long ago counts for about a third of what happens now.
const MEMORY: Duration = Duration::from_secs(60);

/// The mean growth of the last minute or so, newer changes weighing more.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    last: Option<(Duration, u64)>,
    /// The weighted sum of rates, in bytes per second.
    sum: f64,
    /// The sum of the weights: near one after some minutes, less while there is less to go by.
    weight: f64,
}

impl Growth {
    /// Takes a measurement in, made at `now` since an arbitrary start.
    pub fn note(&mut self, now: Duration, bytes: u64) {
        let Some((before, had)) = self.last else {
            self.last = Some((now, bytes));
            return;
        };
        let passed = now.saturating_sub(before).as_secs_f64();
        if passed == 0.0 {
            return;
        }
        self.last = Some((now, bytes));
        let rate = (bytes as f64 - had as f64) / passed;
        let keep = (-passed / MEMORY.as_secs_f64()).exp();
        self.weight = self.weight * keep + (1.0 - keep);
        // A slot that lets go of much at once is not in debt for what comes next.
        self.sum = (self.sum * keep + rate * (1.0 - keep)).max(0.0);
    }

    /// Bytes per second, never negative; `None` before the second measurement.
    pub fn per_second(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// What happens when a slot retains too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Postgres gives the slot up (`max_slot_wal_keep_size`).
    SlotLost,
    /// The server stops.
    DiskFull,
}

/// When a slot comes to an end at the present rate, and to which; `None`: not at this rate, or
/// nobody knows.
pub fn slot_time_left(pulse: &Pulse, slot: &SlotPulse, per_second: f64) -> Option<(Duration, End)> {
    let lost = slot.safe_wal_size.map(|bytes| (bytes, End::SlotLost));
    let full = pulse.wal_free.map(|bytes| (bytes, End::DiskFull));
    let (bytes, end) = lost.into_iter().chain(full).min()?;
    Some((time_left(bytes, per_second)?, end))
}

/// How long until so many bytes are used up; `None`: not at this rate.
fn time_left(bytes: i64, per_second: f64) -> Option<Duration> {
    if bytes <= 0 {
        return Some(Duration::ZERO);
    }
    // Less than a byte a second is noise.
    if per_second < 1.0 {
        return None;
    }
    Duration::try_from_secs_f64(bytes as f64 / per_second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate after measurements at these seconds.
    fn rate(measurements: impl IntoIterator<Item = (f64, u64)>) -> Option<f64> {
        let mut growth = Growth::default();
        for (seconds, bytes) in measurements {
            growth.note(Duration::from_secs_f64(seconds), bytes);
        }
        growth.per_second()
    }

    #[track_caller]
    fn about(found: Option<f64>, expected: f64) {
        let found = found.expect("a rate");
        assert!((found - expected).abs() <= expected * 0.1 + 0.5, "{found} is not {expected}");
    }

    #[test]
    fn one_measurement_is_no_rate() {
        assert_eq!(rate([]), None);
        assert_eq!(rate([(1.0, 7)]), None);
        assert_eq!(rate([(1.0, 7), (1.0, 9)]), None);
    }

    #[test]
    fn a_steady_rate_is_found_at_any_intervals() {
        about(rate([(0.0, 0), (1.0, 100)]), 100.0);
        about(rate((0..600).map(|second| (f64::from(second), second as u64 * 100))), 100.0);
        let irregular = [0.0, 0.1, 5.0, 5.2, 60.0, 61.0, 4_000.0, 4_000.5];
        about(rate(irregular.map(|second| (second, (second * 1000.0) as u64))), 1_000.0);
    }

    #[test]
    fn a_new_rate_replaces_the_old_one() {
        let quiet = (0..600).map(|second| (f64::from(second), 0));
        let busy = (600..900).map(|second| (f64::from(second), (second as u64 - 599) * 50));
        about(rate(quiet.chain(busy)), 50.0);
    }

    #[test]
    fn a_slot_that_is_read_does_not_grow() {
        let sawtooth = (0..600).map(|second| (f64::from(second), second as u64 % 10 * 1_000));
        let found = rate(sawtooth).expect("a rate");
        assert!(found < 1_000.0, "{found}");
    }

    #[test]
    fn what_was_let_go_of_is_forgotten() {
        let full = [(0.0, 1 << 40), (1.0, 0)];
        let grows = (2..302).map(|second| (f64::from(second), (second as u64 - 1) * 100));
        about(rate(full.into_iter().chain(grows)), 100.0);
    }

    #[test]
    fn time_left_is_of_this_rate() {
        assert_eq!(time_left(1_000, 10.0), Some(Duration::from_secs(100)));
        assert_eq!(time_left(0, 0.0), Some(Duration::ZERO));
        assert_eq!(time_left(-5, 10.0), Some(Duration::ZERO));
        for rate in [0.0, 0.5, -3.0, f64::NAN] {
            assert_eq!(time_left(1_000, rate), None, "{rate}");
        }
    }
    #[test]
    fn a_slot_ends_with_whatever_is_used_up_first() {
        let left = |safe_wal_size, wal_free| {
            let pulse = Pulse { wal_free, ..Pulse::default() };
            let slot = SlotPulse { safe_wal_size, ..SlotPulse::default() };
            slot_time_left(&pulse, &slot, 10.0).map(|(left, end)| (left.as_secs(), end))
        };
        assert_eq!(left(Some(1_000), Some(2_000)), Some((100, End::SlotLost)));
        assert_eq!(left(Some(1_000), Some(500)), Some((50, End::DiskFull)));
        assert_eq!(left(None, Some(500)), Some((50, End::DiskFull)));
        assert_eq!(left(Some(1_000), None), Some((100, End::SlotLost)));
        assert_eq!(left(None, None), None);
    }
}
