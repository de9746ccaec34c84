//! Waiting for what is to come, and chance that comes again.

use std::time::{Duration, Instant};

/// Longer than anything takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it came to hold.
pub fn comes(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Waits until it holds.
pub fn wait_until(holds: impl FnMut() -> bool, otherwise: &str) {
    assert!(comes(holds), "{otherwise}");
}

/// xorshift64: the same moments for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn pause(&mut self, at_most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.below(at_most_ms)));
    }
}
