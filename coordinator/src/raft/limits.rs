//! Every bound of consensus, with its reason.

use crate::store::ENTRY_BYTES_MAX;

/// Entries in one message to a follower: a follower that catches up reads and syncs that much at once.
pub const APPEND_BYTES: usize = 1 << 20;
/// Messages with entries on the way to one follower.
pub const APPENDS_IN_FLIGHT: usize = 64;
/// Largest message: one entry more than fits, and what surrounds entries.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
const _: () = assert!(APPEND_BYTES + ENTRY_BYTES_MAX <= MESSAGE_BYTES_MAX);

/// Proposals that wait for their outcome: ten seconds of the busiest cluster.
pub const PROPOSALS_MAX: usize = 1024;
/// Bytes of proposals that wait for their outcome.
pub const PROPOSAL_BYTES_MAX: usize = 16 << 20;
/// Bytes that a leader appends without knowing them committed, those of an earlier process of its own included: beyond, proposals are dropped.
pub const UNCOMMITTED_BYTES_MAX: u64 = 2 * PROPOSAL_BYTES_MAX as u64;
/// Bytes of entries that are applied as one batch: bounds its rows, and how long messages wait behind it.
pub const APPLY_BYTES: u64 = 4 << 20;

/// Reads that wait for their index.
pub const READS_MAX: usize = 4096;
/// Bytes of a read's context: member, life and number, and room for another program's.
pub const CONTEXT_BYTES_MAX: usize = 64;

/// Snapshots sent at once: each holds a view, and reads the whole state.
pub const SNAPSHOTS_SENT_MAX: usize = 2;
/// Largest first message of a snapshot: positions and members.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 64 << 10;

/// Messages put aside until what they rely on is on disk. More are lost, as messages may be.
pub const ASIDE_MAX: usize = 256;

/// Entries that a learner may be behind and still be made a voter: it has them a moment later, and a change that waits for all of them would
/// never come while work goes on.
pub const PROMOTION_LAG: u64 = 64;

/// No index, term or number of a member is as large: sums of two never overflow.
pub const NUMBER_MAX: u64 = 1 << 60;
