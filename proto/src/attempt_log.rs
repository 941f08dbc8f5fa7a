//! What a worker logged of an attempt, as it travels and is kept: a message, compressed, within bounds that both sides know.

use std::io::Read as _;

use prost::Message as _;

use crate::v1::AttemptLog;

/// Largest log as it travels and is kept: an entry of the coordinators' log carries it.
pub const PACKED_BYTES_MAX: usize = 16 << 10;
/// Largest log before it is compressed, and after it was expanded.
pub const BYTES_MAX: usize = 64 << 10;
/// Longest text of a line and of the summary's, bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 10;
/// A level that costs a millisecond for the largest log.
const LEVEL: i32 = 9;

/// Why a log is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// More than is kept.
    #[error("has at most {max} bytes {state}, not {bytes}")]
    TooLarge {
        /// How many it has, at the least.
        bytes: usize,
        /// How many there may be.
        max: usize,
        /// Compressed or not.
        state: &'static str,
    },
    /// It cannot be expanded, or compressed.
    #[error("is no frame of zstd")]
    Frame(#[source] std::io::Error),
    /// What was expanded is no log.
    #[error("is no log of an attempt")]
    Message(#[source] prost::DecodeError),
}

fn check(bytes: usize, max: usize, state: &'static str) -> Result<(), LogError> {
    match bytes <= max {
        true => Ok(()),
        false => Err(LogError::TooLarge { bytes, max, state }),
    }
}

/// A log as it travels.
///
/// # Errors
/// [`LogError::TooLarge`]: lines are to be left out.
pub fn encode(log: &AttemptLog) -> Result<Vec<u8>, LogError> {
    let bytes = log.encode_to_vec();
    check(bytes.len(), BYTES_MAX, "before it is compressed")?;
    let packed = zstd::bulk::compress(&bytes, LEVEL).map_err(LogError::Frame)?;
    check(packed.len(), PACKED_BYTES_MAX, "as it is sent")?;
    Ok(packed)
}

/// The log that travelled. Takes memory for [`BYTES_MAX`], whatever it says of itself.
///
/// # Errors
/// [`LogError`].
pub fn decode(packed: &[u8]) -> Result<AttemptLog, LogError> {
    check(packed.len(), PACKED_BYTES_MAX, "as it is sent")?;
    let mut bytes = Vec::new();
    let reader = zstd::stream::read::Decoder::new(packed).map_err(LogError::Frame)?;
    let most = u64::try_from(BYTES_MAX).expect("some kilobytes") + 1;
    reader.take(most).read_to_end(&mut bytes).map_err(LogError::Frame)?;
    check(bytes.len(), BYTES_MAX, "after it was expanded")?;
    AttemptLog::decode(bytes.as_slice()).map_err(LogError::Message)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::v1::LogLine;

    fn log(lines: usize, text: impl Fn(usize) -> String) -> AttemptLog {
        AttemptLog {
            first: (0..lines)
                .map(|n| LogLine {
                    time_ms: 1_700_000_000_000,
                    level: String::from("info"),
                    text: text(n),
                })
                .collect(),
            ..AttemptLog::default()
        }
    }

    #[test]
    fn a_log_survives_the_way() {
        let log = log(40, |n| format!("stage {n} begins"));
        let packed = encode(&log).unwrap();
        assert!(packed.len() < 600, "{}", packed.len());
        assert_eq!(decode(&packed).unwrap(), log);
    }

    #[test]
    fn what_is_too_large_is_neither_sent_nor_taken() {
        let many = log(100, |n| format!("{n}").repeat(500));
        assert!(matches!(encode(&many), Err(LogError::TooLarge { max: BYTES_MAX, .. })));
        // A few bytes that would fill memory.
        let bomb = zstd::bulk::compress(&vec![0; 1 << 28], 1).unwrap();
        assert!(bomb.len() < PACKED_BYTES_MAX, "{}", bomb.len());
        assert!(matches!(decode(&bomb), Err(LogError::TooLarge { max: BYTES_MAX, .. })));
        let long = vec![0; PACKED_BYTES_MAX + 1];
        assert!(matches!(decode(&long), Err(LogError::TooLarge { .. })));
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert!(matches!(decode(b"lines of text"), Err(LogError::Frame(_))));
        let packed = encode(&log(10, |n| n.to_string())).unwrap();
        for cut in 0..packed.len() {
            assert!(
                decode(&packed[..cut]).map_or(true, |log| log.first.len() < 10),
                "cut at {cut}"
            );
        }
        let other = zstd::bulk::compress(b"\xff\xff\xff", 1).unwrap();
        assert!(matches!(decode(&other), Err(LogError::Message(_))));
    }
}
