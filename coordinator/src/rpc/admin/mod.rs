//! What people and programs ask of the cluster: one file for each noun.
//!
//! Who calls and whether they may was decided before a handler runs. A handler that changes something checks the message, finds what its names mean in a
//! state that is as new as the question, proposes one command under the caller's key, and answers from the state. Sent again, the change is made once and
//! answered with what the first one did.

pub mod audit;
pub mod backup;
mod channels;
pub mod explain;
pub mod items;
mod job_log;
mod jobs;
mod key_file;
mod limits;
mod nodes;
mod points;
pub(crate) mod policies;
pub mod status;
pub mod tokens;
mod vaults;
pub mod watch;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use tonic::{Request, Response, Status};
use tresor_proto::ids::hex;
use tresor_proto::v1;
use tresor_proto::v1::admin_server::{Admin, AdminServer};

use super::caller::Caller;
use super::context::{Services, opened};
use super::convert;
use super::fields::time_text;
use super::refused::Refused;
use crate::state::entry::Actor;

/// The Admin service.
#[derive(Debug, Clone)]
pub struct AdminService {
    services: Services,
    watches: watch::Watches,
    backups: backup::Backups,
}

impl AdminService {
    /// Serves from a node.
    pub fn new(services: Services) -> Self {
        Self {
            services,
            watches: watch::Watches::default(),
            backups: backup::Backups::default(),
        }
    }

    /// As what a router takes.
    pub fn into_server(self) -> AdminServer<Self> {
        AdminServer::new(self)
    }

    fn answer<T>(&self, answer: Result<T, Refused>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => Ok(Response::new(message)),
            Err(refused) => Err(self.status(&refused)),
        }
    }

    fn status(&self, refused: &Refused) -> Status {
        self.services.handle.read(|state| refused.status_in(state))
    }
}

macro_rules! calls {
    ($($name:ident($request:ident) -> $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Admin for AdminService {
            $(async fn $name(&self, request: Request<v1::$request>) -> Result<Response<v1::$answer>, Status> {
                let (caller, message) = opened(request)?;
                self.answer(self.services.$name(&caller, message).await)
            })*

            type WatchJobStream = watch::JobStream;
            async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<watch::JobStream>, Status> {
                let (_, message) = opened(request)?;
                self.answer(watch::watch_job(&self.services, &self.watches, message).await)
            }

            type BackupClusterStream = backup::PieceStream;
            async fn backup_cluster(
                &self,
                request: Request<v1::BackupClusterRequest>,
            ) -> Result<Response<backup::PieceStream>, Status> {
                let (caller, _) = opened(request)?;
                self.answer(backup::backup_cluster(&self.services, &self.backups, &caller).await)
            }
        }
    };
}

calls! {
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
    set_limit(SetLimitRequest) -> LimitRow;
    remove_limit(RemoveLimitRequest) -> Empty;
    list_limits(ListLimitsRequest) -> ListLimitsResponse;
    add_channel(AddChannelRequest) -> ChannelRow;
    remove_channel(RemoveChannelRequest) -> Empty;
    list_channels(ListChannelsRequest) -> ListChannelsResponse;
    test_channel(TestChannelRequest) -> TestChannelResponse;
    preview_policy(PreviewPolicyRequest) -> PreviewPolicyResponse;
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

impl Services {
    /// Who the caller is.
    pub(crate) async fn who_am_i(&self, caller: &Caller, _: v1::WhoAmIRequest) -> Result<v1::WhoAmIResponse, Refused> {
        self.look(|state| {
            let expires = match &caller.actor {
                Actor::Token(id) => state.tokens().get(id).and_then(|token| token.expires),
                _ => None,
            };
            let cluster = state.cluster();
            Ok(v1::WhoAmIResponse {
                name: caller.name.clone(),
                role: caller.role.clone(),
                cluster: cluster.map(|cluster| hex(&cluster.id)).unwrap_or_default(),
                cluster_name: cluster.map(|cluster| cluster.name.clone()).unwrap_or_default(),
                expires: time_text(expires),
                coordinators: convert::coordinators(state),
            })
        })
        .await
    }
}
