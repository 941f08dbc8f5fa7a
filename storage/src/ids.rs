//! Names of things: newtypes over random or counted numbers, with one text form each.
//!
//! Text forms are lower-case hexadecimal of fixed width, so that names sort as their numbers do.

use std::fmt;
use std::str::FromStr;

/// A text that is not the name of what was asked for.
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

/// Fills an array from the operating system's random generator.
///
/// # Panics
/// When the operating system has no random numbers: nothing safe can be done without them.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
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

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Draws a new one.
            pub fn random() -> Self {
                Self(random_bytes())
            }

            /// Takes the bytes of a stored one.
            ///
            /// # Errors
            /// When the length is another.
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

id!(
    /// A vault, for life.
    VaultId, 16, "a vault id (32 hexadecimal digits)"
);
id!(
    /// An item: one protected machine.
    ItemId, 16, "an item id (32 hexadecimal digits)"
);
id!(
    /// A recovery point; drawn anew for each attempt.
    PointId, 16, "a point id (32 hexadecimal digits)"
);
id!(
    /// The name of a chunk's or a recipe node's content: a keyed hash (each kind under a key of its own).
    ChunkId, 32, "a chunk id (64 hexadecimal digits)"
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).map(u64::from_be_bytes).map(Self).ok_or_else(|| ParseIdError::new($what, text))
            }
        }
    };
}

number!(
    /// A cluster or a home: 64 random bits drawn with each claim on a vault.
    ClusterId, "a cluster id (16 hexadecimal digits)"
);
number!(
    /// An attempt's registration as a writer: the log index (or the home's counter) that opened it.
    SessionId, "a session number (16 hexadecimal digits)"
);
number!(
    /// One process's share of a session: 64 random bits, drawn by that process, never shared.
    PartId, "a part id (16 hexadecimal digits)"
);

impl ClusterId {
    /// Draws a new one.
    pub fn random() -> Self {
        Self(u64::from_le_bytes(random_bytes()))
    }
}

impl PartId {
    /// Draws a new one.
    pub fn random() -> Self {
        Self(u64::from_le_bytes(random_bytes()))
    }
}

/// Who wrote an object: never two processes with one writer, so no name is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Writer {
    /// The cluster (or home) that the session belongs to.
    pub cluster: ClusterId,
    /// The session.
    pub session: SessionId,
    /// The process's share.
    pub part: PartId,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.cluster, self.session, self.part)
    }
}

impl FromStr for Writer {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new("a writer (three numbers of 16 hexadecimal digits)", text);
        let mut parts = text.split('-');
        let (Some(cluster), Some(session), Some(part), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            cluster: cluster.parse().map_err(|_| wrong())?,
            session: session.parse().map_err(|_| wrong())?,
            part: part.parse().map_err(|_| wrong())?,
        })
    }
}

/// One pack: the `seq`-th of its writer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PackId {
    /// Who wrote it.
    pub writer: Writer,
    /// Dense from 0.
    pub seq: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.writer, self.seq)
    }
}

/// Where a chunk or a recipe node lies: one ranged read fetches it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Where its frame starts in the pack, bytes.
    pub frame_offset: u32,
    /// How long the frame is in the pack, with its clear header, bytes.
    pub frame_length: u32,
    /// Where it starts in the frame: grains for chunks, bytes for recipe nodes.
    pub place: u32,
}

/// A checkpoint of slots of one group, as its name tells.
///
/// Of two that have a slot, the one with the higher session, then the higher number, is newer: an owner of the slot that comes later has a later
/// grant, and learns of grants in their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CheckpointId {
    /// The group.
    pub group: u8,
    /// Who wrote it; in place of a session, the newest grant among the owner's slots (a log index).
    pub writer: Writer,
    /// Counted by the writer, upwards.
    pub number: u32,
    /// The slots that it has whole, the group's lowest slot the lowest bit; never none.
    pub slots: u64,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            writer,
            number,
            slots,
        } = self;
        write!(f, "{group:02x}/{writer}/{number:08x}-{slots:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_survive_their_text_form() {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(0xabc),
            part: PartId(u64::MAX),
        };
        assert_eq!(writer.to_string(), "0000000000000001-0000000000000abc-ffffffffffffffff");
        assert_eq!(writer.to_string().parse(), Ok(writer));
    }

    #[test]
    fn texts_of_another_shape_are_refused() {
        for text in [
            "",
            "1-2-3",
            "0000000000000001-0000000000000abc",
            "0000000000000001-0000000000000ABC-ffffffffffffffff",
        ] {
            assert!(text.parse::<Writer>().is_err(), "{text}");
        }
        assert!("00".parse::<VaultId>().is_err());
    }
}
