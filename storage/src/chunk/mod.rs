//! From a segment of a disk to named pieces: holes, cuts, ids.
//!
//! Pure and synchronous; callers run it off the async tasks. Read `profile`, `hole`, `cut`, `id`, `print`, then `recut`.

mod cut;
mod hole;
mod id;
mod print;
mod profile;
pub mod recut;

pub use cut::{Cutter, Piece};
pub use hole::is_zero;
pub use id::IdKeys;
pub use print::{Fingerprint, Fingerprinter};
pub use profile::Profile;
