//! From an URL to a store with its wrappers.
//!
//! ```text
//! Retrying   asks again; waits here, holding nothing
//! Limited    so much at once, so long at most
//! Metered    counts each request that goes out, repeated and given up ones too
//! store      file, memory, S3, Azure, Google
//! ```
//! [`OpenStore::throttled`] is the same for one job with limits: what may be in flight, and what is counted, is shared with the others.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, Certificate, ClientConfigKey, ClientOptions, HeaderValue, ObjectStore, RetryConfig};
use url::Url;
use zeroize::Zeroizing;

use super::answer::Listener;
use super::limit::{Flight, Limited, Limits};
use super::metered::{Counters, Metered};
use super::retry::{RetryPolicy, Retrying};
use super::{Backend, BackendError, FileBackend, Memory, ObjectBackend, Paced};
use crate::throttle::Pace;

/// A value that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps the value; it is cleared from memory when dropped (copies inside libraries are not).
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How to reach a store, beyond its URL. What is not given comes from the environment (`AWS_…`, `AZURE_…`, `GOOGLE_…`) or the machine's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Makes the folder of a `file://` store when it is missing. Off, a missing folder is an error: its disk may not be mounted.
    pub create_root: bool,
    /// URL of the service. For Azure with the account: `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<String>,
    /// S3 region.
    pub region: Option<String>,
    /// S3: id of the access key. Azure: the account.
    pub access_key_id: Option<String>,
    /// S3: the secret access key. Azure: the account's key. Google: a service account's key, as JSON.
    pub secret_access_key: Option<Secret>,
    /// S3: the token of temporary credentials.
    pub session_token: Option<Secret>,
    /// Allows `http://` endpoints.
    pub allow_http: bool,
    /// Sends requests unsigned: public buckets and test servers.
    pub skip_signature: bool,
    /// S3: the bucket is in the host's name; the endpoint then has it.
    pub virtual_hosted: bool,
    /// Asks the store to refuse a name that is taken. Off only for stores that refuse the question.
    pub create_only: bool,
    /// Certificates, as PEM, that are trusted besides the system's.
    pub ca_certificates: Option<Vec<u8>>,
    /// How long a store may take to answer, apart from the time of the transfer; by default 30 s, and 10 minutes for `file://`, where the only
    /// alternative to waiting for a slow disk is to write everything again.
    pub request_timeout: Option<Duration>,
    /// When to ask again.
    pub retry: RetryPolicy,
    /// What may be in flight. Its deadline gives way to `request_timeout`.
    pub limits: Limits,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            create_root: false,
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            skip_signature: false,
            virtual_hosted: false,
            create_only: true,
            ca_certificates: None,
            request_timeout: None,
            retry: RetryPolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// A store, ready for use.
#[derive(Clone)]
pub struct OpenStore {
    /// The store with its wrappers.
    pub backend: Arc<dyn Backend>,
    /// What it was asked so far.
    pub counters: Arc<Counters>,
    /// Its URL, in one spelling.
    pub url: String,
    stack: Stack,
}

/// Makes the store with its wrappers for a job.
type Stack = Arc<dyn Fn(Pace) -> Arc<dyn Backend> + Send + Sync>;

impl OpenStore {
    /// The store as one job sees it: its transfers keep to the job's throttles.
    #[must_use]
    pub fn throttled(&self, pace: Pace) -> Self {
        Self {
            backend: (self.stack)(pace),
            ..self.clone()
        }
    }

    /// With something before it, in what jobs see too.
    #[must_use]
    pub fn behind<B: Backend>(self, wrap: impl Fn(Arc<dyn Backend>) -> B + Send + Sync + 'static) -> Self {
        let (backend, stack) = (self.backend, self.stack);
        Self {
            backend: Arc::new(wrap(backend)),
            stack: Arc::new(move |pace| Arc::new(wrap(stack(pace)))),
            counters: self.counters,
            url: self.url,
        }
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStore")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// How long to wait for a connection, apart from the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FILE_TIMEOUT: Duration = Duration::from_secs(600);

/// Opens `file:///FOLDER`, `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX` or `memory://NAME`.
///
/// Nothing is asked of a remote store yet: whether it is there shows at the first request. May block on a local disk for a moment.
///
/// # Errors
/// [`BackendError::Configuration`] for what is wrong with the URL or the configuration, or a folder that is missing;
/// [`BackendError::Denied`] for a folder that may not be opened.
pub fn open(url: &str, config: &StoreConfig) -> Result<OpenStore, BackendError> {
    let place = Place::parse(url)?;
    let normal = place.to_string();
    let wrong = |why: String| BackendError::Configuration {
        url: normal.clone(),
        why,
    };
    let counters = Arc::new(Counters::default());
    let mut limits = config.limits;
    if let Some(timeout) = config.request_timeout {
        limits.deadline = timeout;
    } else if matches!(place, Place::File(_)) {
        limits.deadline = limits.deadline.max(FILE_TIMEOUT);
    }
    let object = |store: Arc<dyn ObjectStore>, prefix: &str| {
        let backend = ObjectBackend::new(store, prefix.into(), config.retry).counting(counters.clone());
        if config.create_only {
            backend
        } else {
            backend.overwriting()
        }
    };
    if let Some(endpoint) = config.endpoint.as_deref().filter(|_| place.is_remote()) {
        check_endpoint(endpoint, config.allow_http).map_err(wrong)?;
    }
    let stack: Stack = match &place {
        Place::File(path) => {
            let backend = FileBackend::open(path, config.create_root).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => wrong("the folder is not there (is its disk mounted?)".into()),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => BackendError::Denied {
                    operation: "open",
                    name: normal.clone(),
                    source: error.into(),
                },
                _ => wrong(error.to_string()),
            })?;
            stack(move |pace| backend.paced(pace), config, limits, &counters)
        }
        Place::Memory(name) => {
            let memory = Memory::named(name);
            stack(move |pace| Paced::new(memory.clone(), pace), config, limits, &counters)
        }
        Place::S3 { bucket, prefix } => {
            let store = object(s3(bucket, config).map_err(wrong)?, prefix);
            stack(move |pace| store.paced(pace), config, limits, &counters)
        }
        Place::Azure { bucket, prefix } => {
            let store = object(azure(bucket, config).map_err(wrong)?, prefix);
            stack(move |pace| store.paced(pace), config, limits, &counters)
        }
        Place::Google { bucket, prefix } => {
            let store = object(google(bucket, config).map_err(wrong)?, prefix);
            stack(move |pace| store.paced(pace), config, limits, &counters)
        }
    };
    Ok(OpenStore {
        backend: stack(Pace::default()),
        counters,
        url: normal,
        stack,
    })
}

fn stack<B: Backend>(
    paced: impl Fn(Pace) -> B + Send + Sync + 'static,
    config: &StoreConfig,
    limits: Limits,
    counters: &Arc<Counters>,
) -> Stack {
    let (counters, retry, flight) = (Arc::clone(counters), config.retry, Arc::new(Flight::new(limits)));
    Arc::new(move |pace| {
        let metered = Metered::new(paced(pace.clone()), Arc::clone(&counters));
        let limited = Limited::sharing(metered, limits, Arc::clone(&flight), pace);
        Arc::new(Retrying::new(limited, retry).counting(Arc::clone(&counters)))
    })
}

/// What an URL says.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Memory(String),
    S3 { bucket: String, prefix: String },
    Azure { bucket: String, prefix: String },
    Google { bucket: String, prefix: String },
}

impl Place {
    fn parse(text: &str) -> Result<Self, BackendError> {
        // Never the text itself where it could hold a password.
        let wrong = |shown: &str, why: &str| BackendError::Configuration {
            url: shown.into(),
            why: why.into(),
        };
        let url = Url::parse(text).map_err(|error| {
            wrong(
                "URL",
                &format!("not an URL ({error}); a folder is written file:///FOLDER"),
            )
        })?;
        let shown = format!(
            "{}://{}{}",
            url.scheme(),
            url.host_str().unwrap_or_default(),
            url.path()
        );
        let wrong = |why: &str| wrong(&shown, why);
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "credentials do not belong into an URL; see the store's configuration",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("an URL of a store ends with its path"));
        }
        if url.port().is_some() {
            return Err(wrong("a port belongs into the store's endpoint"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        match url.scheme() {
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| wrong("a folder is written file:///FOLDER, from the root"))?;
                Ok(Self::File(path))
            }
            "memory" if !host.is_empty() && matches!(url.path(), "" | "/") => Ok(Self::Memory(host)),
            "memory" => Err(wrong("a store in memory is written memory://NAME")),
            "s3" | "az" | "gs" => {
                if host.is_empty() {
                    return Err(wrong("the bucket is missing"));
                }
                let prefix = prefix(url.path()).map_err(wrong)?;
                Ok(match url.scheme() {
                    "s3" => Self::S3 { bucket: host, prefix },
                    "az" => Self::Azure { bucket: host, prefix },
                    _ => Self::Google { bucket: host, prefix },
                })
            }
            _ => Err(wrong("stores are file://, s3://, az://, gs:// and memory://")),
        }
    }

    fn is_remote(&self) -> bool {
        !matches!(self, Self::File(_) | Self::Memory(_))
    }
}

/// A path as a prefix: empty, or ending with a slash.
fn prefix(path: &str) -> Result<String, &'static str> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    super::check_name("open", path).map_err(|_| "a prefix has letters, digits, '-', '.' and single slashes")?;
    Ok(format!("{path}/"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::File(path) => {
                // Escaped again, so that it parses to the same.
                return match Url::from_directory_path(path) {
                    Ok(url) => f.write_str(url.as_str().trim_end_matches('/')),
                    Err(()) => write!(f, "file://{}", path.display()),
                };
            }
            Self::Memory(name) => return write!(f, "memory://{name}"),
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Azure { bucket, prefix } => ("az", bucket, prefix),
            Self::Google { bucket, prefix } => ("gs", bucket, prefix),
        };
        let whole = format!("{scheme}://{bucket}/{prefix}");
        f.write_str(whole.trim_end_matches('/'))
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|error| format!("the endpoint is not an URL ({error})"))?;
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http => Ok(()),
        "http" => Err("the endpoint is plain http, which is not allowed for this store".into()),
        scheme => Err(format!("the endpoint is {scheme}, not https")),
    }
}

/// One request is one request: what is asked again is decided above.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        backoff: BackoffConfig::default(),
    }
}

/// Options of the connection: those of the environment (`AWS_PROXY_URL`, …), then the configuration's.
fn client(config: &StoreConfig, environment: &str) -> Result<ClientOptions, String> {
    let mut options = ClientOptions::new();
    for (key, value) in std::env::vars_os() {
        let (Some(key), Some(value)) = (key.to_str(), value.to_str()) else {
            continue;
        };
        let key = key
            .strip_prefix(environment)
            .and_then(|key| key.to_ascii_lowercase().parse::<ClientConfigKey>().ok());
        if let Some(key) = key {
            options = options.with_config(key, value);
        }
    }
    // A time-out of the whole request would cut large puts on slow lines; the deadline by size is ours.
    options = options
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_user_agent(HeaderValue::from_static(concat!("tresor/", env!("CARGO_PKG_VERSION"))));
    if config.allow_http {
        options = options.with_allow_http(true);
    }
    if let Some(pem) = &config.ca_certificates {
        let certificates =
            Certificate::from_pem_bundle(pem).map_err(|error| format!("the certificates are not PEM: {error}"))?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn s3(bucket: &str, config: &StoreConfig) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_client_options(client(config, "AWS_")?)
        .with_http_connector(Listener::new(bucket, config.ca_certificates.as_deref()))
        // Single deletes are the part of the protocol that every S3 store has.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &config.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &config.secret_access_key {
        builder = builder.with_secret_access_key(secret.0.as_str());
    }
    if let Some(token) = &config.session_token {
        builder = builder.with_token(token.0.as_str());
    }
    if config.virtual_hosted {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if config.skip_signature {
        // A signature covers the body's hash; without one the hash is sent as a checksum.
        builder = builder
            .with_skip_signature(true)
            .with_checksum_algorithm(Checksum::SHA256);
    }
    Ok(Arc::new(builder.build().map_err(|error| error.to_string())?))
}

fn azure(container: &str, config: &StoreConfig) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_retry(no_retries())
        .with_client_options(client(config, "AZURE_")?)
        .with_http_connector(Listener::new(container, config.ca_certificates.as_deref()));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(account) = &config.access_key_id {
        builder = builder.with_account(account);
    }
    if let Some(key) = &config.secret_access_key {
        builder = builder.with_access_key(key.0.as_str());
    }
    if config.skip_signature {
        builder = builder.with_skip_signature(true);
    }
    Ok(Arc::new(builder.build().map_err(|error| error.to_string())?))
}

fn google(bucket: &str, config: &StoreConfig) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_client_options(client(config, "GOOGLE_")?)
        .with_http_connector(Listener::new(bucket, config.ca_certificates.as_deref()));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(key) = &config.secret_access_key {
        builder = builder.with_service_account_key(key.0.as_str());
    }
    if config.skip_signature {
        builder = builder.with_skip_signature(true);
    }
    Ok(Arc::new(builder.build().map_err(|error| error.to_string())?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn urls_have_one_spelling() {
        for (text, normal) in [
            ("file:///srv/vault", "file:///srv/vault"),
            ("file:///srv/vault/", "file:///srv/vault"),
            ("file:///srv/my%20vault", "file:///srv/my%20vault"),
            ("FILE:///srv/./a/../vault", "file:///srv/vault"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("az://container/a", "az://container/a"),
            ("gs://bucket", "gs://bucket"),
            ("memory://name", "memory://name"),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.to_string(), normal);
            assert_eq!(Place::parse(normal).unwrap(), place);
        }
        assert_eq!(
            Place::parse("s3://b/a/c").unwrap(),
            Place::S3 {
                bucket: "b".into(),
                prefix: "a/c/".into()
            }
        );
        assert_eq!(
            Place::parse("file:///srv/my%20vault").unwrap(),
            Place::File("/srv/my vault".into())
        );
    }

    #[test]
    fn urls_that_are_none_are_refused_and_passwords_not_repeated() {
        for bad in [
            "",
            "vault",
            "/srv/vault",
            "ftp://host/a",
            "file://host/a",
            "s3://",
            "s3:///a",
            "s3://b/a//c",
            "s3://b/a%2fc",
            "memory://",
            "memory://a/b",
            "s3://b/a?x=1",
            "s3://b/a#x",
            "s3://b:90/a",
            "s3://key:hunter2@b/a",
            "s3://hunter2@b/a",
            "s3://b:hunter2/a",
        ] {
            let error = Place::parse(bad).unwrap_err();
            assert!(matches!(error, BackendError::Configuration { .. }), "{bad}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_configuration_does_not_show_its_secrets() {
        let config = StoreConfig {
            secret_access_key: Some(Secret::new("hunter2")),
            session_token: Some(Secret::new("hunter2")),
            ..StoreConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn plain_http_must_be_allowed() {
        let config = StoreConfig {
            endpoint: Some("http://127.0.0.1:1".into()),
            ..StoreConfig::default()
        };
        let error = open("s3://bucket", &config).unwrap_err();
        assert!(error.to_string().contains("plain http"), "{error}");
        let config = StoreConfig {
            endpoint: Some("not an url".into()),
            ..StoreConfig::default()
        };
        assert!(matches!(
            open("az://bucket", &config),
            Err(BackendError::Configuration { .. })
        ));
        let config = StoreConfig {
            ca_certificates: Some(b"-----BEGIN CERTIFICATE-----\nxx\n".to_vec()),
            ..StoreConfig::default()
        };
        assert!(open("gs://bucket", &config).is_err());
    }

    #[test]
    fn a_folder_that_is_missing_is_not_made_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/vault", folder.path().display());
        let error = open(&url, &StoreConfig::default()).unwrap_err();
        assert!(error.to_string().contains("mounted"), "{error}");
        open(
            &url,
            &StoreConfig {
                create_root: true,
                ..StoreConfig::default()
            },
        )
        .unwrap();
        open(&url, &StoreConfig::default()).unwrap();
    }

    #[tokio::test]
    async fn requests_through_all_wrappers_are_counted() {
        let store = open("memory://counted", &StoreConfig::default()).unwrap();
        store.backend.create("a", &[Bytes::from_static(b"xyz")]).await.unwrap();
        assert_eq!(store.backend.read("a", 9).await.unwrap(), "xyz");
        let traffic = store.counters.snapshot();
        assert_eq!(
            (traffic.puts, traffic.gets, traffic.bytes_put, traffic.bytes_got),
            (1, 1, 3, 3)
        );
        let again = open("memory://counted", &StoreConfig::default()).unwrap();
        assert_eq!(again.backend.length("a").await.unwrap(), 3);
    }
}
