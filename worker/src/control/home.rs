//! The port over a home: the vault's manifests and catalogues, the home's claim, and an fsynced session counter.
//!
//! One process writes to a vault from a home (it holds the home's lock), and one home does (its claim ranks first). Everything that is
//! acknowledged or hidden is put first, then the claims are listed, then it counts: who takes over puts a claim first and lists then, so one of
//! both always sees the other.
//!
//! Pins live in this process: nothing here deletes what a point needs, so nobody else has to see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use tresor_storage::backend::BackendError;
use tresor_storage::catalog::{Catalog, CatalogId, Hidden, shortened};
use tresor_storage::ids::{ClusterId, ItemId, PointId, SessionId};
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::vault::claim::{ListedClaim, check_standing};
use tresor_storage::vault::{Vault, VaultError, names};
use tresor_storage::{Doing as _, Error};

use super::catalog::{Found, read_newest, superseded};
use super::{Commit, Control, ControlError, OpenSession, PointRecord, Session, fenced};
use crate::blocking::blocking;
use crate::home::counter::SessionCounter;

/// Points that are listed at all: the bound of a cluster's state, too.
pub(crate) const POINTS_MAX: usize = 3_000_000;
/// Sessions that only read get numbers from here: no object is ever named by one, so they need not be durable.
const READERS_FROM: u64 = 1 << 63;
/// How many names are tried for a catalogue. Only a copy of this home takes one, so the second is free.
const NAMES_TRIED: u32 = 4;

/// Decides for the vaults of a home.
#[derive(Debug)]
pub struct HomeControl {
    vault: Arc<Vault>,
    writing: Option<Writing>,
    sessions: Mutex<Sessions>,
    /// Catalogues are read, changed and put one after the other.
    deciding: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Writing {
    ours: ListedClaim,
    counter: Arc<Mutex<SessionCounter>>,
}

#[derive(Debug)]
struct Sessions {
    next_reader: u64,
    open: BTreeMap<SessionId, OpenSession>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HomeControl {
    /// For readers: sessions pin, and none may write.
    pub fn reading(vault: Arc<Vault>) -> Self {
        Self::new(vault, None)
    }

    /// For the one process that holds the vault's lock in its home. `counter` knows the numbers that the vault shows of `ours`.
    pub fn writing(vault: Arc<Vault>, ours: ListedClaim, counter: SessionCounter) -> Self {
        Self::new(
            vault,
            Some(Writing {
                ours,
                counter: Arc::new(Mutex::new(counter)),
            }),
        )
    }

    fn new(vault: Arc<Vault>, writing: Option<Writing>) -> Self {
        let sessions = Sessions {
            next_reader: READERS_FROM,
            open: BTreeMap::new(),
        };
        Self {
            vault,
            writing,
            sessions: Mutex::new(sessions),
            deciding: tokio::sync::Mutex::default(),
        }
    }

    fn may_write(&self) -> Result<&Writing, ControlError> {
        self.writing.as_ref().ok_or(ControlError::ReadOnly)
    }

    /// Checks that our claim ranks first.
    ///
    /// # Errors
    /// [`ControlError::Fenced`] with the new holder, [`ControlError::ReadOnly`], those of the store.
    pub async fn check_claim(&self) -> Result<(), ControlError> {
        let writing = self.may_write()?;
        check_standing(self.vault.backend.as_ref(), self.vault.id, writing.ours)
            .await
            .map_err(fenced)
    }

    /// Uses up a session number.
    ///
    /// # Errors
    /// When it cannot be stored; [`ControlError::ReadOnly`].
    pub async fn use_number(&self) -> Result<SessionId, ControlError> {
        let counter = self.may_write()?.counter.clone();
        blocking(move || locked(&counter).use_up()).await
    }

    /// Hides a point: no list shows it, no later point is made against it. It is restorable until it is swept. Returns when it was removed:
    /// now, or before.
    ///
    /// # Errors
    /// [`VaultError::NotThere`], [`ControlError::Held`], [`ControlError::Fenced`] (nothing is changed then); others by cause.
    pub async fn remove(&self, point: PointId) -> Result<String, ControlError> {
        let now = crate::home::now();
        let removed_at = now.clone();
        let change = move |catalog: &mut Catalog, item| {
            if let Some(hidden) = catalog.hidden.get(&point) {
                return Ok(hidden.removed_at.clone());
            }
            if let Some(reason) = catalog.held.get(&point) {
                let reason = reason.clone();
                return Err(ControlError::Held { point, reason });
            }
            let hidden = catalog.hidden.entry(point).or_insert(Hidden { item, removed_at });
            Ok(hidden.removed_at.clone())
        };
        self.change(point, &now, change).await
    }

    /// Holds a point: nobody removes it before it is released. A reason that is longer than a catalogue has room for is cut.
    ///
    /// # Errors
    /// As [`Self::remove`]; [`ControlError::Removed`] for a removed point; [`ControlError::Storage`] where too many are held.
    pub async fn hold(&self, point: PointId, reason: &str) -> Result<(), ControlError> {
        let change = |catalog: &mut Catalog, _| {
            if catalog.hidden.contains_key(&point) {
                return Err(ControlError::Removed { point });
            }
            catalog.held.insert(point, shortened(reason));
            Ok(())
        };
        self.change(point, &crate::home::now(), change).await
    }

    /// Ends the hold of a point; one that is not held stays as it is.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub async fn release(&self, point: PointId) -> Result<(), ControlError> {
        let change = |catalog: &mut Catalog, _| {
            catalog.held.remove(&point);
            Ok(())
        };
        self.change(point, &crate::home::now(), change).await
    }

    /// Shows a removed point again; one that was not removed stays as it is.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub async fn undelete(&self, point: PointId) -> Result<(), ControlError> {
        let now = crate::home::now();
        let change = |catalog: &mut Catalog, _| {
            catalog.hidden.remove(&point);
            Ok(())
        };
        self.change(point, &now, change).await
    }

    async fn change<T>(
        &self,
        point: PointId,
        now: &str,
        change: impl FnOnce(&mut Catalog, ItemId) -> Result<T, ControlError> + Send,
    ) -> Result<T, ControlError> {
        let _deciding = self.deciding.lock().await;
        self.check_claim().await?;
        let items = list_points(&self.vault).await?;
        let Some(&item) = items.get(&point) else {
            return Err(Error::from(VaultError::NotThere {
                what: "point",
                name: point.to_string(),
            })
            .into());
        };
        let Found {
            catalog: before,
            listed,
            ..
        } = read_newest(&self.vault).await?;
        let mut catalog = before.clone();
        let answer = change(&mut catalog, item)?;
        if catalog.hidden == before.hidden && catalog.held == before.held {
            return Ok(answer);
        }
        // What a cluster knew, which this home took over from, decides nothing any more, and under our name it would look newer than it is.
        catalog.cluster_state.clear();
        // What was swept since needs no hiding any more.
        catalog.hidden.retain(|point, _| items.contains_key(point));
        catalog.parts.clear();
        catalog.held.retain(|point, _| items.contains_key(point));
        now.clone_into(&mut catalog.written_at);

        let writing = self.may_write()?;
        let highest = listed
            .iter()
            .filter(|id| id.cluster == writing.ours.cluster)
            .map(|id| id.index)
            .max();
        locked(&writing.counter).raise(highest.unwrap_or(0));
        let ours = self.put(&catalog, writing.ours.cluster).await?;
        if let Err(error) = self.check_claim().await {
            if matches!(error, ControlError::Fenced { .. }) {
                // The taker's catalogues outrank it in any case; this keeps it from being the newest until there is one.
                let _ = self.vault.backend.delete(&ours.object_name()).await;
            }
            return Err(error);
        }
        self.delete_old(&listed, ours).await;
        Ok(answer)
    }

    async fn put(&self, catalog: &Catalog, cluster: ClusterId) -> Result<CatalogId, ControlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let id = CatalogId {
                cluster,
                index: self.use_number().await?.0,
            };
            let name = id.object_name();
            let sealed = catalog
                .seal(&self.vault.keyring, self.vault.id, id)
                .doing(|| format!("seal {name}"))?;
            match self.vault.backend.create(&name, std::slice::from_ref(&sealed)).await {
                Ok(()) => return Ok(id),
                // Ours after an unclear failure, or of a copy of this home.
                Err(error @ BackendError::Exists { .. }) => {
                    let there = self
                        .vault
                        .backend
                        .read(&name, SMALL_OBJECT_MAX)
                        .await
                        .doing(|| format!("compare {name}"))?;
                    if there == sealed {
                        return Ok(id);
                    }
                    if tries == NAMES_TRIED {
                        return Err(while_writing(&name, error).into());
                    }
                }
                Err(error) => return Err(while_writing(&name, error).into()),
            }
        }
    }

    /// Deletes what is older than the newest three. What is left is deleted the next time.
    async fn delete_old(&self, before: &[CatalogId], ours: CatalogId) {
        for id in superseded(before, ours) {
            let name = id.object_name();
            if let Err(error) = self.vault.backend.delete(&name).await {
                tracing::warn!(object = name, %error, "could not delete an old catalogue");
            }
        }
    }
}

fn while_writing(name: &str, error: BackendError) -> Error {
    Error::While {
        doing: format!("write {name}"),
        source: Box::new(error.into()),
    }
}

/// Every point that has a manifest, with its item.
async fn list_points(vault: &Vault) -> Result<HashMap<PointId, ItemId>, Error> {
    let mut points = HashMap::new();
    let mut listing = vault.backend.list(names::POINTS);
    while let Some(object) = listing.try_next().await.doing(|| String::from("list the points"))? {
        if points.len() >= POINTS_MAX {
            return Err(VaultError::TooMany {
                folder: names::POINTS,
                max: POINTS_MAX,
            }
            .into());
        }
        if let Some((item, point)) = names::parse_point(&object.name) {
            points.insert(point, item);
        }
    }
    Ok(points)
}

#[async_trait]
impl Control for HomeControl {
    async fn open_session(&self, request: OpenSession) -> Result<Session, ControlError> {
        if request.writes {
            self.check_claim().await?;
        }
        if !request.pins.is_empty() {
            let there: HashMap<PointId, bool> = self
                .points()
                .await?
                .into_iter()
                .map(|record| (record.point, record.removed_at.is_some()))
                .collect();
            for &point in &request.pins {
                match there.get(&point) {
                    Some(false) => {}
                    // Who reads may still read it: it is there until it is swept.
                    Some(true) if !request.writes => {}
                    _ => return Err(ControlError::Removed { point }),
                }
            }
        }
        let session = if request.writes {
            self.use_number().await?
        } else {
            let mut sessions = locked(&self.sessions);
            sessions.next_reader += 1;
            SessionId(sessions.next_reader)
        };
        locked(&self.sessions).open.insert(session, request);
        let cluster = self
            .writing
            .as_ref()
            .map_or(ClusterId(0), |writing| writing.ours.cluster);
        // Nothing sweeps a home's vault, so its sweep epoch is its first.
        Ok(Session {
            cluster,
            session,
            start_epoch: 0,
        })
    }

    async fn commit(&self, commit: Commit) -> Result<(), ControlError> {
        if !locked(&self.sessions)
            .open
            .get(&commit.session)
            .is_some_and(|session| session.writes)
        {
            return Err(ControlError::Closed {
                session: commit.session,
            });
        }
        // The manifest is put: if a taker's listing missed it, this listing sees the taker.
        self.check_claim().await
    }

    async fn points(&self) -> Result<Vec<PointRecord>, ControlError> {
        let points = list_points(&self.vault).await?;
        let hidden = read_newest(&self.vault).await?.catalog.hidden;
        let record = |(point, item)| PointRecord {
            item,
            point,
            removed_at: hidden.get(&point).map(|hidden| hidden.removed_at.clone()),
        };
        Ok(points.into_iter().map(record).collect())
    }

    async fn pins(&self) -> Vec<PointId> {
        let mut pins: Vec<PointId> = locked(&self.sessions)
            .open
            .values()
            .flat_map(|session| session.pins.clone())
            .collect();
        pins.sort_unstable();
        pins.dedup();
        pins
    }

    async fn close_session(&self, session: SessionId) {
        locked(&self.sessions).open.remove(&session);
    }
}
