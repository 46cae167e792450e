//! Names that break careless quoting, and random ones.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Valid identifiers that must survive everywhere; the last has the full 63 bytes.
pub const HOSTILE: [&str; 4] = [
    r#"we"ird; DROP TABLE x--"#,
    "Ünïcode node",
    "SELECT",
    "sixty-three bytes: it's the longest name \\ Postgres will accept",
];

/// A name like `prefix_3f9c2a71`. The seed is printed once; `PG_NODES_SEED` repeats a run.
pub fn random(prefix: &str) -> String {
    format!("{prefix}_{:08x}", random_u64() >> 32)
}

/// The next number of a splitmix64 sequence, shared by the whole process.
pub fn random_u64() -> u64 {
    static STATE: OnceLock<AtomicU64> = OnceLock::new();
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = STATE.get_or_init(|| AtomicU64::new(seed()));
    let mut z = state
        .fetch_add(GOLDEN, Ordering::Relaxed)
        .wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn seed() -> u64 {
    let seed = match std::env::var("PG_NODES_SEED") {
        Ok(text) => text.parse().expect("PG_NODES_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("the clock is past 1970");
            now.as_secs() << 20 ^ u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
        }
    };
    eprintln!("seed of this run: PG_NODES_SEED={seed}");
    seed
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_longest_name_has_63_bytes() {
        assert_eq!(super::HOSTILE[3].len(), 63);
    }
}
