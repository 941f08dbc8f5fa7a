//! A leader that stands still while others elect another one, and then goes on as if nothing had been: it answers nothing old.

use std::time::Duration;

use tonic::Request;
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;

use super::cluster::Cluster;
use super::watch::{policy_names, policy_request};

/// How often the leader stands still.
const ROUNDS: usize = 4;
/// Reads that wait for it when it goes on.
const READS: usize = 32;
/// How long they may take: longer than a coordinator tries.
const READ: Duration = Duration::from_secs(30);

/// A request of the administrator.
fn asked<T>(cluster: &Cluster, message: T) -> Request<T> {
    let mut request = Request::new(message);
    cluster.token().attach(request.metadata_mut());
    request
}

#[test]
fn a_leader_that_stood_still_answers_nothing_old() {
    let cluster = Cluster::start(3);
    let mut answered = 0;
    for round in 1..=ROUNDS {
        let old = cluster.leader();
        let others = cluster.coordinators_but(&old);
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let client = {
            let _inside = cluster.runtime().enter();
            AdminClient::new(cluster.connector(&[&old]).channel())
        };
        // The connection stands before the leader does: what is asked next waits in its socket.
        let warm = asked(&cluster, v1::WhoAmIRequest {});
        cluster.runtime().block_on(client.clone().who_am_i(warm)).unwrap();

        cluster.pause(&[&old]);
        let names: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
        let new = cluster.leader_of(&names);
        assert_ne!(new, old);
        let policy = format!("round-{round}");
        cluster.make_policy(&others, &policy).unwrap();

        let reads: Vec<_> = (0..READS)
            .map(|_| {
                let mut client = client.clone();
                let request = asked(&cluster, v1::ListPoliciesRequest::default());
                cluster.runtime().spawn(async move {
                    let answer = tokio::time::timeout(READ, client.list_policies(request)).await;
                    answer.expect("a coordinator answers or says that it cannot")
                })
            })
            .collect();
        let mut changing = client.clone();
        let change = asked(&cluster, policy_request(&format!("late-{round}")));
        let change = cluster
            .runtime()
            .spawn(async move { changing.create_policy(change).await });
        // They are written to the socket meanwhile; more than that is not needed, so nothing tells when.
        std::thread::sleep(Duration::from_millis(200));
        cluster.resume(&old);
        for read in reads {
            if let Ok(answer) = cluster.runtime().block_on(read).unwrap() {
                let policies = policy_names(answer.into_inner());
                assert!(
                    policies.contains(&policy),
                    "{old} answered what was before {policy}: {policies:?}"
                );
                answered += 1;
            }
        }
        let made = cluster.runtime().block_on(change).unwrap();
        cluster.settle();
        let policies = cluster.policies(&others).unwrap();
        assert!(policies.contains(&policy), "{policies:?}");
        // What was asked of a leader that was none any more was handed on, or not done; never done there.
        if made.is_ok() {
            assert!(policies.contains(&format!("late-{round}")), "{policies:?}");
        }
        let as_old_knows = cluster.policies(&[&old]).unwrap();
        assert_eq!(as_old_knows, policies);
    }
    assert!(answered > 0, "no read was answered at all");
    cluster.assert_replicas_agree();
}
