//! Waiting with a deadline, and a message that says what never happened.
use std::time::{Duration, Instant};

/// Long enough for anything that should happen soon, on a slow and busy machine too.
pub const LONG: Duration = Duration::from_secs(60);

/// Asks `is_done` again and again until it is, or fails the test at the deadline.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut is_done: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    while !is_done() {
        assert!(start.elapsed() < deadline, "waited {:.1?} in vain until {what}", start.elapsed());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
