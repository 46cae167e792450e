//! Names that break careless quoting, and random ones.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Valid identifiers that must survive everywhere; the last has the full 63 bytes.
pub const HOSTILE: [&str; 4] = [
    r#"we"ird; DROP TABLE x--"#,
    "Ünïcode node",
    "SELECT",
    "sixty-three bytes: it's the longest name \\ Postgres will accept",
];

/// Quotes a name for SQL.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a value for a conninfo.
pub fn conninfo_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A name like `prefix_3f9c2a71`. The seed is printed once; `PG_NODES_SEED` repeats a run.
pub fn random(prefix: &str) -> String {
    static SAID: Once = Once::new();
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    SAID.call_once(|| eprintln!("names of this run: PG_NODES_SEED={}", seed()));
    format!("{prefix}_{:08x}", next(seed(), &DRAWN) >> 32)
}

/// A number for what nobody needs to repeat: a port, an identity.
pub(crate) fn random_u64() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    next(!seed(), &DRAWN)
}

/// Numbers that are the same whenever the seed is.
pub struct Draws {
    seed: u64,
    drawn: AtomicU64,
}

impl Draws {
    pub fn new(seed: u64) -> Draws {
        Draws { seed, drawn: AtomicU64::new(0) }
    }

    /// The next one, at random from 0 on; `end` is none.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("at most 64 bits");
        usize::try_from(next(self.seed, &self.drawn) % end).expect("below a usize")
    }
}

/// The next number of a splitmix64 sequence.
fn next(seed: u64, drawn: &AtomicU64) -> u64 {
    let draw = drawn.fetch_add(1, Ordering::Relaxed) + 1;
    let mut z = seed.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("PG_NODES_SEED") {
        Ok(text) => text.parse().expect("PG_NODES_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
            now.as_secs() << 20 ^ u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_longest_name_has_63_bytes() {
        assert_eq!(super::HOSTILE[3].len(), 63);
    }
}
