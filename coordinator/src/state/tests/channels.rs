//! Channels are made once by name; what is told waits until it was taken, and is told once for one reason.

use super::*;
use crate::state::channels::{
    CHANNELS_MAX, Cause, ChannelSpec, DigestSpec, Message, NOTES_MAX, Note, SendOutcome, Target, Telling, Thing, Told,
    ToldOf, WAITING_MAX,
};

pub(super) fn webhook(name: &str) -> ChannelSpec {
    ChannelSpec {
        name: name.to_owned(),
        target: Target::Webhook {
            origin: String::from("https://hooks.example.org"),
        },
        on: [Cause::Failure, Cause::Recovery].into(),
        vaults: [].into(),
        digest: None,
        secret: vec![1, 2, 3],
    }
}

pub(super) fn slack(name: &str) -> ChannelSpec {
    ChannelSpec {
        target: Target::Slack {
            origin: String::from("https://hooks.slack.com"),
        },
        ..webhook(name)
    }
}

pub(super) fn mail(name: &str) -> ChannelSpec {
    ChannelSpec {
        target: Target::Email {
            to: vec![String::from("ops@example.org")],
            from: String::from("tresor@example.org"),
            server: String::from("smtps://tresor@mail.example.org"),
        },
        on: Cause::ALL.into(),
        digest: Some(DigestSpec {
            schedule: String::from("daily 07:00"),
            zone: String::from("Europe/Berlin"),
        }),
        ..webhook(name)
    }
}

pub(super) fn message(name: &str) -> Message {
    Message {
        cause: Cause::Failure,
        at: Time(1),
        notes: vec![Note {
            thing: Thing::Item,
            name: name.to_owned(),
            vault: String::from("main"),
            policy: String::from("gold"),
            since: Time(1),
            last_good: Some(Time(0)),
            job: 7,
            count: 1,
            why: String::from("read vda: no such file"),
            hint: String::from("look at the host"),
        }],
        more: 2,
        counts: vec![(String::from("protected"), 7)],
    }
}

fn telling(bench: &Bench, messages: Vec<(String, Message)>) -> Telling {
    Telling {
        seen: bench.state.told_newest(),
        told: Vec::new(),
        messages,
        digests: Vec::new(),
    }
}

fn to(channel: &str) -> (String, Message) {
    (channel.to_owned(), message("web"))
}

fn waiting(bench: &Bench) -> Vec<u64> {
    bench.state.outbox().iter().map(|(number, _)| *number).collect()
}

fn sent(message: u64, outcome: SendOutcome) -> Command {
    Command::NoteSent { message, outcome }
}

fn later(bench: &Bench) -> SendOutcome {
    SendOutcome::Later {
        error: String::from("connection refused"),
        next: bench.now.plus(1000),
    }
}

#[test]
fn a_channel_is_made_once_by_its_name_and_bounded() {
    let mut bench = Bench::founded();
    for count in 0..CHANNELS_MAX {
        bench.does(Command::AddChannel(webhook(&format!("ops-{count}"))));
    }
    bench.refuses(PERSON, Command::AddChannel(webhook("ops-1")));
    bench.refuses(PERSON, Command::AddChannel(webhook("one-more")));
    let remove = Command::RemoveChannel {
        name: String::from("ops-1"),
    };
    bench.does(remove.clone());
    bench.refuses(PERSON, remove);
    bench.does(Command::AddChannel(mail("night")));
}

#[test]
fn a_channel_without_sense_is_refused() {
    let mut bench = Bench::founded();
    let nobody = ChannelSpec {
        target: Target::Email {
            to: Vec::new(),
            from: String::from("a@b.c"),
            server: String::from("smtp://mail"),
        },
        ..webhook("ops")
    };
    let nothing = ChannelSpec {
        on: [].into(),
        ..webhook("ops")
    };
    let timeless = ChannelSpec {
        on: [Cause::Digest].into(),
        ..webhook("ops")
    };
    let nowhere = ChannelSpec {
        vaults: [VaultId([0xaa; 16])].into(),
        ..webhook("ops")
    };
    for spec in [webhook("-"), nobody, nothing, timeless, nowhere] {
        bench.refuses(PERSON, Command::AddChannel(spec));
    }
}

#[test]
fn a_message_waits_until_it_was_taken_and_is_known_by_its_number() {
    let mut bench = Bench::founded();
    bench.does(Command::AddChannel(webhook("ops")));
    let first = telling(&bench, vec![to("ops"), to("gone")]);
    bench.by(Actor::Cluster, Command::Tell(first));
    let [number] = waiting(&bench)[..] else {
        panic!("one of two channels is there")
    };
    let refused = later(&bench);
    bench.by(Actor::Cluster, sent(number, refused));
    assert_eq!(waiting(&bench), [number], "it keeps its number");
    let channel = bench.state.channels().get(&String::from("ops")).unwrap().clone();
    assert_eq!((channel.refused, channel.taken), (1, 0));
    assert_eq!(channel.trouble.unwrap().attempts, 1);
    bench.by(Actor::Cluster, sent(number, SendOutcome::Taken));
    bench.refuses(Actor::Cluster, sent(number, SendOutcome::Taken));
    let channel = bench.state.channels().get(&String::from("ops")).unwrap();
    assert_eq!((channel.taken, &channel.trouble), (1, &None));
    assert!(waiting(&bench).is_empty());
}

#[test]
fn two_leaders_do_not_tell_the_same_twice() {
    let mut bench = Bench::founded();
    bench.does(Command::AddChannel(webhook("ops")));
    let both = telling(&bench, vec![to("ops")]);
    bench.by(Actor::Cluster, Command::Tell(both.clone()));
    bench.refuses(Actor::Cluster, Command::Tell(both));
    assert_eq!(waiting(&bench).len(), 1);
}

#[test]
fn of_too_many_messages_the_oldest_go_and_are_counted() {
    let mut bench = Bench::founded();
    bench.does(Command::AddChannel(webhook("ops")));
    for _ in 0..=WAITING_MAX {
        let one = telling(&bench, vec![to("ops")]);
        bench.by(Actor::Cluster, Command::Tell(one));
    }
    assert_eq!(waiting(&bench).len(), WAITING_MAX);
    let channel = bench.state.channels().get(&String::from("ops")).unwrap();
    assert_eq!(channel.lost, 1);
}

#[test]
fn a_channel_takes_what_waits_for_it_along_and_the_last_one_what_was_told() {
    let mut bench = Bench::founded();
    bench.does(Command::AddChannel(webhook("ops")));
    bench.does(Command::AddChannel(webhook("chat")));
    let mut both = telling(&bench, vec![to("ops"), to("chat")]);
    both.told = vec![
        (ToldOf::Cause(Cause::Failure), Some(Told::default())),
        (ToldOf::Failing(ItemId([0xee; 16])), Some(Told::default())),
    ];
    bench.by(Actor::Cluster, Command::Tell(both));
    assert_eq!(bench.state.told().len(), 2, "what is not there is not remembered");
    let remove = |name: &str| Command::RemoveChannel { name: name.to_owned() };
    bench.does(remove("ops"));
    assert_eq!(waiting(&bench).len(), 1);
    bench.does(remove("chat"));
    assert!(waiting(&bench).is_empty());
    let told: Vec<ToldOf> = bench.state.told().iter().map(|(of, _)| *of).collect();
    assert_eq!(told, [ToldOf::Newest], "numbers of entries are never told anew");
    let nobody = telling(&bench, vec![to("ops")]);
    bench.refuses(Actor::Cluster, Command::Tell(nobody));
}

#[test]
fn a_message_beyond_its_bounds_is_refused() {
    let mut bench = Bench::founded();
    bench.does(Command::AddChannel(webhook("ops")));
    let mut long = message("web");
    long.notes = vec![long.notes[0].clone(); NOTES_MAX + 1];
    let long = telling(&bench, vec![(String::from("ops"), long)]);
    bench.refuses(Actor::Cluster, Command::Tell(long));
    let mut wide = message("web");
    wide.notes[0].why = "x".repeat(1000);
    let wide = telling(&bench, vec![(String::from("ops"), wide)]);
    bench.refuses(Actor::Cluster, Command::Tell(wide));
}

#[test]
fn only_a_person_and_the_cluster_make_and_tell() {
    let mut bench = Bench::founded();
    let worker = bench.worker("w1", 1);
    bench.refuses(Actor::Worker(worker), Command::AddChannel(webhook("ops")));
}
