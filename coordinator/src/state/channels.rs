//! Channels of notifications: whom to tell, what was told, and what waits to be sent.
//!
//! What is worth a message is decided by who leads ([`crate::notify::decide`]); here it becomes true, all at once: that it was told, and the messages that
//! say so. A message stays until a receiver took it or it is given up, so a new leader sends what the one before did not. A message's number is its entry's:
//! sent twice, it is the same message.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{ItemId, VaultId};

use super::State;
use super::entry::Time;
use super::reply::{Refusal, Reply};
use super::table::RowKey;
use super::texts::{LONG_LINE_MAX, check_batch, check_blob, check_label, check_line, check_long_line, check_name};

/// Channels of a cluster: each is a series of the metrics, and a request at a time of the leader.
pub const CHANNELS_MAX: usize = 50;
/// Messages of a channel that wait: of a receiver that is away for a day, half an hour of a cluster in trouble. The oldest go first.
pub const WAITING_MAX: usize = 100;
/// Things that a message names. It says how many more there are.
pub const NOTES_MAX: usize = 50;
/// Messages of one entry: all causes to all channels.
pub const MESSAGES_MAX: usize = 256;
/// Addresses of a channel.
const ADDRESSES_MAX: usize = 20;
/// Vaults that a channel is for; of more, it is for all.
const VAULTS_MAX: usize = 100;
/// Longest sentence of a message, bytes: an error with its hint.
pub const SENTENCE_MAX: usize = 600;

/// Why somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Backups failed for good.
    Failure,
    /// What had failed, was late or damaged is as it should be again.
    Recovery,
    /// Items are late.
    Late,
    /// Damage was found.
    Finding,
    /// The report of a day, or of a week.
    Digest,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Failure, Self::Recovery, Self::Late, Self::Finding, Self::Digest];

    /// In one word.
    pub fn text(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Late => "late",
            Self::Finding => "finding",
            Self::Digest => "digest",
        }
    }

    /// The cause of that name.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.text() == text)
    }
}

/// Where messages go; what of it is secret is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// JSON, posted.
    Webhook {
        /// `https://host:port`, without the rest of the URL.
        origin: String,
    },
    /// What Slack and those like it take.
    Slack {
        /// As of a webhook.
        origin: String,
    },
    /// Mail.
    Email {
        /// To whom.
        to: Vec<String>,
        /// From whom.
        from: String,
        /// `smtps://user@host:port`, without a password.
        server: String,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Webhook { origin } => write!(f, "webhook {origin}"),
            Self::Slack { origin } => write!(f, "slack {origin}"),
            Self::Email { to, server, .. } => write!(f, "mail to {} by {server}", to.join(", ")),
        }
    }
}

/// When a channel gets a report of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestSpec {
    /// `daily 07:00`, `weekly mon 07:00`; read again by who leads.
    pub schedule: String,
    /// The IANA zone of it.
    pub zone: String,
}

/// A channel as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSpec {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub target: Target,
    /// What is told.
    pub on: BTreeSet<Cause>,
    /// Of which vaults; none: of all.
    pub vaults: BTreeSet<VaultId>,
    /// When the digest is due.
    pub digest: Option<DigestSpec>,
    /// URL, password and signing key, wrapped by the cluster key.
    pub secret: Vec<u8>,
}

/// Why a channel does not take messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTrouble {
    /// Since when.
    pub since: Time,
    /// What the other side said last.
    pub error: String,
    /// Attempts in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub next: Time,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// As it was asked for.
    pub spec: ChannelSpec,
    /// Since when.
    pub since: Time,
    /// The log index that made it.
    pub version: u64,
    /// The digest's newest moment that was told, or passed before there was a channel.
    pub digest_at: Time,
    /// Messages that the receiver took.
    pub taken: u64,
    /// Attempts that it did not take.
    pub refused: u64,
    /// Messages that were given up.
    pub lost: u64,
    /// When it took a message last.
    pub taken_at: Option<Time>,
    /// Why it does not take any now.
    pub trouble: Option<ChannelTrouble>,
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ToldOf {
    /// When, of a cause, anything was told last.
    Cause(Cause),
    /// That an item fails.
    Failing(ItemId),
    /// That an item is late.
    Late(ItemId),
    /// That a vault has damage.
    Finding(VaultId),
    /// The newest entry that told anything.
    Newest,
}

impl RowKey for ToldOf {
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, key) = match self {
            Self::Cause(cause) => (0, vec![*cause as u8]),
            Self::Failing(id) => (1, id.to_bytes()),
            Self::Late(id) => (2, id.to_bytes()),
            Self::Finding(id) => (3, id.to_bytes()),
            Self::Newest => (4, Vec::new()),
        };
        [vec![kind], key].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, key) = bytes.split_first()?;
        match kind {
            0 => match key {
                [cause] => Cause::ALL.get(usize::from(*cause)).copied().map(Self::Cause),
                _ => None,
            },
            1 => ItemId::from_bytes(key).map(Self::Failing),
            2 => ItemId::from_bytes(key).map(Self::Late),
            3 => VaultId::from_bytes(key).map(Self::Finding),
            4 => key.is_empty().then_some(Self::Newest),
            _ => None,
        }
    }
}

/// What was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// When.
    pub at: Time,
    /// Of a failure the job; of a finding the verify; of the newest entry its index.
    pub number: u64,
    /// Of a finding, the points that were harmed.
    pub count: u64,
}

/// What kind of thing a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thing {
    /// An item.
    Item,
    /// A vault.
    Vault,
}

/// One thing that a message names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is.
    pub thing: Thing,
    /// Its name.
    pub name: String,
    /// The vault's name.
    pub vault: String,
    /// The policy's name; may be empty.
    pub policy: String,
    /// Since when it is so.
    pub since: Time,
    /// Its last good backup.
    pub last_good: Option<Time>,
    /// The job that tells more; 0: none.
    pub job: u64,
    /// Jobs that failed in a row, or points that are harmed.
    pub count: u64,
    /// Why, in a sentence.
    pub why: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Why.
    pub cause: Cause,
    /// When it was decided.
    pub at: Time,
    /// What it names.
    pub notes: Vec<Note>,
    /// How many more there are that it does not name.
    pub more: u64,
    /// Of a digest: what is counted.
    pub counts: Vec<(String, u64)>,
}

/// A message that waits to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// To which channel.
    pub channel: String,
    /// What.
    pub message: Message,
    /// Attempts that were made.
    pub attempts: u32,
}

/// What is told now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// The newest entry that told anything, as who decided knew it: another one now refuses, so that nothing is told twice for one reason.
    pub seen: u64,
    /// What is to be remembered; none: forgotten.
    pub told: Vec<(ToldOf, Option<Told>)>,
    /// Messages and their channels.
    pub messages: Vec<(String, Message)>,
    /// Channels whose digest was looked at, and its moment.
    pub digests: Vec<(String, Time)>,
}

/// What came of an attempt to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendOutcome {
    /// It was taken.
    Taken,
    /// It was not, and is tried again.
    Later {
        /// Why, without secrets.
        error: String,
        /// When.
        next: Time,
    },
    /// It was not, and is given up.
    Lost {
        /// Why, without secrets.
        error: String,
        /// When the channel is tried again, with another message.
        next: Time,
    },
}

impl RowKey for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

fn check_message(message: &Message) -> Result<(), Refusal> {
    if message.notes.len() > NOTES_MAX || message.counts.len() > NOTES_MAX {
        return Err(Refusal::invalid("messages", format!("name at most {NOTES_MAX} things")));
    }
    for note in &message.notes {
        for text in [&note.name, &note.vault, &note.policy] {
            check_line("messages", text)?;
        }
        for text in [&note.why, &note.hint] {
            check_long_line("messages", text, SENTENCE_MAX)?;
        }
    }
    message
        .counts
        .iter()
        .try_for_each(|(word, _)| check_line("messages", word))
}

impl State {
    /// The newest entry that told anything; 0: none.
    pub fn told_newest(&self) -> u64 {
        self.told.get(&ToldOf::Newest).map_or(0, |told| told.number)
    }

    fn check_channel(&self, spec: &ChannelSpec) -> Result<(), Refusal> {
        check_name(&spec.name)?;
        match &spec.target {
            Target::Webhook { origin } | Target::Slack { origin } => check_label("url", origin)?,
            Target::Email { to, from, server } => {
                if to.is_empty() || to.len() > ADDRESSES_MAX {
                    let rule = format!("must be 1 to {ADDRESSES_MAX} addresses");
                    return Err(Refusal::invalid("email", rule));
                }
                to.iter().try_for_each(|to| check_label("email", to))?;
                check_label("from", from)?;
                check_label("smtp", server)?;
            }
        }
        if spec.on.is_empty() {
            return Err(Refusal::invalid("on", "must name something to tell"));
        }
        if spec.on.contains(&Cause::Digest) != spec.digest.is_some() {
            return Err(Refusal::invalid("digest", "needs its time, and only a digest has one"));
        }
        if let Some(digest) = &spec.digest {
            check_long_line("digest", &digest.schedule, LONG_LINE_MAX)?;
            check_label("zone", &digest.zone)?;
        }
        if spec.vaults.len() > VAULTS_MAX {
            return Err(Refusal::invalid("vaults", format!("at most {VAULTS_MAX} fit")));
        }
        if let Some(vault) = spec.vaults.iter().find(|vault| !self.vaults.contains(vault)) {
            return Err(Refusal::missing("vault", vault));
        }
        check_blob("secret", &spec.secret)
    }

    pub(super) fn add_channel(&mut self, index: u64, spec: &ChannelSpec) -> Result<Reply, Refusal> {
        self.check_channel(spec)?;
        if self.channels.contains(&spec.name) {
            return Err(Refusal::exists("channel", &spec.name));
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(Refusal::Full {
                what: String::from("channels of notifications"),
                max: CHANNELS_MAX as u64,
            });
        }
        let now = self.clock.now;
        let row = Channel {
            spec: spec.clone(),
            since: now,
            version: index,
            digest_at: now,
            taken: 0,
            refused: 0,
            lost: 0,
            taken_at: None,
            trouble: None,
        };
        self.channels.insert(spec.name.clone(), row);
        Ok(Reply::Done)
    }

    pub(super) fn remove_channel(&mut self, name: &str) -> Result<Reply, Refusal> {
        let name = name.to_owned();
        if self.channels.remove(&name).is_none() {
            return Err(Refusal::missing("channel", &name));
        }
        for number in self.waiting_for(&name) {
            self.outbox.remove(&number);
        }
        if self.channels.is_empty() {
            // Nobody hears of what ends from here on: the next channel is told what is wrong then.
            let told: Vec<ToldOf> = self.told.iter().map(|(of, _)| *of).collect();
            for of in told.into_iter().filter(|of| *of != ToldOf::Newest) {
                self.told.remove(&of);
            }
        }
        Ok(Reply::Done)
    }

    /// Numbers of a channel's messages that wait, oldest first.
    fn waiting_for(&self, channel: &str) -> Vec<u64> {
        let waiting = self.outbox.iter().filter(|(_, parcel)| parcel.channel == channel);
        waiting.map(|(number, _)| *number).collect()
    }

    pub(super) fn tell(&mut self, index: u64, telling: &Telling) -> Result<Reply, Refusal> {
        if telling.seen != self.told_newest() {
            return Err(Refusal::fenced("something was told meanwhile: look again"));
        }
        check_batch("told", &telling.told)?;
        if telling.messages.len() > MESSAGES_MAX {
            return Err(Refusal::invalid("messages", format!("at most {MESSAGES_MAX} fit")));
        }
        telling
            .messages
            .iter()
            .try_for_each(|(_, message)| check_message(message))?;
        if self.channels.is_empty() {
            return Err(Refusal::held("there is no channel"));
        }
        for (of, told) in &telling.told {
            let is_there = match of {
                ToldOf::Failing(item) | ToldOf::Late(item) => self.items.contains(item),
                ToldOf::Finding(vault) => self.vaults.contains(vault),
                ToldOf::Cause(_) => true,
                ToldOf::Newest => false,
            };
            match told {
                Some(told) if is_there => {
                    self.told.insert(*of, *told);
                }
                // What went meanwhile is not remembered.
                _ => {
                    self.told.remove(of);
                }
            }
        }
        let newest = Told {
            at: self.clock.now,
            number: index,
            count: 0,
        };
        self.told.insert(ToldOf::Newest, newest);
        for (channel, at) in &telling.digests {
            if let Some(row) = self.channels.get_mut(channel) {
                row.digest_at = row.digest_at.max(*at);
            }
        }
        for (place, (channel, message)) in (0u64..).zip(&telling.messages) {
            if !self.channels.contains(channel) {
                continue;
            }
            let waiting = self.waiting_for(channel);
            if let (Some(oldest), true) = (waiting.first(), waiting.len() >= WAITING_MAX) {
                self.outbox.remove(oldest);
                if let Some(row) = self.channels.get_mut(channel) {
                    row.lost += 1;
                }
            }
            let parcel = Parcel {
                channel: channel.clone(),
                message: message.clone(),
                attempts: 0,
            };
            // Entries come one after another, so numbers of two entries never meet.
            self.outbox.insert(index * MESSAGES_MAX as u64 + place, parcel);
        }
        Ok(Reply::Done)
    }

    pub(super) fn note_sent(&mut self, number: u64, outcome: &SendOutcome) -> Result<Reply, Refusal> {
        let Some(parcel) = self.outbox.get(&number) else {
            return Err(Refusal::missing("message", number));
        };
        let channel = parcel.channel.clone();
        let now = self.clock.now;
        if let SendOutcome::Later { error, .. } | SendOutcome::Lost { error, .. } = outcome {
            check_long_line("error", error, SENTENCE_MAX)?;
        }
        match outcome {
            SendOutcome::Taken | SendOutcome::Lost { .. } => {
                self.outbox.remove(&number);
            }
            SendOutcome::Later { .. } => {
                if let Some(parcel) = self.outbox.get_mut(&number) {
                    parcel.attempts += 1;
                }
            }
        }
        let Some(row) = self.channels.get_mut(&channel) else {
            return Ok(Reply::Done);
        };
        match outcome {
            SendOutcome::Taken => {
                row.taken += 1;
                row.taken_at = Some(now);
                row.trouble = None;
            }
            SendOutcome::Later { error, next } | SendOutcome::Lost { error, next } => {
                row.refused += 1;
                row.lost += u64::from(matches!(outcome, SendOutcome::Lost { .. }));
                let before = row.trouble.take();
                row.trouble = Some(ChannelTrouble {
                    since: before.as_ref().map_or(now, |trouble| trouble.since),
                    error: error.clone(),
                    attempts: before.map_or(0, |trouble| trouble.attempts).saturating_add(1),
                    next: *next,
                });
            }
        }
        Ok(Reply::Done)
    }

    /// Channels of a lost cluster: what was told of it is forgotten, and nothing of it is sent; the channels stay, where the key that wraps them does.
    pub(super) fn forget_tellings(&mut self) {
        let told: Vec<ToldOf> = self.told.iter().map(|(of, _)| *of).collect();
        for of in told {
            self.told.remove(&of);
        }
        let waiting: Vec<u64> = self.outbox.iter().map(|(number, _)| *number).collect();
        for number in waiting {
            self.outbox.remove(&number);
        }
    }
}
