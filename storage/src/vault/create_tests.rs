#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::claim::{check_standing, take_over};
use super::super::revisions::{change_keys, delete_strays, open_keys};
use super::super::test_store::TestStore;
use super::*;
use crate::keys::{Change, Generation, Grant};
use crate::{Error, Kind};

const CHEAP: PassphraseCost = PassphraseCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

fn spec() -> NewVault {
    NewVault {
        url: String::from("memory:///main"),
        region: String::new(),
        profile: String::from("grain-32k"),
        redundancy: Redundancy::Local,
        holder: String::from("alpha"),
        now: String::from("2026-11-22T05:00:00Z"),
        program: String::from("tresor 0.1.0"),
        settle: Duration::from_millis(5),
    }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn key_path(&self, vault: VaultId) -> PathBuf {
        self.0.path().join("keys").join(vault.to_string())
    }

    fn prepare(&self) -> Prepared {
        let mut prepared = Prepared::new(spec());
        let path = self.key_path(prepared.vault());
        prepared.add_key_file("this host", &path).unwrap();
        prepared
    }

    fn unlock(&self, vault: VaultId) -> Unlock {
        KeyFile::load(&self.key_path(vault), Some(vault)).unwrap().unlock()
    }
}

fn is_exists(error: &Error) -> bool {
    matches!(error, Error::Vault(VaultError::VaultExists { .. }))
}

fn stamp(claim: ListedClaim) -> Stamp {
    let writer = Writer {
        cluster: claim.cluster,
        session: SessionId(2),
        part: PartId::random(),
    };
    Stamp {
        writer,
        claim: claim.number,
        now: String::from("2026-11-23T05:00:00Z"),
    }
}

#[tokio::test]
async fn a_vault_that_was_made_opens_with_its_key_file() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    assert_eq!(store.names("").len(), 3, "{:?}", store.names(""));
    let (header, hash) = open_header(&store, "memory:///main").await.unwrap();
    assert_eq!((&header, hash), (&created.header, created.header_hash));
    let opened = open_keys(&store, header.vault, &hash, &home.unlock(header.vault))
        .await
        .unwrap();
    assert!(opened.keyring.id == created.keys.keyring.id && opened.keyring.cut == created.keys.keyring.cut);
    assert_eq!(created.claim.number, 1);
    check_standing(&store, header.vault, created.claim).await.unwrap();
}

fn prepare_with(vault: VaultId, key: &Key) -> Prepared {
    let mut prepared = Prepared::with_id(spec(), vault);
    prepared.add_kept_key("cluster", key.clone());
    prepared
}

#[tokio::test]
async fn a_making_under_a_given_id_that_broke_off_anywhere_is_repeated_and_leaves_nothing() {
    let (vault, key) = (VaultId([6; 16]), Key::random());
    let unlock = Unlock::File(key.clone());
    for puts in 0.. {
        let store = TestStore::new();
        store.fail_after_puts(Some(puts));
        let first = prepare_with(vault, &key).publish(&store).await;
        store.fail_after_puts(None);
        if first.is_ok() {
            assert!(puts >= 4, "probe, keys, claim and header");
            break;
        }
        let made = prepare_with(vault, &key).publish(&store).await.unwrap();
        let (header, hash) = open_header(&store, "memory:///main").await.unwrap();
        assert_eq!((header.vault, hash), (vault, made.header_hash));
        assert_opens_and_is_tidied(&store, vault, &unlock).await;
        check_standing(&store, vault, made.claim).await.unwrap();
    }
}

#[tokio::test]
async fn of_two_makings_under_one_id_at_once_one_makes_the_vault_and_its_keys_open_it() {
    let (vault, key) = (VaultId([6; 16]), Key::random());
    for _ in 0..20 {
        let store = TestStore::new();
        let (a, b) = tokio::join!(
            prepare_with(vault, &key).publish(&store),
            prepare_with(vault, &key).publish(&store)
        );
        assert!(
            a.is_ok() || b.is_ok() || !is_exists(a.as_ref().unwrap_err()),
            "{a:?} {b:?}"
        );
        if open_header(&store, "memory:///main").await.is_ok() {
            assert_opens_and_is_tidied(&store, vault, &Unlock::File(key.clone())).await;
        }
    }
}

async fn assert_opens_and_is_tidied(store: &TestStore, vault: VaultId, unlock: &Unlock) {
    let (_, hash) = open_header(store, "memory:///main").await.unwrap();
    let opened = open_keys(store, vault, &hash, unlock).await.unwrap();
    delete_strays(store, &opened).await;
    let opened = open_keys(store, vault, &hash, unlock).await.unwrap();
    assert!(opened.ignored.is_empty(), "{:?}", opened.ignored);
    assert_eq!(store.names("keys/").len(), 1);
}

#[tokio::test]
async fn a_vault_of_a_passphrase_opens_with_it_alone() {
    let store = TestStore::new();
    let mut prepared = Prepared::new(spec());
    let passphrase = Zeroizing::new(String::from("correct horse"));
    prepared.add_passphrase("ops", passphrase.clone(), CHEAP);
    let created = prepared.publish(&store).await.unwrap();
    let vault = created.header.vault;
    open_keys(&store, vault, &created.header_hash, &Unlock::Passphrase(passphrase))
        .await
        .unwrap();
    let wrong = Unlock::Passphrase(Zeroizing::new(String::from("wrong horse")));
    let error = open_keys(&store, vault, &created.header_hash, &wrong)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
}

#[tokio::test]
async fn no_vault_is_made_where_one_is() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let before = store.names("");
    let error = home.prepare().publish(&store).await.unwrap_err();
    let named = matches!(&error, Error::Vault(VaultError::VaultExists { vault, .. })
        if *vault == created.header.vault.to_string());
    assert!(named, "{error}");
    assert_eq!(store.names(""), before);
    assert!(matches!(
        open_header(&TestStore::new(), "memory:///none").await.unwrap_err(),
        Error::Vault(VaultError::NoVault { .. })
    ));
}

#[tokio::test]
async fn a_making_that_breaks_off_at_any_put_leaves_no_vault_and_the_next_one_works() {
    for puts in 0.. {
        let (store, home) = (TestStore::new(), Home::new());
        store.fail_after_puts(Some(puts));
        let broken = home.prepare().publish(&store).await;
        store.fail_after_puts(None);
        let Err(error) = broken else {
            assert_eq!(puts, store.puts());
            assert!(puts >= 4, "probe, keys, claim and header");
            break;
        };
        assert_eq!(error.kind(), Kind::Retry, "{}", error.chain());
        assert!(matches!(
            open_header(&store, "memory:///main").await.unwrap_err(),
            Error::Vault(VaultError::NoVault { .. })
        ));
        let created = home.prepare().publish(&store).await.unwrap();
        let vault = created.header.vault;
        check_standing(&store, vault, created.claim).await.unwrap();
        open_keys(&store, vault, &created.header_hash, &home.unlock(vault))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn of_several_makings_at_one_place_one_wins_and_the_others_say_so() {
    for round in 0..20 {
        let (store, home) = (TestStore::new(), Home::new());
        if round % 2 == 1 {
            store.overwrite_instead_of_refusing();
        }
        let makings = (0..3).map(|_| home.prepare().publish(&store));
        let results = futures::future::join_all(makings).await;
        let (made, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(|r| r.is_ok());
        assert_eq!(made.len(), 1, "round {round}");
        for error in lost {
            assert!(is_exists(&error.unwrap_err()), "round {round}");
        }
        let created = made.into_iter().next().unwrap().unwrap();
        let vault = created.header.vault;
        assert_eq!(
            open_header(&store, "memory:///main").await.unwrap().1,
            created.header_hash
        );
        check_standing(&store, vault, created.claim).await.unwrap();
        open_keys(&store, vault, &created.header_hash, &home.unlock(vault))
            .await
            .unwrap();
        assert_eq!(store.names("").len(), 3, "{:?}", store.names(""));
    }
}

#[tokio::test]
async fn a_store_that_hides_what_it_stored_is_refused_with_the_reason() {
    let (store, home) = (TestStore::new(), Home::new());
    store.hide_everything_from_lists();
    let error = home.prepare().publish(&store).await.unwrap_err();
    let named = matches!(&error, Error::Vault(VaultError::UnfitStore { why, .. }) if why.contains("list"));
    assert!(named, "{error}");
    assert!(store.bytes(names::HEADER).is_none());
}

#[tokio::test]
async fn a_key_file_that_is_gone_or_another_before_publishing_stops_the_making() {
    let (store, home) = (TestStore::new(), Home::new());
    let prepared = home.prepare();
    std::fs::remove_file(home.key_path(prepared.vault())).unwrap();
    let error = prepared.publish(&store).await.unwrap_err();
    assert!(matches!(error, Error::Key(KeyError::None { .. })), "{error}");

    let prepared = home.prepare();
    let path = home.key_path(prepared.vault());
    std::fs::remove_file(&path).unwrap();
    KeyFile::create(&path, prepared.vault(), &Key::random()).unwrap();
    let error = prepared.publish(&store).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
    assert!(store.bytes(names::HEADER).is_none());

    let error = Prepared::new(spec()).publish(&store).await.unwrap_err();
    assert!(matches!(error, Error::Key(KeyError::Slot { .. })), "{error}");
}

#[tokio::test]
async fn a_header_that_was_replaced_is_noticed() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let vault = created.header.vault;
    let other = Header {
        profile: String::from("fixed-64k"),
        ..created.header.clone()
    };
    store.plant(names::HEADER, &other.encode().unwrap());
    let (_, hash) = open_header(&store, "memory:///main").await.unwrap();
    let error = open_keys(&store, vault, &hash, &home.unlock(vault)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{}", error.chain());
    assert!(error.chain().contains("header"), "{}", error.chain());
}

#[tokio::test]
async fn a_key_is_replaced_and_the_former_revision_goes() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let (vault, hash) = (created.header.vault, created.header_hash);
    let (old, path) = (home.unlock(vault), home.key_path(vault));
    let new_path = path.with_extension("new");
    KeyFile::create(&new_path, vault, &Key::random()).unwrap();
    let new = KeyFile::load_durable(&new_path, Some(vault)).unwrap().unlock();
    let slot = String::from("this host");
    let change = Change::Replace {
        slot,
        unlock: new.clone(),
        cost: CHEAP,
        compromised: true,
    };
    let stamp = stamp(created.claim);
    let opened = change_keys(&store, vault, &hash, created.claim, &stamp, (&old, &new), &change)
        .await
        .unwrap();
    KeyFile::replace(&new_path, &path).unwrap();
    assert_eq!(opened.keyring.newest(), Generation(2));
    assert_eq!(store.names(names::KEYS), [opened.revision.object_name()]);
    open_keys(&store, vault, &hash, &home.unlock(vault)).await.unwrap();
    let error = open_keys(&store, vault, &hash, &old).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
}

#[tokio::test]
async fn who_was_taken_over_changes_no_keys() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let (vault, hash) = (created.header.vault, created.header_hash);
    let claimant = Claimant {
        vault,
        holder: String::from("beta"),
        now: String::from("2026-11-23T05:00:00Z"),
        program: String::from("tresor 0.1.0"),
    };
    let theirs = take_over(&store, &claimant, Duration::ZERO).await.unwrap();
    let unlock = home.unlock(vault);
    let proofs = (&unlock, &unlock);
    let change = Change::NewGeneration;
    let before = store.names(names::KEYS);
    let error = change_keys(
        &store,
        vault,
        &hash,
        created.claim,
        &stamp(created.claim),
        proofs,
        &change,
    )
    .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(store.names(names::KEYS), before);
    change_keys(&store, vault, &hash, theirs, &stamp(theirs), proofs, &change)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_proof_of_a_change_must_open_the_new_revision() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let (vault, hash) = (created.header.vault, created.header_hash);
    let unlock = home.unlock(vault);
    let kit = Unlock::Kit(Key::random());
    let slot = NewSlot {
        grant: Grant::Full,
        ..NewSlot::full("recovery-kit", kit.clone())
    };
    let change = Change::Add(slot);
    let wrong = Unlock::Kit(Key::random());
    let stamp = stamp(created.claim);
    let error = change_keys(&store, vault, &hash, created.claim, &stamp, (&unlock, &wrong), &change)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
    // What it left is a valid revision, all of whose other slots work; the next change contains it.
    let opened = open_keys(&store, vault, &hash, &unlock).await.unwrap();
    assert_eq!(opened.revision.number(), 2);
    open_keys(&store, vault, &hash, &kit).await.unwrap();
}

#[tokio::test]
async fn garbage_among_the_key_revisions_is_reported_and_harmless() {
    let (store, home) = (TestStore::new(), Home::new());
    let created = home.prepare().publish(&store).await.unwrap();
    let (vault, hash) = (created.header.vault, created.header_hash);
    store.plant("keys/readme.txt", b"hello");
    let writer = Writer {
        cluster: ClusterId(1),
        session: SessionId(1),
        part: PartId(1),
    };
    store.plant(&names::key_revision(9, writer), b"garbage");
    store.plant(
        &names::key_revision(8, writer),
        &vec![0; crate::limits::KEY_REVISION_MAX + 1],
    );
    let opened = open_keys(&store, vault, &hash, &home.unlock(vault)).await.unwrap();
    assert_eq!((opened.revision.number(), opened.ignored.len()), (1, 3));
    for n in 0..300 {
        store.plant(&names::key_revision(1000 + n, writer), b"garbage");
    }
    // Hidden behind more garbage than is looked at: named as what it is, not as a wrong key.
    let error = open_keys(&store, vault, &hash, &home.unlock(vault)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{}", error.chain());
}
