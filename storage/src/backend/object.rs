//! Stores in a cloud, or of its kind, through object_store: `s3://`, `az://`, `gs://`.
//!
//! object_store signs, connects and parses; what is asked again, how much at once and for how long is decided by our own wrappers, so its retries
//! and time-outs are off. TLS is rustls with aws-lc-rs. Proxies come from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as its client reads them.
//!
//! Bytes are checked on their way where the store can: S3 requests are signed with the SHA-256 of their body, which every S3 store verifies (an
//! unsigned request carries it as a checksum of its own). Azure and Google get none from object_store; TLS and the read-back of trailers remain.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::answer::refine;
use super::metered::Counters;
use super::random::Random;
use super::retry::{RetryPolicy, Tries};
use super::transport::PacedBody;
use super::{Backend, BackendError, Listed, check_name, check_prefix, range_length};
use crate::throttle::{Direction, Pace};

/// A prefix of a bucket.
#[derive(Debug)]
pub struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    /// Empty, or ends with a slash.
    prefix: String,
    mode: PutMode,
    list_policy: RetryPolicy,
    random: Mutex<Random>,
    counters: Option<Arc<Counters>>,
    pace: Pace,
}

impl ObjectBackend {
    /// Names lie below `prefix`, which is empty or ends with a slash.
    ///
    /// The store's own retries are to be off, except that `list_policy` is ours: see [`Backend::list`] here.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: String, list_policy: RetryPolicy) -> Self {
        Self {
            store,
            prefix,
            mode: PutMode::Create,
            list_policy,
            random: Mutex::new(Random::new()),
            counters: None,
            pace: Pace::default(),
        }
    }

    /// The same store for a job with these throttles.
    pub(super) fn paced(&self, pace: Pace) -> Self {
        Self {
            store: Arc::clone(&self.store),
            prefix: self.prefix.clone(),
            mode: self.mode.clone(),
            list_policy: self.list_policy,
            random: Mutex::new(Random::new()),
            counters: self.counters.clone(),
            pace,
        }
    }

    /// Puts without asking the store to keep what is there: for stores that refuse create-only puts.
    pub fn overwriting(mut self) -> Self {
        self.mode = PutMode::Overwrite;
        self
    }

    /// Counts pages of listings that were asked for again.
    pub fn counting(mut self, counters: Arc<Counters>) -> Self {
        self.counters = Some(counters);
        self
    }

    fn path(&self, operation: &'static str, name: &str) -> Result<Path, BackendError> {
        check_name(operation, name)?;
        Path::parse(format!("{}{name}", self.prefix)).map_err(|error| BackendError::Refused {
            operation,
            name: name.into(),
            source: error.into(),
        })
    }

    /// A listed object by our name; `None` for what is not below our prefix (a folder's marker, as consoles make them).
    fn listed(&self, prefix: &str, meta: &ObjectMeta) -> Option<Listed> {
        let name = meta.location.as_ref().strip_prefix(&self.prefix)?;
        let is_below = name.len() > prefix.len() && name.starts_with(prefix);
        is_below.then(|| Listed {
            name: name.to_owned(),
            length: meta.size,
        })
    }

    async fn head(&self, name: &str, path: &Path) -> Result<u64, BackendError> {
        let error = match self.store.head(path).await {
            Ok(meta) => return Ok(meta.size),
            Err(error) => refine("read", name, 0, &error),
        };
        if !matches!(error, BackendError::NotFound { .. }) {
            return Err(error);
        }
        // An answer to HEAD has no text, so a missing bucket looks like a missing object. Reading a byte tells.
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        match self.store.get_opts(path, options).await {
            Ok(result) => Ok(result.meta.size),
            Err(error) => Err(refine("read", name, 1, &error)),
        }
    }
}

/// The bytes of an answer, no more than it announced; fewer are a broken connection.
///
/// What has come waits for the job's throttles before more is taken from the connection: the store can send no faster than it is heard.
async fn collect(pace: &Pace, name: &str, end: u64, length: usize, result: GetResult) -> Result<Bytes, BackendError> {
    let pace = pace.of_request();
    let broken = |why: String| BackendError::Unavailable {
        operation: "read",
        name: name.into(),
        source: why.into(),
    };
    let mut stream = result.into_stream();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| refine("read", name, end, &error))?;
        if first.len() + all.len() + chunk.len() > length {
            return Err(broken(format!("more than the {length} bytes announced")));
        }
        pace.take(Direction::Download, chunk.len()).await;
        // Most small objects come in one chunk, which is not copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            all.reserve(length);
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&chunk);
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(broken(format!("{} bytes of {length}", bytes.len())))
    }
}

#[async_trait]
impl Backend for ObjectBackend {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let path = self.path("put", name)?;
        // Handles, not bytes.
        let payload: PutPayload = pieces.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        let mut options = PutOptions {
            mode: self.mode.clone(),
            ..PutOptions::default()
        };
        if !self.pace.is_none() {
            options.extensions.insert(PacedBody::new(payload.clone(), &self.pace));
        }
        self.store
            .put_opts(&path, payload, options)
            .await
            .map(drop)
            .map_err(|error| refine("put", name, 0, &error))
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let path = self.path("read", name)?;
        let result = self
            .store
            .get_opts(&path, GetOptions::default())
            .await
            .map_err(|error| refine("read", name, 0, &error))?;
        let length = result.meta.size;
        match usize::try_from(length) {
            Ok(bytes) if bytes <= max => collect(&self.pace, name, length, bytes, result).await,
            // Dropping the answer here ends the connection: nothing more of it is read.
            _ => Err(BackendError::TooLarge {
                name: name.into(),
                length,
                max: max as u64,
            }),
        }
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let path = self.path("read", name)?;
        let length = range_length(name, &range)?;
        let beyond = || BackendError::Range {
            name: name.into(),
            end: range.end,
        };
        if length == 0 {
            // HTTP has no empty range; whether it is inside the object is still asked.
            return if range.end > self.head(name, &path).await? {
                Err(beyond())
            } else {
                Ok(Bytes::new())
            };
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let result = match self.store.get_opts(&path, options).await {
            Ok(result) => result,
            Err(error) => {
                let error = refine("read", name, range.end, &error);
                // A range that begins at the end is answered by some as if it were inside, which object_store finds malformed.
                let is_beyond = matches!(error, BackendError::Refused { .. })
                    && self.head(name, &path).await.is_ok_and(|length| range.end > length);
                return Err(if is_beyond { beyond() } else { error });
            }
        };
        // Stores cut a range at the object's end and call it success.
        if result.range != range {
            return Err(beyond());
        }
        collect(&self.pace, name, range.end, length, result).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        let path = self.path("read", name)?;
        self.head(name, &path).await
    }

    /// Pages come in the order of names, so a page that failed is asked for again after the last name given out, and a long listing does not
    /// begin anew. Where names do not ascend (no store known does that), the error is told instead.
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        if let Err(error) = check_prefix(prefix) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        let prefix = prefix.to_owned();
        let below = Path::from(format!("{}{prefix}", self.prefix));
        let state = Listing {
            pages: self.store.list(Some(&below)),
            last: None,
            is_sorted: true,
            tries: None,
        };
        futures::stream::unfold(Some((state, prefix, below)), move |state| async move {
            let (mut state, prefix, below) = state?;
            loop {
                match state.pages.next().await? {
                    Ok(meta) => {
                        state.tries = None;
                        state.is_sorted &= state.last.as_ref().is_none_or(|last| *last < meta.location);
                        let listed = self.listed(&prefix, &meta);
                        state.last = Some(meta.location);
                        if let Some(listed) = listed {
                            return Some((Ok(listed), Some((state, prefix, below))));
                        }
                    }
                    Err(error) => {
                        let error = refine("list", &prefix, 0, &error);
                        let Some(last) = state.last.clone().filter(|_| state.is_sorted) else {
                            return Some((Err(error), None));
                        };
                        let tries = state.tries.get_or_insert_with(|| {
                            Tries::new(&self.list_policy, &self.random, self.counters.as_deref())
                        });
                        if let Err(error) = tries.again(error).await {
                            return Some((Err(error), None));
                        }
                        state.pages = self.store.list_with_offset(Some(&below), &last);
                    }
                }
            }
        })
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        let path = self.path("delete", name)?;
        match self
            .store
            .delete(&path)
            .await
            .map_err(|error| refine("delete", name, 0, &error))
        {
            Err(BackendError::NotFound { .. }) => Ok(()),
            result => result,
        }
    }
}

struct Listing<'a> {
    pages: BoxStream<'static, object_store::Result<ObjectMeta>>,
    last: Option<Path>,
    is_sorted: bool,
    /// Of the page that failed last.
    tries: Option<Tries<'a>>,
}
