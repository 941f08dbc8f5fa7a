//! The bytes of keys and values.
//!
//! Every value of the log and of `meta` begins with a check: the first 8 bytes of the BLAKE3 of its key and the rest. RocksDB checks its
//! blocks, but not that a value is the one that was written under this key by this program.
//!
//! | family | key | value after the check |
//! |---|---|---|
//! | `log` | index, u64 big-endian | kind u8, term u64 little-endian, content |
//! | `meta` | a name of [`keys`] | the stamp, or postcard |
//! | `rows-a`, `rows-b` | table u8, key | the row, without a check: snapshots carry a digest of all |

use serde::Serialize;
use serde::de::DeserializeOwned;
use tresor_proto::ids::MemberId;

use super::StoreError;
use super::types::{Entry, EntryKind, Row, Stamp};

/// Version of the tables. A store of another version is refused, never guessed at.
pub const FORMAT_VERSION: u32 = 1;
/// Longest key of a row.
pub const ROW_KEY_BYTES_MAX: usize = 1 << 10;
/// Longest row: a bitmap of a large dead list is some hundred kilobytes. A piece of a snapshot has at least one row, and 4 MiB is what gRPC
/// takes as one message.
pub const ROW_BYTES_MAX: usize = 2 << 20;
/// Tables of the state machine are numbered below this, the greatest number, so that one key is greater than all rows.
pub const ROW_TABLES: u8 = u8::MAX;
/// Largest content of an entry: a command with a batch of some thousand names fits.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Names in `meta`.
pub(super) mod keys {
    pub(crate) const STAMP: &[u8] = b"stamp";
    pub(crate) const HARD: &[u8] = b"hard";
    pub(crate) const APPLIED: &[u8] = b"applied";
    pub(crate) const MEMBERSHIP: &[u8] = b"membership";
    pub(crate) const COMPACTED: &[u8] = b"compacted";
    pub(crate) const SIDE: &[u8] = b"side";
}

const CHECK: usize = 8;

fn check(key: &[u8], body: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    // The length first, so that no byte can move between key and body.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    let mut check = [0; CHECK];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    [&check(key, body), body].concat()
}

fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (found, body) = value.split_first_chunk::<CHECK>().ok_or("it is cut short")?;
    if *found == check(key, body) {
        Ok(body)
    } else {
        Err("its check does not match")
    }
}

fn fact_name(key: &[u8]) -> String {
    format!("the fact {:?}", String::from_utf8_lossy(key))
}

/// Encodes a fact.
pub(super) fn fact<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    let body = postcard::to_stdvec(value).expect("plain values in memory can be encoded");
    seal(key, &body)
}

/// Decodes a fact.
pub(super) fn read_fact<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    let corrupt = |why| StoreError::corrupt(fact_name(key), why);
    let body = unseal(key, value).map_err(corrupt)?;
    plain(body).map_err(corrupt)
}

/// Decodes a value of postcard that ends where its bytes end.
pub(crate) fn plain<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err("there are bytes behind it"),
        Err(_) => Err("it cannot be decoded"),
    }
}

/// Encodes a stamp: version u32, member u64, little-endian; cluster. No check before it: the version stays first for ever.
pub(super) fn stamp(stamp: &Stamp) -> Vec<u8> {
    let body = [
        &FORMAT_VERSION.to_le_bytes()[..],
        &stamp.node.0.to_le_bytes(),
        &stamp.cluster,
    ]
    .concat();
    [&body[..], &check(keys::STAMP, &body)].concat()
}

/// Decodes a stamp.
pub(super) fn read_stamp(value: &[u8]) -> Result<Stamp, StoreError> {
    let corrupt = |why| StoreError::corrupt("the stamp", why);
    let (version, _) = value.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    let version = u32::from_le_bytes(*version);
    if version != FORMAT_VERSION {
        return Err(StoreError::Version {
            found: version,
            known: FORMAT_VERSION,
        });
    }
    let (body, found) = value
        .split_last_chunk::<CHECK>()
        .ok_or_else(|| corrupt("it is cut short"))?;
    if *found != check(keys::STAMP, body) {
        return Err(corrupt("its check does not match"));
    }
    let ids = &body[4..];
    let (node, cluster) = ids.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    Ok(Stamp {
        node: MemberId(u64::from_le_bytes(*node)),
        cluster: cluster.try_into().map_err(|_| corrupt("it has another length"))?,
    })
}

/// The key of an entry.
pub(super) fn entry_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// Encodes an entry.
pub(super) fn entry(entry: &Entry) -> Vec<u8> {
    let kind = match entry.kind {
        EntryKind::Command => 0,
        EntryKind::Change => 1,
    };
    let body = [&[kind][..], &entry.term.to_le_bytes(), &entry.data].concat();
    seal(&entry_key(entry.index), &body)
}

/// Decodes an entry.
pub(super) fn read_entry(key: &[u8], value: Vec<u8>) -> Result<Entry, StoreError> {
    let index = key
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| StoreError::corrupt("the log", "a key is no index"))?;
    let corrupt = |why| StoreError::corrupt(format!("entry {index} of the log"), why);
    let body = unseal(key, &value).map_err(corrupt)?;
    let (kind, rest) = body.split_first().ok_or_else(|| corrupt("it is cut short"))?;
    let (term, data) = rest.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    let content = value.len() - data.len();
    Ok(Entry {
        index,
        term: u64::from_le_bytes(*term),
        kind: match kind {
            0 => EntryKind::Command,
            1 => EntryKind::Change,
            _ => return Err(corrupt("its kind is not known")),
        },
        data: bytes::Bytes::from(value).split_off(content),
    })
}

/// The key of a row.
pub(super) fn row_key(table: u8, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    if table == ROW_TABLES {
        return Err(StoreError::Order {
            what: "a row's table is numbered 255",
        });
    }
    if key.len() > ROW_KEY_BYTES_MAX {
        return Err(StoreError::TooLarge {
            what: "a row's key",
            bytes: key.len(),
            max: ROW_KEY_BYTES_MAX,
        });
    }
    Ok([&[table][..], key].concat())
}

/// Splits a row's key.
pub(super) fn read_row(mut key: Vec<u8>, value: Vec<u8>) -> Result<Row, StoreError> {
    if key.is_empty() {
        return Err(StoreError::corrupt("a row", "its key is empty"));
    }
    let table = key.remove(0);
    Ok(Row { table, key, value })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry {
            index: 17,
            term: 3,
            kind: EntryKind::Change,
            data: bytes::Bytes::from_static(b"content"),
        }
    }

    #[test]
    fn entries_survive_and_any_flipped_bit_or_lost_byte_is_noticed() {
        let key = entry_key(17);
        let value = entry(&sample());
        assert_eq!(read_entry(&key, value.clone()).unwrap(), sample());
        for bit in 0..value.len() * 8 {
            let mut broken = value.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(read_entry(&key, broken).is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(read_entry(&key, value[..length].to_vec()).is_err(), "{length} bytes");
        }
        let elsewhere = read_entry(&entry_key(18), value).unwrap_err();
        assert!(elsewhere.to_string().contains("entry 18"), "{elsewhere}");
    }

    #[test]
    fn a_stamp_of_another_format_is_told_from_damage_whatever_follows_it() {
        let mine = Stamp {
            node: MemberId(3),
            cluster: [7; 16],
        };
        let value = stamp(&mine);
        assert_eq!(read_stamp(&value).unwrap(), mine);
        for length in 0..value.len() {
            assert!(
                matches!(read_stamp(&value[..length]), Err(StoreError::Corrupt { .. })),
                "{length}"
            );
        }
        for other in [&[2, 0, 0, 0][..], &[2, 0, 0, 0, 1, 2, 3]] {
            assert!(matches!(read_stamp(other), Err(StoreError::Version { found: 2, .. })));
        }
    }

    #[test]
    fn facts_end_where_their_bytes_end() {
        let value = fact(keys::HARD, &7_u64);
        assert_eq!(read_fact::<u64>(keys::HARD, &value).unwrap(), 7);
        assert!(read_fact::<u64>(keys::APPLIED, &value).is_err());
        let longer = seal(keys::HARD, &[7, 0]);
        assert!(read_fact::<u64>(keys::HARD, &longer).is_err());
    }
}
