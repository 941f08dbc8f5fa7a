//! What a refusal is to the caller, and which is asked again.

use tresor_proto::v1::*;

use super::common::{Ran, Site};
use super::here::Here;

#[test]
fn a_change_is_repeated_under_its_key_until_somebody_can_make_it() {
    let here = Here::new();
    here.refuse::<RemovePolicyRequest, Empty>("retry", "", "no leader is elected yet");
    here.refuse::<RemovePolicyRequest, Empty>("retry", "", "no leader is elected yet");
    here.on::<RemovePolicyRequest, _>(Empty {});
    here.json(&["policy", "remove", "daily"]);
    let asked = here.coordinator.script.asked::<RemovePolicyRequest>();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].1.idempotency_key.len(), 16);
    assert!(asked.iter().all(|(_, request)| *request == asked[0].1));

    here.json(&["policy", "remove", "daily"]);
    let again = here.coordinator.script.asked::<RemovePolicyRequest>();
    assert_ne!(
        again[3].1.idempotency_key, again[0].1.idempotency_key,
        "another call of the program is another change"
    );
}

#[test]
fn patience_with_a_cluster_ends_with_7() {
    let here = Here::new();
    here.refuse::<GetStatusRequest, StatusReport>("retry", "", "no leader is elected yet");
    let ran = here.run(&["status", "--json"]);
    assert_eq!(ran.code, 7, "{ran}");
    assert_eq!(ran.value()["error"]["kind"], "retry", "{ran}");
    assert!(ran.stderr.contains("no leader is elected yet"), "{ran}");
    assert!(here.coordinator.script.asked::<GetStatusRequest>().len() > 2);

    let site = Site::new();
    let nobody = format!("unix:{}", site.text("nobody"));
    let mut command = site.command(&["--cluster", &nobody, "job", "list", "--json"]);
    let ran = Ran::new(&[], command.env("TRESOR_CLUSTER_PATIENCE", "0s").output().unwrap());
    assert_eq!(ran.code, 7, "{ran}");
}

#[test]
fn refusals_end_with_the_code_of_their_kind_and_are_not_repeated() {
    for (kind, field, code, word) in [
        ("missing", "name", 4, "missing"),
        ("denied", "", 5, "denied"),
        ("fenced", "version", 6, "fenced"),
        ("full", "", 8, "full"),
        ("corrupt", "", 3, "corrupt"),
        ("invalid", "spec.schedule", 2, "usage"),
        ("invalid", "", 1, "invalid"),
        ("bug", "", 1, "bug"),
    ] {
        let here = Here::new();
        here.refuse::<GetPolicyRequest, Policy>(kind, field, "it cannot be");
        let ran = here.run(&["policy", "show", "daily", "--json"]);
        assert_eq!(ran.code, code, "{kind}: {ran}");
        assert_eq!(ran.value()["error"]["kind"], word, "{ran}");
        assert!(ran.stderr.contains("it cannot be"), "{ran}");
        assert_eq!(here.coordinator.script.asked::<GetPolicyRequest>().len(), 1);
    }
}

#[test]
fn the_hint_of_the_cluster_is_the_one_that_is_shown() {
    let here = Here::new();
    let info = ErrorInfo {
        kind: String::from("invalid"),
        hint: String::from("tresor item unprotect web-03 first"),
        ..Default::default()
    };
    here.coordinator
        .script
        .answer::<RemoveVaultRequest, Empty>(Err(info.into_status("vault main has items")));
    let ran = here.run(&["vault", "remove", "main"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("hint: tresor item unprotect web-03 first"), "{ran}");
    assert_eq!(ran.stderr.matches("hint: ").count(), 1, "{ran}");
}
