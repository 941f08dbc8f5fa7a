//! Pages of metrics in a bundle.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Bundle;
use crate::app::App;
use crate::args::{METRICS_PORT, SupportBundleArgs};

/// Largest page of metrics: a coordinator with series for 10,000 items has some 20 MB.
const METRICS_MAX: u64 = 24 << 20;
/// How long a page of metrics is waited for.
const METRICS_TIME: Duration = Duration::from_secs(5);
/// Where a coordinator has its metrics, by default.
const COORDINATOR_METRICS_PORT: u16 = 7421;

/// Pages of metrics: of this machine's processes where they are by default, and of those that are named.
pub(crate) async fn metrics(app: &App, args: &SupportBundleArgs, bundle: &mut Bundle) {
    let here = [METRICS_PORT, COORDINATOR_METRICS_PORT].map(|port| (format!("127.0.0.1:{port}"), false));
    let named = args.metrics_of.iter().map(|address| (address.clone(), true));
    let mut found = false;
    for (at, (address, is_named)) in here.into_iter().chain(named).enumerate() {
        match timeout(METRICS_TIME, scrape(&address)).await {
            Ok(Ok(text)) => {
                found = true;
                let name = format!("metrics/{at}.txt");
                bundle.text(&name, &format!("metrics of {address}"), &text);
            }
            Ok(Err(error)) if is_named => bundle.lacks(&format!("metrics of {address}"), &error.to_string()),
            Err(_) if is_named => bundle.lacks(&format!("metrics of {address}"), "no answer in time"),
            _ => {}
        }
    }
    if !found && app.settings.metrics_file.value.is_none() {
        let where_ = format!(
            "nothing serves them at 127.0.0.1:{METRICS_PORT} and 127.0.0.1:{COORDINATOR_METRICS_PORT}; --metrics-of HOST:PORT"
        );
        bundle.lacks("metrics", &where_);
    }
}

/// One page, as text. Only what is of ours: another program may serve there.
async fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(METRICS_MAX).read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let is_good = head.split(' ').nth(1) == Some("200");
    if is_good && body.contains("tresor_") {
        return Ok(body.to_owned());
    }
    let line = head.lines().next().unwrap_or_default();
    Err(std::io::Error::other(format!("no metrics of tresor: {line:?}")))
}
