//! How fast is cutting and naming, a core? And what does it cost that it is counted for metrics?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tresor_storage::chunk::{Cutter, Fingerprinter, IdKeys, Profile, is_zero};
use tresor_storage::keys::Keyring;
use tresor_storage::limits::{FRAME_PLAIN_TARGET, GRAIN, SEGMENT};
use tresor_worker::progress::{Lookups, Progress, Stage};

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
    let progress = Progress::default();
    group.bench_function("count, unchanged", |b| {
        b.iter(|| {
            drop(progress.time(Stage::Read));
            progress.add_read(black_box(SEGMENT));
            drop(progress.time(Stage::Cut));
            progress.add_done(SEGMENT);
            progress.add_spared(0, SEGMENT);
        });
    });
    group.bench_function("count, all new", |b| {
        b.iter(|| {
            for stage in [Stage::Read, Stage::Cut, Stage::Lookup] {
                drop(progress.time(stage));
            }
            progress.add_read(black_box(SEGMENT));
            progress.add_lookups(Lookups::default());
            progress.add_done(SEGMENT);
            progress.add_spared(0, 0);
            for _ in 0..SEGMENT / FRAME_PLAIN_TARGET as u64 {
                progress.frame_begins();
                drop(progress.time(Stage::Compress));
                progress.frame_ends();
                drop(progress.time(Stage::Pack));
                progress.add_new(FRAME_PLAIN_TARGET as u64);
                progress.add_stored(FRAME_PLAIN_TARGET as u64);
            }
        });
    });
    let prints = Fingerprinter::new(keyring.cut.as_ref().expect("a generated ring has all keys"));
    group.bench_function("fingerprint", |b| b.iter(|| prints.of(black_box(&data))));
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
