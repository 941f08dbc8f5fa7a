//! Numbers that look random and are the same on every machine: what spreads work without anybody keeping dice.

use std::time::Duration;

/// Draws a span of whole milliseconds from `0..below`, evenly, as a function of the purpose, a number and the bytes of a name.
///
/// A hash instead of a generator: there is no state, so a new leader draws what the old one drew.
pub(crate) fn span(purpose: &'static str, number: i128, name: &[u8], below: Duration) -> Duration {
    let mut hasher = blake3::Hasher::new();
    // Fixed lengths first and the name last, so that no two triples are the same bytes.
    hasher.update(purpose.as_bytes());
    hasher.update(&[0]);
    hasher.update(&number.to_le_bytes());
    hasher.update(name);
    let mut word = [0; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // The upper half of the product: even to one part in 2^64 / below.
    let drawn = (u128::from(u64::from_le_bytes(word)) * below.as_millis()) >> 64;
    Duration::from_millis(u64::try_from(drawn).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_draw_is_the_same_each_time_and_below_its_bound() {
        for number in 0..1000 {
            let drawn = span("test", number, b"item", HOUR);
            assert_eq!(drawn, span("test", number, b"item", HOUR));
            assert!(drawn < HOUR);
        }
        assert_eq!(span("test", 1, b"item", Duration::ZERO), Duration::ZERO);
        assert_eq!(span("test", 1, b"item", Duration::from_micros(999)), Duration::ZERO);
    }

    #[test]
    fn purpose_number_and_name_each_change_the_draw() {
        let drawn = span("test", 1, b"item", HOUR);
        assert_ne!(drawn, span("tess", 1, b"item", HOUR));
        assert_ne!(drawn, span("test", 2, b"item", HOUR));
        assert_ne!(drawn, span("test", 1, b"iten", HOUR));
    }

    #[test]
    fn draws_fill_their_range_evenly() {
        // 10,000 draws over ten tenths: each has 1,000 give or take; 130 is more than four standard deviations (30) away.
        let mut tenths = [0u32; 10];
        for item in 0..10_000u32 {
            let drawn = span("test", 7, &item.to_le_bytes(), HOUR);
            tenths[usize::try_from(drawn.as_millis() * 10 / HOUR.as_millis()).unwrap_or(9)] += 1;
        }
        assert!(tenths.iter().all(|count| count.abs_diff(1000) < 130), "{tenths:?}");
    }
}
