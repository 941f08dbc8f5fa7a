//! Seeded randomness for tests: a failing run names its seed, and `TRESOR_SEED` replays it. `TRESOR_SEEDS` asks for another number of seeds
//! than a test runs of itself.

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A place in a list that is not empty.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Whether one of `in_all` chances came.
    pub(crate) fn one_in(&mut self, in_all: u64) -> bool {
        self.below(in_all) == 0
    }
}

/// Runs `test` with each of the seeds, or with the one that `TRESOR_SEED` names alone. A panic says how to replay it.
pub(crate) fn for_seeds(seeds: std::ops::Range<u64>, mut test: impl FnMut(u64)) {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} is a decimal number")),
        )
    };
    let seeds = match (number("TRESOR_SEED"), number("TRESOR_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => seeds.start..seeds.start + count,
        (None, None) => seeds,
    };
    for seed in seeds {
        let _replay = Replay(seed);
        test(seed);
    }
}

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "for whoever reads the failed test")]
            {
                eprintln!("replay with TRESOR_SEED={}", self.0);
            }
        }
    }
}
