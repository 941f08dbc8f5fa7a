//! Channels as they are asked for: nothing secret comes back, and what is wrong is named.

use super::*;

const URL: &str = "https://hooks.example.org:8443/services/T0PSECRET/path?token=hidden";

fn webhook(number: u8, name: &str) -> v1::AddChannelRequest {
    v1::AddChannelRequest {
        idempotency_key: key(number),
        name: name.to_owned(),
        kind: String::from("webhook"),
        url: URL.to_owned(),
        secret: String::from("signing-key\n"),
        ..v1::AddChannelRequest::default()
    }
}

fn mail(number: u8) -> v1::AddChannelRequest {
    v1::AddChannelRequest {
        idempotency_key: key(number),
        name: String::from("night"),
        kind: String::from("email"),
        to: vec![String::from("ops@example.org")],
        smtp: String::from("smtps://tresor%40example.org@mail.example.org"),
        secret: String::from("s3cret-password"),
        on: vec![String::from("failure")],
        vaults: vec![String::from("main")],
        digest: String::from("07:00"),
        ..v1::AddChannelRequest::default()
    }
}

#[tokio::test]
async fn a_channel_is_made_once_and_listed_without_what_is_secret() {
    let cluster = Cluster::start();
    let made = call!(cluster, add_channel, webhook(1, "ops")).unwrap();
    assert_eq!(call!(cluster, add_channel, webhook(1, "ops")).unwrap(), made);
    refused(call!(cluster, add_channel, webhook(2, "ops")), "fenced");
    assert_eq!(made.target, "https://hooks.example.org:8443");
    assert_eq!(made.on, ["failure", "recovery", "late", "finding"]);
    assert!(made.has_secret);
    let night = call!(cluster, add_channel, mail(3)).unwrap();
    assert_eq!(
        (night.digest.as_str(), night.zone.as_str()),
        ("daily 07:00", "Europe/Berlin")
    );
    assert_eq!(
        (night.on, night.vaults),
        (
            vec![String::from("failure"), String::from("digest")],
            vec![String::from("main")]
        )
    );
    assert_eq!(night.from, "tresor@example.org", "the server's user is an address");
    let listed = call!(cluster, list_channels, v1::ListChannelsRequest {}).unwrap();
    assert_eq!(listed.channels.len(), 2);
    let everything = format!("{listed:?} {:?}", cluster.node.entries());
    for hidden in ["T0PSECRET", "hidden", "signing-key", "s3cret"] {
        assert!(!everything.contains(hidden), "{hidden}");
    }
    let remove = |number: u8| v1::RemoveChannelRequest {
        idempotency_key: key(number),
        name: String::from("ops"),
    };
    call!(cluster, remove_channel, remove(4)).unwrap();
    call!(cluster, remove_channel, remove(4)).unwrap();
    refused(call!(cluster, remove_channel, remove(5)), "missing");
}

#[tokio::test]
async fn what_is_wrong_with_a_channel_is_named_and_not_repeated() {
    let cluster = Cluster::start();
    let wrong = |change: fn(&mut v1::AddChannelRequest)| {
        let mut request = webhook(9, "ops");
        change(&mut request);
        request
    };
    let wrong_mail = |change: fn(&mut v1::AddChannelRequest)| {
        let mut request = mail(9);
        change(&mut request);
        request
    };
    for (request, field) in [
        (wrong(|r| r.name = String::from("-")), "name"),
        (wrong(|r| r.kind = String::from("pigeon")), "kind"),
        (wrong(|r| r.url = String::from("ftp://T0PSECRET")), "url"),
        (wrong(|r| r.url = String::from("T0PSECRET")), "url"),
        (wrong(|r| r.kind = String::from("slack")), "secret"),
        (wrong(|r| r.on = vec![String::from("everything")]), "on"),
        (wrong(|r| r.on = vec![String::from("digest")]), "digest"),
        (wrong(|r| r.digest = String::from("sometimes")), "digest"),
        (wrong(|r| r.zone = String::from("UTC")), "zone"),
        (wrong(|r| r.to = vec![String::from("a@b.c")]), "kind"),
        (wrong_mail(|r| r.zone = String::from("Atlantis")), "zone"),
        (wrong_mail(|r| r.to.clear()), "email"),
        (wrong_mail(|r| r.to = vec![String::from("nobody")]), "email"),
        (
            wrong_mail(|r| r.smtp = String::from("smtps://u:T0PSECRET@mail")),
            "smtp",
        ),
        (wrong_mail(|r| r.secret.clear()), "secret"),
        (wrong_mail(|r| r.smtp = String::from("smtp+plain://mail")), "secret"),
    ] {
        let shown = format!("{:?}", request.kind);
        let answer = call!(cluster, add_channel, request);
        let said = format!("{answer:?}");
        refused_for(answer, field);
        assert!(!said.contains("T0PSECRET"), "{shown}: {said}");
    }
    let mut nowhere = webhook(9, "ops");
    nowhere.vaults = vec![String::from("nowhere")];
    refused(call!(cluster, add_channel, nowhere), "missing");
}

#[tokio::test]
async fn a_test_says_what_the_other_side_answered() {
    let cluster = Cluster::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/hooks/good", axum::routing::post(|| async { "thank you" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    for (number, path, taken, answer) in [
        (1, "good", true, "HTTP 200 OK: thank you"),
        (2, "elsewhere", false, "HTTP 404 Not Found"),
    ] {
        let mut request = webhook(number, path);
        request.url = format!("http://{address}/hooks/{path}");
        call!(cluster, add_channel, request).unwrap();
        let test = v1::TestChannelRequest { name: path.to_owned() };
        let tested = call!(cluster, test_channel, test).unwrap();
        assert_eq!((tested.taken, tested.answer.as_str()), (taken, answer));
    }
    let nobody = v1::TestChannelRequest {
        name: String::from("nobody"),
    };
    refused(call!(cluster, test_channel, nobody), "missing");
}
