//! From what people write to the thing that they mean. Pure.
//!
//! `POINT` is, in this order: an item's name (its newest point), a point's id, an item's id (its newest), `ITEM@TIME` (the newest at that time or before),
//! or a prefix of at least four digits of one point's id. A name that is there goes before what only looks like an id, so an item called `beef` can be
//! restored whatever ids there are. Removed points answer to their ids only. It is the same for vaults on one machine.

use jiff::tz::TimeZone;
use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, PolicyId, TokenId, VaultId, WorkerId};

use super::fields::{MOMENT_RULE, parse_moment};
use super::refused::{Refused, shown};
use crate::state::State;
use crate::state::entry::Time;
use crate::state::rows::Item;

/// Fewest digits of an id that are taken for one.
const PREFIX_MIN: usize = 4;
/// Answers that an ambiguity names.
const NAMED_MAX: usize = 8;
/// Points that are counted for it; beyond, it says that there are more.
const COUNTED_MAX: usize = 1000;

/// The vault of that name or id.
///
/// # Errors
/// [`Refused::Missing`].
pub fn vault(state: &State, name: &str) -> Result<VaultId, Refused> {
    let by_id = || name.parse().ok().filter(|id| state.vaults().contains(id));
    state
        .vault_named(name)
        .or_else(by_id)
        .ok_or_else(|| Refused::missing("vault", name))
}

/// The policy of that name or id.
///
/// # Errors
/// [`Refused::Missing`].
pub fn policy(state: &State, name: &str) -> Result<PolicyId, Refused> {
    let by_id = || name.parse().ok().filter(|id| state.policies().contains(id));
    state
        .policy_named(name)
        .or_else(by_id)
        .ok_or_else(|| Refused::missing("policy", name))
}

/// The worker of that name or number, unless it was removed.
///
/// # Errors
/// [`Refused::Missing`].
pub fn worker(state: &State, name: &str) -> Result<WorkerId, Refused> {
    let present = |id: &WorkerId| state.workers().get(id).is_some_and(|worker| !worker.removed);
    let by_number = || name.parse().ok().filter(present);
    state
        .worker_named(name)
        .or_else(by_number)
        .ok_or_else(|| Refused::missing("worker", name))
}

/// The coordinator of that name or number, unless it was removed.
///
/// # Errors
/// [`Refused::Missing`].
pub fn member(state: &State, name: &str) -> Result<MemberId, Refused> {
    let mut present = state.members().iter().filter(|(_, member)| !member.removed);
    let named = present.clone().find(|(_, member)| member.name == name);
    let by_number = || {
        let number = name.parse().ok()?;
        present.find(|(id, _)| **id == number)
    };
    named
        .or_else(by_number)
        .map(|(id, _)| *id)
        .ok_or_else(|| Refused::missing("coordinator", name))
}

/// The token of that id, ended or not.
///
/// # Errors
/// [`Refused::Missing`].
pub fn token(state: &State, id: &str) -> Result<TokenId, Refused> {
    let found = id.parse().ok().filter(|id| state.tokens().contains(id));
    found.ok_or_else(|| Refused::missing("token", id))
}

/// The job of that number.
///
/// # Errors
/// [`Refused::Missing`].
pub fn job(state: &State, number: u64) -> Result<JobId, Refused> {
    let id = JobId(number);
    match state.jobs().contains(&id) {
        true => Ok(id),
        false => Err(Refused::missing("job", number)),
    }
}

/// The item of that name or id, in that vault if one is named: `vault` is a vault's name, or empty.
///
/// # Errors
/// [`Refused::Missing`], or [`Refused::Ambiguous`] when two items have the name.
pub fn item(state: &State, name: &str, vault_name: &str) -> Result<ItemId, Refused> {
    let of = in_vault(state, vault_name)?;
    item_in(state, name, of, |_| true)?.ok_or_else(|| missing_item(state, name, of))
}

/// As [`item`], of those that are protected: what can be backed up, changed and unprotected.
///
/// # Errors
/// As [`item`]; [`Refused::Held`] when only points of it are left.
pub fn protected_item(state: &State, name: &str, vault_name: &str) -> Result<ItemId, Refused> {
    let of = in_vault(state, vault_name)?;
    if let Some(id) = item_in(state, name, of, |item| item.protected)? {
        return Ok(id);
    }
    let left = item_in(state, name, of, |_| true)?.and_then(|id| state.items().get(&id));
    Err(match left {
        Some(item) => Refused::Held {
            why: format!("item {} is not protected", item.spec.name),
            hint: format!("tresor item protect {}", item.spec.name),
        },
        None => missing_item(state, name, of),
    })
}

fn in_vault(state: &State, name: &str) -> Result<Option<VaultId>, Refused> {
    match name {
        "" => Ok(None),
        name => vault(state, name).map(Some),
    }
}

fn missing_item(state: &State, name: &str, of: Option<VaultId>) -> Refused {
    let vault = of.and_then(|id| state.vaults().get(&id));
    match vault {
        Some(vault) => Refused::missing("item", format!("{} in vault {}", shown(name), vault.spec.name)),
        None => Refused::missing("item", name),
    }
}

/// The one item of that name or id that passes.
fn item_in(
    state: &State,
    name: &str,
    of: Option<VaultId>,
    passes: impl Fn(&Item) -> bool,
) -> Result<Option<ItemId>, Refused> {
    let fits = |id: &ItemId| {
        state
            .items()
            .get(id)
            .is_some_and(|item| of.is_none_or(|of| item.spec.vault == of) && passes(item))
    };
    let named: Vec<ItemId> = state.items_named(name).filter(fits).collect();
    match named.as_slice() {
        [] => Ok(name.parse().ok().filter(fits)),
        [only] => Ok(Some(*only)),
        several => Err(Refused::Ambiguous {
            what: "item",
            name: shown(name),
            found: listed(several.iter().map(|id| {
                let vault = state
                    .items()
                    .get(id)
                    .and_then(|item| state.vaults().get(&item.spec.vault));
                format!("item {id} in vault {}", vault.map_or("?", |vault| &vault.spec.name))
            })),
        }),
    }
}

/// The point that is meant. Times without a zone are those of `zone`.
///
/// # Errors
/// [`Refused::Missing`], or [`Refused::Ambiguous`] with what answers.
pub fn point(state: &State, text: &str, zone: &TimeZone) -> Result<PointId, Refused> {
    let missing = || Refused::missing("point", text);
    let visible = |item: &ItemId| state.newest_point(*item).is_some();
    // Of an item whose points were all removed its name means none: what is asked for may be a prefix.
    let item_of = |name: &str| match item_in(state, name, None, |_| true) {
        Err(Refused::Ambiguous { .. }) => {
            let left: Vec<ItemId> = state.items_named(name).filter(visible).collect();
            match left.as_slice() {
                [] => Ok(None),
                [only] => Ok(Some(*only)),
                _ => item_in(state, name, None, |_| true),
            }
        }
        found => found.map(|id| id.filter(visible)),
    };
    // An item's id is never a point's: both are 128 random bits.
    if let Some(newest) = item_of(text)?.and_then(|item| state.newest_point(item)) {
        return Ok(newest);
    }
    if let Ok(id) = text.parse::<PointId>() {
        return state.points().contains(&id).then_some(id).ok_or_else(missing);
    }
    // The last @, since names may have one, too.
    if let Some((name, time)) = text.rsplit_once('@') {
        let latest = parse_moment(time, zone)
            .ok_or_else(|| Refused::invalid("name", format!("the time after @ {MOMENT_RULE}")))?;
        let item = item_of(name)?.ok_or_else(|| Refused::missing("item", name))?;
        return newest_up_to(state, item, latest).ok_or_else(missing);
    }
    if let Some((first, last)) = prefix_range(text) {
        let found: Vec<PointId> = state
            .points()
            .range(first..=last)
            .map(|(id, _)| *id)
            .take(COUNTED_MAX)
            .collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(*only),
            several => {
                let found = listed(several.iter().map(|id| point_words(state, *id)));
                return Err(Refused::Ambiguous {
                    what: "point",
                    name: shown(text),
                    found,
                });
            }
        }
    }
    match state.items_named(text).next() {
        Some(_) => Err(Refused::Missing {
            what: "point",
            name: format!("of item {} yet", shown(text)),
        }),
        None => Err(missing()),
    }
}

/// The newest visible point of an item that is not newer than that.
fn newest_up_to(state: &State, item: ItemId, latest: Time) -> Option<PointId> {
    let visible = |id: &PointId| state.points().get(id).is_some_and(|point| point.hidden.is_none());
    state.points_up_to(item, latest, PointId([255; 16])).find(visible)
}

/// The ids that begin with these digits; none for what is too short or has others.
fn prefix_range(text: &str) -> Option<(PointId, PointId)> {
    let digits = text.len();
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !plain || !(PREFIX_MIN..32).contains(&digits) {
        return None;
    }
    let filled = |with: &str| format!("{text}{}", with.repeat(32 - digits)).parse().ok();
    Some((filled("0")?, filled("f")?))
}

fn point_words(state: &State, id: PointId) -> String {
    let Some(point) = state.points().get(&id) else {
        return id.to_string();
    };
    let item = state.items().get(&point.item);
    format!("{id} ({} at {})", item.map_or("?", |item| &item.spec.name), point.time)
}

fn listed(found: impl ExactSizeIterator<Item = String>) -> String {
    let count = found.len();
    let mut named: Vec<String> = found.take(NAMED_MAX).collect();
    if count > NAMED_MAX {
        named.push(match count {
            COUNTED_MAX => String::from("and many more"),
            count => format!("and {} more", count - NAMED_MAX),
        });
    }
    named.join(", ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::state::command::{AdoptedPoint, Command, Consistency};
    use crate::testing::{Acts, MAIN, Story, at};

    const ARCHIVE: VaultId = VaultId([0x22; 16]);

    fn adopt(story: &mut Story, vault: VaultId, item: u8, name: &str, id: &str, time: &str) {
        story.does(Command::AdoptPoints {
            vault,
            points: vec![AdoptedPoint {
                point: format!("{id:0<32}").parse().unwrap(),
                item: ItemId([item; 16]),
                item_name: name.to_owned(),
                time: at(time),
                keep_until: None,
                manifest: [0; 32],
                consistency: Consistency::Crash,
                hidden: None,
            }],
        });
    }

    fn story() -> Story {
        let mut story = Story::new();
        // After all of its points.
        story.now = at("2026-11-25T00:00:00Z");
        let worker = story.worker;
        story.makes_vault(ARCHIVE, "archive", worker);
        for (item, name, id, time) in [
            (1, "web", "aaaa1", "2026-11-23T02:00:00Z"),
            (2, "db", "aaaa2", "2026-11-22T23:30:00Z"),
            (1, "web", "bbbb", "2026-11-22T02:00:00Z"),
            (3, "a@b", "cccc", "2026-11-21T02:00:00Z"),
            (4, "bbbb", "eeee", "2026-11-19T02:00:00Z"),
        ] {
            adopt(&mut story, MAIN, item, name, id, time);
        }
        story
    }

    fn resolved(story: &Story, text: &str) -> Result<String, Refused> {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        point(&story.state, text, &zone).map(|id| id.to_string().trim_end_matches('0').to_owned())
    }

    fn is_missing(found: &Result<String, Refused>) -> bool {
        matches!(found, Err(Refused::Missing { .. }))
    }

    #[test]
    fn a_name_means_the_newest_point_of_its_item() {
        let story = story();
        assert_eq!(resolved(&story, "web").unwrap(), "aaaa1");
        assert_eq!(resolved(&story, "a@b").unwrap(), "cccc");
        assert_eq!(resolved(&story, &ItemId([2; 16]).to_string()).unwrap(), "aaaa2");
        assert!(is_missing(&resolved(&story, "")));
        assert!(is_missing(&resolved(&story, "mail")));
    }

    #[test]
    fn a_name_goes_before_a_prefix() {
        assert_eq!(resolved(&story(), "bbbb").unwrap(), "eeee");
    }

    #[test]
    fn a_prefix_of_four_digits_is_enough_if_one_point_has_it() {
        let story = story();
        assert_eq!(resolved(&story, "cccc").unwrap(), "cccc");
        assert_eq!(resolved(&story, "aaaa2").unwrap(), "aaaa2");
        for none in ["ccc", "ffff", "CCCC", "ccccg"] {
            assert!(is_missing(&resolved(&story, none)), "{none}");
        }
        let Err(Refused::Ambiguous { found, .. }) = resolved(&story, "aaaa") else {
            panic!("two answer")
        };
        assert!(
            found.contains("(web at 2026-11-23") && found.contains("(db at 2026-11-22"),
            "{found}"
        );
    }

    #[test]
    fn a_time_means_the_newest_point_at_it_or_before() {
        let story = story();
        for (text, expected) in [
            ("web@2026-11-22T02:00:00Z", "bbbb"),
            ("web@2026-11-23T03:00:00+01:00", "aaaa1"),
            ("web@2026-11-22 03:00", "bbbb"),
            ("web@2026-11-23 02:59:59", "bbbb"),
            ("web@2026-11-22", "bbbb"),
            ("web@2030-01-01", "aaaa1"),
            ("a@b@2026-11-21", "cccc"),
        ] {
            assert_eq!(resolved(&story, text).unwrap(), expected, "{text}");
        }
        // In the zone of the caller this was on the 23rd.
        assert!(is_missing(&resolved(&story, "db@2026-11-22")));
        assert!(is_missing(&resolved(&story, "web@2026-11-19")));
        assert!(matches!(
            resolved(&story, "mail@2026-11-22"),
            Err(Refused::Missing { what: "item", .. })
        ));
        for bad in ["web@", "web@yesterday", "web@2026-13-01"] {
            assert!(matches!(resolved(&story, bad), Err(Refused::Invalid { .. })), "{bad}");
        }
    }

    #[test]
    fn removed_points_answer_to_their_ids_only() {
        let mut story = story();
        let newest = point(&story.state, "web", &TimeZone::UTC).unwrap();
        story.does(Command::HidePoints {
            points: vec![newest],
            by_retention: false,
        });
        assert_eq!(resolved(&story, "web").unwrap(), "bbbb");
        assert_eq!(resolved(&story, "web@2030-01-01").unwrap(), "bbbb");
        assert_eq!(resolved(&story, "aaaa1").unwrap(), "aaaa1");
        assert_eq!(resolved(&story, &newest.to_string()).unwrap(), "aaaa1");
    }

    #[test]
    fn an_item_without_points_says_so_unless_its_name_is_a_prefix() {
        let mut story = story();
        story.protect("fresh", None);
        story.protect("cccc", None);
        let error = resolved(&story, "fresh").unwrap_err();
        assert_eq!(error.to_string(), "there is no point of item fresh yet");
        assert_eq!(resolved(&story, "cccc").unwrap(), "cccc");
    }

    #[test]
    fn two_items_of_one_name_are_told_apart_by_vault_or_id() {
        let mut story = story();
        adopt(&mut story, ARCHIVE, 9, "web", "dddd", "2026-11-24T02:00:00Z");
        let Err(Refused::Ambiguous { found, .. }) = resolved(&story, "web") else {
            panic!("two answer")
        };
        assert!(
            found.contains("in vault main") && found.contains("in vault archive"),
            "{found}"
        );
        assert!(item(&story.state, "web", "").is_err());
        assert_eq!(item(&story.state, "web", "archive").unwrap(), ItemId([9; 16]));
        let id = ItemId([9; 16]).to_string();
        assert_eq!(item(&story.state, &id, "").unwrap(), ItemId([9; 16]));
        assert_eq!(resolved(&story, &format!("{id}@2026-11-24")).unwrap(), "dddd");
        assert!(item(&story.state, &id, "main").is_err(), "not in that vault");
        assert!(matches!(
            item(&story.state, "web", "none"),
            Err(Refused::Missing { what: "vault", .. })
        ));
    }

    #[test]
    fn of_two_items_of_one_name_the_protected_one_is_backed_up() {
        let mut story = story();
        assert!(matches!(
            protected_item(&story.state, "web", ""),
            Err(Refused::Held { .. })
        ));
        let protected = story.protects("web", ARCHIVE, None);
        assert_eq!(protected_item(&story.state, "web", "").unwrap(), protected);
        assert!(matches!(
            protected_item(&story.state, "mail", ""),
            Err(Refused::Missing { .. })
        ));
    }

    #[test]
    fn ambiguity_names_a_bounded_number_of_answers() {
        let mut story = Story::new();
        for n in 0..20_u8 {
            let id = format!("abcd{n:02x}f");
            adopt(
                &mut story,
                MAIN,
                n + 1,
                &format!("item-{n}"),
                &id,
                "2026-11-22T02:00:00Z",
            );
        }
        let Err(Refused::Ambiguous { found, .. }) = resolved(&story, "abcd") else {
            panic!("twenty answer")
        };
        assert!(found.ends_with("and 12 more"), "{found}");
    }

    #[test]
    fn nodes_and_policies_are_found_by_name_or_number_unless_they_are_gone() {
        let mut story = story();
        let id = story.worker;
        assert_eq!(worker(&story.state, "w1").unwrap(), id);
        assert_eq!(worker(&story.state, &id.to_string()).unwrap(), id);
        assert_eq!(member(&story.state, "c1").unwrap(), MemberId(1));
        assert_eq!(member(&story.state, "1").unwrap(), MemberId(1));
        assert_eq!(vault(&story.state, &MAIN.to_string()).unwrap(), MAIN);
        story.does(Command::RemoveWorker { worker: id });
        for name in ["w1", &id.to_string()] {
            assert!(worker(&story.state, name).is_err(), "{name}");
        }
        assert!(member(&story.state, "2").is_err());
        assert!(policy(&story.state, "gold").is_err());
        assert!(token(&story.state, "x").is_err());
        assert!(job(&story.state, 9999).is_err());
    }
}
