//! Reports of a cluster of some forty machines over a month, as the documentation shows them.

use std::path::PathBuf;

use tresor_proto::v1::*;

use super::here::Here;

/// A name that is markup, a formula and a command to a terminal.
const HOSTILE: &str = "=cmd|'<script>alert(1)</script>\u{1b}[2J\"";
const GIB: u64 = 1 << 30;
const DAYS: i64 = 30;

fn text(text: &str) -> String {
    text.to_owned()
}

/// So many hours before now.
fn ago(hours: f64) -> String {
    let at = jiff::Timestamp::now().as_second() - (hours * 3600.0) as i64;
    jiff::Timestamp::from_second(at).unwrap().to_string()
}

/// The same number for the same question, 0 to 999.
fn chance(of: u64) -> u64 {
    let mixed = of.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) % 1000
}

fn machines() -> Vec<(String, &'static str, &'static str)> {
    let mut names = Vec::new();
    for (kind, count, vault, policy) in [
        ("web", 12, "main", "nightly"),
        ("db", 6, "main", "hourly"),
        ("mail", 2, "main", "nightly"),
        ("build", 8, "offsite", "nightly"),
        ("lab", 5, "offsite", ""),
        ("files", 4, "archive", "weekly"),
    ] {
        names.extend((1..=count).map(|n| (format!("{kind}-{n:02}"), vault, policy)));
    }
    names.push((text(HOSTILE), "main", "nightly"));
    names
}

fn every(policy: &str) -> f64 {
    match policy {
        "hourly" => 1.0,
        "weekly" => 168.0,
        _ => 24.0,
    }
}

fn state(name: &str, policy: &str) -> &'static str {
    match name {
        "web-07" | "db-03" => "failing",
        "build-08" => "never",
        "web-11" | "mail-02" => "late",
        "files-04" => "unprotected",
        _ if policy.is_empty() => "no schedule",
        _ => "ok",
    }
}

/// All that the scripted coordinator knows, of a cluster in which something is wrong here and there.
fn cluster() -> Here {
    let here = Here::new();
    let (mut items, mut points, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    let mut put = std::collections::BTreeMap::new();
    for (at, (name, vault, policy)) in machines().into_iter().enumerate() {
        let state = state(&name, policy);
        let size = (20 + chance(at as u64) / 4) * GIB;
        let step = every(policy);
        let newest = match state {
            "late" => 55.0,
            "failing" => 30.0,
            "unprotected" => 300.0,
            _ => (at as f64 * 0.37) % step.min(24.0),
        };
        let runs = if state == "never" {
            0
        } else {
            ((DAYS as f64 * 24.0 - newest) / step).min(240.0) as u64
        };
        for run in 0..runs {
            number += 1;
            let hours = newest + step * run as f64;
            let luck = chance(number * 31 + at as u64);
            let failed = luck < 12;
            let first = run + 1 == runs && step < 100.0;
            let read = if first { size / 2 } else { size / 400 * (1 + luck / 200) };
            let new = if first { size / 6 } else { read / 5 + GIB / 8 };
            let counts = JobCounts {
                bytes_logical: size,
                bytes_read: read,
                bytes_new: new,
                bytes_stored: new * 45 / 100,
                ..Default::default()
            };
            *put.entry(vault).or_insert(0) += if failed { 0 } else { new * 45 / 100 };
            jobs.push(Job {
                id: number,
                kind: text("backup"),
                vault: text(vault),
                item: name.clone(),
                item_id: format!("id-{at}"),
                state: text(if failed { "failed" } else { "done" }),
                created: ago(hours + 0.2),
                ended: ago(hours),
                why: text(if failed {
                    "read /vm/disk.qcow2: the image is locked by another process"
                } else {
                    ""
                }),
                counts: Some(if failed { JobCounts::default() } else { counts }),
                ..Default::default()
            });
            if !failed && run < 14 {
                points.push(Point {
                    id: format!("p-{at}-{run}"),
                    item: format!("id-{at}"),
                    item_name: name.clone(),
                    vault: text(vault),
                    time: ago(hours + 0.1),
                    consistency: text(if at % 3 == 0 { "filesystem" } else { "crash" }),
                    ..Default::default()
                });
            }
        }
        if state == "failing" {
            number += 1;
            jobs.push(Job {
                id: number,
                kind: text("backup"),
                vault: text(vault),
                item: name.clone(),
                item_id: format!("id-{at}"),
                state: text("failed"),
                created: ago(2.2),
                ended: ago(2.0),
                why: text("read /vm/disk.qcow2: no such file or directory"),
                counts: None,
                ..Default::default()
            });
        }
        items.push(Item {
            id: format!("id-{at}"),
            spec: Some(ItemSpec {
                name: name.clone(),
                vault: text(vault),
                policy: text(policy),
                ..Default::default()
            }),
            protected: state != "unprotected",
            state: text(state),
            newest_point: format!("p-{at}-0"),
            newest_time: if runs > 0 { ago(newest + 0.1) } else { String::new() },
            next_due: if policy.is_empty() || state == "unprotected" {
                String::new()
            } else {
                ago(newest - step)
            },
            late_since: match state {
                "late" => ago(27.0),
                "failing" => ago(3.0),
                _ => String::new(),
            },
            ..Default::default()
        });
    }
    let vault = |name: &str, url: &str, region: &str| Vault {
        id: format!("v-{name}"),
        name: text(name),
        url: text(url),
        region: text(region),
        points: points.iter().filter(|point| point.vault == name).count() as u64,
        bytes_stored: put.get(name).copied().unwrap_or(0) * 3,
        ..Default::default()
    };
    here.on::<ListVaultsRequest, _>(ListVaultsResponse {
        vaults: vec![
            vault("archive", "gs://cold/archive", "eu-west"),
            vault("main", "s3://user:hunter2@backups/main", "fra1"),
            vault("offsite", "https://blob.example/offsite", "ams2"),
        ],
        ..Default::default()
    });
    // Two pages of each, so that both count.
    let (first, second) = (items.split_off(20), items);
    here.on::<ListItemsRequest, _>(ListItemsResponse {
        items: first,
        next_page_token: text("2"),
    });
    here.on::<ListItemsRequest, _>(ListItemsResponse {
        items: second,
        ..Default::default()
    });
    let rest = points.split_off(100);
    here.on::<ListPointsRequest, _>(ListPointsResponse {
        points,
        next_page_token: text("2"),
    });
    here.on::<ListPointsRequest, _>(ListPointsResponse {
        points: rest,
        ..Default::default()
    });
    let rest = jobs.split_off(500);
    here.on::<ListJobsRequest, _>(ListJobsResponse {
        jobs,
        next_page_token: text("2"),
    });
    here.on::<ListJobsRequest, _>(ListJobsResponse {
        jobs: rest,
        ..Default::default()
    });
    here
}

fn trail() -> Here {
    let here = Here::new();
    let kinds = [
        ("token 4f… (anna)", "change item", "web-03", "done"),
        (
            "token 4f… (anna)",
            "start restore",
            "point 77ab of web-03 to kvm-2:/restore/web.raw",
            "done: 811",
        ),
        ("token 9c… (deploy)", "protect item", "build-09 in offsite", "done"),
        (
            "cluster",
            "remove points",
            "14: point 5a of web-01, point 5b of web-02",
            "done: 14",
        ),
        (
            "token 22… (jonas)",
            "hold point",
            "point 77ab of db-01: for the auditors",
            "done",
        ),
        (
            "token 22… (jonas)",
            "remove points",
            "1: point 9d of db-02",
            "refused: held",
        ),
        ("token 4f… (anna)", "create token", "grafana (read-only), 77…", "done"),
        ("token 71… (audit)", "note", "list audit: all", "done"),
        (HOSTILE, "protect item", HOSTILE, "done"),
    ];
    let mut entries = Vec::new();
    let mut hours = 0.4;
    for at in 0..260_u64 {
        hours += (chance(at) % 60) as f64 / 10.0;
        // The cluster does most, and on some days people do more.
        let kind = if chance(at + 77).is_multiple_of(2) {
            3
        } else {
            (chance(at * 7 + 1) % 9) as usize
        };
        let (actor, action, object, outcome) = kinds[kind];
        entries.push(AuditEntry {
            seq: 4711 - at,
            time: ago(hours),
            actor: text(actor),
            action: text(action),
            object: text(object),
            outcome: text(outcome),
            hash: vec![at as u8; 32].into(),
        });
    }
    let rest = entries.split_off(200);
    here.on::<ListAuditRequest, _>(ListAuditResponse {
        entries,
        next_page_token: text("2"),
    });
    here.on::<ListAuditRequest, _>(ListAuditResponse {
        entries: rest,
        ..Default::default()
    });
    here.on::<VerifyAuditRequest, _>(VerifyAuditResponse {
        whole: true,
        first: 0,
        last: 4711,
        head: vec![0xab; 32].into(),
        broken: String::new(),
    });
    here
}

/// Where the pages of the documentation's pictures are left, if somebody wants them.
fn keep(here: &Here, name: &str) -> PathBuf {
    let folder = std::env::var_os("TRESOR_WRITE_REPORTS").map_or_else(|| here.site.path(""), PathBuf::from);
    folder.join(format!("{name}.html"))
}

#[test]
fn the_reports_of_a_cluster_are_whole_and_harmless_whatever_items_are_called() {
    for (name, args) in [
        ("protection", &[][..]),
        ("capacity", &["--capacity", "4TiB"]),
        ("audit", &[]),
    ] {
        let here = || if name == "audit" { trail() } else { cluster() };
        let site = here();
        let html = keep(&site, name);
        let path = html.to_str().unwrap();
        let ran = site.run(&[&["report", name, "--output", path][..], args].concat());
        assert_eq!(ran.code, 0, "{ran}");
        let page = std::fs::read_to_string(&html).unwrap();
        for harm in ["<script", HOSTILE, "hunter2", "\u{1b}"] {
            assert!(!page.contains(harm), "{harm:?} in {name}");
        }
        let csv = here().run(&["report", name, "--format", "csv"]);
        for line in csv.stdout.lines() {
            assert!(!line.starts_with(['=', '+', '-', '@']), "{line}");
        }
        assert!(csv.stdout.contains("'=cmd"), "{csv}");
        let table = here().run(&["report", name]);
        assert!(
            !table.stdout.contains('\u{1b}') && !table.stdout.contains("hunter2"),
            "{table}"
        );
    }
}

#[test]
fn rows_of_all_pages_count_and_a_check_tells_by_its_code() {
    let report = cluster().json(&["report", "protection"]);
    let totals = &report["totals"];
    assert_eq!(totals["items"], machines().len());
    assert_eq!(
        (&totals["failing"], &totals["never"], &totals["late"]),
        (&2.into(), &1.into(), &2.into())
    );
    let of_items: u64 = report["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["jobs"]["done"].as_u64().unwrap())
        .sum();
    assert_eq!(totals["jobs"]["done"], of_items);
    assert!(of_items > 500, "both pages of jobs count: {of_items}");
    let checked = cluster().run(&["report", "protection", "--check"]);
    assert_eq!(checked.code, 1, "{checked}");

    let here = cluster();
    let weekly = here.json(&[
        "report",
        "protection",
        "--policy",
        "weekly",
        "--vault",
        "archive",
        "--label",
        "a=b",
    ]);
    assert_eq!(weekly["items"].as_array().unwrap().len(), 4);
    let asked = here.coordinator.script.asked::<ListItemsRequest>();
    assert_eq!(
        (asked[0].1.vault.as_str(), asked[0].1.labels["a"].as_str()),
        ("archive", "b")
    );
    let unknown = cluster().run(&["report", "protection", "--vault", "nowhere"]);
    assert_eq!(unknown.code, 4, "{unknown}");

    let here = trail();
    let broken = VerifyAuditResponse {
        broken: text("entry 12 is another"),
        ..Default::default()
    };
    let whole = here.run(&["report", "audit", "--check"]);
    assert_eq!(whole.code, 0, "{whole}");
    let here = Here::new();
    here.on::<ListAuditRequest, _>(ListAuditResponse::default());
    here.on::<VerifyAuditRequest, _>(broken);
    assert_eq!(here.run(&["report", "audit"]).code, 0);
    let told = here.run(&["report", "audit", "--check"]);
    assert_eq!(told.code, 3, "{told}");
    assert!(told.stdout.contains("BROKEN"), "{told}");
}
