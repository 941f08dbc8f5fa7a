//! The disks of a fleet, drawn by a seed.

use crate::inputs::Inputs;

/// One disk, an item of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disk {
    /// Bytes that are allocated and read.
    pub(crate) bytes: f64,
    /// Of them, what changed since the night before.
    pub(crate) changed_share: f64,
}

/// Numbers that a seed draws: splitmix64 (Steele, Lea and Flood, 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws disks.
pub(crate) fn draw(count: u32, seed: u64, inputs: &Inputs) -> Vec<Disk> {
    let mut draw = Draw(seed);
    let ratio = inputs.disk_bytes_max / inputs.disk_bytes_min;
    (0..count)
        .map(|_| Disk {
            bytes: (inputs.disk_bytes_min * ratio.powf(draw.share())).round(),
            changed_share: (2.0 * inputs.changed_share * draw.share()).min(1.0),
        })
        .collect()
}
