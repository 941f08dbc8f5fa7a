//! Members come and go while there is work: a cluster of a hundred thousand points whose log has been cut gets a fourth coordinator, and loses the one
//! that led.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tresor_coordinator::node::task;
use tresor_coordinator::process::Folder;
use tresor_coordinator::raft::Config;
use tresor_coordinator::state::command::{AdoptedPoint, Command, Consistency};
use tresor_coordinator::state::entry::{Actor, Time};
use tresor_proto::ids::{ItemId, PointId, VaultId};
use tresor_proto::tls::{Connector, NothingRevoked, Refusal, SharedIdentity, refusal};
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;

use super::cluster::Cluster;
use super::program::until;
use super::replicas::store;

/// Points in the state.
const POINTS: u64 = 100_000;
/// Items that they are of.
const ITEMS: u64 = 1000;
/// Entries on their way at once: below what a member takes.
const AT_ONCE: usize = 900;
/// What the process of a removed coordinator ends with.
const REMOVED: i32 = 5;
/// A disk that is backed up meanwhile.
const DISK: usize = 8 << 20;

/// The id of the numbered thing.
fn id(kind: u8, number: u64) -> [u8; 16] {
    let hash = bytes_of(kind, number);
    *hash.first_chunk().unwrap()
}

fn bytes_of(kind: u8, number: u64) -> [u8; 32] {
    let mut random = tresor_tests::random::Random::seeded(u64::from(kind) << 56 | number);
    let bytes = random.bytes(32);
    *bytes.first_chunk().unwrap()
}

fn point(number: u64) -> AdoptedPoint {
    let item = number % ITEMS;
    AdoptedPoint {
        point: PointId(id(1, number)),
        item: ItemId(id(2, item)),
        item_name: format!("vm-{item:04}"),
        time: Time(1_790_000_000_000 + i64::try_from(number).unwrap() * 1000),
        keep_until: None,
        manifest: bytes_of(3, number),
        consistency: Consistency::Crash,
        hidden: None,
    }
}

/// Fills the log of a coordinator that is alone and does not run, as its own process would: an entry for each point, through the same node.
fn load(cluster: &Cluster, folder: &Path, vault: VaultId) {
    let stop = CancellationToken::new();
    cluster.runtime().block_on(async {
        let dial = Arc::new(|_, _: &str| None);
        // No other life of it has this number: founding had 1, and a process draws one of 56 bits.
        let running = task::start(Config::new(2), store(folder), dial, stop.clone()).unwrap();
        let mut leadership = running.handle.leadership();
        leadership.wait_for(|leadership| leadership.is_me).await.unwrap();
        futures::stream::iter(0..POINTS)
            .map(|number| {
                let handle = running.handle.clone();
                let points = vec![point(number)];
                async move {
                    let command = Command::AdoptPoints { vault, points };
                    handle.change(Actor::Cluster, None, command).await.unwrap();
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        stop.cancel();
        running.ended.await.unwrap().unwrap();
    });
    let first = store(folder).first_index();
    assert!(
        first > POINTS / 4,
        "the log still begins at {first}: who joins could read it from its beginning"
    );
}

#[test]
fn coordinators_come_and_go_under_load_with_a_hundred_thousand_points() {
    let mut cluster = Cluster::start(1);
    cluster.add_worker("w1");
    cluster.make_vault();
    let bytes = cluster.fill("web", 1, DISK);
    let first = cluster.begin_backup("web");
    cluster.job_is(first, "done");
    let vault = cluster.verb(&["vault", "show", "main"]);
    let vault = vault["id"].as_str().unwrap();
    assert!(cluster.terminate("c1").success());
    load(
        &cluster,
        &cluster.path("c1"),
        VaultId(tresor_proto::ids::unhex(vault).unwrap()),
    );
    cluster.restart("c1");
    for number in [2, 3] {
        cluster.add_loopback_coordinator(number);
    }
    cluster.tell_addresses();
    let has_all = |cluster: &Cluster, name: &str| {
        until(format!("{name} has all points"), || {
            cluster
                .numbers(name)
                .is_some_and(|numbers| numbers.points() > POINTS)
                .then_some(())
        });
    };
    for name in ["c1", "c2", "c3"] {
        has_all(&cluster, name);
    }

    let is_over = AtomicBool::new(false);
    let user = cluster.user();
    let (old, backups) = std::thread::scope(|scope| {
        let backing_up = scope.spawn(|| {
            let mut backups: u64 = 0;
            while !is_over.load(Ordering::Relaxed) {
                let ran = user.run(&["backup", "--item", "web"], &[]);
                assert_eq!(ran.code, 0, "{ran}");
                backups += 1;
            }
            backups
        });
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // It has none of the log's beginning, so all of this is a snapshot, and then what was written meanwhile.
            cluster.add_loopback_coordinator(4);
            has_all(&cluster, "c4");
            let old = cluster.leader();
            assert_ne!(old, "c4");
            cluster.verb(&["coordinator", "transfer", "--to", "c4"]);
            until("c4 leads", || (cluster.leader() == "c4").then_some(()));
            cluster.verb(&["coordinator", "remove", &old, "--yes"]);
            old
        }));
        is_over.store(true, Ordering::Relaxed);
        let backups = backing_up.join().unwrap();
        let old = changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (old, backups)
    });
    assert!(backups > 0);

    // Who joined serves: it leads, and knows the last of the points that were there before it.
    let last = tresor_proto::ids::hex(&id(1, POINTS - 1));
    let show = async |mut client: AdminClient<_>, request| client.get_point(request).await;
    let shown = cluster
        .ask(&["c4"], v1::GetPointRequest { name: last.clone() }, show)
        .unwrap();
    assert_eq!(
        (shown.id, shown.item_name),
        (last, format!("vm-{:04}", (POINTS - 1) % ITEMS))
    );
    cluster.assert_restores("web", "w1", &bytes);
    let left: Vec<String> = cluster.coordinators_but(&old);
    let listed = cluster.verb(&["coordinator", "list"]);
    let listed = listed["coordinators"].as_array().unwrap().iter();
    let listed: Vec<&str> = listed.map(|c| c["coordinator"].as_str().unwrap()).collect();
    assert_eq!(listed, left);

    // Who was removed is refused by each of them, with a certificate that is good for weeks; one that was not removed is not.
    for name in &left {
        assert_eq!(refused(&cluster, &old, name), Some(Refusal::Removed), "{name}");
        let other = left.iter().find(|other| *other != name).unwrap();
        assert_eq!(refused(&cluster, other, name), None, "{name}");
    }
    // Neither does it answer anybody, nor do the others need it.
    assert!(cluster.policies(&[&old]).is_err());
    cluster.ends(&old, REMOVED);
    cluster.forget(&old);
    let names: Vec<&str> = left.iter().map(String::as_str).collect();
    cluster.make_policy(&names, "without-it").unwrap();
    cluster.assert_replicas_agree();
}

/// How a coordinator refuses whoever has the certificate of another one; nothing where it answers.
fn refused(cluster: &Cluster, who: &str, by: &str) -> Option<Refusal> {
    let identity = Folder::new(cluster.path(who)).identity().unwrap();
    let trust = cluster.connector(&[by]).trust().clone();
    let connector = Connector::with_identity(
        vec![cluster.address(by)],
        trust,
        SharedIdentity::new(identity),
        Arc::new(NothingRevoked),
    )
    .unwrap();
    let talk = async {
        let mut stream = connector.connect().await?;
        // In TLS 1.3 who connects believes that it is connected before its certificate was looked at: the first thing that is read tells. A
        // coordinator that takes the connection begins to speak by itself.
        stream.read_u8().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let error = cluster.runtime().block_on(talk).err()?;
    Some(refusal(&*error).unwrap_or_else(|| panic!("{by} neither talks with {who} nor refuses it: {error}")))
}
