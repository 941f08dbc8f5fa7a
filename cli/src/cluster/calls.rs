//! Every call of the Admin service that the command line makes, by its name.
//!
//! What only asks is repeated as it is. What changes something gets an idempotency key here and nowhere else, so that no verb can forget it, and
//! every repetition has the same one: whatever was lost on the way, the request or the answer, the change is made once.

use tonic::Streaming;
use tresor_proto::v1;
use tresor_storage::ids::random_bytes;

use super::{Cluster, ClusterError};

macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $answer:ty;)*) => {
        impl Cluster {
            $($(#[$doc])*
            pub(crate) async fn $name(&self, request: v1::$request) -> Result<$answer, ClusterError> {
                Box::pin(self.repeat(async |mut client| client.$name(request.clone()).await)).await
            })*
        }
    };
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $answer:ty;)*) => {
        impl Cluster {
            $($(#[$doc])*
            pub(crate) async fn $name(&self, mut request: v1::$request) -> Result<$answer, ClusterError> {
                request.idempotency_key = random_bytes::<16>().to_vec().into();
                Box::pin(self.repeat(async |mut client| client.$name(request.clone()).await)).await
            })*
        }
    };
}

asks! {
    /// Whose the token is.
    who_am_i(WhoAmIRequest) -> v1::WhoAmIResponse;
    /// Is everything protected?
    get_status(GetStatusRequest) -> v1::StatusReport;
    /// Why is it so?
    explain(ExplainRequest) -> v1::ExplainResponse;
    /// One vault.
    get_vault(GetVaultRequest) -> v1::Vault;
    /// A page of vaults.
    list_vaults(ListVaultsRequest) -> v1::ListVaultsResponse;
    /// One policy.
    get_policy(GetPolicyRequest) -> v1::Policy;
    /// A page of policies.
    list_policies(ListPoliciesRequest) -> v1::ListPoliciesResponse;
    /// What a policy means.
    preview_policy(PreviewPolicyRequest) -> v1::PreviewPolicyResponse;
    /// One item.
    get_item(GetItemRequest) -> v1::Item;
    /// A page of items.
    list_items(ListItemsRequest) -> v1::ListItemsResponse;
    /// One point.
    get_point(GetPointRequest) -> v1::Point;
    /// A page of points.
    list_points(ListPointsRequest) -> v1::ListPointsResponse;
    /// One job.
    get_job(GetJobRequest) -> v1::Job;
    /// What workers logged of a job's attempts.
    get_job_log(GetJobLogRequest) -> v1::JobLog;
    /// A page of jobs.
    list_jobs(ListJobsRequest) -> v1::ListJobsResponse;
    /// The job whenever it changes. The stream itself is not repeated: whoever reads it knows whether it has ended.
    watch_job(WatchJobRequest) -> Streaming<v1::Job>;
    /// A page of workers.
    list_workers(ListWorkersRequest) -> v1::ListWorkersResponse;
    /// One worker.
    get_worker(GetWorkerRequest) -> v1::Worker;
    /// All coordinators.
    list_coordinators(ListCoordinatorsRequest) -> v1::ListCoordinatorsResponse;
    /// Hands over the lead. It has no key: who leads already leads.
    transfer_leader(TransferLeaderRequest) -> v1::Empty;
    /// All limits.
    list_limits(ListLimitsRequest) -> v1::ListLimitsResponse;
    /// All channels of notifications.
    list_channels(ListChannelsRequest) -> v1::ListChannelsResponse;
    /// Sends a message to try a channel. It has no key: each time another one is sent.
    test_channel(TestChannelRequest) -> v1::TestChannelResponse;
    /// A page of tokens.
    list_tokens(ListTokensRequest) -> v1::ListTokensResponse;
    /// A page of the audit trail.
    list_audit(ListAuditRequest) -> v1::ListAuditResponse;
    /// Whether the audit trail is whole.
    verify_audit(VerifyAuditRequest) -> v1::VerifyAuditResponse;
    /// The state in pieces. The stream itself is not repeated.
    backup_cluster(BackupClusterRequest) -> Streaming<v1::BackupPiece>;
}

changes! {
    /// Makes or takes over a vault.
    create_vault(CreateVaultRequest) -> v1::Job;
    /// Forgets a vault.
    remove_vault(RemoveVaultRequest) -> v1::Empty;
    /// Makes a policy.
    create_policy(CreatePolicyRequest) -> v1::Policy;
    /// Changes a policy.
    update_policy(UpdatePolicyRequest) -> v1::Policy;
    /// Removes a policy.
    remove_policy(RemovePolicyRequest) -> v1::Empty;
    /// Sets a rule of a limit.
    set_limit(SetLimitRequest) -> v1::LimitRow;
    /// Removes a limit.
    remove_limit(RemoveLimitRequest) -> v1::Empty;
    /// Makes a channel of notifications.
    add_channel(AddChannelRequest) -> v1::ChannelRow;
    /// Removes a channel.
    remove_channel(RemoveChannelRequest) -> v1::Empty;
    /// Protects an item.
    protect_item(ProtectItemRequest) -> v1::Item;
    /// Changes an item.
    update_item(UpdateItemRequest) -> v1::Item;
    /// Backs an item up no more.
    unprotect_item(UnprotectItemRequest) -> v1::Item;
    /// Holds a point.
    hold_point(HoldPointRequest) -> v1::Point;
    /// Releases a point.
    release_point(ReleasePointRequest) -> v1::Point;
    /// Hides a point.
    remove_point(RemovePointRequest) -> v1::Point;
    /// Shows a hidden point again.
    undelete_point(UndeletePointRequest) -> v1::Point;
    /// Queues a backup.
    start_backup(StartBackupRequest) -> v1::Job;
    /// Queues a restore.
    start_restore(StartRestoreRequest) -> v1::Job;
    /// Takes down a restore that this process makes.
    note_restore(NoteRestoreRequest) -> v1::Empty;
    /// Queues a verification.
    start_verify(StartVerifyRequest) -> v1::Job;
    /// Asks a job to end.
    cancel_job(CancelJobRequest) -> v1::Job;
    /// Queues a job again.
    retry_job(RetryJobRequest) -> v1::Job;
    /// Gives a worker no work, or work again.
    drain_worker(DrainWorkerRequest) -> v1::Worker;
    /// Takes a worker out.
    remove_worker(RemoveWorkerRequest) -> v1::Empty;
    /// Takes a coordinator out.
    remove_coordinator(RemoveCoordinatorRequest) -> v1::Empty;
    /// Says that the clock is right.
    confirm_clock(ConfirmClockRequest) -> v1::Empty;
    /// Makes a join token.
    create_join_token(CreateJoinTokenRequest) -> v1::NewToken;
    /// Makes an API token.
    create_api_token(CreateApiTokenRequest) -> v1::NewToken;
    /// Revokes a token.
    revoke_token(RevokeTokenRequest) -> v1::Empty;
}
