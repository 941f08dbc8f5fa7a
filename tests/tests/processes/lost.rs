//! All coordinators are lost, or most of them: what is left is founded again with the verbs that an operator uses, and every point is there.

use std::path::Path;

use super::cluster::Cluster;
use super::program::until;

const DISK: usize = 8 << 20;
const REASON: &str = "for the auditors";

fn backs_up(cluster: &Cluster, item: &str) -> String {
    let job = cluster.begin_backup(item);
    cluster.job_is(job, "done").point
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

/// Works as one that was never lost: a vault is written, read back, and written again.
fn works_on(cluster: &Cluster, bytes: &[u8]) {
    cluster.assert_restores("web", "w1", bytes);
    let job = cluster.begin_backup("web");
    let done = cluster.job_is(job, "done");
    assert_eq!(
        done.attempts.len(),
        1,
        "the first backup does not fail: {:?}",
        done.attempts
    );
    cluster.assert_restores("web", "w1", bytes);
}

/// Waits until the vault has a catalogue of this cluster: a vault that was just claimed gets one at once.
fn is_catalogued(cluster: &Cluster) {
    until("a catalogue is put", || {
        let shown = cluster.verb(&["vault", "show", "main"]);
        shown["catalogue_at"].is_string().then_some(())
    });
}

/// Lets the worker of the lost cluster work for the one that was founded again.
fn moves_over(cluster: &mut Cluster) {
    cluster.join_anew("w1");
    cluster.vault_is_ready("main");
}

fn assert_held(cluster: &Cluster, point: &str) {
    let shown = cluster.verb(&["point", "show", point]);
    assert!(shown.to_string().contains(REASON), "{shown}");
    let ran = cluster.run(&["point", "remove", point, "--yes"], &[]);
    assert_ne!(ran.code, 0, "a held point is not removed: {ran}");
}

#[test]
fn a_cluster_is_lost_three_times_and_founded_again_from_a_folder_from_its_backup_and_from_its_store() {
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.make_vault();
    cluster.fill("web", 1, DISK);
    let first = backs_up(&cluster, "web");
    let (file, key) = (cluster.text("backup"), cluster.text("copy.key"));
    let url = format!("file://{}", cluster.text("store"));
    cluster.verb(&["cluster", "backup", &file]);
    copy(&cluster.path("c1").join("cluster.key"), Path::new(&key));
    // After the backup: a hold, and a point.
    cluster.verb(&["point", "hold", &first, "--reason", REASON]);
    let bytes = cluster.fill("web", 2, DISK);
    let second = backs_up(&cluster, "web");
    cluster.settle();

    // The majority does not come back; one folder is left.
    let leader = cluster.leader();
    let left = cluster.coordinators_but(&leader).remove(0);
    for name in cluster.coordinators() {
        cluster.kill(&name);
    }
    assert!(cluster.terminate("w1").success());
    let folder = cluster.text(&left);
    let said = cluster.begin_again(&["recover", &folder, "--accept-loss"], "d1", 1);
    assert_eq!(
        (&said["points"], &said["is_whole"]),
        (&2.into(), &true.into()),
        "{said}"
    );
    moves_over(&mut cluster);
    assert_held(&cluster, &first);
    works_on(&cluster, &bytes);
    is_catalogued(&cluster);

    // Nothing is left but the backup of the first cluster, which knows neither the hold nor two of the points.
    assert!(cluster.terminate("w1").success());
    let said = cluster.begin_again(&["restore", &file, "--cluster-key", &key, "--yes"], "d2", 2);
    assert_eq!(
        (&said["points"], &said["is_whole"]),
        (&1.into(), &true.into()),
        "{said}"
    );
    moves_over(&mut cluster);
    let points = cluster.points();
    assert!(
        points.contains(&first) && points.contains(&second) && points.len() == 3,
        "{points:?}"
    );
    assert_held(&cluster, &first);
    let trail = cluster.verb(&["audit", "list"]).to_string();
    assert!(trail.contains("hold"), "{trail}");
    works_on(&cluster, &bytes);
    is_catalogued(&cluster);

    // Without any coordinator: the key of the one vault reads it.
    assert!(cluster.terminate("w1").success());
    let (vault_key, target) = (cluster.text("main.key"), cluster.text("alone.img"));
    let written = cluster.alone(&[
        "cluster",
        "vault-key",
        "--store",
        &url,
        "--cluster-key",
        &key,
        &vault_key,
    ]);
    assert_eq!(written["file"], vault_key.as_str());
    cluster.alone(&[
        "restore",
        "web",
        "--to",
        &target,
        "--store",
        &url,
        "--key-file",
        &vault_key,
    ]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    let shown = cluster.alone(&["point", "show", &first, "--store", &url, "--key-file", &vault_key]);
    assert!(shown.to_string().contains(REASON), "{shown}");

    // Nothing is left but the store.
    let from = ["restore", "--from-store", &url, "--cluster-key", &key, "--yes"];
    let said = cluster.begin_again(&from, "d3", 3);
    assert_eq!(
        (&said["cluster"], &said["items"]),
        (&"test".into(), &1.into()),
        "{said}"
    );
    moves_over(&mut cluster);
    assert_eq!(cluster.points().len(), 4);
    assert_held(&cluster, &first);
    works_on(&cluster, &bytes);
}
