//! Ctrl-C ends a job cleanly.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::process::{Command, Stdio};

use common::{Ran, Site, files, noise};

#[test]
fn an_interrupted_backup_ends_with_130_and_the_next_one_uses_what_it_stored() {
    let site = Site::new();
    let bytes = noise(1, 192 << 20);
    let image = site.file("web.img", &bytes);
    let small = site.file("small.img", &bytes[..50_000]);
    site.json(&["backup", &small]);
    let packs = || files(&site.path("home/stores/main/packs")).len();
    let before = packs();

    let args = ["backup", &image, "--json"];
    let mut child = site
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while packs() == before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let ran = Ran::new(&args, child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran}");
    assert_eq!(ran.value()["error"]["kind"], "interrupted", "{ran}");
    assert!(ran.stderr.contains("stopping"), "{ran}");

    assert_eq!(
        site.json(&["point", "list"])["points"].as_array().unwrap().len(),
        1,
        "an interrupted backup made a point"
    );
    assert!(packs() > before, "nothing was stored before the signal");
    let made = site.json(&["backup", &image]);
    assert!(
        made["bytes_new"].as_u64().unwrap() < bytes.len() as u64,
        "what was stored was stored again: {made}"
    );
    let target = site.text("back.img");
    site.json(&["restore", "web", "--to", &target]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(
        site.json(&["vault", "verify", "--level", "all"])["findings"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}
