//! What is to be told now. Pure.
//!
//! A message is of one cause and of all things that have it: one that is found waits for a minute for others, and the next message of its cause waits for
//! five. So a store that is away is one message and not one for each item. What was told of a thing is in the state until it ends, and is told again
//! after a day at the earliest where it goes on.

use std::collections::BTreeMap;

use tresor_proto::ids::{ItemId, VaultId};

use crate::lead::plans::Plans;
use crate::rpc::standing::{Board, ItemState};
use crate::schedule::{Calendar, Compiled, Schedule};
use crate::state::channels::{
    Cause, Channel, ChannelSpec, DigestSpec, MESSAGES_MAX, Message, NOTES_MAX, Note, SENTENCE_MAX, Telling, Thing,
    Told, ToldOf,
};
use crate::state::command::Work;
use crate::state::entry::Time;
use crate::state::rows::{Item, JobState, Vault};
use crate::state::{BATCH_MAX, State};
use crate::store::ENTRY_BYTES_MAX;

/// How long the first of several things waits for others, milliseconds.
pub const GROUP_MS: i64 = 60 * 1000;
/// How long after a message the next one of its cause comes at the earliest, milliseconds: jobs of one night fail one after another.
pub const QUIET_MS: i64 = 5 * 60 * 1000;
/// How long after an item's failure was told another one of it is told, milliseconds, if it did not recover meanwhile.
pub const REPEAT_MS: i64 = 24 * 3600 * 1000;
/// Changes of what is remembered that one entry has; what is more comes with the next message. Each has about 30 bytes.
const TOLD_MAX: usize = 6000;
/// Bytes of one entry's messages: where many channels are told of much, each names fewer things.
const MESSAGES_BYTES_MAX: usize = 600 << 10;
// An entry that is too large would be refused again and again, and nobody told of anything.
const _: () = assert!(TOLD_MAX * 40 + MESSAGES_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(TOLD_MAX <= BATCH_MAX);
/// Things that are forgotten by one entry.
const GONE_MAX: usize = 1000;
/// Bytes of a note or message beside its texts, at most.
const NOTE_BYTES: usize = 64;
/// Jobs that a digest counts: a day of a full cluster. It holds the state meanwhile.
const JOBS_MAX: usize = 200_000;

/// Why the time of a digest means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The schedule.
    #[error(transparent)]
    Schedule(#[from] crate::schedule::ScheduleError),
    /// Schedule and zone together.
    #[error(transparent)]
    Calendar(#[from] crate::schedule::CalendarError),
}

/// The moments of a digest, counted from `anchor`.
///
/// # Errors
/// [`DigestError`].
pub fn compile(digest: &DigestSpec, anchor: Time) -> Result<Compiled, DigestError> {
    let schedule: Schedule = digest.schedule.parse()?;
    let calendar = Calendar {
        schedule,
        zone: digest.zone.clone(),
        jitter: std::time::Duration::ZERO,
        windows: None,
    };
    Ok(calendar.compile(anchor.timestamp())?)
}

/// When digests are due, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Digests(BTreeMap<String, (u64, Option<Compiled>)>);

impl Digests {
    /// Compiles what is new, forgets what is gone.
    pub fn refresh(&mut self, state: &State) {
        self.0.retain(|name, _| state.channels().contains(name));
        for (name, channel) in state.channels().iter() {
            if self.0.get(name).is_some_and(|(version, _)| *version == channel.version) {
                continue;
            }
            let compiled = channel.spec.digest.as_ref().and_then(|digest| {
                let compiled = compile(digest, channel.since);
                // Checked when it was set; a newer release of the time zone database may have dropped a zone.
                compiled
                    .inspect_err(
                        |error| tracing::error!(channel = %name, %error, "the time of a digest cannot be followed"),
                    )
                    .ok()
            });
            self.0.insert(name.clone(), (channel.version, compiled));
        }
    }

    /// The moment of the digest that is due: the newest that has passed, however many were missed.
    fn due(&self, name: &str, channel: &Channel, now: Time) -> Option<Time> {
        let (_, compiled) = self.0.get(name)?;
        let newest = Time::from(compiled.as_ref()?.newest_at(now.timestamp())?);
        (newest > channel.digest_at).then_some(newest)
    }
}

/// Something that is worth a message.
struct Found {
    /// Since when: from then on others are waited for.
    since: Time,
    vault: VaultId,
    note: Note,
    told: Vec<(ToldOf, Option<Told>)>,
}

/// What is to be told now, if anything. `now` is the cluster's clock.
///
/// Cost: a look at every item, as of a report.
pub fn due(state: &State, plans: &Plans, digests: &Digests, now: Time) -> Option<Telling> {
    if state.channels().is_empty() {
        return None;
    }
    let board = Board::new(state, plans, now);
    let mut found: BTreeMap<Cause, Vec<Found>> = BTreeMap::new();
    let mut take = |cause: Cause, thing: Found| found.entry(cause).or_default().push(thing);
    for (id, item) in state.items().iter().filter(|(_, item)| item.protected) {
        look_at_item(state, &board, *id, item, now, &mut take);
    }
    let mut told = gone(state);
    for (id, vault) in state.vaults().iter() {
        told.extend(look_at_vault(state, *id, vault, now, &mut take));
    }
    let mut telling = Telling {
        seen: state.told_newest(),
        told,
        messages: Vec::new(),
        digests: Vec::new(),
    };
    for (cause, mut things) in found {
        let oldest = things.iter().map(|thing| thing.since).min().unwrap_or(now);
        let last = state.told().get(&ToldOf::Cause(cause)).map(|told| told.at);
        let is_quiet = last.is_some_and(|last| now.since(last) < QUIET_MS);
        if now.since(oldest) < GROUP_MS || is_quiet {
            continue;
        }
        // One for the cause itself.
        let mut room = (TOLD_MAX - Cause::ALL.len()).saturating_sub(telling.told.len());
        let fit = things.iter().take_while(|thing| {
            let fits = thing.told.len() <= room;
            room = room.saturating_sub(thing.told.len());
            fits
        });
        things.truncate(fit.count());
        if things.is_empty() {
            continue;
        }
        things.sort_by(|a, b| (&a.note.name, &a.note.vault).cmp(&(&b.note.name, &b.note.vault)));
        for (name, channel) in state.channels().iter() {
            if let Some(message) = message(cause, &channel.spec, &things, now) {
                telling.messages.push((name.clone(), message));
            }
        }
        telling.told.extend(things.into_iter().flat_map(|thing| thing.told));
        let told = Told {
            at: now,
            ..Told::default()
        };
        telling.told.push((ToldOf::Cause(cause), Some(told)));
    }
    for (name, channel) in state.channels().iter() {
        if let Some(at) = digests.due(name, channel, now) {
            telling
                .messages
                .push((name.clone(), digest(state, &board, channel, at, now)));
            telling.digests.push((name.clone(), at));
        }
    }
    telling.messages.truncate(MESSAGES_MAX);
    let share = MESSAGES_BYTES_MAX / telling.messages.len().max(1);
    for (_, message) in &mut telling.messages {
        fit(message, share);
    }
    let is_nothing = telling.told.is_empty() && telling.messages.is_empty() && telling.digests.is_empty();
    (!is_nothing).then_some(telling)
}

/// Leaves notes out until a message has at most so many bytes; one stays.
fn fit(message: &mut Message, bytes: usize) {
    let size = |note: &Note| {
        let texts = [&note.name, &note.vault, &note.policy, &note.why, &note.hint];
        NOTE_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
    };
    let counts: usize = message.counts.iter().map(|(word, _)| word.len() + 16).sum();
    let mut room = bytes.saturating_sub(NOTE_BYTES + counts);
    let fits = message.notes.iter().take_while(|note| {
        let fits = size(note) <= room;
        room = room.saturating_sub(size(note));
        fits
    });
    let kept = fits.count().max(1).min(message.notes.len());
    message.more += (message.notes.len() - kept) as u64;
    message.notes.truncate(kept);
}

/// What was told of things that are there no more: nobody waits for their recovery.
fn gone(state: &State) -> Vec<(ToldOf, Option<Told>)> {
    let is_protected = |id: &ItemId| state.items().get(id).is_some_and(|item| item.protected);
    let told = state.told().iter().map(|(of, _)| *of);
    let gone = told.filter(|of| match of {
        ToldOf::Failing(id) | ToldOf::Late(id) => !is_protected(id),
        ToldOf::Finding(id) => !state.vaults().contains(id),
        ToldOf::Cause(_) | ToldOf::Newest => false,
    });
    gone.take(GONE_MAX).map(|of| (of, None)).collect()
}

fn look_at_item(
    state: &State,
    board: &Board<'_>,
    id: ItemId,
    item: &Item,
    now: Time,
    take: &mut impl FnMut(Cause, Found),
) {
    let (failing, late) = (ToldOf::Failing(id), ToldOf::Late(id));
    let (told_failing, told_late) = (state.told().get(&failing), state.told().get(&late));
    let late_since = board.late_at(state, item).filter(|at| *at <= now);
    let mut ended = Vec::new();
    match &item.last_failure {
        Some(failed) if item.failures > 0 => {
            let is_new = told_failing.is_none_or(|told| told.number != failed.job.0 && now.since(told.at) >= REPEAT_MS);
            if is_new {
                let told = Told {
                    at: now,
                    number: failed.job.0,
                    count: 0,
                };
                let note = Note {
                    since: failed.time,
                    job: failed.job.0,
                    count: u64::from(item.failures),
                    why: sentence(&failed.failure.message),
                    hint: sentence(&failed.failure.hint),
                    ..item_note(state, item)
                };
                take(
                    Cause::Failure,
                    Found {
                        since: failed.time,
                        vault: item.spec.vault,
                        note,
                        told: vec![(failing, Some(told))],
                    },
                );
            }
        }
        _ if told_failing.is_some() => ended.push(failing),
        _ => {}
    }
    match late_since {
        Some(since) if told_late.is_none() => {
            let note = Note {
                since,
                why: sentence(&board.late_because(state, item, since)),
                ..item_note(state, item)
            };
            let told = Told {
                at: now,
                ..Told::default()
            };
            take(
                Cause::Late,
                Found {
                    since,
                    vault: item.spec.vault,
                    note,
                    told: vec![(late, Some(told))],
                },
            );
        }
        None if told_late.is_some() => ended.push(late),
        _ => {}
    }
    // An item that is still late after it failed, or still fails, is not protected again.
    let is_well = item.failures == 0 && late_since.is_none();
    if !is_well || ended.is_empty() {
        return;
    }
    let since = told_failing.into_iter().chain(told_late).map(|told| told.at).min();
    let note = Note {
        since: since.unwrap_or(now),
        why: match item.last_success {
            Some(last) if Some(last) >= since => format!("backed up again at {last}"),
            _ => String::from("not late any more"),
        },
        ..item_note(state, item)
    };
    take(
        Cause::Recovery,
        Found {
            since: item
                .last_success
                .filter(|last| Some(*last) >= since)
                .unwrap_or_default(),
            vault: item.spec.vault,
            note,
            told: ended.into_iter().map(|of| (of, None)).collect(),
        },
    );
}

/// Returns what is to be remembered without a message: that there is less damage than was told, so that new one is told.
fn look_at_vault(
    state: &State,
    id: VaultId,
    vault: &Vault,
    now: Time,
    take: &mut impl FnMut(Cause, Found),
) -> Option<(ToldOf, Option<Told>)> {
    let of = ToldOf::Finding(id);
    let told = state.told().get(&of);
    let harmed = state.points_in(id).harmed;
    let verified = vault.verified.filter(|verified| verified.findings > 0);
    let job = verified.map_or(0, |verified| verified.job.0);
    let mut note = Note {
        thing: Thing::Vault,
        name: vault.spec.name.clone(),
        vault: vault.spec.name.clone(),
        policy: String::new(),
        since: verified.map_or(now, |verified| verified.at),
        last_good: None,
        job,
        count: harmed,
        why: match verified {
            Some(verified) => format!(
                "the newest verify found {} things wrong; {harmed} points are harmed",
                verified.findings
            ),
            None => format!("{harmed} points are harmed"),
        },
        hint: String::from("back up the items of harmed points again, and look at the store"),
    };
    if harmed > 0 || verified.is_some() {
        let is_new = told.is_none_or(|told| harmed > told.count || (job != 0 && job != told.number));
        if is_new {
            let told = Told {
                at: now,
                number: job,
                count: harmed,
            };
            take(
                Cause::Finding,
                Found {
                    since: Time::default(),
                    vault: id,
                    note,
                    told: vec![(of, Some(told))],
                },
            );
            return None;
        }
        let told = told.filter(|told| harmed < told.count)?;
        return Some((of, Some(Told { count: harmed, ..*told })));
    }
    if let Some(told) = told {
        note.since = told.at;
        note.why = String::from("no damage is known any more");
        note.hint = String::new();
        take(
            Cause::Recovery,
            Found {
                since: Time::default(),
                vault: id,
                note,
                told: vec![(of, None)],
            },
        );
    }
    None
}

fn item_note(state: &State, item: &Item) -> Note {
    let vault = state.vaults().get(&item.spec.vault);
    let policy = item.spec.policy.and_then(|policy| state.policies().get(&policy));
    Note {
        thing: Thing::Item,
        name: item.spec.name.clone(),
        vault: vault.map(|vault| vault.spec.name.clone()).unwrap_or_default(),
        policy: policy.map(|policy| policy.spec.name.clone()).unwrap_or_default(),
        since: Time::default(),
        last_good: item.last_success,
        job: 0,
        count: 0,
        why: String::new(),
        hint: String::new(),
    }
}

/// A text as a message has it: one line, and not too long.
pub fn sentence(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > SENTENCE_MAX {
        let mut end = SENTENCE_MAX - '…'.len_utf8();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

fn is_for(channel: &ChannelSpec, vault: VaultId) -> bool {
    channel.vaults.is_empty() || channel.vaults.contains(&vault)
}

/// The message of a cause to one channel, if it is for it.
fn message(cause: Cause, channel: &ChannelSpec, things: &[Found], now: Time) -> Option<Message> {
    if !channel.on.contains(&cause) {
        return None;
    }
    let mut notes = things.iter().filter(|thing| is_for(channel, thing.vault));
    let named: Vec<Note> = notes.by_ref().take(NOTES_MAX).map(|thing| thing.note.clone()).collect();
    let message = Message {
        cause,
        at: now,
        more: notes.count() as u64,
        notes: named,
        counts: Vec::new(),
    };
    (!message.notes.is_empty()).then_some(message)
}

/// How everything stands that is a channel's, and what happened between its digest before and the moment `at` that this one is of.
fn digest(state: &State, board: &Board<'_>, channel: &Channel, at: Time, now: Time) -> Message {
    let spec = &channel.spec;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong: Vec<Note> = Vec::new();
    let mut more = 0;
    for (_, id) in state.items_by_name_from("", ItemId([0; 16])) {
        let Some(item) = state.items().get(&id).filter(|item| is_for(spec, item.spec.vault)) else {
            continue;
        };
        if !item.protected {
            continue;
        }
        let standing = board.item(state, id, item);
        *counts.entry("protected").or_default() += 1;
        for (word, is_so) in [
            ("ok", standing.is(ItemState::Ok)),
            ("failing", standing.failing),
            ("late", standing.late_since.is_some()),
            ("never backed up", standing.newest.is_none()),
            ("without a schedule", standing.unscheduled),
        ] {
            *counts.entry(word).or_default() += u64::from(is_so);
        }
        if !standing.failing && standing.late_since.is_none() {
            continue;
        }
        if wrong.len() >= NOTES_MAX {
            more += 1;
            continue;
        }
        let mut note = item_note(state, item);
        match (&item.last_failure, standing.late_since) {
            (Some(failed), _) if standing.failing => {
                note.since = failed.time;
                note.job = failed.job.0;
                note.count = u64::from(item.failures);
                note.why = sentence(&failed.failure.message);
                note.hint = sentence(&failed.failure.hint);
            }
            (_, late) => {
                note.since = late.unwrap_or(now);
                note.why = sentence(&board.late_because(state, item, note.since));
            }
        }
        wrong.push(note);
    }
    let (mut done, mut failed, mut stored) = (0, 0, 0);
    let ended = state.ended_since(channel.digest_at).take_while(|(time, _)| *time < at);
    for (_, id) in ended.take(JOBS_MAX) {
        let job = state.jobs().get(&id);
        let Some(job) = job.filter(|job| is_for(spec, job.spec.vault) && matches!(job.spec.work, Work::Backup { .. }))
        else {
            continue;
        };
        match job.state {
            JobState::Done { .. } => done += 1,
            JobState::Failed => failed += 1,
            _ => {}
        }
        stored += job.counts.bytes_stored;
    }
    let harmed = state.vaults().iter().filter(|(id, _)| is_for(spec, **id));
    let harmed: u64 = harmed.map(|(id, _)| state.points_in(*id).harmed).sum();
    let words = [
        "protected",
        "ok",
        "failing",
        "late",
        "never backed up",
        "without a schedule",
    ];
    let of_items = words.map(|word| (word, counts.get(word).copied().unwrap_or_default()));
    let of_jobs = [
        ("backups done", done),
        ("backups failed", failed),
        ("bytes stored", stored),
        ("points harmed", harmed),
    ];
    let counts = of_items.into_iter().chain(of_jobs);
    Message {
        cause: Cause::Digest,
        at: now,
        notes: wrong,
        more,
        counts: counts.map(|(word, count)| (word.to_owned(), count)).collect(),
    }
}
