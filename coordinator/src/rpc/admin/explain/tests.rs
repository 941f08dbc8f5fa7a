use super::*;
use crate::lead::plans::Plans;
use crate::node::presence::{JobProgress, Presence, SaidLease};
use crate::rpc::policy::built_in;
use crate::state::UNDO_MS;
use crate::state::command::{Command, Failure, FailureKind};
use crate::testing::{Acts, LIFE, MAIN, Story, item_id, item_spec};
use tresor_proto::ids::{ItemId, PointId, PolicyId, VaultId};

const HOUR: i64 = 3_600_000;
const DAILY: PolicyId = PolicyId([1; 16]);

fn story() -> Story {
    let mut story = Story::new();
    story.does(Command::CreatePolicy {
        policy: DAILY,
        spec: built_in("UTC"),
    });
    story
}

fn present(story: &Story) -> Presence {
    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 0, 5_000);
    presence
}

fn seen<T>(story: &Story, presence: &Presence, look: impl FnOnce(Seen<'_>) -> T) -> T {
    let mut plans = Plans::default();
    plans.refresh(&story.state);
    look(Seen {
        state: &story.state,
        plans: &plans,
        presence,
        now: story.now,
        now_ms: 5_000,
        coordinators: &[],
    })
}

fn job(story: &Story, presence: &Presence, id: JobId) -> Explanation {
    seen(story, presence, |seen| explain_job(seen, id)).unwrap()
}

fn item(story: &Story, id: ItemId) -> Explanation {
    seen(story, &present(story), |seen| explain_item(seen, id)).unwrap()
}

fn point(story: &Story, id: PointId) -> Explanation {
    seen(story, &present(story), |seen| explain_point(seen, id)).unwrap()
}

#[test]
fn a_job_that_waits_says_what_each_worker_lacks() {
    let mut story = story();
    let mut spec = item_spec("web", MAIN, None);
    spec.host = String::from("kvm-9");
    let web = item_id("web", MAIN);
    story.does(Command::Protect {
        item: web,
        spec,
        also: false,
    });
    story.adds_worker("w2");
    let id = story.queues(web, MAIN);
    let explained = job(&story, &present(&story), id);
    assert_eq!(
        explained.what,
        format!("job {id} backs up web into vault main; it is queued")
    );
    assert_eq!(
        explained.because[..3],
        [
            "It waits: no worker can do it now.",
            "Worker w1 is not kvm-9, where the disks are.",
            "Worker w2 is not kvm-9, where the disks are.",
        ]
    );
    for n in 3..=20 {
        story.adds_worker(&format!("w{n}"));
    }
    let explained = job(&story, &present(&story), id);
    assert_eq!(explained.because[1], "20 workers are not kvm-9, where the disks are.");
}

#[test]
fn a_job_that_is_next_says_how_many_are_before_it() {
    let mut story = story();
    let (web, db) = (story.protect("web", None), story.protect("db", None));
    let first = story.queues(web, MAIN);
    story.queues(db, MAIN);
    let explained = job(&story, &present(&story), first);
    assert_eq!(
        explained.because,
        [
            "It is about to begin.",
            "One more job of the same or a higher priority waits.",
            "It was queued at 2026-11-20T12:00:00Z by cluster.",
        ]
    );
    let nobody = job(&story, &Presence::default(), first);
    assert_eq!(nobody.because[1], "Worker w1 is not heard of.");
}

#[test]
fn a_job_that_is_tried_again_says_when_and_after_what() {
    let mut story = story();
    let web = story.protect("web", None);
    let id = story.queues(web, MAIN);
    let (epoch, _) = story.leases(id, story.worker);
    story.advance(60_000);
    let retry_at = story.now.plus(30_000);
    story.does(Command::Fail {
        job: id,
        epoch,
        failure: Failure {
            kind: FailureKind::Retry,
            message: String::from("the store does not answer"),
            hint: String::new(),
        },
        retry_at: Some(retry_at),
    });
    let explained = job(&story, &present(&story), id);
    assert_eq!(
        explained.because[..2],
        [
            "It waits: it failed, and is tried again at 2026-11-20T12:01:30Z.",
            "An attempt on worker w1 failed at 2026-11-20T12:01:00Z after 1 minute: the store does not answer.",
        ]
    );
}

#[test]
fn a_job_that_runs_says_where_and_how_far_it_is() {
    let mut story = story();
    let web = story.protect("web", None);
    let id = story.queues(web, MAIN);
    let (epoch, _) = story.leases(id, story.worker);
    let mut presence = present(&story);
    let progress = JobProgress {
        stage: String::from("reading"),
        bytes_done: 5,
        bytes_total: 10,
        bytes_stored: 0,
    };
    presence.beat(
        &story.state,
        story.worker,
        LIFE,
        &[SaidLease {
            job: id,
            epoch,
            progress,
        }],
        5_000,
    );
    let explained = job(&story, &presence, id);
    assert_eq!(
        explained.because[..2],
        [
            "It runs on worker w1 since 2026-11-20T12:00:00Z.",
            "The worker says: reading, 5 of 10 bytes.",
        ]
    );
    story.does(Command::Cancel { job: id });
    let explained = job(&story, &Presence::default(), id);
    assert!(
        explained
            .because
            .iter()
            .any(|because| because.contains("w1 is not heard of"))
    );
    assert!(explained.because.iter().any(|because| because.contains("It is to end")));
}

#[test]
fn a_job_that_failed_says_why_and_what_to_do() {
    let mut story = story();
    let web = story.protect("web", None);
    let id = story.fails(web);
    let explained = job(&story, &present(&story), id);
    assert_eq!(
        explained.because,
        [
            "It failed: the disk is not there.",
            "What to do: look at the disk.",
            "Trying again does not help before it is asked for otherwise.",
            "It was queued at 2026-11-20T12:00:00Z by cluster.",
        ]
    );
    assert!(seen(&story, &present(&story), |seen| explain_job(seen, JobId(999))).is_err());
}

#[test]
fn an_item_says_everything_that_is_wrong_with_it() {
    let mut story = story();
    let web = story.protect("web", Some(DAILY));
    let made = story.backs_up(web);
    let explained = item(&story, web);
    assert_eq!(explained.what, "item web in vault main: ok");
    assert_eq!(
        explained.because[0],
        format!("Its newest point is {made} of 2026-11-20T12:00:00Z.")
    );
    assert!(explained.because[1].starts_with("The next backup is due at 2026-11-21T02:"));
    assert_eq!(explained.because[2], "Its policy is daily, since 2026-11-20T12:00:00Z.");

    story.advance(40 * HOUR);
    story.fails(web);
    let waiting = story.queues(web, MAIN);
    let explained = item(&story, web);
    assert_eq!(explained.what, "item web in vault main: failing");
    assert!(
        explained.because[0].starts_with("It fails: the last job failed at"),
        "{explained:?}"
    );
    assert!(
        explained.because[1].starts_with("It is late since 2026-11-21T14:00:00Z: "),
        "{explained:?}"
    );
    assert!(
        explained.because.contains(&format!(
            "Now job {waiting} backs up web into vault main; it is queued."
        )),
        "{explained:?}"
    );

    story.does(Command::Unprotect { item: web });
    let explained = item(&story, web);
    assert_eq!(explained.what, "item web in vault main: unprotected");
    assert!(explained.because[0].contains("1 point of it is left"));
}

#[test]
fn an_item_without_a_schedule_or_with_a_vault_to_come_says_so() {
    let mut story = story();
    let archive = VaultId([0x22; 16]);
    story.adds_vault(archive, "archive");
    let web = story.protects("web", archive, None);
    let explained = item(&story, web);
    assert_eq!(explained.what, "item web in vault archive: no schedule");
    assert_eq!(
        explained.because[..3],
        [
            "It has no point: protected since 2026-11-20T12:00:00Z; none is due.",
            "It has no schedule: it has no policy: it is backed up only when somebody asks.",
            "Vault archive is still being made, and nothing is backed up into it before.",
        ]
    );
}

/// Points of the last days, the oldest first, under the built-in policy.
fn points(story: &mut Story, days: i64) -> (ItemId, Vec<PointId>) {
    let web = story.protect("web", Some(DAILY));
    let made = (0..days)
        .map(|_| {
            story.advance(24 * HOUR);
            story.backs_up(web)
        })
        .collect();
    (web, made)
}

#[test]
fn a_point_says_which_rules_keep_it() {
    let mut story = story();
    let (_, made) = points(&mut story, 20);
    let newest = point(&story, made[19]);
    assert!(
        newest
            .what
            .ends_with("of item web at 2026-12-10T12:00:00Z (crash): visible"),
        "{newest:?}"
    );
    assert_eq!(newest.because[0], "It stays: last 1 of 3.");
    assert!(newest.because.contains(&String::from("It stays: daily 2026-12-10.")));
    assert!(
        newest
            .because
            .last()
            .unwrap()
            .starts_with("Policy daily keeps the last 3 points")
    );

    let old = point(&story, made[2]);
    assert_eq!(
        old.because,
        ["Nothing in policy daily (last 3, daily 7, weekly 4, monthly 12) keeps it: it is removed soon."]
    );
    story.does(Command::StopExpiry { step: HOUR });
    assert!(point(&story, made[2]).because[1].contains("nothing expires until a person has looked"));
    story.does(Command::Hold {
        point: made[2],
        reason: String::from("audit 2026"),
    });
    assert_eq!(point(&story, made[2]).because[0], "It stays: held (audit 2026).");
}

#[test]
fn a_point_that_was_removed_says_until_when_it_can_come_back() {
    let mut story = story();
    let (_, made) = points(&mut story, 2);
    story.does(Command::HidePoints {
        points: vec![made[0]],
        by_retention: false,
    });
    let explained = point(&story, made[0]);
    assert!(explained.what.ends_with(": removed"));
    assert_eq!(
        explained.because,
        [
            String::from("It was removed at 2026-11-22T12:00:00Z."),
            format!(
                "Until 2026-11-29T12:00:00Z it can be shown again: tresor point undelete {}",
                made[0]
            ),
        ]
    );
    story.advance(UNDO_MS);
    assert!(point(&story, made[0]).because[1].starts_with("Since 2026-11-29T12:00:00Z it may be given up"));
}

#[test]
fn a_point_that_is_read_or_harmed_says_so() {
    let mut story = story();
    let (web, made) = points(&mut story, 1);
    let id = story.queues(web, MAIN);
    story.leases(id, story.worker);
    story.does(Command::ReportFindings {
        vault: MAIN,
        harmed: vec![made[0]],
    });
    let explained = point(&story, made[0]);
    assert!(
        explained
            .because
            .iter()
            .any(|because| because.starts_with("Damage was found"))
    );
    assert!(
        explained
            .because
            .iter()
            .any(|because| because.starts_with(&format!("Job {id} reads it")))
    );
}

#[test]
fn a_point_without_retention_stays() {
    let mut story = story();
    let manual = story.protect("manual", None);
    let made = story.backs_up(manual);
    assert_eq!(
        point(&story, made).because,
        ["Its item has no policy: it stays until somebody removes it."]
    );
    assert!(seen(&story, &present(&story), |seen| explain_point(seen, PointId([0; 16]))).is_err());
}
