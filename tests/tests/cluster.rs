//! A cluster of one coordinator and workers that joined it, over TLS on this machine: from the token to a disk that comes back.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tresor_coordinator::process::{self, Folder, Founding, ServeSettings};
use tresor_proto::tls::{Connector, first_contact};
use tresor_proto::token::{ApiToken, JoinToken};
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;
use tresor_storage::Kind;
use tresor_storage::ids::random_bytes;
use tresor_storage::limits::SEGMENT;
use tresor_tests::random::Random;
use tresor_worker::agent::{self, AgentConfig, JoinError, Membership};
use tresor_worker::backup::Effort;
use tresor_worker::home::StoreConfigs;

/// Longest that anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(120);

struct Cluster {
    folder: tempfile::TempDir,
    address: String,
    token: ApiToken,
    admin: AdminClient<Channel>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

struct Worker {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Worker {
    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

impl Cluster {
    async fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let coordinator = Folder::new(folder.path().join("coordinator"));
        let founding = Founding {
            cluster: String::from("test"),
            name: String::from("c1"),
            address: address.clone(),
            wants_admin: true,
        };
        let founded = Box::pin(process::found(&coordinator, founding)).await.unwrap();
        let (stop, serving) = serve(coordinator, &address).await;
        let trust = first_contact(std::slice::from_ref(&address), founded.fingerprint)
            .await
            .unwrap()
            .trust();
        let channel = Connector::new(vec![address.clone()], trust).unwrap().channel();
        Self {
            folder,
            address,
            token: founded.admin.unwrap(),
            admin: AdminClient::new(channel),
            stop,
            serving,
        }
    }

    /// A request of the administrator.
    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.token.attach(request.metadata_mut());
        request
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn join_token(&self) -> JoinToken {
        let request = v1::CreateJoinTokenRequest {
            idempotency_key: key(),
            role: String::from("worker"),
            ..Default::default()
        };
        let answer = self.admin.clone().create_join_token(self.ask(request)).await.unwrap();
        answer.into_inner().token.parse().unwrap()
    }

    async fn join(&self, name: &str) -> Membership {
        let token = self.join_token().await;
        Membership::join(&self.path(name), vec![self.address.clone()], &token, name)
            .await
            .unwrap()
    }

    fn start(&self, name: &str, membership: &Membership) -> Worker {
        let config = AgentConfig {
            host: name.to_owned(),
            permits: 2,
            effort: Effort {
                cores: 2,
                compression_level: 1,
            },
            ..AgentConfig::new(self.path(name))
        };
        let stop = CancellationToken::new();
        let running = agent::run(
            config,
            membership.client(),
            Arc::new(StoreConfigs::default()),
            stop.clone(),
        );
        Worker {
            stop,
            running: tokio::spawn(async move { running.await.unwrap() }),
        }
    }

    /// Waits for the good end of a job.
    async fn done(&self, job: v1::Job) -> v1::Job {
        let begin = Instant::now();
        loop {
            let request = self.ask(v1::GetJobRequest { id: job.id });
            let now = self.admin.clone().get_job(request).await.unwrap().into_inner();
            match now.state.as_str() {
                "done" => return now,
                "failed" | "cancelled" => panic!("{:?}", now.attempts),
                _ => {}
            }
            assert!(begin.elapsed() < PATIENCE, "{now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn make_vault(&self) -> v1::Job {
        let request = v1::CreateVaultRequest {
            idempotency_key: key(),
            name: String::from("main"),
            url: format!("file://{}", self.path("store").display()),
            ..Default::default()
        };
        let job = self.admin.clone().create_vault(self.ask(request)).await.unwrap();
        self.done(job.into_inner()).await
    }

    async fn back_up(&self, host: &str, disk: &Path) -> v1::Job {
        let spec = v1::ItemSpec {
            name: String::from("web"),
            vault: String::from("main"),
            host: host.to_owned(),
            disks: vec![v1::AdminDisk {
                name: String::from("vda"),
                path: disk.display().to_string(),
                format: String::new(),
            }],
            ..Default::default()
        };
        let request = v1::StartBackupRequest {
            idempotency_key: key(),
            item: String::from("web"),
            vault: String::from("main"),
            spec: Some(spec),
            ..Default::default()
        };
        let job = self.admin.clone().start_backup(self.ask(request)).await.unwrap();
        self.done(job.into_inner()).await
    }

    async fn restore(&self, host: &str, to: &Path) -> v1::Job {
        let request = v1::StartRestoreRequest {
            idempotency_key: key(),
            point: String::from("web"),
            host: host.to_owned(),
            path: to.display().to_string(),
            ..Default::default()
        };
        let job = self.admin.clone().start_restore(self.ask(request)).await.unwrap();
        self.done(job.into_inner()).await
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

async fn serve(folder: Folder, address: &str) -> (CancellationToken, JoinHandle<()>) {
    let settings = ServeSettings {
        listen: Some(address.to_owned()),
        http: None,
        zone: String::from("UTC"),
    };
    let stop = CancellationToken::new();
    let (ready_in, ready) = tokio::sync::oneshot::channel();
    let until = stop.clone();
    let serving = tokio::spawn(async move {
        let ready = move |_: &process::Bound, _: &_| {
            let _ = ready_in.send(());
        };
        Box::pin(process::serve(&folder, settings, None, ready, until))
            .await
            .unwrap();
    });
    tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
    (stop, serving)
}

fn key() -> bytes::Bytes {
    random_bytes::<16>().to_vec().into()
}

fn disk(path: &Path) -> Vec<u8> {
    let bytes = Random::seeded(7).bytes(3 * SEGMENT as usize + 5000);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_joined_makes_a_vault_backs_up_proves_and_restores() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    let path = cluster.path("web.img");
    let bytes = disk(&path);
    let made = cluster.back_up("w1", &path).await;
    assert_eq!(made.counts.unwrap().bytes_logical, bytes.len() as u64);
    assert!(!made.point.is_empty());
    // A second one against the first: all is known.
    let second = cluster.back_up("w1", &path).await;
    assert_eq!(second.counts.unwrap().bytes_new, 0);
    for level in ["names", "contents", "recipes"] {
        let request = v1::StartVerifyRequest {
            idempotency_key: key(),
            vault: String::from("main"),
            level: level.to_owned(),
            ..Default::default()
        };
        let job = cluster.admin.clone().start_verify(cluster.ask(request)).await.unwrap();
        assert_eq!(cluster.done(job.into_inner()).await.findings, 0, "{level}");
    }
    let to = cluster.path("back.img");
    cluster.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_works_on_after_its_coordinator_was_started_again() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    cluster.stop.cancel();
    let Cluster {
        folder,
        address,
        token,
        admin,
        serving,
        ..
    } = cluster;
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    let (stop, serving) = serve(Folder::new(folder.path().join("coordinator")), &address).await;
    let cluster = Cluster {
        folder,
        address,
        token,
        admin,
        stop,
        serving,
    };
    let path = cluster.path("web.img");
    let bytes = disk(&path);
    cluster.back_up("w1", &path).await;
    let to = cluster.path("back.img");
    cluster.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_is_kept_renewed_and_made_once() {
    let cluster = Cluster::found().await;
    let folder = cluster.path("w1");
    let joined = cluster.join("w1").await;
    assert_eq!(joined.cluster_name, "test");
    let name = joined.identity.current().name();
    assert!(!folder.join("joining").exists(), "what was begun is done");

    let loaded = Membership::load(&folder).unwrap().unwrap();
    assert_eq!(loaded.identity.current().name(), name);
    let before = loaded.identity.current().certificate().fingerprint;
    loaded.renew(&folder).await.unwrap();
    let after = loaded.identity.current().certificate().fingerprint;
    assert_ne!(before, after);
    let again = Membership::load(&folder).unwrap().unwrap();
    assert_eq!(again.identity.current().certificate().fingerprint, after);
    again.renew(&folder).await.unwrap();

    let token = cluster.join_token().await;
    let addresses = vec![cluster.address.clone()];
    let second = Membership::join(&folder, addresses.clone(), &token, "w1")
        .await
        .unwrap_err();
    assert!(matches!(second, JoinError::Joined { .. }), "{second}");
    // A token of another authority goes to nobody.
    let other = JoinToken {
        ca: tresor_proto::tls::Fingerprint([1; 32]),
        ..token.clone()
    };
    let refused = Membership::join(&cluster.path("w2"), addresses.clone(), &other, "w2")
        .await
        .unwrap_err();
    assert!(
        matches!(refused, JoinError::Connect(_)) && refused.kind() == Kind::Denied,
        "{refused}"
    );
    // And a good one is good once.
    let third = Membership::join(&cluster.path("w2"), addresses.clone(), &token, "w2")
        .await
        .unwrap();
    assert_ne!(third.identity.current().name().id, name.id);
    let used = Membership::join(&cluster.path("w3"), addresses, &token, "w3")
        .await
        .unwrap_err();
    assert_ne!(used.kind(), Kind::Retry, "{used}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_removed_is_refused_and_does_not_end() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    let request = v1::RemoveWorkerRequest {
        idempotency_key: key(),
        name: String::from("w1"),
    };
    cluster.admin.clone().remove_worker(cluster.ask(request)).await.unwrap();
    // Its connection ends and no other is made: for the worker that looks like a coordinator that is away.
    let mut client = v1::agent_client::AgentClient::new(membership.connector.channel());
    let refused = client.beat(v1::BeatRequest::default()).await.unwrap_err();
    assert_ne!(
        refused.code(),
        Code::InvalidArgument,
        "nobody looked at what was asked: {refused:?}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!worker.running.is_finished(), "it waits until it is told to stop");
    worker.stop().await;
    cluster.stop().await;
}
