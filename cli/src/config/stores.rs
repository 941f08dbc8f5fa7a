//! `[stores."URL"]`: how a store is reached, with files that hold the secrets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tresor_storage::backend::{BackendError, OpenStore, Secret, StoreConfig, open};
use tresor_worker::home::Stores;
use zeroize::Zeroizing;

use crate::error::CliError;

/// Largest secret or certificate file.
const SECRET_MAX: u64 = 256 << 10;
/// Bounds of a store's time to answer.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Most repetitions of a request.
const RETRIES_MAX: u32 = 20;

/// How a store is reached. What is not said comes from the environment of the store's kind (`AWS_…`, `AZURE_…`, `GOOGLE_…`) or the machine's role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreTable {
    /// URL of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// S3: id of the access key. Azure: the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    /// File with the secret access key (S3), the account's key (Azure) or the service account's key as JSON (Google).
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_access_key_file: Option<PathBuf>,
    /// File with the token of temporary credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token_file: Option<PathBuf>,
    /// File with certificates (PEM) that are trusted besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_certificates_file: Option<PathBuf>,
    /// Allows http:// endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_http: Option<bool>,
    /// Sends requests unsigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_signature: Option<bool>,
    /// The bucket is in the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_hosted: Option<bool>,
    /// Asks the store to refuse a name that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    create_only: Option<bool>,
    /// How long the store may take to answer: "30s", "5m".
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout: Option<String>,
    /// How often a request is repeated that failed for a reason that may pass, 0 to 20; by default 7 times within four minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    retries_max: Option<u32>,
}

impl StoreTable {
    /// All that is wrong with its values.
    pub(super) fn problems(&self) -> Vec<String> {
        let retries = self.retries_max.filter(|retries| *retries > RETRIES_MAX);
        let retries = retries.map(|retries| format!("retries_max {retries}: 0 to {RETRIES_MAX} are possible"));
        self.timeout().err().into_iter().chain(retries).collect()
    }

    fn timeout(&self) -> Result<Option<Duration>, String> {
        let Some(text) = &self.request_timeout else {
            return Ok(None);
        };
        let parsed: jiff::SignedDuration = text
            .parse()
            .map_err(|_| format!("request_timeout {text:?} is no duration such as \"30s\""))?;
        let timeout = Duration::try_from(parsed).unwrap_or_default();
        if TIMEOUTS.contains(&timeout) {
            Ok(Some(timeout))
        } else {
            Err(format!("request_timeout {text:?}: 1 s to 1 h are possible"))
        }
    }

    /// What nobody else is to see: the id of the key, and the files that hold secrets.
    pub(crate) fn guarded(&self, home: &Path) -> (Option<&str>, Vec<PathBuf>) {
        let files = [&self.secret_access_key_file, &self.session_token_file];
        let files = files.into_iter().flatten().map(|path| home.join(path));
        (self.access_key_id.as_deref(), files.collect())
    }

    /// With the secrets read from their files.
    fn open(&self, home: &Path) -> Result<StoreConfig, CliError> {
        let secret = |path: &Option<PathBuf>| -> Result<Option<Secret>, CliError> {
            let Some(path) = path else { return Ok(None) };
            let text = read_small(&home.join(path))?;
            Ok(Some(Secret::new(text.trim())))
        };
        let mut config = StoreConfig {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: secret(&self.secret_access_key_file)?,
            session_token: secret(&self.session_token_file)?,
            request_timeout: self
                .timeout()
                .map_err(|why| CliError::Settings { problems: vec![why] })?,
            ..StoreConfig::default()
        };
        if let Some(path) = &self.ca_certificates_file {
            config.ca_certificates = Some(read_small(&home.join(path))?.as_bytes().to_vec());
        }
        if let Some(retries) = self.retries_max {
            config.retry.attempts_max = retries + 1;
        }
        config.allow_http = self.allow_http.unwrap_or(config.allow_http);
        config.skip_signature = self.skip_signature.unwrap_or(config.skip_signature);
        config.virtual_hosted = self.virtual_hosted.unwrap_or(config.virtual_hosted);
        config.create_only = self.create_only.unwrap_or(config.create_only);
        Ok(config)
    }
}

/// Opens stores by what the configuration says of them. Secrets are read when a store is opened: what is wrong with another one stops nobody.
pub(crate) struct StoreTables {
    tables: BTreeMap<String, StoreTable>,
    home: PathBuf,
}

impl StoreTables {
    /// With the tables of the configuration of a home.
    pub(crate) fn new(tables: BTreeMap<String, StoreTable>, home: &Path) -> Self {
        Self {
            tables,
            home: home.to_owned(),
        }
    }

    /// What is said of a store: by the longest beginning of its URL that ends where a part of the path ends.
    fn of(&self, url: &str) -> Option<&StoreTable> {
        let url = url.trim_end_matches('/');
        let fits = |prefix: &str| {
            url.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let trimmed = self
            .tables
            .iter()
            .map(|(prefix, table)| (prefix.trim_end_matches('/'), table));
        trimmed
            .filter(|(prefix, _)| fits(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, table)| table)
    }
}

impl Stores for StoreTables {
    fn open(&self, url: &str, create: bool) -> Result<OpenStore, BackendError> {
        let config = self
            .of(url)
            .map_or_else(|| Ok(StoreConfig::default()), |table| table.open(&self.home));
        let mut config = config.map_err(|error| BackendError::Configuration {
            url: url.to_owned(),
            why: error.chain(),
        })?;
        config.create_root |= create;
        open(url, &config)
    }
}

/// Reads a small text file; what it holds is cleared from memory when dropped.
///
/// # Errors
/// When it cannot be read, is too large or not UTF-8.
pub(crate) fn read_small(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let failed = |source| CliError::File {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    // With room for all of it from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let read = File::open(path)
        .and_then(|file| file.take(SECRET_MAX + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if read as u64 > SECRET_MAX {
        let why = format!("it has more than {SECRET_MAX} bytes");
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "hunter2\n").unwrap();
        let table = StoreTable {
            secret_access_key_file: Some(PathBuf::from("key")),
            ..Default::default()
        };
        let config = table.open(folder.path()).unwrap();
        assert_eq!(config.secret_access_key, Some(Secret::new("hunter2")));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&table).unwrap().contains("hunter2"));
    }

    #[test]
    fn the_longest_beginning_of_the_url_wins() {
        let table = |region: &str| StoreTable {
            region: Some(region.to_owned()),
            ..Default::default()
        };
        let tables = [("s3://a", "one"), ("s3://a/b/", "two"), ("s3://a/b/c", "three")];
        let tables = tables
            .into_iter()
            .map(|(url, region)| (url.to_owned(), table(region)))
            .collect();
        let stores = StoreTables::new(tables, Path::new("/h"));
        let region = |url| stores.of(url).and_then(|table| table.region.as_deref());
        for (url, found) in [
            ("s3://a", Some("one")),
            ("s3://a/bb", Some("one")),
            ("s3://a/b", Some("two")),
            ("s3://a/b/c/d/", Some("three")),
            ("s3://ab", None),
        ] {
            assert_eq!(region(url), found, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_store_stops_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let broken = StoreTable {
            secret_access_key_file: Some(PathBuf::from("none")),
            ..Default::default()
        };
        let stores = StoreTables::new([(String::from("s3://b"), broken)].into(), folder.path());
        stores.open("memory://cli-other", false).unwrap();
        let error = stores.open("s3://b/x", false).unwrap_err();
        assert!(error.to_string().contains("could not read"), "{error}");
    }

    #[test]
    fn a_secret_file_that_is_missing_or_endless_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read_small(&folder.path().join("none"))
                .unwrap_err()
                .chain()
                .contains("could not read")
        );
        assert!(read_small(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn timeouts_and_retries_are_bounded() {
        let table = StoreTable {
            retries_max: Some(RETRIES_MAX + 1),
            ..Default::default()
        };
        assert_eq!(table.problems().len(), 1);
        for (text, right) in [
            ("30s", true),
            ("5m", true),
            ("0s", false),
            ("2h", false),
            ("-5s", false),
            ("5", false),
        ] {
            let table = StoreTable {
                request_timeout: Some(String::from(text)),
                ..Default::default()
            };
            assert_eq!(table.problems().is_empty(), right, "{text}");
        }
    }
}
