//! Every way in for foreign bytes: object stores, images, NBD servers, key files, coordinators and nodes. One list for the fuzz targets and for
//! the smoke test.
//!
//! What is sealed is sealed again around the bytes, so that they reach the parser behind the tag. A parser may refuse or accept, never panic, hang or take
//! unbounded memory; what it accepts is written and read again where there is a writer.

mod control;
mod slots;

use std::sync::LazyLock;

use bytes::Bytes;
use tresor_storage::backend::Abilities;
use tresor_storage::catalog::{Catalog, CatalogId, open_part};
use tresor_storage::chunk::{Fingerprint, IdKeys, Profile};
use tresor_storage::ids::{
    CheckpointId, ChunkId, ClusterId, ItemId, Location, PackId, PartId, PointId, SessionId, VaultId, Writer,
};
use tresor_storage::index::segment::{self, SegmentBuilder};
use tresor_storage::keys::{
    Generation, GenerationKeys, Key, KeyFile, Keyring, NewSlot, RecoveryKit, RevisionObject, Stamp, Unlock,
    first_revision, open_revisions,
};
use tresor_storage::manifest::{Consistency, Manifest, ManifestDisk};
use tresor_storage::pack::{Footer, FooterFrame, PackBuilder, PackShape, Pieces, PiecesBuilder, Trailer, scan_frames};
use tresor_storage::recipe::{Child, Entry, Leaf, Node, Root};
use tresor_storage::seal::{
    Codec, Compressed, FrameHeader, FrameKind, ObjectHeader, ObjectKind, ObjectSeal, compress, seal_object,
};
use tresor_storage::vault::claim::{Claim, ListedClaim};
use tresor_storage::vault::header::{Header, Redundancy, StoreEntry};
use tresor_storage::vault::names;

use self::slots::{checkpoint_sample, pack_list, pack_list_sample, slot_checkpoint};
use crate::random::Random;

/// A parser with valid inputs to start from.
pub struct Parser {
    /// Its name: that of its fuzz target.
    pub name: &'static str,
    /// Gives it bytes.
    pub run: fn(&[u8]),
    /// A valid input.
    pub sample: fn(&mut Random) -> Vec<u8>,
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Parser> {
    VAULTS.iter().chain(control::PARSERS)
}

/// What workers read of stores and disks.
const VAULTS: &[Parser] = &[
    Parser {
        name: "object_header",
        run: object_header,
        sample: |_| PACK.header.encode().to_vec(),
    },
    Parser {
        name: "frame",
        run: frame,
        sample: |_| PACK.seal.seal(FrameKind::Data, 0, &compress(&[7; 5000], 1)).unwrap(),
    },
    Parser {
        name: "frame_plain",
        run: frame_plain,
        sample: |random| compress(&random.bytes(64).repeat(9), 3).bytes,
    },
    Parser {
        name: "trailer",
        run: trailer,
        sample: trailer_sample,
    },
    Parser {
        name: "pack",
        run: pack,
        sample: pack_sample,
    },
    Parser {
        name: "footer",
        run: footer,
        sample: |random| footer_sample(random).encode(),
    },
    Parser {
        name: "pieces",
        run: pieces,
        sample: pieces_sample,
    },
    Parser {
        name: "leaf",
        run: leaf,
        sample: |random| leaf_sample(random).encode(),
    },
    Parser {
        name: "node",
        run: node,
        sample: |random| node_sample(random).encode(),
    },
    Parser {
        name: "manifest",
        run: manifest,
        sample: manifest_sample,
    },
    Parser {
        name: "catalog",
        run: catalog,
        sample: |_| vec![8, 1, 18, 16, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
    },
    Parser {
        name: "index_segment",
        run: index_segment,
        sample: segment_sample,
    },
    Parser {
        name: "slot_checkpoint",
        run: slot_checkpoint,
        sample: checkpoint_sample,
    },
    Parser {
        name: "pack_list",
        run: pack_list,
        sample: |random| pack_list_sample(random).encode(),
    },
    Parser {
        name: "key_revision",
        run: key_revision,
        sample: revision_sample,
    },
    Parser {
        name: "vault_header",
        run: vault_header,
        sample: header_sample,
    },
    Parser {
        name: "claim",
        run: claim,
        sample: claim_sample,
    },
    Parser {
        name: "names",
        run: object_names,
        sample: names_sample,
    },
    Parser {
        name: "key_file",
        run: key_file,
        sample: key_file_sample,
    },
    Parser {
        name: "recovery_kit",
        run: recovery_kit,
        sample: kit_sample,
    },
    Parser {
        name: "nbd_wire",
        run: tresor_worker::nbd::parse_foreign,
        sample: |_| [0x4e42_444d_4147_4943_u64.to_be_bytes().as_slice(), b"IHAVEOPT\0\x03"].concat(),
    },
    Parser {
        name: "image_header",
        run: tresor_worker::source::parse_foreign,
        sample: image_sample,
    },
];

/// Finds one by its name.
///
/// # Panics
/// When there is none.
pub fn parser(name: &str) -> &'static Parser {
    all()
        .find(|parser| parser.name == name)
        .expect("the fuzz target is named after a parser")
}

const VAULT: VaultId = VaultId([3; 16]);
const WRITER: Writer = Writer {
    cluster: ClusterId(1),
    session: SessionId(2),
    part: PartId(3),
};
const PACK_ID: PackId = PackId { writer: WRITER, seq: 0 };
const ITEM: ItemId = ItemId([4; 16]);
const POINT: PointId = PointId([5; 16]);

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let mut keyring = Keyring::generate();
    keyring.id = Key::from_bytes([1; 32]);
    let keys = GenerationKeys {
        meta: Key::from_bytes([2; 32]),
        data: Some(Key::from_bytes([3; 32])),
    };
    keyring.generations.insert(Generation(1), keys);
    keyring
});
static IDS: LazyLock<IdKeys> = LazyLock::new(|| IdKeys::new(&KEYRING));

struct SealedPack {
    header: ObjectHeader,
    seal: ObjectSeal,
}

static PACK: LazyLock<SealedPack> = LazyLock::new(|| {
    let meta = &KEYRING.generation(KEYRING.newest()).unwrap().meta;
    let header = ObjectHeader::new(ObjectKind::Pack, VAULT, WRITER, 0, KEYRING.newest(), meta);
    let seal = ObjectSeal::new(&KEYRING, &header, &names::pack(PACK_ID)).unwrap();
    SealedPack { header, seal }
});

fn object_header(bytes: &[u8]) {
    if let Ok(header) = ObjectHeader::parse(bytes) {
        assert_eq!(header.encode(), bytes[..header.encode().len()]);
        let _ = header.expect(ObjectKind::Pack, VAULT, Some((WRITER, 0)));
        let _ = ObjectSeal::new(&KEYRING, &header, "packs/x");
    }
}

fn frame(bytes: &[u8]) {
    if let Ok(header) = FrameHeader::parse(bytes) {
        let _ = header.check(bytes);
    }
    let _ = PACK.seal.open(bytes);
}

/// What a holder of the key could have compressed.
fn frame_plain(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(1 << 19)];
    for plain_length in [bytes.len() as u32, 1 << 19] {
        let coded = Compressed {
            codec: Codec::Zstd,
            plain_length,
            bytes: bytes.to_vec(),
        };
        let sealed = PACK.seal.seal(FrameKind::Data, 0, &coded).unwrap();
        if let Ok((_, plain)) = PACK.seal.open(&sealed) {
            assert_eq!(plain.len(), plain_length as usize);
        }
    }
}

fn trailer(bytes: &[u8]) {
    let (length, bytes) = bytes.split_at(bytes.len().min(8));
    let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if let Ok(trailer) = Trailer::parse(bytes, length) {
        assert_eq!(trailer.encode(), bytes);
        assert_eq!(
            trailer.footer_offset + u64::from(trailer.footer_length) + bytes.len() as u64,
            length
        );
    }
}

fn trailer_sample(random: &mut Random) -> Vec<u8> {
    let footer_length = 44 + random.below(1000) as u32;
    let trailer = Trailer {
        footer_offset: 96,
        footer_length,
        hash: [9; 32],
    }
    .encode();
    let length = 96 + u64::from(footer_length) + trailer.len() as u64;
    [length.to_be_bytes().as_slice(), &trailer].concat()
}

fn pack(bytes: &[u8]) {
    let frames = scan_frames(bytes);
    if let Ok(shape) = PackShape::check(VAULT, PACK_ID, bytes) {
        assert_eq!(frames, shape.frames);
    }
}

fn pack_sample(random: &mut Random) -> Vec<u8> {
    let mut builder = PackBuilder::new(&KEYRING, VAULT, PACK_ID).unwrap();
    for _ in 0..=random.below(3) {
        let mut table = PiecesBuilder::new(FrameKind::Data);
        table.add(4096);
        let plain = [table.table(), random.bytes(4096)].concat();
        builder
            .place(FrameKind::Data, &table, &[IDS.chunk(&plain)], &compress(&plain, 1))
            .unwrap();
    }
    builder.finish().unwrap().object.to_vec()
}

fn footer(bytes: &[u8]) {
    if let Ok(footer) = Footer::decode(bytes) {
        assert_eq!(footer.encode(), bytes);
        assert_eq!(
            footer.entries(PACK_ID).count(),
            footer.frames.iter().map(|frame| frame.pieces.len()).sum::<usize>()
        );
    }
}

fn footer_sample(random: &mut Random) -> Footer {
    let mut offset = 96;
    let frames = (0..random.below(5)).map(|_| {
        let length = 100 + random.below(1000) as u32;
        let pieces = (0..random.below(9))
            .map(|_| (1 + random.below(32) as u32, ChunkId([random.bits() as u8; 32])))
            .collect();
        let frame = FooterFrame {
            kind: *random.pick(&[FrameKind::Data, FrameKind::Recipe]),
            offset,
            length,
            plain_length: 5000,
            pieces,
        };
        offset += length;
        frame
    });
    Footer {
        frames: frames.collect(),
    }
}

fn pieces(bytes: &[u8]) {
    for kind in [FrameKind::Data, FrameKind::Recipe] {
        if let Ok(pieces) = Pieces::parse(kind, Bytes::copy_from_slice(bytes)) {
            for (place, piece) in pieces.iter() {
                assert_eq!(pieces.at(place).unwrap(), piece);
            }
            let _ = pieces.at(u32::MAX);
        }
    }
}

fn pieces_sample(random: &mut Random) -> Vec<u8> {
    let mut table = PiecesBuilder::new(FrameKind::Recipe);
    let nodes: Vec<Vec<u8>> = (0..=random.below(3)).map(|_| random.bytes(50)).collect();
    for node in &nodes {
        table.add(node.len());
    }
    [table.table(), nodes.concat()].concat()
}

fn leaf(bytes: &[u8]) {
    // A leaf's name covers what stands before its hints, so that the parser behind the name is reached.
    let lengths = bytes
        .get(1..3)
        .map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let runs: Vec<u16> = bytes
        .iter()
        .skip(3)
        .copied()
        .collect::<Vec<u8>>()
        .as_chunks::<2>()
        .0
        .iter()
        .take(lengths)
        .map(|b| u16::from_le_bytes(*b))
        .collect();
    let chunks = runs.iter().filter(|run| **run & 0x8000 == 0).count();
    let grains = runs.iter().map(|run| u32::from(run & 0x7fff)).sum();
    let named = &bytes[..(3 + lengths * 2 + chunks * 32).min(bytes.len())];
    if let Ok(leaf) = Leaf::decode(bytes, &IDS, IDS.leaf(named), grains) {
        assert_eq!(leaf.entries.iter().map(Entry::grains).sum::<u32>(), grains);
        assert_eq!(Leaf::decode(&leaf.encode(), &IDS, leaf.id(&IDS), grains), Ok(leaf));
    }
}

fn location(random: &mut Random) -> Location {
    let pack = PackId {
        seq: random.below(4) as u32,
        ..PACK_ID
    };
    Location {
        pack,
        frame_offset: 96 + 1000 * random.below(4) as u32,
        frame_length: 1000,
        place: random.below(99) as u32,
    }
}

fn leaf_sample(random: &mut Random) -> Leaf {
    let mut entries = vec![Entry::Hole { grains: 4 }];
    for _ in 0..random.below(20) {
        entries.push(Entry::Chunk {
            grains: 1 + random.below(32) as u8,
            id: ChunkId([random.bits() as u8; 32]),
            hint: location(random),
        });
    }
    Leaf { entries }
}

fn node(bytes: &[u8]) {
    let (level, children) = match bytes {
        [_, level, low, high, ..] => (*level, usize::from(u16::from_le_bytes([*low, *high]))),
        _ => (1, 0),
    };
    let presence = bytes.get(4..4 + children.div_ceil(8)).unwrap_or_default();
    let present = (0..children)
        .filter(|i| presence.get(i / 8).is_some_and(|byte| byte & 1 << (i % 8) != 0))
        .count();
    let named = &bytes[..(4 + presence.len() + present * 32).min(bytes.len())];
    if let Ok(node) = Node::decode(bytes, &IDS, IDS.node(named), level, children) {
        assert_eq!(node.children.len(), children);
        let _ = Node::decode(&node.encode(), &IDS, node.id(&IDS), level, children);
    }
}

fn node_sample(random: &mut Random) -> Node {
    let children = (0..1 + random.below(40)).map(|_| {
        (!random.one_in(3)).then(|| Child {
            id: ChunkId([random.bits() as u8; 32]),
            hint: location(random),
            print: (!random.one_in(3)).then(|| Fingerprint([random.bits() as u8; 16])),
        })
    });
    Node {
        level: 1,
        children: children.collect(),
    }
}

fn manifest(bytes: &[u8]) {
    let name = names::point(ITEM, POINT);
    let bytes = &bytes[..bytes.len().min(1 << 20)];
    let sealed = seal_object(&KEYRING, ObjectKind::Manifest, VAULT, WRITER, 0, &name, bytes).unwrap();
    let _ = Manifest::open(&KEYRING, &IDS, Profile::default(), VAULT, &name, &sealed);
    let _ = Manifest::open(&KEYRING, &IDS, Profile::default(), VAULT, &name, bytes);
}

fn manifest_sample(random: &mut Random) -> Vec<u8> {
    let child = Child {
        id: ChunkId([7; 32]),
        hint: location(random),
        print: None,
    };
    let disk = ManifestDisk {
        name: String::from("vda"),
        root: Root::new(&IDS, Profile::default(), 5 << 20, Some(child)),
        source_kind: String::from("file"),
        source_format: String::from("raw"),
    };
    let manifest = Manifest {
        vault: VAULT,
        item: ITEM,
        item_name: String::from("machine"),
        point: POINT,
        writer: WRITER,
        parent: None,
        time: String::from("2026-01-01T00:00:00Z"),
        keep_until: None,
        consistency: Consistency::Crash,
        consistency_reason: String::new(),
        live: false,
        disks: vec![disk],
        bytes_read: 1,
        bytes_new: 2,
        bytes_stored: 3,
    };
    let sealed = manifest.seal(&KEYRING).unwrap();
    let (_, plain) = tresor_storage::seal::open_object(
        &KEYRING,
        ObjectKind::Manifest,
        VAULT,
        &names::point(ITEM, POINT),
        &sealed,
    )
    .unwrap();
    plain
}

fn catalog(bytes: &[u8]) {
    let id = CatalogId {
        cluster: ClusterId(1),
        index: 7,
    };
    let bytes = &bytes[..bytes.len().min(1 << 20)];
    let sealed = seal_object(
        &KEYRING,
        ObjectKind::Catalog,
        VAULT,
        WRITER,
        0,
        &id.object_name(),
        bytes,
    )
    .unwrap();
    let _ = Catalog::open(&KEYRING, VAULT, id, &sealed);
    let sealed = seal_object(&KEYRING, ObjectKind::Catalog, VAULT, WRITER, 0, &id.part_name(1), bytes).unwrap();
    let _ = open_part(&KEYRING, VAULT, id, 1, &sealed);
}

fn index_segment(bytes: &[u8]) {
    if let Ok(entries) = segment::decode(&Bytes::copy_from_slice(bytes)) {
        for entry in entries {
            let _ = Footer::decode(&entry.footer);
        }
    }
}

fn segment_sample(random: &mut Random) -> Vec<u8> {
    let mut builder = SegmentBuilder::new();
    for seq in 0..random.below(4) as u32 {
        builder
            .add(PackId { seq, ..PACK_ID }, 5000, footer_sample(random).encode().into())
            .unwrap();
    }
    builder.finish()
}

fn names_sample(random: &mut Random) -> Vec<u8> {
    let checkpoint = CheckpointId {
        group: random.below(64) as u8,
        writer: WRITER,
        number: random.below(9) as u32,
        slots: random.bits() | 1,
    };
    let name = match random.below(2) {
        0 => names::pack(PACK_ID),
        _ => names::checkpoint(checkpoint, random.below(9) as u32),
    };
    name.into_bytes()
}

fn key_revision(bytes: &[u8]) {
    let object = RevisionObject {
        name: names::key_revision(1, WRITER),
        bytes: Bytes::copy_from_slice(bytes),
    };
    let _ = open_revisions(VAULT, None, &[object], &Unlock::File(Key::from_bytes([6; 32])));
}

fn revision_sample(_: &mut Random) -> Vec<u8> {
    let stamp = Stamp {
        writer: WRITER,
        claim: 1,
        now: String::from("2026-01-01T00:00:00Z"),
    };
    let slot = NewSlot::full("platform", Unlock::File(Key::from_bytes([6; 32])));
    first_revision(VAULT, [0; 32], &stamp, KEYRING.clone(), &[slot])
        .unwrap()
        .object
        .bytes
        .to_vec()
}

fn vault_header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(Header::decode(&header.encode().unwrap()), Ok(header));
    }
}

fn header_sample(_: &mut Random) -> Vec<u8> {
    let store = StoreEntry {
        url: String::from("memory://x"),
        region: String::new(),
        abilities: Abilities {
            create_only: true,
            lists_fresh: true,
            ranged_reads: true,
            deletes: true,
        },
    };
    let header = Header {
        vault: VAULT,
        profile: Profile::default().name().to_owned(),
        stores: vec![store],
        redundancy: Redundancy::Local,
        created_at: String::from("2026-01-01T00:00:00Z"),
        created_by: String::from("tests"),
        first_cluster: ClusterId(1),
    };
    header.encode().unwrap().to_vec()
}

const CLAIM: ListedClaim = ListedClaim {
    number: 1,
    cluster: ClusterId(1),
};

fn claim(bytes: &[u8]) {
    let _ = Claim::decode(CLAIM, &Bytes::copy_from_slice(bytes));
}

fn claim_sample(_: &mut Random) -> Vec<u8> {
    // version 1, vault, number 1, cluster 1, holder, time
    [
        [8, 1, 18, 16].as_slice(),
        &VAULT.0,
        &[24, 1, 32, 1, 42, 4],
        b"host",
        &[50, 20],
        b"2026-01-01T00:00:00Z",
    ]
    .concat()
}

fn object_names(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    if let Some(pack) = names::parse_pack(&name) {
        assert_eq!(names::pack(pack), name);
    }
    if let Some(segment) = names::parse_segment(&name) {
        assert_eq!(names::segment(segment), name);
    }
    if let Some((item, point)) = names::parse_point(&name) {
        assert_eq!(names::point(item, point), name);
    }
    if let Some((revision, writer)) = names::parse_key_revision(&name) {
        assert_eq!(names::key_revision(revision, writer), name);
    }
    if let Some((number, cluster)) = names::parse_claim(&name) {
        assert_eq!(names::claim(number, cluster), name);
    }
    if let Some((cluster, index)) = names::parse_catalog(&name) {
        assert_eq!(names::catalog(cluster, index), name);
    }
    if let Some((checkpoint, piece)) = names::parse_checkpoint(&name) {
        assert_eq!(names::checkpoint(checkpoint, piece), name);
    }
    if let Some((cluster, index, number)) = names::parse_catalog_part(&name) {
        assert_eq!(names::catalog_part(cluster, index, number), name);
    }
}

fn key_file(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let _ = KeyFile::load(file.path(), Some(VAULT));
}

fn key_file_sample(_: &mut Random) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    KeyFile::create(&path, VAULT, &Key::from_bytes([6; 32])).unwrap();
    std::fs::read(path).unwrap()
}

fn recovery_kit(bytes: &[u8]) {
    if let Ok(kit) = RecoveryKit::from_text(&String::from_utf8_lossy(bytes)) {
        assert_eq!(RecoveryKit::from_text(&kit.to_text()).unwrap().secret, kit.secret);
    }
}

fn kit_sample(_: &mut Random) -> Vec<u8> {
    let kit = RecoveryKit {
        vault: VAULT,
        vault_name: String::from("main"),
        slot: String::from("kit"),
        header_hash: Some([8; 32]),
        stores: vec![String::from("memory://x")],
        made_at: String::from("2026-01-01T00:00:00Z"),
        secret: Key::from_bytes([6; 32]),
    };
    kit.to_text().as_bytes().to_vec()
}

fn image_sample(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let magics: [&[u8]; 5] = [
        b"QFI\xfb\0\0\0\x03",
        b"conectix",
        b"vhdxfile",
        b"KDMV\x01\0\0\0",
        b"# Disk DescriptorFile\nversion=1\nRW 100 SPARSE \"a.vmdk\"\n",
    ];
    let magic = random.pick(&magics);
    bytes[..magic.len()].copy_from_slice(magic);
    bytes
}
