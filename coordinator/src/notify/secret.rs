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
        let path = url::Url::parse(&self.url).ok();
        let parts = path.as_ref().map(|url| {
            let query = url.query().unwrap_or_default();
            // A path of a few letters is a word, not a token.
            let pieces = url.path_segments().into_iter().flatten().chain([query, url.path()]);
            pieces
                .filter(|piece| piece.len() >= 6)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        let mut parts = parts.unwrap_or_default();
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
