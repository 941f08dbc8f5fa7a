//! What is left when coordinators are lost: a backup of the state, the folder of one of them, the catalogues of vaults.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod in_process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tonic::Code;
use tresor_coordinator::process::{Folder, Refounding, Remains, key_of_vault, load_cluster_key, refound};
use tresor_proto::v1;
use tresor_storage::ids::VaultId;
use tresor_storage::keys::{Key, KeyError, Unlock};
use tresor_worker::agent::Membership;
use tresor_worker::control::catalog::read_newest_of_coordinators;
use tresor_worker::home::{Place, StoreConfigs, UnlockSource, open_for_reading};
use zeroize::Zeroizing;

use in_process::{Cluster, PATIENCE, disk, free_address, key};

/// Founds the cluster again beside the lost one, and serves it.
async fn again(root: &Arc<tempfile::TempDir>, name: &str, remains: Remains) -> Cluster {
    let address = free_address();
    let folder = Folder::new(root.path().join(name));
    let refounding = Refounding {
        cluster: None,
        name: String::from("c9"),
        address: address.clone(),
    };
    let founded = refound(&folder, remains, refounding).unwrap();
    assert_eq!((founded.vaults, founded.name.as_str()), (1, "test"));
    Cluster::serve(Arc::clone(root), folder, address, founded.fingerprint, founded.admin).await
}

async fn backup_of(cluster: &Cluster, path: &Path) {
    let request = cluster.ask(v1::BackupClusterRequest {});
    let mut pieces = cluster
        .admin
        .clone()
        .backup_cluster(request)
        .await
        .unwrap()
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.bytes);
    }
    std::fs::write(path, bytes).unwrap();
}

async fn points(cluster: &Cluster) -> Vec<v1::Point> {
    let request = cluster.ask(v1::ListPointsRequest {
        item: String::from("web"),
        ..Default::default()
    });
    let listed = cluster.admin.clone().list_points(request).await.unwrap();
    listed.into_inner().points
}

async fn vault(cluster: &Cluster) -> v1::Vault {
    let request = cluster.ask(v1::GetVaultRequest {
        name: String::from("main"),
    });
    cluster.admin.clone().get_vault(request).await.unwrap().into_inner()
}

async fn ready(cluster: &Cluster) -> v1::Vault {
    let begin = Instant::now();
    loop {
        let now = vault(cluster).await;
        if now.state == "ready" {
            return now;
        }
        assert!(begin.elapsed() < PATIENCE, "{now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn hold(cluster: &Cluster, point: &str) {
    let request = v1::HoldPointRequest {
        idempotency_key: key(),
        name: point.to_owned(),
        reason: String::from("for the auditors"),
    };
    cluster.admin.clone().hold_point(cluster.ask(request)).await.unwrap();
}

/// A policy that never comes due by itself, and the item `web` under it.
async fn protect(cluster: &Cluster, disk: &Path) {
    let request = v1::CreatePolicyRequest {
        idempotency_key: key(),
        spec: Some(v1::PolicySpec {
            name: String::from("forever"),
            retention: String::from("last 9"),
            ..Default::default()
        }),
    };
    cluster.admin.clone().create_policy(cluster.ask(request)).await.unwrap();
    let request = v1::ProtectItemRequest {
        idempotency_key: key(),
        spec: Some(v1::ItemSpec {
            name: String::from("web"),
            vault: String::from("main"),
            policy: String::from("forever"),
            host: String::from("w1"),
            disks: vec![v1::AdminDisk {
                name: String::from("vda"),
                path: disk.display().to_string(),
                format: String::new(),
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    cluster.admin.clone().protect_item(cluster.ask(request)).await.unwrap();
}

async fn policy_of_web(cluster: &Cluster) -> String {
    let request = cluster.ask(v1::GetItemRequest {
        name: String::from("web"),
        ..Default::default()
    });
    let item = cluster.admin.clone().get_item(request).await.unwrap().into_inner();
    assert!(item.protected);
    item.spec.unwrap().policy
}

/// Waits until the vault has a catalogue: of a vault that was just claimed, the first is put at once.
async fn catalogued(cluster: &Cluster) {
    let begin = Instant::now();
    while vault(cluster).await.catalogue_at.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "no catalogue");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Opens vaults with a copy of the cluster key.
struct ClusterKeys(PathBuf);

impl UnlockSource for ClusterKeys {
    fn explicit(&self, vault: VaultId) -> Result<Option<Unlock>, KeyError> {
        let key = key_of_vault(&self.0, tresor_proto::ids::VaultId(vault.0)).unwrap();
        Ok(Some(Unlock::File(Key::from_bytes(*key))))
    }

    fn passphrase(&self, _: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_founded_again_from_a_backup_has_its_points_and_the_lost_one_writes_no_more() {
    let lost = Cluster::found().await;
    let membership = lost.join("w1").await;
    let old_worker = lost.start("w1", &membership);
    lost.make_vault().await;
    let path = lost.path("web.img");
    let bytes = disk(&path);
    protect(&lost, &path).await;
    let first = lost.back_up("w1", &path).await.point;
    hold(&lost, &first).await;
    let file = lost.path("cluster.backup");
    backup_of(&lost, &file).await;
    let second = lost.back_up("w1", &path).await.point;

    // The lost cluster is not as lost as was thought: its coordinator and its worker go on.
    let remains = Remains::of_backup(&file, &lost.path("coordinator/cluster.key")).unwrap();
    let inventory = remains.inventory();
    assert_eq!((inventory.items, inventory.points), (1, 1));
    let new = again(&lost.folder, "again", remains).await;
    let before = vault(&lost).await;
    let with_old_token = lost.ask(v1::GetStatusRequest {});
    let refused = new.admin.clone().get_status(with_old_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let status = new
        .admin
        .clone()
        .get_status(new.ask(v1::GetStatusRequest {}))
        .await
        .unwrap();
    let warnings = status.into_inner().attention.join("\n");
    assert!(warnings.contains("confirm-clock"), "{warnings}");

    // A worker joins anew under its old name, and claims the vault.
    let token = new.join_token().await;
    let folder = new.path("w1-again");
    let joined = Membership::join(&folder, vec![new.address.clone()], &token, "w1")
        .await
        .unwrap();
    let new_worker = new.start("w1-again", &joined);
    let after = ready(&new).await;
    assert!(after.claim > before.claim, "{before:?} {after:?}");
    // What the backup did not know is found again; what only the backup knows is still there.
    let found = points(&new).await;
    let ids: Vec<&str> = found.iter().map(|point| point.id.as_str()).collect();
    assert!(
        ids.contains(&first.as_str()) && ids.contains(&second.as_str()),
        "{found:?}"
    );
    let held = found.iter().find(|point| point.id == first).unwrap();
    assert_eq!(held.held, "for the auditors");
    assert_eq!(policy_of_web(&new).await, "forever");

    // Nothing is read twice into the vault, and everything comes back.
    let third = new.back_up("w1", &path).await;
    assert_eq!(third.counts.unwrap().bytes_new, 0);
    let to = new.path("back.img");
    new.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);

    // The lost cluster's worker may not write any more.
    let request = v1::StartBackupRequest {
        idempotency_key: key(),
        item: String::from("web"),
        vault: String::from("main"),
        ..Default::default()
    };
    let late = lost.admin.clone().start_backup(lost.ask(request)).await.unwrap();
    let late = lost.failing(late.into_inner().id).await;
    assert_eq!(late.attempts[0].kind, "fenced", "{late:?}");

    old_worker.stop().await;
    lost.stop().await;

    // Now this one is lost too, and nothing is left but its vault and a copy of the cluster key.
    catalogued(&new).await;
    let cluster_key = new.path("cluster.key");
    std::fs::copy(new.path("again/cluster.key"), &cluster_key).unwrap();
    new_worker.stop().await;
    let folder = Arc::clone(&new.folder);
    new.stop().await;
    let url = format!("file://{}", folder.path().join("store").display());
    let keys = ClusterKeys(cluster_key.clone());
    let open = open_for_reading(None, Place::Url(&url), &keys, &StoreConfigs::default())
        .await
        .unwrap();
    let (_, state) = read_newest_of_coordinators(&open.vault).await.unwrap().unwrap();
    let words = vec![state];
    let remains = Remains::of_catalogues(&words, load_cluster_key(&cluster_key).unwrap()).unwrap();
    let inventory = remains.inventory();
    assert_eq!(
        (inventory.name.as_str(), inventory.items, inventory.policies),
        ("test", 1, 1)
    );
    let third_cluster = again(&folder, "third", remains).await;
    let token = third_cluster.join_token().await;
    let home = third_cluster.path("w1-third");
    let joined = Membership::join(&home, vec![third_cluster.address.clone()], &token, "w1")
        .await
        .unwrap();
    let worker = third_cluster.start("w1-third", &joined);
    assert!(ready(&third_cluster).await.claim > after.claim);
    // Also the third point, which may be newer than the catalogue.
    let found = points(&third_cluster).await;
    assert_eq!(found.len(), 3, "{found:?}");
    let held = found.iter().find(|point| point.id == first).unwrap();
    assert_eq!(held.held, "for the auditors");
    assert_eq!(policy_of_web(&third_cluster).await, "forever");
    let to = third_cluster.path("third.img");
    third_cluster.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    third_cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_of_one_coordinator_is_enough_for_all_that_it_knew() {
    let lost = Cluster::found().await;
    let membership = lost.join("w1").await;
    let old_worker = lost.start("w1", &membership);
    lost.make_vault().await;
    let path = lost.path("web.img");
    let bytes = disk(&path);
    let point = lost.back_up("w1", &path).await.point;
    let running = Remains::of_folder(&Folder::new(lost.path("coordinator"))).unwrap_err();
    assert!(running.to_string().contains("store"), "{running}");
    old_worker.stop().await;
    lost.stop.cancel();
    let Cluster {
        folder,
        address,
        token,
        admin,
        stop,
        serving,
    } = lost;
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    let lost = Cluster {
        folder,
        address,
        token,
        admin,
        stop,
        serving: tokio::spawn(async {}),
    };
    let remains = Remains::of_folder(&Folder::new(lost.path("coordinator"))).unwrap();
    let new = again(&lost.folder, "again", remains).await;
    // The worker's folder stays: with a token of the new cluster it leaves the lost one.
    let folder = new.path("w1");
    let there = Membership::load(&folder).unwrap().unwrap();
    let token = new.join_token().await;
    assert!(!there.is_of(&token));
    let nobody = vec![lost.address.clone()];
    let joining = Membership::join_another(&folder, nobody, &token, "w1");
    let joined = tokio::time::timeout(std::time::Duration::from_secs(2), joining).await;
    assert!(!matches!(joined, Ok(Ok(_))), "nobody is there");
    let kept = Membership::load(&folder).unwrap().unwrap();
    assert_eq!(kept.identity.current().name(), there.identity.current().name());
    let joined = Membership::join_another(&folder, vec![new.address.clone()], &token, "w1")
        .await
        .unwrap();
    assert!(joined.is_of(&token));
    let kept = Membership::load(&folder).unwrap().unwrap();
    assert!(kept.is_of(&token) && !folder.join("another").exists());
    let worker = new.start("w1", &kept);
    assert_eq!(ready(&new).await.claim, 2);
    assert_eq!(points(&new).await[0].id, point);
    let to = new.path("back.img");
    new.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    new.stop().await;
}
