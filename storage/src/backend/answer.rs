//! What a store said, as the rest of the program can use it.
//!
//! object_store tells a missing key, a name that is taken and a lack of permission apart, and puts all else into one variant whose cause only its
//! text shows. So each request passes through [`Listening`], which reads the status and the store's error code while they are there, and
//! sends a [`Answer`] up the chain of sources instead. It also keeps the answers of the store apart from those of whatever hands out credentials.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};

use super::BackendError;
use super::transport::{PacedBody, Transport};

/// What an answer means for the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No such object.
    Missing,
    /// The name is taken.
    Exists,
    /// The range is outside the object.
    Range,
    /// No permission.
    Denied,
    /// No space.
    Full,
    /// Ask again.
    Later,
    /// Will not work.
    Refused,
}

/// An answer that is no success, or that never came.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    text: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Answer {}

/// Reads of an error's text at most.
const BODY_MAX: usize = 64 << 10;
/// Told of a text that is not in a store's own format.
const TEXT_MAX: usize = 200;

/// What a status and the store's error code mean. Codes of S3 and its relatives, Azure Blob and Google Cloud Storage.
///
/// Sources: S3 API reference, "Error responses"; Azure, "Blob service error codes"; GCS XML API, "HTTP status and error codes".
fn judge(status: u16, code: &str) -> Verdict {
    match (status, code) {
        // The bucket, not the object.
        (404, "NoSuchBucket" | "ContainerNotFound" | "ResourceNotFound" | "AccountNotFound") => Verdict::Refused,
        (404, _) => Verdict::Missing,
        (412, _) => Verdict::Exists,
        // Two conditional puts of one name met, and neither is done; or the bucket is being changed.
        (409, "ConditionalRequestConflict" | "OperationAborted" | "ContainerBeingDeleted" | "AccountBeingCreated") => {
            Verdict::Later
        }
        (409, "BlobAlreadyExists" | "PreconditionFailed" | "ConditionNotMet" | "ResourceAlreadyExists" | "") => {
            Verdict::Exists
        }
        (416, _) => Verdict::Range,
        // Quotas hide behind several statuses.
        (507, _) => Verdict::Full,
        (_, code)
            if code.contains("QuotaExceeded") || code.contains("StorageFull") || code == "InsufficientStorage" =>
        {
            Verdict::Full
        }
        (401 | 403, _) | (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => Verdict::Denied,
        // Bytes that were changed, or did not come, on the way.
        (
            400,
            "RequestTimeout"
            | "BadDigest"
            | "InvalidDigest"
            | "IncompleteBody"
            | "XAmzContentSHA256Mismatch"
            | "Md5Mismatch",
        ) => Verdict::Later,
        (408 | 425 | 429, _) => Verdict::Later,
        (501 | 505, _) => Verdict::Refused,
        (500.., _) => Verdict::Later,
        _ => Verdict::Refused,
    }
}

/// What stands between `<tag>` and `</tag>`.
fn element<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let start = body.find(&format!("<{tag}>"))? + tag.len() + 2;
    let length = body[start..].find(&format!("</{tag}>"))?;
    Some(&body[start..start + length])
}

/// Status, code and message of an answer that is no success. Only those: an error's text may hold a signature or a key's id.
fn read_answer(status: u16, reason: &str, body: &str) -> Answer {
    let code = element(body, "Code").unwrap_or_default();
    let message = element(body, "Message").unwrap_or(if code.is_empty() { body } else { "" });
    let message: String = message
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_MAX)
        .collect();
    let mut text = format!("{status} {}", if code.is_empty() { reason } else { code });
    if !message.is_empty() {
        text = format!("{text}: {message}");
    }
    Answer {
        verdict: judge(status, code),
        text,
    }
}

/// The last source: what really happened.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// A certificate that nobody vouches for, or a server that speaks no TLS: rustls says so by this kind, and asking again does not help.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    sources(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            // An error inside an error of I/O is not among its sources; only this shows it.
            std::iter::successors(Some(error), |error| error.get_ref()?.downcast_ref::<io::Error>())
                .any(|error| error.kind() == io::ErrorKind::InvalidData)
        })
}

/// Makes connections whose answers are read.
#[derive(Debug)]
pub(super) struct Listener {
    bucket: String,
    ca_certificates: Option<Vec<u8>>,
    answered: Arc<AtomicBool>,
}

impl Listener {
    /// For a store of this bucket or container, whose certificates are trusted by these authorities (PEM) besides the system's.
    pub(super) fn new(bucket: &str, ca_certificates: Option<&[u8]>) -> Self {
        Self {
            bucket: bucket.into(),
            ca_certificates: ca_certificates.map(<[u8]>::to_vec),
            answered: Arc::default(),
        }
    }
}

impl HttpConnector for Listener {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let service = Listening {
            inner,
            paced: Transport::new(options, self.ca_certificates.as_deref())?,
            bucket: self.bucket.clone(),
            answered: self.answered.clone(),
        };
        Ok(HttpClient::new(service))
    }
}

#[derive(Debug)]
struct Listening {
    inner: HttpClient,
    /// Sends bodies slice by slice.
    paced: Transport,
    bucket: String,
    /// The store, or the credentials' source, gave a good answer once: what fails from now on is not its address.
    answered: Arc<AtomicBool>,
}

/// Whether a request is for the store: it names the bucket. Others fetch credentials.
fn is_for_store(host: &str, path: &str, bucket: &str) -> bool {
    let is_virtual = host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'));
    // The second part for stores whose paths begin with the account.
    is_virtual || path.split('/').skip(1).take(2).any(|part| part == bucket)
}

impl Listening {
    fn unreached(&self, host: &str, is_http: bool, for_store: bool, error: &HttpError) -> HttpError {
        let kind = error.kind();
        let answered = self.answered.load(Relaxed);
        let verdict = if is_tls(error) {
            Verdict::Refused
        } else if !for_store && !answered {
            // No cloud around us, and no key in the environment or the configuration.
            Verdict::Denied
        } else if kind == HttpErrorKind::Unknown && is_http && !answered {
            // Plain HTTP is not allowed, or what answers is no HTTP server.
            Verdict::Refused
        } else {
            Verdict::Later
        };
        let what = match (for_store, kind) {
            (false, _) => "no credentials from",
            (true, HttpErrorKind::Connect) => "no connection to",
            (true, HttpErrorKind::Timeout) => "no answer in time from",
            (true, _) => "no complete answer from",
        };
        HttpError::new(
            kind,
            Answer {
                verdict,
                text: format!("{what} {host}: {}", root(error)),
            },
        )
    }
}

#[async_trait]
impl HttpService for Listening {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        let host = uri
            .authority()
            .map(|authority| authority.as_str().to_owned())
            .unwrap_or_default();
        let is_http = uri.scheme_str() == Some("http");
        let for_store = is_for_store(&host, uri.path(), &self.bucket);
        let sent = match request.extensions().get::<PacedBody>().cloned() {
            Some(body) => self.paced.send(request, body).await,
            None => self.inner.execute(request).await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Err(self.unreached(&host, is_http, for_store, &error)),
        };
        let status = response.status();
        if status.is_success() || status.is_informational() {
            self.answered.store(true, Relaxed);
            return Ok(response);
        }
        // An instance's credentials are asked for in two ways, and object_store tells by the 403 which one works.
        if status.as_u16() < 400 || (!for_store && status.as_u16() == 403) {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let mut answer = read_answer(
            parts.status.as_u16(),
            parts.status.canonical_reason().unwrap_or_default(),
            &text(body).await,
        );
        if !for_store {
            // Not found, where credentials are, is not an object that was not found.
            if answer.verdict != Verdict::Later {
                answer.verdict = Verdict::Denied;
            }
            answer.text = format!("no credentials from {host}: {}", answer.text);
        }
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// The beginning of a body; what a broken connection leaves of it.
async fn text(body: HttpResponseBody) -> String {
    let mut bytes = Vec::new();
    let mut stream = body.bytes_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(BODY_MAX - bytes.len())]);
        if bytes.len() == BODY_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Turns an error of object_store into ours. `end` is the end of the range that was asked for.
pub(super) fn refine(operation: &'static str, name: &str, end: u64, error: &object_store::Error) -> BackendError {
    let (verdict, answer) = match sources(error).find_map(|error| error.downcast_ref::<Answer>()) {
        Some(answer) => (answer.verdict, Some(answer.clone())),
        None => (classify(error), None),
    };
    let name = name.to_owned();
    let source: Box<dyn Error + Send + Sync> = match answer {
        Some(answer) => Box::new(answer),
        // Their texts repeat their sources; the whole is told once.
        None => error.to_string().into(),
    };
    match verdict {
        Verdict::Missing => BackendError::NotFound { name },
        Verdict::Exists if operation == "put" => BackendError::Exists { name },
        Verdict::Range if operation == "read" => BackendError::Range { name, end },
        Verdict::Denied => BackendError::Denied {
            operation,
            name,
            source,
        },
        Verdict::Full => BackendError::Full {
            operation,
            name,
            source,
        },
        Verdict::Later => BackendError::Unavailable {
            operation,
            name,
            source,
        },
        Verdict::Exists | Verdict::Range | Verdict::Refused => BackendError::Refused {
            operation,
            name,
            source,
        },
    }
}

/// For errors without an answer: object_store's own, and those of a body that broke off.
fn classify(error: &object_store::Error) -> Verdict {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => Verdict::Missing,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Verdict::Exists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Verdict::Denied,
        E::Generic { .. } if sources(error).any(|error| error.is::<HttpError>()) => Verdict::Later,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_codes_mean_what_helps() {
        for (status, code, verdict) in [
            (404, "NoSuchKey", Verdict::Missing),
            (404, "BlobNotFound", Verdict::Missing),
            (404, "", Verdict::Missing),
            (404, "NoSuchBucket", Verdict::Refused),
            (404, "ContainerNotFound", Verdict::Refused),
            (412, "PreconditionFailed", Verdict::Exists),
            (409, "BlobAlreadyExists", Verdict::Exists),
            (409, "ConditionalRequestConflict", Verdict::Later),
            (409, "BlobImmutableDueToPolicy", Verdict::Refused),
            (401, "", Verdict::Denied),
            (403, "AccessDenied", Verdict::Denied),
            (400, "ExpiredToken", Verdict::Denied),
            (400, "InvalidRequest", Verdict::Refused),
            (400, "BadDigest", Verdict::Later),
            (403, "QuotaExceeded", Verdict::Full),
            (507, "XMinioStorageFull", Verdict::Full),
            (416, "InvalidRange", Verdict::Range),
            (429, "", Verdict::Later),
            (500, "InternalError", Verdict::Later),
            (501, "NotImplemented", Verdict::Refused),
            (503, "SlowDown", Verdict::Later),
            (504, "", Verdict::Later),
            (301, "PermanentRedirect", Verdict::Refused),
        ] {
            assert_eq!(judge(status, code), verdict, "{status} {code}");
        }
    }

    #[test]
    fn an_answer_tells_code_and_message_and_no_secret() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The signature\ndoes not match</Message>\
                    <AWSAccessKeyId>AKIA1</AWSAccessKeyId><StringToSign>AWS4-HMAC</StringToSign></Error>";
        assert_eq!(
            read_answer(403, "Forbidden", body).to_string(),
            "403 SignatureDoesNotMatch: The signature"
        );
        assert_eq!(read_answer(502, "Bad Gateway", "").to_string(), "502 Bad Gateway");
        assert_eq!(
            read_answer(502, "Bad Gateway", "upstream\u{7} is away\nmore").to_string(),
            "502 Bad Gateway: upstream is away"
        );
        assert_eq!(
            read_answer(500, "x", "<Code>broken</Code").to_string(),
            "500 x: <Code>broken</Code"
        );
        assert!(read_answer(500, "x", &"y".repeat(10_000)).to_string().len() < 300);
    }

    #[test]
    fn requests_for_credentials_are_told_from_those_for_the_store() {
        for (host, path) in [
            ("bucket.s3.eu-west-1.amazonaws.com", "/packs/1"),
            ("127.0.0.1:9000", "/bucket/packs/1"),
            ("127.0.0.1:9000", "/bucket"),
            ("127.0.0.1:10000", "/account/bucket/packs/1"),
        ] {
            assert!(is_for_store(host, path, "bucket"), "{host}{path}");
        }
        for (host, path) in [
            ("169.254.169.254", "/latest/api/token"),
            ("sts.amazonaws.com", "/"),
            ("bucketx.s3.amazonaws.com", "/a/b/bucket"),
        ] {
            assert!(!is_for_store(host, path, "bucket"), "{host}{path}");
        }
    }
}
