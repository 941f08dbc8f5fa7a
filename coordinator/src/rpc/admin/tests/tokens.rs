use super::*;
use crate::security::TokenHash;
use tresor_proto::ids::TokenId;
use tresor_proto::tls::Fingerprint;
use tresor_proto::token::{ApiToken, JoinToken};

fn api(number: u8, name: &str, valid: &str) -> v1::CreateApiTokenRequest {
    v1::CreateApiTokenRequest {
        idempotency_key: key(number),
        name: name.to_owned(),
        role: String::from("operator"),
        valid: valid.to_owned(),
    }
}

fn join(number: u8, role: &str, valid: &str, uses: u32) -> v1::CreateJoinTokenRequest {
    v1::CreateJoinTokenRequest {
        idempotency_key: key(number),
        role: role.to_owned(),
        valid: valid.to_owned(),
        uses,
    }
}

#[tokio::test]
async fn a_token_is_shown_by_its_making_and_only_its_hash_is_kept() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_api_token, api(1, "backup script", "90d")).unwrap();
    let token: ApiToken = made.token.parse().unwrap();
    assert_eq!(token.id.to_string(), made.id);
    assert_eq!(made.expires, "2027-02-18T12:00:00Z");
    let row = cluster
        .node
        .read(|state| state.tokens().get(&token.id).unwrap().clone());
    assert_eq!(row.name, "backup script");
    assert_eq!(row.hash, TokenHash::of(token.id, &token.secret).to_bytes());
    let stored: TokenHash = postcard::from_bytes(&row.hash).unwrap();
    assert!(stored.matches(token.id, &token.secret));
    for entry in cluster.node.entries() {
        let bytes = entry.encode();
        assert!(
            !bytes.windows(32).any(|part| part == token.secret.expose()),
            "the log has no secret"
        );
    }
}

#[tokio::test]
async fn the_same_caller_with_the_same_key_gets_the_same_token_and_nobody_else_does() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_api_token, api(1, "script", "")).unwrap();
    assert_eq!(made.expires, "");
    cluster.node.advance(60_000);
    assert_eq!(call!(cluster, create_api_token, api(1, "script", "")).unwrap(), made);
    let other = call!(cluster, create_api_token, api(2, "script", "")).unwrap();
    assert!(other.id != made.id && other.token != made.token);
    let mallory = Caller {
        actor: Actor::Local { uid: 1001 },
        ..alice()
    };
    let stolen = cluster
        .service
        .create_api_token(by(mallory, api(1, "script", "")))
        .await;
    refused_for(stolen, "idempotency_key");
    assert_eq!(cluster.node.read(|state| state.tokens().len()), 2);
}

#[tokio::test]
async fn a_join_token_is_good_for_five_days_and_once_unless_asked_otherwise() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_join_token, join(1, "worker", "", 0)).unwrap();
    let token: JoinToken = made.token.parse().unwrap();
    assert_eq!(token.ca, Fingerprint::of(b"certificate"));
    assert_eq!(made.expires, "2026-11-25T12:00:00Z");
    assert_eq!(
        call!(cluster, create_join_token, join(1, "worker", "", 0)).unwrap(),
        made
    );
    call!(cluster, create_join_token, join(2, "coordinator", "12h", 3)).unwrap();
    let listed = call!(cluster, list_tokens, v1::ListTokensRequest::default())
        .unwrap()
        .tokens;
    let uses: Vec<(&str, u32)> = listed
        .iter()
        .map(|token| (token.role.as_str(), token.uses_left))
        .collect();
    assert_eq!(uses.len(), 2);
    assert!(uses.contains(&("worker", 1)) && uses.contains(&("coordinator", 3)));
    // A key counts for one kind of change, and another kind gets another secret.
    let other = call!(cluster, create_api_token, api(1, "script", "")).unwrap();
    assert_ne!(other.id, made.id);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_named() {
    let cluster = Cluster::start();
    let mut root = api(1, "script", "");
    root.role = String::from("root");
    refused_for(call!(cluster, create_api_token, root), "role");
    refused_for(call!(cluster, create_api_token, api(1, "script", "0s")), "valid");
    refused_for(call!(cluster, create_api_token, api(1, "script", "soon")), "valid");
    refused_for(call!(cluster, create_api_token, api(1, "", "")), "name");
    refused_for(call!(cluster, create_join_token, join(2, "admin", "", 0)), "role");
    refused_for(call!(cluster, create_join_token, join(2, "worker", "91d", 0)), "valid");
    refused_for(call!(cluster, create_join_token, join(2, "worker", "0s", 0)), "valid");
    refused_for(
        call!(cluster, create_join_token, join(2, "worker", "", u32::MAX)),
        "uses",
    );
    assert_eq!(cluster.node.read(|state| state.tokens().len()), 0);
}

#[tokio::test]
async fn tokens_come_newest_first_and_are_revoked() {
    let cluster = Cluster::start();
    let mut ids = Vec::new();
    for n in 0..5 {
        cluster.node.advance(1000);
        ids.push(
            call!(cluster, create_api_token, api(n, &format!("t{n}"), ""))
                .unwrap()
                .id,
        );
    }
    let list = |page_token| v1::ListTokensRequest {
        page_size: 2,
        page_token,
    };
    let first = call!(cluster, list_tokens, list(String::new())).unwrap();
    cluster.node.advance(1000);
    call!(cluster, create_api_token, api(9, "newer", "")).unwrap();
    let second = call!(cluster, list_tokens, list(first.next_page_token)).unwrap();
    let third = call!(cluster, list_tokens, list(second.next_page_token)).unwrap();
    let shown: Vec<String> = [first.tokens, second.tokens, third.tokens]
        .concat()
        .into_iter()
        .map(|token| token.id)
        .collect();
    ids.reverse();
    assert_eq!(shown, ids);
    let revoke = |number, id: &str| v1::RevokeTokenRequest {
        idempotency_key: key(number),
        id: id.to_owned(),
    };
    call!(cluster, revoke_token, revoke(20, &ids[0])).unwrap();
    call!(cluster, revoke_token, revoke(20, &ids[0])).unwrap();
    let id: TokenId = ids[0].parse().unwrap();
    assert!(cluster.node.read(|state| state.tokens().get(&id).unwrap().revoked));
    refused(call!(cluster, revoke_token, revoke(21, "nobody's")), "missing");
}

#[tokio::test]
async fn who_am_i_says_until_when() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_api_token, api(1, "script", "1d")).unwrap();
    let caller = Caller {
        actor: Actor::Token(made.id.parse().unwrap()),
        name: String::from("script"),
        role: String::from("operator"),
    };
    let answer = cluster
        .service
        .who_am_i(by(caller, v1::WhoAmIRequest {}))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().expires, "2026-11-21T12:00:00Z");
}
