use super::*;
use crate::node::presence::{JobProgress, SILENT_MS, SaidLease};
use crate::rpc::policy::built_in;
use crate::state::command::{Command, Counts, FailureKind, JobSpec, Outcome, VaultClaim, Work};
use crate::testing::{Acts, LIFE, MAIN, Story, item_id, item_spec};
use tresor_proto::ids::{JobId, PolicyId, VaultId};

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

/// A report in which worker `w1` was heard of just now.
fn reported(story: &Story) -> v1::StatusReport {
    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 0, 5_000);
    reported_with(story, &presence, &[])
}

fn reported_with(story: &Story, presence: &Presence, coordinators: &[v1::Coordinator]) -> v1::StatusReport {
    let mut plans = Plans::default();
    plans.refresh(&story.state);
    report(Seen {
        state: &story.state,
        plans: &plans,
        presence,
        now: story.now,
        now_ms: 5_000,
        coordinators,
    })
}

fn names(notes: &[v1::ItemNote]) -> Vec<&str> {
    notes.iter().map(|note| note.name.as_str()).collect()
}

#[test]
fn a_cluster_that_is_well_needs_nobody() {
    let mut story = story();
    let web = story.protect("web", Some(DAILY));
    story.backs_up(web);
    let report = reported(&story);
    assert_eq!(report.attention, [""; 0]);
    assert_eq!((report.items, report.protected), (1, 1));
    assert!(report.late.is_empty() && report.failing.is_empty() && report.never.is_empty());
    assert_eq!(report.workers[0].state, "ready");
    assert_eq!((report.vaults[0].points, report.vaults[0].items), (1, 1));
    assert_eq!(report.cluster_name, "test");
}

#[test]
fn items_are_listed_by_what_is_wrong_with_them() {
    let mut story = story();
    let late = story.protect("late", Some(DAILY));
    story.backs_up(late);
    let failing = story.protect("failing", Some(DAILY));
    story.backs_up(failing);
    let manual = story.protect("manual", None);
    story.backs_up(manual);
    let gone = story.protect("gone", Some(DAILY));
    story.backs_up(gone);
    story.does(Command::Unprotect { item: gone });
    story.advance(30 * HOUR);
    let fresh = story.protect("fresh", Some(DAILY));
    story.backs_up(failing);
    story.fails(failing);
    let report = reported(&story);
    assert_eq!((report.items, report.protected), (5, 4));
    assert_eq!(names(&report.late), ["late"]);
    assert_eq!(names(&report.never), ["fresh"]);
    assert_eq!(names(&report.failing), ["failing"]);
    assert_eq!(names(&report.unscheduled), ["manual"]);
    assert_eq!(
        report.late[0].why,
        "the last good backup ended at 2026-11-20T12:00:00Z, the next one was due by 2026-11-21T03:00:00Z; policy daily allows 26 hours without one"
    );
    assert_eq!(report.late[0].newest, "2026-11-20T12:00:00Z");
    // Spread over the hour from 02:00 on.
    let first_due = "protected since 2026-11-21T18:00:00Z; the first one is due at 2026-11-22T02:";
    assert!(report.never[0].why.starts_with(first_due), "{}", report.never[0].why);
    assert!(
        report.failing[0]
            .why
            .ends_with("the disk is not there (look at the disk)"),
        "{}",
        report.failing[0].why
    );
    assert_eq!(
        report.unscheduled[0].why,
        "it has no policy: it is backed up only when somebody asks"
    );
    let queued = story.queues(fresh, MAIN);
    let report = reported(&story);
    assert!(
        report.never[0]
            .why
            .contains(&format!("job {queued} waits to make the first one"))
    );
}

#[test]
fn running_jobs_have_their_progress_and_the_others_are_counted() {
    let mut story = story();
    let (web, db) = (story.protect("web", None), story.protect("db", None));
    let job = story.queues(web, MAIN);
    story.queues(db, MAIN);
    let (epoch, _) = story.leases(job, story.worker);
    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 0, 5_000);
    let said = SaidLease {
        job,
        epoch,
        progress: JobProgress {
            stage: String::from("reading"),
            bytes_done: 5,
            bytes_total: 10,
            bytes_stored: 3,
        },
    };
    presence.beat(&story.state, story.worker, LIFE, &[said], 5_000);
    let report = reported_with(&story, &presence, &[]);
    assert_eq!(report.queued, 1);
    let running = &report.running[0];
    assert_eq!(
        (running.item.as_str(), running.worker.as_str(), running.stage.as_str()),
        ("web", "w1", "reading")
    );
    assert_eq!((running.bytes_done, running.bytes_total), (5, 10));
    assert_eq!(running.counts.as_ref().unwrap().bytes_stored, 3);
}

#[track_caller]
fn attends(report: &v1::StatusReport, to: &str) {
    assert!(
        report.attention.iter().any(|sentence| sentence.contains(to)),
        "{to:?} is not in {:#?}",
        report.attention
    );
}

#[test]
fn nobody_there_to_work_is_told() {
    let mut story = story();
    assert!(
        reported_with(&story, &Presence::default(), &[])
            .attention
            .iter()
            .all(|said| !said.contains("No worker"))
    );
    story.protect("web", Some(DAILY));
    let nobody = reported_with(&story, &Presence::default(), &[]);
    attends(&nobody, "No worker is there");
    attends(&nobody, "Workers not heard of: w1");
    assert_eq!(nobody.workers[0].state, "silent");
    // Not lately enough.
    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 0, 0);
    let mut plans = Plans::default();
    plans.refresh(&story.state);
    let later = report(Seen {
        state: &story.state,
        plans: &plans,
        presence: &presence,
        now: story.now,
        now_ms: SILENT_MS,
        coordinators: &[],
    });
    attends(&later, "No worker is there");
    assert_eq!(later.workers[0].silent_ms, SILENT_MS);
}

#[test]
fn a_vault_that_is_not_made_is_told() {
    let mut story = story();
    let archive = VaultId([0x22; 16]);
    let job = story.adds_vault(archive, "archive");
    assert_eq!(reported(&story).attention, [""; 0], "it takes a moment");
    story.advance(20 * 60_000);
    attends(
        &reported(&story),
        &format!("Vault archive is still being made after 20 minutes: tresor explain job {job}"),
    );
    let worker = story.worker;
    story.ends_badly(job, worker, FailureKind::Denied, "the bucket is not ours");
    attends(
        &reported(&story),
        &format!(
            "Vault archive could not be made: the bucket is not ours. When that is mended: tresor job retry {job}"
        ),
    );
    story.does(Command::Retry { job });
    let claim = VaultClaim {
        n: 1,
        cluster: 2,
        header: [0; 32],
    };
    story.ends_well(job, worker, Outcome::Claimed(claim));
    assert_eq!(reported(&story).attention, [""; 0]);
}

#[test]
fn a_vault_that_is_claimed_anew_is_told_from_then_on_and_not_since_it_was_made() {
    use crate::state::Refounding;
    use crate::state::command::MemberSpec;

    let mut story = story();
    story.advance(40 * 24 * HOUR);
    let applied = story.state.marks().applied;
    let refounding = Refounding {
        cluster: [8; 16],
        name: None,
        ca_certificate: vec![11],
        ca_key: vec![12],
        member: MemberSpec {
            member: tresor_proto::ids::MemberId(0),
            name: String::from("c9"),
            address: String::from("c9:7000"),
            token: None,
        },
        admin: None,
        now: story.now,
        from: String::from("a backup"),
    };
    story.state.refound(applied, &refounding).unwrap();
    let says = |story: &Story| reported(story).attention.join(" ");
    let at_once = says(&story);
    assert!(
        at_once.contains("founded again") && !at_once.contains("Vault main"),
        "{at_once}"
    );
    story.advance(20 * 60_000);
    let later = says(&story);
    assert!(
        later.contains("Vault main is still being claimed after 20 minutes"),
        "not made, and not since it was: {later}"
    );
}

#[test]
fn damage_is_told_with_how_much_it_harms() {
    let mut story = story();
    let (web, db) = (story.protect("web", None), story.protect("db", None));
    let old = story.backs_up(db);
    story.advance(1000);
    let newest = story.backs_up(web);
    story.backs_up(db);
    story.does(Command::ReportFindings {
        vault: MAIN,
        harmed: vec![newest, old],
    });
    let report = reported(&story);
    attends(&report, "Damage was found under the newest point of 1 item (web)");
    attends(&report, "2 points of vault main are damaged");
}

#[test]
fn clocks_are_told() {
    let mut story = story();
    story.does(Command::StopExpiry { step: -3 * HOUR });
    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 120_000, 5_000);
    let member = |name: &str, clock_ms, reachable| v1::Coordinator {
        name: name.to_owned(),
        role: String::from("voter"),
        reachable,
        clock_ms,
        ..v1::Coordinator::default()
    };
    let members = [
        member("c1", 0, true),
        member("c2", -90_000, true),
        member("c3", 0, false),
    ];
    let report = reported_with(&story, &presence, &members);
    attends(&report, "stepped back by 3 hours, and nothing expires");
    attends(&report, "The clock of worker w1 is 2 minutes ahead of the leader's");
    attends(
        &report,
        "The clock of coordinator c2 is 1 minute and 30 seconds behind the leader's",
    );
    attends(
        &report,
        "Not heard of: c3. If one more is lost, nothing can be decided any more.",
    );
    assert_eq!(report.coordinators.len(), 3);
}

#[test]
fn disks_that_nobody_reaches_and_jobs_that_nobody_takes_are_told() {
    let mut story = story();
    let mut spec = item_spec("web", MAIN, Some(DAILY));
    spec.host = String::from("kvm-9");
    let web = item_id("web", MAIN);
    story.does(Command::Protect {
        item: web,
        spec,
        also: false,
    });
    let job = story.queues(web, MAIN);
    attends(
        &reported(&story),
        "The disks of 1 item (web) are on hosts that have no worker",
    );
    story.advance(2 * HOUR);
    attends(
        &reported(&story),
        &format!("1 job has waited for over 1 hour: tresor explain job {job}"),
    );
}

#[test]
fn a_catalogue_that_is_not_put_is_told_after_a_day() {
    let mut story = story();
    let web = story.protect("web", None);
    story.backs_up(web);
    story.advance(23 * HOUR);
    assert_eq!(reported(&story).attention, [""; 0]);
    story.advance(2 * HOUR);
    attends(
        &reported(&story),
        "The catalogue of vault main was not put for 25 hours",
    );
}

#[test]
fn a_report_names_so_many_items_and_counts_the_rest() {
    let mut story = Story::new();
    for n in 0..NAMED_MAX + 7 {
        story.protect(&format!("item-{n:05}"), None);
    }
    let report = reported(&story);
    assert_eq!(report.never.len(), NAMED_MAX);
    attends(
        &report,
        "7 more items than are named are in state never: tresor item list --state never",
    );
    assert!(prost::Message::encoded_len(&report) < 2 << 20);
}

#[test]
fn policies_that_cannot_be_followed_are_told() {
    let mut story = story();
    let mut spec = built_in("Mars/Olympus");
    spec.name = String::from("mars");
    story.does(Command::CreatePolicy {
        policy: PolicyId([2; 16]),
        spec,
    });
    let web = story.protect("web", Some(PolicyId([2; 16])));
    let report = reported(&story);
    attends(&report, "Policy mars cannot be followed");
    assert_eq!(
        report.unscheduled[0].why,
        "the schedule of policy mars cannot be followed"
    );
    assert_eq!(report.unscheduled[0].item, web.to_string());
}

#[test]
fn what_a_verify_found_and_a_certificate_that_is_not_renewed_are_told() {
    let mut story = story();
    let web = story.protect("web", Some(DAILY));
    story.backs_up(web);
    let verify = |story: &mut Story, findings: u64| {
        let job = Acts::makes(
            story,
            Command::Enqueue(JobSpec {
                vault: MAIN,
                work: Work::Verify {
                    point: None,
                    level: String::from("all"),
                },
                priority: 0,
                not_before: story.now,
                occurrence: None,
            }),
        );
        let outcome = Outcome::Verified {
            counts: Counts::default(),
            harmed: Vec::new(),
            findings,
            is_all: true,
        };
        let worker = story.worker;
        story.ends_well(JobId(job), worker, outcome);
        job
    };
    let job = verify(&mut story, 3);
    attends(
        &reported(&story),
        &format!("verify of vault main found 3 things wrong: tresor job show {job}"),
    );
    verify(&mut story, 0);
    assert_eq!(reported(&story).attention, [""; 0]);

    let mut presence = Presence::default();
    presence.hear(story.worker, LIFE, 0, 5_000);
    let day = 24 * 3600;
    presence.note_certificate(story.worker, story.now.0 / 1000 + 8 * day);
    assert_eq!(reported_with(&story, &presence, &[]).attention, [""; 0]);
    presence.note_certificate(story.worker, story.now.0 / 1000 + 6 * day);
    attends(
        &reported_with(&story, &presence, &[]),
        "The certificate of worker w1 ends 2026-11-26T",
    );
    presence.note_certificate(story.worker, i64::MAX);
    presence.note_catalogue(MAIN, false);
    attends(
        &reported_with(&story, &presence, &[]),
        "vault main fits into its catalogue",
    );
    presence.note_catalogue(MAIN, true);
    assert_eq!(reported_with(&story, &presence, &[]).attention, [""; 0]);
}

#[test]
fn a_channel_that_takes_no_notifications_needs_a_person() {
    use crate::state::channels::{Cause, ChannelSpec, Message, SendOutcome, Target, Telling};
    let mut story = story();
    story.does(Command::AddChannel(ChannelSpec {
        name: String::from("ops"),
        target: Target::Webhook {
            origin: String::from("https://hooks.example.org"),
        },
        on: [Cause::Failure].into(),
        vaults: [].into(),
        digest: None,
        secret: Vec::new(),
    }));
    let message = Message {
        cause: Cause::Failure,
        at: story.now,
        notes: Vec::new(),
        more: 1,
        counts: Vec::new(),
    };
    story.does(Command::Tell(Telling {
        seen: 0,
        told: Vec::new(),
        messages: vec![(String::from("ops"), message)],
        digests: Vec::new(),
    }));
    let number = *story.state.outbox().first().unwrap().0;
    story.does(Command::NoteSent {
        message: number,
        outcome: SendOutcome::Later {
            error: String::from("HTTP 404 Not Found"),
            next: story.now,
        },
    });
    let said = |story: &Story| reported(story).attention.join("\n");
    assert!(!said(&story).contains("ops"), "receivers are restarted");
    story.advance(HOUR / 4);
    assert!(said(&story).contains("Channel ops has taken no notification since"));
    assert!(said(&story).contains("HTTP 404 Not Found (tresor notify test ops)"));
    story.does(Command::NoteSent {
        message: number,
        outcome: SendOutcome::Taken,
    });
    assert!(!said(&story).contains("ops"));
}
