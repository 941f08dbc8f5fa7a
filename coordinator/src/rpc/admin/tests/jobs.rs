use super::items::spec;
use super::*;
use crate::node::presence::{JobProgress, SaidLease};
use crate::state::State;
use crate::state::command::{Command, FailureKind, Work};
use crate::state::reply::Reply;
use crate::state::rows::JobState;
use tresor_proto::ids::JobId;

fn backup(number: u8, item: &str) -> v1::StartBackupRequest {
    v1::StartBackupRequest {
        idempotency_key: key(number),
        item: item.to_owned(),
        ..v1::StartBackupRequest::default()
    }
}

#[tokio::test]
async fn an_item_is_backed_up_once_for_a_key_and_one_at_a_time() {
    let mut cluster = Cluster::start();
    cluster.node.protects("web", MAIN, None);
    let asked = v1::StartBackupRequest {
        keep_until: String::from("2027-01-01"),
        priority: 5,
        ..backup(1, "web")
    };
    let job = call!(cluster, start_backup, asked.clone()).unwrap();
    assert_eq!(
        (job.kind.as_str(), job.item.as_str(), job.state.as_str(), job.priority),
        ("backup", "web", "queued", 5)
    );
    assert_eq!(job.not_before, "2026-11-20T12:00:00Z", "at once");
    assert_eq!(call!(cluster, start_backup, asked).unwrap(), job);
    let kept = cluster
        .node
        .read(|state| match &state.jobs().get(&JobId(job.id)).unwrap().spec.work {
            Work::Backup { keep_until, .. } => keep_until.unwrap(),
            other => panic!("{other:?}"),
        });
    assert_eq!(kept, crate::testing::at("2027-01-01T23:59:59.999Z"));
    let second = refused(call!(cluster, start_backup, backup(2, "web")), "fenced");
    assert_eq!(info(&second).hint, format!("tresor job watch {}", job.id));
    let entry = cluster.node.entries().pop().unwrap();
    assert_eq!(entry.actor, alice().actor, "the caller stands in the log");
}

#[tokio::test]
async fn what_is_wrong_with_a_backup_is_named() {
    let mut cluster = Cluster::start();
    cluster.node.protects("web", MAIN, None);
    refused_for(call!(cluster, start_backup, backup(1, "")), "item");
    refused(call!(cluster, start_backup, backup(1, "mail")), "missing");
    let past = v1::StartBackupRequest {
        keep_until: String::from("2026-11-19"),
        ..backup(1, "web")
    };
    refused_for(call!(cluster, start_backup, past), "keep_until");
    let urgent = v1::StartBackupRequest {
        priority: i32::MIN,
        ..backup(1, "web")
    };
    refused_for(call!(cluster, start_backup, urgent), "priority");
    let twice_named = v1::StartBackupRequest {
        spec: Some(spec("db")),
        ..backup(1, "web")
    };
    refused_for(call!(cluster, start_backup, twice_named), "spec.name");
    let two_vaults = v1::StartBackupRequest {
        spec: Some(spec("web")),
        vault: String::from("second"),
        ..backup(1, "web")
    };
    refused_for(call!(cluster, start_backup, two_vaults), "spec.vault");
    assert_eq!(cluster.node.read(|state| state.open_jobs_count()), 0);
}

#[tokio::test]
async fn a_backup_makes_its_item_if_there_is_none_and_that_has_no_policy() {
    let mut cluster = Cluster::start();
    let mut default = crate::rpc::policy::built_in("UTC");
    default.name = String::from("default");
    cluster.node.does(Command::CreatePolicy {
        policy: tresor_proto::ids::PolicyId([1; 16]),
        spec: default,
    });
    let asked = v1::StartBackupRequest {
        spec: Some(spec("web")),
        ..backup(1, "")
    };
    // Nothing is made on the way to a refusal.
    let past = v1::StartBackupRequest {
        keep_until: String::from("2026-11-19"),
        ..asked.clone()
    };
    refused_for(call!(cluster, start_backup, past), "keep_until");
    assert_eq!(cluster.node.read(|state| state.items().len()), 0);

    let job = call!(cluster, start_backup, asked.clone()).unwrap();
    assert_eq!(job.item, "web");
    let item = call!(
        cluster,
        get_item,
        v1::GetItemRequest {
            name: String::from("web"),
            vault: String::new()
        }
    );
    assert_eq!(item.unwrap().spec.unwrap().policy, "");
    assert_eq!(call!(cluster, start_backup, asked.clone()).unwrap(), job);

    // It was unprotected meanwhile: the answer to the first request does not protect it again.
    let web = cluster.node.read(|state| state.items_named("web").next().unwrap());
    cluster.node.does(Command::Unprotect { item: web });
    let again = call!(cluster, start_backup, asked).unwrap();
    assert_eq!((again.id, again.state.as_str()), (job.id, "cancelled"));
    assert_eq!(cluster.node.read(|state| state.items().len()), 0);
}

#[tokio::test]
async fn a_backup_with_a_spec_uses_the_item_that_is_there_and_passes_over_no_disk() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let asked = |number, spec: v1::ItemSpec| v1::StartBackupRequest {
        spec: Some(spec),
        ..backup(number, "web")
    };
    let mut other = spec("web");
    other.disks[0].path = String::from("/srv/other.raw");
    refused_for(call!(cluster, start_backup, asked(1, other)), "spec.disks");
    let elsewhere = v1::ItemSpec {
        host: String::from("w2"),
        ..spec("web")
    };
    cluster.node.adds_worker("w2");
    let known = cluster.node.read(|state| state.items().get(&web).unwrap().spec.clone());
    if !known.host.is_empty() {
        refused_for(call!(cluster, start_backup, asked(2, elsewhere)), "spec.host");
    }
    let live = v1::ItemSpec {
        allow_live: !known.allow_live,
        ..spec("web")
    };
    refused_for(call!(cluster, start_backup, asked(3, live)), "spec.allow_live");
    assert_eq!(cluster.node.read(|state| state.open_jobs_count()), 0);
    call!(cluster, start_backup, asked(4, spec("web"))).unwrap();
    let now = cluster.node.read(|state| state.items().get(&web).unwrap().spec.clone());
    assert_eq!(now, known, "a backup changes no item");
}

#[tokio::test]
async fn a_restorer_cancels_their_own_restore_and_no_other_job() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let made = cluster.node.makes_point(web, MAIN, cluster.worker);
    let mut tokens = Vec::new();
    for number in [31, 32] {
        let request = v1::CreateApiTokenRequest {
            idempotency_key: key(number),
            name: format!("restorer-{number}"),
            role: String::from("restorer"),
            ..v1::CreateApiTokenRequest::default()
        };
        tokens.push(call!(cluster, create_api_token, request).unwrap().id);
    }
    let of = |number: u8| Caller {
        actor: Actor::Token(tokens[usize::from(number) - 1].parse().unwrap()),
        name: format!("restorer {number}"),
        role: String::from("restorer"),
    };
    let restore = |number, path: &str| v1::StartRestoreRequest {
        idempotency_key: key(number),
        point: made.to_string(),
        host: String::from("w1"),
        path: path.to_owned(),
        ..v1::StartRestoreRequest::default()
    };
    let begin = async |caller: Caller, number, path: &str| {
        let begun = cluster.service.start_restore(by(caller, restore(number, path))).await;
        begun.unwrap().into_inner().id
    };
    let (own, other) = (
        begin(of(1), 1, "/srv/own.raw").await,
        begin(of(2), 2, "/srv/other.raw").await,
    );
    let cancel = async |number, id| {
        let message = v1::CancelJobRequest {
            idempotency_key: key(number),
            id,
        };
        cluster.service.cancel_job(by(of(1), message)).await
    };
    let denied = refused(cancel(3, other).await, "denied");
    assert!(denied.message().contains("restorer"), "{denied:?}");
    assert_eq!(cancel(4, own).await.unwrap().into_inner().state, "cancelled");
    let job = call!(cluster, get_job, v1::GetJobRequest { id: other }).unwrap();
    assert_eq!(job.state, "queued");
}

#[tokio::test]
async fn a_restore_that_a_command_makes_by_itself_is_in_the_trail_with_the_damage_that_it_allows() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let point = cluster.node.makes_point(web, MAIN, cluster.worker);
    let note = v1::NoteRestoreRequest {
        idempotency_key: key(1),
        point: point.to_string(),
        host: String::from("here"),
        path: String::from("/srv/back.raw"),
        allow_damage: true,
    };
    call!(cluster, note_restore, note.clone()).unwrap();
    call!(cluster, note_restore, note.clone()).unwrap();
    let told: Vec<String> = cluster.node.read(|state| {
        let notes = state
            .audit()
            .iter()
            .filter(|(_, entry)| entry.object.starts_with("restore by command"));
        notes.map(|(_, entry)| entry.object.clone()).collect()
    });
    assert_eq!(
        told,
        [format!(
            "restore by command: point {point} to here:/srv/back.raw, damage allowed"
        )]
    );
    refused_for(
        call!(
            cluster,
            note_restore,
            v1::NoteRestoreRequest {
                host: String::from("a\nb"),
                idempotency_key: key(2),
                ..note
            }
        ),
        "host",
    );
}

#[tokio::test]
async fn a_backup_that_was_broken_off_between_its_two_changes_goes_on() {
    let cluster = Cluster::start();
    let asked = v1::StartBackupRequest {
        spec: Some(spec("web")),
        ..backup(1, "web")
    };
    // The item is protected, and the answer to that is lost.
    cluster.node.lose_next_answer();
    refused(call!(cluster, start_backup, asked.clone()), "retry");
    assert_eq!(
        cluster
            .node
            .read(|state| (state.items().len(), state.open_jobs_count())),
        (1, 0)
    );
    let job = call!(cluster, start_backup, asked).unwrap();
    assert_eq!(cluster.node.read(|state| state.items().len()), 1);
    assert_eq!(job.item, "web");
}

#[tokio::test]
async fn a_point_is_restored_to_a_worker() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let point = cluster.node.makes_point(web, MAIN, cluster.worker);
    let restore = |number| v1::StartRestoreRequest {
        idempotency_key: key(number),
        point: String::from("web"),
        disk: String::from("vda"),
        host: String::from("w1"),
        path: String::from("/srv/restored.qcow2"),
        format: String::from("qcow2"),
        ..v1::StartRestoreRequest::default()
    };
    let job = call!(cluster, start_restore, restore(1)).unwrap();
    assert_eq!(
        (job.point.as_str(), job.target.as_str()),
        (point.to_string().as_str(), "w1:/srv/restored.qcow2")
    );
    // A newer point does not change what the first request meant.
    cluster.node.makes_point(web, MAIN, cluster.worker);
    assert_eq!(call!(cluster, start_restore, restore(1)).unwrap(), job);
    // Jobs of all kinds are queued by one kind of change: the key of one is none of another.
    refused_for(call!(cluster, start_backup, backup(1, "web")), "idempotency_key");
    let same_place = refused(call!(cluster, start_restore, restore(2)), "fenced");
    assert!(same_place.message().contains("it restores to w1:/srv/restored.qcow2"));
    let nowhere = v1::StartRestoreRequest {
        host: String::from("w9"),
        ..restore(3)
    };
    refused(call!(cluster, start_restore, nowhere), "missing");
    let relative = v1::StartRestoreRequest {
        path: String::from("restored"),
        ..restore(3)
    };
    refused_for(call!(cluster, start_restore, relative), "path");
    let both = v1::StartRestoreRequest {
        overwrite: true,
        in_place: true,
        ..restore(4)
    };
    refused_for(call!(cluster, start_restore, both), "overwrite");
    let odd = v1::StartRestoreRequest {
        format: String::from("vdi"),
        ..restore(5)
    };
    refused_for(call!(cluster, start_restore, odd), "format");
    let unknown = v1::StartRestoreRequest {
        point: String::from("mail"),
        ..restore(5)
    };
    refused(call!(cluster, start_restore, unknown), "missing");
}

#[tokio::test]
async fn a_vault_or_a_point_is_verified() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker;
    cluster
        .node
        .makes_vault(tresor_proto::ids::VaultId([2; 16]), "second", worker);
    let web = cluster.node.protects("web", MAIN, None);
    let point = cluster.node.makes_point(web, MAIN, worker);
    let verify = |number, vault: &str, point: &str, level: &str| v1::StartVerifyRequest {
        idempotency_key: key(number),
        vault: vault.to_owned(),
        point: point.to_owned(),
        level: level.to_owned(),
    };
    let whole = call!(cluster, start_verify, verify(1, "", "", "")).unwrap();
    assert_eq!(
        (whole.kind.as_str(), whole.vault.as_str(), whole.point.as_str()),
        ("verify", "main", "")
    );
    assert_eq!(call!(cluster, start_verify, verify(1, "", "", "")).unwrap(), whole);
    let one = call!(cluster, start_verify, verify(2, "", "web", "contents")).unwrap();
    assert_eq!((one.point, one.item.as_str()), (point.to_string(), "web"));
    refused_for(call!(cluster, start_verify, verify(3, "", "", "everything")), "level");
    refused_for(
        call!(cluster, start_verify, verify(3, "second", "web", "names")),
        "vault",
    );
    refused(call!(cluster, start_verify, verify(3, "third", "", "names")), "missing");
}

#[tokio::test]
async fn a_job_is_cancelled_and_tried_again() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    let cancel = |number, id| v1::CancelJobRequest {
        idempotency_key: key(number),
        id,
    };
    assert_eq!(call!(cluster, cancel_job, cancel(1, id.0)).unwrap().state, "cancelled");
    let retry = |number| v1::RetryJobRequest {
        idempotency_key: key(number),
        id: id.0,
    };
    assert_eq!(call!(cluster, retry_job, retry(2)).unwrap().state, "queued");
    call!(cluster, retry_job, retry(2)).unwrap();
    refused(call!(cluster, retry_job, retry(3)), "fenced");
    // The first cancel was of the first life of the job; sent again it ends nothing.
    assert_eq!(call!(cluster, cancel_job, cancel(1, id.0)).unwrap().state, "queued");
    let (_, _) = cluster.node.leases(id, cluster.worker);
    let running = call!(cluster, cancel_job, cancel(4, id.0)).unwrap();
    assert_eq!((running.state.as_str(), running.cancel_requested), ("running", true));
    refused(call!(cluster, cancel_job, cancel(5, 9999)), "missing");
    refused(call!(cluster, get_job, v1::GetJobRequest { id: 9999 }), "missing");
}

#[tokio::test]
async fn a_failed_job_shows_its_attempts() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    cluster
        .node
        .ends_badly(id, cluster.worker, FailureKind::Denied, "the key is wrong");
    let job = call!(cluster, get_job, v1::GetJobRequest { id: id.0 }).unwrap();
    assert_eq!((job.state.as_str(), job.why.as_str()), ("failed", "the key is wrong"));
    let attempt = &job.attempts[0];
    assert_eq!(
        (
            attempt.number,
            attempt.worker.as_str(),
            attempt.kind.as_str(),
            attempt.hint.as_str()
        ),
        (1, "w1", "denied", "look at the disk")
    );
    assert_eq!(attempt.ended, "2026-11-20T12:00:00Z");
}

#[tokio::test]
async fn the_log_of_a_job_says_what_was_reported_of_each_attempt_or_why_nothing_was() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    let none = call!(cluster, get_job_log, v1::GetJobLogRequest { id: id.0 }).unwrap();
    assert_eq!(none.attempts, []);
    // The first attempt is lost with its worker, which had said how far it was.
    let (first, _) = cluster.node.leases(id, cluster.worker);
    let said = SaidLease {
        job: id,
        epoch: first,
        progress: JobProgress {
            stage: String::from("reading"),
            bytes_done: 5,
            bytes_total: 9,
            bytes_stored: 1,
        },
    };
    {
        let mut presence = cluster.presence.lock().unwrap();
        cluster
            .node
            .read(|state| presence.beat(state, cluster.worker, LIFE, &[said], 0));
    }
    let text = |log: &v1::JobLog, at: usize| log.attempts[at].why_none.clone();
    let runs = call!(cluster, get_job_log, v1::GetJobLogRequest { id: id.0 }).unwrap();
    assert!(text(&runs, 0).starts_with("it runs, and worker w1"), "{runs:?}");
    let retry_at = Some(cluster.node.read(State::now));
    cluster.node.does(Command::ExpireLease {
        job: id,
        epoch: first,
        retry_at,
    });
    {
        let mut presence = cluster.presence.lock().unwrap();
        cluster.node.read(|state| presence.expired(state, 60_000));
    }
    // The second is reported.
    let (second, _) = cluster.node.leases(id, cluster.worker);
    let log = v1::AttemptLog {
        trace: String::from("ab"),
        summary: vec![String::from("ended: done")],
        ..v1::AttemptLog::default()
    };
    let keep = Command::KeepLog {
        job: id,
        epoch: second,
        log: tresor_proto::attempt_log::encode(&log).unwrap(),
    };
    let reply = cluster.node.apply(Actor::Worker(cluster.worker), None, keep);
    assert_eq!(reply, Reply::Done);
    let shown = call!(cluster, get_job_log, v1::GetJobLogRequest { id: id.0 }).unwrap();
    assert_eq!(shown.attempts.len(), 2);
    assert_eq!(shown.attempts[0].log, None);
    let why = text(&shown, 0);
    assert!(
        why.starts_with("worker w1 was not heard of any more, and did not report its log"),
        "{why}"
    );
    assert!(why.contains("reading, 5 of 9 bytes done"), "{why}");
    assert_eq!(shown.attempts[1].log, Some(log));
    assert_eq!(shown.attempts[1].attempt.as_ref().unwrap().number, 2);
    refused(
        call!(cluster, get_job_log, v1::GetJobLogRequest { id: 9999 }),
        "missing",
    );
}

#[tokio::test]
async fn jobs_come_newest_first_with_filters() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker;
    let (web, db) = (
        cluster.node.protects("web", MAIN, None),
        cluster.node.protects("db", MAIN, None),
    );
    for _ in 0..3 {
        cluster.node.makes_point(web, MAIN, worker);
    }
    let open = cluster.node.queues(db, MAIN);
    let list = v1::ListJobsRequest {
        page_size: 2,
        ..v1::ListJobsRequest::default()
    };
    let mut ids = Vec::new();
    let mut next = list.clone();
    loop {
        let page = call!(cluster, list_jobs, next.clone()).unwrap();
        ids.extend(page.jobs.iter().map(|job| job.id));
        if page.next_page_token.is_empty() {
            break;
        }
        next.page_token = page.next_page_token;
        // Newer than the pages that are left.
        if ids.len() == 2 {
            cluster.node.makes_point(web, MAIN, worker);
        }
    }
    assert_eq!(ids.len(), 5, "the claim of the vault, three points and one that waits");
    assert!(ids.is_sorted_by(|a, b| a > b));
    let queued = v1::ListJobsRequest {
        state: String::from("queued"),
        ..list.clone()
    };
    let page = call!(cluster, list_jobs, queued).unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [open.0]);
    let of_web = v1::ListJobsRequest {
        page_size: 100,
        item: String::from("web"),
        vault: String::from("main"),
        ..list.clone()
    };
    let page = call!(cluster, list_jobs, of_web).unwrap();
    assert_eq!(page.jobs.len(), 4);
    assert!(page.jobs.iter().all(|job| job.item == "web" && !job.point.is_empty()));
    let odd = v1::ListJobsRequest {
        state: String::from("lost"),
        ..list
    };
    refused_for(call!(cluster, list_jobs, odd), "state");
    let state = cluster.node.read(|state| state.jobs().get(&open).unwrap().state);
    assert!(matches!(state, JobState::Queued { .. }));
}
