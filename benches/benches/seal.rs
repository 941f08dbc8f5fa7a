//! How fast are sealing and opening frames, a core?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tresor_storage::ids::{ClusterId, PartId, SessionId, VaultId, Writer};
use tresor_storage::keys::Keyring;
use tresor_storage::seal::{Codec, Compressed, FrameKind, ObjectHeader, ObjectKind, ObjectSeal, compress};

/// Compresses about as programs and logs do.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"etaoin shrdlu\n\0\x01\xff"[(state >> 24) as usize % 17]
    };
    (0..length).map(|_| next()).collect()
}

fn seal(c: &mut Criterion) {
    let keyring = Keyring::generate();
    let writer = Writer {
        cluster: ClusterId(1),
        session: SessionId(1),
        part: PartId(1),
    };
    let generation = keyring.newest();
    let meta = &keyring.generation(generation).expect("it is the newest").meta;
    let header = ObjectHeader::new(ObjectKind::Pack, VaultId::random(), writer, 0, generation, meta);
    let seal = ObjectSeal::new(&keyring, &header, "packs/bench").expect("made under this key");
    let plain = text(512 << 10);
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    for level in [-5, 1, 3] {
        group.bench_function(format!("compress, zstd {level}"), |b| {
            b.iter(|| compress(black_box(&plain), level));
        });
    }
    let raw = || Compressed {
        codec: Codec::Raw,
        plain_length: plain.len() as u32,
        bytes: plain.clone(),
    };
    group.bench_function("encrypt", |b| {
        b.iter(|| seal.seal(FrameKind::Data, 0, &raw()).expect("seals"));
    });
    let sealed = seal.seal(FrameKind::Data, 0, &raw()).expect("seals");
    group.bench_function("decrypt", |b| b.iter(|| seal.open(black_box(&sealed)).expect("opens")));
    let compressed = seal.seal(FrameKind::Data, 0, &compress(&plain, 1)).expect("seals");
    group.bench_function("decrypt and decompress", |b| {
        b.iter(|| seal.open(black_box(&compressed)).expect("opens"));
    });
    group.finish();
}

criterion_group!(benches, seal);
criterion_main!(benches);
