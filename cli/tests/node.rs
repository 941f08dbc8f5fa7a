//! A home with a node: the process that serves it, commands that are it for a moment, and what becomes of jobs when either ends.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::node::{Node, claims, comes_back, jobs, points, signal, until, without_node};
use common::{Ran, Site, disk, files, noise};
use serde_json::Value;

#[test]
fn a_home_goes_over_to_its_node_and_works_on_with_it_and_without() {
    let site = Site::new();
    let bytes = disk(1);
    let image = site.file("web.img", &bytes);
    let before = site.json(&["backup", &image]);
    without_node(&site);
    assert_eq!(points(&site).len(), 1, "a look needs no node and makes none");
    assert!(!site.path("home/node").exists());

    let node = Node::start(&site);
    assert_eq!(points(&site).len(), 1, "the points of the home are the node's");
    let made = site.json(&["backup", &image]);
    assert!(made["job"].as_u64().is_some(), "{made}");
    assert_eq!(made["item_id"], before["item_id"], "one item, before and after");
    assert_eq!(
        made["bytes_new"], 0,
        "what the home stored is known to the node: {made}"
    );
    comes_back(&site, "web", &bytes);
    node.stop();

    // Now a command is the node for as long as it takes.
    let made = site.json(&["backup", &image]);
    assert!(made["job"].as_u64().is_some(), "{made}");
    assert_eq!(points(&site).len(), 3);
    comes_back(&site, "web", &bytes);
    let verified = site.run(&["--json", "vault", "verify", "--level", "all"]);
    assert_eq!(verified.code, 0, "{verified}");
    // What works on a vault by itself goes on to: the home writes under its node's claim.
    site.json(&["vault", "create", "second"]);
    assert_eq!(site.json(&["vault", "list"])["vaults"].as_array().unwrap().len(), 2);
    let kit = site.run(&["vault", "recovery-kit", "main", "--out", &site.text("kit.txt")]);
    assert_eq!(kit.code, 0, "{kit}");
    let audit = site.run(&["audit", "verify"]);
    assert_eq!(audit.code, 0, "{audit}");
}

#[test]
fn another_home_that_had_the_vault_is_refused_once_the_node_has_it() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    without_node(&site);
    // A copy of the home as it was: it looks like the original, and holds an older claim.
    let copied = Command::new("cp")
        .arg("-a")
        .args([site.path("home"), site.path("older")])
        .status();
    assert!(copied.unwrap().success());
    Node::start(&site).stop();
    std::fs::remove_dir_all(site.path("home/node")).unwrap();
    for file in ["writers", "index"] {
        std::fs::remove_dir_all(site.path("home").join(file)).unwrap();
        std::fs::rename(site.path("older").join(file), site.path("home").join(file)).unwrap();
    }
    let refused = site.run(&["--json", "backup", &image]);
    assert_eq!(refused.value()["error"]["kind"], "fenced", "{refused}");
}

#[test]
fn schedules_run_while_the_node_does_and_commands_begin_nothing_by_themselves() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let quick = [
        "policy",
        "create",
        "quick",
        "--schedule",
        "every 30s",
        "--retention",
        "last 3",
        "--yes",
    ];
    let made = site.run(&quick);
    assert_eq!(made.code, 0, "{made}");
    assert!(made.stderr.contains("this home has a node now"), "{made}");
    site.json(&["item", "protect", "web", &image, "--policy", "quick"]);
    assert!(points(&site).is_empty(), "protecting makes no point");
    std::thread::sleep(Duration::from_secs(31));
    // A command that does make points, so that what is due would be begun if it were looked at.
    let other = site.file("other.img", noise(2, 64 << 20));
    site.json(&["backup", &other]);
    let items: Vec<Value> = points(&site).iter().map(|point| point["item"].clone()).collect();
    assert_eq!(items, ["other"], "the schedule of web is due, and nobody asked for it");
    let node = Node::start(&site);
    until("the schedule made a point", || {
        points(&site).iter().any(|point| point["item"] == "web")
    });
    let job = jobs(&site).into_iter().find(|job| job["item"] == "web").unwrap();
    assert_eq!(job["state"], "done", "{job}");
    node.stop();
}

#[test]
fn a_backup_that_is_interrupted_is_cancelled_and_the_next_one_uses_what_it_stored() {
    let site = Site::new();
    let bytes = noise(1, 192 << 20);
    let image = site.file("web.img", &bytes);
    let small = site.file("small.img", &bytes[..50_000]);
    site.json(&["backup", &small]);
    Node::start(&site).stop();
    let packs = || files(&site.path("home/stores/main/packs")).len();
    let before = packs();
    let args = ["backup", &image, "--json"];
    let mut command = site.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while packs() == before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    signal("-INT", &child);
    let ran = Ran::new(&args, child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran}");
    let job = jobs(&site).remove(0);
    assert_eq!(job["state"], "cancelled", "{job}");
    let made = site.json(&["backup", &image]);
    assert!(made["bytes_new"].as_u64().unwrap() < bytes.len() as u64, "{made}");
    comes_back(&site, "web", &bytes);
}

#[test]
fn a_command_that_is_killed_leaves_its_job_to_the_next_one_and_one_point_comes_of_it() {
    let site = Site::new();
    let bytes = noise(1, 96 << 20);
    let image = site.file("web.img", &bytes);
    let small = site.file("small.img", &bytes[..50_000]);
    site.json(&["backup", &small]);
    Node::start(&site).stop();
    let packs = || files(&site.path("home/stores/main/packs")).len();
    let before = packs();
    let mut child = site
        .command(&["backup", &image])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while packs() == before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let made = site.json(&["backup", &image]);
    assert_eq!(
        points(&site).iter().filter(|point| point["item"] == "web").count(),
        1,
        "{made}"
    );
    comes_back(&site, "web", &bytes);
}

#[test]
fn an_attempt_that_fails_is_told_at_once_where_nobody_would_try_again() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    Node::start(&site).stop();
    std::fs::rename(site.path("home/stores/main/vault.pb"), site.path("away")).unwrap();
    let began = Instant::now();
    let failed = site.run(&["--json", "backup", &image]);
    assert_ne!(failed.code, 0, "{failed}");
    assert!(began.elapsed() < Duration::from_secs(60), "{failed}");
    std::fs::rename(site.path("away"), site.path("home/stores/main/vault.pb")).unwrap();
    assert!(
        jobs(&site).iter().all(|job| job["state"] != "queued"),
        "nothing waits that nobody will do"
    );
    site.json(&["backup", &image]);
}

#[test]
fn a_restore_that_a_command_makes_by_itself_is_in_the_audit_trail() {
    let site = Site::new();
    let bytes = disk(1);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    let target = site.text("back.img");
    let ran = site.run(&["restore", "web", "--to", &target, "--allow-damage"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(!ran.stderr.contains("warning"), "{ran}");
    let trail = site.json(&["audit", "list"]).to_string();
    assert!(
        trail.contains("restore by command") && trail.contains("damage allowed"),
        "{trail}"
    );
    let previewed = site.run(&["restore", "web", "--to", &target, "--dry-run"]);
    assert_eq!(previewed.code, 0, "{previewed}");
    let trail = site.json(&["audit", "list"]).to_string();
    assert_eq!(trail.matches("restore by command").count(), 1, "{trail}");
}

#[test]
fn what_a_verify_without_the_node_finds_the_nodes_next_backup_stores_again() {
    let site = Site::new();
    let bytes = noise(1, 3 << 20);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    let pack = files(&site.path("home/stores/main/packs")).remove(0);
    let mut damaged = std::fs::read(&pack).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0);
    std::fs::write(&pack, damaged).unwrap();
    let key = files(&site.path("home/keys")).remove(0);
    let found = site.run(&["vault", "verify", "--level", "all", "--key-file", key.to_str().unwrap()]);
    assert_eq!(found.code, 3, "{found}");
    assert!(found.stderr.contains("the next backup stores again"), "{found}");
    let made = site.json(&["backup", &image]);
    assert!(
        made["job"].as_u64().is_some() && made["bytes_new"].as_u64().unwrap() > 0,
        "{made}"
    );
    comes_back(&site, "web", &bytes);
}

#[test]
fn a_disk_that_is_broken_is_no_damage_of_a_vault() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    let broken = site.file("broken.qcow2", noise(1, 1 << 20));
    let failed = site.run(&["--json", "backup", &broken]);
    assert!(failed.stdout.contains("could not read disk"), "{failed}");
    assert_eq!(failed.code, 1, "{failed}");
}

#[test]
fn a_hold_keeps_a_point_of_a_vault_that_only_a_passphrase_opens() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let word = site.file("word", "correct horse battery staple\n");
    let with = |args: &[&str]| site.run(&[args, &["--json", "--passphrase-file", &word]].concat());
    let made = with(&["vault", "create", "main", "--passphrase"]);
    assert_eq!(made.code, 0, "{made}");
    assert_eq!(with(&["backup", &image]).code, 0);
    let held = with(&["point", "hold", "web", "--reason", "for the auditors"]);
    assert_eq!(held.code, 0, "{held}");
    let refused = with(&["point", "remove", "web"]);
    assert_eq!(refused.code, 6, "{refused}");
    assert!(refused.stderr.contains("for the auditors"), "{refused}");
    let shown = with(&["point", "show", "web"]);
    assert_eq!(shown.value()["held"], "for the auditors", "{shown}");
    assert_eq!(with(&["point", "release", "web"]).code, 0);
    let removed = with(&["point", "remove", "web"]);
    assert_eq!(removed.code, 0, "{removed}");
    assert!(!site.path("home/node").exists());
}

#[test]
fn a_home_that_was_copied_with_its_node_is_refused() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    Node::start(&site).stop();
    let copied = Command::new("cp")
        .arg("-a")
        .args([site.path("home"), site.path("copy")])
        .status();
    assert!(copied.unwrap().success());
    let copy = site.text("copy");
    for verb in [vec!["backup", &image], vec!["item", "list"], vec!["node", "start"]] {
        let refused = site.run(&[&["--home", &copy, "--json"], &verb[..]].concat());
        assert_eq!(refused.code, 2, "{refused}");
        assert!(refused.stdout.contains("a copy, or was moved"), "{refused}");
    }
    // Reading needs no node.
    let read = site.run(&["--home", &copy, "--json", "point", "list"]);
    assert_eq!(read.code, 0, "{read}");
    assert!(read.stderr.contains("a copy, or was moved"), "{read}");
    site.json(&["backup", &image]);
}

#[test]
fn the_first_backup_makes_the_node_and_its_vault_has_one_claim() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let made = site.run(&["--json", "backup", &image]);
    assert_eq!(made.code, 0, "{made}");
    assert!(made.value()["job"].as_u64().is_some(), "{made}");
    assert!(!made.stderr.contains("node"), "nobody asked for one: {made}");
    assert_eq!(claims(&site), 1, "the node goes on under the claim of its making");
    site.json(&["vault", "create", "second"]);
    site.json(&["backup", &image, "--vault", "second"]);
    assert_eq!(files(&site.path("home/stores/second/cluster")).len(), 1);
    comes_back(&site, "web", &disk(1));
    let second = site.json(&["point", "show", "web", "--vault", "second"]);
    assert_eq!(
        second["vault"], "second",
        "an item's name is that of the vault which is meant"
    );
    // Another node must not take the vault for new: it has points.
    without_node(&site);
    site.json(&["backup", &image]);
    assert_eq!(claims(&site), 2);
    assert_eq!(points(&site).len(), 2, "of the vault that was meant");
    let second = site.json(&["point", "list", "--vault", "second"]);
    assert_eq!(second["points"].as_array().unwrap().len(), 1, "read without the node");
}

#[test]
fn a_backup_by_a_node_for_a_moment_is_six_entries_of_its_log() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    // The first ones found the node, enter the vault and put its first catalogue.
    site.json(&["backup", &image]);
    site.json(&["backup", &image]);
    // A job is named by its entry.
    let job = || site.json(&["backup", &image])["job"].as_u64().unwrap();
    let before = job();
    assert_eq!(job() - before, 6, "term, life, job, lease, end, log");
}

#[test]
fn the_homes_key_is_rotated_under_its_node_which_goes_on_with_the_new_one() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    site.json(&["vault", "key", "rotate", "--compromised"]);
    site.json(&["backup", &image]);
    let node = Node::start(&site);
    site.json(&["backup", &image]);
    site.json(&["vault", "key", "rotate"]);
    site.json(&["backup", &image]);
    let verified = site.run(&["vault", "verify", "--level", "all"]);
    assert_eq!(verified.code, 0, "{verified}");
    node.stop();
    let taken = site.run(&["vault", "take-over", "main"]);
    assert_eq!(taken.code, 2, "the node would be fenced out of its own vault: {taken}");
    assert!(
        files(&site.path("home/index")).is_empty(),
        "changing keys needs no index of the home's own"
    );
}

#[test]
fn getting_data_back_does_not_need_the_node() {
    let site = Site::new();
    let bytes = disk(1);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    for file in files(&site.path("home/node/coordinator/raft")) {
        std::fs::write(file, b"damaged").unwrap();
    }
    let failed = site.run(&["backup", &image]);
    assert_ne!(failed.code, 0, "{failed}");
    comes_back(&site, "web", &bytes);
    assert_eq!(points(&site).len(), 1);
    let verified = site.run(&["vault", "verify", "--level", "all"]);
    assert_eq!(verified.code, 0, "{verified}");
    assert!(verified.stderr.contains("without the node"), "{verified}");
}

#[test]
fn a_home_that_looks_makes_no_node() {
    let site = Site::new();
    for args in [&["status"][..], &["vault", "list"], &["config", "show"]] {
        assert_eq!(site.run(args).code, 0);
    }
    assert_eq!(site.run(&["point", "list"]).code, 4);
    assert_eq!(site.run(&["backup", &site.text("none.img")]).code, 4);
    assert!(!site.path("home/node").exists());
}

#[test]
fn a_vault_that_only_a_passphrase_opens_stays_the_homes() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let word = site.file("word", "correct horse battery staple\n");
    let made = site.run(&["vault", "create", "main", "--passphrase", "--passphrase-file", &word]);
    assert_eq!(made.code, 0, "{made}");
    let refused = site.run(&["policy", "create", "nightly", "--schedule", "daily 02:00", "--yes"]);
    assert_eq!(refused.code, 2, "{refused}");
    Node::start(&site).stop();
    let backup = site.json(&["backup", &image, "--passphrase-file", &word]);
    assert!(backup.get("job").is_none(), "{backup}");
    std::fs::remove_dir_all(site.path("home/node")).unwrap();
    let backup = site.json(&["backup", &image, "--passphrase-file", &word]);
    assert!(backup.get("job").is_none(), "{backup}");
    assert!(!site.path("home/node").exists(), "it would have nothing to do");
}

#[test]
fn a_restore_that_was_left_behind_is_not_done_by_a_later_command() {
    let site = Site::new();
    let bytes = noise(1, 96 << 20);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    Node::start(&site).stop();
    let target = site.text("back.img");
    let mut child = site
        .command(&["restore", "web", "--to", &target])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the restore runs", || {
        let names = std::fs::read_dir(site.path("")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().contains("back.img")) || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    let is_done = child.wait().unwrap().success();
    site.json(&["backup", &image]);
    assert_eq!(
        std::path::Path::new(&target).exists(),
        is_done,
        "nobody asked for it any more"
    );
    let restore = jobs(&site).into_iter().find(|job| job["kind"] == "restore").unwrap();
    assert!(is_done || restore["state"] == "cancelled", "{restore}");
}

#[test]
fn a_backup_leaves_its_numbers_for_prometheus_with_a_node_too() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    Node::start(&site).stop();
    let file = site.text("backup.prom");
    site.json(&["backup", &image, "--metrics-file", &file]);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("tresor_backup_last_success_timestamp_seconds")
    );
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        "tresor_backup_read_bytes ",
        "tresor_backup_requests{operation=\"put\"} ",
    ] {
        let value = text.lines().find_map(|at| at.strip_prefix(line)).unwrap();
        assert!(value.parse::<f64>().unwrap() > 0.0, "{line}: {text}");
    }

    // Of one that failed too: what it asked of the store is paid for.
    std::fs::write(&image, noise(9, 40_000)).unwrap();
    let broken = site.file("broken.qcow2", noise(1, 1 << 20));
    let failed = site.run(&[
        "backup",
        &format!("vda={image}"),
        &format!("vdb={broken}"),
        "--item",
        "two",
        "--metrics-file",
        &file,
    ]);
    assert_eq!(failed.code, 1, "{failed}");
    let text = std::fs::read_to_string(&file).unwrap();
    let value = |line: &str| -> f64 {
        text.lines()
            .find_map(|at| at.strip_prefix(line))
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(value("tresor_backup_exit_code "), 1.0, "{text}");
    assert!(value("tresor_backup_requests{operation=\"get\"} ") > 0.0, "{text}");
}
