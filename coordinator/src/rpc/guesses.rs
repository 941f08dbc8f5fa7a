//! Failed tokens by address: who fails often is not listened to for a while.
//!
//! A token has 256 random bits, so that nobody guesses one; this keeps the attempt from filling the log and the cores. Addresses are shared by
//! people behind one gateway, so a token that was good from an address lately goes on working there whatever others do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tresor_proto::ids::TokenId;

/// Failures that are free: somebody pastes the wrong token a few times.
const FREE: u64 = 10;
/// How long one failure weighs, milliseconds: from then on ten a minute are looked at.
const WEIGHT_MS: u64 = 6_000;
/// Addresses that are remembered. An entry has about 50 bytes.
const PLACES_MAX: usize = 4096;
/// Pairs of an address and a token that was good there.
const GOOD_MAX: usize = 4096;
/// How long such a pair counts, milliseconds: a day, so that who works here every day is never locked out.
const GOOD_MS: u64 = 24 * 3600 * 1000;
/// A pair is written again only when it is older, milliseconds: most requests find it as it is.
const GOOD_STEP_MS: u64 = 60_000;

/// From where somebody calls: an IPv4 address, or the network of an IPv6 one, since one machine has as many of those as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(IpAddr);

impl Place {
    /// Of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into())),
            v4 => Self(v4),
        }
    }
}

/// What is known of failures. Times are milliseconds of a monotonic clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guesses {
    /// Until when the failures of a place weigh, one after another.
    spent: BTreeMap<Place, u64>,
    /// When a token was good from a place.
    good: BTreeMap<(Place, TokenId), u64>,
}

impl Guesses {
    /// How long a place has to wait until a token of it is looked at, milliseconds; none: not at all.
    pub(crate) fn wait(&self, place: Place, now: u64) -> Option<u64> {
        let until = self.spent.get(&place)?.saturating_sub(FREE * WEIGHT_MS);
        until.checked_sub(now).filter(|wait| *wait > 0)
    }

    /// Whether this token was good from this place lately.
    pub(crate) fn is_known(&self, place: Place, token: TokenId, now: u64) -> bool {
        self.good
            .get(&(place, token))
            .is_some_and(|at| now.saturating_sub(*at) < GOOD_MS)
    }

    /// Notes a failure.
    pub(crate) fn failed(&mut self, place: Place, now: u64) {
        if self.spent.len() >= PLACES_MAX && !self.spent.contains_key(&place) {
            self.spent.retain(|_, until| *until > now);
            // Who has many addresses pushes out others' failures, and gains no more than more addresses give anyway.
            while self.spent.len() >= PLACES_MAX {
                let least = self
                    .spent
                    .iter()
                    .min_by_key(|(_, until)| **until)
                    .map(|(place, _)| *place);
                let Some(least) = least else { break };
                self.spent.remove(&least);
            }
        }
        let until = self.spent.entry(place).or_default();
        // Nobody is locked out for longer than the free ones take to come back.
        *until = ((*until).max(now) + WEIGHT_MS).min(now + 2 * FREE * WEIGHT_MS);
    }

    /// Notes that a token was good.
    pub(crate) fn succeeded(&mut self, place: Place, token: TokenId, now: u64) {
        let key = (place, token);
        if self
            .good
            .get(&key)
            .is_some_and(|at| now.saturating_sub(*at) < GOOD_STEP_MS)
        {
            return;
        }
        if self.good.len() >= GOOD_MAX && !self.good.contains_key(&key) {
            self.good.retain(|_, at| now.saturating_sub(*at) < GOOD_MS);
            while self.good.len() >= GOOD_MAX {
                let oldest = self.good.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key);
                let Some(oldest) = oldest else { break };
                self.good.remove(&oldest);
            }
        }
        self.good.insert(key, now);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId([1; 16]);

    fn place(text: &str) -> Place {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn a_few_failures_are_free_and_then_they_cost_time() {
        let mut guesses = Guesses::default();
        let here = place("192.0.2.1");
        for _ in 0..FREE {
            guesses.failed(here, 1000);
            assert_eq!(guesses.wait(here, 1000), None);
        }
        guesses.failed(here, 1000);
        assert_eq!(guesses.wait(here, 1000), Some(WEIGHT_MS));
        assert_eq!(guesses.wait(here, 1000 + WEIGHT_MS), None);
        assert_eq!(
            guesses.wait(place("192.0.2.2"), 1000),
            None,
            "others are not asked to wait"
        );
    }

    #[test]
    fn in_the_long_run_ten_a_minute_are_looked_at() {
        let mut guesses = Guesses::default();
        let here = place("192.0.2.1");
        let mut looked_at = 0;
        for now in (0..3_600_000).step_by(100) {
            if guesses.wait(here, now).is_none() {
                guesses.failed(here, now);
                looked_at += 1;
            }
        }
        assert!((600..=612).contains(&looked_at), "{looked_at}");
    }

    #[test]
    fn nobody_waits_for_longer_than_a_minute_however_often_they_failed() {
        let mut guesses = Guesses::default();
        let here = place("192.0.2.1");
        for _ in 0..10_000 {
            guesses.failed(here, 0);
        }
        assert_eq!(guesses.wait(here, 0), Some(FREE * WEIGHT_MS));
    }

    #[test]
    fn one_network_of_ipv6_is_one_place_and_a_mapped_address_is_the_other_one() {
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:1:2:3"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
    }

    #[test]
    fn a_token_that_was_good_here_is_known_here_for_a_day() {
        let mut guesses = Guesses::default();
        let here = place("192.0.2.1");
        guesses.succeeded(here, TOKEN, 5);
        assert!(guesses.is_known(here, TOKEN, 6));
        assert!(!guesses.is_known(here, TokenId([2; 16]), 6));
        assert!(!guesses.is_known(place("192.0.2.2"), TOKEN, 6));
        assert!(!guesses.is_known(here, TOKEN, 5 + GOOD_MS));
    }

    #[test]
    fn both_tables_are_bounded_and_keep_the_newest() {
        let mut guesses = Guesses::default();
        for n in 0..2 * u32::try_from(PLACES_MAX).unwrap() {
            let place = Place::of(IpAddr::V4(n.into()));
            guesses.failed(place, u64::from(n));
            guesses.succeeded(place, TOKEN, u64::from(n));
        }
        assert_eq!(guesses.spent.len(), PLACES_MAX);
        assert_eq!(guesses.good.len(), GOOD_MAX);
        let last = Place::of(IpAddr::V4((2 * u32::try_from(PLACES_MAX).unwrap() - 1).into()));
        assert!(guesses.spent.contains_key(&last) && guesses.is_known(last, TOKEN, 10_000));
    }
}
