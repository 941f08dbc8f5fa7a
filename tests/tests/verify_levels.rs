//! Each verify level finds its own damage and misses the next level's; every finding names the points that it harms.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use tresor_storage::Kind;
use tresor_storage::backend::Backend;
use tresor_storage::ids::{ChunkId, ItemId, Location, PackId, PartId, PointId, SessionId, Writer};
use tresor_storage::index::{ChunkIndex, IndexSession, MemoryIndex};
use tresor_storage::limits::{GRAIN, SEGMENT};
use tresor_storage::manifest::Manifest;
use tresor_storage::pack::{PackBuilder, PiecesBuilder, read_footer};
use tresor_storage::recipe::{Entry, Leaf, Root, TreeBuilder};
use tresor_storage::seal::{Codec, Compressed, FrameKind, compress};
use tresor_storage::vault::{PackWriter, names};
use tresor_storage::verify::{self, FindingKind, Level, Marks, Report, Scope, Spot, Target};
use tresor_tests::disk::Disk;
use tresor_tests::random::Random;
use tresor_tests::vault::Stage;

struct Story {
    stage: Stage,
    disk: Disk,
    point: Manifest,
}

async fn story() -> Story {
    let stage = Stage::new().await;
    let mut disk = Disk::empty(2 * SEGMENT as usize);
    disk.bytes = Random::seeded(21).bytes(2 * SEGMENT as usize);
    let point = stage.back_up(&[("vda", &disk)], None).await.unwrap().manifest;
    Story { stage, disk, point }
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

async fn scoped(stage: &Stage, level: Level, scope: Scope) -> Report {
    let target = Target::opened(Arc::clone(&stage.vault), Some(stage.index.clone()));
    let options = verify::Options {
        scope,
        ..Default::default()
    };
    Box::pin(verify::run(&target, level, &options, &verify::Progress::default()))
        .await
        .unwrap()
}

/// Writes a pack again with the same footer, one chunk of its first data frame replaced: everything in it is sealed and summed as it must be.
async fn reseal_with_a_wrong_chunk(stage: &Stage, pack: PackId) -> ChunkId {
    let vault = &stage.vault;
    let bytes = stage.packs()[&pack].clone();
    let (_, footer, _) = read_footer(vault.backend.as_ref(), &vault.keyring, vault.id, pack, None)
        .await
        .unwrap();
    let keys = stage.pack_keys(pack);
    let mut builder = PackBuilder::new(&vault.keyring, vault.id, pack).unwrap();
    let mut wronged = None;
    for frame in &footer.frames {
        let range = frame.offset as usize..(frame.offset + frame.length) as usize;
        let (header, mut plain) = keys.seal.open(&bytes[range]).unwrap();
        let mut table = PiecesBuilder::new(frame.kind);
        let unit = if frame.kind == FrameKind::Data {
            GRAIN as usize
        } else {
            1
        };
        for (length, _) in &frame.pieces {
            table.add(*length as usize * unit);
        }
        let ids: Vec<ChunkId> = frame.pieces.iter().map(|(_, id)| *id).collect();
        if frame.kind == FrameKind::Data && wronged.is_none() {
            let last = plain.len() - 1;
            plain[last] ^= 1;
            wronged = ids.last().copied();
        }
        // As long as it was, so that nothing else in the vault changes its place.
        let coded = match header.codec {
            Codec::Raw => Compressed {
                codec: Codec::Raw,
                plain_length: plain.len() as u32,
                bytes: plain,
            },
            Codec::Zstd => compress(&plain, 3),
        };
        let placed = builder.place(frame.kind, &table, &ids, &coded).unwrap();
        assert_eq!((placed.offset, placed.length), (frame.offset, frame.length));
    }
    let finished = builder.finish().unwrap();
    stage.memory.replace(&finished.name, finished.object.to_vec());
    wronged.unwrap()
}

/// Makes a point whose one leaf is as given, out of honest packs.
async fn point_with_leaf(stage: &Stage, leaf: Leaf) -> Manifest {
    let vault = &stage.vault;
    let writer = Writer {
        cluster: tresor_storage::ids::ClusterId(9),
        session: SessionId(1),
        part: PartId::random(),
    };
    let session = IndexSession {
        cluster: writer.cluster,
        session: writer.session,
        start_epoch: 0,
    };
    let size = u64::from(leaf.entries.iter().map(Entry::grains).sum::<u32>()) * u64::from(GRAIN);
    // An index of its own: what this writes is not to heal anything.
    let mut packs = PackWriter::new(Arc::clone(vault), Arc::new(MemoryIndex::new()), session, writer);
    let mut tree = TreeBuilder::new(vault.ids.clone(), vault.profile, size);
    tree.push_new(leaf.id(&vault.ids), None, leaf.encode(), &mut packs, None)
        .await
        .unwrap();
    let root: Root = tree.finish(&mut packs, None).await.unwrap();
    packs.finish().await.unwrap();
    let template = stage
        .manifest(PointId(
            stage
                .names(names::POINTS)
                .first()
                .and_then(|name| names::parse_point(name))
                .unwrap()
                .1
                .0,
        ))
        .await
        .unwrap();
    let mut disks = template.disks.clone();
    disks[0].root = root;
    let manifest = Manifest {
        item: ItemId::random(),
        point: PointId::random(),
        writer,
        parent: None,
        disks,
        ..template
    };
    let sealed = manifest.seal(&vault.keyring).unwrap();
    stage.memory.create(&manifest.object_name(), &[sealed]).await.unwrap();
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_vault_is_clean_at_every_level() {
    let Story { stage, mut disk, point } = story().await;
    disk.scribble(&mut Random::seeded(22));
    stage.back_up(&[("vda", &disk)], Some(&point)).await.unwrap();
    for level in Level::ALL {
        let report = stage.verify(level).await;
        assert_eq!(report.findings, [], "{level}");
        assert_eq!(report.notes, [""; 0], "{level}");
        assert!(report.is_complete && report.harms_known && report.marks.is_empty());
    }
    for level in [Level::Names, Level::Checks] {
        assert_eq!(
            stage.verify_without_keys(level).await.findings,
            [],
            "{level} without keys"
        );
    }
    let all = stage.verify(Level::All).await.checked;
    assert_eq!((all.packs, all.disks), (2, 2));
    assert!(all.pieces >= 100 && all.chunks >= 100 && all.frames >= 16, "{all:?}");
    assert_eq!(all.small, 2 + 2 + 3, "manifests, segments, header, key revision, claim");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_manifest_than_the_one_that_counts_is_found_wherever_manifests_are_read() {
    let Story { stage, point, .. } = story().await;
    let bytes = stage.vault.backend.read(&point.object_name(), 1 << 20).await.unwrap();
    let right = tresor_storage::manifest::hash(&bytes);
    let run = async |level, hash, keyed: bool| {
        let target = match keyed {
            true => Target::opened(Arc::clone(&stage.vault), None),
            false => Target::keyless(Arc::clone(&stage.vault.backend), stage.vault.id),
        };
        let options = verify::Options {
            manifests: [(point.point, hash)].into(),
            ..Default::default()
        };
        let progress = verify::Progress::default();
        Box::pin(verify::run(&target, level, &options, &progress))
            .await
            .unwrap()
    };
    for level in Level::ALL {
        assert_eq!(run(level, right, true).await.findings, [], "{level}");
        let report = run(level, [1; 32], true).await;
        if level == Level::Names {
            assert_eq!(report.findings, [], "no manifest is read");
            continue;
        }
        assert_eq!(kinds(&report), [FindingKind::Foreign], "{level}");
        assert_eq!(report.harmed(), [point.point].into(), "{level}");
    }
    let report = run(Level::Checks, [1; 32], false).await;
    assert_eq!(kinds(&report), [FindingKind::Foreign], "without keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_finds_what_is_gone_and_misses_a_flipped_bit_that_checks_finds() {
    let Story { stage, point, .. } = story().await;
    let (pack, bytes) = stage.packs().pop_first().unwrap();
    let frame = stage.frames(pack, FrameKind::Data)[3].clone();
    let mut flipped = bytes.to_vec();
    flipped[frame.start + 1000] ^= 4;
    stage.memory.replace(&names::pack(pack), flipped);
    assert_eq!(stage.verify_without_keys(Level::Names).await.findings, []);
    assert_eq!(stage.verify(Level::Names).await.findings, []);

    let keyless = stage.verify_without_keys(Level::Checks).await;
    assert_eq!(kinds(&keyless), [FindingKind::Corrupt]);
    assert_eq!(keyless.findings[0].spots, [Spot::Frame(pack, frame.start as u32)]);
    assert!(
        !keyless.harms_known && keyless.findings[0].harms.is_empty(),
        "recipes are sealed"
    );

    let keyed = stage.verify(Level::Checks).await;
    assert_eq!(keyed.findings[0].spots, [Spot::Frame(pack, frame.start as u32)]);
    assert_eq!(keyed.findings[0].harms, [point.point]);
    assert_eq!(keyed.findings[0].object, names::pack(pack));
    assert_eq!(keyed.marks.damage, [(pack, Some(frame.start as u32))]);
    assert!(
        keyed
            .marks
            .lost
            .iter()
            .all(|(_, at)| at.frame_offset == frame.start as u32)
            && keyed.marks.lost.len() > 2
    );

    stage.memory.delete(&names::pack(pack)).await.unwrap();
    for report in [
        stage.verify_without_keys(Level::Names).await,
        stage.verify(Level::Names).await,
    ] {
        assert_eq!(kinds(&report), [FindingKind::Missing]);
    }
    assert_eq!(
        stage
            .verify(Level::Names)
            .await
            .harmed()
            .into_iter()
            .collect::<Vec<_>>(),
        [point.point]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_misses_a_wrong_chunk_under_right_checksums_that_contents_finds() {
    let Story { stage, disk, point } = story().await;
    let (pack, _) = stage.packs().pop_first().unwrap();
    let wronged = reseal_with_a_wrong_chunk(&stage, pack).await;
    assert_eq!(stage.verify_without_keys(Level::Checks).await.findings, []);
    assert_eq!(stage.verify(Level::Checks).await.findings, []);
    assert_eq!(
        stage.verify(Level::Recipes).await.findings,
        [],
        "recipes reads no chunk"
    );

    let report = stage.verify(Level::Contents).await;
    assert_eq!(kinds(&report), [FindingKind::Corrupt]);
    let finding = &report.findings[0];
    assert!(finding.what.contains(&wronged.to_string()), "{}", finding.what);
    assert_eq!(finding.harms, [point.point]);

    report.marks.apply(stage.index.as_ref()).await.unwrap();
    let healed = stage.back_up(&[("vda", &disk)], Some(&point)).await.unwrap().manifest;
    stage.expect_restores(&healed, &[("vda", &disk.bytes)], "healed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_misses_a_chunk_that_no_pack_has_and_recipes_finds_it() {
    let Story { stage, point, .. } = story().await;
    let hint = stage.first_hints(&point, "vda").await[0];
    let leaf = Leaf {
        entries: vec![Entry::Chunk {
            grains: 4,
            id: ChunkId([0xee; 32]),
            hint,
        }],
    };
    let dangling = point_with_leaf(&stage, leaf).await;
    assert_eq!(stage.verify(Level::Contents).await.findings, []);

    let report = stage.verify(Level::Recipes).await;
    assert_eq!(kinds(&report), [FindingKind::Dangling]);
    assert_eq!(
        report.findings[0].harms,
        [dangling.point],
        "the other point needs that frame for what it has"
    );
    assert_eq!(
        report
            .marks
            .lost
            .iter()
            .filter(|(id, _)| *id == ChunkId([0xee; 32]))
            .count(),
        1
    );
    assert_eq!(kinds(&stage.verify(Level::All).await), [FindingKind::Dangling]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipes_finds_a_chunk_of_another_length_and_one_in_a_pack_that_never_was() {
    let Story { stage, point, .. } = story().await;
    let tree = stage.tree(&point, "vda");
    let Some(Entry::Chunk { grains, id, hint }) = tree.leaf(0).await.unwrap().unwrap().entries.first().copied() else {
        panic!("it begins with a chunk")
    };
    let long = point_with_leaf(
        &stage,
        Leaf {
            entries: vec![Entry::Chunk {
                grains: grains - 1,
                id,
                hint,
            }],
        },
    )
    .await;
    let report = stage.verify(Level::Recipes).await;
    assert_eq!(kinds(&report), [FindingKind::Dangling]);
    assert!(
        report.findings[0].what.contains("grains"),
        "{}",
        report.findings[0].what
    );
    assert_eq!(report.findings[0].harms, [long.point]);
    stage.memory.delete(&long.object_name()).await.unwrap();

    let nowhere = Location {
        pack: PackId { seq: 77, ..hint.pack },
        ..hint
    };
    let lost = point_with_leaf(
        &stage,
        Leaf {
            entries: vec![Entry::Chunk {
                grains,
                id: ChunkId([0xdd; 32]),
                hint: nowhere,
            }],
        },
    )
    .await;
    let report = stage.verify(Level::Recipes).await;
    assert_eq!(kinds(&report), [FindingKind::Missing]);
    assert_eq!(report.findings[0].spots, [Spot::Pack(nowhere.pack)]);
    assert_eq!(report.findings[0].harms, [lost.point]);
    stage.memory.delete(&lost.object_name()).await.unwrap();

    // The same, of a chunk that the index has elsewhere: a stale hint is no damage.
    point_with_leaf(
        &stage,
        Leaf {
            entries: vec![Entry::Chunk {
                grains,
                id,
                hint: nowhere,
            }],
        },
    )
    .await;
    let report = stage.verify(Level::Recipes).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_lists_another_footer_than_its_pack_has_is_found_by_contents() {
    let Story { stage, point, .. } = story().await;
    let (pack, bytes) = stage.packs().pop_first().unwrap();
    let mut segment = tresor_storage::index::segment::SegmentBuilder::new();
    segment.add(pack, bytes.len() as u64, vec![0; 4].into()).unwrap();
    let name = names::segment(PackId { seq: 0, ..pack });
    let vault = &stage.vault;
    let kind = tresor_storage::seal::ObjectKind::Segment;
    let sealed =
        tresor_storage::seal::seal_object(&vault.keyring, kind, vault.id, pack.writer, 0, &name, &segment.finish())
            .unwrap();
    stage.memory.replace(&name, sealed);
    assert_eq!(stage.verify(Level::Checks).await.findings, []);
    let report = stage.verify(Level::Contents).await;
    assert_eq!(
        report
            .findings
            .iter()
            .map(|finding| finding.object.clone())
            .collect::<Vec<_>>(),
        [name]
    );
    assert!(
        report.harmed().is_empty() && report.marks.is_empty(),
        "{point:?} needs no segment"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_is_no_damage_and_never_marked() {
    let Story { stage, .. } = story().await;
    let (pack, bytes) = stage.packs().pop_first().unwrap();
    let mut newer = bytes.to_vec();
    newer[4] = 2;
    stage.memory.replace(&names::pack(pack), newer);
    let segment = names::segment(PackId { seq: 0, ..pack });
    let mut newer = stage.memory.objects()[&segment].to_vec();
    newer[4] = 2;
    stage.memory.replace(&segment, newer);
    for report in [
        stage.verify(Level::All).await,
        stage.verify_without_keys(Level::Checks).await,
    ] {
        assert_eq!(
            kinds(&report)
                .iter()
                .filter(|kind| **kind != FindingKind::Unsupported)
                .count(),
            0,
            "{:#?}",
            report.findings
        );
        assert!(report.has_unsupported() && !report.has_damage());
        assert_eq!(report.marks, Marks::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_that_open_objects_ask_for_keys() {
    let Story { stage, .. } = story().await;
    let target = Target::keyless(Arc::clone(&stage.vault.backend), stage.id());
    for level in [Level::Contents, Level::Recipes, Level::All] {
        let error = Box::pin(verify::run(
            &target,
            level,
            &verify::Options::default(),
            &verify::Progress::default(),
        ))
        .await
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_names_are_notes() {
    let Story { stage, .. } = story().await;
    stage.memory.replace("packs/zz/readme", "hello".as_bytes());
    stage.memory.replace("points/.DS_Store", "hello".as_bytes());
    let report = stage.verify(Level::All).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_looks_at_its_own_part_only() {
    let Story { stage, mut disk, point } = story().await;
    disk.bytes[..500_000].copy_from_slice(&Random::seeded(5).bytes(500_000));
    let second = stage.back_up(&[("vda", &disk)], Some(&point)).await.unwrap().manifest;
    let newer = stage
        .packs()
        .into_keys()
        .find(|pack| pack.writer == second.writer)
        .unwrap();
    let older = stage
        .packs()
        .into_keys()
        .find(|pack| pack.writer == point.writer)
        .unwrap();
    let mut bytes = stage.packs()[&newer].to_vec();
    bytes[500] ^= 1;
    stage.memory.replace(&names::pack(newer), bytes);

    assert_eq!(scoped(&stage, Level::All, Scope::Point(point.point)).await.findings, []);
    assert_eq!(scoped(&stage, Level::All, Scope::Pack(older)).await.findings, []);
    for scope in [Scope::Point(second.point), Scope::Item(second.item), Scope::Pack(newer)] {
        let report = scoped(&stage, Level::Contents, scope).await;
        assert_eq!(kinds(&report), [FindingKind::Corrupt], "{scope:?}");
        assert_eq!(report.findings[0].harms, [second.point], "{scope:?}");
    }
    let checked = scoped(&stage, Level::Contents, Scope::Point(point.point)).await.checked;
    assert_eq!((checked.packs, checked.small), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_says_that_it_is_incomplete() {
    let Story { stage, .. } = story().await;
    let target = Target::opened(Arc::clone(&stage.vault), None);
    let progress = verify::Progress::default();
    progress.stop();
    let report = Box::pin(verify::run(&target, Level::All, &verify::Options::default(), &progress))
        .await
        .unwrap();
    assert!(!report.is_complete && !report.harms_known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_gives_nothing_is_an_error_and_one_object_that_it_does_not_give_a_finding() {
    use tresor_storage::backend::faulty::{Fault, Faulty, On, Rule};
    let Story { stage, disk, .. } = story().await;
    for n in 0..10 {
        let mut other = disk.clone();
        other.bytes[..SEGMENT as usize].copy_from_slice(&Random::seeded(100 + n).bytes(SEGMENT as usize));
        stage.back_up(&[("other", &other)], None).await.unwrap();
    }
    let faulty = |rule: Rule| stage.rewrapped(Arc::new(Faulty::new(stage.memory.clone(), 1).rule(rule)));
    let (pack, _) = stage.packs().pop_first().unwrap();
    let name = names::pack(pack);
    let report = faulty(Rule::always(Fault::Unavailable).on(On::Read).below(&name))
        .verify_without_keys(Level::Checks)
        .await;
    assert_eq!(kinds(&report), [FindingKind::Unreadable]);

    let silent = faulty(Rule::always(Fault::Unavailable).on(On::Read).below(names::PACKS));
    let target = Target::keyless(Arc::clone(&silent.vault.backend), silent.id());
    let error = Box::pin(verify::run(
        &target,
        Level::Checks,
        &verify::Options::default(),
        &verify::Progress::default(),
    ))
    .await
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Retry);
    let denied = faulty(Rule::always(Fault::Denied).on(On::Read).below(names::PACKS));
    let target = Target::keyless(Arc::clone(&denied.vault.backend), denied.id());
    let error = Box::pin(verify::run(
        &target,
        Level::Checks,
        &verify::Options::default(),
        &verify::Progress::default(),
    ))
    .await
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_byte_of_a_small_vault_is_found_by_contents() {
    let stage = Stage::new().await;
    let mut disk = Disk::empty(40_000);
    disk.bytes = Random::seeded(9).bytes(40_000);
    stage.back_up(&[("vda", &disk)], None).await.unwrap();
    let objects = stage.memory.objects();
    let mut random = Random::seeded(10);
    for (name, bytes) in objects {
        // Keys in clear and the claim are checked by those who open the vault, not here.
        if name.starts_with(names::KEYS) || name.starts_with(names::CLUSTER) || name == names::HEADER {
            continue;
        }
        let step = if bytes.len() > 4000 { 97 } else { 1 };
        for at in (0..bytes.len()).step_by(step).chain(0..bytes.len().min(160)) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << random.below(8);
            stage.memory.replace(&name, flipped);
            let report = stage.verify(Level::Contents).await;
            assert!(!report.findings.is_empty(), "byte {at} of {name}");
            assert!(
                report.findings.iter().all(|finding| finding.object == name),
                "byte {at} of {name}: {:#?}",
                report.findings
            );
        }
        stage.memory.replace(&name, bytes);
    }
    assert!(stage.index.count().await.unwrap() > 0);
}
