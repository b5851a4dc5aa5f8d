//! Services are killed while the demo runs, and started again: the loop still ends right, once.

use koc_tests::suite::{SERVICES, Suite};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{process::Stdio, time::Duration};

/// Runs under disturbance; `KOC_CRASH_SEEDS=10` makes more of them.
const SEEDS: u64 = 1;
/// A service is killed at a random moment within so many milliseconds of the one before.
const PAUSE_MS: std::ops::Range<u64> = 50..700;
const DOWN_MS: std::ops::Range<u64> = 0..300;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_at_any_moment_changes_nothing_in_the_end() {
    let undisturbed = {
        let suite = Suite::start(None).await;
        suite.run(&["demo", "--digest"]).await
    };
    let seeds = std::env::var("KOC_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut suite = Suite::start(None).await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut demo = suite.client(&["demo", "--digest"]);
        let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the demo starts");
        let mut kills = 0;
        'playing: loop {
            let first = random.random_range(0..SERVICES.len());
            for turn in 0..SERVICES.len() {
                let victim = SERVICES[(first + turn) % SERVICES.len()];
                tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
                if demo.try_wait().expect("a child of ours").is_some() {
                    break 'playing;
                }
                suite.kill(victim);
                kills += 1;
                tokio::time::sleep(Duration::from_millis(random.random_range(DOWN_MS))).await;
                suite.launch(victim);
            }
        }
        let output = demo.wait_with_output().expect("the demo ended");
        assert!(output.status.success(), "seed {seed}: the demo came through {kills} kills");
        assert!(kills >= 4, "seed {seed}: every service was killed");
        assert_eq!(String::from_utf8_lossy(&output.stdout), undisturbed, "seed {seed}: {kills} kills left the same end state");
    }
}
