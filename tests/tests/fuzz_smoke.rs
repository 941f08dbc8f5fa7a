//! Every parser of foreign bytes against seeded mutations of valid inputs: what the fuzz targets do for hours, for seconds.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use tresor_tests::parsers::{Parser, all};
use tresor_tests::random::{Random, Replay, replayed_seed};

/// Inputs for each parser: about a second for all together.
const ROUNDS: u64 = 3000;

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at),
            3 => {
                let count = 1 + random.below(40) as usize;
                let extra = random.bytes(count);
                bytes.splice(at..at, extra);
            }
            4 => {
                let end = (at + 1 + random.below(16) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                // Lengths and counts at their extremes.
                let value = *random.pick(&[0_u32, 1, 0xff, 0xffff, 0x7fff_ffff, u32::MAX]);
                for (byte, new) in bytes.iter_mut().skip(at).zip(value.to_le_bytes()) {
                    *byte = new;
                }
            }
            6 => {
                let end = (at + 64).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.extend_from_slice(&again);
            }
            _ if bytes.len() > 1 => {
                let other = random.below(bytes.len() as u64) as usize;
                let at = at.min(bytes.len() - 1);
                bytes.swap(at, other);
            }
            _ => {}
        }
    }
}

fn drive(parser: &Parser) {
    let seed = replayed_seed().unwrap_or(0x7472_6573_6f72);
    let _replay = Replay(seed);
    let mut random = Random::seeded(seed);
    let sample = (parser.sample)(&mut random);
    (parser.run)(&sample);
    (parser.run)(&[]);
    // Those that touch files or seal large inputs are slower; none may take long.
    let begun = std::time::Instant::now();
    for round in 0..ROUNDS {
        let mut bytes = if round % 50 == 0 {
            (parser.sample)(&mut random)
        } else {
            sample.clone()
        };
        mutate(&mut random, &mut bytes);
        let shown = bytes.clone();
        let run = std::panic::catch_unwind(|| (parser.run)(&bytes));
        assert!(
            run.is_ok(),
            "{}: round {round}: {} bytes: {:02x?}",
            parser.name,
            shown.len(),
            &shown[..shown.len().min(2000)]
        );
    }
    assert!(
        begun.elapsed().as_secs() < 60,
        "{}: {ROUNDS} inputs took {:?}",
        parser.name,
        begun.elapsed()
    );
}

#[test]
fn no_mutation_of_a_valid_input_makes_a_parser_panic_or_hang() {
    std::thread::scope(|scope| {
        let drives: Vec<_> = all()
            .map(|parser| (parser.name, scope.spawn(|| drive(parser))))
            .collect();
        for (name, drive) in drives {
            assert!(drive.join().is_ok(), "{name} failed");
        }
    });
}

#[test]
fn every_parser_has_a_fuzz_target_and_every_target_a_parser() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for parser in all() {
        assert!(
            manifest.contains(&format!("name = \"{}\"", parser.name)),
            "fuzz/Cargo.toml has no target {}",
            parser.name
        );
    }
    let targets = std::fs::read_dir(folder.join("fuzz_targets")).unwrap();
    let mut count = 0;
    for target in targets {
        let path = target.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(&format!("parser(\"{name}\")")),
            "{name} drives another parser"
        );
        assert!(all().any(|parser| parser.name == name), "no parser {name}");
        count += 1;
    }
    assert_eq!(count, all().count());
}
