//! A message as people and programs read it. Pure. The body of a webhook is documented in `docs/notifications.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::state::channels::{Cause, MESSAGES_MAX, Message, Note, Thing};
use crate::state::entry::Time;

/// The version of a webhook's body: another one where a field means something else.
pub const BODY_VERSION: u32 = 1;
/// Longest text of a chat message, characters: beyond, Slack hides or cuts it.
const CHAT_MAX: usize = 3500;

/// Who tells, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letterhead {
    /// The cluster's id, hexadecimal.
    pub cluster: String,
    /// Its name.
    pub cluster_name: String,
    /// The channel.
    pub channel: String,
}

/// The id by which a receiver knows a message that comes twice.
pub fn id(head: &Letterhead, number: u64) -> String {
    let short = head.cluster.get(..12).unwrap_or(&head.cluster);
    let max = MESSAGES_MAX as u64;
    format!("{short}-{}-{}", number / max, number % max)
}

fn count(message: &Message) -> u64 {
    message.notes.len() as u64 + message.more
}

fn number(message: &Message, word: &str) -> u64 {
    let found = message.counts.iter().find(|(key, _)| key == word);
    found.map_or(0, |(_, count)| *count)
}

/// One line that says it all.
pub fn title(message: &Message) -> String {
    let all = count(message);
    let only = message.notes.first().filter(|_| all == 1);
    match (message.cause, only) {
        (Cause::Failure, Some(only)) => format!("backup of {} failed", only.name),
        (Cause::Failure, None) => format!("backups of {all} items failed"),
        (Cause::Recovery, Some(only)) => match only.thing {
            Thing::Item => format!("{} is protected again", only.name),
            Thing::Vault => format!("vault {} has no known damage any more", only.name),
        },
        (Cause::Recovery, None) => format!("{all} items or vaults are as they should be again"),
        (Cause::Late, Some(only)) => format!("{} is late", only.name),
        (Cause::Late, None) => format!("{all} items are late"),
        (Cause::Finding, Some(only)) => format!("damage was found in vault {}", only.name),
        (Cause::Finding, None) => format!("damage was found in {all} vaults"),
        (Cause::Digest, _) => {
            let [protected, failing, late] = ["protected", "failing", "late"].map(|word| number(message, word));
            let harmed = match number(message, "points harmed") {
                0 => String::new(),
                harmed => format!(", {harmed} points harmed"),
            };
            format!("report: {protected} items protected, {failing} failing, {late} late{harmed}")
        }
    }
}

/// The command that tells more.
pub fn look(note: &Note) -> String {
    match (note.thing, note.job) {
        (Thing::Item, _) => format!("tresor explain item {}", note.name),
        (Thing::Vault, 0) => format!("tresor point list --vault {}", note.name),
        (Thing::Vault, job) => format!("tresor job show {job}"),
    }
}

fn named(note: &Note) -> String {
    let mut text = match note.thing {
        Thing::Item => format!("{} (vault {}", note.name, note.vault),
        Thing::Vault => format!("vault {} (", note.name),
    };
    if !note.policy.is_empty() {
        let _ = write!(text, ", policy {}", note.policy);
    }
    if note.thing == Thing::Item {
        text.push_str(", ");
    }
    let _ = write!(text, "since {})", note.since);
    text
}

/// All of it, for people. What is so for the same reason stands together.
pub fn body(message: &Message) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&Note>> = BTreeMap::new();
    for note in &message.notes {
        groups.entry((&note.why, &note.hint)).or_default().push(note);
    }
    let mut text = String::new();
    for (word, count) in &message.counts {
        let _ = writeln!(text, "{word}: {count}");
    }
    if !message.counts.is_empty() && !groups.is_empty() {
        text.push('\n');
    }
    for ((why, hint), notes) in groups {
        let hint = if hint.is_empty() {
            String::new()
        } else {
            format!(" (hint: {hint})")
        };
        if let [only] = notes.as_slice() {
            let _ = writeln!(text, "{}: {why}{hint}", named(only));
        } else {
            let _ = writeln!(text, "{} of them: {why}{hint}", notes.len());
            for note in &notes {
                let _ = writeln!(text, "  {}", named(note));
            }
        }
        if let Some(first) = notes.first() {
            let mut commands = look(first);
            if first.job != 0 && first.thing == Thing::Item {
                let _ = write!(commands, "; tresor job show {}", first.job);
            }
            let _ = writeln!(text, "  {commands}");
        }
    }
    if message.more > 0 {
        let _ = writeln!(text, "and {} more: tresor status", message.more);
    }
    text
}

#[derive(Serialize)]
struct ThingShown<'m> {
    kind: &'static str,
    name: &'m str,
    vault: &'m str,
    policy: Option<&'m str>,
    since: String,
    last_success: Option<String>,
    job: Option<u64>,
    count: u64,
    error: &'m str,
    hint: Option<&'m str>,
    look: String,
}

#[derive(Serialize)]
struct Body<'m> {
    version: u32,
    id: String,
    cluster: &'m str,
    cluster_name: &'m str,
    channel: &'m str,
    event: &'static str,
    time: String,
    title: String,
    text: String,
    items: Vec<ThingShown<'m>>,
    more: u64,
    counts: BTreeMap<String, u64>,
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The body of a webhook.
pub fn json(head: &Letterhead, id: String, message: &Message, event: &'static str) -> Vec<u8> {
    let items = message.notes.iter().map(|note| ThingShown {
        kind: match note.thing {
            Thing::Item => "item",
            Thing::Vault => "vault",
        },
        name: &note.name,
        vault: &note.vault,
        policy: some(&note.policy),
        since: note.since.to_string(),
        last_success: note.last_good.map(|time: Time| time.to_string()),
        job: (note.job != 0).then_some(note.job),
        count: note.count,
        error: &note.why,
        hint: some(&note.hint),
        look: look(note),
    });
    let counts = message
        .counts
        .iter()
        .map(|(word, count)| (word.replace(' ', "_"), *count));
    let body = Body {
        version: BODY_VERSION,
        id,
        cluster: &head.cluster,
        cluster_name: &head.cluster_name,
        channel: &head.channel,
        event,
        time: message.at.to_string(),
        title: match event {
            TEST => TEST_TITLE.to_owned(),
            _ => title(message),
        },
        text: body(message),
        items: items.collect(),
        more: message.more,
        counts: counts.collect(),
    };
    serde_json::to_vec(&body).expect("texts and numbers, and memory can be had")
}

/// The event of a test.
pub const TEST: &str = "test";
/// What a test says.
pub const TEST_TITLE: &str = "a test: notifications arrive here";

/// What Slack and those like it take.
pub fn slack(head: &Letterhead, title: &str, body: &str) -> Vec<u8> {
    let text = match body {
        "" => format!("*{}*: {title}", head.cluster_name),
        body => format!("*{}*: {title}\n```{body}```", head.cluster_name),
    };
    let mut text: String = text.chars().take(CHAT_MAX).collect();
    if text.matches("```").count() % 2 == 1 {
        text.push_str("…```");
    }
    // Its only three special characters.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    serde_json::to_vec(&serde_json::json!({ "text": text })).expect("a text, and memory can be had")
}
