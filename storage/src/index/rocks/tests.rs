#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use rocksdb::statistics::Ticker;
use tempfile::TempDir;

use super::*;
use crate::ids::{ClusterId, VaultId};
use crate::index::conformance::{self, id, location, session};
use crate::index::{Flags, MemoryIndex};

const STAMP: Stamp = Stamp {
    vault: VaultId([7; 16]),
    cluster: ClusterId(0xc1),
    claim: 3,
};

async fn fresh() -> (TempDir, RocksIndex) {
    let dir = TempDir::new().unwrap();
    let index = RocksIndex::create(&dir.path().join("index"), STAMP).await.unwrap();
    (dir, index)
}

conformance::suite!(fresh);

async fn insert(index: &RocksIndex, range: std::ops::Range<u64>) {
    let entries: Vec<_> = range.map(|n| (id(n), location(n % 5, n as u32))).collect();
    index.insert(session(1, 0), &entries).await.unwrap();
}

async fn entries(index: &RocksIndex) -> BTreeMap<ChunkId, Entry> {
    let found = Arc::new(Mutex::new(BTreeMap::new()));
    let into = found.clone();
    let each = move |id, entry| {
        into.lock().unwrap().insert(id, entry);
        ControlFlow::Continue(())
    };
    index.for_each(each).await.unwrap();
    std::mem::take(&mut *found.lock().unwrap())
}

async fn stale(path: &Path) -> String {
    match RocksIndex::open(path, STAMP).await {
        Err(error @ IndexError::Stale { .. }) => {
            assert_eq!(error.kind(), Kind::Corrupt);
            error.to_string()
        }
        Err(error) => panic!("not stale: {error:?}"),
        Ok(_) => panic!("opened"),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn files(path: &Path, pattern: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut found: Vec<_> = all
        .filter(|file| file.file_name().unwrap().to_string_lossy().contains(pattern))
        .collect();
    found.sort();
    found
}

/// Writes what is in memory to files.
async fn flush(index: &RocksIndex) {
    let flushed = index.run(|shared| {
        let db = &shared.opened.db;
        for name in options::FAMILIES {
            db.flush_cf(family(db, name)).map_err(|e| trouble("flush", e))?;
        }
        Ok(())
    });
    flushed.await.unwrap();
}

#[tokio::test]
async fn all_that_was_acknowledged_is_there_after_a_reopen() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    insert(&index, 0..6000).await;
    index.mark_lost(&[(id(7), location(7 % 5, 7))]).await.unwrap();
    index.add_damage(location(1, 1).pack, Some(96)).await.unwrap();
    index.lookup(session(2, 9), &[id(8)]).await.unwrap();
    index.set_witness("index/some").await.unwrap();
    index.set_witness("index/other").await.unwrap();
    let before = entries(&index).await;
    assert_eq!(before.len(), 6000);
    assert!(before[&id(7)].flags.contains(Flags::LOST));
    assert_eq!(before[&id(8)].touch, 9);
    drop(index);

    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    assert_eq!(entries(&index).await, before);
    assert_eq!(index.damage().await.unwrap(), [(location(1, 1).pack, Some(96))]);
    assert_eq!(index.witness().await.unwrap().as_deref(), Some("index/other"));
    assert_eq!(index.count().await.unwrap(), 6000);
    // Numbers of writers go on where they ended.
    index
        .insert(
            session(1, 0),
            &[(id(9000), location(77, 1)), (id(9001), location(3, 1))],
        )
        .await
        .unwrap();
    let found = index.locate(&[id(9000), id(9001), id(0), id(1)]).await.unwrap();
    assert_eq!(
        found,
        [location(77, 1), location(3, 1), location(0, 0), location(1, 1)].map(Some)
    );
}

#[tokio::test]
async fn a_copy_taken_when_an_insert_returned_has_the_entries() {
    let (dir, index) = fresh().await;
    for round in 0..5 {
        insert(&index, round * 10_000..round * 10_000 + 5000).await;
        let killed = dir.path().join(format!("killed-{round}"));
        copy(&dir.path().join("index"), &killed);
        let reopened = RocksIndex::open(&killed, STAMP).await.unwrap();
        assert_eq!(entries(&reopened).await, entries(&index).await, "round {round}");
    }
}

#[tokio::test]
async fn a_write_that_is_acknowledged_was_synced_once_and_a_lookup_never() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    drop(RocksIndex::create(&path, STAMP).await.unwrap());
    let mut options = options::database();
    options.enable_statistics();
    let index = RocksIndex::open_with(&path, STAMP, options).await.unwrap();
    let synced = || index.shared.opened.options.get_ticker_count(Ticker::WalFileSynced);

    let at_first = synced();
    insert(&index, 0..10_000).await;
    assert_eq!(
        (synced() - at_first, index.counters().syncs),
        (1, 1),
        "three batches, one sync"
    );
    index.mark_lost(&[(id(7), location(7 % 5, 7))]).await.unwrap();
    assert_eq!(index.counters().syncs, 2);
    index.add_damage(location(1, 1).pack, None).await.unwrap();
    assert_eq!(index.counters().syncs, 3);

    let before = index.counters();
    let ids: Vec<_> = (0..12_000).map(id).collect();
    index.lookup(session(1, 0), &ids).await.unwrap();
    index.locate(&ids).await.unwrap();
    insert(&index, 100..200).await;
    index
        .mark_lost(&[(id(7), location(7 % 5, 7)), (id(8), location(4, 4))])
        .await
        .unwrap();
    let after = index.counters();
    assert_eq!(
        after.rows_written, before.rows_written,
        "nothing changed, nothing is written"
    );
    assert_eq!(
        (after.syncs, after.batches_written),
        (before.syncs, before.batches_written)
    );

    index.lookup(session(1, 4), &ids).await.unwrap();
    let touched = index.counters();
    assert_eq!(touched.rows_written - after.rows_written, 9999, "each good entry once");
    assert_eq!(touched.syncs, after.syncs, "touches need no sync");
    index.lookup(session(1, 4), &ids).await.unwrap();
    assert_eq!(index.counters().rows_written, touched.rows_written);
    assert_eq!(synced() - at_first, 3);
}

#[tokio::test]
async fn another_vault_claim_or_version_is_stale_and_left_alone() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    insert(&index, 0..10).await;
    drop(index);
    for other in [
        Stamp {
            vault: VaultId([8; 16]),
            ..STAMP
        },
        Stamp {
            cluster: ClusterId(1),
            ..STAMP
        },
        Stamp { claim: 4, ..STAMP },
    ] {
        assert!(
            matches!(RocksIndex::open(&path, other).await, Err(IndexError::Stale { .. })),
            "{other:?}"
        );
    }
    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    assert_eq!(entries(&index).await.len(), 10);
    let mut newer = STAMP.encode();
    newer[0] += 1;
    index.shared.put_meta(STAMP_KEY, &newer).unwrap();
    drop(index);
    let why = stale(&path).await;
    assert!(why.contains("version 3"), "{why}");
}

#[tokio::test]
async fn tables_of_another_version_are_stale() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    drop(index);
    {
        let opened = open::open(&path, options::database()).unwrap();
        let mut db = opened.db;
        db.create_cf("shelves", &Options::default()).unwrap();
    }
    let why = stale(&path).await;
    assert!(why.contains("shelves"), "{why}");
}

#[tokio::test]
async fn a_damaged_database_is_stale_and_nothing_of_it_is_removed() {
    let (dir, index) = fresh().await;
    let whole = dir.path().join("index");
    insert(&index, 0..3000).await;
    flush(&index).await;
    insert(&index, 3000..6000).await;
    drop(index);
    assert!(!files(&whole, ".sst").is_empty());

    type Harm = fn(&Path);
    let harms: [(&str, Harm); 8] = [
        ("garbage in CURRENT", |path| {
            fs::write(path.join("CURRENT"), "rubbish").unwrap();
        }),
        ("no CURRENT", |path| fs::remove_file(path.join("CURRENT")).unwrap()),
        ("no MANIFEST", |path| {
            files(path, "MANIFEST")
                .iter()
                .for_each(|file| fs::remove_file(file).unwrap());
        }),
        ("garbage in MANIFEST", |path| {
            files(path, "MANIFEST")
                .iter()
                .for_each(|file| fs::write(file, [0xa5; 5000]).unwrap());
        }),
        ("empty MANIFEST", |path| {
            files(path, "MANIFEST")
                .iter()
                .for_each(|file| fs::write(file, []).unwrap());
        }),
        ("no table", |path| fs::remove_file(&files(path, ".sst")[0]).unwrap()),
        ("no log", |path| {
            files(path, ".log")
                .iter()
                .for_each(|file| fs::remove_file(file).unwrap());
        }),
        ("a flipped bit in the log", |path| {
            let log = files(path, ".log")
                .into_iter()
                .max_by_key(|file| fs::metadata(file).unwrap().len())
                .unwrap();
            let mut bytes = fs::read(&log).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&log, bytes).unwrap();
        }),
    ];
    for (harm, act) in harms {
        let path = dir.path().join(harm);
        copy(&whole, &path);
        act(&path);
        let left = |pattern| files(&path, pattern);
        let before = (left(".sst"), left(".log"), left("MANIFEST"));
        match RocksIndex::open(&path, STAMP).await {
            Err(IndexError::Stale { .. }) => {}
            Err(error) => panic!("{harm}: {error:?}"),
            Ok(_) => panic!("{harm}: opened"),
        }
        assert_eq!((left(".sst"), left(".log"), left("MANIFEST")), before, "{harm}");
        RocksIndex::destroy(&path).await.unwrap();
        let made = RocksIndex::create(&path, STAMP).await;
        assert!(made.is_ok(), "{harm}: after it was destroyed");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_is_stale_not_a_wrong_answer() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    insert(&index, 0..3000).await;
    flush(&index).await;
    drop(index);
    let table = files(&path, ".sst")
        .into_iter()
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&table).unwrap();
    // In the first block of rows.
    bytes[1000] ^= 1;
    fs::write(&table, bytes).unwrap();
    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    let ids: Vec<_> = (0..3000).map(id).collect();
    let error = index.lookup(session(1, 0), &ids).await.unwrap_err();
    assert!(matches!(error, IndexError::Stale { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_second_opener_is_told_that_it_is_in_use() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    assert!(matches!(RocksIndex::open(&path, STAMP).await, Err(IndexError::Locked)));
    assert!(matches!(RocksIndex::destroy(&path).await, Err(IndexError::Locked)));
    insert(&index, 0..10).await;
    drop(index);
    assert_eq!(entries(&RocksIndex::open(&path, STAMP).await.unwrap()).await.len(), 10);
}

#[tokio::test]
async fn another_process_is_told_that_it_is_in_use() {
    const PATH: &str = "TRESOR_TEST_INDEX_IN_USE";
    if let Some(path) = std::env::var_os(PATH) {
        // The other process.
        assert!(matches!(
            RocksIndex::open(Path::new(&path), STAMP).await,
            Err(IndexError::Locked)
        ));
        assert!(matches!(
            RocksIndex::destroy(Path::new(&path)).await,
            Err(IndexError::Locked)
        ));
        return;
    }
    let (dir, index) = fresh().await;
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args([
        "--exact",
        "index::rocks::tests::another_process_is_told_that_it_is_in_use",
    ]);
    let output = other.env(PATH, dir.path().join("index")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    drop(index);
}

#[tokio::test]
async fn an_absent_index_is_stale_and_its_folder_not_made() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    stale(&path).await;
    assert!(!path.exists());
    RocksIndex::destroy(&path).await.unwrap();
    drop(RocksIndex::create(&path, STAMP).await.unwrap());
    assert!(matches!(
        RocksIndex::create(&path, STAMP).await,
        Err(IndexError::Stale { .. })
    ));
    RocksIndex::destroy(&path).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn destroying_leaves_files_of_others() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    drop(index);
    fs::write(path.join("notes.txt"), "mine").unwrap();
    RocksIndex::destroy(&path).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
    assert!(files(&path, "MANIFEST").is_empty());
    assert!(RocksIndex::create(&path, STAMP).await.is_ok());
}

#[tokio::test]
async fn a_folder_that_may_not_be_read_is_denied() {
    if rustix_is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    drop(index);
    fs::set_permissions(path.join("LOCK"), fs::Permissions::from_mode(0o000)).unwrap();
    let error = RocksIndex::open(&path, STAMP).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
}

fn rustix_is_root() -> bool {
    // Permissions do not bind root: whoever can read a file without read permission is root.
    let file = tempfile::NamedTempFile::new().unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o000)).unwrap();
    fs::read(file.path()).is_ok()
}

#[tokio::test]
async fn a_load_counts_only_when_it_was_finished() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    let load = RocksIndex::load(&path, STAMP).await.unwrap();
    load.add(vec![(id(1), location(1, 1))]).await.unwrap();
    drop(load);
    let why = stale(&path).await;
    assert!(why.contains("never finished"), "{why}");
    RocksIndex::destroy(&path).await.unwrap();

    let load = RocksIndex::load(&path, STAMP).await.unwrap();
    for pack in 0..20u32 {
        // Each pack repeats the half of the one before.
        let ids = u64::from(pack) * 500..u64::from(pack) * 500 + 1000;
        load.add(ids.map(|n| (id(n), location(1, pack))).collect())
            .await
            .unwrap();
    }
    load.add_damage(location(1, 3).pack, None).await.unwrap();
    let index = load.finish(Some("index/newest")).await.unwrap();
    assert_eq!(index.counters().syncs, 2, "witness and stamp; the entries were flushed");
    let killed = dir.path().join("killed");
    copy(&path, &killed);
    for index in [index, RocksIndex::open(&killed, STAMP).await.unwrap()] {
        let found = entries(&index).await;
        assert_eq!(found.len(), 10_500);
        for n in 0..10_500u64 {
            let first = (n / 500).saturating_sub(1) as u32;
            assert_eq!(found[&id(n)].location, location(1, first), "id {n}");
        }
        assert_eq!(index.damage().await.unwrap(), [(location(1, 3).pack, None)]);
        assert_eq!(index.witness().await.unwrap().as_deref(), Some("index/newest"));
        // It goes on as an index like any other.
        insert(&index, 50_000..50_010).await;
        assert_eq!(index.locate(&[id(50_001)]).await.unwrap(), [Some(location(1, 50_001))]);
    }
}

#[tokio::test]
async fn opening_reads_no_entries_however_many_there_are() {
    let mut seen = Vec::new();
    for count in [1000u64, 300_000] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("index");
        let load = RocksIndex::load(&path, STAMP).await.unwrap();
        for start in (0..count).step_by(50_000) {
            let ids = start..count.min(start + 50_000);
            load.add(ids.map(|n| (id(n), location(n % 5, n as u32))).collect())
                .await
                .unwrap();
        }
        drop(load.finish(None).await.unwrap());

        let mut options = options::database();
        options.enable_statistics();
        let index = RocksIndex::open_with(&path, STAMP, options).await.unwrap();
        let ticked = |ticker| index.shared.opened.options.get_ticker_count(ticker);
        let data = [
            ticked(Ticker::NumberKeysRead),
            ticked(Ticker::NumberMultigetKeysRead),
            ticked(Ticker::BlockCacheDataMiss),
            ticked(Ticker::BlockCacheDataBytesInsert),
        ];
        assert!(data[2] <= 3, "blocks of rows read: {}", data[2]);
        seen.push(data);
        let memory = index.memory();
        assert!(memory.cache + memory.tables < 4 << 20, "{memory:?}");
        // The counters do count: a lookup reads keys and blocks.
        let ids: Vec<_> = (0..1000).map(id).collect();
        index.lookup(session(1, 0), &ids).await.unwrap();
        assert!(ticked(Ticker::NumberMultigetKeysRead) >= 1000);
        assert!(ticked(Ticker::BlockCacheDataMiss) > data[2]);
    }
    assert_eq!(seen[0], seen[1], "300 times the entries, the same reads");
}

#[tokio::test]
async fn more_writers_than_are_kept_in_memory_keep_their_numbers() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    // Over the 65 536 that are cached; each writer is met again after the cache was emptied.
    const WRITERS: u64 = 70_000;
    let all: Vec<_> = (0..WRITERS).map(|n| (id(n), location(n, 1))).collect();
    index.insert(session(1, 0), &all).await.unwrap();
    let again: Vec<_> = (0..WRITERS)
        .step_by(100)
        .map(|n| (id(WRITERS + n), location(n, 2)))
        .collect();
    index.insert(session(1, 0), &again).await.unwrap();
    drop(index);
    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    assert_eq!(
        index.shared.lock().next_number,
        WRITERS as u32,
        "a writer has two numbers"
    );
    for (ids, entries) in [(0, &all), (1, &again)] {
        let found = index
            .locate(&entries.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            .await
            .unwrap();
        assert!(
            found
                .iter()
                .zip(entries)
                .all(|(found, (_, location))| *found == Some(*location)),
            "set {ids}"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Lookup(Vec<u64>, u64),
    Insert(Vec<(u64, u32)>, u64),
    Lose(Vec<(u64, u32)>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = proptest::collection::vec(0..12u64, 0..8);
    let pairs = || proptest::collection::vec((0..12u64, 0..3u32), 0..8);
    prop_oneof![
        3 => (ids, 0..5u64).prop_map(|(ids, touch)| Step::Lookup(ids, touch)),
        3 => (pairs(), 0..5u64).prop_map(|(pairs, touch)| Step::Insert(pairs, touch)),
        2 => pairs().prop_map(Step::Lose),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_leaves_what_the_index_in_memory_has(steps in proptest::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (dir, mut index) = fresh().await;
            let memory = MemoryIndex::new();
            let places = |pairs: Vec<(u64, u32)>| -> Vec<_> {
                pairs.into_iter().map(|(n, seq)| (id(n), location(u64::from(seq), seq))).collect()
            };
            for step in steps {
                match step {
                    Step::Lookup(ids, touch) => {
                        let ids: Vec<_> = ids.into_iter().map(id).collect();
                        let answers = index.lookup(session(1, touch), &ids).await.unwrap();
                        assert_eq!(answers, memory.lookup(session(1, touch), &ids).await.unwrap());
                        assert_eq!(index.locate(&ids).await.unwrap(), memory.locate(&ids).await.unwrap());
                    }
                    Step::Insert(pairs, touch) => {
                        let pairs = places(pairs);
                        index.insert(session(1, touch), &pairs).await.unwrap();
                        memory.insert(session(1, touch), &pairs).await.unwrap();
                    }
                    Step::Lose(pairs) => {
                        let pairs = places(pairs);
                        index.mark_lost(&pairs).await.unwrap();
                        memory.mark_lost(&pairs).await.unwrap();
                    }
                    Step::Reopen => {
                        drop(index);
                        index = RocksIndex::open(&dir.path().join("index"), STAMP).await.unwrap();
                    }
                }
            }
            assert_eq!(entries(&index).await, memory.entries());
        });
    }
}
