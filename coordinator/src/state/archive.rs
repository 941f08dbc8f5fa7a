//! All rows of the state as one stream of bytes: for the day on which most coordinators are lost.
//!
//! ```text
//! 16       "tresor state 1\r\n"
//! 4        length of the header
//! …        the header, in postcard: cluster, its name, the index of the log, its clock, how many rows follow
//! rows     each: 1 table · 4 length of the key · key · 4 length of the row · row, as the coordinator stores them
//! 32       BLAKE3 of everything before
//! ```
//! Lengths are little-endian. Rows are those of one moment. What is secret in them (the authority's key, the vaults' platform keys) is wrapped by the
//! cluster key, which is not among them: whoever wants those back keeps that file, too. Tokens are there as hashes. Names, paths and policies are
//! plain, so that whoever stores the stream seals it.

use serde::{Deserialize, Serialize};

use super::entry::Time;
use super::table::RowChange;
use super::{State, TABLES};

/// How the stream begins. The line end shows a stream that was changed as if it were a text.
const MAGIC: &[u8; 16] = b"tresor state 1\r\n";
/// Largest piece of the stream, but for rows that are larger alone: a quarter of what a message of gRPC may have.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// Largest header, key and row that are read. The largest row is an item's, with 128 disks: about half a megabyte.
const HEADER_MAX: usize = 64 << 10;
const KEY_MAX: usize = 64;
const ROW_MAX: usize = 16 << 20;

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster.
    pub cluster: [u8; 16],
    /// Its name.
    pub name: String,
    /// Everything up to this entry of the log is in it.
    pub index: u64,
    /// The cluster's clock.
    pub time: Time,
    /// How many rows follow.
    pub rows: u64,
}

/// Why a stream is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Something else.
    #[error("this is no backup of a cluster's state, or one of a version that is not known")]
    Kind,
    /// Its end is missing.
    #[error("the backup of the cluster's state is cut short")]
    Short,
    /// It is not what was written.
    #[error("the backup of the cluster's state is damaged: {why}")]
    Damaged {
        /// What is wrong.
        why: &'static str,
    },
}

/// A row as [`State::load`] takes it: table, key, row.
pub type StoredRow = (u8, Vec<u8>, Vec<u8>);

/// Writes the stream piece by piece.
pub struct Archive {
    rows: State,
    hasher: blake3::Hasher,
    step: Step,
}

enum Step {
    Header(Header),
    Rows { table: u8, after: Option<Vec<u8>> },
    End,
    Done,
}

impl Archive {
    /// Of a state in which everything up to `index` is applied. Costs a copy of its rows; encoding them is done while they are asked for.
    pub fn new(state: &State, index: u64) -> Self {
        let rows = state.copy_of_rows();
        let (cluster, name) = state
            .cluster()
            .map(|cluster| (cluster.id, cluster.name.clone()))
            .unwrap_or_default();
        let header = Header {
            cluster,
            name,
            index,
            time: state.now(),
            rows: rows.rows_count() as u64,
        };
        Self {
            rows,
            hasher: blake3::Hasher::new(),
            step: Step::Header(header),
        }
    }

    fn rows_piece(&mut self, table: u8, after: Option<&[u8]>) -> Vec<u8> {
        let rows = self.rows.rows_after(table, after, PIECE_BYTES_MAX / 2);
        self.step = match rows.last() {
            Some(last) => Step::Rows {
                table,
                after: Some(last.key.clone()),
            },
            None if table + 1 < TABLES => Step::Rows {
                table: table + 1,
                after: None,
            },
            None => Step::End,
        };
        let mut piece = Vec::new();
        for row in rows {
            append_row(&mut piece, &row);
        }
        piece
    }
}

fn append_row(piece: &mut Vec<u8>, row: &RowChange) {
    let value = row.value.as_deref().unwrap_or_default();
    piece.push(row.table);
    for part in [row.key.as_slice(), value] {
        let length = u32::try_from(part.len()).expect("rows are far smaller than 4 GiB");
        piece.extend_from_slice(&length.to_le_bytes());
        piece.extend_from_slice(part);
    }
}

impl Iterator for Archive {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let piece = match std::mem::replace(&mut self.step, Step::Done) {
                Step::Header(header) => {
                    self.step = Step::Rows { table: 0, after: None };
                    let header = postcard::to_stdvec(&header).expect("a header is plain data and memory can be had");
                    let length = u32::try_from(header.len()).expect("a header has a few hundred bytes");
                    [MAGIC.as_slice(), &length.to_le_bytes(), &header].concat()
                }
                Step::Rows { table, after } => self.rows_piece(table, after.as_deref()),
                Step::End => return Some(self.hasher.finalize().as_bytes().to_vec()),
                Step::Done => return None,
            };
            // A table may have no rows, or no more of them.
            if !piece.is_empty() {
                self.hasher.update(&piece);
                return Some(piece);
            }
        }
    }
}

/// Reads a whole stream.
///
/// # Errors
/// [`ArchiveError`]: nothing of it is to be used.
pub fn read(bytes: &[u8]) -> Result<(Header, Vec<StoredRow>), ArchiveError> {
    let damaged = |why| ArchiveError::Damaged { why };
    let magic = bytes.get(..MAGIC.len()).ok_or(ArchiveError::Kind)?;
    if magic != MAGIC {
        return Err(ArchiveError::Kind);
    }
    let (whole, sum) = bytes.split_last_chunk::<32>().ok_or(ArchiveError::Short)?;
    let mut rest = whole.get(MAGIC.len()..).ok_or(ArchiveError::Short)?;
    let header = take(&mut rest, HEADER_MAX)?;
    let header: Header = postcard::from_bytes(header).map_err(|_| damaged("its header cannot be read"))?;
    let mut rows = Vec::new();
    for _ in 0..header.rows {
        let (table, after) = rest.split_first().ok_or(ArchiveError::Short)?;
        rest = after;
        let key = take(&mut rest, KEY_MAX)?;
        let row = take(&mut rest, ROW_MAX)?;
        rows.push((*table, key.to_vec(), row.to_vec()));
    }
    if !rest.is_empty() {
        return Err(damaged("there is more in it than it says"));
    }
    if blake3::hash(whole).as_bytes() != sum {
        return Err(damaged("its checksum is another"));
    }
    Ok((header, rows))
}

fn take<'b>(rest: &mut &'b [u8], max: usize) -> Result<&'b [u8], ArchiveError> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(ArchiveError::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(ArchiveError::Damaged {
            why: "a length is greater than any that is written",
        });
    }
    let part = after.get(..length).ok_or(ArchiveError::Short)?;
    *rest = &after[length..];
    Ok(part)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::testing::Story;

    fn story() -> State {
        let mut story = Story::new();
        for name in ["web", "db", "mail"] {
            let item = story.protect(name, None);
            story.backs_up(item);
        }
        story.state
    }

    fn written(state: &State) -> Vec<u8> {
        Archive::new(state, 42).collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_state_comes_back_row_by_row() {
        let state = story();
        let (header, rows) = read(&written(&state)).unwrap();
        assert_eq!(
            (header.index, header.name.as_str(), header.cluster),
            (42, "test", [7; 16])
        );
        assert_eq!(header.time, state.now());
        assert_eq!(rows.len(), state.all_rows().len());
        let again = State::load(rows).unwrap();
        assert_eq!(again.digest(), state.digest());
        assert_eq!(again, state);
    }

    #[test]
    fn nothing_is_read_of_a_stream_that_is_not_whole() {
        let bytes = written(&story());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(read(&wrong).is_err(), "byte {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(read(&longer).is_err());
        assert_eq!(read(b"something else"), Err(ArchiveError::Kind));
        assert_eq!(read(&[]), Err(ArchiveError::Kind));
    }

    #[test]
    fn pieces_are_bounded_and_what_changes_meanwhile_is_not_in_them() {
        let mut story = Story::new();
        let item = story.protect("web", None);
        for _ in 0..40 {
            story.backs_up(item);
        }
        let digest = story.state.digest();
        let mut archive = Archive::new(&story.state, 1);
        let mut bytes = archive.next().unwrap();
        for _ in 0..40 {
            story.backs_up(item);
        }
        for piece in archive {
            assert!(piece.len() <= PIECE_BYTES_MAX);
            bytes.extend(piece);
        }
        let (_, rows) = read(&bytes).unwrap();
        assert_eq!(State::load(rows).unwrap().digest(), digest);
    }

    #[test]
    fn large_tables_come_in_several_pieces() {
        use crate::state::command::{Command, DiskSpec};
        use crate::testing::{Acts, MAIN, item_id, item_spec};

        let mut story = Story::new();
        for n in 0..40 {
            let name = format!("item-{n}");
            let mut spec = item_spec(&name, MAIN, None);
            spec.disks = (0..100)
                .map(|disk| DiskSpec {
                    name: format!("disk-{disk}"),
                    path: format!("/{}", "x".repeat(1000)),
                    format: String::new(),
                })
                .collect();
            Acts::does(
                &mut story,
                Command::Protect {
                    item: item_id(&name, MAIN),
                    spec,
                    also: false,
                },
            );
        }
        let pieces: Vec<Vec<u8>> = Archive::new(&story.state, 1).collect();
        assert!(pieces.len() > 8, "{}", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        let (_, rows) = read(&pieces.concat()).unwrap();
        assert_eq!(State::load(rows).unwrap().digest(), story.state.digest());
    }
}
