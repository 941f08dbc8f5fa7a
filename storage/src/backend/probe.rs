//! What a store can do, seen by trying.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Backend, BackendError};
use crate::ids::PartId;

/// What a store was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Refuses a second put of a name.
    pub create_only: bool,
    /// A list shows an object just put.
    pub lists_fresh: bool,
    /// Reads a range of an object.
    pub ranged_reads: bool,
    /// An object deleted is gone.
    pub deletes: bool,
}

/// Puts, lists, reads and deletes an object of its own under `probe/`.
///
/// # Errors
/// By cause, when the store does not do the plain part of it.
pub async fn probe(backend: &dyn Backend) -> Result<Abilities, BackendError> {
    let name = format!("probe/{}", PartId::random());
    let text = Bytes::from_static(b"tresor probes what this store can do");
    backend.create(&name, std::slice::from_ref(&text)).await?;
    let create_only = match backend.create(&name, std::slice::from_ref(&text)).await {
        Ok(()) => false,
        Err(BackendError::Exists { .. }) => true,
        Err(error) => return Err(error),
    };
    let lists_fresh = backend.list("probe/").try_any(|listed| std::future::ready(listed.name == name)).await?;
    let ranged_reads = match backend.read_range(&name, 7..13).await {
        Ok(bytes) => bytes[..] == text[7..13],
        Err(error @ (BackendError::Unavailable { .. } | BackendError::Denied { .. })) => return Err(error),
        Err(_) => false,
    };
    let deletes = backend.delete(&name).await.is_ok()
        && matches!(backend.length(&name).await, Err(BackendError::NotFound { .. }));
    Ok(Abilities { create_only, lists_fresh, ranged_reads, deletes })
}
