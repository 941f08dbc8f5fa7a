//! Mail, by SMTP.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::secret::Secret;
use super::send::{CONNECT_TIME, Letter, NotTaken, chain};
use super::text;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS from the first byte.
    Tls,
    /// TLS after STARTTLS; without it nothing is sent.
    StartTls,
    /// No TLS: for a server on the same machine or network, never with a password.
    Plain,
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How it is spoken to.
    pub way: Way,
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// As whom; none: as nobody.
    pub user: Option<String>,
}

/// Why a mail server's URL means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It is none.
    #[error("must be smtps://user@host:port, smtp://user@host:port (STARTTLS) or smtp+plain://host:port")]
    Form,
    /// It has a password.
    #[error("must not have a password in it: passwords come from a file")]
    Password,
    /// A user, and no TLS.
    #[error("has a user, so it needs TLS: smtps://, or smtp:// for STARTTLS")]
    UserWithoutTls,
}

impl Server {
    /// Of its URL.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn read(text: &str) -> Result<Self, ServerError> {
        let url = url::Url::parse(text.trim()).map_err(|_| ServerError::Form)?;
        let (way, port) = match url.scheme() {
            "smtps" => (Way::Tls, 465),
            "smtp" => (Way::StartTls, 587),
            "smtp+plain" => (Way::Plain, 25),
            _ => return Err(ServerError::Form),
        };
        if url.password().is_some() {
            return Err(ServerError::Password);
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(ServerError::Form)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ServerError::Form);
        }
        // A user may be an address: its sign is written as it is, or in percent signs.
        let user = url.username().replace("%40", "@").replace("%2B", "+");
        let user = Some(user).filter(|user| !user.is_empty());
        if user.is_some() && way == Way::Plain {
            return Err(ServerError::UserWithoutTls);
        }
        Ok(Self {
            way,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(port),
            user,
        })
    }
}

fn mailbox(text: &str) -> Result<Mailbox, NotTaken> {
    text.parse().map_err(|error| NotTaken {
        why: format!("{text} is no address of mail: {error}"),
        is_refusal: true,
    })
}

/// Whether a text is an address of mail, with or without a name.
pub fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

/// The message as it is sent.
fn compose(to: &[String], from: &str, letter: &Letter) -> Result<lettre::Message, NotTaken> {
    let broken = |error: lettre::error::Error| NotTaken {
        why: format!("could not write the mail: {error}"),
        is_refusal: true,
    };
    let from = mailbox(from)?;
    let domain = Address::domain(&from.email).to_owned();
    let subject = format!("[{}] {}", letter.head.cluster_name, letter.title());
    let mut builder: MessageBuilder = lettre::Message::builder()
        .from(from)
        .subject(subject)
        .message_id(Some(format!("<tresor.{}.{}@{domain}>", letter.id, letter.head.channel)))
        .raw_header(header("X-Tresor-Id", &letter.id))
        // Programs that answer mail by themselves leave it alone.
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .header(ContentType::TEXT_PLAIN);
    for to in to {
        builder = builder.to(mailbox(to)?);
    }
    let body = format!(
        "{}\n\n{}\n-- \ncluster {}, channel {}, message {}\n",
        letter.title(),
        text::body(&letter.message),
        letter.head.cluster_name,
        letter.head.channel,
        letter.id,
    );
    builder.body(body).map_err(broken)
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Sends it: what the server answered.
///
/// # Errors
/// [`NotTaken`].
pub(super) async fn send(
    to: &[String],
    from: &str,
    server: &str,
    secret: &Secret,
    letter: &Letter,
) -> Result<String, NotTaken> {
    let server = Server::read(server).map_err(|error| NotTaken {
        why: format!("the mail server's URL {error}"),
        is_refusal: true,
    })?;
    let mail = compose(to, from, letter)?;
    let tls = |host: &str| {
        TlsParameters::new(host.to_owned())
            .map_err(|error| NotTaken::unclear(format!("could not prepare TLS: {}", chain(&error))))
    };
    let tls = match server.way {
        Way::Tls => Tls::Wrapper(tls(&server.host)?),
        Way::StartTls => Tls::Required(tls(&server.host)?),
        Way::Plain => Tls::None,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
        .port(server.port)
        .timeout(Some(CONNECT_TIME))
        .tls(tls);
    if let Some(user) = &server.user {
        transport = transport.credentials(Credentials::new(user.clone(), secret.secret.clone()));
    }
    match transport.build().send(mail).await {
        Ok(answer) => {
            let words: Vec<&str> = answer.message().collect();
            Ok(format!("SMTP {}: {}", answer.code(), words.join(" ")))
        }
        Err(error) => Err(NotTaken {
            why: chain(&error),
            is_refusal: error.is_permanent(),
        }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_is_read_from_its_url_and_never_with_a_password() {
        let read = |text: &str| Server::read(text).unwrap();
        assert_eq!(read("smtps://ops@mail.example.org").port, 465);
        let server = read("smtp://ops%40example.org@mail.example.org:2525");
        assert_eq!((server.way, server.port), (Way::StartTls, 2525));
        assert_eq!(server.user.as_deref(), Some("ops@example.org"));
        assert_eq!(read("smtp+plain://localhost").way, Way::Plain);
        assert_eq!(Server::read("smtps://ops:pw@mail"), Err(ServerError::Password));
        assert_eq!(Server::read("smtp+plain://ops@mail"), Err(ServerError::UserWithoutTls));
        for wrong in ["mail.example.org", "http://mail", "smtps://", "smtp://mail/path"] {
            assert_eq!(Server::read(wrong), Err(ServerError::Form), "{wrong}");
        }
    }
}
