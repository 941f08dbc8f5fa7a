use super::*;
use crate::rpc::admin::key_file::tests::text;
use crate::security::{Purpose, Wrapped};
use crate::state::command::{Command, VaultOrigin};
use tresor_proto::ids::VaultId;

fn create(number: u8) -> v1::CreateVaultRequest {
    v1::CreateVaultRequest {
        idempotency_key: key(number),
        name: String::from("archive"),
        url: String::from("s3://bucket/archive/"),
        region: String::from("eu-1"),
        ..v1::CreateVaultRequest::default()
    }
}

#[tokio::test]
async fn a_vault_is_entered_with_a_wrapped_key_and_a_job_that_makes_it() {
    let cluster = Cluster::start();
    let job = call!(cluster, create_vault, create(1)).unwrap();
    assert_eq!(
        (job.kind.as_str(), job.vault.as_str(), job.state.as_str()),
        ("claim", "archive", "queued")
    );
    let shown = call!(
        cluster,
        get_vault,
        v1::GetVaultRequest {
            name: String::from("archive")
        }
    )
    .unwrap();
    assert_eq!(
        (shown.url.as_str(), shown.state.as_str()),
        ("s3://bucket/archive", "being made")
    );
    let (id, spec) = cluster.node.read(|state| {
        let id = state.vault_named("archive").unwrap();
        (id, state.vaults().get(&id).unwrap().spec.clone())
    });
    assert_eq!(spec.origin, VaultOrigin::Make);
    let wrapped: Wrapped = postcard::from_bytes(&spec.key).unwrap();
    let secret = ClusterKey::from_bytes(&[5; 32])
        .unwrap(Purpose::VaultKey(id), &wrapped)
        .unwrap();
    assert_eq!(secret.len(), 32);
    assert!(secret.iter().any(|byte| *byte != 0));
}

#[tokio::test]
async fn a_vault_is_entered_once_for_a_key() {
    let cluster = Cluster::start();
    let first = call!(cluster, create_vault, create(1)).unwrap();
    assert_eq!(call!(cluster, create_vault, create(1)).unwrap(), first);
    let again = refused(call!(cluster, create_vault, create(2)), "fenced");
    assert_eq!(again.message(), "vault archive is there already");
    // A refusal lasts as long as its cause.
    assert_eq!(
        refused(call!(cluster, create_vault, create(2)), "fenced").message(),
        again.message()
    );
    assert_eq!(cluster.node.read(|state| state.vaults().len()), 2);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_had_by_asking_again() {
    let cluster = Cluster::start();
    cluster.node.lose_next_answer();
    refused(call!(cluster, create_vault, create(1)), "retry");
    let job = call!(cluster, create_vault, create(1)).unwrap();
    assert_eq!(job.vault, "archive");
    assert_eq!(cluster.node.read(|state| state.vaults().len()), 2);
}

#[tokio::test]
async fn a_key_counts_for_one_kind_of_change() {
    let cluster = Cluster::start();
    call!(cluster, create_vault, create(1)).unwrap();
    let other = v1::RemoveVaultRequest {
        idempotency_key: key(1),
        name: String::from("main"),
    };
    call!(cluster, remove_vault, other).unwrap();
    assert!(cluster.node.read(|state| state.vault_named("main").is_none()));
}

#[tokio::test]
async fn a_vault_is_taken_over_with_its_key_file() {
    let cluster = Cluster::start();
    let vault = VaultId([0x33; 16]);
    let take_over = |number, key_file: &str| v1::CreateVaultRequest {
        take_over: true,
        key_file: key_file.as_bytes().to_vec().into(),
        ..create(number)
    };
    let file = text(vault, [0xcd; 32]);
    refused_for(call!(cluster, create_vault, take_over(1, "")), "key_file");
    refused_for(
        call!(cluster, create_vault, take_over(1, &file.replace("cd", "ce"))),
        "key_file",
    );
    let both = v1::CreateVaultRequest {
        profile: String::from("grain-64k"),
        ..take_over(1, &file)
    };
    refused_for(call!(cluster, create_vault, both), "profile");
    call!(cluster, create_vault, take_over(1, &file)).unwrap();
    let spec = cluster
        .node
        .read(|state| state.vaults().get(&vault).unwrap().spec.clone());
    assert_eq!(spec.origin, VaultOrigin::TakeOver);
    let wrapped: Wrapped = postcard::from_bytes(&spec.key).unwrap();
    let secret = ClusterKey::from_bytes(&[5; 32]).unwrap(Purpose::VaultKey(vault), &wrapped);
    assert_eq!(*secret.unwrap(), [0xcd; 32]);
    let logged = cluster.node.entries().iter().any(|entry| {
        let bytes = entry.encode();
        bytes.windows(8).any(|part| part == [0xcd; 8])
    });
    assert!(!logged, "no key is in the log in the clear");
}

#[tokio::test]
async fn a_vault_that_was_just_made_is_entered_with_its_key_file_under_its_makers_claim() {
    let cluster = Cluster::start();
    let vault = VaultId([0x34; 16]);
    let made = |file: &str| v1::CreateVaultRequest {
        key_file: file.as_bytes().to_vec().into(),
        ..create(1)
    };
    let file = text(vault, [0xab; 32]);
    refused_for(
        call!(cluster, create_vault, made(&file.replace("ab", "ac"))),
        "key_file",
    );
    call!(cluster, create_vault, made(&file)).unwrap();
    let spec = cluster
        .node
        .read(|state| state.vaults().get(&vault).unwrap().spec.clone());
    assert_eq!(
        spec.origin,
        VaultOrigin::Make,
        "its claim is looked for, and none is put above it"
    );
    let wrapped: Wrapped = postcard::from_bytes(&spec.key).unwrap();
    let secret = ClusterKey::from_bytes(&[5; 32]).unwrap(Purpose::VaultKey(vault), &wrapped);
    assert_eq!(*secret.unwrap(), [0xab; 32]);
}

#[tokio::test]
async fn what_is_wrong_with_a_vault_is_named() {
    let cluster = Cluster::start();
    let with = |change: &dyn Fn(&mut v1::CreateVaultRequest)| {
        let mut message = create(1);
        change(&mut message);
        message
    };
    refused_for(
        call!(cluster, create_vault, with(&|m| m.idempotency_key = key(1).slice(..5))),
        "idempotency_key",
    );
    refused_for(
        call!(cluster, create_vault, with(&|m| m.url = String::from("bucket"))),
        "url",
    );
    refused_for(
        call!(cluster, create_vault, with(&|m| m.profile = String::from("huge"))),
        "profile",
    );
    refused_for(
        call!(cluster, create_vault, with(&|m| m.region = "x".repeat(100))),
        "region",
    );
    refused_for(
        call!(cluster, create_vault, with(&|m| m.name = String::from("1"))),
        "name",
    );
    let taken = call!(
        cluster,
        create_vault,
        v1::CreateVaultRequest {
            url: String::from("file:///srv/main"),
            ..create(9)
        }
    );
    assert!(refused(taken, "fenced").message().contains("at file:///srv/main"));
}

#[tokio::test]
async fn vaults_come_by_name_in_pages() {
    let mut cluster = Cluster::start();
    for (n, name) in ["zeta", "alpha", "beta"].into_iter().enumerate() {
        cluster.node.adds_vault(VaultId([n as u8; 16]), name);
    }
    let list = |page_token: String| v1::ListVaultsRequest {
        page_size: 2,
        page_token,
    };
    let first = call!(cluster, list_vaults, list(String::new())).unwrap();
    // Comes before the place where the list goes on, and between.
    cluster.node.adds_vault(VaultId([8; 16]), "aaaa");
    cluster.node.adds_vault(VaultId([9; 16]), "gamma");
    let second = call!(cluster, list_vaults, list(first.next_page_token)).unwrap();
    let third = call!(cluster, list_vaults, list(second.next_page_token)).unwrap();
    assert_eq!(third.next_page_token, "");
    let names = |vaults: &[v1::Vault]| vaults.iter().map(|vault| vault.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first.vaults), ["alpha", "beta"]);
    assert_eq!(names(&second.vaults), ["gamma", "main"]);
    assert_eq!(names(&third.vaults), ["zeta"]);
    refused_for(
        call!(cluster, list_vaults, list(String::from("nonsense"))),
        "page_token",
    );
}

#[tokio::test]
async fn a_vault_that_protects_items_is_not_forgotten() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let remove = |number| v1::RemoveVaultRequest {
        idempotency_key: key(number),
        name: String::from("main"),
    };
    let status = refused(call!(cluster, remove_vault, remove(1)), "fenced");
    assert!(status.message().contains("protects 1 items"));
    cluster.node.does(Command::Unprotect { item: web });
    call!(cluster, remove_vault, remove(2)).unwrap();
    call!(cluster, remove_vault, remove(2)).unwrap();
    refused(call!(cluster, remove_vault, remove(3)), "missing");
    refused(
        call!(
            cluster,
            get_vault,
            v1::GetVaultRequest {
                name: String::from("main")
            }
        ),
        "missing",
    );
}
