//! A cluster of the version before this one becomes one of this version, a process at a time, while machines are backed up: no job fails, and what the
//! old version stored is restored by the new one.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::program::{previous_or_skipped, start_from_now_on, until};

/// More than a pack.
const DISK: usize = 40 << 20;

/// What was backed up, and what each point has to be.
#[derive(Default)]
struct Made {
    rounds: u64,
    points: BTreeMap<String, Vec<u8>>,
}

impl Made {
    /// Backs a machine up with whatever runs now.
    fn back_up(&mut self, cluster: &Cluster) {
        self.rounds += 1;
        let bytes = cluster.fill("web", self.rounds, DISK);
        let job = cluster.begin_backup("web");
        let done = cluster.job_is(job, "done");
        assert_eq!(done.attempts.len(), 1, "{:?}", done.attempts);
        self.points.insert(done.point, bytes);
    }
}

/// A leader of this version writes nothing that the others do not know, and says who has to be upgraded.
fn assert_new_things_wait_for(cluster: &Cluster, leader: &str, behind: &[String]) {
    if cluster.leader() != leader {
        cluster.verb(&["coordinator", "transfer", "--to", leader]);
        until(format!("{leader} leads"), || (cluster.leader() == leader).then_some(()));
    }
    let add = [
        "notify",
        "add",
        "ops",
        "--webhook",
        "https://hooks.example/",
        "--on",
        "late",
    ];
    let ran = cluster.run(&add, &[]);
    if behind.is_empty() {
        assert_eq!(ran.code, 0, "{ran}");
        cluster.verb(&["notify", "remove", "ops"]);
    } else {
        assert_eq!(ran.code, 6, "{ran}");
        let said = ran.to_string();
        let names = behind.join(", ");
        assert!(
            said.contains(&format!("update tresor on {names}, or start it")),
            "{said}"
        );
    }
}

#[test]
fn a_cluster_is_upgraded_one_process_at_a_time_and_no_job_fails() {
    let Some(previous) = previous_or_skipped("an upgrade from the version before this one") else {
        return;
    };
    start_from_now_on(Some(&previous));
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.add_worker("w2");
    cluster.make_vault();
    cluster.slots_are_whole();
    let mut made = Made::default();
    made.back_up(&cluster);

    let mut behind = cluster.coordinators();
    for name in cluster.coordinators() {
        let ended = cluster.terminate(&name);
        assert!(ended.success(), "{name}: {ended}");
        start_from_now_on(None);
        cluster.restart(&name);
        cluster.settle();
        behind.retain(|other| *other != name);
        assert_new_things_wait_for(&cluster, &name, &behind);
        // Whoever leads now: people have either version meanwhile.
        made.back_up(&cluster);
        start_from_now_on(Some(&previous));
        made.back_up(&cluster);
    }
    start_from_now_on(None);
    for name in cluster.workers() {
        let ended = cluster.terminate(&name);
        assert!(ended.success(), "{name}: {ended}");
        cluster.restart(&name);
        until(format!("{name} works again"), || cluster.works(&name).then_some(()));
        made.back_up(&cluster);
    }

    let jobs = cluster.verb(&["job", "list"]);
    for job in jobs["jobs"].as_array().unwrap() {
        assert_eq!(job["state"], "done", "{job}");
    }
    let expected: Vec<&String> = made.points.keys().collect();
    let points = cluster.points();
    assert_eq!(points.iter().collect::<Vec<_>>(), expected);
    for (point, bytes) in &made.points {
        cluster.assert_restores(point, "w2", bytes);
    }
    // Damage would be an exit code of its own.
    cluster.verb(&["vault", "verify", "main"]);
    cluster.assert_replicas_agree();
}
