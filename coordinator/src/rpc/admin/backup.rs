//! A copy of all that the cluster knows, as a stream: see [`crate::state::archive`] for its bytes.
//!
//! What is secret in it is wrapped by the cluster key, which is in no log and not in it; names, paths and policies are plain, and whoever keeps it seals
//! it. Who makes one stands in the audit trail.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tresor_proto::v1;

use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::refused::Refused;
use crate::state::archive::Archive;
use crate::state::command::Command;

/// The stream of a backup.
pub type PieceStream = Pin<Box<dyn Stream<Item = Result<v1::BackupPiece, Status>> + Send>>;

/// Lets one be made at a time: each holds a copy of all rows.
#[derive(Debug, Clone)]
pub struct Backups(Arc<Semaphore>);

impl Default for Backups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Streams all rows of one moment. The state waits for a copy of them in memory, not for the caller.
///
/// # Errors
/// [`Refused::Busy`], [`Refused::Node`].
pub(super) async fn backup_cluster(
    services: &Services,
    backups: &Backups,
    caller: &Caller,
) -> Result<PieceStream, Refused> {
    let permit = Arc::clone(&backups.0).try_acquire_owned().map_err(|_| Refused::Busy {
        what: "another backup of the cluster is being made",
    })?;
    let note = Command::Note {
        action: String::from("back up cluster"),
        object: String::from("all rows"),
    };
    let noted = services.handle.change(caller.actor.clone(), None, note).await?;
    let archive = services
        .look_long(move |_, state| Archive::new(state, noted.index))
        .await?;
    Ok(Box::pin(stream::unfold(Some((archive, permit)), piece)))
}

type Making = (Archive, OwnedSemaphorePermit);

async fn piece(making: Option<Making>) -> Option<(Result<v1::BackupPiece, Status>, Option<Making>)> {
    let (mut archive, permit) = making?;
    // A piece takes milliseconds to be encoded: other tasks need not wait for it.
    let encoded = tokio::task::spawn_blocking(move || {
        let bytes = archive.next();
        (bytes, archive)
    });
    match encoded.await {
        Ok((Some(bytes), archive)) => {
            let piece = v1::BackupPiece { bytes: bytes.into() };
            Some((Ok(piece), Some((archive, permit))))
        }
        Ok((None, _)) => None,
        Err(_) => {
            let refused = Refused::Bug {
                why: "a piece of the backup could not be made",
            };
            Some((Err(refused.status("")), None))
        }
    }
}
