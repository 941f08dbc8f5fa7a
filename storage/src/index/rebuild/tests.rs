#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use futures::stream::BoxStream;

use super::*;
use crate::backend::{Backend, Listed};
use crate::chunk::Profile;
use crate::ids::{ClusterId, PartId, SessionId, VaultId};
use crate::index::conformance::session;
use crate::index::{Entry, Flags};
use crate::keys::Keyring;
use crate::limits::GRAIN;
use crate::pack::PiecesBuilder;
use crate::recipe::{self, Leaf, NodeSink};
use crate::seal::{FRAME_HEADER, FrameKind, OBJECT_HEADER, compress};
use crate::vault::PackWriter;

/// A store that tests can harm, and that tells what was read.
#[derive(Default)]
struct Shelf {
    objects: Mutex<BTreeMap<String, Bytes>>,
    reads: Mutex<Vec<String>>,
    silent: Mutex<Option<String>>,
}

impl Shelf {
    fn get(&self, name: &str) -> Result<Bytes, BackendError> {
        self.reads.lock().unwrap().push(name.into());
        if self.silent.lock().unwrap().as_deref() == Some(name) {
            let (operation, name) = ("read", name.into());
            return Err(BackendError::Unavailable {
                operation,
                name,
                source: "time-out".into(),
            });
        }
        let found = self.objects.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| BackendError::NotFound { name: name.into() })
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.objects
            .lock()
            .unwrap()
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn harm(&self, name: &str, act: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.objects.lock().unwrap();
        let mut bytes = objects[name].to_vec();
        act(&mut bytes);
        objects.insert(name.into(), bytes.into());
    }

    fn remove(&self, prefix: &str) {
        self.objects.lock().unwrap().retain(|name, _| !name.starts_with(prefix));
    }

    fn read_below(&self, prefix: &str) -> usize {
        self.reads
            .lock()
            .unwrap()
            .iter()
            .filter(|name| name.starts_with(prefix))
            .count()
    }
}

#[async_trait]
impl Backend for Shelf {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        self.objects.lock().unwrap().insert(name.into(), pieces.concat().into());
        Ok(())
    }
    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let bytes = self.get(name)?;
        if bytes.len() > max {
            let (name, length, max) = (name.into(), bytes.len() as u64, max as u64);
            return Err(BackendError::TooLarge { name, length, max });
        }
        Ok(bytes)
    }
    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let bytes = self.get(name)?;
        if range.end > bytes.len() as u64 {
            return Err(BackendError::Range {
                name: name.into(),
                end: range.end,
            });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }
    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.get(name).map(|bytes| bytes.len() as u64)
    }
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let length = |name: &String| self.objects.lock().unwrap()[name].len() as u64;
        let listed: Vec<_> = self
            .names(prefix)
            .into_iter()
            .map(|name| {
                Ok(Listed {
                    length: length(&name),
                    name,
                })
            })
            .collect();
        stream::iter(listed).boxed()
    }
    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }
}

const PACKS: u64 = 4;
const FRAMES: u8 = 5;
const CHUNKS: u8 = 3;

fn writer(part: u64) -> Writer {
    Writer {
        cluster: ClusterId(0xc1),
        session: SessionId(part),
        part: PartId(part),
    }
}

fn pack_name(part: u64) -> String {
    names::pack(PackId {
        writer: writer(part),
        seq: 0,
    })
}

fn chunk(part: u64, frame: u8, n: u8) -> Vec<u8> {
    // Incompressible enough that frames are some KiB.
    let mut bytes = vec![0; GRAIN as usize * (1 + usize::from(n))];
    blake3::Hasher::new()
        .update(&[part as u8, frame, n])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A vault of some packs, each of its own writer with its own segment: data frames and, last, one of recipes. Chunk 0 of frame 0 is
/// the same in all.
async fn filled() -> (Arc<Vault>, Arc<Shelf>, BTreeMap<ChunkId, Entry>) {
    let shelf = Arc::new(Shelf::default());
    let vault = Arc::new(Vault::new(
        VaultId([5; 16]),
        Profile::default(),
        shelf.clone(),
        Keyring::generate(),
    ));
    let live = Arc::new(MemoryIndex::new());
    for part in 1..=PACKS {
        let mut writes = PackWriter::new(vault.clone(), live.clone(), session(part, 0), writer(part));
        let mut some = Vec::new();
        for frame in 0..FRAMES {
            let mut table = PiecesBuilder::new(FrameKind::Data);
            let source = |n| chunk(if (frame, n) == (0, 0) { 0 } else { part }, frame, n);
            let chunks: Vec<Vec<u8>> = (0..CHUNKS).map(source).collect();
            let places: Vec<u32> = chunks.iter().map(|chunk| table.add(chunk.len())).collect();
            let plain = [table.table(), chunks.concat()].concat();
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| vault.ids.chunk(chunk)).collect();
            let placed = writes
                .place(FrameKind::Data, &table, &ids, &compress(&plain, 1))
                .await
                .unwrap();
            some.push(recipe::Entry::Chunk {
                grains: 1,
                id: ids[0],
                hint: placed.at(places[0]),
            });
        }
        let leaf = Leaf { entries: some };
        writes
            .place_nodes(&[(leaf.id(&vault.ids), leaf.encode())])
            .await
            .unwrap();
        writes.finish().await.unwrap();
    }
    let entries = live.entries();
    assert_eq!(
        entries.len(),
        (PACKS * (u64::from(FRAMES) * u64::from(CHUNKS) + 1) - (PACKS - 1)) as usize
    );
    shelf.reads.lock().unwrap().clear();
    (vault, shelf, entries)
}

async fn rebuilt(vault: &Arc<Vault>) -> (Report, MemoryIndex) {
    let index = MemoryIndex::new();
    let mut calls = 0;
    let report = rebuild(vault, &index, &mut |_| calls += 1).await.unwrap();
    assert!(calls > 0);
    (report, index)
}

async fn refusal(vault: &Arc<Vault>) -> Error {
    rebuild(vault, &MemoryIndex::new(), &mut |_| ()).await.unwrap_err()
}

/// Cuts off the trailer and flips a bit of the footer, so that only scanning helps, and takes the segments away.
fn leave_frames_only(shelf: &Shelf, part: u64) {
    shelf.remove(names::INDEX);
    shelf.harm(&pack_name(part), |bytes| {
        bytes.truncate(bytes.len() - TRAILER);
        *bytes.last_mut().unwrap() ^= 1;
    });
}

fn frames_of(shelf: &Shelf, part: u64) -> Vec<Range<usize>> {
    let bytes = shelf.get(&pack_name(part)).unwrap();
    let frames = crate::pack::scan_frames(&bytes);
    frames
        .into_iter()
        .map(|(at, header)| at as usize..at as usize + header.length())
        .collect()
}

#[tokio::test]
async fn segments_alone_give_the_whole_index_without_reading_a_pack() {
    let (vault, shelf, entries) = filled().await;
    let (report, index) = rebuilt(&vault).await;
    assert_eq!(index.entries(), entries);
    assert_eq!(shelf.read_below(names::PACKS), 0);
    assert_eq!(
        (report.segments_listed, report.segments_read, report.packs_in_segments),
        (PACKS, PACKS, PACKS)
    );
    assert_eq!(
        (report.packs_listed, report.footers_read, report.packs_scanned),
        (PACKS, 0, 0)
    );
    assert_eq!(report.entries, entries.len() as u64 + PACKS - 1);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(
        report.witness,
        Some(names::segment(PackId {
            writer: writer(PACKS),
            seq: 0
        }))
    );
}

#[tokio::test]
async fn footers_alone_give_the_whole_index() {
    let (vault, shelf, entries) = filled().await;
    shelf.remove(names::INDEX);
    let (report, index) = rebuilt(&vault).await;
    assert_eq!(index.entries(), entries);
    assert_eq!(
        (report.footers_read, report.packs_in_segments, report.packs_scanned),
        (PACKS, 0, 0)
    );
    assert_eq!(report.findings_total, 0);
    assert_eq!(report.witness, None);
}

#[tokio::test]
async fn frames_alone_give_the_whole_index() {
    let (vault, shelf, entries) = filled().await;
    for part in 1..=PACKS {
        leave_frames_only(&shelf, part);
    }
    let (report, index) = rebuilt(&vault).await;
    assert_eq!(report.packs_scanned, PACKS, "{report:?}");
    assert_eq!(index.entries(), entries);
    assert_eq!(report.findings_total, PACKS);
}

#[tokio::test]
async fn packs_of_damaged_segments_are_read_by_their_footers() {
    let (vault, shelf, entries) = filled().await;
    let segments = shelf.names(names::INDEX);
    shelf.harm(&segments[0], |bytes| bytes[OBJECT_HEADER + FRAME_HEADER + 9] ^= 1);
    shelf.harm(&segments[1], Vec::clear);
    shelf.harm(&segments[2], |bytes| bytes.truncate(200));
    // A whole segment of another name is not taken for this one.
    let other = shelf.get(&segments[0]).unwrap();
    shelf.harm(&segments[3], |bytes| *bytes = other.to_vec());
    let (report, index) = rebuilt(&vault).await;
    assert_eq!(index.entries(), entries);
    assert_eq!((report.segments_read, report.footers_read), (0, 4));
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (&finding.object, finding.loss))
        .collect();
    assert_eq!(
        found,
        segments.iter().map(|name| (name, Loss::Nothing)).collect::<Vec<_>>()
    );
    assert!(index.damage().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_frame_costs_its_own_pieces_and_is_noted() {
    let (vault, shelf, entries) = filled().await;
    let frames = frames_of(&shelf, 2);
    leave_frames_only(&shelf, 2);
    type Harm = fn(&mut [u8]);
    let harms: [(&str, Harm); 4] = [
        ("a byte of ciphertext", |frame| frame[FRAME_HEADER + 5] ^= 1),
        ("the frame's magic", |frame| frame[0] ^= 1),
        ("its kind, to one unknown", |frame| frame[8] ^= 0x40),
        ("its length", |frame| frame[16] ^= 1),
    ];
    let whole = shelf.get(&pack_name(2)).unwrap();
    for (harm, act) in harms {
        shelf.harm(&pack_name(2), |bytes| {
            *bytes = whole.to_vec();
            act(&mut bytes[frames[1].clone()]);
        });
        let (report, index) = rebuilt(&vault).await;
        let lost = |entry: &Entry| {
            entry.location.pack.writer == writer(2) && entry.location.frame_offset as usize == frames[1].start
        };
        let expected: BTreeMap<_, _> = entries.clone().into_iter().filter(|(_, entry)| !lost(entry)).collect();
        assert_eq!(expected.len(), entries.len() - usize::from(CHUNKS));
        assert_eq!(index.entries(), expected, "{harm}");
        let [finding] = &report.findings[..] else {
            panic!("{harm}: {:?}", report.findings)
        };
        assert_eq!((&finding.object, finding.loss), (&pack_name(2), Loss::Part), "{harm}");
        assert_eq!(
            index.damage().await.unwrap(),
            [(
                PackId {
                    writer: writer(2),
                    seq: 0
                },
                None
            )],
            "{harm}"
        );
    }
}

#[tokio::test]
async fn lost_packs_are_findings_and_the_others_are_indexed() {
    let (vault, shelf, entries) = filled().await;
    // One is gone though a segment lists it; of the others, the segments are gone too.
    shelf.objects.lock().unwrap().remove(&pack_name(1));
    for part in [2, 3] {
        shelf.objects.lock().unwrap().remove(&names::segment(PackId {
            writer: writer(part),
            seq: 0,
        }));
    }
    shelf.harm(&pack_name(2), |bytes| bytes[..OBJECT_HEADER].fill(0xee));
    shelf.harm(&pack_name(3), Vec::clear);
    let (report, index) = rebuilt(&vault).await;
    let mut found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (finding.object.clone(), finding.loss))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected: Vec<_> = (1..=3).map(|part| (pack_name(part), Loss::Whole)).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
    assert_eq!(index.damage().await.unwrap().len(), 3);
    // All of pack 4, with the chunk that the first pack had too.
    let of_last = index.entries();
    assert!(of_last.values().all(|entry| entry.location.pack.writer == writer(4)));
    let shared = vault.ids.chunk(&chunk(0, 0, 0));
    assert_eq!(of_last.len(), usize::from(FRAMES * CHUNKS) + 1);
    assert!(of_last.contains_key(&shared) && entries[&shared].location.pack.writer == writer(1));
    assert!(
        of_last
            .values()
            .all(|entry| entry.flags == Flags::NONE && entry.touch == 0)
    );
}

#[tokio::test]
async fn a_pack_of_another_length_than_its_segment_says_is_not_trusted() {
    let (vault, shelf, _) = filled().await;
    let frames = frames_of(&shelf, 3);
    shelf.harm(&pack_name(3), |bytes| bytes.truncate(frames[2].start + 10));
    let (report, index) = rebuilt(&vault).await;
    let mut left: Vec<_> = index
        .entries()
        .into_values()
        .filter(|entry| entry.location.pack.writer == writer(3))
        .collect();
    left.retain(|entry| entry.location.frame_offset as usize >= frames[2].start);
    assert_eq!(left, [], "entries beyond the cut");
    let [finding] = &report.findings[..] else {
        panic!("{:?}", report.findings)
    };
    assert_eq!((&finding.object, finding.loss), (&pack_name(3), Loss::Part));
}

#[tokio::test]
async fn objects_of_no_proper_name_are_told_and_passed_over() {
    let (vault, shelf, entries) = filled().await;
    let pack = shelf.get(&pack_name(1)).unwrap();
    for name in ["packs/zz/what", "index/what", "packs/README"] {
        shelf.create(name, std::slice::from_ref(&pack)).await.unwrap();
    }
    let (report, index) = rebuilt(&vault).await;
    assert_eq!(index.entries(), entries);
    assert_eq!(report.findings_total, 3);
}

#[tokio::test]
async fn an_unknown_version_stops_it_wherever_it_is_met() {
    for place in ["segment", "pack", "frame"] {
        let (vault, shelf, _) = filled().await;
        match place {
            "segment" => shelf.harm(&shelf.names(names::INDEX)[2], |bytes| bytes[4] = 2),
            "pack" => {
                shelf.remove(names::INDEX);
                shelf.harm(&pack_name(2), |bytes| bytes[4] = 2);
            }
            _ => {
                let frame = frames_of(&shelf, 2)[1].clone();
                leave_frames_only(&shelf, 2);
                // A whole frame of a kind to come, with its right checksum.
                shelf.harm(&pack_name(2), |bytes| {
                    let frame = &mut bytes[frame];
                    frame[8] = 77;
                    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..24]), &frame[FRAME_HEADER..]);
                    frame[24..28].copy_from_slice(&crc.to_le_bytes());
                });
            }
        }
        let error = refusal(&vault).await;
        assert_eq!(error.kind(), Kind::Unsupported, "{place}: {}", error.chain());
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_stops_it() {
    let (vault, shelf, _) = filled().await;
    *shelf.silent.lock().unwrap() = Some(shelf.names(names::INDEX)[1].clone());
    assert_eq!(refusal(&vault).await.kind(), Kind::Retry);
    shelf.remove(names::INDEX);
    *shelf.silent.lock().unwrap() = Some(pack_name(2));
    assert_eq!(refusal(&vault).await.kind(), Kind::Retry);
}

#[tokio::test]
async fn without_the_key_of_contents_a_pack_is_not_half_scanned() {
    let (vault, shelf, entries) = filled().await;
    let mut keyring = vault.keyring.clone();
    for keys in keyring.generations.values_mut() {
        keys.data = None;
    }
    let meta_only = Arc::new(Vault::new(vault.id, vault.profile, vault.backend.clone(), keyring));
    let (_, index) = rebuilt(&meta_only).await;
    assert_eq!(index.entries(), entries, "segments need no more");
    leave_frames_only(&shelf, 2);
    let (report, index) = rebuilt(&meta_only).await;
    let [finding] = &report.findings[..] else {
        panic!("{:?}", report.findings)
    };
    assert_eq!(finding.error.kind(), Kind::Denied);
    assert!(
        index
            .entries()
            .values()
            .all(|entry| entry.location.pack.writer != writer(2))
    );
}

#[tokio::test]
async fn bytes_made_to_look_like_frames_take_bounded_time() {
    let (vault, shelf, _) = filled().await;
    leave_frames_only(&shelf, 2);
    // Each 32 bytes the header of a frame of a MiB: checked one by one, that would be 20 GB of checksums.
    let mut header = shelf.get(&pack_name(2)).unwrap()[frames_of(&shelf, 2)[0].start..][..FRAME_HEADER].to_vec();
    header[12..16].copy_from_slice(&(1u32 << 20).to_le_bytes());
    header[16..20].copy_from_slice(&(1u32 << 20).to_le_bytes());
    header.resize(32, 0);
    let fakes = header.repeat((20 << 20) / 32 / 32);
    shelf.harm(&pack_name(2), |bytes| {
        bytes.truncate(OBJECT_HEADER);
        while bytes.len() < 20 << 20 {
            bytes.extend_from_slice(&fakes);
        }
    });
    let start = std::time::Instant::now();
    let (report, _) = rebuilt(&vault).await;
    assert_eq!(report.findings.len(), 1);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[cfg(feature = "rocks")]
#[tokio::test]
async fn an_index_in_rocksdb_is_rebuilt_to_the_same_entries() {
    use crate::index::{RocksIndex, Stamp};
    let (vault, _, entries) = filled().await;
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("index");
    let stamp = Stamp {
        vault: vault.id,
        cluster: ClusterId(0xc1),
        claim: 1,
    };
    let load = RocksIndex::load(&path, stamp).await.unwrap();
    let report = rebuild(&vault, &load, &mut |_| ()).await.unwrap();
    drop(load.finish(report.witness.as_deref()).await.unwrap());
    let index = RocksIndex::open(&path, stamp).await.unwrap();
    assert_eq!(index.witness().await.unwrap(), report.witness);
    let ids: Vec<_> = entries.keys().copied().collect();
    let expected: Vec<_> = entries.values().map(|entry| Some(entry.location)).collect();
    assert_eq!(index.locate(&ids).await.unwrap(), expected);
    assert_eq!(index.count().await.unwrap(), entries.len() as u64);
}
