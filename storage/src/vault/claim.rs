//! Claims: who may write to a vault.
//!
//! A claim is an object `cluster/<n>-<cluster>`. The highest `n` ranks first; of several with one `n`, the lowest cluster id. Before anything is
//! acknowledged or deleted, its writer puts what it wrote (a manifest, a dead list, a key revision), then lists the claims, then acts only if
//! none outranks its own; who takes over puts its claim first and then lists what is there. So one of the two always sees the other,
//! and no clock and no lock is needed.
//!
//! A claim that says it belongs to another vault (left by a making that did not finish) does not count. One whose text cannot be read does:
//! a doubtful claim stops a writer, it never lets one pass.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use prost::Message as _;

use super::{VaultError, names};
use crate::backend::{Backend, BackendError};
use crate::error::{Doing, FormatError, Result};
use crate::ids::{ClusterId, VaultId};
use crate::limits::{CLAIM_MAX, CLAIMS_MAX, NAME_MAX, SHORT_TEXT_MAX};
use crate::stored;

const FORMAT_VERSION: u32 = 1;
/// Names in `cluster/` that are no claims and are reported; of more only the count is.
const IGNORED_MAX: usize = 16;
/// How often a listing is repeated when a listed claim is gone at reading.
const LISTINGS_MAX: u32 = 3;
/// How long to wait between putting a claim and listing again on a store without create-only puts: its listings may lag a little.
pub const SETTLING: Duration = Duration::from_secs(2);

/// A claim as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListedClaim {
    /// From 1; `n + 1` fences `n`.
    pub number: u64,
    /// Who claims.
    pub cluster: ClusterId,
}

impl ListedClaim {
    /// The name of its object.
    pub fn object_name(self) -> String {
        names::claim(self.number, self.cluster)
    }

    /// Greater for the one that outranks.
    fn rank(self) -> (u64, Reverse<ClusterId>) {
        (self.number, Reverse(self.cluster))
    }
}

/// A claim with what people want to know of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The vault.
    pub vault: VaultId,
    /// Number and cluster.
    pub listed: ListedClaim,
    /// The holder's host.
    pub holder: String,
    /// When it claimed, RFC 3339, by its own clock.
    pub claimed_at: String,
    /// The program and its version.
    pub program: String,
}

/// Who claims, for the text of the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The vault.
    pub vault: VaultId,
    /// The host.
    pub holder: String,
    /// RFC 3339, UTC.
    pub now: String,
    /// The program and its version.
    pub program: String,
}

/// Where one stands among the claims of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody claims the vault.
    Free,
    /// Our claim ranks first.
    Ours,
    /// Somebody else's does.
    Outranked {
        /// The claim that ranks first.
        by: ListedClaim,
    },
    /// Nobody outranks us, but our claim is not listed: deleted, or not our store.
    Gone,
}

/// What `cluster/` lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The claims, highest rank first, of whatever vault.
    pub listed: Vec<ListedClaim>,
    /// Names that are no claims, at most 16.
    pub ignored: Vec<String>,
    /// How many names are no claims.
    pub ignored_count: usize,
}

/// Decides where `ours` stands among claims that count.
pub fn decide(claims: &[ListedClaim], ours: Option<ListedClaim>) -> Standing {
    let first = claims.iter().copied().max_by_key(|claim| claim.rank());
    match (first, ours) {
        (None, None) => Standing::Free,
        (None, Some(_)) => Standing::Gone,
        (Some(first), Some(ours)) if first == ours => Standing::Ours,
        (Some(first), Some(ours)) if first.rank() < ours.rank() => Standing::Gone,
        (Some(by), _) => Standing::Outranked { by },
    }
}

/// The number of a claim that outranks all of these; none when numbers are used up, which no honest history does.
pub fn next_number(claims: &[ListedClaim]) -> Option<u64> {
    claims
        .iter()
        .map(|claim| claim.number)
        .max()
        .unwrap_or(0)
        .checked_add(1)
}

impl Claim {
    /// The object's bytes.
    pub fn encode(&self) -> Bytes {
        stored::Claim {
            format_version: FORMAT_VERSION,
            vault_id: self.vault.0.to_vec().into(),
            number: self.listed.number,
            cluster: self.listed.cluster.0,
            holder: self.holder.clone(),
            claimed_at: self.claimed_at.clone(),
            program: self.program.clone(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads the claim stored under the name of `listed`.
    ///
    /// # Errors
    /// By what is wrong with it.
    pub fn decode(listed: ListedClaim, bytes: &Bytes) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what: "claim", why };
        if bytes.len() > CLAIM_MAX {
            return Err(FormatError::TooLarge {
                what: "claim (bytes)",
                value: bytes.len() as u64,
                max: CLAIM_MAX as u64,
            });
        }
        let stored = stored::Claim::decode(bytes.clone()).map_err(|_| malformed("it cannot be decoded"))?;
        if stored.format_version != FORMAT_VERSION {
            return Err(FormatError::Unsupported {
                what: "format version of the claim",
                value: stored.format_version.into(),
            });
        }
        let found = ListedClaim {
            number: stored.number,
            cluster: ClusterId(stored.cluster),
        };
        if found != listed {
            return Err(FormatError::Mismatch {
                what: "name of the claim",
                expected: found.object_name(),
                found: listed.object_name(),
            });
        }
        Ok(Self {
            vault: VaultId::from_slice(&stored.vault_id).map_err(|_| malformed("vault id is not 16 bytes"))?,
            listed,
            holder: shown(&stored.holder, NAME_MAX),
            claimed_at: shown(&stored.claimed_at, SHORT_TEXT_MAX),
            program: shown(&stored.program, SHORT_TEXT_MAX),
        })
    }
}

/// What others wrote, made fit for a message.
fn shown(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}

/// Lists the claims, of whatever vault.
///
/// # Errors
/// Those of the store; [`VaultError::TooMany`].
pub async fn list_claims(backend: &dyn Backend) -> Result<Claims> {
    let mut claims = Claims::default();
    let mut listing = backend.list(names::CLUSTER);
    while let Some(object) = listing.try_next().await.doing(|| String::from("list the claims"))? {
        if claims.listed.len() + claims.ignored_count >= CLAIMS_MAX {
            return Err(VaultError::TooMany {
                folder: names::CLUSTER,
                max: CLAIMS_MAX,
            }
            .into());
        }
        match names::parse_claim(&object.name) {
            Some((number, cluster)) => claims.listed.push(ListedClaim { number, cluster }),
            None => {
                claims.ignored_count += 1;
                if claims.ignored.len() < IGNORED_MAX {
                    claims.ignored.push(shown(&object.name, NAME_MAX));
                }
            }
        }
    }
    claims.listed.sort_by_key(|claim| Reverse(claim.rank()));
    Ok(claims)
}

/// Stores a claim under its own name. Whether it ranks first is told by the next listing only.
///
/// # Errors
/// Those of the store; [`VaultError::Collision`] when other bytes have the name.
pub async fn put_claim(backend: &dyn Backend, claim: &Claim) -> Result<()> {
    put_whole(backend, &claim.listed.object_name(), claim.encode(), CLAIM_MAX).await
}

/// The claim that ranks first of those of the vault, with its text where that can be read.
///
/// # Errors
/// Those of the store.
pub async fn holder(backend: &dyn Backend, vault: VaultId) -> Result<Option<(ListedClaim, Option<Claim>)>> {
    Ok(first_of(backend, vault, None).await?.1)
}

/// Checks that no claim outranks ours: before every acknowledgement and every delete.
///
/// # Errors
/// [`VaultError::TakenOver`] with the new holder, [`VaultError::ClaimGone`], those of the store.
pub async fn check_standing(backend: &dyn Backend, vault: VaultId, ours: ListedClaim) -> Result<()> {
    let (_, first) = first_of(backend, vault, Some(ours)).await?;
    let counted: Vec<ListedClaim> = first.iter().map(|(listed, _)| *listed).collect();
    match (decide(&counted, Some(ours)), first) {
        (Standing::Ours, _) => Ok(()),
        (Standing::Outranked { .. }, Some((listed, claim))) => {
            let (holder, since) = in_words(listed, claim);
            Err(VaultError::TakenOver { holder, since }.into())
        }
        _ => Err(VaultError::ClaimGone {
            claim: ours.object_name(),
        }
        .into()),
    }
}

/// Claims a vault that nobody holds.
///
/// `settle` is the time between the put and the listing that decides: [`SETTLING`] on a store without create-only puts, else zero.
///
/// # Errors
/// [`VaultError::Held`] when somebody holds it, [`VaultError::TakenOver`] when somebody was faster, those of the store.
pub async fn claim_first(backend: &dyn Backend, claimant: &Claimant, settle: Duration) -> Result<ListedClaim> {
    let (claims, first) = first_of(backend, claimant.vault, None).await?;
    if let Some((listed, claim)) = first {
        let (holder, since) = in_words(listed, claim);
        return Err(VaultError::Held { holder, since }.into());
    }
    claim_above(backend, claimant, &claims.listed, ClusterId::random(), settle).await
}

/// Claims a vault whoever holds it, under a new cluster id. The caller then lists what is there (`points/`, `dead/`, `keys/`), in this order:
/// so either it sees what the former holder did, or the former holder sees this claim.
///
/// # Errors
/// [`VaultError::TakenOver`] when somebody else took over at the same time and ranks first, those of the store.
pub async fn take_over(backend: &dyn Backend, claimant: &Claimant, settle: Duration) -> Result<ListedClaim> {
    take_over_as(backend, claimant, ClusterId::random(), settle).await
}

/// As [`take_over`], under a cluster id that the caller drew for this and nothing else: so a claim of which the caller never heard can be withdrawn.
///
/// # Errors
/// As [`take_over`].
pub async fn take_over_as(
    backend: &dyn Backend,
    claimant: &Claimant,
    cluster: ClusterId,
    settle: Duration,
) -> Result<ListedClaim> {
    let claims = list_claims(backend).await?;
    claim_above(backend, claimant, &claims.listed, cluster, settle).await
}

/// Takes back the claim of a cluster id under which nothing was ever written, if there is one: whoever held the vault before holds it again.
///
/// # Errors
/// Those of the store.
pub async fn withdraw(backend: &dyn Backend, cluster: ClusterId) -> Result<()> {
    let claims = list_claims(backend).await?;
    for claim in claims.listed.iter().filter(|claim| claim.cluster == cluster) {
        let name = claim.object_name();
        backend.delete(&name).await.doing(|| format!("withdraw claim {name}"))?;
    }
    Ok(())
}

/// Puts a claim above all that are listed, waits, and sees whether it ranks first. A claim that does not is left where it is: it outranks nobody.
pub(super) async fn claim_above(
    backend: &dyn Backend,
    claimant: &Claimant,
    listed: &[ListedClaim],
    cluster: ClusterId,
    settle: Duration,
) -> Result<ListedClaim> {
    let number = next_number(listed).ok_or(FormatError::TooLarge {
        what: "number of a claim",
        value: u64::MAX,
        max: u64::MAX - 1,
    })?;
    let ours = ListedClaim { number, cluster };
    let claim = Claim {
        vault: claimant.vault,
        listed: ours,
        holder: shown(&claimant.holder, NAME_MAX),
        claimed_at: claimant.now.clone(),
        program: claimant.program.clone(),
    };
    put_claim(backend, &claim).await?;
    if !settle.is_zero() {
        tokio::time::sleep(settle).await;
    }
    check_standing(backend, claimant.vault, ours).await?;
    Ok(ours)
}

/// Puts a small object; what a put of the same bytes left behind is as good.
pub(super) async fn put_whole(backend: &dyn Backend, name: &str, bytes: Bytes, max: usize) -> Result<()> {
    match backend.create(name, std::slice::from_ref(&bytes)).await {
        Ok(()) => Ok(()),
        Err(BackendError::Exists { .. }) => {
            let there = backend.read(name, max).await.doing(|| format!("compare {name}"))?;
            if there == bytes {
                Ok(())
            } else {
                Err(VaultError::Collision { name: name.to_owned() }.into())
            }
        }
        Err(error) => Err(error).doing(|| format!("write {name}")),
    }
}

/// Lists, and finds the claim that ranks first of those of the vault. Reads claims from the top until one counts; `ours` is not read.
async fn first_of(
    backend: &dyn Backend,
    vault: VaultId,
    ours: Option<ListedClaim>,
) -> Result<(Claims, Option<(ListedClaim, Option<Claim>)>)> {
    let mut listings = 0;
    'list: loop {
        let claims = list_claims(backend).await?;
        listings += 1;
        for &listed in &claims.listed {
            if Some(listed) == ours {
                return Ok((claims, Some((listed, None))));
            }
            let name = listed.object_name();
            match backend.read(&name, CLAIM_MAX).await {
                Ok(bytes) => match Claim::decode(listed, &bytes) {
                    Ok(claim) if claim.vault != vault => {}
                    Ok(claim) => return Ok((claims, Some((listed, Some(claim))))),
                    Err(_) => return Ok((claims, Some((listed, None)))),
                },
                // Withdrawn since it was listed, as a making of a vault that lost the race does.
                Err(BackendError::NotFound { .. }) if listings < LISTINGS_MAX => continue 'list,
                Err(BackendError::NotFound { .. } | BackendError::TooLarge { .. }) => {
                    return Ok((claims, Some((listed, None))));
                }
                Err(error) => return Err(error).doing(|| format!("read {name}")),
            }
        }
        return Ok((claims, None));
    }
}

fn in_words(listed: ListedClaim, claim: Option<Claim>) -> (String, String) {
    match claim {
        Some(claim) => (claim.holder, claim.claimed_at),
        None => (
            format!("an unknown holder ({} cannot be read)", listed.object_name()),
            String::from("an unknown time"),
        ),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Error;
    use crate::vault::test_store::TestStore;
    use proptest::prelude::*;

    const VAULT: VaultId = VaultId([1; 16]);

    fn listed(number: u64, cluster: u64) -> ListedClaim {
        ListedClaim {
            number,
            cluster: ClusterId(cluster),
        }
    }

    fn claimant(holder: &str) -> Claimant {
        Claimant {
            vault: VAULT,
            holder: holder.to_owned(),
            now: String::from("2026-11-22T05:00:00Z"),
            program: String::from("tresor 0.1.0"),
        }
    }

    #[test]
    fn the_highest_number_ranks_first_and_of_one_number_the_lowest_cluster() {
        let claims = [listed(1, 5), listed(2, 9), listed(2, 7)];
        assert_eq!(decide(&claims, Some(listed(2, 7))), Standing::Ours);
        for other in [listed(1, 5), listed(2, 9), listed(2, 8)] {
            assert_eq!(decide(&claims, Some(other)), Standing::Outranked { by: listed(2, 7) });
        }
        assert_eq!(decide(&claims, None), Standing::Outranked { by: listed(2, 7) });
        assert_eq!(decide(&claims, Some(listed(3, 1))), Standing::Gone);
        assert_eq!(decide(&[], Some(listed(1, 1))), Standing::Gone);
        assert_eq!(decide(&[], None), Standing::Free);
        assert_eq!(next_number(&claims), Some(3));
        assert_eq!(next_number(&[]), Some(1));
        assert_eq!(next_number(&[listed(u64::MAX, 1)]), None);
    }

    proptest! {
        #[test]
        fn exactly_one_of_any_claims_is_ours(claims in prop::collection::hash_set((1u64..4, 1u64..6), 1..12)) {
            let claims: Vec<ListedClaim> = claims.into_iter().map(|(n, c)| listed(n, c)).collect();
            let first = claims.iter().filter(|c| decide(&claims, Some(**c)) == Standing::Ours).count();
            prop_assert_eq!(first, 1);
        }
    }

    #[tokio::test]
    async fn a_vault_is_claimed_once_and_taken_over_by_name() {
        let store = TestStore::new();
        let first = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        assert_eq!(first.number, 1);
        check_standing(&store, VAULT, first).await.unwrap();
        let error = claim_first(&store, &claimant("beta"), Duration::ZERO)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Vault(VaultError::Held { holder, since })
                if holder == "alpha" && since == "2026-11-22T05:00:00Z"),
            "{error}"
        );
        let second = take_over(&store, &claimant("beta"), Duration::ZERO).await.unwrap();
        assert_eq!(second.number, 2);
        let error = check_standing(&store, VAULT, first).await.unwrap_err();
        assert!(
            matches!(&error, Error::Vault(VaultError::TakenOver { holder, .. }) if holder == "beta"),
            "{error}"
        );
        check_standing(&store, VAULT, second).await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_reported_and_foreign_claims_do_not_count_but_damaged_ones_do() {
        let store = TestStore::new();
        store.plant("cluster/hello", b"x");
        store.plant("cluster/0000000000000001", b"x");
        let ours = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        let claims = list_claims(&store).await.unwrap();
        assert_eq!((claims.listed.len(), claims.ignored_count), (1, 2));

        let foreign = Claim {
            vault: VaultId([9; 16]),
            listed: listed(7, 1),
            holder: String::from("beta"),
            claimed_at: String::new(),
            program: String::new(),
        };
        put_claim(&store, &foreign).await.unwrap();
        check_standing(&store, VAULT, ours).await.unwrap();
        assert_eq!(
            take_over(&store, &claimant("gamma"), Duration::ZERO)
                .await
                .unwrap()
                .number,
            8
        );

        let store = TestStore::new();
        let ours = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        store.plant(&listed(2, 1).object_name(), b"\xff\xff");
        let error = check_standing(&store, VAULT, ours).await.unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Fenced);
        let store = TestStore::new();
        let ours = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        store.plant(&listed(2, 1).object_name(), &vec![0; CLAIM_MAX + 1]);
        assert_eq!(
            check_standing(&store, VAULT, ours).await.unwrap_err().kind(),
            crate::Kind::Fenced
        );
    }

    #[tokio::test]
    async fn of_two_takers_at_once_at_most_one_goes_on() {
        for round in 0..20 {
            let store = TestStore::new();
            if round % 2 == 0 {
                store.overwrite_instead_of_refusing();
            }
            let settle = Duration::from_millis(5);
            let (beta, gamma) = (claimant("beta"), claimant("gamma"));
            let (a, b) = tokio::join!(take_over(&store, &beta, settle), take_over(&store, &gamma, settle));
            let mut standing = 0;
            for ours in [&a, &b].into_iter().flatten() {
                standing += u32::from(check_standing(&store, VAULT, *ours).await.is_ok());
            }
            assert_eq!(standing, 1, "{a:?} {b:?}");
        }
    }

    #[tokio::test]
    async fn a_claim_that_is_withdrawn_gives_the_vault_back() {
        let store = TestStore::new();
        let ours = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        let cluster = ClusterId(77);
        let taken = take_over_as(&store, &claimant("beta"), cluster, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!((taken.number, taken.cluster), (2, cluster));
        assert!(check_standing(&store, VAULT, ours).await.is_err());
        withdraw(&store, cluster).await.unwrap();
        withdraw(&store, cluster).await.unwrap();
        check_standing(&store, VAULT, ours).await.unwrap();
    }

    #[tokio::test]
    async fn a_claim_that_was_deleted_stops_its_holder() {
        let store = TestStore::new();
        let ours = claim_first(&store, &claimant("alpha"), Duration::ZERO).await.unwrap();
        store.delete(&ours.object_name()).await.unwrap();
        let error = check_standing(&store, VAULT, ours).await.unwrap_err();
        assert!(matches!(error, Error::Vault(VaultError::ClaimGone { .. })), "{error}");
    }

    #[tokio::test]
    async fn a_folder_of_endless_names_is_refused() {
        let store = TestStore::new();
        for n in 0..=CLAIMS_MAX {
            store.plant(&format!("cluster/x{n}"), b"");
        }
        assert!(matches!(
            list_claims(&store).await.unwrap_err(),
            Error::Vault(VaultError::TooMany { .. })
        ));
    }

    #[test]
    fn claims_under_another_name_or_of_another_shape_are_refused() {
        let claim = Claim {
            vault: VAULT,
            listed: listed(3, 4),
            holder: String::from("alpha"),
            claimed_at: String::from("now"),
            program: String::from("tresor"),
        };
        let bytes = claim.encode();
        assert_eq!(Claim::decode(claim.listed, &bytes).unwrap(), claim);
        assert!(Claim::decode(listed(4, 4), &bytes).is_err());
        assert!(Claim::decode(claim.listed, &bytes.slice(..bytes.len() - 1)).is_err());
        let loud = Claim {
            holder: String::from("\u{1b}[31mroot"),
            ..claim
        };
        assert_eq!(Claim::decode(loud.listed, &loud.encode()).unwrap().holder, "[31mroot");
    }
}
