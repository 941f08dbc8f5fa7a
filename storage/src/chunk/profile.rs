//! Cutting profiles. A vault has one for life: chunks of two profiles hardly ever match.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;

/// How long chunks get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// 16 KiB at least, about 28 KiB on average, 128 KiB at most: what VM disks deduplicate best at.
    #[default]
    Grain32k,
    /// 16 KiB at least, about 60 KiB on average: half as many chunks, 4 % more bytes.
    Grain64k,
    /// 64 KiB always: for disks of databases that move nothing, and for comparison.
    Fixed64k,
}

/// The numbers of a profile, in grains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) min: u32,
    /// A chunk of at least `min` grains ends after a grain whose MAC is 0 modulo this. 0: never.
    pub(crate) divisor: u64,
    pub(crate) max: u32,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Grain32k, Self::Grain64k, Self::Fixed64k];

    pub(crate) const fn lengths(self) -> Lengths {
        match self {
            Self::Grain32k => Lengths {
                min: 4,
                divisor: 4,
                max: 32,
            },
            Self::Grain64k => Lengths {
                min: 4,
                divisor: 12,
                max: 32,
            },
            Self::Fixed64k => Lengths {
                min: 16,
                divisor: 0,
                max: 16,
            },
        }
    }

    /// Its name in the vault's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grain32k => "grain-32k",
            Self::Grain64k => "grain-64k",
            Self::Fixed64k => "fixed-64k",
        }
    }

    /// Its number in roots.
    pub const fn code(self) -> u8 {
        match self {
            Self::Grain32k => 1,
            Self::Grain64k => 2,
            Self::Fixed64k => 3,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| FormatError::Mismatch {
                what: "profile",
                expected: String::from("grain-32k, grain-64k or fixed-64k"),
                found: name.chars().take(40).collect(),
            })
    }
}

const _: () = assert!(Profile::Grain64k.lengths().max <= crate::limits::CHUNK_GRAINS_MAX);
