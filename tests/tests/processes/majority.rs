//! Two of three coordinators are killed: nothing is acknowledged and nothing old is answered; when they are back everything goes on.

use super::cluster::Cluster;
use super::program::{until, until_just_now};

/// More than two packs: the first is put while the rest is read.
const DISK: usize = 72 << 20;
/// What a cluster that does not answer ends a command with.
const UNANSWERED: i32 = 7;

#[test]
fn kill_of_two_of_three_coordinators_stops_every_answer_and_loses_nothing() {
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.make_vault();
    let names = ["c1", "c2", "c3"];
    cluster.make_policy(&names, "before").unwrap();
    let bytes = cluster.fill("web", 1, DISK);
    let before = cluster.packs();
    let job = cluster.begin_backup("web");
    until_just_now("a pack is put", || (cluster.packs() > before).then_some(()));
    cluster.pause_workers();
    assert!(cluster.manifests().is_empty(), "the stage is over already");

    // The leader is one of them: who is left never led.
    let leader = cluster.leader();
    let others = cluster.coordinators_but(&leader);
    cluster.kill(&leader);
    cluster.kill(&others[0]);
    cluster.resume_workers();
    let patience = [("TRESOR_CLUSTER_PATIENCE", "3s")];
    for args in [
        &["policy", "create", "meanwhile", "--retention", "last 3", "--yes"][..],
        &["policy", "list"],
        &["backup", "--item", "web", "--detach"],
    ] {
        let ran = cluster.run(args, &patience);
        assert_eq!(ran.code, UNANSWERED, "{ran}");
    }
    // The worker goes on storing: the epoch protects it, and nobody can take its lease away.
    until("the manifest is put", || {
        (!cluster.manifests().is_empty()).then_some(())
    });
    let ran = cluster.run(&["job", "show", &job.to_string()], &patience);
    assert_eq!(ran.code, UNANSWERED, "{ran}");

    cluster.restart(&leader);
    cluster.restart(&others[0]);
    let done = cluster.job_is(job, "done");
    assert_eq!(done.attempts.len(), 1, "{:?}", done.attempts);
    cluster.settle();
    let policies = cluster.policies(&names).unwrap();
    assert!(policies.contains("before"), "{policies:?}");
    assert!(
        !policies.contains("meanwhile"),
        "who was left could not have written it: {policies:?}"
    );
    assert_eq!(cluster.points().into_iter().collect::<Vec<_>>(), [done.point]);
    assert_eq!(cluster.manifests(), cluster.points());
    cluster.assert_restores("web", "w1", &bytes);

    // A leader that is left alone steps down, though it could write to its own log.
    let leader = cluster.leader();
    for other in cluster.coordinators_but(&leader) {
        cluster.kill(&other);
    }
    for args in [
        &["policy", "create", "alone", "--retention", "last 3", "--yes"][..],
        &["policy", "list"],
    ] {
        let ran = cluster.run(args, &patience);
        assert_eq!(ran.code, UNANSWERED, "{ran}");
    }
    for other in cluster.coordinators_but(&leader) {
        cluster.restart(&other);
    }
    cluster
        .make_policy(&names, "after")
        .or_else(|_| {
            cluster.leader();
            cluster.make_policy(&names, "after")
        })
        .unwrap();
    let policies = cluster.policies(&names).unwrap();
    assert!(
        policies.contains("before") && policies.contains("after"),
        "{policies:?}"
    );
    cluster.assert_replicas_agree();
}
