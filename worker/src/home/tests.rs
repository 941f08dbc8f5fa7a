//! Stories of homes: opened twice, copied, rolled back, taken over, cut.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tresor_storage::Kind;
use tresor_storage::backend::{Backend, Memory};
use tresor_storage::ids::{ItemId, PartId, PointId, VaultId, Writer};
use tresor_storage::index::{Answer, ChunkIndex};
use tresor_storage::keys::{KeyError, KeyFile, Unlock};
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::vault::{Vault, names};
use zeroize::Zeroizing;

use super::claim::HomeClaim;
use super::index::doubt;
use super::*;
use crate::control::{Commit, Control, Counts, OpenSession, Session};

/// One machine's home with a vault `main` in a store of its own.
struct Story {
    dir: TempDir,
    url: String,
    store: Memory,
    stores: StoreConfigs,
}

impl Story {
    fn new() -> Self {
        let name = format!("home-{}", PointId::random());
        Self {
            dir: tempfile::tempdir().unwrap(),
            url: format!("memory://{name}"),
            store: Memory::named(&name),
            stores: StoreConfigs::default(),
        }
    }

    async fn with_vault() -> (Self, Home) {
        let story = Self::new();
        let home = story.home("home");
        create_vault(&home, MAIN, Some(&story.url), CreateOptions::default(), &story.stores)
            .await
            .unwrap();
        (story, home)
    }

    fn home(&self, folder: &str) -> Home {
        Home::open(&self.dir.path().join(folder), "backup").unwrap()
    }

    async fn write(&self, home: &Home) -> Result<WritableVault, HomeError> {
        open_for_writing(home, MAIN, &HomeKeys, &self.stores).await
    }

    async fn read(&self, home: &Home) -> Points {
        let open = open_for_reading(Some(home), Place::Named(MAIN), &HomeKeys, &self.stores)
            .await
            .unwrap();
        load_points(&open.vault).await.unwrap()
    }
}

/// What somebody types or names.
struct Given(Unlock);

impl UnlockSource for Given {
    fn explicit(&self, _: VaultId) -> Result<Option<Unlock>, KeyError> {
        Ok(Some(self.0.clone()))
    }

    fn passphrase(&self, _: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
        panic!("nobody is asked when something was named")
    }
}

fn key_of(home: &Home) -> Given {
    let id = home.vault(MAIN).unwrap().id;
    Given(KeyFile::load(&home.key_path(id), Some(id)).unwrap().unlock())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

async fn put_manifest(vault: &Vault, session: Session) -> Manifest {
    let manifest = Manifest {
        vault: vault.id,
        item: ItemId([9; 16]),
        item_name: "web".into(),
        point: PointId::random(),
        writer: Writer {
            cluster: session.cluster,
            session: session.session,
            part: PartId::random(),
        },
        parent: None,
        time: now(),
        keep_until: None,
        consistency: Consistency::Crash,
        consistency_reason: String::new(),
        live: false,
        disks: Vec::new(),
        bytes_read: 0,
        bytes_new: 0,
        bytes_stored: 0,
    };
    let sealed = manifest.seal(&vault.keyring).unwrap();
    vault.backend.create(&manifest.object_name(), &[sealed]).await.unwrap();
    manifest
}

fn commit_of(manifest: &Manifest) -> Commit {
    let Manifest {
        item, point, writer, ..
    } = manifest;
    Commit {
        session: writer.session,
        item: *item,
        point: *point,
        manifest_hash: [0; 32],
        time: manifest.time.clone(),
        consistency: manifest.consistency,
        disks: Vec::new(),
        live: false,
        counts: Counts::default(),
    }
}

async fn make_point(vault: &WritableVault) -> Manifest {
    let session = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    let manifest = put_manifest(&vault.open.vault, session).await;
    vault.control.commit(commit_of(&manifest)).await.unwrap();
    vault.control.close_session(session.session).await;
    manifest
}

/// Puts one pack with one chunk through the vault's index; the chunk's id.
async fn make_pack(vault: &WritableVault) -> (tresor_storage::ids::ChunkId, String) {
    use tresor_storage::pack::PiecesBuilder;
    use tresor_storage::seal::{FrameKind, compress};
    use tresor_storage::vault::PackWriter;
    let session = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    let writer = Writer {
        cluster: session.cluster,
        session: session.session,
        part: PartId::random(),
    };
    let index: Arc<dyn ChunkIndex> = vault.index.clone();
    let mut packs = PackWriter::new(vault.open.vault.clone(), index, session.for_index(), writer);
    let chunk = vec![session.session.0 as u8; 4096];
    let id = vault.open.vault.ids.chunk(&chunk);
    let mut table = PiecesBuilder::new(FrameKind::Data);
    table.add(chunk.len());
    let mut plain = table.table();
    plain.extend_from_slice(&chunk);
    let placed = packs
        .place(FrameKind::Data, &table, &[id], &compress(&plain, 1))
        .await
        .unwrap();
    packs.finish().await.unwrap();
    vault.control.close_session(session.session).await;
    (id, names::pack(placed.at(0).pack))
}

async fn ask(vault: &WritableVault, id: tresor_storage::ids::ChunkId) -> Answer {
    let session = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    let answers = vault.index.lookup(session.for_index(), &[id]).await.unwrap();
    vault.control.close_session(session.session).await;
    answers[0]
}

#[tokio::test]
async fn a_second_writer_is_refused_with_the_name_of_the_first_and_readers_are_not() {
    let (story, home) = Story::with_vault().await;
    let first = story.write(&home).await.unwrap();
    make_point(&first).await;
    let error = story.write(&story.home("home")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(
        error
            .to_string()
            .contains(&format!("process {} (`tresor backup`)", std::process::id())),
        "{error}"
    );
    assert_eq!(story.read(&home).await.points.len(), 1);
    let refused = take_over(&home, MAIN, None, &HomeKeys, &story.stores)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced, "not under a running writer of this home");
    drop(first);
    story.write(&home).await.unwrap();
}

#[tokio::test]
async fn a_copied_home_reads_and_does_not_write_until_it_takes_over() {
    let (story, home) = Story::with_vault().await;
    make_point(&story.write(&home).await.unwrap()).await;
    copy(home.root(), &story.dir.path().join("copy"));
    let other = story.home("copy");
    assert_eq!(story.read(&other).await.points.len(), 1);
    let error = story.write(&other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.hint().unwrap().contains("tresor vault take-over main"), "{error}");

    let taken = take_over(&other, MAIN, None, &HomeKeys, &story.stores).await.unwrap();
    assert_eq!(taken.from.unwrap().0, host_name());
    make_point(&story.write(&other).await.unwrap()).await;
    let fenced = story.write(&home).await.unwrap_err();
    assert_eq!(fenced.kind(), Kind::Fenced);
    assert!(
        matches!(&fenced, HomeError::NotWritable { source, .. } if matches!(**source, ControlError::Fenced { .. })),
        "{fenced:?}"
    );
    assert_eq!(story.read(&home).await.points.len(), 2);
}

#[tokio::test]
async fn a_vault_without_our_claim_is_read_only_and_says_who_writes() {
    let (story, home) = Story::with_vault().await;
    let other = story.home("other");
    let entry = home.vault(MAIN).unwrap();
    other.add_vault(&entry).unwrap();
    copy(&home.root().join("keys"), &other.root().join("keys"));
    let error = story.write(&other).await.unwrap_err();
    assert!(
        matches!(&error, HomeError::NotClaimed { holder, .. } if holder.contains(&host_name())),
        "{error:?}"
    );
    assert!(story.read(&other).await.points.is_empty());
}

#[tokio::test]
async fn a_rolled_back_counter_gives_no_number_again_that_the_vault_shows() {
    let (story, home) = Story::with_vault().await;
    let id = home.vault(MAIN).unwrap().id;
    let counter = home.writer_folder(id).unwrap().join("session");
    let before = {
        let vault = story.write(&home).await.unwrap();
        make_point(&vault).await;
        let kept = std::fs::read(&counter).unwrap();
        make_point(&vault).await;
        make_point(&vault).await;
        kept
    };
    let highest = story.read(&home).await.sessions.into_values().max().unwrap();
    for text in [Some(before), Some(b"garbage".to_vec()), None] {
        match text {
            Some(text) => std::fs::write(&counter, text).unwrap(),
            None => std::fs::remove_file(&counter).unwrap(),
        }
        let vault = story.write(&home).await.unwrap();
        assert!(matches!(&vault.index_state, IndexState::Rebuilt { why, .. } if why.contains("later sessions")));
        assert!(make_point(&vault).await.writer.session.0 > highest);
    }
}

#[tokio::test]
async fn two_sessions_of_one_number_make_two_points() {
    // Two copies of one home that cannot be told apart (a cloned machine), at the same time.
    let (story, home) = Story::with_vault().await;
    let vault = story.write(&home).await.unwrap();
    let id = home.vault(MAIN).unwrap().id;
    let twin_counter = story.dir.path().join("twin-session");
    let counter = counter::SessionCounter::open(&twin_counter).unwrap();
    let twin = crate::control::home::HomeControl::writing(vault.open.vault.clone(), vault.claim, counter);
    let first = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    let second = twin
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    assert_eq!((first.cluster, first.session), (second.cluster, second.session));
    let points = [
        put_manifest(&vault.open.vault, first).await,
        put_manifest(&vault.open.vault, second).await,
    ];
    vault.control.commit(commit_of(&points[0])).await.unwrap();
    twin.commit(commit_of(&points[1])).await.unwrap();
    assert_ne!(points[0].writer, points[1].writer);
    // Their catalogues would have one name: the second takes another, and both removals stay.
    vault.control.remove(points[0].point).await.unwrap();
    twin.remove(points[1].point).await.unwrap();
    let found = story.read(&home).await;
    assert_eq!(found.points.len(), 2);
    assert!(found.points.iter().all(|point| point.removed_at.is_some()));
    assert_eq!(found.points[0].manifest.vault, id);
}

#[tokio::test]
async fn a_point_is_refused_when_the_vault_was_taken_over_before_its_commit() {
    let (story, home) = Story::with_vault().await;
    let vault = story.write(&home).await.unwrap();
    let session = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap();
    let manifest = put_manifest(&vault.open.vault, session).await;

    let other = story.home("other");
    let taken = take_over(&other, "mine", Some(&story.url), &key_of(&home), &story.stores)
        .await
        .unwrap();
    assert_eq!(taken.entry.name, "mine");
    assert!(other.has_key(taken.entry.id), "the key file that opened it is kept");

    let error = vault.control.commit(commit_of(&manifest)).await.unwrap_err();
    assert!(
        matches!(&error, ControlError::Fenced { holder, .. } if *holder == host_name()),
        "{error:?}"
    );
    let error = vault
        .control
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    let catalogs = |store: &Memory| {
        store
            .objects()
            .keys()
            .filter(|name| name.starts_with(names::CATALOG))
            .count()
    };
    let error = vault.control.remove(manifest.point).await.unwrap_err();
    assert_eq!((error.kind(), catalogs(&story.store)), (Kind::Fenced, 0));

    let theirs = open_for_writing(&other, "mine", &HomeKeys, &story.stores)
        .await
        .unwrap();
    assert!(matches!(theirs.index_state, IndexState::Rebuilt { .. }));
    make_point(&theirs).await;
}

#[tokio::test]
async fn only_an_open_writing_session_commits() {
    let (story, home) = Story::with_vault().await;
    let vault = story.write(&home).await.unwrap();
    let point = make_point(&vault).await;
    assert!(
        matches!(
            vault.control.commit(commit_of(&point)).await,
            Err(ControlError::Closed { .. })
        ),
        "closed"
    );
    let reader = vault
        .control
        .open_session(OpenSession {
            pins: vec![point.point],
            writes: false,
        })
        .await
        .unwrap();
    let commit = Commit {
        session: reader.session,
        ..commit_of(&point)
    };
    assert!(
        matches!(vault.control.commit(commit).await, Err(ControlError::Closed { .. })),
        "only reads"
    );
    let open = open_for_reading(Some(&home), Place::Named(MAIN), &HomeKeys, &story.stores)
        .await
        .unwrap();
    let refused = open
        .control()
        .open_session(OpenSession {
            pins: vec![],
            writes: true,
        })
        .await;
    assert!(matches!(refused, Err(ControlError::ReadOnly)));
}

#[tokio::test]
async fn pins_last_as_long_as_their_session_and_need_their_points() {
    let (story, home) = Story::with_vault().await;
    let vault = story.write(&home).await.unwrap();
    let point = make_point(&vault).await.point;
    let control = &vault.control;
    let ask = |pin, writes| {
        control.open_session(OpenSession {
            pins: vec![pin],
            writes,
        })
    };
    let session = ask(point, true).await.unwrap();
    assert_eq!(control.pins().await, [point]);
    control.close_session(session.session).await;
    assert!(control.pins().await.is_empty());
    assert!(matches!(
        ask(PointId([1; 16]), true).await,
        Err(ControlError::Removed { .. })
    ));
    control.remove(point).await.unwrap();
    assert!(
        matches!(ask(point, true).await, Err(ControlError::Removed { .. })),
        "no parent is made of a removed point"
    );
    ask(point, false).await.unwrap();
    assert_eq!(control.pins().await, [point]);
}

#[tokio::test]
async fn removals_survive_reopening_and_are_taken_back() {
    let (story, home) = Story::with_vault().await;
    let (kept, removed) = {
        let vault = story.write(&home).await.unwrap();
        let (kept, removed) = (make_point(&vault).await.point, make_point(&vault).await.point);
        let at = vault.control.remove(removed).await.unwrap();
        assert_eq!(vault.control.remove(removed).await.unwrap(), at, "removed once");
        (kept, removed)
    };
    let found = story.read(&home).await;
    let state = |points: &Points, id| {
        points
            .points
            .iter()
            .find(|p| p.manifest.point == id)
            .unwrap()
            .removed_at
            .is_some()
    };
    assert!(state(&found, removed) && !state(&found, kept));
    assert_eq!(found.visible().count(), 1);
    {
        let vault = story.write(&home).await.unwrap();
        assert!(vault.points.points.iter().any(|p| p.removed_at.is_some()));
        vault.control.undelete(removed).await.unwrap();
        vault.control.undelete(removed).await.unwrap();
        let error = vault.control.remove(PointId([1; 16])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
    }
    assert_eq!(story.read(&home).await.visible().count(), 2);
}

#[tokio::test]
async fn a_held_point_is_not_removed_before_it_is_released() {
    let (story, home) = Story::with_vault().await;
    let point = {
        let vault = story.write(&home).await.unwrap();
        let point = make_point(&vault).await.point;
        vault.control.hold(point, "for the auditors").await.unwrap();
        point
    };
    let found = story.read(&home).await;
    assert_eq!(found.points[0].held.as_deref(), Some("for the auditors"));
    {
        let vault = story.write(&home).await.unwrap();
        let error = vault.control.remove(point).await.unwrap_err();
        assert!(matches!(&error, ControlError::Held { reason, .. } if reason == "for the auditors"));
        assert_eq!(error.kind(), Kind::Fenced);
    }
    assert_eq!(story.read(&home).await.visible().count(), 1);
    let vault = story.write(&home).await.unwrap();
    vault.control.release(point).await.unwrap();
    vault.control.remove(point).await.unwrap();
    assert!(story.read(&home).await.points[0].held.is_none());
    assert!(
        matches!(
            vault.control.hold(point, "too late").await,
            Err(ControlError::Removed { .. })
        ),
        "what is removed is shown again before it is held"
    );
}

#[tokio::test]
async fn the_newest_three_catalogues_stay_and_a_damaged_one_is_told() {
    let (story, home) = Story::with_vault().await;
    let vault = story.write(&home).await.unwrap();
    let points = [make_point(&vault).await.point, make_point(&vault).await.point];
    let catalogs = || {
        story
            .store
            .objects()
            .into_keys()
            .filter(|name| name.starts_with(names::CATALOG))
            .collect::<Vec<_>>()
    };
    for _ in 0..4 {
        vault.control.remove(points[0]).await.unwrap();
        vault.control.undelete(points[0]).await.unwrap();
    }
    let before = catalogs();
    assert_eq!(before.len(), 3);
    vault.control.remove(points[1]).await.unwrap();
    let newest = catalogs().into_iter().next_back().unwrap();
    assert!(!before.contains(&newest));

    story.store.replace(&newest, Bytes::from_static(b"damaged"));
    let found = story.read(&home).await;
    assert_eq!((found.points.len(), found.damaged.len()), (2, 1));
    assert_eq!(found.damaged[0].name, newest);
    vault.control.remove(points[1]).await.unwrap();
    assert_eq!(
        story.read(&home).await.visible().count(),
        1,
        "the next one counts although a damaged one is there"
    );
}

#[tokio::test]
async fn of_points_of_one_second_the_newest_is_of_the_last_session() {
    let (story, home) = Story::with_vault().await;
    let made: Vec<PointId> = {
        let vault = story.write(&home).await.unwrap();
        let mut made = Vec::new();
        for _ in 0..12 {
            made.push(make_point(&vault).await.point);
        }
        made
    };
    // Twelve points are made in two seconds at most: some share one.
    let found = story.read(&home).await;
    let newest_first: Vec<PointId> = found.points.iter().map(|point| point.manifest.point).collect();
    assert_eq!(newest_first, made.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_manifest_hides_no_other() {
    let (story, home) = Story::with_vault().await;
    let (good, bad) = {
        let vault = story.write(&home).await.unwrap();
        (make_point(&vault).await, make_point(&vault).await)
    };
    let whole = story.store.objects()[&bad.object_name()].clone();
    let mut flipped = whole.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let damages = [
        Bytes::new(),
        whole.slice(..whole.len() / 2),
        flipped.into(),
        story.store.objects()[&good.object_name()].clone(),
    ];
    for damaged in damages {
        story.store.replace(&bad.object_name(), damaged);
        let found = story.read(&home).await;
        assert_eq!(
            found.points.iter().map(|p| p.manifest.point).collect::<Vec<_>>(),
            [good.point]
        );
        assert_eq!(
            (found.damaged_total, found.damaged[0].name.as_str()),
            (1, bad.object_name().as_str())
        );
    }
}

#[tokio::test]
async fn an_index_that_has_seen_what_the_store_lacks_is_made_anew() {
    let (story, home) = Story::with_vault().await;
    let (kept, lost) = {
        let vault = story.write(&home).await.unwrap();
        (make_pack(&vault).await, make_pack(&vault).await)
    };
    {
        let vault = story.write(&home).await.unwrap();
        assert!(matches!(vault.index_state, IndexState::Kept));
        assert!(matches!(ask(&vault, lost.0).await, Answer::Known(_)));
    }
    // The store goes back to a snapshot between both; no index segment tells, as none does of an interrupted backup.
    story.store.delete(&lost.1).await.unwrap();
    let vault = story.write(&home).await.unwrap();
    assert!(
        matches!(&vault.index_state, IndexState::Rebuilt { why, .. } if why.contains(&lost.1)),
        "{:?}",
        vault.index_state
    );
    assert!(matches!(ask(&vault, kept.0).await, Answer::Known(_)));
    assert_eq!(ask(&vault, lost.0).await, Answer::New);
    drop(vault);
    assert!(matches!(
        story.write(&home).await.unwrap().index_state,
        IndexState::Kept
    ));
}

#[tokio::test]
async fn a_doubted_missing_or_damaged_index_is_made_anew() {
    let (story, home) = Story::with_vault().await;
    let id = home.vault(MAIN).unwrap().id;
    let chunk = make_pack(&story.write(&home).await.unwrap()).await.0;
    let path = home.index_path(id);
    let marker = path.with_extension("doubtful");
    let harms: [&dyn Fn(); 3] = [
        &|| doubt(&marker, "it did not take a pack").unwrap(),
        &|| std::fs::remove_dir_all(&path).unwrap(),
        &|| std::fs::write(path.join("CURRENT"), "nothing\n").unwrap(),
    ];
    for harm in harms {
        assert!(matches!(
            story.write(&home).await.unwrap().index_state,
            IndexState::Kept
        ));
        harm();
        let vault = story.write(&home).await.unwrap();
        assert!(matches!(vault.index_state, IndexState::Rebuilt { .. }));
        assert!(matches!(ask(&vault, chunk).await, Answer::Known(_)));
        assert!(!marker.exists());
    }
    let mut calls = 0;
    let vault = open_and_rebuild(&home, MAIN, &HomeKeys, &story.stores, &mut |_| calls += 1)
        .await
        .unwrap();
    assert!(matches!(vault.index_state, IndexState::Rebuilt { .. }) && calls > 0);
}

#[tokio::test]
async fn a_vault_is_readable_with_nothing_but_its_store_and_its_key() {
    let (story, home) = Story::with_vault().await;
    let point = make_point(&story.write(&home).await.unwrap()).await;
    let key = key_of(&home);
    std::fs::remove_dir_all(home.root()).unwrap();
    let open = open_for_reading(None, Place::Url(&story.url), &key, &story.stores)
        .await
        .unwrap();
    let found = load_points(&open.vault).await.unwrap();
    assert_eq!(found.points[0].manifest, point);
    let without = open_for_reading(None, Place::Url(&story.url), &HomeKeys, &story.stores)
        .await
        .unwrap_err();
    assert_eq!(without.kind(), Kind::Denied);
}

#[tokio::test]
async fn a_passphrase_opens_a_vault_without_a_key_file() {
    struct Asked;
    impl UnlockSource for Asked {
        fn explicit(&self, _: VaultId) -> Result<Option<Unlock>, KeyError> {
            Ok(None)
        }
        fn passphrase(&self, vault: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
            assert_eq!(vault, MAIN);
            Ok(Some(Zeroizing::new("correct horse".into())))
        }
    }
    let story = Story::new();
    let home = story.home("home");
    let options = CreateOptions {
        key_file: false,
        passphrase: Some(Zeroizing::new("correct horse".into())),
        ..CreateOptions::default()
    };
    let made = create_vault(&home, MAIN, Some(&story.url), options, &story.stores)
        .await
        .unwrap();
    assert!(!home.has_key(made.entry.id));
    open_for_writing(&home, MAIN, &Asked, &story.stores).await.unwrap();
    assert!(matches!(story.write(&home).await, Err(HomeError::NoKey { .. })));
}

#[tokio::test]
async fn the_first_use_makes_main_once_whoever_else_does() {
    let story = Story::new();
    let home = story.home("home");
    let (first, second) = tokio::join!(ensure_main(&home, &story.stores), ensure_main(&home, &story.stores));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.0, second.0);
    assert!(first.1 != second.1, "made by one of both");
    assert!(home.store_folder(MAIN).join(names::HEADER).exists());
    make_point(&story.write(&home).await.unwrap()).await;
}

#[tokio::test]
async fn a_first_use_that_was_cut_is_repeated() {
    let story = Story::new();
    let home = story.home("home");
    let (entry, _) = ensure_main(&home, &story.stores).await.unwrap();
    make_point(&story.write(&home).await.unwrap()).await;
    // Before the name and the claim were written down.
    std::fs::remove_file(home.root().join("vaults/main.toml")).unwrap();
    std::fs::remove_file(home.writer_folder(entry.id).unwrap().join("claim")).unwrap();
    let (again, made) = ensure_main(&home, &story.stores).await.unwrap();
    assert_eq!((again.id, made), (entry.id, true));
    assert_eq!(story.write(&home).await.unwrap().points.points.len(), 1);
    // Before the vault was whole: a key file and some objects are left, and no header.
    std::fs::remove_file(home.root().join("vaults/main.toml")).unwrap();
    std::fs::remove_file(home.store_folder(MAIN).join(names::HEADER)).unwrap();
    let (new, made) = ensure_main(&home, &story.stores).await.unwrap();
    assert!(made && new.id != entry.id);
    story.write(&home).await.unwrap();
    // Without its key it is nobody's to take.
    std::fs::remove_file(home.root().join("vaults/main.toml")).unwrap();
    std::fs::remove_file(home.key_path(new.id)).unwrap();
    assert_eq!(
        ensure_main(&home, &story.stores).await.unwrap_err().kind(),
        Kind::Corrupt
    );
}

#[tokio::test]
async fn names_are_taken_once_renamed_and_forgotten() {
    let (story, home) = Story::with_vault().await;
    let again = create_vault(&home, MAIN, None, CreateOptions::default(), &story.stores)
        .await
        .unwrap_err();
    assert!(matches!(again, HomeError::NameTaken { .. }));
    let there = create_vault(
        &home,
        "second",
        Some(&story.url),
        CreateOptions::default(),
        &story.stores,
    )
    .await
    .unwrap_err();
    assert_eq!(there.kind(), Kind::Invalid);
    assert_eq!(
        std::fs::read_dir(home.root().join("keys")).unwrap().count(),
        1,
        "no key for a vault that is not made"
    );
    home.rename_vault(MAIN, "site-1").unwrap();
    assert_eq!(home.default_vault().unwrap().unwrap().name, "site-1");
    let error = home.vault(MAIN).unwrap_err();
    assert_eq!(error.hint().unwrap(), "there are: site-1");
    let id = home.forget_vault("site-1").unwrap().id;
    assert!(home.vaults().unwrap().is_empty() && home.has_key(id));
    assert!(story.store.objects().contains_key(names::HEADER));
    take_over(&home, "back", Some(&story.url), &HomeKeys, &story.stores)
        .await
        .unwrap();
    open_for_writing(&home, "back", &HomeKeys, &story.stores).await.unwrap();
}

#[tokio::test]
async fn another_vault_at_the_place_of_ours_is_refused() {
    let (story, home) = Story::with_vault().await;
    let entry = home.vault(MAIN).unwrap();
    home.add_vault(&VaultEntry {
        name: "wrong".into(),
        id: VaultId([1; 16]),
        ..entry
    })
    .unwrap();
    let error = open_for_reading(Some(&home), Place::Named("wrong"), &HomeKeys, &story.stores)
        .await
        .unwrap_err();
    assert!(matches!(error, HomeError::OtherVault { .. }), "{error:?}");
}

#[tokio::test]
async fn a_claim_that_cannot_be_read_stops_a_writer() {
    let (story, home) = Story::with_vault().await;
    let id = home.vault(MAIN).unwrap().id;
    let path = home.writer_folder(id).unwrap().join("claim");
    let claim = HomeClaim::load(&path, id).unwrap().unwrap();
    assert_eq!(claim.listed.number, 1);
    std::fs::write(&path, "").unwrap();
    assert_eq!(story.write(&home).await.unwrap_err().kind(), Kind::Corrupt);
    take_over(&home, MAIN, None, &HomeKeys, &story.stores).await.unwrap();
    story.write(&home).await.unwrap();
}

#[test]
fn the_vaults_of_a_home_are_changed_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path(), "vault").unwrap();
    let held = home.lock_vaults(Duration::ZERO).unwrap();
    assert!(matches!(
        home.lock_vaults(Duration::ZERO),
        Err(ControlError::Busy { .. })
    ));
    drop(held);
    home.lock_vaults(Duration::ZERO).unwrap();
}
