//! Reports of a home, through the program.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Site, noise};
use serde_json::Value;

/// A home with two items: `web` with two points and one failed backup, and `db` under a policy with one point.
fn site() -> Site {
    let site = Site::new();
    let (web, db) = (
        site.file("web.img", noise(1, 300_000)),
        site.file("db.img", noise(2, 200_000)),
    );
    site.json(&[
        "policy",
        "create",
        "nightly",
        "--schedule",
        "daily 02:00",
        "--retention",
        "last 3",
        "--yes",
    ]);
    site.json(&[
        "item",
        "protect",
        "db",
        &db,
        "--policy",
        "nightly",
        "--label",
        "tier=gold",
    ]);
    site.json(&["backup", &web, "--item", "web"]);
    site.json(&["backup", &web, "--item", "web"]);
    site.json(&["backup", &db, "--item", "db"]);
    std::fs::remove_file(site.path("web.img")).unwrap();
    let ran = site.run(&["backup", &web, "--item", "web"]);
    assert_ne!(ran.code, 0, "{ran}");
    site
}

fn named<'v>(rows: &'v Value, key: &str, name: &str) -> &'v Value {
    let rows = rows.as_array().unwrap();
    rows.iter()
        .find(|row| row[key] == name)
        .unwrap_or_else(|| panic!("no {name} in {rows:?}"))
}

#[test]
fn the_reports_of_a_home_with_its_node() {
    let site = site();
    let protection = site.json(&["report", "protection", "--days", "7"]);
    assert_eq!(protection["totals"]["items"], 2, "{protection}");
    let (web, db) = (
        named(&protection["items"], "item", "web"),
        named(&protection["items"], "item", "db"),
    );
    let status = site.json(&["status"]);
    let failing = status["node"]["failing"].as_array().unwrap().len();
    assert_eq!(protection["totals"]["failing"], failing, "states are those of status");
    assert_eq!((&web["points"], &db["points"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(
        (&db["state"], &db["consistency"]),
        (&Value::from("ok"), &Value::from("crash"))
    );
    assert_eq!(db["policy"], "nightly");
    assert!(db["rpo_seconds"].as_u64().is_some_and(|seconds| seconds < 600), "{db}");
    assert_eq!(protection["totals"]["jobs"]["done"], 3, "{protection}");

    // It is a report, whatever is in it, unless it is a check.
    assert_eq!(site.run(&["report", "protection"]).code, 0);
    let checked = site.run(&["report", "protection", "--check"]);
    assert_eq!(checked.code, i32::from(protection["totals"]["ok"] != 2), "{checked}");
    let gold = site.json(&["report", "protection", "--label", "tier=gold", "--check"]);
    assert_eq!(gold["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        site.json(&["report", "protection", "--policy", "nightly"])["totals"]["items"],
        1
    );

    let capacity = site.json(&["report", "capacity", "--capacity", "1TiB"]);
    let main = named(&capacity["vaults"], "vault", "main");
    assert_eq!(main["backups"], 3, "{capacity}");
    assert_eq!(main["bytes_logical"], 500_000, "{main}");
    assert!(main["bytes_stored"].as_u64().unwrap() >= 500_000, "{main}");
    assert_eq!(
        main["bytes_stored_per_day"],
        Value::Null,
        "of an hour nothing is said of a day"
    );
    assert_eq!(named(&capacity["items"], "item", "web")["backups"], 2);

    let audit = site.json(&["report", "audit", "--check"]);
    assert_eq!(audit["chain"]["whole"], true, "{audit}");
    let protect = named(&audit["actions"], "name", "protect item");
    assert!(protect["entries"].as_u64().unwrap() >= 2, "{audit}");
}

#[test]
fn reports_are_written_as_their_files_are_called() {
    let site = site();
    for name in ["protection", "capacity", "audit"] {
        let html = site.text(&format!("{name}.html"));
        let told = site.json(&["report", name, "--output", &html]);
        assert_eq!(told["format"], "html");
        let text = std::fs::read_to_string(&html).unwrap();
        assert_eq!(told["bytes"], text.len());
        assert!(
            text.starts_with("<!doctype html>") && text.ends_with("</html>\n"),
            "{name}"
        );
        assert!(!text.contains("<script") && !text.contains("http://"), "{name}");
        let csv = site.run(&["report", name, "--format", "csv", "--table", "days"]);
        assert!(csv.stdout.starts_with("day,"), "{csv}");
        let json = site.run(&["report", name, "--format", "json"]);
        assert_eq!(json.value()["report"], name);
        let unknown = site.run(&["report", name, "--format", "csv", "--table", "x"]);
        assert_eq!(unknown.code, 2, "{unknown}");
        assert!(unknown.stderr.contains("days"), "{unknown}");
    }
    let both = site.run(&["--json", "report", "audit", "--format", "html"]);
    assert_eq!(both.code, 2, "{both}");
    let when = site.run(&["report", "audit", "--since", "2030-01-01"]);
    assert_eq!(when.code, 2, "{when}");
}

#[test]
fn a_vault_that_no_node_holds_is_reported_by_its_manifests() {
    let site = Site::new();
    let pass = site.file("pass", "staple-battery-horse");
    let image = site.file("web.img", noise(1, 100_000));
    site.json(&["vault", "create", "locked", "--passphrase", "--passphrase-file", &pass]);
    site.json(&["backup", &image, "--vault", "locked", "--passphrase-file", &pass]);
    let report = site.json(&["report", "protection", "--passphrase-file", &pass]);
    let web = named(&report["items"], "item", "web");
    assert_eq!(
        (&web["vault"], &web["points"]),
        (&Value::from("locked"), &Value::from(1))
    );
    assert_eq!(
        (&web["state"], &web["success_percent"]),
        (&Value::from("no schedule"), &Value::Null)
    );
    assert!(report["notes"][0].as_str().unwrap().contains("manifests"), "{report}");
    let capacity = site.json(&["report", "capacity", "--passphrase-file", &pass]);
    let locked = named(&capacity["vaults"], "vault", "locked");
    assert_eq!(locked["bytes_stored_ever"], Value::Null, "{capacity}");
    assert!(locked["bytes_stored"].as_u64().unwrap() > 100_000, "{capacity}");
    // What cannot be opened is no hole in the report that nobody sees.
    let closed = site.json(&["report", "protection"]);
    assert!(closed["notes"][0].as_str().unwrap().contains("locked"), "{closed}");
    assert_eq!(closed["totals"]["items"], 0);
}
