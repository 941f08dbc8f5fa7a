//! Jobs are started, waited for, left alone, and cancelled.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tonic::Status;
use tresor_proto::v1::*;

use super::admin::{Pieces, refused};
use super::common::Ran;
use super::here::Here;

fn job(state: &str) -> Job {
    Job {
        id: 812,
        kind: String::from("backup"),
        vault: String::from("main"),
        item: String::from("web"),
        state: state.to_owned(),
        ..Default::default()
    }
}

fn done() -> Job {
    Job {
        point: "ab".repeat(16),
        counts: Some(JobCounts {
            bytes_read: 7,
            bytes_logical: 9,
            ..Default::default()
        }),
        ..job("done")
    }
}

fn failed(kind: &str) -> Job {
    Job {
        attempts: vec![Attempt {
            number: 3,
            worker: String::from("kvm-7"),
            failure: String::from("it could not be"),
            kind: kind.to_owned(),
            hint: String::from("mend it"),
            ..Default::default()
        }],
        ..job("failed")
    }
}

fn stream(jobs: impl IntoIterator<Item = Job>) -> Pieces<Job> {
    jobs.into_iter().map(Ok).collect()
}

#[test]
fn a_backup_is_waited_for_though_its_stream_breaks() {
    let here = Here::new();
    here.refuse::<GetItemRequest, Item>("missing", "", "there is no item web");
    here.on::<StartBackupRequest, _>(job("queued"));
    let mut broken = stream([job("queued"), job("running")]);
    broken.push(Err(refused("retry", "", "this coordinator stops")));
    here.on::<WatchJobRequest, Pieces<Job>>(broken);
    here.on::<WatchJobRequest, Pieces<Job>>(stream([job("running")]));
    here.on::<WatchJobRequest, Pieces<Job>>(stream([done()]));
    here.on::<GetPointRequest, _>(Point {
        consistency: String::from("crash"),
        ..Default::default()
    });
    let shown = here.json(&["backup", "web=kvm-7:/vm/web.qcow2", "--keep-until", "2999-12-31"]);
    assert_eq!(shown["point"], "ab".repeat(16));
    assert_eq!(
        (&shown["job"], &shown["consistency"], &shown["bytes_read"]),
        (&json!(812), &json!("crash"), &json!(7))
    );
    let request = here.only::<StartBackupRequest>();
    assert_eq!(
        (request.item.as_str(), request.keep_until.as_str()),
        ("web", "2999-12-31T23:59:59Z")
    );
    let spec = request.spec.unwrap();
    assert_eq!(
        (spec.host.as_str(), spec.disks[0].path.as_str()),
        ("kvm-7", "/vm/web.qcow2")
    );
    assert_eq!(here.coordinator.script.asked::<WatchJobRequest>().len(), 3);

    let ran = here.run(&["backup", "--item", "web"]);
    assert_eq!(
        (ran.code, ran.stdout.trim()),
        (0, "ab".repeat(16).as_str()),
        "without a terminal it is the point: {ran}"
    );
    let request = here.coordinator.script.asked::<StartBackupRequest>().remove(1).1;
    assert_eq!(
        (request.item.as_str(), request.spec),
        ("web", None),
        "its disks are the cluster's to know"
    );
}

#[test]
fn disks_that_a_protected_item_does_not_have_are_not_passed_over() {
    let here = Here::new();
    let item = |path: &str| Item {
        protected: true,
        spec: Some(ItemSpec {
            name: String::from("web"),
            host: String::from("kvm-7"),
            disks: vec![AdminDisk {
                name: String::from("web"),
                path: path.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    here.on::<GetItemRequest, _>(item("/vm/old.img"));
    here.on::<GetItemRequest, _>(item("/vm/web.img"));
    here.on::<StartBackupRequest, _>(job("queued"));
    let args = ["backup", "kvm-7:/vm/web.img", "--detach"];
    let ran = here.run(&args);
    assert!(ran.code == 2 && ran.stderr.contains("/vm/old.img"), "{ran}");
    assert!(here.coordinator.script.asked::<StartBackupRequest>().is_empty());
    here.json(&args);
}

#[test]
fn a_job_that_is_not_waited_for_is_only_queued() {
    let here = Here::new();
    here.on::<StartBackupRequest, _>(job("queued"));
    here.on::<StartRestoreRequest, _>(job("queued"));
    here.on::<StartVerifyRequest, _>(job("queued"));
    for args in [
        &["backup", "--item", "web", "--detach"][..],
        &["restore", "web", "--to", "/r", "--worker", "kvm-7", "--detach"],
        &["vault", "verify", "--detach"],
    ] {
        assert_eq!(here.json(args)["job"], 812, "{args:?}");
        let ran = here.run(args);
        assert_eq!(ran.stdout.trim(), "812", "{ran}");
    }
}

#[test]
fn a_failed_job_ends_as_its_last_attempt_did() {
    for (kind, code) in [
        ("retry", 7),
        ("missing", 4),
        ("denied", 5),
        ("full", 8),
        ("fenced", 6),
        ("corrupt", 3),
        ("bug", 1),
    ] {
        let here = Here::new();
        here.on::<StartBackupRequest, _>(failed(kind));
        let ran = here.run(&["backup", "--item", "web", "--json"]);
        assert_eq!(ran.code, code, "{ran}");
        assert_eq!(ran.value()["error"]["exit_code"], code, "{ran}");
        assert!(ran.stderr.contains("it could not be (on kvm-7)"), "{ran}");
        assert!(ran.stderr.contains("hint: mend it"), "{ran}");
    }
    let here = Here::new();
    here.on::<GetJobRequest, _>(failed("full"));
    let ran = here.run(&["job", "watch", "812", "--json"]);
    assert_eq!((ran.code, &ran.value()["state"]), (8, &json!("failed")), "{ran}");
}

#[test]
fn a_restore_goes_to_a_host_and_a_verify_with_findings_is_damage() {
    let here = Here::new();
    here.on::<StartRestoreRequest, _>(done());
    here.refuse::<GetItemRequest, Item>("missing", "", "there is no such item");
    let args = [
        "restore",
        "web@2026-03-10",
        "--disk",
        "vda",
        "--to",
        "kvm-7:/vm/back",
        "--format",
        "qcow2",
        "--overwrite",
    ];
    assert_eq!(here.json(&args)["host"], "kvm-7");
    let request = here.only::<StartRestoreRequest>();
    let expected = StartRestoreRequest {
        idempotency_key: request.idempotency_key.clone(),
        point: String::from("web@2026-03-10T23:59:59.999999999Z"),
        disk: String::from("vda"),
        host: String::from("kvm-7"),
        path: String::from("/vm/back"),
        format: String::from("qcow2"),
        overwrite: true,
        in_place: false,
    };
    assert_eq!(request, expected);
    assert_eq!(
        here.run(&["restore", "web", "--disk", "a", "--disk", "b", "--to", "kvm-7:/r"])
            .code,
        2
    );
    assert_eq!(
        here.run(&["restore", "web", "--to", "kvm-7:/r", "--worker", "kvm-8"])
            .code,
        2
    );

    here.on::<StartVerifyRequest, _>(Job {
        kind: String::from("verify"),
        findings: 2,
        ..done()
    });
    let ran = here.run(&[
        "vault", "verify", "main", "--level", "contents", "--point", "ab", "--json",
    ]);
    assert_eq!((ran.code, &ran.value()["findings"]), (3, &json!(2)), "{ran}");
    let request = here.only::<StartVerifyRequest>();
    assert_eq!(
        (request.vault.as_str(), request.point.as_str(), request.level.as_str()),
        ("main", "ab", "contents")
    );
}

#[test]
fn jobs_are_listed_shown_cancelled_and_retried() {
    let here = Here::new();
    here.on::<ListJobsRequest, _>(ListJobsResponse {
        jobs: vec![job("running")],
        ..Default::default()
    });
    here.on::<GetJobRequest, _>(job("running"));
    here.on::<CancelJobRequest, _>(job("running"));
    here.on::<RetryJobRequest, _>(job("queued"));
    let shown = here.json(&["job", "list", "--item", "web", "--state", "running"]);
    assert_eq!((&shown["jobs"][0]["job"], &shown["more"]), (&json!(812), &json!(false)));
    let request = here.only::<ListJobsRequest>();
    assert_eq!((request.item.as_str(), request.state.as_str()), ("web", "running"));
    assert_eq!(here.json(&["job", "show", "812"])["state"], "running");
    assert!(here.run(&["job", "cancel", "812"]).stdout.contains("asked to end"));
    assert_eq!(here.json(&["job", "retry", "812"])["state"], "queued");
    assert_eq!(
        (here.only::<CancelJobRequest>().id, here.only::<RetryJobRequest>().id),
        (812, 812)
    );
}

#[test]
fn who_goes_leaves_the_job_running_and_says_so() {
    for signal in ["-INT", "-TERM"] {
        let here = Here::new();
        here.on::<StartBackupRequest, _>(job("queued"));
        // The stream ends, and is asked for again and again: the job does not end.
        here.on::<WatchJobRequest, Pieces<Job>>(stream([job("running")]));
        let args = [
            "--cluster",
            &here.coordinator.target,
            "backup",
            "--item",
            "web",
            "--json",
        ];
        let mut command = here.site.command(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while here.coordinator.script.asked::<WatchJobRequest>().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let ran = Ran::new(&args, child.wait_with_output().unwrap());
        assert_eq!(ran.code, 130, "{ran}");
        assert_eq!(ran.value()["error"]["kind"], "interrupted", "{ran}");
        assert!(ran.stderr.contains("job 812 goes on"), "{ran}");
        assert!(here.coordinator.script.asked::<CancelJobRequest>().is_empty());
    }
}

#[test]
fn a_stream_that_is_refused_is_not_asked_for_again() {
    let here = Here::new();
    here.on::<StartBackupRequest, _>(job("queued"));
    let refused: Pieces<Job> = vec![
        Ok(job("running")),
        Err(Status::permission_denied("the token was revoked")),
    ];
    here.on::<WatchJobRequest, Pieces<Job>>(refused);
    let ran = here.run(&["backup", "--item", "web"]);
    assert_eq!(ran.code, 5, "{ran}");
    assert_eq!(here.coordinator.script.asked::<WatchJobRequest>().len(), 1);
}
