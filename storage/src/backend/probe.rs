//! Trying out what a store can do, before a vault trusts it.

use bytes::Bytes;
use futures::TryStreamExt;

use super::{Backend, BackendError};
use crate::ids::hex;

/// What a store was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Refuses to create over an existing object and keeps its bytes. Without it unique names alone protect objects.
    pub create_only: bool,
    /// Lists an object that it just stored. Without it a vault is not safe here.
    pub lists_fresh: bool,
    /// Gives the bytes of a range, and only those.
    pub ranged_reads: bool,
    /// A deleted object is gone, and deleting it again is no error.
    pub deletes: bool,
}

/// Folder of what a probe leaves behind when it is killed: never anything that matters.
const FOLDER: &str = "probe/";

/// Finds out what the store can do, by a small object of a random name, which it removes.
///
/// What a store answers wrongly is told in the result; that it does not answer is an error.
///
/// # Errors
/// Whatever kept the probe from an answer: no permission to put or read, no such bucket, no space, no connection.
pub async fn probe(backend: &dyn Backend) -> Result<Abilities, BackendError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| BackendError::Refused {
        operation: "probe",
        name: FOLDER.into(),
        source: format!("no randomness: {error}").into(),
    })?;
    let folder = format!("{FOLDER}{}/", hex(&id));
    let name = format!("{folder}object");
    let result = try_out(backend, &folder, &name).await;
    if result.is_err() {
        // The error that matters is known already; what stays is a few bytes below `probe/`.
        let _ = backend.delete(&name).await;
    }
    result
}

async fn try_out(backend: &dyn Backend, folder: &str, name: &str) -> Result<Abilities, BackendError> {
    let first = Bytes::from_static(b"the first object of this name");
    let second = Bytes::from_static(b"another one, of other length, that must not replace it");

    backend.create(name, std::slice::from_ref(&first)).await?;
    let refused = match backend.create(name, std::slice::from_ref(&second)).await {
        Ok(()) => false,
        Err(BackendError::Exists { .. }) => true,
        Err(error) => return Err(error),
    };
    let stored = backend.read(name, first.len().max(second.len())).await?;
    let create_only = refused && stored == first;

    let listed: Vec<_> = backend.list(folder).try_collect().await?;
    let lists_fresh = listed
        .iter()
        .any(|item| item.name == name && item.length == stored.len() as u64);

    let ranged_reads = match backend.read_range(name, 4..9).await {
        Ok(bytes) => stored.get(4..9) == Some(&bytes[..]),
        Err(BackendError::Range { .. } | BackendError::Refused { .. }) => false,
        Err(error) => return Err(error),
    };

    backend.delete(name).await?;
    let deletes = match backend.length(name).await {
        Err(BackendError::NotFound { .. }) => backend.delete(name).await.is_ok(),
        Ok(_) => false,
        Err(error) => return Err(error),
    };
    Ok(Abilities {
        create_only,
        lists_fresh,
        ranged_reads,
        deletes,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::ops::Range;

    use async_trait::async_trait;
    use futures::StreamExt;
    use futures::stream::BoxStream;

    use super::*;
    use crate::backend::faulty::{Fault, Faulty, On, Rule};
    use crate::backend::{Listed, Memory};

    /// Answers 200 to a create-only put and overwrites; lists nothing; ignores ranges; deletes nothing.
    #[derive(Default)]
    struct Careless(Memory);

    #[async_trait]
    impl Backend for Careless {
        async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
            self.0.replace(name, pieces.concat());
            Ok(())
        }
        async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
            self.0.read(name, max).await
        }
        async fn read_range(&self, name: &str, _: Range<u64>) -> Result<Bytes, BackendError> {
            self.0.read(name, usize::MAX).await
        }
        async fn length(&self, name: &str) -> Result<u64, BackendError> {
            self.0.length(name).await
        }
        fn list(&self, _: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
            futures::stream::empty().boxed()
        }
        async fn delete(&self, _: &str) -> Result<(), BackendError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_honest_store_can_everything_and_is_left_empty() {
        let memory = Memory::new();
        let abilities = probe(&memory).await.unwrap();
        assert_eq!(
            abilities,
            Abilities {
                create_only: true,
                lists_fresh: true,
                ranged_reads: true,
                deletes: true
            }
        );
        assert!(memory.objects().is_empty());
    }

    #[tokio::test]
    async fn a_careless_store_is_seen_through() {
        let abilities = probe(&Careless::default()).await.unwrap();
        assert_eq!(
            abilities,
            Abilities {
                create_only: false,
                lists_fresh: false,
                ranged_reads: false,
                deletes: false
            }
        );
    }

    #[tokio::test]
    async fn a_store_that_does_not_list_what_it_just_stored_is_found() {
        let store = Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Short).on(On::List));
        assert!(!probe(&store).await.unwrap().lists_fresh);
    }

    #[tokio::test]
    async fn a_denied_probe_is_an_error_and_leaves_nothing() {
        for on in [On::Put, On::Read, On::Length, On::List] {
            let store = Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Denied).on(on));
            assert!(
                matches!(probe(&store).await, Err(BackendError::Denied { .. })),
                "{on:?}"
            );
            assert!(store.inner().objects().is_empty(), "{on:?}");
        }
    }
}
