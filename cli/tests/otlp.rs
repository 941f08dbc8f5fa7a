//! Spans of a real backup arrive at a collector of OpenTelemetry, and hang together from the command to the store.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::node::until;
use common::{Site, disk};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// A span with the service that sent it.
type Sent = (String, Span);

/// Takes spans over HTTP.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&spans);
        // Both end with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, taken) = (stream.unwrap(), Arc::clone(&taken));
                std::thread::spawn(move || serve(stream, &taken));
            }
        });
        Self { url, spans }
    }

    fn spans(&self) -> Vec<Sent> {
        self.spans.lock().unwrap().clone()
    }
}

/// Answers requests of one connection until it ends.
fn serve(stream: TcpStream, taken: &Mutex<Vec<Sent>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        assert!(first.starts_with("POST /v1/traces "), "{first}");
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = match name.unwrap().value.clone().unwrap().value.unwrap() {
                Value::StringValue(text) => text,
                other => panic!("{other:?}"),
            };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            taken.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    }
}

/// The names of a span and of those above it, the span first, with their services.
fn way_up(spans: &[Sent], span: &Span) -> Vec<(String, String)> {
    let by_id: BTreeMap<&[u8], &Sent> = spans.iter().map(|sent| (sent.1.span_id.as_slice(), sent)).collect();
    let mut way = Vec::new();
    let mut next = Some(span.span_id.as_slice());
    while let Some((service, span)) = next.and_then(|id| by_id.get(id)) {
        way.push((service.clone(), span.name.clone()));
        next = Some(span.parent_span_id.as_slice());
    }
    way
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match value.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn spans_of_a_backup_hang_together_from_the_command_to_the_store() {
    let collector = Collector::start();
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let log = std::fs::File::create(site.path("node.log")).unwrap();
    let mut node = site
        .command(&["node", "start", "--otlp", &collector.url])
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    until("the node works", || {
        common::node::log_of(&site).contains("the node of home")
    });
    let made = site.json(&["--otlp", &collector.url, "backup", &image]);
    let job = made["job"].as_u64().unwrap();
    common::node::signal("-TERM", &node);
    assert!(node.wait().unwrap().success());

    let spans = collector.spans();
    let puts = spans.iter().filter(|(_, span)| {
        let is = |key, value: &str| attribute(span, key).as_deref() == Some(value);
        span.name == "store" && is("kind", "put") && is("class", "packs")
    });
    let puts: Vec<&Span> = puts.map(|(_, span)| span).collect();
    assert!(!puts.is_empty(), "{} spans", spans.len());
    let command = spans
        .iter()
        .find(|(service, span)| service == "tresor" && span.name == "command");
    let (_, command) = command.unwrap();
    for put in puts {
        assert_eq!(put.trace_id, command.trace_id, "one trace");
        assert_eq!(attribute(put, "outcome").as_deref(), Some("done"));
        assert!(attribute(put, "bytes").unwrap().parse::<u64>().unwrap() > 1000);
        let way = way_up(&spans, put);
        let names: Vec<&str> = way.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names.first(), Some(&"store"));
        assert_eq!(
            names[names.len() - 4..],
            ["job", "lease", "call", "command"],
            "{names:?}"
        );
        assert_eq!(way.last().unwrap().0, "tresor");
        assert!(
            way[..way.len() - 1].iter().all(|(service, _)| service == "tresor-node"),
            "{way:?}"
        );
    }
    // The vault was made by another job of the same command.
    let is_backup = |span: &Span| span.name == "job" && attribute(span, "work").as_deref() == Some("backup");
    let of_job = spans.iter().find(|(_, span)| is_backup(span)).unwrap();
    assert_eq!(attribute(&of_job.1, "job"), Some(job.to_string()));
    // No span of anything says where a store is.
    let address = site.text("home/stores");
    for (_, span) in &spans {
        assert!(!format!("{span:?}").contains(&address), "{span:?}");
    }
    // What is kept of the job says which trace to look for.
    let shown = site.json(&["job", "show", &job.to_string(), "--log"]);
    let trace: String = command.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown["attempts"][0]["trace"].as_str(), Some(trace.as_str()));
}

#[test]
fn a_collector_that_is_away_costs_a_line() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    // A port that nobody listens at: taken, and given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let ran = site.run(&["--otlp", &format!("http://127.0.0.1:{port}"), "backup", &image]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(ran.stderr.matches("spans are lost").count(), 1, "{ran}");
    let wrong = site.run(&["--otlp", "otel:4318", "status"]);
    assert_eq!(wrong.code, 2, "{wrong}");
}
