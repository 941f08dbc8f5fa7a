//! How fast is cutting and naming, a core?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tresor_storage::chunk::{Cutter, IdKeys, Profile, is_zero};
use tresor_storage::keys::Keyring;
use tresor_storage::limits::{GRAIN, SEGMENT};

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(length)
        .collect()
}

fn cut(c: &mut Criterion) {
    let keyring = Keyring::generate();
    let ids = IdKeys::new(&keyring);
    let data = noise(SEGMENT as usize);
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Bytes(SEGMENT));
    group.bench_function("zero check", |b| {
        let zeros = vec![0; SEGMENT as usize];
        b.iter(|| is_zero(black_box(&zeros)));
    });
    for profile in Profile::ALL {
        let cutter = Cutter::new(profile, keyring.cut.as_ref().expect("a generated ring has all keys"));
        let mut pieces = Vec::new();
        group.bench_function(format!("cut {profile}"), |b| {
            b.iter(|| {
                pieces.clear();
                cutter.cut(black_box(&data), true, &mut pieces)
            });
        });
        group.bench_function(format!("cut and name {profile}"), |b| {
            b.iter(|| {
                pieces.clear();
                cutter.cut(black_box(&data), true, &mut pieces);
                let mut at = 0;
                for piece in &pieces {
                    let end = at + piece.grains() as usize * GRAIN as usize;
                    black_box(ids.chunk(&data[at..end]));
                    at = end;
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, cut);
criterion_main!(benches);
