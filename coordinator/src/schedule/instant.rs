//! How an instant is stored: seconds since 1970 and nanoseconds, both signed; a few bytes in postcard, exact.
//!
//! For fields: `#[serde(with = "crate::schedule::instant")]`.

use jiff::Timestamp;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

/// Writes an instant.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    (at.as_second(), at.subsec_nanosecond()).serialize(serializer)
}

/// Reads an instant.
///
/// # Errors
/// The deserializer's, and for what is no instant of the years that can be counted.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let (second, nanosecond) = <(i64, i32)>::deserialize(deserializer)?;
    Timestamp::new(second, nanosecond).map_err(D::Error::custom)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use jiff::Timestamp;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept(#[serde(with = "super")] Timestamp);

    #[test]
    fn instants_survive_storing_exactly_and_take_few_bytes() {
        for text in [
            "2026-11-20T02:00:00Z",
            "1969-12-31T23:59:59.999999999Z",
            "2026-11-20T02:00:00.123456789Z",
        ] {
            let kept = Kept(text.parse().unwrap());
            let bytes = postcard::to_stdvec(&kept).unwrap();
            assert_eq!(postcard::from_bytes::<Kept>(&bytes).unwrap(), kept);
        }
        let round = Kept("2026-11-20T02:00:00Z".parse().unwrap());
        assert_eq!(postcard::to_stdvec(&round).unwrap().len(), 6);
        for at in [Timestamp::MIN, Timestamp::MAX] {
            let bytes = postcard::to_stdvec(&Kept(at)).unwrap();
            assert_eq!(postcard::from_bytes::<Kept>(&bytes).unwrap(), Kept(at));
        }
    }

    #[test]
    fn bytes_that_are_no_instant_are_refused() {
        let bytes = postcard::to_stdvec(&(i64::MAX, 0i32)).unwrap();
        assert!(postcard::from_bytes::<Kept>(&bytes).is_err());
    }
}
