//! A cluster of one coordinator and workers that joined it, over TLS, in this process.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;
use tresor_coordinator::process::{self, Folder, Founding, ServeSettings};
use tresor_proto::tls::{Connector, Fingerprint, first_contact};
use tresor_proto::token::{ApiToken, JoinToken};
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;
use tresor_storage::ids::random_bytes;
use tresor_storage::limits::SEGMENT;
use tresor_tests::random::Random;
use tresor_worker::agent::{self, AgentConfig, Membership};
use tresor_worker::backup::Effort;
use tresor_worker::home::StoreConfigs;

/// Longest that anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) address: String,
    pub(crate) token: ApiToken,
    pub(crate) admin: AdminClient<Channel>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) struct Worker {
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

impl Cluster {
    pub(crate) async fn found() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let coordinator = Folder::new(folder.path().join("coordinator"));
        let address = free_address();
        let founding = Founding {
            cluster: String::from("test"),
            name: String::from("c1"),
            address: address.clone(),
            wants_admin: true,
        };
        let founded = Box::pin(process::found(&coordinator, founding)).await.unwrap();
        Self::serve(
            folder,
            coordinator,
            address,
            founded.fingerprint,
            founded.admin.unwrap(),
        )
        .await
    }

    /// Serves the coordinator of a folder below `folder`, and speaks to it as an administrator.
    pub(crate) async fn serve(
        folder: Arc<tempfile::TempDir>,
        coordinator: Folder,
        address: String,
        fingerprint: Fingerprint,
        token: ApiToken,
    ) -> Self {
        let (stop, serving) = serve(coordinator, &address).await;
        let trust = first_contact(std::slice::from_ref(&address), fingerprint)
            .await
            .unwrap()
            .trust();
        let channel = Connector::new(vec![address.clone()], trust).unwrap().channel();
        Self {
            folder,
            address,
            token,
            admin: AdminClient::new(channel),
            stop,
            serving,
        }
    }

    /// A request of the administrator.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.token.attach(request.metadata_mut());
        request
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn join_token(&self) -> JoinToken {
        let request = v1::CreateJoinTokenRequest {
            idempotency_key: key(),
            role: String::from("worker"),
            ..Default::default()
        };
        let answer = self.admin.clone().create_join_token(self.ask(request)).await.unwrap();
        answer.into_inner().token.parse().unwrap()
    }

    pub(crate) async fn join(&self, name: &str) -> Membership {
        let token = self.join_token().await;
        Membership::join(&self.path(name), vec![self.address.clone()], &token, name)
            .await
            .unwrap()
    }

    pub(crate) fn start(&self, name: &str, membership: &Membership) -> Worker {
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
            membership.client(&self.path(name), Vec::new()).unwrap(),
            Arc::new(StoreConfigs::default()),
            stop.clone(),
        );
        Worker {
            stop,
            running: tokio::spawn(async move { running.await.unwrap() }),
        }
    }

    /// Waits until an attempt of a job has ended badly.
    pub(crate) async fn failing(&self, id: u64) -> v1::Job {
        let begin = Instant::now();
        loop {
            let request = self.ask(v1::GetJobRequest { id });
            let now = self.admin.clone().get_job(request).await.unwrap().into_inner();
            if now.attempts.iter().any(|attempt| !attempt.kind.is_empty()) {
                return now;
            }
            assert_ne!(now.state, "done", "{now:?}");
            assert!(begin.elapsed() < PATIENCE, "{now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the good end of a job.
    pub(crate) async fn done(&self, job: v1::Job) -> v1::Job {
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

    pub(crate) async fn make_vault(&self) -> v1::Job {
        let request = v1::CreateVaultRequest {
            idempotency_key: key(),
            name: String::from("main"),
            url: format!("file://{}", self.path("store").display()),
            ..Default::default()
        };
        let job = self.admin.clone().create_vault(self.ask(request)).await.unwrap();
        self.done(job.into_inner()).await
    }

    pub(crate) async fn back_up(&self, host: &str, disk: &Path) -> v1::Job {
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

    pub(crate) async fn restore(&self, host: &str, to: &Path) -> v1::Job {
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

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

pub(crate) async fn serve(folder: Folder, address: &str) -> (CancellationToken, JoinHandle<()>) {
    let settings = ServeSettings {
        listen: Some(address.to_owned()),
        http: None,
        zone: String::from("UTC"),
        item_metrics: false,
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

/// A port that was free a moment ago.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub(crate) fn key() -> bytes::Bytes {
    random_bytes::<16>().to_vec().into()
}

pub(crate) fn disk(path: &Path) -> Vec<u8> {
    let bytes = Random::seeded(7).bytes(3 * SEGMENT as usize + 5000);
    std::fs::write(path, &bytes).unwrap();
    bytes
}
