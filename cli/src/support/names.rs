//! Pseudonyms for names. Pure.
//!
//! A pseudonym is a keyed hash of the name: who has the key's file, in the home, can tell which name a pseudonym is by trying names; whoever has the bundle
//! cannot. Names are replaced as whole words, and as parts of words between dots; addresses, absolute paths and URLs are replaced wherever they stand.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tresor_storage::ids::hex;

/// Digits of a pseudonym: enough to tell some thousand names apart.
const BYTES: usize = 4;
/// What is as it is everywhere, and says nothing.
const PLAIN: [&str; 8] = [
    "main",
    "default",
    "localhost",
    "local",
    "root",
    "tresor",
    "daily",
    "crash",
];

/// What is replaced.
pub(crate) struct Names {
    key: [u8; 32],
    known: BTreeMap<String, String>,
    /// Names that are no words, the longest first.
    odd: Vec<(String, String)>,
}

/// Names with blanks or other signs in them that are looked for one by one.
const ODD_MAX: usize = 2000;

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl Names {
    /// None yet.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            known: BTreeMap::new(),
            odd: Vec::new(),
        }
    }

    fn pseudonym(&self, kind: &str, name: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, name.as_bytes());
        format!("{kind}-{}", hex(&hash.as_bytes()[..BYTES]))
    }

    /// A name of something of a kind.
    pub(crate) fn know(&mut self, kind: &str, name: &str) {
        if name.len() < 2 || PLAIN.contains(&name) || self.known.contains_key(name) {
            return;
        }
        let pseudonym = self.pseudonym(kind, name);
        if name.chars().all(is_of_word) {
            self.known.insert(name.to_owned(), pseudonym);
        } else if self.odd.len() < ODD_MAX {
            let at = self.odd.partition_point(|(other, _)| other.len() >= name.len());
            self.odd.insert(at, (name.to_owned(), pseudonym));
        }
    }

    /// A text with pseudonyms in it.
    pub(crate) fn replace(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, pseudonym) in &self.odd {
            if text.contains(name.as_str()) {
                text = text.replace(name.as_str(), pseudonym);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let is_chunk =
                |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | ',' | ';' | '(' | ')' | '{' | '}' | '`');
            let end = rest.find(|c| !is_chunk(c)).unwrap_or(rest.len());
            let (chunk, behind) = rest.split_at(end);
            out.push_str(&self.chunk(chunk));
            let gap = behind.find(is_chunk).unwrap_or(behind.len());
            out.push_str(&behind[..gap]);
            rest = &behind[gap..];
        }
        out
    }

    /// A run without blanks and quotes: maybe a URL, or a path, or some words.
    fn chunk(&self, chunk: &str) -> String {
        if let Some((scheme, rest)) = chunk.split_once("://") {
            let from = scheme
                .rfind(|c: char| !c.is_ascii_alphanumeric())
                .map_or(0, |at| at + 1);
            if !rest.is_empty() {
                let (before, scheme) = scheme.split_at(from);
                return format!("{}{scheme}://{}", self.words(before), self.pseudonym("store", rest));
            }
        }
        // `HOST:/path` and `path=/path` too; `/metrics` has no second part and stays.
        if let Some(at) = chunk.find('/').filter(|at| is_path(&chunk[*at..])) {
            let (before, path) = chunk.split_at(at);
            let ending = path.rsplit_once('.').map(|(_, ending)| ending);
            let ending = ending.filter(|ending| ending.len() <= 5 && ending.chars().all(|c| c.is_ascii_alphanumeric()));
            let ending = ending.map(|ending| format!(".{ending}")).unwrap_or_default();
            return format!("{}/{}{ending}", self.words(before), self.pseudonym("path", path));
        }
        self.words(chunk)
    }

    fn words(&self, text: &str) -> String {
        if let Ok(IpAddr::V6(address)) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return self.address(&IpAddr::V6(address)).unwrap_or_else(|| text.to_owned());
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            out.push_str(&self.word(word));
            let gap = behind.find(is_of_word).unwrap_or(behind.len());
            // `[fe80::1]:7420`.
            let between = &behind[..gap];
            out.push_str(between);
            rest = &behind[gap..];
            if between.ends_with('[')
                && let Some((inner, after)) = rest.split_once(']')
                && let Ok(address) = inner.parse::<Ipv6Addr>()
                && let Some(pseudonym) = self.address(&IpAddr::V6(address))
            {
                out.push_str(&pseudonym);
                out.push(']');
                rest = after;
            }
        }
        out
    }

    fn word(&self, word: &str) -> String {
        if let Some(pseudonym) = self.known.get(word) {
            return pseudonym.clone();
        }
        if let Ok(address) = word.parse::<Ipv4Addr>() {
            return self.address(&IpAddr::V4(address)).unwrap_or_else(|| word.to_owned());
        }
        if !word.contains('.') {
            return word.to_owned();
        }
        // The longest beginning or end between dots: `kvm-7.example.org.` or `web-03.img`.
        for (at, _) in word.rmatch_indices('.') {
            if let Some(pseudonym) = self.known.get(&word[..at]) {
                return format!("{pseudonym}{}", &word[at..]);
            }
        }
        let parts: Vec<&str> = word
            .split('.')
            .map(|part| self.known.get(part).map_or(part, String::as_str))
            .collect();
        parts.join(".")
    }

    /// None for one that says nothing.
    fn address(&self, address: &IpAddr) -> Option<String> {
        let says_nothing = address.is_loopback() || address.is_unspecified();
        (!says_nothing).then(|| self.pseudonym("address", &address.to_string()))
    }
}

/// Whether a text that begins with a slash is a path and not a word of ours.
fn is_path(text: &str) -> bool {
    let is_deep = text[1..].contains('/');
    is_deep && text[1..].starts_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::new([1; 32]);
        for (kind, name) in [
            ("item", "web-03"),
            ("host", "kvm-7.example.org"),
            ("item", "Büro Server"),
            ("vault", "main"),
        ] {
            names.know(kind, name);
        }
        names
    }

    #[test]
    fn a_name_has_one_pseudonym_wherever_it_stands() {
        let names = names();
        let web = names.replace("web-03");
        assert!(web.starts_with("item-") && web.len() == 13, "{web}");
        assert_eq!(
            names.replace("item=web-03, web-03.img \"web-03\""),
            format!("item={web}, {web}.img \"{web}\"")
        );
        assert_eq!(
            names.replace("web-031 xweb-03"),
            "web-031 xweb-03",
            "parts of other words are none"
        );
        let host = names.replace("kvm-7.example.org");
        assert_eq!(names.replace("on kvm-7.example.org:7420."), format!("on {host}:7420."));
        let text = names.replace("of Büro Server in main");
        assert!(text.ends_with(" in main") && !text.contains("Büro"), "{text}");
        assert_ne!(
            Names::new([2; 32]).pseudonym("item", "web-03"),
            web,
            "another home has others"
        );
    }

    #[test]
    fn addresses_paths_and_stores_are_replaced_wherever_they_are_from() {
        let names = names();
        for text in [
            "10.1.2.3:7420",
            "[fd00::17]:7420",
            "fd00::17",
            "/vm/disks/web.qcow2",
            "s3://bucket/prefix",
            "kvm:/vm/a.img",
        ] {
            let replaced = names.replace(text);
            for part in ["10.1.2.3", "fd00", "disks", "bucket", "/vm"] {
                assert!(!replaced.contains(part), "{text} became {replaced}");
            }
        }
        assert!(names.replace("/vm/disks/web.qcow2").ends_with(".qcow2"));
        for plain in [
            "127.0.0.1:7423",
            "[::1]:7420",
            "/metrics",
            "2026-11-22T10:00:00Z",
            "8 of 10",
            "a/b",
        ] {
            assert_eq!(names.replace(plain), plain);
        }
    }
}
