//! How fast are leaves written and read?

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tresor_storage::chunk::IdKeys;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, Writer};
use tresor_storage::keys::Keyring;
use tresor_storage::recipe::{Entry, Leaf};

fn recipe(c: &mut Criterion) {
    let keys = IdKeys::new(&Keyring::generate());
    let writer = Writer {
        cluster: ClusterId(1),
        session: SessionId(1),
        part: PartId(1),
    };
    let entry = |i: u32| {
        let pack = PackId { writer, seq: i / 100 };
        let hint = Location {
            pack,
            frame_offset: 96 + (i / 16) * 200_000,
            frame_length: 200_000,
            place: (i % 16) * 8,
        };
        Entry::Chunk {
            grains: 8,
            id: ChunkId([i as u8; 32]),
            hint,
        }
    };
    let leaf = Leaf {
        entries: (0..128).map(entry).collect(),
    };
    let (id, bytes) = (leaf.id(&keys), leaf.encode());
    let mut group = c.benchmark_group("leaf");
    group.bench_function("encode", |b| b.iter(|| black_box(&leaf).encode()));
    group.bench_function("name", |b| b.iter(|| black_box(&leaf).id(&keys)));
    group.bench_function("decode", |b| {
        b.iter(|| Leaf::decode(black_box(&bytes), &keys, id, 1024).expect("decodes"));
    });
    group.finish();
}

criterion_group!(benches, recipe);
criterion_main!(benches);
