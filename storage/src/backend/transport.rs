//! Sends the body of a put slice by slice, as the job's throttles let it through.
//!
//! object_store's own client takes a body whole and sends it as fast as the connection takes it: 32 MiB of a pack in one burst. So a paced put carries its
//! body beside the request, and goes out over a client that is made from the same options. The request is signed and its length is announced by
//! object_store as ever; only when its bytes flow is decided here.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};
use object_store::{ClientConfigKey as Key, ClientOptions, PutPayload};

use crate::throttle::Pace;

/// A body, and what its bytes have to pass.
#[derive(Debug, Clone)]
pub(super) struct PacedBody {
    pieces: PutPayload,
    pace: Pace,
}

impl PacedBody {
    /// Of the request that this task works on.
    pub(super) fn new(pieces: PutPayload, pace: &Pace) -> Self {
        Self {
            pieces,
            pace: pace.of_request(),
        }
    }
}

/// How long to wait for a connection, where the options do not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client whose bodies are streams.
#[derive(Debug)]
pub(super) struct Transport(reqwest::Client);

impl Transport {
    /// As object_store makes its own: the same proxies, certificates and rules.
    ///
    /// # Errors
    /// When the options make no client.
    pub(super) fn new(options: &ClientOptions, ca_certificates: Option<&[u8]>) -> object_store::Result<Self> {
        Self::build(options, ca_certificates).map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })
    }

    fn build(options: &ClientOptions, ca_certificates: Option<&[u8]>) -> reqwest::Result<Self> {
        let value = |key: Key| options.get_config_value(&key);
        let is = |key: Key| value(key).as_deref() == Some("true");
        let mut builder = reqwest::ClientBuilder::new()
            .connect_timeout(CONNECT_TIMEOUT)
            .https_only(!is(Key::AllowHttp))
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        if let Some(agent) = value(Key::UserAgent) {
            builder = builder.user_agent(agent);
        }
        if let Some(url) = value(Key::ProxyUrl) {
            let mut proxy = reqwest::Proxy::all(url)?;
            if let Some(pem) = value(Key::ProxyCaCertificate) {
                builder = builder.tls_certs_merge([reqwest::tls::Certificate::from_pem(pem.as_bytes())?]);
            }
            if let Some(excludes) = value(Key::ProxyExcludes) {
                proxy = proxy.no_proxy(reqwest::NoProxy::from_string(&excludes));
            }
            builder = builder.proxy(proxy);
        }
        let trusted = match ca_certificates {
            Some(pem) => reqwest::tls::Certificate::from_pem_bundle(pem)?,
            None => Vec::new(),
        };
        builder = match is(Key::NoSystemCertificates) {
            true => builder.tls_certs_only(trusted),
            false => builder.tls_certs_merge(trusted),
        };
        if is(Key::AllowInvalidCertificates) {
            builder = builder.danger_accept_invalid_certs(true);
        }
        if is(Key::Http2Only) {
            builder = builder.http2_prior_knowledge();
        } else if is(Key::Http1Only) {
            builder = builder.http1_only();
        }
        Ok(Self(builder.build()?))
    }

    /// Sends a request with another body than its own.
    pub(super) async fn send(&self, request: HttpRequest, body: PacedBody) -> Result<HttpResponse, HttpError> {
        let (parts, _) = request.into_parts();
        let url = parts
            .uri
            .to_string()
            .parse()
            .map_err(|error: url::ParseError| HttpError::new(HttpErrorKind::Request, error))?;
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        let pieces: Vec<Bytes> = body.pieces.into_iter().collect();
        let slices = body.pace.stream(pieces).map(Ok::<_, Arc<std::io::Error>>);
        *sent.body_mut() = Some(reqwest::Body::wrap_stream(slices));
        let answer = self.0.execute(sent).await.map_err(read_error)?;
        let mut response = http::Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        // The answer to a put is a few lines.
        let text = answer.bytes().await.map_err(read_error)?;
        response
            .body(text.into())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
    }
}

fn read_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else if is_cut(&error) {
        HttpErrorKind::Interrupted
    } else {
        HttpErrorKind::Unknown
    };
    // The URL is told by whoever asked.
    HttpError::new(kind, error.without_url())
}

/// A connection that ended before the answer did.
fn is_cut(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |error: &&(dyn Error + 'static)| (*error).source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            )
        })
}
