//! Chance with a printed seed: `DRUMLINE_TEST_SEED` repeats a run's choices.
#![allow(clippy::disallowed_methods, reason = "tests stand outside the world they drive")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From the environment, else from the clock; told on standard output.
    pub fn seeded(what: &str) -> Self {
        let seed = number("DRUMLINE_TEST_SEED").unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        });
        println!("{what}: DRUMLINE_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `low`, below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low)
    }

    pub fn flip(&mut self) -> bool {
        self.number() & 1 == 0
    }

    /// Lets a random time pass: what follows shall happen at no special moment.
    pub fn pause_ms(&mut self, low: u64, high: u64) {
        std::thread::sleep(Duration::from_millis(self.between(low, high)));
    }
}

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} = {text} is no number")))
}
