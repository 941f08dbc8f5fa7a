//! A coordinator that answers what a test tells it to, and remembers what it was asked.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tresor_proto::tls::{Acceptor, Connection, Identity, NothingRevoked, SharedIdentity, http2, local};
use tresor_proto::v1::admin_server::{Admin, AdminServer};
use tresor_proto::v1::{self, *};

type Answers = Mutex<HashMap<TypeId, VecDeque<Result<Box<dyn Any + Send>, Status>>>>;
/// Clones an answer of a type that is known.
type CloneAnswer = fn(&dyn Any) -> Box<dyn Any + Send>;
type Asked = Mutex<Vec<(MetadataMap, Box<dyn Any + Send>)>>;

/// What is answered and what was asked. Answers are given in their order; the last one again and again.
#[derive(Default)]
pub(crate) struct Script {
    answers: Answers,
    asked: Asked,
    /// For an answer that is given again.
    again: Mutex<HashMap<TypeId, CloneAnswer>>,
}

impl Script {
    /// To a request of this type this is answered next. A stream is answered with a list: its last element may be what breaks it.
    pub(crate) fn answer<Q: 'static, A: Clone + Send + 'static>(&self, answer: Result<A, Status>) {
        let id = TypeId::of::<Q>();
        let answer = answer.map(|answer| Box::new(answer) as Box<dyn Any + Send>);
        self.answers.lock().unwrap().entry(id).or_default().push_back(answer);
        let clone: CloneAnswer = |any| {
            Box::new(
                any.downcast_ref::<A>()
                    .expect("one request has answers of one type")
                    .clone(),
            )
        };
        self.again.lock().unwrap().insert(id, clone);
    }

    /// All requests of this type, and what came with them.
    pub(crate) fn asked<Q: Clone + 'static>(&self) -> Vec<(MetadataMap, Q)> {
        let asked = self.asked.lock().unwrap();
        let of_type = asked.iter().filter_map(|(metadata, any)| {
            let request = any.downcast_ref::<Q>()?;
            Some((metadata.clone(), request.clone()))
        });
        of_type.collect()
    }

    /// The only request of this type.
    pub(crate) fn only<Q: Clone + 'static>(&self) -> Q {
        let mut asked = self.asked::<Q>();
        assert_eq!(asked.len(), 1, "requests of that type");
        asked.remove(0).1
    }

    fn play<Q: Send + 'static, A: 'static>(&self, request: Request<Q>) -> Result<A, Status> {
        let (metadata, _, request) = request.into_parts();
        self.asked.lock().unwrap().push((metadata, Box::new(request)));
        let id = TypeId::of::<Q>();
        let mut answers = self.answers.lock().unwrap();
        let queue = answers.get_mut(&id).filter(|queue| !queue.is_empty());
        let Some(queue) = queue else {
            return Err(Status::unimplemented(format!(
                "no answer to {}",
                std::any::type_name::<Q>()
            )));
        };
        let answer = if queue.len() > 1 {
            queue.pop_front().unwrap()
        } else {
            let again = self.again.lock().unwrap()[&id];
            queue[0].as_ref().map(|any| again(any.as_ref())).map_err(Clone::clone)
        };
        answer.map(|any| *any.downcast().expect("an answer of the type that the call has"))
    }
}

/// A refusal as coordinators word it.
pub(crate) fn refused(kind: &str, field: &str, message: &str) -> Status {
    let info = v1::ErrorInfo {
        kind: kind.to_owned(),
        field: field.to_owned(),
        ..Default::default()
    };
    info.into_status(message)
}

/// The service.
pub(crate) struct Played(Arc<Script>);

/// What a stream sends.
pub(crate) type Pieces<T> = Vec<Result<T, Status>>;
type Stream<T> = futures::stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

macro_rules! played {
    ($($name:ident($request:ident) -> $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Admin for Played {
            type WatchJobStream = Stream<Job>;
            type BackupClusterStream = Stream<BackupPiece>;

            async fn watch_job(&self, request: Request<WatchJobRequest>) -> Result<Response<Stream<Job>>, Status> {
                let pieces: Pieces<Job> = self.0.play(request)?;
                Ok(Response::new(futures::stream::iter(pieces)))
            }

            async fn backup_cluster(
                &self,
                request: Request<BackupClusterRequest>,
            ) -> Result<Response<Stream<BackupPiece>>, Status> {
                let pieces: Pieces<BackupPiece> = self.0.play(request)?;
                Ok(Response::new(futures::stream::iter(pieces)))
            }

            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$answer>, Status> {
                self.0.play(request).map(Response::new)
            })*
        }
    };
}

played! {
    who_am_i(WhoAmIRequest) -> WhoAmIResponse;
    get_status(GetStatusRequest) -> StatusReport;
    explain(ExplainRequest) -> ExplainResponse;
    create_vault(CreateVaultRequest) -> Job;
    get_vault(GetVaultRequest) -> Vault;
    list_vaults(ListVaultsRequest) -> ListVaultsResponse;
    remove_vault(RemoveVaultRequest) -> Empty;
    create_policy(CreatePolicyRequest) -> Policy;
    get_policy(GetPolicyRequest) -> Policy;
    list_policies(ListPoliciesRequest) -> ListPoliciesResponse;
    update_policy(UpdatePolicyRequest) -> Policy;
    remove_policy(RemovePolicyRequest) -> Empty;
    preview_policy(PreviewPolicyRequest) -> PreviewPolicyResponse;
    set_limit(SetLimitRequest) -> LimitRow;
    remove_limit(RemoveLimitRequest) -> Empty;
    list_limits(ListLimitsRequest) -> ListLimitsResponse;
    add_channel(AddChannelRequest) -> ChannelRow;
    remove_channel(RemoveChannelRequest) -> Empty;
    list_channels(ListChannelsRequest) -> ListChannelsResponse;
    test_channel(TestChannelRequest) -> TestChannelResponse;
    protect_item(ProtectItemRequest) -> Item;
    get_item(GetItemRequest) -> Item;
    list_items(ListItemsRequest) -> ListItemsResponse;
    update_item(UpdateItemRequest) -> Item;
    unprotect_item(UnprotectItemRequest) -> Item;
    get_point(GetPointRequest) -> Point;
    list_points(ListPointsRequest) -> ListPointsResponse;
    hold_point(HoldPointRequest) -> Point;
    release_point(ReleasePointRequest) -> Point;
    remove_point(RemovePointRequest) -> Point;
    undelete_point(UndeletePointRequest) -> Point;
    start_backup(StartBackupRequest) -> Job;
    start_restore(StartRestoreRequest) -> Job;
    note_restore(NoteRestoreRequest) -> Empty;
    start_verify(StartVerifyRequest) -> Job;
    get_job(GetJobRequest) -> Job;
    get_job_log(GetJobLogRequest) -> JobLog;
    list_jobs(ListJobsRequest) -> ListJobsResponse;
    cancel_job(CancelJobRequest) -> Job;
    retry_job(RetryJobRequest) -> Job;
    list_workers(ListWorkersRequest) -> ListWorkersResponse;
    get_worker(GetWorkerRequest) -> Worker;
    drain_worker(DrainWorkerRequest) -> Worker;
    remove_worker(RemoveWorkerRequest) -> Empty;
    list_coordinators(ListCoordinatorsRequest) -> ListCoordinatorsResponse;
    remove_coordinator(RemoveCoordinatorRequest) -> Empty;
    transfer_leader(TransferLeaderRequest) -> Empty;
    confirm_clock(ConfirmClockRequest) -> Empty;
    create_join_token(CreateJoinTokenRequest) -> NewToken;
    create_api_token(CreateApiTokenRequest) -> NewToken;
    list_tokens(ListTokensRequest) -> ListTokensResponse;
    revoke_token(RevokeTokenRequest) -> Empty;
    list_audit(ListAuditRequest) -> ListAuditResponse;
    verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
}

/// A coordinator.
pub(crate) struct Coordinator {
    /// What it answers, and was asked.
    pub(crate) script: Arc<Script>,
    /// `--cluster` for it.
    pub(crate) target: String,
    _runtime: Runtime,
}

impl Coordinator {
    /// Listens on a socket.
    pub(crate) fn at(path: &Path) -> Self {
        Self::serve(format!("unix:{}", path.display()), || local::listen(path).unwrap())
    }

    /// Listens on a port of this machine, with a certificate.
    pub(crate) fn with_identity(identity: Identity) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Self::serve(address.to_string(), || {
            let acceptor = Acceptor::new(&SharedIdentity::new(identity), Arc::new(NothingRevoked)).unwrap();
            acceptor.incoming(tokio::net::TcpListener::from_std(listener).unwrap())
        })
    }

    fn serve<I>(target: String, listen: impl FnOnce() -> I) -> Self
    where
        I: futures::Stream<Item = std::io::Result<Connection>> + Send + 'static,
    {
        let runtime = Runtime::new().unwrap();
        let script = Arc::new(Script::default());
        let service = AdminServer::new(Played(Arc::clone(&script)));
        let incoming = {
            let _inside = runtime.enter();
            listen()
        };
        runtime.spawn(async move {
            let server = http2::server().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            script,
            target,
            _runtime: runtime,
        }
    }
}
