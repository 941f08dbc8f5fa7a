//! Takes secrets out of texts: those that are known by their bytes, and what looks like one. Pure.
//!
//! Known are the values of telling variables of the environment, and the contents of the files that settings and the home keep secrets in. What looks like
//! one: tokens of ours, private keys, what stands before the `@` of a URL and behind its `?`, and what follows `password=` and its like.

use std::collections::BTreeSet;

/// What is written instead.
const GONE: &str = "[secret]";
/// Shortest text that is taken out wherever it stands: a shorter one is in every other word, and no secret either.
const SECRET_MIN: usize = 6;
/// Beginnings of tokens of ours.
const TOKENS: [&str; 2] = ["tresor_api_", "tresor_join_"];
/// Names whose values nobody is to see, in small letters; a longer name may end in them.
const NAMES: [&str; 12] = [
    "password",
    "passphrase",
    "passwd",
    "secret",
    "token",
    "signature",
    "sig",
    "access_key",
    "accesskey",
    "account_key",
    "credential",
    "authorization",
];
/// Beginning and end of private keys in PEM.
const PEM: (&str, &str) = ("-----BEGIN ", "-----END ");
/// How the lines begin that say what is between them.
const PEM_LINE: &str = "-----";

/// What is taken out.
#[derive(Default)]
pub(crate) struct Guard {
    /// The longest first, so that none is cut by one that is a part of it.
    known: BTreeSet<(std::cmp::Reverse<usize>, String)>,
}

/// Whether a variable of the environment may hold a secret, by its name.
pub(crate) fn is_telling(variable: &str) -> bool {
    let name = variable.to_ascii_lowercase();
    let words = ["secret", "token", "pass", "key", "credential", "auth", "sas", "proxy"];
    words.iter().any(|word| name.contains(word))
}

impl Guard {
    /// A secret: as it is, as JSON has it, and with its special characters in percents.
    pub(crate) fn know(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SECRET_MIN {
            return;
        }
        let json = serde_json::to_string(secret).expect("a text is JSON");
        let percents: String = secret
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        for form in [secret, json.trim_matches('"'), &percents] {
            self.known.insert((std::cmp::Reverse(form.len()), form.to_owned()));
        }
    }

    /// A file that holds secrets: all of it, each of its lines, and each long word.
    pub(crate) fn know_file(&mut self, text: &str) {
        self.know(text);
        for line in text.lines().filter(|line| !line.starts_with(PEM_LINE)) {
            self.know(line);
            // Ids of vaults are in key files, too; they are no secret, and keys are longer.
            let is_id = |word: &str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            for word in line.split_whitespace().filter(|word| word.len() >= 16 && !is_id(word)) {
                self.know(word);
            }
        }
    }

    /// A text without them.
    pub(crate) fn clean(&self, text: &str) -> String {
        // First, while what they begin with still stands there: it is a line of every key that is known, too.
        let mut text = without_private_keys(text);
        for (_, secret) in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), GONE);
            }
        }
        text.split_inclusive('\n').map(clean_line).collect()
    }
}

fn without_private_keys(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PEM.0) {
        let (before, from) = rest.split_at(at);
        safe.push_str(before);
        let end = from.find(PEM.1).and_then(|end| {
            let line = from[end + PEM.1.len()..].find("-----")?;
            Some(end + PEM.1.len() + line + 5)
        });
        let is_key = from[PEM.0.len()..]
            .split("-----")
            .next()
            .is_some_and(|kind| kind.contains("PRIVATE"));
        let end = match end {
            Some(end) => end,
            // Cut off: all of it, if it is a key.
            None if is_key => from.len(),
            None => PEM.0.len(),
        };
        safe.push_str(if is_key { GONE } else { &from[..end] });
        rest = &from[end..];
    }
    safe.push_str(rest);
    safe
}

/// What may stand in a value that is not in quotes.
fn is_of_word(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '"' | '\'' | ',' | ';' | ')' | '}' | ']' | '<' | '>')
}

fn clean_line(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if !is_of_word(c) {
            safe.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let (cleaned, wants_value) = clean_word(word);
        safe.push_str(&cleaned);
        rest = behind;
        // `"token":"x"`, `secret : x`.
        let is_field = is_guarded(word) && rest.trim_start_matches(['"', '\'', ' ']).starts_with(':');
        let wants_value = wants_value || is_field;
        if wants_value {
            // `password: "x y"`, `"token": "x"`, `Authorization: Bearer x`.
            let lead = rest
                .find(|c: char| !matches!(c, ' ' | '"' | '\'' | '\t' | ':'))
                .unwrap_or(rest.len());
            let (between, value) = rest.split_at(lead);
            let quote = between.chars().last().filter(|c| matches!(c, '"' | '\''));
            let value_end = match quote {
                Some(quote) => value.find(quote).unwrap_or(value.len()),
                None => value.find(['\n', ',', '}']).unwrap_or(value.len()),
            };
            safe.push_str(between);
            if value_end > 0 {
                safe.push_str(GONE);
            }
            rest = &value[value_end..];
        }
    }
    safe
}

fn is_guarded(name: &str) -> bool {
    let name = name
        .trim_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_ascii_lowercase();
    let name = name.replace('-', "_");
    NAMES.iter().any(|guarded| name.ends_with(guarded))
}

/// A word without what is secret in it, and whether its value is the next one.
fn clean_word(word: &str) -> (String, bool) {
    if let Some(at) = TOKENS.iter().filter_map(|token| word.find(token)).min() {
        return (format!("{}{GONE}", &word[..at]), false);
    }
    if let Some((scheme, rest)) = word.split_once("://") {
        return (clean_url(scheme, rest), false);
    }
    if let Some((name, value)) = word.split_once('=') {
        if is_guarded(name) {
            // `name="…`: the value is what comes next.
            return match value {
                "" => (word.to_owned(), true),
                _ => (format!("{name}={GONE}"), false),
            };
        }
        return (word.to_owned(), false);
    }
    match word.split_once(':') {
        Some((name, "")) if is_guarded(name) => (word.to_owned(), true),
        Some((name, _)) if is_guarded(name) => (format!("{name}:{GONE}"), false),
        _ => (word.to_owned(), word.eq_ignore_ascii_case("bearer")),
    }
}

fn clean_url(scheme: &str, rest: &str) -> String {
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, _)) => (rest, "?[left out]"),
        None => (rest, ""),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match host.rsplit_once('@') {
        Some((_, host)) => format!("{GONE}@{host}"),
        None => host.to_owned(),
    };
    // A query of a URL within the query, or a name and its value before the scheme.
    let scheme = match scheme.split_once('=') {
        Some((name, _)) if is_guarded(name) => return format!("{name}={GONE}"),
        _ => scheme,
    };
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_taken_out_in_every_form() {
        let mut guard = Guard::default();
        guard.know("pass\"word/+1\n");
        guard.know_file("# recovery kit\nkey 0123456789abcdef0123\n");
        let text = "a pass\"word/+1 b pass\\\"word/+1 c pass%22word%2F%2B1 d 0123456789abcdef0123";
        assert_eq!(guard.clean(text), "a [secret] b [secret] c [secret] d [secret]");
        guard.know("short");
        assert_eq!(
            guard.clean("short"),
            "short",
            "a word that is in every other text stays"
        );
    }

    #[test]
    fn a_secret_within_a_secret_leaves_nothing_of_the_longer_one() {
        let mut guard = Guard::default();
        guard.know("hunter2");
        guard.know("hunter2-and-more");
        assert_eq!(guard.clean("x=hunter2-and-more"), "x=[secret]");
    }

    #[test]
    fn what_looks_like_a_secret_is_taken_out() {
        let guard = Guard::default();
        for (text, clean) in [
            ("s3://user:pw@bucket/x", "s3://[secret]@bucket/x"),
            ("url=https://h/p?sig=abc&se=1, next", "url=https://h/p?[left out], next"),
            ("with tresor_api_0123_456 in it", "with [secret] in it"),
            ("given as `tresor_join_01_02_03_04`", "given as `[secret]"),
            ("AWS_SECRET_ACCESS_KEY=abc def", "AWS_SECRET_ACCESS_KEY=[secret] def"),
            ("password: two words\n", "password: [secret]\n"),
            ("Authorization: Bearer abc.def\n", "Authorization: [secret]\n"),
            ("used bearer abc.def", "used bearer [secret]"),
            ("secret=\"two words\" rest", "secret=\"[secret]\" rest"),
            ("{\"token\":\"abc\",\"n\":1}", "{\"token\":\"[secret]\",\"n\":1}"),
            ("X-Amz-Signature=abc", "X-Amz-Signature=[secret]"),
            (
                "plain text, 12:30:05Z a=b vault://",
                "plain text, 12:30:05Z a=b vault://",
            ),
            (
                "k -----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY----- l",
                "k [secret] l",
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nabc", "[secret]"),
            (
                "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
                "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            ),
        ] {
            assert_eq!(guard.clean(text), clean);
        }
    }

    #[test]
    fn another_private_key_is_taken_out_where_one_is_known() {
        let mut guard = Guard::default();
        guard.know_file("-----BEGIN PRIVATE KEY-----\nb3VyIG93biBrZXk\n-----END PRIVATE KEY-----\n");
        let text = "a -----BEGIN PRIVATE KEY-----\ndGhlaXJz\n-----END PRIVATE KEY----- b b3VyIG93biBrZXk c";
        assert_eq!(guard.clean(text), "a [secret] b [secret] c");
    }

    #[test]
    fn variables_are_telling_by_their_names() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "HTTPS_PROXY",
            "TRESOR_PASSPHRASE_FILE",
        ] {
            assert!(is_telling(name), "{name}");
        }
        assert!(!is_telling("LANG"));
    }
}
