//! Vaults that earlier programs made.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Site, noise};

/// The disk of a fixture's points, 1 and 2. Not to be changed: the fixtures hold these bytes.
fn disk(point: u64) -> Vec<u8> {
    let mut bytes = noise(point, 60_000);
    bytes.resize(5 << 20, 0);
    bytes.extend(noise(9, 30_000));
    bytes.resize(9 << 20, 0);
    bytes.extend(
        b"a line of a log, as there are many of them\n"
            .iter()
            .cycle()
            .take(16_384),
    );
    bytes.extend(noise(point + 1, 1536));
    bytes
}

/// A copy of a fixture's store, as a URL, and its recovery kit.
fn fixture(site: &Site, name: &str) -> (String, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let copied = Command::new("cp")
        .arg("-r")
        .args([&folder, &site.path("vault")])
        .status()
        .unwrap();
    assert!(copied.success());
    (
        format!("file://{}", site.text("vault/store")),
        site.text("vault/kit.txt"),
    )
}

#[test]
fn a_vault_of_version_1_restores_with_its_store_and_its_kit_alone() {
    let site = Site::new();
    let (store, kit) = fixture(&site, "vault-v1");
    let access = ["--store", &store, "--recovery-kit", &kit];
    let listed = site.json(&[&["point", "list"][..], &access].concat());
    let points: Vec<&str> = listed["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["point"].as_str().unwrap())
        .collect();
    let [newest, first] = points.as_slice() else {
        panic!("two points, the newest first: {listed}");
    };
    for (point, bytes) in [(first, disk(1)), (newest, disk(2))] {
        let target = site.text(&format!("{point}.raw"));
        site.json(&[&["restore", *point, "--to", target.as_str()][..], &access].concat());
        assert!(std::fs::read(&target).unwrap() == bytes, "point {point}");
    }
}

#[test]
fn a_vault_of_version_1_is_taken_over_verified_and_goes_on() {
    let site = Site::new();
    let (store, kit) = fixture(&site, "vault-v1");
    site.json(&["vault", "take-over", "main", "--store", &store, "--recovery-kit", &kit]);
    let verified = site.json(&["vault", "verify", "main", "--level", "all"]);
    assert_eq!(verified["findings"].as_array().map(Vec::len), Some(0), "{verified}");
    // The same disk again: cut, named and keyed as then, all of it is known.
    let path = site.file("vda.raw", disk(2));
    let again = site.json(&["backup", &path, "--item", "vm"]);
    assert_eq!(again["bytes_new"], 0, "{again}");
    let clone = site.json(&["backup", &path, "--item", "clone"]);
    assert_eq!(clone["bytes_new"], 0, "{clone}");
}
