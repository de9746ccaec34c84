//! A small reproducible generator for simulated signals and jitter. Never for keys.

/// `SplitMix64` (Steele, Lea, Flood 2014): one 64-bit word of state, every seed as good as another.
#[derive(Clone, Debug)]
pub(crate) struct Prng(u64);

impl Prng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by text, so that two devices differ and one device does not.
    #[cfg(feature = "mqtt")]
    pub(crate) fn from_text(text: &str) -> Self {
        // FNV-1a: good enough to tell device ids apart.
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // The top 53 bits are exactly an f64's precision.
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal with mean 0 and deviation 1: the sum of twelve uniforms, so never beyond ±6.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
