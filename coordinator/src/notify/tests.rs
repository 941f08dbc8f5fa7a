//! What is told, to whom, and when; and how it reads.

use super::decide::{Digests, GROUP_MS, QUIET_MS, REPEAT_MS, due};
use super::send::signature;
use super::text::{self, Letterhead};
use crate::lead::plans::Plans;
use crate::state::channels::{Cause, ChannelSpec, DigestSpec, Message, SendOutcome, Target, Telling, ToldOf};
use crate::state::command::{Command, FailureKind, PolicySpec};
use crate::state::entry::Time;
use crate::testing::{Acts, MAIN, START, Story, at};
use tresor_proto::ids::{ItemId, PolicyId, VaultId};

const HOUR: i64 = 3_600_000;
const GOLD: PolicyId = PolicyId([1; 16]);

fn channel(name: &str) -> ChannelSpec {
    ChannelSpec {
        name: name.to_owned(),
        target: Target::Webhook {
            origin: String::from("https://hooks.example.org"),
        },
        on: [Cause::Failure, Cause::Recovery, Cause::Late, Cause::Finding].into(),
        vaults: [].into(),
        digest: None,
        secret: Vec::new(),
    }
}

/// A cluster with channel `ops`, whose backups are due at 02:00 each night.
fn story() -> Story {
    let mut story = Story::new();
    story.does(Command::CreatePolicy {
        policy: GOLD,
        spec: PolicySpec {
            name: String::from("gold"),
            schedule: String::from("daily 02:00"),
            zone: String::from("UTC"),
            late_after: 26 * HOUR,
            ..PolicySpec::default()
        },
    });
    story.does(Command::AddChannel(channel("ops")));
    story
}

fn decided(story: &Story) -> Option<Telling> {
    let (mut plans, mut digests) = (Plans::default(), Digests::default());
    plans.refresh(&story.state);
    digests.refresh(&story.state);
    due(&story.state, &plans, &digests, story.now)
}

/// Lets the leader look once; what was told to whom.
fn looks(story: &mut Story) -> Vec<(String, Message)> {
    let Some(telling) = decided(story) else {
        return Vec::new();
    };
    let messages = telling.messages.clone();
    story.does(Command::Tell(telling));
    messages
}

/// The same after things had time to gather.
fn looks_later(story: &mut Story) -> Vec<(String, Message)> {
    story.advance(GROUP_MS.max(QUIET_MS));
    looks(story)
}

fn causes(messages: &[(String, Message)]) -> Vec<Cause> {
    messages.iter().map(|(_, message)| message.cause).collect()
}

fn protected(story: &mut Story, name: &str) -> ItemId {
    let item = story.protect(name, Some(GOLD));
    story.backs_up(item);
    item
}

#[test]
fn nothing_is_told_of_a_cluster_that_is_well_or_without_channels() {
    let mut well = story();
    protected(&mut well, "web");
    assert_eq!(looks_later(&mut well), []);
    let mut alone = Story::new();
    let web = alone.protect("web", None);
    alone.fails(web);
    assert_eq!(looks_later(&mut alone), []);
}

#[test]
fn a_failure_is_told_once_when_its_job_has_failed_for_good() {
    let mut story = story();
    let web = protected(&mut story, "web");
    let job = story.queues(web, MAIN);
    let (epoch, _) = story.leases(job, story.worker);
    story.does(Command::Fail {
        job,
        epoch,
        failure: crate::state::command::Failure {
            kind: FailureKind::Retry,
            message: String::from("the store is away"),
            hint: String::new(),
        },
        retry_at: Some(story.now.plus(1000)),
    });
    assert_eq!(looks_later(&mut story), [], "an attempt is no failure");
    story.does(Command::Cancel { job });
    let failed = story.fails(web);
    assert_eq!(looks(&mut story), [], "others are waited for");
    let told = looks_later(&mut story);
    assert_eq!(causes(&told), [Cause::Failure]);
    let note = &told[0].1.notes[0];
    assert_eq!(
        (note.name.as_str(), note.vault.as_str(), note.policy.as_str()),
        ("web", "main", "gold")
    );
    assert_eq!(
        (note.job, note.count, note.why.as_str()),
        (failed.0, 1, "the disk is not there")
    );
    assert_eq!(note.hint, "look at the disk");
    assert!(note.last_good.is_some());
    assert_eq!(looks_later(&mut story), []);
}

#[test]
fn an_item_that_goes_on_failing_is_told_again_after_a_day_at_the_earliest() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.fails(web);
    assert_eq!(looks_later(&mut story).len(), 1);
    story.advance(HOUR);
    story.fails(web);
    assert_eq!(looks_later(&mut story), [], "the same is not told for each job");
    story.advance(REPEAT_MS - 2 * HOUR);
    assert_eq!(looks_later(&mut story), []);
    story.advance(2 * HOUR);
    let again = looks_later(&mut story);
    assert_eq!(causes(&again)[0], Cause::Failure);
    assert_eq!(again[0].1.notes[0].count, 2);
    story.advance(REPEAT_MS);
    let later = looks_later(&mut story);
    assert!(
        !causes(&later).contains(&Cause::Failure),
        "nothing new has failed since: {later:?}"
    );
}

#[test]
fn a_recovery_is_told_of_what_was_told_and_of_nothing_else() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.fails(web);
    story.backs_up(web);
    assert_eq!(
        looks_later(&mut story),
        [],
        "it failed and recovered before anybody was told"
    );
    story.fails(web);
    assert_eq!(causes(&looks_later(&mut story)), [Cause::Failure]);
    story.backs_up(web);
    let told = looks_later(&mut story);
    assert_eq!(causes(&told), [Cause::Recovery]);
    assert!(told[0].1.notes[0].why.starts_with("backed up again at"));
    assert_eq!(looks_later(&mut story), []);
    story.fails(web);
    assert_eq!(
        causes(&looks_later(&mut story)),
        [Cause::Failure],
        "after a recovery it is news"
    );
}

#[test]
fn an_item_that_is_late_is_told_once_until_it_is_protected_again() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.advance(25 * HOUR);
    assert_eq!(looks_later(&mut story), [], "its policy allows 26 hours");
    story.advance(2 * HOUR);
    let told = looks_later(&mut story);
    assert_eq!(causes(&told), [Cause::Late]);
    assert!(
        told[0].1.notes[0].why.contains("policy gold allows 26 hours"),
        "{told:?}"
    );
    for _ in 0..3 {
        story.advance(24 * HOUR);
        assert_eq!(looks_later(&mut story), []);
    }
    story.backs_up(web);
    assert_eq!(causes(&looks_later(&mut story)), [Cause::Recovery]);
}

#[test]
fn an_item_that_failed_and_is_late_recovers_in_one_message() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.advance(27 * HOUR);
    story.fails(web);
    assert_eq!(causes(&looks_later(&mut story)), [Cause::Failure, Cause::Late]);
    story.backs_up(web);
    let told = looks_later(&mut story);
    assert_eq!(causes(&told), [Cause::Recovery]);
    assert_eq!(told[0].1.notes.len(), 1);
}

#[test]
fn a_store_that_is_away_is_one_message_and_not_one_for_each_item() {
    let mut story = story();
    let items: Vec<ItemId> = (0..120).map(|n| protected(&mut story, &format!("vm-{n:03}"))).collect();
    for item in &items {
        story.fails(*item);
        story.advance(100);
    }
    let told = looks_later(&mut story);
    let [(_, message)] = told.as_slice() else {
        panic!("{} messages", told.len())
    };
    assert_eq!((message.notes.len(), message.more), (50, 70));
    assert_eq!(text::title(message), "backups of 120 items failed");
    let body = text::body(message);
    assert!(
        body.contains("50 of them: the disk is not there (hint: look at the disk)"),
        "{body}"
    );
    assert!(body.contains("and 70 more: tresor status"));
    assert_eq!(
        body.matches("the disk is not there").count(),
        1,
        "one reason is said once"
    );
}

#[test]
fn what_is_told_fits_into_an_entry_however_many_channels_hear_it() {
    let mut story = story();
    for n in 0..crate::state::channels::CHANNELS_MAX - 1 {
        story.does(Command::AddChannel(channel(&format!("ops-{n}"))));
    }
    let why = "€".repeat(400);
    for n in 0..60 {
        let item = protected(&mut story, &format!("{}-{n}", "vm".repeat(100)));
        let job = story.queues(item, MAIN);
        let worker = story.worker;
        story.ends_badly(job, worker, FailureKind::Invalid, &why);
    }
    story.advance(27 * HOUR);
    let telling = decided(&story).unwrap();
    assert_eq!(telling.messages.len(), 100, "failures and lateness to 50 channels");
    for (_, message) in &telling.messages {
        assert_eq!(message.notes.len() as u64 + message.more, 60);
        assert!(!message.notes.is_empty());
    }
    let entry = crate::state::entry::Entry {
        now: story.now,
        actor: crate::state::entry::Actor::Cluster,
        key: None,
        command: Command::Tell(telling),
    };
    let bytes = entry.encode().len();
    assert!((100_000..crate::store::ENTRY_BYTES_MAX).contains(&bytes), "{bytes}");
}

#[test]
fn the_next_message_of_a_cause_waits_for_what_fails_meanwhile() {
    let mut story = story();
    let items: Vec<ItemId> = (0..4).map(|n| protected(&mut story, &format!("vm-{n}"))).collect();
    story.fails(items[0]);
    story.advance(GROUP_MS);
    assert_eq!(looks(&mut story).len(), 1);
    for item in &items[1..] {
        story.fails(*item);
        story.advance(GROUP_MS + 1);
        assert_eq!(looks(&mut story), []);
    }
    story.advance(QUIET_MS - 3 * (GROUP_MS + 1));
    assert_eq!(looks(&mut story)[0].1.notes.len(), 3);
}

#[test]
fn a_channel_hears_what_it_is_for_and_of_its_vaults() {
    let mut story = story();
    let worker = story.worker;
    let archive = VaultId([0x22; 16]);
    story.makes_vault(archive, "archive", worker);
    story.does(Command::AddChannel(ChannelSpec {
        on: [Cause::Recovery].into(),
        ..channel("calm")
    }));
    story.does(Command::AddChannel(ChannelSpec {
        vaults: [archive].into(),
        ..channel("keepers")
    }));
    let web = protected(&mut story, "web");
    story.fails(web);
    let told = looks_later(&mut story);
    assert_eq!(told.iter().map(|(to, _)| to.as_str()).collect::<Vec<_>>(), ["ops"]);
    story.backs_up(web);
    let told = looks_later(&mut story);
    assert_eq!(
        told.iter().map(|(to, _)| to.as_str()).collect::<Vec<_>>(),
        ["calm", "ops"]
    );
}

#[test]
fn damage_is_told_when_it_is_found_and_when_there_is_more_of_it() {
    let mut story = story();
    let web = story.protect("web", Some(GOLD));
    let [first, second, third] = [(); 3].map(|()| story.backs_up(web));
    let found = |harmed| Command::ReportFindings { vault: MAIN, harmed };
    story.does(found(vec![first]));
    let told = looks(&mut story);
    assert_eq!(causes(&told), [Cause::Finding], "damage waits for nothing");
    assert_eq!(
        (told[0].1.notes[0].name.as_str(), told[0].1.notes[0].count),
        ("main", 1)
    );
    story.does(found(vec![first]));
    assert_eq!(looks_later(&mut story), [], "it is known");
    story.does(found(vec![second]));
    assert_eq!(looks_later(&mut story)[0].1.notes[0].count, 2);
    // Less of it is no news; but what is found from there on is, also where it is not more than once was told.
    let points = vec![first];
    story.does(Command::HidePoints {
        points: points.clone(),
        by_retention: false,
    });
    story.advance(crate::state::UNDO_MS + 1);
    story.does(Command::GiveUpPoints { points });
    assert_eq!(story.state.points_in(MAIN).harmed, 1);
    // Meanwhile the item is late, which is another matter.
    assert_eq!(causes(&looks_later(&mut story)), [Cause::Late]);
    story.does(found(vec![third]));
    let told = looks_later(&mut story);
    let finding = told
        .iter()
        .find(|(_, message)| message.cause == Cause::Finding)
        .unwrap();
    assert_eq!(finding.1.notes[0].count, 2);
}

#[test]
fn what_is_not_protected_any_more_is_forgotten_without_a_word() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.fails(web);
    looks_later(&mut story);
    assert!(story.state.told().contains(&ToldOf::Failing(web)));
    story.does(Command::Unprotect { item: web });
    assert_eq!(looks_later(&mut story), []);
    assert!(!story.state.told().contains(&ToldOf::Failing(web)));
}

#[test]
fn one_decision_counts_once_whoever_made_it() {
    let mut story = story();
    let web = protected(&mut story, "web");
    story.fails(web);
    story.advance(GROUP_MS);
    let (mine, yours) = (decided(&story).unwrap(), decided(&story).unwrap());
    story.does(Command::Tell(mine));
    let reply = story.applies(crate::state::entry::Actor::Cluster, None, Command::Tell(yours));
    assert!(matches!(reply, crate::state::reply::Reply::Refused(_)));
    assert_eq!(story.state.outbox().len(), 1);
    let number = *story.state.outbox().first().unwrap().0;
    story.does(Command::NoteSent {
        message: number,
        outcome: SendOutcome::Taken,
    });
    assert!(story.state.outbox().is_empty());
}

/// The moments of the digests from a moment on, looked at every ten minutes for so many days.
fn digests(schedule: &str, from: &str, days: i64) -> Vec<Time> {
    let mut story = Story::new();
    story.advance(at(from).since(START));
    story.does(Command::AddChannel(ChannelSpec {
        on: [Cause::Digest].into(),
        digest: Some(DigestSpec {
            schedule: schedule.to_owned(),
            zone: String::from("Europe/Berlin"),
        }),
        ..channel("night")
    }));
    let mut moments = Vec::new();
    for _ in 0..days * 144 {
        story.advance(HOUR / 6);
        for (_, message) in looks(&mut story) {
            assert_eq!(message.cause, Cause::Digest);
            moments.push(message.at);
        }
    }
    moments
}

#[test]
fn a_digest_comes_at_its_hour_on_both_sides_of_daylight_saving() {
    // Clocks go ahead on 28 March 2027 at 02:00, and back on 31 October at 03:00.
    let spring = digests("daily 07:00", "2027-03-26T12:00:00Z", 3);
    assert_eq!(
        spring,
        ["2027-03-27T06:00:00Z", "2027-03-28T05:00:00Z", "2027-03-29T05:00:00Z"].map(at)
    );
    let autumn = digests("daily 02:30", "2027-10-29T12:00:00Z", 3);
    assert_eq!(autumn.len(), 3, "an hour that comes twice is told once: {autumn:?}");
    let weekly = digests("weekly mon 07:00", "2027-03-26T12:00:00Z", 14);
    assert_eq!(weekly, ["2027-03-29T05:00:00Z", "2027-04-05T05:00:00Z"].map(at));
}

#[test]
fn a_digest_counts_what_stands_and_what_happened_and_is_made_up_once() {
    let mut story = story();
    story.does(Command::AddChannel(ChannelSpec {
        on: [Cause::Digest].into(),
        digest: Some(DigestSpec {
            schedule: String::from("daily 07:00"),
            zone: String::from("UTC"),
        }),
        ..channel("night")
    }));
    let web = protected(&mut story, "web");
    protected(&mut story, "db");
    story.fails(web);
    // Nobody led for a long while.
    story.advance(75 * HOUR);
    let told = looks(&mut story);
    let digests: Vec<&Message> = told
        .iter()
        .filter_map(|(to, message)| (to == "night").then_some(message))
        .collect();
    let [digest] = digests.as_slice() else {
        panic!("{told:?}")
    };
    let count = |word: &str| digest.counts.iter().find(|(key, _)| key == word).unwrap().1;
    assert_eq!((count("protected"), count("failing"), count("late")), (2, 1, 2));
    assert_eq!((count("backups done"), count("backups failed")), (2, 1));
    assert_eq!(digest.notes.len(), 2);
    assert_eq!(text::title(digest), "report: 2 items protected, 1 failing, 2 late");
    assert_eq!(looks_later(&mut story), []);
}

#[test]
fn the_body_of_a_webhook_is_as_it_is_documented() {
    let mut story = story();
    let web = protected(&mut story, "web");
    let job = story.fails(web);
    let told = looks_later(&mut story);
    let head = Letterhead {
        cluster: "07".repeat(16),
        cluster_name: String::from("prod"),
        channel: String::from("ops"),
    };
    let id = text::id(&head, 7 * 256 + 3);
    assert_eq!(id, "070707070707-7-3");
    let message = &told[0].1;
    let body: serde_json::Value = serde_json::from_slice(&text::json(&head, id, message, "failure")).unwrap();
    assert_eq!((&body["version"], &body["event"]), (&1.into(), &"failure".into()));
    assert_eq!(body["title"], "backup of web failed");
    assert_eq!(body["cluster_name"], "prod");
    let item = &body["items"][0];
    assert_eq!((&item["name"], &item["job"]), (&"web".into(), &job.0.into()));
    assert_eq!(item["error"], "the disk is not there");
    assert_eq!(item["look"], "tresor explain item web");
    // What is documented is there, and nothing else.
    let documented = include_str!("../../../docs/notifications.md");
    for field in body.as_object().unwrap().keys().chain(item.as_object().unwrap().keys()) {
        assert!(documented.contains(&format!("`{field}`")), "{field} is not documented");
    }
}

#[test]
fn what_chats_read_as_markup_is_written_out() {
    let head = Letterhead {
        cluster: String::new(),
        cluster_name: String::from("prod"),
        channel: String::from("ops"),
    };
    let body: serde_json::Value = serde_json::from_slice(&text::slack(&head, "a <b> & c", "")).unwrap();
    assert_eq!(body["text"], "*prod*: a &lt;b&gt; &amp; c");
    let long: serde_json::Value = serde_json::from_slice(&text::slack(&head, "t", &"x".repeat(9000))).unwrap();
    let text = long["text"].as_str().unwrap();
    assert!(text.len() < 4000 && text.ends_with("```"));
}

#[test]
fn a_signature_is_that_of_rfc_4231() {
    let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(signature("Jefe", b"what do ya want for nothing?"), expected);
}
