//! Channels of notifications: made, removed, listed, tried.

use std::collections::BTreeSet;
use std::time::Duration;

use tresor_proto::v1;

use crate::notify::decide::compile;
use crate::notify::mail::{Server, is_address};
use crate::notify::secret::Secret;
use crate::notify::send::{Letter, send};
use crate::notify::task::letterhead;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::fields;
use crate::rpc::kinds::Kind;
use crate::rpc::refused::Refused;
use crate::rpc::resolve;
use crate::schedule::zone;
use crate::state::State;
use crate::state::channels::{Cause, Channel, ChannelSpec, DigestSpec, Message, Target};
use crate::state::command::Command;

/// Longest URL or secret that is read, bytes: tokens have a few hundred.
const SECRET_BYTES_MAX: usize = 4096;
/// How long a test may take: a call is repeated after 15 seconds.
const TEST_TIME: Duration = Duration::from_secs(12);

impl Services {
    /// Makes a channel.
    pub(crate) async fn add_channel(
        &self,
        caller: &Caller,
        message: v1::AddChannelRequest,
    ) -> Result<v1::ChannelRow, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let (target, secret) = read_target(&message)?;
        let digest = read_digest(&message, &self.zone)?;
        let on = read_causes(&message.on, digest.is_some())?;
        let secret = secret.wrap(self.keys.as_ref());
        let secret = secret.map_err(|error| Refused::Secrets {
            doing: String::from("wrap the secret of a channel"),
            why: error.why,
        })?;
        let name = message.name.clone();
        self.change(caller, Kind::AddChannel, key, |state| {
            let vaults = message.vaults.iter().map(|vault| resolve::vault(state, vault));
            let spec = ChannelSpec {
                name: message.name.clone(),
                target,
                on,
                vaults: vaults.collect::<Result<BTreeSet<_>, Refused>>()?,
                digest,
                secret,
            };
            let digest = spec.digest.as_ref().map(|digest| compile(digest, self.now(state)));
            if let Some(Err(error)) = digest {
                return Err(Refused::invalid("digest", error.to_string()));
            }
            Ok(Command::AddChannel(spec))
        })
        .await?;
        self.handle.read(|state| {
            let channel = state.channels().get(&name);
            let channel = channel.ok_or_else(|| Refused::missing("channel", &name))?;
            Ok(self.channel_row(state, channel))
        })
    }

    /// Removes a channel, and what waits for it.
    pub(crate) async fn remove_channel(
        &self,
        caller: &Caller,
        message: v1::RemoveChannelRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let name = message.name;
        self.change(caller, Kind::RemoveChannel, key, |_| {
            Ok(Command::RemoveChannel { name })
        })
        .await?;
        Ok(v1::Empty {})
    }

    /// All channels: there are fifty at most.
    pub(crate) async fn list_channels(
        &self,
        _: &Caller,
        _: v1::ListChannelsRequest,
    ) -> Result<v1::ListChannelsResponse, Refused> {
        self.look(|state| {
            let rows = state
                .channels()
                .values()
                .map(|channel| self.channel_row(state, channel));
            Ok(v1::ListChannelsResponse {
                channels: rows.collect(),
            })
        })
        .await
    }

    /// Sends a message now, and answers what the other side said.
    pub(crate) async fn test_channel(
        &self,
        _: &Caller,
        message: v1::TestChannelRequest,
    ) -> Result<v1::TestChannelResponse, Refused> {
        let (spec, head, now) = self
            .look(|state| {
                let channel = state.channels().get(&message.name);
                let channel = channel.ok_or_else(|| Refused::missing("channel", &message.name))?;
                Ok((channel.spec.clone(), letterhead(state, &message.name), self.now(state)))
            })
            .await?;
        let secret = Secret::unwrap(&spec.secret, self.keys.as_ref());
        let secret = secret.map_err(|error| Refused::Secrets {
            doing: String::from("open the secret of a channel"),
            why: error.why,
        })?;
        // No two tests are the same message.
        let letter = Letter {
            id: format!("test-{}", now.0),
            head,
            message: Message {
                cause: Cause::Digest,
                at: now,
                notes: Vec::new(),
                more: 0,
                counts: Vec::new(),
            },
            is_test: true,
        };
        let (answer, taken) = match tokio::time::timeout(TEST_TIME, send(&spec, &secret, &letter)).await {
            Ok(Ok(answer)) => (answer, true),
            Ok(Err(error)) => (error.why, false),
            Err(_) => (format!("no answer within {} s", TEST_TIME.as_secs()), false),
        };
        Ok(v1::TestChannelResponse { answer, taken })
    }

    fn channel_row(&self, state: &State, channel: &Channel) -> v1::ChannelRow {
        let spec = &channel.spec;
        let (kind, target, to, from) = match &spec.target {
            Target::Webhook { origin } => ("webhook", origin, Vec::new(), String::new()),
            Target::Slack { origin } => ("slack", origin, Vec::new(), String::new()),
            Target::Email { to, from, server } => ("email", server, to.clone(), from.clone()),
        };
        let has_secret = Secret::unwrap(&spec.secret, self.keys.as_ref()).is_ok_and(|secret| !secret.secret.is_empty());
        let vaults = spec.vaults.iter().map(|id| match state.vaults().get(id) {
            Some(vault) => vault.spec.name.clone(),
            None => format!("{id} (removed)"),
        });
        let waiting = state.outbox().values().filter(|parcel| parcel.channel == spec.name);
        v1::ChannelRow {
            name: spec.name.clone(),
            kind: kind.to_owned(),
            target: target.clone(),
            to,
            from,
            on: spec.on.iter().map(|cause| cause.text().to_owned()).collect(),
            vaults: vaults.collect(),
            digest: spec
                .digest
                .as_ref()
                .map(|digest| digest.schedule.clone())
                .unwrap_or_default(),
            zone: spec
                .digest
                .as_ref()
                .map(|digest| digest.zone.clone())
                .unwrap_or_default(),
            has_secret,
            taken: channel.taken,
            refused: channel.refused,
            lost: channel.lost,
            waiting: waiting.count() as u64,
            taken_at: fields::time_text(channel.taken_at),
            failing_since: fields::time_text(channel.trouble.as_ref().map(|trouble| trouble.since)),
            error: channel
                .trouble
                .as_ref()
                .map(|trouble| trouble.error.clone())
                .unwrap_or_default(),
        }
    }
}

/// Where messages go, and what of it is secret. No refusal repeats what was given: it may be secret.
fn read_target(message: &v1::AddChannelRequest) -> Result<(Target, Secret), Refused> {
    if message.url.len() > SECRET_BYTES_MAX || message.secret.len() > SECRET_BYTES_MAX {
        return Err(Refused::invalid(
            "secret",
            format!("must have at most {SECRET_BYTES_MAX} bytes"),
        ));
    }
    let secret = message.secret.trim().to_owned();
    let has_mail = !message.to.is_empty() || !message.from.is_empty() || !message.smtp.is_empty();
    match message.kind.as_str() {
        "webhook" | "slack" => {
            if has_mail {
                return Err(Refused::invalid("kind", "a URL and mail are two channels"));
            }
            let url = message.url.trim();
            let origin = origin(url).ok_or_else(|| Refused::invalid("url", "must be https://… or http://…"))?;
            let target = match message.kind.as_str() {
                "webhook" => Target::Webhook { origin },
                _ if secret.is_empty() => Target::Slack { origin },
                _ => {
                    return Err(Refused::invalid(
                        "secret",
                        "means nothing for Slack: its URL is the secret",
                    ));
                }
            };
            let url = url.to_owned();
            Ok((target, Secret { url, secret }))
        }
        "email" => {
            if !message.url.is_empty() {
                return Err(Refused::invalid("kind", "a URL and mail are two channels"));
            }
            let server = Server::read(&message.smtp).map_err(|error| Refused::invalid("smtp", error.to_string()))?;
            if server.user.is_some() == secret.is_empty() {
                let rule = "is the password of the server's user: both are given, or none";
                return Err(Refused::invalid("secret", rule));
            }
            if message.to.is_empty() || !message.to.iter().all(|to| is_address(to)) {
                return Err(Refused::invalid("email", "must be addresses of mail"));
            }
            let from = match message.from.trim() {
                "" => {
                    let user = server.user.clone().filter(|user| is_address(user));
                    user.or_else(|| message.to.first().cloned()).unwrap_or_default()
                }
                from => from.to_owned(),
            };
            if !is_address(&from) {
                return Err(Refused::invalid("from", "must be an address of mail"));
            }
            let target = Target::Email {
                to: message.to.clone(),
                from,
                server: message.smtp.trim().to_owned(),
            };
            let url = String::new();
            Ok((target, Secret { url, secret }))
        }
        _ => Err(Refused::invalid("kind", "is one of webhook, slack, email")),
    }
}

/// What of a URL may be shown: `https://host:port`.
fn origin(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    is_http.then(|| url.origin().ascii_serialization())
}

fn read_digest(message: &v1::AddChannelRequest, home: &str) -> Result<Option<DigestSpec>, Refused> {
    let text = message.digest.trim();
    if text.is_empty() {
        return match message.zone.trim() {
            "" => Ok(None),
            _ => Err(Refused::invalid("zone", "means nothing without a digest")),
        };
    }
    let named = match message.zone.trim() {
        "" => home,
        zone => zone,
    };
    let zone = zone::find(named).map_err(|error| Refused::invalid("zone", error.to_string()))?;
    // A time alone is one of every day.
    let is_time = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(':') && !text.contains(' ');
    let schedule = if is_time {
        format!("daily {text}")
    } else {
        text.to_owned()
    };
    Ok(Some(DigestSpec {
        schedule,
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
    }))
}

fn read_causes(words: &[String], has_digest: bool) -> Result<BTreeSet<Cause>, Refused> {
    let mut on = BTreeSet::new();
    for word in words {
        let cause = Cause::read(word.trim());
        on.insert(cause.ok_or_else(|| {
            let all = Cause::ALL.map(Cause::text).join(", ");
            Refused::invalid("on", format!("each is one of {all}"))
        })?);
    }
    if on.is_empty() {
        on.extend(Cause::ALL.into_iter().filter(|cause| *cause != Cause::Digest));
    }
    if has_digest {
        on.insert(Cause::Digest);
    } else if on.contains(&Cause::Digest) {
        return Err(Refused::invalid("digest", "needs its time: daily 07:00"));
    }
    Ok(on)
}
