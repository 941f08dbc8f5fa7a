//! Whose index a database is, written into it and compared on open.

use crate::ids::{ClusterId, VaultId};

/// Version of the tables and rows. Another one on disk is rebuilt, never converted: the index is a memory.
pub const INDEX_VERSION: u32 = 2;

/// The vault and the claim on it that an index was made under.
///
/// A vault that was taken over in between may have lost packs to the other holder's sweeps, so a later claim needs a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The vault.
    pub vault: VaultId,
    /// The cluster or home that may write.
    pub cluster: ClusterId,
    /// The number of its claim.
    pub claim: u64,
}

impl Stamp {
    /// The row: version u32, vault, cluster u64, claim u64; little-endian. The version stays first for ever.
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.cluster.0.to_le_bytes(), self.claim.to_le_bytes()];
        [&INDEX_VERSION.to_le_bytes()[..], &self.vault.0, numbers.as_flattened()].concat()
    }

    /// Compares a stored row with this stamp.
    ///
    /// # Errors
    /// Why the index must be rebuilt.
    pub(super) fn check(&self, row: &[u8]) -> Result<(), String> {
        let (version, _) = row.split_first_chunk::<4>().ok_or("its stamp is cut short")?;
        let version = u32::from_le_bytes(*version);
        if version != INDEX_VERSION {
            return Err(format!(
                "it is of index version {version}, this program's is {INDEX_VERSION}"
            ));
        }
        let row: &[u8; 36] = row.try_into().map_err(|_| "its stamp is malformed")?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut vault = [0; 16];
        vault.copy_from_slice(&row[4..20]);
        let found = Self {
            vault: VaultId(vault),
            cluster: ClusterId(number(20)),
            claim: number(28),
        };
        if found.vault != self.vault {
            return Err(format!("it is of vault {}, not {}", found.vault, self.vault));
        }
        if found != *self {
            let Self { cluster, claim, .. } = found;
            return Err(format!(
                "it was made under claim {claim} of {cluster}, not {} of {}",
                self.claim, self.cluster
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        vault: VaultId([7; 16]),
        cluster: ClusterId(8),
        claim: 9,
    };

    #[test]
    fn a_stamp_matches_only_itself() {
        assert_eq!(STAMP.check(&STAMP.encode()), Ok(()));
        for other in [
            Stamp {
                vault: VaultId([6; 16]),
                ..STAMP
            },
            Stamp {
                cluster: ClusterId(1),
                ..STAMP
            },
            Stamp { claim: 10, ..STAMP },
        ] {
            assert!(STAMP.check(&other.encode()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage_whatever_follows_it() {
        for row in [&[3, 0, 0, 0][..], &[3, 0, 0, 0, 1, 2, 3]] {
            assert!(STAMP.check(row).is_err_and(|why| why.contains("version 3")));
        }
        assert!(STAMP.check(&[]).is_err());
        assert!(STAMP.check(&STAMP.encode()[..35]).is_err());
    }
}
