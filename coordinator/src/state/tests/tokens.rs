//! Tokens: of people until they are ended, of nodes as often as they say.

use super::*;
use crate::state::rows::TokenUse;

const TOKEN: TokenId = TokenId([0x70; 16]);

use tresor_proto::ids::TokenId;

fn join_token(role: &str, uses: u32) -> Command {
    Command::CreateJoinToken(JoinTokenSpec {
        token: TOKEN,
        role: role.to_owned(),
        hash: [1; 32],
        expires: Time(START + 5 * DAY),
        uses,
    })
}

fn api_token(token: TokenId, expires: Option<Time>) -> ApiTokenSpec {
    ApiTokenSpec {
        token,
        name: String::from("ann"),
        role: String::from("operator"),
        hash: [2; 32],
        expires,
    }
}

fn join(name: &str) -> Command {
    Command::AddWorker(WorkerSpec {
        name: name.to_owned(),
        token: Some(TOKEN),
    })
}

fn join_as_coordinator(name: &str) -> Command {
    Command::AddMember(MemberSpec {
        member: MemberId(0),
        name: name.to_owned(),
        address: format!("{name}:7000"),
        token: Some(TOKEN),
    })
}

fn uses_left(bench: &Bench) -> u32 {
    match bench.state.tokens().get(&TOKEN).unwrap().used_for {
        TokenUse::Join { uses, .. } => uses,
        TokenUse::Api { .. } => panic!("a join token"),
    }
}

/// Joining is asked for by the coordinator that was shown the token.
const DOOR: Actor = Actor::Member(MemberId(1));

#[test]
fn a_join_token_lets_in_one_node() {
    let mut bench = Bench::founded();
    // No use is one, since a token that lets nobody in is none.
    bench.does(join_token("worker", 0));
    bench.by(DOOR, join("w1"));
    let refusal = bench.refuses(DOOR, join("w2"));
    assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    assert_eq!(uses_left(&bench), 0);
}

#[test]
fn a_join_token_lets_in_as_many_nodes_as_it_says_and_a_refused_one_does_not_count() {
    let mut bench = Bench::founded();
    bench.does(join_token("coordinator", 2));
    bench.by(DOOR, join_as_coordinator("c2"));
    assert!(matches!(
        bench.refuses(DOOR, join_as_coordinator("c2")),
        Refusal::Exists { .. }
    ));
    assert_eq!(uses_left(&bench), 1);
    bench.by(DOOR, join_as_coordinator("c3"));
    bench.refuses(DOOR, join_as_coordinator("c4"));
}

#[test]
fn a_join_token_is_for_one_role() {
    let mut bench = Bench::founded();
    bench.does(join_token("worker", 1));
    let refusal = bench.refuses(DOOR, join_as_coordinator("c2"));
    assert_eq!(
        refusal.to_string(),
        "this join token is for a worker, not for a coordinator"
    );
    bench.by(DOOR, join("w1"));
}

#[test]
fn a_join_token_is_good_until_it_expires() {
    let mut bench = Bench::founded();
    bench.does(join_token("worker", 2));
    bench.pass(5 * DAY - 1);
    bench.by(DOOR, join("w1"));
    bench.pass(1);
    assert!(matches!(bench.refuses(DOOR, join("w2")), Refusal::Denied { .. }));
}

#[test]
fn a_revoked_join_token_lets_nobody_in() {
    let mut bench = Bench::founded();
    bench.does(join_token("worker", 2));
    bench.by(DOOR, join("w1"));
    bench.does(Command::RevokeToken { token: TOKEN });
    assert!(matches!(bench.refuses(DOOR, join("w2")), Refusal::Denied { .. }));
}

#[test]
fn neither_an_unknown_token_nor_a_persons_lets_a_node_in() {
    let mut bench = Bench::founded();
    assert!(matches!(bench.refuses(DOOR, join("w1")), Refusal::Denied { .. }));
    bench.does(Command::CreateApiToken(api_token(TOKEN, None)));
    assert!(matches!(bench.refuses(DOOR, join("w1")), Refusal::Denied { .. }));
    assert!(bench.state.workers().is_empty());
}

#[test]
fn a_repeated_join_makes_one_node() {
    let mut bench = Bench::founded();
    bench.does(join_token("worker", 1));
    let key = Some([3; 16]);
    let first = bench.ask_under(key, DOOR, join("w1"));
    let second = MemberId(bench.made(
        PERSON,
        Command::AddMember(MemberSpec {
            member: MemberId(0),
            name: String::from("c2"),
            address: String::from("c2:7000"),
            token: None,
        }),
    ));
    // The answer was lost; the node knocks at another door.
    let again = bench.ask_under(key, Actor::Member(second), join("w1"));
    assert!(matches!(first, Reply::Made(_)));
    assert_eq!(first, again);
    assert_eq!(bench.state.workers().len(), 1);
}

#[test]
fn what_is_asked_with_a_token_that_is_not_good_is_refused_in_the_order_of_the_log() {
    let mut bench = Bench::founded();
    let expiring = TokenId([0x71; 16]);
    bench.does(Command::CreateApiToken(api_token(TOKEN, None)));
    bench.does(Command::CreateApiToken(api_token(expiring, Some(bench.now.plus(HOUR)))));
    bench.does(join_token_named(TokenId([0x72; 16])));
    let note = Command::Note {
        action: String::from("looked"),
        object: String::from("at it"),
    };
    bench.by(Actor::Token(TOKEN), note.clone());
    bench.by(Actor::Token(expiring), note.clone());
    bench.pass(HOUR);
    bench.does(Command::RevokeToken { token: TOKEN });
    for token in [TOKEN, expiring, TokenId([0x72; 16]), TokenId([0x73; 16])] {
        let refusal = bench.refuses(Actor::Token(token), note.clone());
        assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    }
}

fn join_token_named(token: TokenId) -> Command {
    match join_token("worker", 1) {
        Command::CreateJoinToken(spec) => Command::CreateJoinToken(JoinTokenSpec { token, ..spec }),
        _ => unreachable!("it is one"),
    }
}

#[test]
fn a_token_can_end_itself() {
    let mut bench = Bench::founded();
    bench.does(Command::CreateApiToken(api_token(TOKEN, None)));
    bench.by(Actor::Token(TOKEN), Command::RevokeToken { token: TOKEN });
    assert!(!bench.state.tokens().get(&TOKEN).unwrap().is_good(bench.now));
}

#[test]
fn the_number_of_a_token_is_used_once() {
    let mut bench = Bench::founded();
    bench.does(join_token("worker", 1));
    for command in [join_token("worker", 1), Command::CreateApiToken(api_token(TOKEN, None))] {
        assert!(matches!(bench.refuses(PERSON, command), Refusal::Exists { .. }));
    }
}

#[test]
fn the_first_administrators_token_comes_with_the_cluster() {
    let mut bench = Bench::empty();
    let admin = api_token(TOKEN, None);
    let bad = Founding {
        admin: Some(ApiTokenSpec {
            name: String::new(),
            ..admin.clone()
        }),
        ..founding()
    };
    bench.refuses(Actor::Founder, Command::Found(bad));
    let good = Founding {
        admin: Some(admin),
        ..founding()
    };
    bench.by(Actor::Founder, Command::Found(good));
    assert!(bench.state.tokens().get(&TOKEN).unwrap().is_good(bench.now));
}
