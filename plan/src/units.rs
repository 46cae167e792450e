//! Amounts as people read them.

use std::time::Duration;

/// Bytes as `pg_size_pretty()` prints them: rounded to the unit that leaves up to five digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut count = count;
    let mut unit = 0;
    while count >= 10 * 1024 && unit + 1 < UNITS.len() {
        count = count.saturating_add(512) / 1024;
        unit += 1;
    }
    format!("{count} {}", UNITS[unit])
}

/// A time span: `250 ms`, `5.0 s`, `42 s`, `3 min`, `2 h`, `4 days`.
pub fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..10 => format!("{:.1} s", span.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_postgres_prints_them() {
        let cases = [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (16 << 20, "16 MB"),
            (12 << 30, "12 GB"),
            (u64::MAX, "16384 PB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_have_one_unit() {
        let cases = [(250, "250 ms"), (5_000, "5.0 s"), (42_000, "42 s"), (180_000, "3 min")];
        for (milliseconds, text) in cases {
            assert_eq!(time(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(time(Duration::from_secs(9_000)), "2 h");
        assert_eq!(time(Duration::from_secs(400_000)), "4 days");
    }
}
