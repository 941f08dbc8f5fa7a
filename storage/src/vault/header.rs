//! The header `vault.pb`: what a vault is, in clear, written once for life.
//!
//! Its BLAKE3 is in every key revision, under their MACs, so whoever opens the keys knows that the header is the vault's own.

use bytes::Bytes;
use prost::Message as _;

use crate::backend::Abilities;
use crate::error::FormatError;
use crate::ids::{ClusterId, VaultId};
use crate::keys::ObjectHash;
use crate::limits::{HEADER_MAX, SHORT_TEXT_MAX, STORES_MAX, URL_MAX};
use crate::stored;

const FORMAT_VERSION: u32 = 1;
const WHAT: &str = "vault header";

/// How many copies of a vault there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redundancy {
    /// In stores of one region, written before a backup is acknowledged.
    Local,
    /// As local, and an asynchronous copy in another region.
    Geo,
}

impl Redundancy {
    /// The word in the header and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Geo => "geo",
        }
    }
}

/// One place for a vault's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// URL without credentials.
    pub url: String,
    /// Region label; may be empty.
    pub region: String,
    /// What the store was seen to do when the vault was made.
    pub abilities: Abilities,
}

/// What a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The vault.
    pub vault: VaultId,
    /// How disks are cut: the name of a profile, for life.
    pub profile: String,
    /// Where the vault was made.
    pub stores: Vec<StoreEntry>,
    /// How many copies.
    pub redundancy: Redundancy,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The program and its version.
    pub created_by: String,
    /// The cluster id that was drawn with the first claim; 0 in the header of an older program. No two makings have it in common, so none takes the
    /// header of another, made under the same id in the same second, for its own.
    pub first_cluster: ClusterId,
}

/// The BLAKE3 of a header's bytes as they are stored.
pub fn header_hash(bytes: &[u8]) -> ObjectHash {
    *blake3::hash(bytes).as_bytes()
}

impl Header {
    /// The bytes of `vault.pb`.
    ///
    /// # Errors
    /// When the header breaks a bound that its readers check.
    pub fn encode(&self) -> Result<Bytes, FormatError> {
        let bytes: Bytes = stored::VaultHeader {
            format_version: FORMAT_VERSION,
            vault_id: self.vault.0.to_vec().into(),
            profile: self.profile.clone(),
            stores: self
                .stores
                .iter()
                .map(|store| stored::StoreEntry {
                    url: store.url.clone(),
                    region: store.region.clone(),
                    abilities: Some(stored::StoreAbilities {
                        create_only: store.abilities.create_only,
                        lists_fresh: store.abilities.lists_fresh,
                        ranged_reads: store.abilities.ranged_reads,
                        deletes: store.abilities.deletes,
                    }),
                })
                .collect(),
            redundancy: self.redundancy.word().to_owned(),
            created_at: self.created_at.clone(),
            created_by: self.created_by.clone(),
            first_cluster: self.first_cluster.0,
        }
        .encode_to_vec()
        .into();
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    /// Reads `vault.pb`.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for another version or a redundancy of a later one; others for what is no header.
    pub fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what: WHAT, why };
        bounded("vault header (bytes)", bytes.len(), HEADER_MAX)?;
        if bytes.is_empty() {
            return Err(FormatError::Truncated {
                what: WHAT,
                need: 1,
                have: 0,
            });
        }
        let stored = stored::VaultHeader::decode(bytes.clone()).map_err(|_| malformed("it cannot be decoded"))?;
        if stored.format_version != FORMAT_VERSION {
            return Err(FormatError::Unsupported {
                what: "format version of the vault header",
                value: stored.format_version.into(),
            });
        }
        bounded("number of stores of the vault header", stored.stores.len(), STORES_MAX)?;
        for text in [
            &stored.profile,
            &stored.redundancy,
            &stored.created_at,
            &stored.created_by,
        ] {
            check_text("text of the vault header (bytes)", text, SHORT_TEXT_MAX)?;
        }
        if stored.profile.is_empty() || stored.stores.is_empty() {
            return Err(malformed("it names no profile or no store"));
        }
        let redundancy = match stored.redundancy.as_str() {
            "local" => Redundancy::Local,
            "geo" => Redundancy::Geo,
            _ => {
                return Err(FormatError::Unsupported {
                    what: "redundancy of the vault header",
                    value: 0,
                });
            }
        };
        let stores = stored
            .stores
            .into_iter()
            .map(|store| {
                check_text("URL of a store (bytes)", &store.url, URL_MAX)?;
                check_text("region of a store (bytes)", &store.region, SHORT_TEXT_MAX)?;
                let seen = store
                    .abilities
                    .ok_or(malformed("it does not say what a store can do"))?;
                Ok(StoreEntry {
                    url: store.url,
                    region: store.region,
                    abilities: Abilities {
                        create_only: seen.create_only,
                        lists_fresh: seen.lists_fresh,
                        ranged_reads: seen.ranged_reads,
                        deletes: seen.deletes,
                    },
                })
            })
            .collect::<Result<_, FormatError>>()?;
        Ok(Self {
            vault: VaultId::from_slice(&stored.vault_id).map_err(|_| malformed("vault id is not 16 bytes"))?,
            profile: stored.profile,
            stores,
            redundancy,
            created_at: stored.created_at,
            created_by: stored.created_by,
            first_cluster: ClusterId(stored.first_cluster),
        })
    }
}

fn bounded(what: &'static str, value: usize, max: usize) -> Result<(), FormatError> {
    if value > max {
        return Err(FormatError::TooLarge {
            what,
            value: value as u64,
            max: max as u64,
        });
    }
    Ok(())
}

/// Text that will be shown: bounded, and nothing that moves a terminal's cursor.
fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), FormatError> {
    bounded(what, text.len(), max)?;
    if text.chars().any(char::is_control) {
        return Err(FormatError::Malformed {
            what: WHAT,
            why: "a text has control characters",
        });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            vault: VaultId([3; 16]),
            profile: String::from("grain-32k"),
            stores: vec![StoreEntry {
                url: String::from("s3://bucket/main"),
                region: String::from("eu-1"),
                abilities: Abilities {
                    create_only: true,
                    lists_fresh: true,
                    ranged_reads: true,
                    deletes: false,
                },
            }],
            redundancy: Redundancy::Local,
            created_at: String::from("2026-11-22T05:00:00Z"),
            created_by: String::from("tresor 0.1.0"),
            first_cluster: ClusterId(9),
        }
    }

    #[test]
    fn another_version_is_unsupported_not_damage() {
        let bytes = header().encode().unwrap();
        let mut stored = stored::VaultHeader::decode(bytes).unwrap();
        stored.format_version = 2;
        let error = Header::decode(&stored.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Unsupported);
        stored.format_version = 1;
        stored.redundancy = String::from("orbital");
        let error = Header::decode(&stored.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Unsupported);
    }

    #[test]
    fn headers_over_the_bounds_are_refused() {
        let store = header().stores[0].clone();
        let bad = [
            Header {
                stores: vec![],
                ..header()
            },
            Header {
                stores: vec![store.clone(); STORES_MAX + 1],
                ..header()
            },
            Header {
                stores: vec![StoreEntry {
                    url: "a".repeat(URL_MAX + 1),
                    ..store.clone()
                }],
                ..header()
            },
            Header {
                stores: vec![StoreEntry {
                    region: String::from("\u{1b}[2J"),
                    ..store
                }],
                ..header()
            },
            Header {
                profile: String::new(),
                ..header()
            },
            Header {
                created_by: "a".repeat(SHORT_TEXT_MAX + 1),
                ..header()
            },
        ];
        for header in bad {
            assert!(header.encode().is_err(), "{header:?}");
        }
        assert!(Header::decode(&Bytes::from(vec![0; HEADER_MAX + 1])).is_err());
        assert!(Header::decode(&Bytes::new()).is_err());
    }

    #[test]
    fn no_cut_header_is_taken_for_a_whole_one() {
        let bytes = header().encode().unwrap();
        assert_eq!(Header::decode(&bytes).unwrap(), header());
        for length in 0..bytes.len() {
            // A cut between two fields may decode; the hash in the key revisions tells.
            let cut = bytes.slice(..length);
            assert!(
                Header::decode(&cut).is_err() || header_hash(&cut) != header_hash(&bytes),
                "cut at {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_header_within_the_bounds_survives(
            vault: [u8; 16], profile in "[a-z0-9-]{1,20}", urls in prop::collection::vec("[ -~]{0,100}", 1..5),
            geo: bool, abilities: [bool; 4],
        ) {
            let [create_only, lists_fresh, ranged_reads, deletes] = abilities;
            let abilities = Abilities { create_only, lists_fresh, ranged_reads, deletes };
            let stores = urls.into_iter().map(|url| StoreEntry { url, region: String::new(), abilities }).collect();
            let redundancy = if geo { Redundancy::Geo } else { Redundancy::Local };
            let header = Header { vault: VaultId(vault), profile, stores, redundancy, ..header() };
            prop_assert_eq!(Header::decode(&header.encode().unwrap()).unwrap(), header);
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise_than_by_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::decode(&bytes.into());
        }
    }
}
