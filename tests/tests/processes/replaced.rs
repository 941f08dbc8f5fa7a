//! Every coordinator is replaced by another one, and nobody is told where they are.

use super::cluster::Cluster;
use super::program::until;

/// What the process of a removed coordinator ends with: nobody starts it again in vain.
const REMOVED: i32 = 5;

#[test]
fn coordinators_are_replaced_one_by_one_and_workers_and_people_find_the_new_ones() {
    let mut cluster = Cluster::start(1);
    cluster.add_worker("w1");
    cluster.make_vault();
    let bytes = cluster.fill("web", 1, 1 << 20);
    let login = cluster.path("home").join("clusters").join("test").join("cluster.toml");
    let ca = cluster.path("home").join("clusters").join("test").join("ca.crt");
    let pinned = std::fs::read(&ca).unwrap();

    // The worker hears of each in its turn; it never joined through any but the first.
    let mut gone = Vec::new();
    for number in 2..=4 {
        let new = cluster.add_loopback_coordinator(number);
        let address = cluster.address(&new);
        let known = cluster.path("w1").join("cluster.json");
        until(format!("the worker knows {new}"), || {
            std::fs::read_to_string(&known)
                .unwrap()
                .contains(&address)
                .then_some(())
        });
        // Any command: the one that lists who is there was called while it joined.
        until(format!("the login knows {new}"), || {
            cluster.verb(&["coordinator", "list"]);
            std::fs::read_to_string(&login)
                .unwrap()
                .contains(&address)
                .then_some(())
        });
        let old = format!("c{}", number - 1);
        cluster.verb(&["coordinator", "transfer", "--to", &new]);
        until(format!("{new} leads"), || (cluster.leader() == new).then_some(()));
        cluster.verb(&["coordinator", "remove", &old, "--yes"]);
        let said = |log: String| log.matches("was removed from its cluster and has ended").count();
        assert_eq!(said(cluster.ends(&old, REMOVED)), 1);
        // Started again it learns it of the others or of its log, and ends again.
        cluster.restart(&old);
        assert_eq!(said(cluster.ends(&old, REMOVED)), 2);
        gone.push(cluster.address(&old));
        cluster.forget(&old);
    }
    until("the worker has forgotten who is gone", || {
        let known = std::fs::read_to_string(cluster.path("w1").join("cluster.json")).unwrap();
        gone.iter().all(|address| !known.contains(address)).then_some(())
    });

    // Both go on: the worker as a process that began long ago, and as one that was started again.
    let job = cluster.begin_backup("web");
    cluster.job_is(job, "done");
    assert!(cluster.terminate("w1").success());
    cluster.restart("w1");
    let job = cluster.begin_backup("web");
    cluster.job_is(job, "done");
    cluster.assert_restores("web", "w1", &bytes);
    assert_eq!(std::fs::read(&ca).unwrap(), pinned, "whom to trust was never changed");
}
