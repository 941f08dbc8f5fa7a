//! What people do every day: back up, look, restore.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Site, disk, files, noise};
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_first_backup_makes_a_vault_and_a_restore_gives_the_disk_back() {
    let site = Site::new();
    let bytes = disk(1);
    let image = site.file("web.img", &bytes);
    let made = site.run(&["--json", "backup", &image]);
    assert_eq!(made.code, 0, "{made}");
    assert!(made.stderr.contains("tresor vault recovery-kit main"), "{made}");
    let made = made.value();
    assert_eq!(
        keys(&made),
        [
            "bytes_logical",
            "bytes_new",
            "bytes_read",
            "bytes_stored",
            "chunks_known",
            "chunks_new",
            "consistency",
            "disks",
            "elapsed_ms",
            "item",
            "item_id",
            "job",
            "live",
            "point",
            "requests",
            "time",
            "vault",
            "worker"
        ]
    );
    assert_eq!(keys(&made["requests"]), ["delete", "get", "head", "list", "put"]);
    assert_eq!(keys(&made["disks"][0]), ["name", "root", "size"]);
    assert_eq!(
        (made["item"].as_str(), made["vault"].as_str()),
        (Some("web"), Some("main"))
    );
    assert_eq!(made["disks"][0]["size"], bytes.len());
    assert_eq!(made["disks"][0]["root"].as_str().map(str::len), Some(64), "{made}");
    assert_eq!(made["live"], false, "{made}");
    assert!(made["chunks_new"].as_u64().unwrap() > 10, "{made}");
    assert!(made["bytes_new"].as_u64().unwrap() >= 3 << 20, "{made}");
    assert!(made["requests"]["put"].as_u64().unwrap() >= 3, "{made}");

    let target = site.text("back.img");
    let restored = site.json(&["restore", "web", "--to", &target]);
    assert_eq!(
        keys(&restored),
        [
            "bytes_logical",
            "bytes_read",
            "disks",
            "elapsed_ms",
            "host",
            "item",
            "job",
            "path",
            "point",
            "requests",
            "vault",
            "worker"
        ]
    );
    assert_eq!(
        keys(&restored["disks"][0]),
        [
            "bytes_equal",
            "bytes_fetched",
            "bytes_written",
            "damage",
            "format",
            "name",
            "path",
            "size"
        ]
    );
    assert_eq!(restored["point"], made["point"]);
    assert!(std::fs::read(&target).unwrap() == bytes, "the restored disk differs");
}

#[test]
fn an_unchanged_disk_costs_next_to_nothing_and_a_changed_one_its_changes() {
    let site = Site::new();
    let mut bytes = disk(2);
    let image = site.file("web.img", &bytes);
    let first = site.json(&["backup", &image]);
    let again = site.json(&["backup", &image]);
    assert_eq!(again["bytes_new"], 0, "{again}");
    assert_eq!(again["item_id"], first["item_id"]);
    assert_eq!(again["disks"][0]["root"], first["disks"][0]["root"]);

    bytes[1 << 20..(1 << 20) + 4096].copy_from_slice(&noise(77, 4096));
    site.file("web.img", &bytes);
    let third = site.json(&["backup", &image]);
    let new = third["bytes_new"].as_u64().unwrap();
    assert!((4096..1 << 20).contains(&new), "{third}");

    let (a, b) = (again["point"].as_str().unwrap(), third["point"].as_str().unwrap());
    let diff = site.json(&["point", "diff", a, b]);
    assert_eq!(diff["equal"], false);
    let differing = diff["disks"][0]["bytes_differing"].as_u64().unwrap();
    assert!((4096..1 << 20).contains(&differing), "{diff}");
    assert_eq!(
        site.json(&["point", "diff", a, first["point"].as_str().unwrap()])["equal"],
        true
    );

    let target = site.text("old.img");
    site.json(&["restore", a, "--to", &target]);
    bytes[1 << 20..(1 << 20) + 4096].copy_from_slice(&disk(2)[1 << 20..(1 << 20) + 4096]);
    assert!(std::fs::read(&target).unwrap() == bytes, "the older point differs");
}

#[test]
fn several_disks_go_into_a_folder_under_safe_names() {
    let site = Site::new();
    let (a, b) = (disk(3), noise(4, 1 << 20));
    let (first, second) = (site.file("a.img", &a), site.file("b.img", &b));
    let named = [format!("../evil={first}"), format!("data={second}")];
    let refused = site.run(&["backup", "--item", "pair", &named[0], &named[1]]);
    assert_eq!(refused.code, 4, "a name with a / is part of a path: {refused}");
    let named = [format!("..%evil={first}"), format!("data={second}")];
    site.json(&["backup", "--item", "pair", &named[0], &named[1]]);
    let folder = site.text("out");
    let restored = site.json(&["restore", "pair", "--to", &folder]);
    assert_eq!(restored["disks"].as_array().unwrap().len(), 2);
    let found = files(&site.path("out"));
    let names: Vec<_> = found
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["%2E.%25evil.raw", "data.raw"]);
    assert!(std::fs::read(&found[0]).unwrap() == a && std::fs::read(&found[1]).unwrap() == b);

    let one = site.text("only.img");
    site.json(&["restore", "pair", "--disk", "data", "--to", &one]);
    assert!(std::fs::read(&one).unwrap() == b);
}

#[test]
fn what_is_there_is_touched_only_when_told_so() {
    let site = Site::new();
    let bytes = disk(5);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    let target = site.file("there.img", b"precious");
    let refused = site.run(&["restore", "web", "--to", &target]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("--overwrite"), "{refused}");
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");

    let planned = site.json(&["restore", "web", "--to", &target, "--overwrite", "--dry-run"]);
    assert_eq!(
        (&planned["dry_run"], &planned["disks"][0]["exists"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    assert!(
        planned["disks"][0]["bytes_fetched"].as_u64().unwrap() > 3 << 20,
        "{planned}"
    );
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");

    site.json(&["restore", "web", "--to", &target, "--overwrite"]);
    assert!(std::fs::read(&target).unwrap() == bytes);

    let mut changed = bytes.clone();
    changed[5000] ^= 1;
    site.file("there.img", &changed);
    let restored = site.json(&["restore", "web", "--to", &target, "--in-place"]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    let written = restored["disks"][0]["bytes_written"].as_u64().unwrap();
    assert!(written > 0 && written < 1 << 20, "{restored}");
}

#[test]
fn without_a_terminal_a_backup_prints_the_point_and_nothing_else() {
    let site = Site::new();
    let image = site.file("web.img", noise(6, 100_000));
    site.json(&["backup", &image]);
    let ran = site.run(&["backup", &image]);
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.stdout.trim().len(), 32, "{ran}");
    assert_eq!(ran.stderr, "", "{ran}");
    let shown = site.json(&["point", "show", ran.stdout.trim()]);
    assert_eq!(shown["point"], ran.stdout.trim());
}

#[test]
fn removed_points_are_hidden_and_come_back() {
    let site = Site::new();
    let image = site.file("web.img", noise(7, 100_000));
    let point = site.json(&["backup", &image, "--keep-until", "2999-12-31"])["point"]
        .as_str()
        .unwrap()
        .to_owned();
    let listed = site.json(&["point", "list"]);
    assert_eq!(listed["points"][0]["keep_until"], "2999-12-31T23:59:59Z");
    assert_eq!(listed["points"][0]["removed_at"], Value::Null);

    let removed = site.json(&["point", "remove", &point[..12]]);
    assert!(removed["points"][0]["removed_at"].is_string(), "{removed}");
    assert_eq!(site.json(&["point", "list"])["points"].as_array().unwrap().len(), 0);
    let all = site.json(&["point", "list", "--all"]);
    assert_eq!(all["points"][0]["removed_at"], removed["points"][0]["removed_at"]);
    assert_eq!(site.run(&["point", "show", "web"]).code, 4);
    assert_eq!(
        site.json(&["point", "remove", &point])["points"][0]["removed_at"],
        removed["points"][0]["removed_at"]
    );

    site.json(&["point", "undelete", &point]);
    assert_eq!(
        site.json(&["point", "list", "web"])["points"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn status_tells_what_is_protected_and_what_needs_a_person() {
    let site = Site::new();
    let empty = site.run(&["status"]);
    assert_eq!(empty.code, 0, "{empty}");
    assert!(empty.stdout.contains("nothing is protected"), "{empty}");

    let image = site.file("web.img", noise(8, 100_000));
    site.json(&["backup", &image]);
    let status = site.json(&["status"]);
    let vault = &status["vaults"][0];
    assert_eq!(
        (vault["store"].as_str(), vault["key"].as_str()),
        (Some("ok"), Some("ok"))
    );
    assert_eq!(vault["recovery_kit"], false);
    assert_eq!(
        (vault["items"][0]["item"].as_str(), &vault["items"][0]["schedule"]),
        (Some("web"), &Value::Null)
    );
    assert!(
        status["warnings"][0].as_str().unwrap().contains("recovery kit"),
        "{status}"
    );

    site.json(&["vault", "recovery-kit", "main", "--out", &site.text("kit")]);
    let status = site.json(&["status"]);
    assert_eq!(
        (
            &status["vaults"][0]["recovery_kit"],
            status["warnings"].as_array().unwrap().len()
        ),
        (&Value::Bool(true), 0)
    );

    std::fs::rename(site.path("home/stores/main"), site.path("home/stores/away")).unwrap();
    let status = site.json(&["status"]);
    assert_ne!(status["vaults"][0]["store"], "ok", "{status}");
}

#[test]
fn a_backup_leaves_its_numbers_for_prometheus() {
    let site = Site::new();
    let image = site.file("web.img", noise(9, 100_000));
    let metrics = site.text("tresor.prom");
    site.json(&["backup", &image, "--metrics-file", &metrics]);
    let text = std::fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("\ntresor_backup_exit_code 0\n"), "{text}");
    assert!(text.contains("\ntresor_backup_read_bytes "), "{text}");
    let success = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("tresor_backup_last_success"))
            .map(str::to_owned)
    };

    let lost = site.run(&["backup", &site.text("nothing.img"), "--metrics-file", &metrics]);
    assert_eq!(lost.code, 4, "{lost}");
    site.file("home/stores/main/vault.pb", b"broken");
    let failed = site.run(&["backup", &image, "--metrics-file", &metrics]);
    assert_ne!(failed.code, 0, "{failed}");
    let after = std::fs::read_to_string(&metrics).unwrap();
    assert!(
        after.contains(&format!("tresor_backup_exit_code {}\n", failed.code)),
        "{after}"
    );
    assert_eq!(
        success(&after),
        success(&text),
        "the last success is still that of the first"
    );
}
