//! What the random tests share.

use nodes_plan::transition::Transition;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::fmt::Debug;
use std::time::Duration;

/// Runs a property for every seed and names the one that fails. `SEEDS=100000` runs so many,
/// `SEED=17` one.
pub fn for_every_seed(seeds: u64, property: fn(&mut SmallRng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let outcome = std::panic::catch_unwind(move || property(&mut rng));
        if let Err(panic) = outcome {
            eprintln!("failing seed: SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// People are told at most so much within an hour, and each transition begins where the one
/// before ended.
#[allow(dead_code, reason = "not every test has a history")]
#[track_caller]
pub fn tells_little_and_all<S: PartialEq + Debug>(told: &[(Duration, Transition<S>)], most: usize) {
    let hour = Duration::from_secs(3_600);
    for (start, _) in told {
        let within = |(at, _): &&(Duration, _)| *at >= *start && *at - *start < hour;
        let events = told.iter().filter(within).count();
        assert!(events <= most, "{events} events within an hour");
    }
    for pair in told.windows(2) {
        assert_eq!(pair[0].1.to, pair[1].1.from, "a gap in what people were told");
    }
}
