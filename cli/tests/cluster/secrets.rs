//! What is secret: tokens, keys, the state of a cluster.

use std::os::unix::fs::PermissionsExt as _;

use tonic::Status;
use tresor_proto::v1::*;

use super::admin::{Pieces, refused};
use super::common::{files, noise};
use super::here::Here;

const SECRET: &str = "tresor_join_0123_hunter2hunter2";

#[test]
fn a_new_token_is_on_standard_output_once_and_nowhere_else() {
    let here = Here::new();
    let token = NewToken {
        id: "ab".repeat(16),
        token: String::from(SECRET),
        expires: String::from("2026-03-15T12:00:00Z"),
    };
    here.on::<CreateJoinTokenRequest, _>(token.clone());
    here.on::<CreateApiTokenRequest, _>(token);
    let join = &["cluster", "join-token", "create", "--role", "worker", "--uses", "3"][..];
    let api = &[
        "cluster",
        "api-token",
        "create",
        "--name",
        "grafana",
        "--role",
        "read-only",
        "--valid",
        "90d",
    ][..];
    for args in [join, api] {
        let ran = here.run(&[args, &["-vvv"]].concat());
        assert_eq!((ran.code, ran.stdout.trim()), (0, SECRET), "{ran}");
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
        assert!(ran.stderr.contains("shown this once"), "{ran}");
        let ran = here.run(&[args, &["--json", "-vvv"]].concat());
        assert_eq!(ran.value()["token"], SECRET, "{ran}");
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
    }
    let join = here.coordinator.script.asked::<CreateJoinTokenRequest>().remove(0).1;
    assert_eq!(
        (join.role.as_str(), join.valid.as_str(), join.uses),
        ("worker", "5d", 3)
    );
    let api = here.coordinator.script.asked::<CreateApiTokenRequest>().remove(0).1;
    assert_eq!(
        (api.name.as_str(), api.role.as_str(), api.valid.as_str()),
        ("grafana", "read-only", "90d")
    );
}

#[test]
fn tokens_are_listed_by_kind_and_revoked() {
    let here = Here::new();
    let token = |id: &str, kind: &str| Token {
        id: id.to_owned(),
        kind: kind.to_owned(),
        ..Default::default()
    };
    here.on::<ListTokensRequest, _>(ListTokensResponse {
        tokens: vec![token("aa", "api"), token("bb", "join")],
        ..Default::default()
    });
    here.on::<RevokeTokenRequest, _>(Empty {});
    for (noun, id) in [("api-token", "aa"), ("join-token", "bb")] {
        let shown = here.json(&["cluster", noun, "list"]);
        let tokens = shown["tokens"].as_array().unwrap();
        assert_eq!((tokens.len(), &tokens[0]["id"]), (1, &serde_json::json!(id)));
    }
    here.json(&["cluster", "api-token", "revoke", "aa"]);
    assert_eq!(here.only::<RevokeTokenRequest>().id, "aa");
}

#[test]
fn a_cluster_takes_a_vault_over_with_a_key_file_and_with_nothing_else() {
    let here = Here::new();
    let image = here.site.file("web.img", noise(1, 50_000));
    here.site.json(&["backup", &image]);
    let key = files(&here.site.path("home/keys")).remove(0);
    let key_path = key.to_str().unwrap();
    here.on::<CreateVaultRequest, _>(Job {
        state: String::from("done"),
        ..Default::default()
    });
    here.on::<GetVaultRequest, _>(Vault {
        name: String::from("main"),
        ..Default::default()
    });
    let take_over = ["vault", "take-over", "main", "--store", "s3://b/main"];
    let ran = here.run(&take_over);
    assert!(ran.code == 2 && ran.stderr.contains("--key-file"), "{ran}");
    let ran = here.run(&[&take_over[..], &["--key-file", &image]].concat());
    assert_ne!(ran.code, 0, "{ran}");
    assert!(
        here.coordinator.script.asked::<CreateVaultRequest>().is_empty(),
        "another file left this machine"
    );
    let ran = here.run(&[&take_over[..], &["--key-file", key_path, "-vvv"]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let request = here.only::<CreateVaultRequest>();
    assert_eq!((request.url.as_str(), request.take_over), ("s3://b/main", true));
    assert_eq!(request.key_file, std::fs::read(&key).unwrap());
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{ran}");
}

#[test]
fn a_vault_is_made_by_the_cluster_in_a_store_that_was_named() {
    let here = Here::new();
    here.on::<CreateVaultRequest, _>(Job {
        state: String::from("done"),
        ..Default::default()
    });
    here.on::<GetVaultRequest, _>(Vault {
        name: String::from("two"),
        ..Default::default()
    });
    here.on::<RemoveVaultRequest, _>(Empty {});
    assert_eq!(here.run(&["vault", "create", "two"]).code, 2);
    let args = [
        "vault",
        "create",
        "two",
        "--store",
        "s3://b/two",
        "--region",
        "eu",
        "--profile",
        "grain-64k",
    ];
    assert_eq!(here.json(&args)["vault"], "two");
    let request = here.only::<CreateVaultRequest>();
    assert_eq!(
        (
            request.name.as_str(),
            request.url.as_str(),
            request.region.as_str(),
            request.profile.as_str(),
            request.take_over
        ),
        ("two", "s3://b/two", "eu", "grain-64k", false)
    );
    let named = |name: &str| Vault {
        name: name.to_owned(),
        ..Default::default()
    };
    let vaults = |vaults: Vec<Vault>| ListVaultsResponse {
        vaults,
        ..Default::default()
    };
    here.on::<ListVaultsRequest, _>(vaults(vec![named("one"), named("two")]));
    here.on::<ListVaultsRequest, _>(vaults(vec![named("two")]));
    assert_eq!(here.run(&["vault", "show"]).code, 2, "two may be meant");
    assert_eq!(here.json(&["vault", "show"])["vault"], "two");
    assert_eq!(here.coordinator.script.asked::<GetVaultRequest>()[1].1.name, "two");
    here.json(&["vault", "remove", "two"]);
    assert_eq!(here.only::<RemoveVaultRequest>().name, "two");
    assert_eq!(here.json(&["vault", "show", "two"])["vault"], "two");
    assert!(
        !here.site.path("home").exists(),
        "a cluster's vault left something in this home"
    );
}

fn piece(bytes: &'static [u8]) -> Result<BackupPiece, Status> {
    Ok(BackupPiece { bytes: bytes.into() })
}

#[test]
fn the_state_of_a_cluster_goes_to_a_new_file_of_its_owner_or_to_none() {
    let here = Here::new();
    let path = here.site.text("state");
    let broken: Pieces<BackupPiece> = vec![piece(b"half"), Err(refused("retry", "", "this coordinator stops"))];
    here.on::<BackupClusterRequest, Pieces<BackupPiece>>(broken);
    let ran = here.run(&["cluster", "backup", &path]);
    assert_eq!(ran.code, 7, "{ran}");
    assert!(!here.site.path("state").exists() && !here.site.path("state.part").exists());

    let here = Here::new();
    let path = here.site.text("state");
    here.on::<BackupClusterRequest, Pieces<BackupPiece>>(vec![piece(b"sealed "), piece(b"state")]);
    assert_eq!(here.json(&["cluster", "backup", &path])["bytes"], 12);
    assert_eq!(std::fs::read(&path).unwrap(), b"sealed state");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!here.site.path("state.part").exists());

    let ran = here.run(&["cluster", "backup", &path]);
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(
        here.coordinator.script.asked::<BackupClusterRequest>().len(),
        1,
        "what is there is not replaced"
    );
}
