//! The damage matrix: every kind of damage to every kind of object, and what a restore, the next backup and verifying make of it.
//!
//! A vault has two points of one disk; the objects that the second added are damaged, so that the first must restore whatever happens.
//! A restore may give right bytes or name what is damaged, never wrong bytes. The next backup succeeds without being told, and once verifying told the index, its
//! point restores from the store alone, and heals the older one through the index, because the source still has the data.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tresor_storage::Kind;
use tresor_storage::backend::Backend;
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::Manifest;
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::create::open_header;
use tresor_storage::vault::{VaultReader, names};
use tresor_storage::verify::{self, Level, Report, Target};
use tresor_tests::disk::{Disk, MemorySink};
use tresor_tests::random::Random;
use tresor_tests::vault::{Stage, assert_same};
use tresor_worker::restore::{self, MERGE_GAP_LOCAL, RestoreRequest};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    DataFrame,
    RecipeFrame,
    Footer,
    Segment,
    Manifest,
    Header,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Missing,
    Empty,
    /// Cut in the middle of the piece.
    Truncated,
    /// One bit in the middle of the piece.
    Flipped,
    /// An older object's bytes under this name.
    Stale,
}

/// What a restore of the second point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restore {
    /// Gives the right bytes: this object is not needed.
    Right,
    /// Gives the right bytes but for ranges that it names.
    Damage,
    /// The point or the vault cannot be opened, with an error of this kind.
    Error(Kind),
}

/// The lowest level that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Names,
    Checks,
    Contents,
}

struct Cell {
    what: What,
    how: How,
    restore: Restore,
    /// With nothing but the store; `None`: without keys nobody can know.
    keyless: Option<Found>,
    /// With keys, of `names` and `checks` and `contents`.
    keyed: Found,
    /// Whether level `recipes` finds it, which reads no chunk.
    recipes: bool,
}

const fn cell(what: What, how: How, restore: Restore, keyless: Option<Found>, keyed: Found, recipes: bool) -> Cell {
    Cell {
        what,
        how,
        restore,
        keyless,
        keyed,
        recipes,
    }
}

use How::{Empty, Flipped, Missing, Stale, Truncated};
use What::{DataFrame, Footer, Header, Manifest as AManifest, RecipeFrame, Segment};

const N: Option<Found> = Some(Found::Names);
const C: Option<Found> = Some(Found::Checks);

/// What is expected. With keys, `names` compares packs with what index segments list, and opens segments to know it.
const MATRIX: [Cell; 30] = [
    cell(DataFrame, Missing, Restore::Damage, N, Found::Names, true),
    cell(DataFrame, Empty, Restore::Damage, C, Found::Names, true),
    cell(DataFrame, Truncated, Restore::Damage, C, Found::Names, true),
    cell(DataFrame, Flipped, Restore::Damage, C, Found::Checks, false),
    cell(DataFrame, Stale, Restore::Damage, C, Found::Names, true),
    cell(RecipeFrame, Missing, Restore::Damage, N, Found::Names, true),
    cell(RecipeFrame, Empty, Restore::Damage, C, Found::Names, true),
    cell(RecipeFrame, Truncated, Restore::Damage, C, Found::Names, true),
    cell(RecipeFrame, Flipped, Restore::Damage, C, Found::Checks, true),
    cell(RecipeFrame, Stale, Restore::Damage, C, Found::Names, true),
    cell(Footer, Missing, Restore::Damage, N, Found::Names, true),
    cell(Footer, Empty, Restore::Damage, C, Found::Names, true),
    cell(Footer, Truncated, Restore::Right, C, Found::Names, true),
    cell(Footer, Flipped, Restore::Right, C, Found::Checks, true),
    cell(Footer, Stale, Restore::Damage, C, Found::Names, true),
    cell(Segment, Missing, Restore::Right, N, Found::Names, true),
    cell(Segment, Empty, Restore::Right, C, Found::Names, true),
    cell(Segment, Truncated, Restore::Right, C, Found::Names, true),
    cell(Segment, Flipped, Restore::Right, C, Found::Names, true),
    cell(Segment, Stale, Restore::Right, C, Found::Names, true),
    // That a manifest is gone only those know who made the point: they say what is expected.
    cell(AManifest, Missing, Restore::Error(Kind::Missing), N, Found::Names, true),
    cell(AManifest, Empty, Restore::Error(Kind::Corrupt), C, Found::Checks, true),
    cell(
        AManifest,
        Truncated,
        Restore::Error(Kind::Corrupt),
        C,
        Found::Checks,
        true,
    ),
    cell(
        AManifest,
        Flipped,
        Restore::Error(Kind::Corrupt),
        C,
        Found::Checks,
        true,
    ),
    // A whole manifest of the same vault: only what it says tells that it is another's.
    cell(
        AManifest,
        Stale,
        Restore::Error(Kind::Corrupt),
        None,
        Found::Contents,
        true,
    ),
    cell(Header, Missing, Restore::Error(Kind::Missing), N, Found::Names, true),
    cell(Header, Empty, Restore::Error(Kind::Corrupt), C, Found::Checks, false),
    cell(
        Header,
        Truncated,
        Restore::Error(Kind::Corrupt),
        C,
        Found::Checks,
        false,
    ),
    cell(Header, Flipped, Restore::Error(Kind::Corrupt), C, Found::Checks, false),
    cell(Header, Stale, Restore::Error(Kind::Corrupt), C, Found::Checks, false),
];

struct Story {
    stage: Stage,
    points: [Manifest; 2],
    disks: [Disk; 2],
}

async fn story() -> Story {
    let stage = Stage::new().await;
    let mut random = Random::seeded(11);
    let mut disk = Disk::empty(3 * SEGMENT as usize + 5000);
    disk.bytes[..2 * SEGMENT as usize].copy_from_slice(&random.bytes(2 * SEGMENT as usize));
    disk.bytes[3 * SEGMENT as usize..].fill(7);
    let before = disk.clone();
    let first = stage.back_up(&[("vda", &disk)], None).await.unwrap();
    // More than a frame of new chunks, so that one damaged frame is not all.
    disk.bytes[100_000..1_500_000].copy_from_slice(&random.bytes(1_400_000));
    let second = stage.back_up(&[("vda", &disk)], Some(&first.manifest)).await.unwrap();
    Story {
        stage,
        points: [first.manifest, second.manifest],
        disks: [before, disk],
    }
}

impl Story {
    /// Names of the objects that the two points added, older first.
    fn objects(&self, what: What) -> [String; 2] {
        let of_writer = |folder: &str, point: &Manifest| {
            let names: Vec<String> = self
                .stage
                .names(folder)
                .into_iter()
                .filter(|name| name.contains(&point.writer.to_string()))
                .collect();
            assert_eq!(names.len(), 1, "one {folder} object for each point");
            names.into_iter().next().unwrap()
        };
        match what {
            DataFrame | RecipeFrame | Footer => self.points.each_ref().map(|point| of_writer(names::PACKS, point)),
            Segment => self.points.each_ref().map(|point| of_writer(names::INDEX, point)),
            AManifest => self.points.each_ref().map(Manifest::object_name),
            Header => [names::HEADER.to_owned(), names::HEADER.to_owned()],
        }
    }

    /// The damaged piece in its object.
    fn piece(&self, what: What, name: &str) -> Range<usize> {
        let frame = |kind| {
            let pack = names::parse_pack(name).unwrap();
            self.stage.frames(pack, kind).into_iter().next().unwrap()
        };
        match what {
            DataFrame => frame(FrameKind::Data),
            RecipeFrame => frame(FrameKind::Recipe),
            Footer => frame(FrameKind::Footer),
            // The first bytes are the vault's id: another bit there is another vault.
            Segment | AManifest | Header => 0..self.stage.memory.objects()[name].len(),
        }
    }

    async fn damage(&self, what: What, how: How) {
        let [older, name] = self.objects(what);
        let memory = &self.stage.memory;
        let bytes = memory.objects()[&name].clone();
        let piece = self.piece(what, &name);
        let middle = if what == Header {
            4
        } else {
            (piece.start + piece.end) / 2
        };
        match how {
            Missing => memory.delete(&name).await.unwrap(),
            Empty => memory.replace(&name, Vec::new()),
            Truncated => memory.replace(&name, bytes.slice(..middle)),
            Flipped => {
                let mut bytes = bytes.to_vec();
                bytes[middle] ^= 0x10;
                memory.replace(&name, bytes);
            }
            Stale if what == Header => {
                memory.replace(&name, Stage::new().await.memory.objects()[names::HEADER].clone());
            }
            Stale => memory.replace(&name, memory.objects()[&older].clone()),
        }
    }

    async fn restore(&self, reader: &Arc<VaultReader>) -> Restore {
        let header = open_header(self.stage.memory_backend(), "memory://stage").await;
        match header {
            Err(error) => return Restore::Error(error.kind()),
            Ok((header, _)) if header.vault != self.stage.id() => return Restore::Error(Kind::Corrupt),
            Ok(_) => {}
        }
        let point = match self.stage.manifest(self.points[1].point).await {
            Ok(point) => point,
            Err(error) => return Restore::Error(error.kind()),
        };
        let disk = &point.disks[0];
        let sink = MemorySink::new(disk.root.size);
        let request = RestoreRequest {
            disk: disk.name.clone(),
            root: disk.root,
            sink: sink.clone(),
            in_place: false,
            allow_damage: true,
            merge_gap: MERGE_GAP_LOCAL,
            cores: 2,
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        };
        let outcome = Box::pin(restore::run(reader, request)).await.unwrap();
        let mut expected = self.disks[1].bytes.clone();
        for damage in &outcome.damage {
            assert!(!damage.why.is_empty() && damage.length > 0);
            // What is damaged is left as zeros.
            expected[damage.offset as usize..(damage.offset + damage.length) as usize].fill(0);
        }
        assert_same(&sink.bytes(), &expected, "outside of named damage");
        if outcome.damage.is_empty() {
            Restore::Right
        } else {
            Restore::Damage
        }
    }

    async fn verify(&self, level: Level, keyed: bool) -> Report {
        let vault = &self.stage.vault;
        let target = match keyed {
            true => Target::opened(Arc::clone(vault), Some(self.stage.index.clone())),
            false => Target::keyless(Arc::clone(&vault.backend), vault.id),
        };
        let expected = self.points.iter().map(|point| (point.item, point.point)).collect();
        let options = verify::Options {
            expected,
            ..Default::default()
        };
        Box::pin(verify::run(&target, level, &options, &verify::Progress::default()))
            .await
            .unwrap()
    }

    async fn lowest(&self, levels: &[(Level, Found)], keyed: bool) -> Option<Found> {
        let mut lowest = None;
        for (level, found) in levels {
            let report = self.verify(*level, keyed).await;
            assert!(report.is_complete && (!keyed || report.harms_known));
            match lowest {
                None if report.has_damage() => lowest = Some(*found),
                None => {}
                Some(_) => assert!(report.has_damage(), "what a level finds, the next finds too ({level})"),
            }
        }
        lowest
    }
}

trait MemoryBackend {
    fn memory_backend(&self) -> &dyn Backend;
}

impl MemoryBackend for Stage {
    fn memory_backend(&self) -> &dyn Backend {
        &self.memory
    }
}

async fn play(cell: &Cell) {
    let story = story().await;
    let Cell { what, how, .. } = *cell;
    story.damage(what, how).await;
    let stage = &story.stage;

    // Restore: with and without an index that was not told.
    for reader in [stage.reader_without_index(), stage.reader()] {
        assert_eq!(story.restore(&reader).await, cell.restore, "restore");
    }
    stage
        .expect_restores(&story.points[0], &[("vda", &story.disks[0].bytes)], "the older point")
        .await;

    // Verify.
    let keyless = [(Level::Names, Found::Names), (Level::Checks, Found::Checks)];
    assert_eq!(
        story.lowest(&keyless, false).await,
        cell.keyless,
        "lowest level without keys"
    );
    let keyed = [
        (Level::Names, Found::Names),
        (Level::Checks, Found::Checks),
        (Level::Contents, Found::Contents),
    ];
    assert_eq!(
        story.lowest(&keyed, true).await,
        Some(cell.keyed),
        "lowest level with keys"
    );
    assert_eq!(
        story.verify(Level::Recipes, true).await.has_damage(),
        cell.recipes,
        "level recipes"
    );

    let report = story.verify(Level::All, true).await;
    let harms = report.harmed().contains(&story.points[1].point);
    let expected = match cell.restore {
        Restore::Damage => true,
        Restore::Right => false,
        Restore::Error(_) => what == AManifest,
    };
    assert_eq!(
        harms, expected,
        "the report names the points that are harmed: {:#?}",
        report.findings
    );
    assert!(
        !report.harmed().contains(&story.points[0].point),
        "the older point is not harmed: {:#?}",
        report.findings
    );

    // The next backup, which nobody told, succeeds; told, it heals.
    let parent = stage.manifest(story.points[1].point).await.ok();
    let disks = [("vda", &story.disks[1])];
    stage.back_up(&disks, parent.as_ref()).await.unwrap();
    let report = story.verify(Level::All, true).await;
    report.marks.apply(stage.index.as_ref()).await.unwrap();
    let healed = stage.back_up(&disks, parent.as_ref()).await.unwrap();
    stage
        .expect_restores(
            &healed.manifest,
            &[("vda", &story.disks[1].bytes)],
            "the point made after verifying",
        )
        .await;
    if parent.is_some() {
        let why = "the harmed point, through the index";
        stage
            .expect_restores_with(
                &stage.reader(),
                &story.points[1],
                &[("vda", &story.disks[1].bytes)],
                why,
            )
            .await;
    }
    let report = story.verify(Level::All, true).await;
    let still: Vec<_> = report.harmed().into_iter().collect();
    let expected: Vec<_> = (what == AManifest)
        .then_some(story.points[1].point)
        .into_iter()
        .collect();
    assert_eq!(
        still, expected,
        "after healing only a lost manifest harms: {:#?}",
        report.findings
    );
}

#[test]
fn every_cell_of_the_damage_matrix_is_as_the_table_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut failed = Vec::new();
    for cell in &MATRIX {
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(Box::pin(play(cell)))));
        if played.is_err() {
            failed.push(format!("{:?} {:?}", cell.what, cell.how));
        }
    }
    assert!(failed.is_empty(), "cells that are otherwise: {failed:?}");
}

#[test]
fn the_matrix_has_every_cell_once() {
    for what in [DataFrame, RecipeFrame, Footer, Segment, AManifest, Header] {
        for how in [Missing, Empty, Truncated, Flipped, Stale] {
            assert_eq!(
                MATRIX
                    .iter()
                    .filter(|cell| cell.what == what && cell.how == how)
                    .count(),
                1,
                "{what:?} {how:?}"
            );
        }
    }
}
