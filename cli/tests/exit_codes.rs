//! What scripts stand on: the exit code of each kind of failure, and one JSON value whatever happens.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs::File;

use common::{Ran, Site, disk, files, noise};

/// The call fails with that code, says so in JSON, and in words for people.
fn fails(site: &Site, args: &[&str], code: i32, kind: &str) -> Ran {
    let ran = site.run(&[args, &["--json"]].concat());
    assert_eq!(ran.code, code, "{ran}");
    let value = ran.value();
    assert_eq!(value["error"]["kind"], kind, "{ran}");
    assert_eq!(value["error"]["exit_code"], code, "{ran}");
    assert!(ran.stderr.contains("error: "), "{ran}");
    ran
}

fn store_packs(site: &Site) -> Vec<std::path::PathBuf> {
    files(&site.path("home/stores/main/packs"))
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let site = Site::new();
    fails(&site, &["frobnicate"], 2, "usage");
    fails(&site, &["backup"], 2, "usage");
    fails(
        &site,
        &["restore", "web", "--to", "x", "--overwrite", "--in-place"],
        2,
        "usage",
    );
    fails(&site, &["backup", "x.img", "--keep-until", "2001-01-01"], 2, "usage");
    fails(&site, &["--vault", "1", "status"], 2, "usage");
    site.file("home/config.toml", "colour = \"red\"\n");
    let ran = fails(&site, &["status"], 2, "usage");
    assert!(ran.stderr.contains("colour"), "{ran}");
}

#[test]
fn help_and_version_end_with_0() {
    let site = Site::new();
    for args in [&["--help"][..], &["--version"], &["backup", "--help"]] {
        let ran = site.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    }
}

#[test]
fn what_is_not_there_ends_with_4() {
    let site = Site::new();
    fails(&site, &["backup", &site.text("none.img")], 4, "missing");
    assert!(
        !site.path("home/stores/main").exists(),
        "a vault was made for a disk that is not there"
    );
    fails(&site, &["point", "list"], 4, "missing");
    fails(&site, &["vault", "show", "other"], 4, "missing");
    let image = site.file("web.img", noise(1, 50_000));
    site.json(&["backup", &image]);
    fails(&site, &["point", "show", "nobody"], 4, "missing");
    fails(
        &site,
        &["restore", "web", "--disk", "vdz", "--to", &site.text("t")],
        4,
        "missing",
    );
    fails(&site, &["point", "list", "nobody"], 4, "missing");
}

#[test]
fn a_wrong_passphrase_ends_with_5() {
    let site = Site::new();
    let (right, wrong) = (
        site.file("right", "correct horse\n"),
        site.file("wrong", "battery staple\n"),
    );
    let image = site.file("web.img", noise(2, 50_000));
    site.json(&["vault", "create", "locked", "--passphrase", "--passphrase-file", &right]);
    let with = |file| ["backup", image.as_str(), "--vault", "locked", "--passphrase-file", file];
    site.json(&with(right.as_str()));
    fails(&site, &with(wrong.as_str()), 5, "denied");
    let ran = fails(&site, &["point", "list", "--vault", "locked"], 5, "denied");
    assert!(ran.stderr.contains("hint: "), "{ran}");
    let short = site.file("short", "abc\n");
    assert_ne!(
        site.run(&["vault", "create", "weak", "--passphrase", "--passphrase-file", &short])
            .code,
        0
    );

    let listed = |command: &mut std::process::Command| {
        let output = command.env("TRESOR_PASSPHRASE_FILE", &right).output().unwrap();
        Ran::new(&["point", "list"], output)
    };
    let ran = listed(&mut site.command(&["point", "list", "--vault", "locked", "--json"]));
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.value()["points"].as_array().unwrap().len(), 1);
}

#[test]
fn a_home_that_another_process_writes_ends_with_6_and_can_be_read() {
    let site = Site::new();
    let image = site.file("web.img", noise(3, 50_000));
    site.json(&["backup", &image]);
    let lock = site.path("home/node/lock");
    let held = File::options().read(true).write(true).open(lock).unwrap();
    held.lock().unwrap();
    fails(&site, &["backup", &image], 6, "fenced");
    site.json(&["point", "list"]);
    site.json(&["restore", "web", "--to", &site.text("back.img")]);
    drop(held);
    site.json(&["backup", &image]);
}

#[test]
fn damage_ends_with_3_and_names_the_ranges() {
    let site = Site::new();
    let image = site.file("web.img", disk(4));
    let point = site.json(&["backup", &image])["point"].as_str().unwrap().to_owned();
    assert_eq!(
        site.json(&["vault", "verify", "main", "--level", "all"])["findings"]
            .as_array()
            .unwrap()
            .len(),
        0
    );

    let pack = store_packs(&site)
        .into_iter()
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let whole = bytes.clone();
    bytes[100_000] ^= 1;
    replace(&pack, &bytes);

    let names = site.run(&["vault", "verify", "--level", "names"]);
    assert_eq!(names.code, 0, "names sees no flipped bit: {names}");
    for level in ["checks", "contents"] {
        let ran = site.run(&["vault", "verify", "main", "--level", level, "--json"]);
        assert_eq!(ran.code, 3, "{ran}");
        let value = ran.value();
        let finding = &value["findings"][0];
        assert!(
            pack.to_str().unwrap().ends_with(finding["object"].as_str().unwrap()),
            "{ran}"
        );
        assert_eq!(finding["points"][0], point, "{ran}");
        for key in ["level", "objects", "bytes"] {
            assert!(!value[key].is_null(), "{key}: {ran}");
        }
    }

    let target = site.text("back.img");
    let ran = site.run(&["restore", "web", "--to", &target, "--json"]);
    assert_eq!(ran.code, 3, "{ran}");
    assert!(!site.path("back.img").exists(), "an incomplete target looks complete");
    let ran = site.run(&["restore", "web", "--to", &target, "--allow-damage", "--json"]);
    assert_eq!(ran.code, 3, "{ran}");
    let damage = ran.value()["disks"][0]["damage"].clone();
    let (offset, length) = (
        damage[0]["offset"].as_u64().unwrap() as usize,
        damage[0]["length"].as_u64().unwrap() as usize,
    );
    assert!(!damage[0]["why"].as_str().unwrap().is_empty());
    let (back, disk) = (std::fs::read(&target).unwrap(), disk(4));
    let end = damage
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["offset"].as_u64().unwrap() + d["length"].as_u64().unwrap())
        .max()
        .unwrap() as usize;
    assert!(
        length > 0 && back[..offset] == disk[..offset] && back[end..] == disk[end..],
        "bytes outside of the named ranges differ"
    );
    assert!(
        back[offset..offset + length].iter().all(|byte| *byte == 0),
        "damaged ranges are zeros"
    );

    std::fs::remove_file(&pack).unwrap();
    let ran = site.run(&["restore", "web", "--to", &site.text("again.img"), "--json"]);
    assert_eq!(ran.code, 3, "a missing pack is damage, not a wrong name: {ran}");
    let ran = site.run(&["vault", "verify", "--level", "names"]);
    assert_eq!(ran.code, 3, "{ran}");

    std::fs::write(&pack, &whole).unwrap();
    site.json(&["restore", "web", "--to", &site.text("healed.img")]);
}

/// Objects are read-only.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_store_that_does_not_answer_ends_with_7() {
    let site = Site::new();
    // A port where nobody listens: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let secret = site.file("home/secret", "hunter2hunter2");
    let table = format!(
        "[stores.\"s3://nowhere\"]\nendpoint = \"{endpoint}\"\nregion = \"eu\"\naccess_key_id = \"id\"\nsecret_access_key_file = \"{secret}\"\n\
         allow_http = true\nretries_max = 0\nrequest_timeout = \"2s\"\n"
    );
    site.file("home/config.toml", table);
    let ran = fails(
        &site,
        &["point", "list", "--store", "s3://nowhere/x", "--key-file", &secret],
        7,
        "retry",
    );
    assert!(
        !ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"),
        "{ran}"
    );
}
