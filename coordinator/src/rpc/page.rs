//! Lists in pages.
//!
//! A page goes on after the last row that the page before looked at, by that row's key in the order of the list. So a row that is there all the time is
//! shown once, whatever comes and goes between two pages. The token holds that key, and which list and which filters it is of; to a caller it is
//! opaque. A page is bounded by rows, by bytes and by rows looked at: with a filter that little passes it can be short or empty and not the last.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tresor_proto::ids::hex;

use super::refused::Refused;

/// Rows of a page if the caller does not say.
pub const PAGE_DEFAULT: usize = 100;
/// Most rows of a page; who asks for more gets so many.
pub const PAGE_MAX: usize = 1000;
/// A page ends after so many bytes: half of what a message of gRPC may have. One more row fits: the largest, an item of 128 disks, has 600 KB.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// Most rows that are looked at for a page: milliseconds, or some tens of them where each row is reckoned with; nothing can be applied meanwhile.
const LOOKED_AT_MAX: usize = 10_000;
/// Longest token that is read, characters. The longest key has a name of 255 bytes and two ids.
const TOKEN_MAX: usize = 1024;
/// The form of tokens.
const FORM: u8 = 1;
/// Bytes of the hash of list and filters: enough to tell a mistake; it protects nothing.
const OF_BYTES: usize = 8;

/// A page that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    size: usize,
    of: [u8; OF_BYTES],
    /// The key that it goes on after; none: from the beginning.
    pub after: Option<K>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// Reads what was asked for. `list` and `filters` are what the token must have been made for.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a token that is none of this list under these filters.
    pub fn read(list: &str, filters: &impl Serialize, size: u32, token: &str) -> Result<Self, Refused> {
        let size = match usize::try_from(size).unwrap_or(PAGE_MAX) {
            0 => PAGE_DEFAULT,
            size => size.min(PAGE_MAX),
        };
        let of = of(list, filters);
        let after = match token {
            "" => None,
            token => Some(read_token(token, of)?),
        };
        Ok(Self { size, of, after })
    }

    /// Fills it: `rows` are those after [`Self::after`] in the list's order, with their keys; `show` makes a message of a row, or nothing where a filter
    /// leaves it out. Returns the messages and the token of the next page; empty: this is the last.
    pub fn fill<R, M: Message>(
        &self,
        rows: impl IntoIterator<Item = (K, R)>,
        mut show: impl FnMut(&K, R) -> Option<M>,
    ) -> (Vec<M>, String) {
        let mut shown = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for (looked_at, (key, row)) in rows.into_iter().enumerate() {
            let is_full = shown.len() >= self.size || bytes >= PAGE_BYTES_MAX || looked_at >= LOOKED_AT_MAX;
            if let (true, Some(last)) = (is_full, &last) {
                return (shown, self.token(last));
            }
            if let Some(message) = show(&key, row) {
                bytes += message.encoded_len();
                shown.push(message);
            }
            last = Some(key);
        }
        (shown, String::new())
    }

    fn token(&self, key: &K) -> String {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&self.of);
        let bytes = postcard::to_extend(key, bytes).expect("keys are plain data and memory can be had");
        hex(&bytes)
    }
}

fn of(list: &str, filters: &impl Serialize) -> [u8; OF_BYTES] {
    let bytes = postcard::to_stdvec(&(list, filters)).expect("filters are plain data and memory can be had");
    let hash = blake3::hash(&bytes);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn read_token<K: DeserializeOwned>(token: &str, of: [u8; OF_BYTES]) -> Result<K, Refused> {
    let wrong = |rule: &str| Refused::invalid("page_token", rule);
    let no_token = || wrong("is not a token of a page before");
    if token.len() > TOKEN_MAX || !token.len().is_multiple_of(2) {
        return Err(no_token());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect();
    let bytes = bytes.ok_or_else(no_token)?;
    let (form, rest) = bytes.split_first().ok_or_else(no_token)?;
    if *form != FORM {
        return Err(no_token());
    }
    let (made_for, key) = rest.split_first_chunk::<OF_BYTES>().ok_or_else(no_token)?;
    if *made_for != of {
        return Err(wrong("is of another list, or of this one under other filters"));
    }
    match postcard::take_from_bytes(key) {
        Ok((key, [])) => Ok(key),
        _ => Err(no_token()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;
    use tresor_proto::v1::Token;

    fn row(id: &impl ToString) -> Token {
        Token {
            id: id.to_string(),
            ..Token::default()
        }
    }

    fn page(rows: &BTreeSet<u64>, size: u32, token: &str) -> (Vec<u64>, String) {
        let page = Page::<u64>::read("rows", &(), size, token).unwrap();
        let from = page.after.map_or(0, |after| after + 1);
        let (shown, next) = page.fill(rows.range(from..).map(|id| (*id, *id)), |_, id| Some(row(&id)));
        (shown.iter().map(|row| row.id.parse().unwrap()).collect(), next)
    }

    #[test]
    fn the_last_page_has_no_token_even_if_it_is_full() {
        let rows = (0..4).collect();
        let (first, next) = page(&rows, 2, "");
        assert_eq!(first, [0, 1]);
        assert_eq!(page(&rows, 2, &next), (vec![2, 3], String::new()));
        assert_eq!(page(&BTreeSet::new(), 2, ""), (vec![], String::new()));
    }

    #[test]
    fn a_page_has_a_default_size_and_a_greatest() {
        let rows = (0..2000).collect();
        assert_eq!(page(&rows, 0, "").0.len(), PAGE_DEFAULT);
        assert_eq!(page(&rows, u32::MAX, "").0.len(), PAGE_MAX);
    }

    #[test]
    fn a_page_of_large_rows_ends_before_a_message_is_too_large() {
        let page = Page::<u64>::read("rows", &(), 1000, "").unwrap();
        let large = "x".repeat(600_000);
        let (shown, next) = page.fill((0..1000).map(|id| (id, ())), |_, ()| Some(row(&large)));
        assert_eq!(shown.len(), 4);
        assert!(!next.is_empty());
    }

    #[test]
    fn a_filter_that_nothing_passes_gives_empty_pages_until_the_end() {
        let (mut after, mut pages) = (String::new(), 0);
        loop {
            let page = Page::<u64>::read("rows", &(), 10, &after).unwrap();
            let from = page.after.map_or(0, |after| after + 1);
            let (shown, next) = page.fill((from..50_000).map(|id| (id, id)), |_, _| None::<Token>);
            assert!(shown.is_empty());
            pages += 1;
            if next.is_empty() {
                break;
            }
            after = next;
        }
        assert_eq!(pages, 50_000 / LOOKED_AT_MAX);
    }

    #[test]
    fn a_token_is_of_one_list_under_its_filters() {
        let rows: BTreeSet<u64> = (0..10).collect();
        let (_, token) = page(&rows, 2, "");
        assert!(Page::<u64>::read("rows", &(), 2, &token).is_ok());
        for wrong in [
            Page::<u64>::read("others", &(), 2, &token),
            Page::<u64>::read("rows", &"web", 2, &token),
        ] {
            assert!(wrong.unwrap_err().to_string().contains("another list"));
        }
        let mut longer = token.clone();
        longer.push_str("00");
        for no_token in [
            "0",
            "zz",
            "ä",
            &token[2..],
            &longer,
            &"0".repeat(1 << 20),
            &token.to_uppercase(),
        ] {
            let refused = Page::<u64>::read("rows", &(), 2, no_token);
            assert!(refused.is_err() || no_token == token, "{no_token}");
        }
    }

    proptest! {
        #[test]
        fn rows_that_stay_are_shown_once_whatever_comes_and_goes(
            stay in prop::collection::btree_set(0u64..500, 1..60),
            changes in prop::collection::vec((prop::collection::btree_set(0u64..500, 0..20), any::<bool>()), 40),
            size in 1u32..10,
        ) {
            let mut rows = stay.clone();
            let mut seen = Vec::new();
            let mut token = String::new();
            for (changed, comes) in changes {
                let (shown, next) = page(&rows, size, &token);
                seen.extend(shown);
                if next.is_empty() {
                    token = next;
                    break;
                }
                token = next;
                for id in changed.difference(&stay) {
                    if comes { rows.insert(*id); } else { rows.remove(id); }
                }
            }
            prop_assume!(token.is_empty());
            let unique: BTreeSet<u64> = seen.iter().copied().collect();
            prop_assert_eq!(unique.len(), seen.len(), "a row is shown twice");
            prop_assert!(stay.is_subset(&unique));
            prop_assert!(seen.is_sorted());
        }
    }
}
