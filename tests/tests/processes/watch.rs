//! What is seen of a cluster from outside: pages for machines, jobs, and the objects in the vault's store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};
use tresor_proto::v1;
use tresor_proto::v1::admin_client::AdminClient;
use tresor_storage::ids::random_bytes;

use super::cluster::Cluster;
use super::program::{until, until_just_now};

/// How long a page may take: a process that stands still does not answer.
const PAGE: Duration = Duration::from_secs(1);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(5);

/// How a coordinator says that it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers {
    numbers: BTreeMap<String, u64>,
}

impl Numbers {
    fn get(&self, name: &str) -> u64 {
        self.numbers[&format!("tresor_coordinator_{name}")]
    }

    pub(crate) fn leads(&self) -> bool {
        self.get("is_leader") == 1
    }

    pub(crate) fn applied(&self) -> u64 {
        self.get("applied_index")
    }

    pub(crate) fn points(&self) -> u64 {
        self.get("points")
    }

    fn term(&self) -> u64 {
        self.get("term")
    }
}

pub(crate) fn page(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PAGE)?;
    stream.set_read_timeout(Some(PAGE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Cluster {
    /// The numbers of a coordinator, if it answers.
    pub(crate) fn numbers(&self, name: &str) -> Option<Numbers> {
        let text = page(&self.http_address(name), "/metrics").ok()?;
        let numbers: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
            .collect();
        numbers
            .contains_key("tresor_coordinator_is_leader")
            .then_some(Numbers { numbers })
    }

    /// Of these coordinators the one that leads, once one does.
    pub(crate) fn leader_of(&self, names: &[String]) -> String {
        until("a coordinator leads", || {
            let leading = names.iter().filter(|name| self.runs(name)).filter_map(|name| {
                let numbers = self.numbers(name)?;
                numbers.leads().then(|| (numbers.term(), name.clone()))
            });
            leading.max().map(|(_, name)| name)
        })
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> String {
        self.leader_of(&self.coordinators())
    }

    /// Waits until all coordinators that run have applied the same entries.
    pub(crate) fn settle(&self) {
        until("all coordinators have applied the same entries", || {
            let running = self.coordinators().into_iter().filter(|name| self.runs(name));
            let applied: Vec<u64> = running
                .map(|name| self.numbers(&name).map(|numbers| numbers.applied()))
                .collect::<Option<_>>()?;
            applied.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
        });
    }

    /// Makes a call to some coordinators and to no others.
    pub(crate) fn ask<T, A>(
        &self,
        names: &[&str],
        message: T,
        call: impl AsyncFnOnce(AdminClient<Channel>, Request<T>) -> Result<tonic::Response<A>, Status>,
    ) -> Result<A, Status> {
        let mut request = Request::new(message);
        self.token().attach(request.metadata_mut());
        let client = AdminClient::new(self.channel(names));
        self.runtime().block_on(async {
            let answer = tokio::time::timeout(CALL, call(client, request)).await;
            answer
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
                .map(tonic::Response::into_inner)
        })
    }

    /// Makes a policy through some coordinators: a change that is seen at once.
    pub(crate) fn make_policy(&self, names: &[&str], policy: &str) -> Result<(), Status> {
        let call = async |mut client: AdminClient<Channel>, request| client.create_policy(request).await;
        self.ask(names, policy_request(policy), call).map(drop)
    }

    /// The names of all policies, as some coordinators know them.
    pub(crate) fn policies(&self, names: &[&str]) -> Result<BTreeSet<String>, Status> {
        let call = async |mut client: AdminClient<Channel>, request| client.list_policies(request).await;
        self.ask(names, v1::ListPoliciesRequest::default(), call)
            .map(policy_names)
    }

    /// Queues a backup of an item and returns the job.
    pub(crate) fn begin_backup(&self, item: &str) -> u64 {
        let request = v1::StartBackupRequest {
            idempotency_key: random_bytes::<16>().to_vec().into(),
            item: item.to_owned(),
            ..Default::default()
        };
        let names: Vec<String> = self.coordinators().into_iter().filter(|name| self.runs(name)).collect();
        until(format!("a backup of {item} is queued"), || {
            names.iter().find_map(|name| {
                let call = async |mut client: AdminClient<Channel>, request| client.start_backup(request).await;
                self.ask(&[name], request.clone(), call).ok().map(|job| job.id)
            })
        })
    }

    /// A job, as soon as somebody can answer.
    pub(crate) fn job(&self, id: u64) -> v1::Job {
        let names = self.coordinators();
        until(format!("job {id} can be looked at"), || {
            // Each in turn: one that stands still accepts a connection and answers nothing.
            names.iter().filter(|name| self.runs(name)).find_map(|name| {
                let call = async |mut client: AdminClient<Channel>, request| client.get_job(request).await;
                self.ask(&[name], v1::GetJobRequest { id }, call).ok()
            })
        })
    }

    /// Waits until a job has a state; looks again at once.
    pub(crate) fn job_is(&self, id: u64, state: &str) -> v1::Job {
        until_just_now(format!("job {id} is {state}"), || {
            let job = self.job(id);
            let is_over = ["done", "failed", "cancelled"].contains(&job.state.as_str());
            assert!(job.state == state || !is_over, "{job:?}");
            (job.state == state).then_some(job)
        })
    }

    /// Packs in the vault's store.
    pub(crate) fn packs(&self) -> usize {
        files(&self.path("store/packs")).len()
    }

    /// Their bytes.
    pub(crate) fn pack_bytes(&self) -> u64 {
        let packs = files(&self.path("store/packs"));
        packs
            .iter()
            .map(|path| path.metadata().map_or(0, |pack| pack.len()))
            .sum()
    }

    /// Manifests in the vault's store, as names of points.
    pub(crate) fn manifests(&self) -> BTreeSet<String> {
        let files = files(&self.path("store/points"));
        files
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    /// Visible points of the cluster.
    pub(crate) fn points(&self) -> BTreeSet<String> {
        let listed = self.verb(&["point", "list"]);
        let listed = listed["points"].as_array().unwrap().iter();
        listed
            .map(|point| point["point"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// What makes a policy.
pub(crate) fn policy_request(name: &str) -> v1::CreatePolicyRequest {
    v1::CreatePolicyRequest {
        idempotency_key: random_bytes::<16>().to_vec().into(),
        spec: Some(v1::PolicySpec {
            name: name.to_owned(),
            retention: String::from("last 3"),
            ..Default::default()
        }),
    }
}

/// The names in a list of policies.
pub(crate) fn policy_names(listed: v1::ListPoliciesResponse) -> BTreeSet<String> {
    let policies = listed.policies.into_iter();
    policies.filter_map(|policy| Some(policy.spec?.name)).collect()
}

/// All files below a folder; what comes and goes meanwhile is there or not.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}
