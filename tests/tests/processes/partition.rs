//! A leader whose link is cut, in network namespaces of the test's own: it answers nothing and takes nothing until the link is back.
//!
//! Each coordinator is a machine of a [`Network`], and the test itself sits at its switch.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonic::{Request, Status};
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;

use super::cluster::Cluster;
use super::network::{Network, enter};
use super::watch::{policy_names, policy_request};

/// Longest that a call of the client beside the leader takes.
const CALL: Duration = Duration::from_millis(700);
/// How long the link is cut after others have elected a leader: the old one has long noticed by then.
const CUT: Duration = Duration::from_secs(4);

/// What a client beside the leader heard.
struct Heard {
    asked: Instant,
    answered: Instant,
    /// The policies that it was told of; or that it was told so.
    policies: Option<BTreeSet<String>>,
}

/// Asks the coordinator beside it again and again, from its own namespace.
fn keep_asking(
    cluster: &Cluster,
    name: &str,
    is_over: &AtomicBool,
    is_cut: &AtomicBool,
) -> (Vec<Heard>, Vec<Result<(), Status>>) {
    enter(cluster.place(name).namespace.as_ref().unwrap()).unwrap();
    // Its threads are made here, and so in this namespace.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = AdminClient::new(cluster.connector(&[name]).channel());
        let mut heard = Vec::new();
        let mut changes = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let mut request = Request::new(v1::ListPoliciesRequest::default());
            cluster.token().attach(request.metadata_mut());
            let answer = tokio::time::timeout(CALL, client.list_policies(request)).await;
            let policies = answer.ok().and_then(Result::ok);
            heard.push(Heard {
                asked,
                answered: Instant::now(),
                policies: policies.map(|answer| policy_names(answer.into_inner())),
            });
            if is_cut.load(Ordering::Relaxed) {
                let mut request = Request::new(policy_request(&format!("inside-{}", changes.len())));
                cluster.token().attach(request.metadata_mut());
                let change = tokio::time::timeout(CALL, client.create_policy(request)).await;
                let change = change.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
                // Only those count that were answered before the link was back.
                if is_cut.load(Ordering::Relaxed) {
                    changes.push(change.map(drop));
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (heard, changes)
    })
}

#[test]
fn a_leader_that_is_cut_off_answers_nothing_and_takes_nothing() {
    let Some(network) = Network::or_skipped(3, "a leader that is cut off") else {
        return;
    };
    let cluster = Cluster::start_at(&network.places());
    let old = cluster.leader();
    let machine = cluster.place(&old).namespace.clone().unwrap();
    let names = cluster.coordinators_but(&old);
    let others: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.make_policy(&others, "before").unwrap();

    let (is_over, is_cut) = (AtomicBool::new(false), AtomicBool::new(false));
    let (heard, changes, cut, acknowledged, mended) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| keep_asking(&cluster, &old, &is_over, &is_cut));
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // It is asked and answers.
            std::thread::sleep(Duration::from_millis(300));
            network.cut(&machine);
            let cut = Instant::now();
            is_cut.store(true, Ordering::Relaxed);
            let new = cluster.leader_of(&names);
            assert_ne!(new, old);
            cluster.make_policy(&others, "while-cut").unwrap();
            let acknowledged = Instant::now();
            std::thread::sleep(CUT);
            is_cut.store(false, Ordering::Relaxed);
            let mended = Instant::now();
            network.mend(&machine);
            cluster.settle();
            (cut, acknowledged, mended)
        }));
        is_over.store(true, Ordering::Relaxed);
        let (heard, changes) = asking.join().unwrap();
        let (cut, acknowledged, mended) = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (heard, changes, cut, acknowledged, mended)
    });

    let answers = |from: Instant, to: Instant| {
        let between = heard.iter().filter(move |one| one.asked >= from && one.answered <= to);
        between.filter_map(|one| one.policies.as_ref()).count()
    };
    let begun = heard[0].asked;
    assert!(answers(begun, cut) > 0, "it was never asked while it led");
    let asked_while_cut = heard
        .iter()
        .filter(|one| one.asked >= cut && one.answered <= mended)
        .count();
    assert!(asked_while_cut > 0, "it was never asked while it was cut off");
    assert_eq!(answers(cut, mended), 0, "a leader without a majority answered");
    for one in heard.iter().filter(|one| one.asked >= acknowledged) {
        let Some(policies) = &one.policies else { continue };
        assert!(
            policies.contains("while-cut"),
            "an answer is older than its question: {policies:?}"
        );
    }
    assert!(!changes.is_empty());
    for change in &changes {
        assert!(change.is_err(), "a leader without a majority took a change");
    }

    // All of them agree again, and what nobody acknowledged of the leader that was none is nowhere.
    let as_old_knows = cluster.policies(&[&old]).unwrap();
    let expected: BTreeSet<String> = ["before", "while-cut"].map(String::from).into();
    assert_eq!(as_old_knows, expected);
    cluster.assert_replicas_agree();
    drop(network);
}
