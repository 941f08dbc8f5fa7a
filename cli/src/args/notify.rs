//! `tresor notify …`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

/// What can be done with channels of notifications.
#[derive(Debug, Subcommand)]
pub(crate) enum NotifyVerb {
    Add(Box<NotifyAddArgs>),
    /// Lists channels, and whether they take what they are sent
    List,
    /// Removes a channel, and what waits for it
    Remove {
        /// The channel
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Sends a message now, and shows what the other side answered
    Test {
        /// The channel
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Makes a channel: a webhook, Slack and those like it, or mail
///
/// A URL mostly holds a token, and arguments can be read by every user of a machine: @FILE reads it from a file, - from standard input. A channel is told
/// of backups that failed for good, of items that are late, of damage, and of all that ending; one message for all that go wrong at once.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("to").required(true).args(["webhook", "slack", "email"]))]
pub(crate) struct NotifyAddArgs {
    /// How it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Posts JSON to a URL: https://…, @FILE, or - for standard input
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,

    /// Posts what Slack, Mattermost and others take to their webhook: @FILE, or - for standard input
    #[arg(long, value_name = "URL")]
    pub(crate) slack: Option<String>,

    /// Sends mail to these addresses; may be given several times
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires = "smtp", value_hint = ValueHint::EmailAddress)]
    pub(crate) email: Vec<String>,

    /// The mail server: smtps://user@host:port, smtp://… with STARTTLS, or smtp+plain://host:port without TLS and user
    #[arg(long, value_name = "URL", requires = "email")]
    pub(crate) smtp: Option<String>,

    /// From whom mail is [default: the server's user, or the first address]
    #[arg(long, value_name = "ADDRESS", requires = "email", value_hint = ValueHint::EmailAddress)]
    pub(crate) from: Option<String>,

    /// A file with the mail server's password, or with the key that signs a webhook's bodies; - for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "slack")]
    pub(crate) secret_file: Option<PathBuf>,

    /// What is told: failure, recovery, late, finding, digest [default: all, the digest where it has a time]
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    pub(crate) on: Vec<String>,

    /// Only of these vaults: main,archive [default: all]
    #[arg(long, value_name = "VAULT", value_delimiter = ',')]
    pub(crate) vaults: Vec<String>,

    /// When a report of everything is due: 07:00, "daily 07:00", "weekly mon 07:00"
    #[arg(long, value_name = "WHEN")]
    pub(crate) digest: Option<String>,

    /// The time zone of the report, by its IANA name: Europe/Berlin [default: the coordinator's]
    #[arg(long, value_name = "ZONE", requires = "digest")]
    pub(crate) zone: Option<String>,
}
