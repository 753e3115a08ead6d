//! What short runs of fuzzing share: reproducible randomness, and their settings in the environment.

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    /// The randomness of one input: a run's seed, and which of its inputs it is.
    pub(crate) fn of(seed: u64, input: u64) -> Self {
        Self(seed.wrapping_add(input).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
