//! Spans for a collector of OpenTelemetry: OTLP as protobuf over HTTP.
//!
//! Spans wait in a bounded queue (2048, or `OTEL_BSP_MAX_QUEUE_SIZE`) and are sent in batches by a thread of their own. A collector that is away costs
//! what does not fit into it, and a warning now and then; nothing ever waits for it but the end of the process, for [`LAST`]. Which traces are sampled,
//! how large batches are, headers for the collector and the attributes of this process are said by the standard variables `OTEL_*`.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;
use tresor_proto::trace::{self, Traceparent};
use url::Url;

use crate::error::CliError;

/// How long one request to the collector may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what was not sent yet.
const LAST: Duration = Duration::from_secs(3);
/// How often it is said at most that the collector does not take spans.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// Where collectors take spans, below the address that they are known by.
const PATH: &str = "v1/traces";

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(Url);

impl Endpoint {
    /// The standard variable that names a collector.
    pub(crate) const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// Where exactly spans are sent.
    fn spans(&self) -> String {
        let base = self.0.as_str().trim_end_matches('/');
        if base.ends_with(PATH) {
            return base.to_owned();
        }
        format!("{base}/{PATH}")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(String::from("is no http:// or https:// URL of a collector"));
        }
        // It is shown in settings and warnings.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(String::from(
                "has a user, a password or a query: say those in OTEL_EXPORTER_OTLP_HEADERS",
            ));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sends requests of the exporter, whatever thread they come from.
struct Sender {
    client: reqwest::Client,
    /// One thread, so that spans of one that stops are sent while all others end. None once it was dropped.
    runtime: Option<tokio::runtime::Runtime>,
    said: Mutex<Option<Instant>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Sender {
    fn new() -> Result<Self, std::io::Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()?;
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self {
            client,
            runtime: Some(runtime),
            said: Mutex::default(),
        })
    }

    /// Says that the collector does not take spans, now and then.
    fn say(&self, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|before| before.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!(why, "spans are lost: their collector does not take them");
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let asked = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body);
        let answer = async move {
            let answer = asked.send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        };
        let runtime = self.runtime.as_ref().ok_or("the process ends")?;
        // The exporter's thread is no thread of a runtime.
        let answer = runtime.spawn(answer).await;
        let (status, headers, bytes) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.say(&chain(&error.without_url()));
                return Err("the collector cannot be reached".into());
            }
            Err(_) => return Err("the process ends".into()),
        };
        if !status.is_success() {
            self.say(&format!("it answered {status}"));
        }
        let mut response = Response::new(bytes);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Gives spans the ids that they are exported under.
struct Ids;

impl trace::Tracer for Ids {
    fn adopt(&self, span: &Span, parent: &Traceparent) {
        let flags = if parent.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        let (trace, id) = (TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
        let place = SpanContext::new(trace, id, flags, true, TraceState::default());
        // Fails for a span that is not exported, or has begun: then it stays where it is.
        let _ = span.set_parent(Context::new().with_remote_span_context(place));
    }

    fn of(&self, span: &Span) -> Option<Traceparent> {
        let context = span.context();
        let place = context.span().span_context().clone();
        place.is_valid().then(|| Traceparent {
            trace: place.trace_id().to_bytes(),
            span: place.span_id().to_bytes(),
            sampled: place.is_sampled(),
        })
    }
}

/// Exports spans until it is finished.
pub(crate) struct Exporting {
    provider: SdkTracerProvider,
}

impl Exporting {
    /// Begins to export to a collector, as that service.
    ///
    /// # Errors
    /// When no thread or client can be had.
    pub(crate) fn begin(endpoint: &Endpoint, service: &'static str) -> Result<Self, CliError> {
        let failed = |error: &dyn std::error::Error| CliError::Settings {
            problems: vec![format!("spans cannot be exported to {endpoint}: {}", chain(error))],
        };
        let sender = Sender::new().map_err(|error| failed(&error))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.spans())
            .with_timeout(REQUEST)
            .build()
            .map_err(|error| failed(&error))?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("host.name", tresor_worker::home::host_name()));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        trace::install(Box::new(Ids));
        Ok(Self { provider })
    }

    /// The layer that makes spans of spans: of our own crates down to `debug`, with what is logged in them at `info` and above.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours: FilterFn = FilterFn::new(is_exported as fn(&Metadata<'_>) -> bool);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("tresor"))
            .with_location(false)
            .with_threads(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what was not sent yet, for a moment.
    pub(crate) fn finish(self) {
        // What cannot be sent by now is lost; there is nobody left to tell.
        let _ = self.provider.shutdown_with_timeout(LAST);
    }
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let most = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    *metadata.level() <= most && metadata.target().starts_with("tresor")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn spans_go_to_the_path_of_collectors() {
        let spans = |text: &str| text.parse::<Endpoint>().unwrap().spans();
        assert_eq!(spans("http://otel:4318"), "http://otel:4318/v1/traces");
        assert_eq!(spans("https://otel/in/"), "https://otel/in/v1/traces");
        assert_eq!(spans("http://otel:4318/v1/traces"), "http://otel:4318/v1/traces");
    }

    #[test]
    fn what_is_no_collector_or_holds_a_secret_is_refused() {
        for text in [
            "otel:4318",
            "file:///tmp",
            "http://",
            "http://me:secret@otel",
            "http://otel/?key=1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
