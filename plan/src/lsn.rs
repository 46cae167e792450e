//! Positions in the WAL.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A byte position in the WAL, printed and read as Postgres does (`pg_lsn`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |digits: &str| {
            let hex = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u32::from_str_radix(digits, 16).ok().filter(|_| hex)
        };
        Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }

    /// Bytes from `earlier` to this position; none where it is not earlier.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Lsn::parse(&text).ok_or_else(|| serde::de::Error::custom("not a WAL position"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_and_print_as_postgres_does() {
        let lsn = Lsn::parse("16/B374D848").expect("a position");
        assert_eq!((lsn.0, lsn.to_string().as_str()), (0x16_B374_D848, "16/B374D848"));
        assert_eq!(Lsn::parse("0/0"), Some(Lsn(0)));
        for bad in ["", "16", "/", "1/+2", "123456789/0", "x/1"] {
            assert_eq!(Lsn::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_distance_is_never_negative() {
        assert_eq!(Lsn(70).since(Lsn(30)), 40);
        assert_eq!(Lsn(30).since(Lsn(70)), 0);
    }
}
