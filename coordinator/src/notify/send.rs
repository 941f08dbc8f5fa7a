//! One message to one receiver. What comes back is words for people without anything secret, whoever said them.

use std::error::Error;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;

use super::mail;
use super::secret::Secret;
use super::text::{self, Letterhead, TEST, TEST_TITLE};
use crate::notify::decide::sentence;
use crate::state::channels::{ChannelSpec, Message, Target};

/// How long a connection may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long all of it may take.
pub const WHOLE_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read: enough for its words.
const ANSWER_BYTES_MAX: usize = 1024;
/// Characters of an answer that are shown.
const ANSWER_CHARS_MAX: usize = 200;
/// By which the receiver knows a message that comes twice.
const ID_HEADER: &str = "X-Tresor-Id";
/// What the message is about.
const EVENT_HEADER: &str = "X-Tresor-Event";
/// HMAC-SHA256 of the body, under the channel's key.
const SIGNATURE_HEADER: &str = "X-Tresor-Signature";

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotTaken {
    /// In words, without secrets.
    pub why: String,
    /// The receiver understood and refused: it will again.
    pub is_refusal: bool,
}

impl NotTaken {
    pub(super) fn unclear(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_refusal: false,
        }
    }
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Who tells, and to whom.
    pub head: Letterhead,
    /// By which the receiver knows it again.
    pub id: String,
    /// What.
    pub message: Message,
    /// Whether it is only a test.
    pub is_test: bool,
}

impl Letter {
    fn event(&self) -> &'static str {
        if self.is_test { TEST } else { self.message.cause.text() }
    }

    pub(super) fn title(&self) -> String {
        match self.is_test {
            true => TEST_TITLE.to_owned(),
            false => text::title(&self.message),
        }
    }
}

/// Sends it: what the other side answered. Ends within [`WHOLE_TIME`].
///
/// # Errors
/// [`NotTaken`].
pub async fn send(channel: &ChannelSpec, secret: &Secret, letter: &Letter) -> Result<String, NotTaken> {
    let sent = async {
        match &channel.target {
            Target::Webhook { .. } => {
                let body = text::json(&letter.head, letter.id.clone(), &letter.message, letter.event());
                post(secret, letter, body, true).await
            }
            Target::Slack { .. } => {
                let body = text::slack(&letter.head, &letter.title(), &text::body(&letter.message));
                post(secret, letter, body, false).await
            }
            Target::Email { to, from, server } => mail::send(to, from, server, secret, letter).await,
        }
    };
    let answer = tokio::time::timeout(WHOLE_TIME, sent).await.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", WHOLE_TIME.as_secs());
        Err(NotTaken::unclear(why))
    });
    let clean = |text: String| sentence(&secret.redact(&text));
    answer.map(clean).map_err(|error| NotTaken {
        why: clean(error.why),
        ..error
    })
}

/// An error with its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// The signature of a body: `sha256=` and hexadecimal digits.
pub fn signature(key: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, body);
    format!("sha256={}", tresor_proto::ids::hex(tag.as_ref()))
}

async fn post(secret: &Secret, letter: &Letter, body: Vec<u8>, is_signed: bool) -> Result<String, NotTaken> {
    // A URL is part of what reqwest says; ours is secret.
    let unclear = |error: reqwest::Error| NotTaken::unclear(chain(&error.without_url()));
    // One client for one message: they are rare, and certificates of the machine may change. A redirect could lead a token anywhere.
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIME)
        .timeout(WHOLE_TIME)
        .redirect(Policy::none())
        .user_agent(concat!("tresor/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(unclear)?;
    let mut request = client
        .post(&secret.url)
        .header(CONTENT_TYPE, "application/json")
        .header(ID_HEADER, &letter.id)
        .header(EVENT_HEADER, letter.event());
    if is_signed && !secret.secret.is_empty() {
        request = request.header(SIGNATURE_HEADER, signature(&secret.secret, &body));
    }
    let mut answer = request.body(body).send().await.map_err(unclear)?;
    let status = answer.status();
    let mut words = Vec::new();
    while words.len() < ANSWER_BYTES_MAX
        && let Ok(Some(piece)) = answer.chunk().await
    {
        words.extend_from_slice(&piece);
    }
    words.truncate(ANSWER_BYTES_MAX);
    // Before it is cut: half of a token is not known as one.
    let words = secret.redact(&String::from_utf8_lossy(&words));
    let words: String = words.chars().take(ANSWER_CHARS_MAX).collect();
    let said = match words.trim() {
        "" => format!("HTTP {status}"),
        words => format!("HTTP {status}: {words}"),
    };
    if status.is_success() {
        return Ok(said);
    }
    if status.is_redirection() {
        return Err(NotTaken {
            why: format!("{said}; redirects are not followed"),
            is_refusal: true,
        });
    }
    // 408 and 429 ask for patience, as those of 5xx do.
    let is_patience = matches!(status.as_u16(), 408 | 425 | 429);
    Err(NotTaken {
        why: said,
        is_refusal: status.is_client_error() && !is_patience,
    })
}
