//! Which trace a call belongs to, as it travels: the `traceparent` of W3C Trace Context (level 1, <https://www.w3.org/TR/trace-context/>).
//!
//! A command makes a trace, its calls carry it to a coordinator, leases carry it to workers, and their calls to each other carry it on. What is logged on
//! the way has its id, and where spans are exported they hang together. Nothing depends on it: a header that cannot be read is none.
//!
//! A span's context is kept beside the span, in the process's subscriber. Whoever exports spans installs a [`Tracer`], whose spans have ids of their own;
//! without one what came is passed on as it came.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Instrument as _, Span};
use tracing_subscriber::registry::{LookupSpan as _, Registry};

/// The header.
const NAME: &str = "traceparent";
/// As HTTP has it.
const HEADER: HeaderName = HeaderName::from_static(NAME);
/// Its length in the one version that there is.
const LENGTH: usize = 55;

/// A place in a trace: what comes next is below that span.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    /// The trace; not all zero.
    pub trace: [u8; 16],
    /// The span; not all zero.
    pub span: [u8; 8],
    /// Whether it is exported.
    pub sampled: bool,
}

impl Traceparent {
    /// A place in a trace that begins with 24 bytes, which were drawn or derived; exported wherever somebody exports.
    pub fn new(bytes: [u8; 24]) -> Self {
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&bytes[..16]);
        span.copy_from_slice(&bytes[16..]);
        // All zero means none.
        trace[15] |= u8::from(trace == [0; 16]);
        span[7] |= u8::from(span == [0; 8]);
        Self {
            trace,
            span,
            sampled: true,
        }
    }

    /// The trace's id, 32 hex digits.
    pub fn trace_id(&self) -> String {
        crate::ids::hex(&self.trace)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (crate::ids::hex(&self.trace), crate::ids::hex(&self.span));
        write!(f, "00-{trace}-{span}-{:02x}", u8::from(self.sampled))
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no traceparent of W3C Trace Context")]
pub struct NotTraceparent;

impl FromStr for Traceparent {
    type Err = NotTraceparent;

    /// A later version may have more behind what is known, and is read as far as that.
    fn from_str(text: &str) -> Result<Self, NotTraceparent> {
        let bytes = text.as_bytes();
        let known = bytes.get(..LENGTH).ok_or(NotTraceparent)?;
        let is_more = bytes.get(LENGTH).is_some_and(|next| *next == b'-');
        let fits = match &known[..2] {
            b"ff" => false,
            b"00" => bytes.len() == LENGTH,
            _ => bytes.len() == LENGTH || is_more,
        };
        if !fits || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return Err(NotTraceparent);
        }
        let [_version] = hex_of(&known[..2])?;
        let (trace, span, [flags]) = (hex_of(&known[3..35])?, hex_of(&known[36..52])?, hex_of(&known[53..])?);
        if trace == [0; 16] || span == [0; 8] {
            return Err(NotTraceparent);
        }
        Ok(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// Bytes of hex digits, small ones only, as the specification has it.
fn hex_of<const N: usize>(digits: &[u8]) -> Result<[u8; N], NotTraceparent> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(NotTraceparent),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

/// Gives spans ids of their own.
pub trait Tracer: Send + Sync + 'static {
    /// Puts a span below what came from elsewhere.
    fn adopt(&self, span: &Span, parent: &Traceparent);

    /// Where a span is; none where it is in no trace.
    fn of(&self, span: &Span) -> Option<Traceparent>;
}

static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Installs who gives spans their ids, for the rest of the process. The second one is dropped.
pub fn install(tracer: Box<dyn Tracer>) {
    let _ = TRACER.set(tracer);
}

/// In the extensions of a span.
struct Adopted(Traceparent);

/// Puts a span below what came from elsewhere. Before anything happens in it.
pub fn adopt(span: &Span, parent: &Traceparent) {
    if let Some(tracer) = TRACER.get() {
        tracer.adopt(span, parent);
        return;
    }
    span.with_subscriber(|(id, subscriber)| {
        if let Some(span) = subscriber.downcast_ref::<Registry>().and_then(|all| all.span(id)) {
            span.extensions_mut().replace(Adopted(*parent));
        }
    });
}

/// Where a span is: what comes next is below that.
pub fn of(span: &Span) -> Option<Traceparent> {
    if let Some(tracer) = TRACER.get() {
        return tracer.of(span);
    }
    let found = span.with_subscriber(|(id, subscriber)| {
        let span = subscriber.downcast_ref::<Registry>()?.span(id)?;
        span.scope()
            .find_map(|span| span.extensions().get::<Adopted>().map(|adopted| adopted.0))
    });
    found.flatten()
}

/// Where the running code is.
pub fn current() -> Option<Traceparent> {
    of(&Span::current())
}

/// Says in the headers of a call where it comes from, if that is in a trace.
pub fn carry(headers: &mut HeaderMap) {
    if let Some(value) = current().and_then(|here| HeaderValue::from_str(&here.to_string()).ok()) {
        headers.insert(HEADER, value);
    }
}

/// As [`carry`], of a call of gRPC.
pub fn carry_in<T>(request: &mut tonic::Request<T>) {
    if let Some(value) = current().and_then(|here| here.to_string().parse().ok()) {
        request.metadata_mut().insert(NAME, value);
    }
}

/// Where a call comes from, if its headers say so.
pub fn carried(headers: &HeaderMap) -> Option<Traceparent> {
    headers.get(HEADER)?.to_str().ok()?.parse().ok()
}

/// As [`carried`], of a call of gRPC.
pub fn carried_in<T>(request: &tonic::Request<T>) -> Option<Traceparent> {
    request.metadata().get(NAME)?.to_str().ok()?.parse().ok()
}

/// The span of a call that came in: below where it comes from, if its headers say so; else none, since calls that nobody traces are many.
pub fn call(headers: &HeaderMap, method: &str) -> Span {
    let Some(parent) = carried(headers) else {
        return Span::none();
    };
    let span = tracing::info_span!("call", method, trace = parent.trace_id());
    adopt(&span, &parent);
    span
}

/// Puts every call that comes to a service into a span of its own, where its headers say to which trace it belongs.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

impl<S> tower::Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

/// A service behind a [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct Traced<S>(S);

impl<S, B> tower::Service<http::Request<B>> for Traced<S>
where
    S: tower::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tracing::instrument::Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let span = call(request.headers(), request.uri().path());
        let answered = span.in_scope(|| self.0.call(request));
        answered.instrument(span)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_place_survives_the_way() {
        let place: Traceparent = TEXT.parse().unwrap();
        assert!(place.sampled);
        assert_eq!(place.to_string(), TEXT);
        assert_eq!(place.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let unsampled: Traceparent = TEXT.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.sampled);
        assert_eq!(
            Traceparent::new([0; 24]).to_string().parse(),
            Ok(Traceparent::new([0; 24]))
        );
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("traceparent", TEXT.parse().unwrap());
        assert_eq!(carried_in(&request), Some(place));
    }

    #[test]
    fn what_is_no_place_is_none() {
        let later = format!("{}-more", TEXT.replacen("00", "01", 1));
        assert!(later.parse::<Traceparent>().is_ok(), "of a later version what is known");
        let wrong = [
            String::new(),
            TEXT.to_uppercase(),
            format!("{TEXT}-more"),
            TEXT.replacen("00", "ff", 1),
            TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            TEXT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            TEXT.replace('-', "_"),
            TEXT.replace('4', "ä"),
            later.replace("-more", "more"),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Traceparent>(), Err(NotTraceparent), "{text}");
        }
        for cut in 0..TEXT.len() {
            assert!(TEXT[..cut].parse::<Traceparent>().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_happens_below_a_span_is_in_its_trace() {
        tracing::subscriber::with_default(Registry::default(), || {
            let place = TEXT.parse().unwrap();
            let span = tracing::info_span!("call");
            assert_eq!(of(&span), None);
            adopt(&span, &place);
            let mut headers = HeaderMap::new();
            span.in_scope(|| tracing::info_span!("inner").in_scope(|| carry(&mut headers)));
            assert_eq!(carried(&headers), Some(place));
            assert_eq!(current(), None);
        });
    }
}
