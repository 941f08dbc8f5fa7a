//! A small seeded generator for jitter and for faults: repeatable, and no secret comes from it.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Other numbers in every process, so that processes that failed together do not come back together.
    pub(crate) fn new() -> Self {
        // Without the system's randomness jitter is worse, and nothing else.
        Self(getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())))
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        scale(self.next(), bound)
    }

    /// True once in `1 / probability` times.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // 53 bits are a float's precision.
        ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

/// Maps 64 random bits to `0..bound` (Lemire's multiplication; the bias is below 2⁻³² for the bounds here).
pub(crate) fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_covers_its_range() {
        let draw = |seed| {
            let mut random = Random::seeded(seed);
            (0..200).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for number in 0..10 {
            assert!(draw(7).contains(&number), "{number} never came");
        }
    }

    #[test]
    fn chance_keeps_its_promise() {
        let mut random = Random::seeded(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!(!random.chance(0.0));
        assert!(random.chance(1.0));
    }
}
