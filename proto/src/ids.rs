//! Names of things as they travel and as the coordinator keeps them.
//!
//! Ids of vaults, items and points are 128 random bits, shown as 32 hexadecimal digits, the same as in a vault's object names. What the log
//! numbers (jobs, sessions, epochs) has the log index that made it, so that no number is used twice and a later one is greater.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text or bytes that are not the name of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseIdError {
    /// What was expected.
    pub what: &'static str,
    /// What was found, shortened.
    pub text: String,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str) -> Self {
        Self {
            what,
            text: text.chars().take(80).collect(),
        }
    }
}

/// Writes bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

/// Reads exactly `N` bytes of lower-case hexadecimal.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! drawn {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Takes the bytes of one that travelled.
            ///
            /// # Errors
            /// When there are not 16 of them.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError::new($what, &hex(bytes)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).map(Self).ok_or_else(|| ParseIdError::new($what, text))
            }
        }
    };
}

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self).map_err(|_| ParseIdError::new($what, text))
            }
        }
    };
}

drawn!(
    /// A vault, for life.
    VaultId, "a vault id (32 hexadecimal digits)"
);
drawn!(
    /// A policy.
    PolicyId, "a policy id (32 hexadecimal digits)"
);
drawn!(
    /// An item: one protected machine.
    ItemId, "an item id (32 hexadecimal digits)"
);
drawn!(
    /// A recovery point; drawn anew for each attempt.
    PointId, "a point id (32 hexadecimal digits)"
);
drawn!(
    /// An API token or a join token; never the secret.
    TokenId, "a token id (32 hexadecimal digits)"
);
counted!(
    /// A coordinator, for the life of the cluster: a removed one's number is never given again.
    MemberId, "a number of a coordinator"
);
counted!(
    /// A worker, for the life of the cluster: a removed one's number is never given again.
    WorkerId, "a number of a worker"
);
counted!(
    /// A job: the log index that queued it.
    JobId, "a job's number"
);
counted!(
    /// A lease's fence: the log index that granted it. A later lease of a job has a greater one.
    Epoch, "an epoch"
);
counted!(
    /// A session: the log index that opened it.
    SessionId, "a session's number"
);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write_and_nothing_else() {
        let id = ItemId([0xab; 16]);
        assert_eq!(id.to_string().parse::<ItemId>().unwrap(), id);
        assert_eq!(ItemId::from_slice(&id.0).unwrap(), id);
        for wrong in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"g0".repeat(16)] {
            assert!(wrong.parse::<ItemId>().is_err(), "{wrong}");
        }
        assert_eq!("42".parse::<JobId>().unwrap(), JobId(42));
        assert!("-1".parse::<JobId>().is_err());
    }
}
