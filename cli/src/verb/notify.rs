//! `tresor notify …`.

use std::io::Read as _;
use std::path::Path;

use serde::Serialize;
use tresor_proto::v1::{self, AddChannelRequest, ListChannelsRequest, RemoveChannelRequest, TestChannelRequest};
use zeroize::Zeroizing;

use super::shown::some;
use crate::app::App;
use crate::args::{NotifyAddArgs, NotifyVerb};
use crate::config::read_small;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human::{self, Table};
use crate::screen::Answer;

/// Longest secret that is read from standard input, bytes.
const SECRET_MAX: u64 = 4096;

/// A channel as it is shown: nothing of it is secret.
#[derive(Debug, Serialize)]
struct ChannelShown {
    name: String,
    kind: String,
    target: String,
    to: Vec<String>,
    from: Option<String>,
    on: Vec<String>,
    vaults: Vec<String>,
    digest: Option<String>,
    zone: Option<String>,
    has_secret: bool,
    taken: u64,
    refused: u64,
    lost: u64,
    waiting: u64,
    taken_at: Option<String>,
    failing_since: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Channels {
    channels: Vec<ChannelShown>,
}

#[derive(Serialize)]
struct Removed {
    name: String,
    removed: bool,
}

#[derive(Serialize)]
struct Tested {
    name: String,
    taken: bool,
    answer: String,
}

impl From<v1::ChannelRow> for ChannelShown {
    fn from(row: v1::ChannelRow) -> Self {
        Self {
            name: row.name,
            kind: row.kind,
            target: row.target,
            to: row.to,
            from: some(row.from),
            on: row.on,
            vaults: row.vaults,
            digest: some(row.digest),
            zone: some(row.zone),
            has_secret: row.has_secret,
            taken: row.taken,
            refused: row.refused,
            lost: row.lost,
            waiting: row.waiting,
            taken_at: some(row.taken_at),
            failing_since: some(row.failing_since),
            error: some(row.error),
        }
    }
}

impl ChannelShown {
    /// `https://hooks.slack.com`, `ops@example.org by smtps://mail`.
    fn leads_to(&self) -> String {
        match self.to.as_slice() {
            [] => human::plain(&self.target),
            to => human::plain(&format!("{} by {}", to.join(", "), self.target)),
        }
    }

    fn standing(&self) -> String {
        match (&self.failing_since, &self.error, &self.taken_at) {
            (Some(since), Some(error), _) => human::plain(&format!("not taken since {since}: {error}")),
            (.., Some(at)) => format!("last taken {}", human::plain(at)),
            _ => String::from("nothing sent yet"),
        }
    }

    fn events(&self) -> String {
        let on = self.on.iter().map(|event| match (event.as_str(), &self.digest) {
            ("digest", Some(digest)) => format!("digest ({})", human::plain(digest)),
            (event, _) => human::plain(event),
        });
        on.collect::<Vec<_>>().join(", ")
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: NotifyVerb) -> Result<Answer, CliError> {
    match verb {
        NotifyVerb::Add(args) => add(app, *args).await,
        NotifyVerb::List => list(app).await,
        NotifyVerb::Remove { name } => remove(app, name).await,
        NotifyVerb::Test { name } => test(app, name).await,
    }
}

/// The first line of a secret, from a file or standard input.
fn secret(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = if path == Path::new("-") {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        let read = std::io::stdin().lock().take(SECRET_MAX).read_to_string(&mut text);
        read.map_err(|source| CliError::File {
            doing: "read",
            path: "standard input".into(),
            source,
        })?;
        text
    } else {
        read_small(path)?
    };
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(CliError::usage(format!(
            "the first line of {} is empty",
            path.display()
        )));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A URL as it was typed, or from where it was said to be.
fn url(typed: &str, is_always_secret: bool) -> Result<Zeroizing<String>, CliError> {
    match typed.strip_prefix('@') {
        Some(path) => secret(Path::new(path)),
        None if typed == "-" => secret(Path::new("-")),
        None if is_always_secret => Err(CliError::usage_hint(
            "the URL is a secret, and arguments can be read by every user of this machine",
            "put it into a file: --slack @FILE, or --slack - for standard input",
        )),
        None => Ok(Zeroizing::new(typed.to_owned())),
    }
}

async fn add(app: &App, args: NotifyAddArgs) -> Result<Answer, CliError> {
    let (kind, url) = match (&args.webhook, &args.slack) {
        (Some(typed), _) => ("webhook", url(typed, false)?),
        (None, Some(typed)) => ("slack", url(typed, true)?),
        (None, None) => ("email", Zeroizing::new(String::new())),
    };
    let secret = args.secret_file.as_deref().map(secret).transpose()?.unwrap_or_default();
    let request = AddChannelRequest {
        name: args.name.clone(),
        kind: kind.to_owned(),
        url: url.to_string(),
        to: args.email,
        from: args.from.unwrap_or_default(),
        smtp: args.smtp.unwrap_or_default(),
        secret: secret.to_string(),
        on: args.on,
        vaults: args.vaults,
        digest: args.digest.unwrap_or_default(),
        zone: args.zone.unwrap_or_default(),
        ..Default::default()
    };
    let added = app.need_cluster("notify add")?.add_channel(request).await;
    let added = added.doing(|| format!("could not make channel {}", human::plain(&args.name)))?;
    let shown = ChannelShown::from(added);
    Ok(app.screen.answer(&shown, || {
        let name = human::plain(&shown.name);
        format!(
            "channel {name} tells {} of {}\ntry it: tresor notify test {name}",
            shown.leads_to(),
            shown.events()
        )
    }))
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let listed = app
        .need_cluster("notify list")?
        .list_channels(ListChannelsRequest {})
        .await;
    let listed = listed.doing(|| String::from("could not list channels"))?;
    let shown = Channels {
        channels: listed.channels.into_iter().map(ChannelShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || {
        if shown.channels.is_empty() {
            return String::from("no channels; tresor notify add makes one");
        }
        let mut table = Table::new(&["NAME", "KIND", "TO", "EVENTS", "VAULTS", "WAITING", "LOST", "STATE"]);
        for channel in &shown.channels {
            table.row([
                human::plain(&channel.name),
                human::plain(&channel.kind),
                channel.leads_to(),
                channel.events(),
                match channel.vaults.as_slice() {
                    [] => String::from("all"),
                    vaults => human::plain(&vaults.join(", ")),
                },
                channel.waiting.to_string(),
                channel.lost.to_string(),
                channel.standing(),
            ]);
        }
        table.render()
    }))
}

async fn remove(app: &App, name: String) -> Result<Answer, CliError> {
    let request = RemoveChannelRequest {
        name: name.clone(),
        ..Default::default()
    };
    let removed = app.need_cluster("notify remove")?.remove_channel(request).await;
    removed.doing(|| format!("could not remove channel {}", human::plain(&name)))?;
    let shown = Removed { name, removed: true };
    Ok(app
        .screen
        .answer(&shown, || format!("channel {} is removed", human::plain(&shown.name))))
}

async fn test(app: &App, name: String) -> Result<Answer, CliError> {
    let request = TestChannelRequest { name: name.clone() };
    let tested = app.need_cluster("notify test")?.test_channel(request).await;
    let tested = tested.doing(|| format!("could not try channel {}", human::plain(&name)))?;
    let shown = Tested {
        name,
        taken: tested.taken,
        answer: tested.answer,
    };
    let answer = app.screen.answer(&shown, || {
        let (name, said) = (human::plain(&shown.name), human::plain(&shown.answer));
        match shown.taken {
            true => format!("channel {name} took the message: {said}"),
            false => format!("channel {name} did not take the message: {said}"),
        }
    });
    Ok(match shown.taken {
        true => answer,
        false => answer.with_code(Code::Failed),
    })
}
