//! What stories about whole vaults are told with: disks and deciding sides in memory, vaults made by the real code, seeded randomness.
//!
//! Read `vault` (the stage), then `disk`, `control`, `random`; `parsers` are the ways in for foreign bytes, shared with the fuzz targets.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

pub mod control;
pub mod disk;
pub mod parsers;
pub mod random;
pub mod vault;
