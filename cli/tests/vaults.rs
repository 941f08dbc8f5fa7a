//! Vaults and who can open them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{Site, files, noise};

#[test]
fn a_recovery_kit_opens_a_vault_when_the_home_is_lost() {
    let site = Site::new();
    let bytes = noise(1, 300_000);
    let image = site.file("web.img", &bytes);
    let store = format!("file://{}", site.text("store"));
    site.json(&["vault", "create", "far", "--store", &store, "--region", "eu"]);
    site.json(&["backup", &image, "--vault", "far"]);

    let silent = site.run(&["vault", "recovery-kit", "far"]);
    assert_eq!(silent.code, 2, "a secret went where nobody looks: {silent}");
    let kit = site.text("kit.txt");
    site.json(&["vault", "recovery-kit", "far", "--out", &kit]);
    assert_eq!(std::fs::metadata(&kit).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        site.run(&["vault", "recovery-kit", "far", "--out", &kit]).code,
        2,
        "a kit was overwritten"
    );

    std::fs::remove_dir_all(site.path("home")).unwrap();
    let target = site.text("back.img");
    site.json(&[
        "restore",
        "web",
        "--to",
        &target,
        "--store",
        &store,
        "--recovery-kit",
        &kit,
    ]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    let refused = site.run(&["backup", &image, "--store", &store, "--recovery-kit", &kit]);
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("take-over"), "{refused}");

    let taken = site.json(&["vault", "take-over", "far", "--store", &store, "--recovery-kit", &kit]);
    assert!(taken["slot_made"].is_string(), "{taken}");
    let again = site.json(&["backup", &image, "--vault", "far"]);
    assert_eq!(again["bytes_new"], 0, "what the vault has was stored again: {again}");
    assert_eq!(
        site.json(&["point", "list", "--vault", "far"])["points"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn key_slots_are_added_rotated_and_removed() {
    let site = Site::new();
    let image = site.file("web.img", noise(2, 100_000));
    site.json(&["backup", &image]);
    let (one, two) = (
        site.file("one", "first passphrase\n"),
        site.file("two", "second passphrase\n"),
    );
    site.json(&["vault", "key", "add", "people", "--new-passphrase-file", &one]);
    let list = |extra: &[&str]| site.run(&[&["point", "list"], extra].concat()).code;
    assert_eq!(list(&["--passphrase-file", &one]), 0);

    site.json(&["vault", "key", "rotate", "people", "--new-passphrase-file", &two]);
    assert_eq!(
        (list(&["--passphrase-file", &one]), list(&["--passphrase-file", &two])),
        (5, 0)
    );

    let key = files(&site.path("home/keys")).remove(0);
    let former = std::fs::read(&key).unwrap();
    let former_copy = site.file("former", &former);
    let rotated = site.json(&["vault", "key", "rotate", "--compromised"]);
    assert_eq!(rotated["revision"], 4, "{rotated}");
    assert!(std::fs::read(&key).unwrap() != former, "the key file is the former one");
    assert_eq!((list(&[]), list(&["--key-file", &former_copy])), (0, 5));
    assert_eq!(files(&site.path("home/keys")).len(), 1);

    let file = site.text("reader.key");
    site.json(&[
        "vault",
        "key",
        "add",
        "reader",
        "--new-key-file",
        &file,
        "--grant",
        "read",
    ]);
    let reading = ["--key-file", file.as_str()];
    assert_eq!(list(&reading), 0);
    assert_eq!(
        site.run(&[&["backup", &image], &reading[..]].concat()).code,
        5,
        "who may only read made a backup"
    );

    assert_eq!(
        site.run(&["vault", "key", "remove", "home"]).code,
        2,
        "the slot in use was removed"
    );
    let left = site.json(&["vault", "key", "remove", "people"]);
    let names: Vec<_> = left["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| slot["slot"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["home", "reader"]);
    assert_eq!(list(&["--passphrase-file", &two]), 5);
    site.json(&["backup", &image]);
}

#[test]
fn a_vault_is_forgotten_and_found_again() {
    let site = Site::new();
    let image = site.file("web.img", noise(3, 100_000));
    site.json(&["backup", &image]);
    let url = site.json(&["vault", "list"])["vaults"][0]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let removed = site.json(&["vault", "remove", "main"]);
    assert_eq!(removed["data_deleted"], false);
    assert_eq!(site.json(&["vault", "list"])["vaults"].as_array().unwrap().len(), 0);
    site.json(&["vault", "take-over", "again", "--store", &url]);
    assert_eq!(
        site.json(&["point", "list", "--vault", "again"])["points"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn data_is_deleted_only_when_that_is_confirmed() {
    let site = Site::new();
    let image = site.file("web.img", noise(4, 100_000));
    site.json(&["backup", &image]);
    for args in [
        &["vault", "remove", "main", "--delete-data"][..],
        &["vault", "remove", "main", "--delete-data", "--yes", "mian"],
    ] {
        assert_eq!(site.run(args).code, 2);
    }
    site.json(&["point", "list"]);
    let removed = site.json(&["vault", "remove", "main", "--delete-data", "--yes", "main"]);
    assert!(removed["objects_deleted"].as_u64().unwrap() >= 5, "{removed}");
    let left = files(&site.path("home/stores/main"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(site.run(&["point", "list"]).code, 4);
    site.json(&["backup", &image]);
}

#[test]
fn the_index_is_built_anew_when_asked_and_when_it_is_lost() {
    let site = Site::new();
    let image = site.file("web.img", noise(5, 1 << 20));
    let first = site.json(&["backup", &image]);
    let rebuilt = site.json(&["vault", "rebuild"]);
    assert!(
        rebuilt["entries"].as_u64().unwrap() >= first["chunks_new"].as_u64().unwrap(),
        "{rebuilt}"
    );
    let indexes = site.path("home/node/worker/index");
    assert!(!files(&indexes).is_empty(), "that of the node was built");
    std::fs::remove_dir_all(indexes).unwrap();
    let other = site.json(&["backup", &image, "--item", "copy"]);
    assert_eq!(other["bytes_new"], 0, "{other}");
}

#[test]
fn a_vault_shows_what_it_is() {
    let site = Site::new();
    site.json(&["vault", "create", "cold", "--profile", "grain-64k"]);
    let shown = site.json(&["vault", "show", "cold"]);
    assert_eq!(
        (shown["profile"].as_str(), shown["points"].as_u64()),
        (Some("grain-64k"), Some(0))
    );
    assert_eq!(shown["keys"]["slots"][0]["kind"], "file");
    assert!(shown["holder"]["host"].is_string());
    let text = site.run(&["vault", "show", "cold"]);
    assert!(text.stdout.contains("grain-64k"), "{text}");
    assert_eq!(site.run(&["vault", "create", "cold"]).code, 1);
}

#[test]
fn names_and_checks_are_verified_without_a_key() {
    let site = Site::new();
    let image = site.file("web.img", noise(6, 100_000));
    site.json(&["backup", &image]);
    std::fs::rename(site.path("home/keys"), site.path("keys")).unwrap();
    for (level, code) in [("names", 0), ("checks", 0), ("contents", 5)] {
        let ran = site.run(&["vault", "verify", "main", "--level", level, "--json"]);
        assert_eq!(ran.code, code, "{level}: {ran}");
    }
}
