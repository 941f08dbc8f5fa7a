//! Where a channel leads and with what, as it is wrapped for the log. No text has it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::rpc::context::{SecretBox, SecretError};

/// What of a channel is secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    /// The URL of a webhook, which mostly holds a token; empty for mail.
    pub url: String,
    /// The password of a mail server, or the key that signs bodies; may be empty.
    pub secret: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

impl Secret {
    /// For the log.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn wrap(&self, keys: &dyn SecretBox) -> Result<Vec<u8>, SecretError> {
        let bytes = Zeroizing::new(postcard::to_stdvec(self).expect("plain data, and memory can be had"));
        keys.wrap_channel(&bytes)
    }

    /// From the log.
    ///
    /// # Errors
    /// [`SecretError`]: another key wrapped it, or it is damaged.
    pub fn unwrap(wrapped: &[u8], keys: &dyn SecretBox) -> Result<Self, SecretError> {
        let bytes = keys.unwrap_channel(wrapped)?;
        // The decoder's words could quote what it reads.
        postcard::from_bytes(&bytes).map_err(|_| SecretError {
            why: String::from("what is wrapped here is no secret of a channel"),
        })
    }

    /// A text of somebody else without anything of this: a receiver may repeat what it was asked.
    pub fn redact(&self, text: &str) -> String {
        let mut parts = Vec::new();
        if let Ok(url) = url::Url::parse(&self.url) {
            let segments: Vec<&str> = url.path_segments().into_iter().flatten().collect();
            let whole = [
                url.query().unwrap_or_default(),
                url.path(),
                url.username(),
                url.password().unwrap_or_default(),
            ];
            let raw = segments.iter().copied().chain(whole);
            parts.extend(raw.map(str::to_owned));
            // As the receiver reads them: each value of the query, and everything without percent signs.
            parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
            let decoded: Vec<String> = parts.iter().flat_map(|piece| decoded(piece)).collect();
            parts.extend(decoded);
            // A path of a few letters is a word, not a token.
            parts.retain(|piece| piece.len() >= 6);
        }
        parts.extend([self.url.clone(), self.secret.clone()]);
        // The longest first: a part of it must not hide the rest.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        let mut text = text.to_owned();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            text = text.replace(part.as_str(), "***");
        }
        text
    }
}

/// A piece of a URL without percent signs, where it has some.
fn decoded(piece: &str) -> Option<String> {
    // The one decoder of this crate's URLs reads forms: there a plus sign is a blank.
    let form = format!("x={}", piece.replace('+', "%2B").replace('&', "%26"));
    let (_, value) = url::form_urlencoded::parse(form.as_bytes()).next()?;
    (value != piece).then(|| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_url_is_left_in_what_a_receiver_says() {
        let secret = Secret {
            url: String::from("https://user:passw0rd@h.example/hook/T0P%2FSECRET?token=S3CRETVALUE&x=1"),
            secret: String::from("key"),
        };
        for said in [
            "invalid token S3CRETVALUE",
            "no such path /hook/T0P%2FSECRET",
            "no hook T0P/SECRET",
            "passw0rd is wrong",
            "signed with key",
        ] {
            let clean = secret.redact(said);
            let is_clean = ["S3CRET", "SECRET", "passw0rd", "key"]
                .iter()
                .all(|part| !clean.contains(part));
            assert!(is_clean && clean.contains("***"), "{clean}");
        }
        assert_eq!(secret.redact("no hook x of 1"), "no hook x of 1", "words stay");
    }
}
