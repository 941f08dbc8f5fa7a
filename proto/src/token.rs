//! Tokens as people and programs carry them: a text with who it is, a secret, and a checksum.
//!
//! ```text
//! tresor_api_<id>_<secret>_<checksum>                  shown by a person or a program with each request
//! tresor_join_<id>_<secret>_<fingerprint>_<checksum>   shown once by a node that joins; the fingerprint is the authority's
//! ```
//! All parts are lower-case hexadecimal: 16, 32, 32 and 4 bytes. The checksum tells a token that was mistyped or cut from one that nobody knows.
//! It protects nothing: the secret alone does, with 256 random bits.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ids::{TokenId, hex, unhex};
use crate::tls::Fingerprint;

const API: &str = "tresor_api_";
const JOIN: &str = "tresor_join_";
const BEARER: &str = "Bearer ";
const HEADER: &str = "authorization";
/// Longest text that is looked at, bytes. A join token has 183.
const TEXT_BYTES_MAX: usize = 512;

/// Why a text is not a token.
///
/// No variant has the text: what is almost a token has almost a secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else.
    #[error("this is not {expected}: it should begin with {prefix}")]
    Kind {
        /// `an API token`, …
        expected: &'static str,
        /// How one begins.
        prefix: &'static str,
    },
    /// The beginning is right and the rest is not.
    #[error("this token is not whole: parts are missing, or it has other characters than it should")]
    Shape,
    /// A character is wrong.
    #[error("this token was mistyped: its checksum is another")]
    Checksum,
    /// There is an `authorization` header, and it is of another kind.
    #[error("the authorization header has no bearer token")]
    Header,
    /// The operating system gave no random numbers.
    #[error("draw random numbers")]
    Random,
}

/// 256 random bits, wiped when dropped and shown nowhere.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Draws one.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random() -> Result<Self, TokenError> {
        let mut secret = Self([0; 32]);
        aws_lc_rs::rand::fill(&mut secret.0).map_err(|_| TokenError::Random)?;
        Ok(secret)
    }

    /// Of bytes that nobody else can know: derived from a key, for an answer that has to be the same when it is asked for again.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The bytes, to be hashed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a person or a program shows with each request.
#[derive(Clone)]
pub struct ApiToken {
    /// Which one; no secret.
    pub id: TokenId,
    /// The secret.
    pub secret: Secret,
}

/// What a node shows when it joins.
#[derive(Clone)]
pub struct JoinToken {
    /// Which one; no secret.
    pub id: TokenId,
    /// The secret.
    pub secret: Secret,
    /// The authority of the cluster: who answers must be vouched for by it.
    pub ca: Fingerprint,
}

fn random_id() -> Result<TokenId, TokenError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| TokenError::Random)?;
    Ok(TokenId(id))
}

fn checksum(body: &str) -> [u8; 4] {
    let hash = digest(&SHA256, body.as_bytes());
    hash.as_ref()[..4].try_into().expect("SHA-256 has more than 4 bytes")
}

/// The parts of a token in one text that is wiped; reserved at once, because a string that grows leaves copies behind.
fn write(prefix: &str, parts: &[&[u8]]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
    text.push_str(prefix);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            text.push('_');
        }
        text.push_str(&Zeroizing::new(hex(part)));
    }
    let sum = hex(&checksum(&text));
    text.push('_');
    text.push_str(&sum);
    text
}

/// Takes the parts of a token apart. The checksum is looked at before the parts: a character too many is a typing error, whatever it breaks.
fn read<'a, const N: usize>(
    text: &'a str,
    expected: &'static str,
    prefix: &'static str,
) -> Result<[&'a str; N], TokenError> {
    let text = text.trim_ascii();
    if !text.starts_with(prefix) {
        return Err(TokenError::Kind { expected, prefix });
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(TokenError::Shape);
    }
    let (body, sum) = text.rsplit_once('_').ok_or(TokenError::Shape)?;
    let sum: [u8; 4] = unhex(sum).ok_or(TokenError::Shape)?;
    if checksum(body) != sum {
        return Err(TokenError::Checksum);
    }
    let mut parts = body[prefix.len()..].split('_');
    let mut read = [""; N];
    for part in &mut read {
        *part = parts.next().ok_or(TokenError::Shape)?;
    }
    match parts.next() {
        None => Ok(read),
        Some(_) => Err(TokenError::Shape),
    }
}

fn secret(text: &str) -> Result<Secret, TokenError> {
    unhex(text).map(Secret).ok_or(TokenError::Shape)
}

impl ApiToken {
    /// Draws a new one.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random() -> Result<Self, TokenError> {
        Ok(Self {
            id: random_id()?,
            secret: Secret::random()?,
        })
    }

    /// The whole text, with the secret: to be shown once, or kept in a file of its owner.
    pub fn reveal(&self) -> Zeroizing<String> {
        write(API, &[&self.id.0, &self.secret.0])
    }

    /// Puts it among a request's headers, marked so that nothing logs it.
    pub fn attach(&self, metadata: &mut MetadataMap) {
        let text = self.reveal();
        let mut header = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        header.push_str(BEARER);
        header.push_str(&text);
        let mut value: MetadataValue<Ascii> = header.parse().expect("hexadecimal digits are fine in a header");
        value.set_sensitive(true);
        metadata.insert(HEADER, value);
    }

    /// Finds it among a request's headers; `None` when there is no such header.
    ///
    /// # Errors
    /// [`TokenError::Header`] for another kind of authorization; others as for any text.
    pub fn find(metadata: &MetadataMap) -> Result<Option<Self>, TokenError> {
        let Some(value) = metadata.get(HEADER) else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| TokenError::Header)?;
        let token = text.strip_prefix(BEARER).ok_or(TokenError::Header)?;
        token.parse().map(Some)
    }
}

impl JoinToken {
    /// Draws a new one for the cluster of that authority.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random(ca: Fingerprint) -> Result<Self, TokenError> {
        Ok(Self {
            id: random_id()?,
            secret: Secret::random()?,
            ca,
        })
    }

    /// The whole text, with the secret: to be shown once.
    pub fn reveal(&self) -> Zeroizing<String> {
        write(JOIN, &[&self.id.0, &self.secret.0, &self.ca.0])
    }
}

impl FromStr for ApiToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let [id, hidden] = read(text, "an API token", API)?;
        Ok(Self {
            id: id.parse().map_err(|_| TokenError::Shape)?,
            secret: secret(hidden)?,
        })
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let [id, hidden, ca] = read(text, "a join token", JOIN)?;
        Ok(Self {
            id: id.parse().map_err(|_| TokenError::Shape)?,
            secret: secret(hidden)?,
            ca: ca.parse().map_err(|_| TokenError::Shape)?,
        })
    }
}

macro_rules! without_secret {
    ($name:ident, $prefix:ident) => {
        impl fmt::Display for $name {
            /// Without the secret; see [`Self::reveal`].
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}_…", $prefix, self.id)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

without_secret!(ApiToken, API);
without_secret!(JoinToken, JOIN);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CA: Fingerprint = Fingerprint([0xca; 32]);

    #[test]
    fn tokens_survive_their_text() {
        let token = ApiToken::random().unwrap();
        let read: ApiToken = token.reveal().parse().unwrap();
        assert_eq!((read.id, read.secret.0), (token.id, token.secret.0));
        let token = JoinToken::random(CA).unwrap();
        let pasted = format!("  {}\n", *token.reveal());
        let read: JoinToken = pasted.parse().unwrap();
        assert_eq!((read.id, read.secret.0, read.ca), (token.id, token.secret.0, CA));
        assert_ne!(JoinToken::random(CA).unwrap().secret.0, token.secret.0);
        assert_eq!(token.reveal().len(), 183);
    }

    #[test]
    fn the_text_of_a_token_is_fixed() {
        let token = ApiToken {
            id: TokenId([1; 16]),
            secret: Secret([2; 32]),
        };
        let body = format!("tresor_api_{}_{}", "01".repeat(16), "02".repeat(32));
        assert_eq!(*token.reveal(), format!("{body}_{}", hex(&checksum(&body))));
        assert!(token.reveal().ends_with("_29fd5af8"), "{}", *token.reveal());
    }

    #[test]
    fn every_single_typing_error_is_told_from_an_unknown_token() {
        let text = JoinToken::random(CA).unwrap().reveal();
        for at in JOIN.len()..text.len() {
            for c in ['0', 'f', 'g', '_', 'F'] {
                let mut wrong = text.to_string();
                wrong.replace_range(at..=at, &c.to_string());
                if *wrong != **text {
                    let error = wrong.parse::<JoinToken>().unwrap_err();
                    assert!(matches!(error, TokenError::Checksum | TokenError::Shape), "{at} {c}");
                }
            }
            assert!(text[..at].parse::<JoinToken>().is_err(), "cut at {at}");
        }
        let other = TokenError::Kind {
            expected: "an API token",
            prefix: API,
        };
        assert_eq!(text.parse::<ApiToken>().unwrap_err(), other);
        assert_eq!("".parse::<ApiToken>().unwrap_err(), other);
        let endless = format!("{API}{}", "0".repeat(1 << 20));
        assert_eq!(endless.parse::<ApiToken>().unwrap_err(), TokenError::Shape);
        // Whole, with a right checksum, and yet not of the shape.
        let odd = write(API, &[&[1; 16], &[2; 31]]);
        assert_eq!(odd.parse::<ApiToken>().unwrap_err(), TokenError::Shape);
        let odd = write(API, &[&[1; 16], &[2; 32], &[3; 32]]);
        assert_eq!(odd.parse::<ApiToken>().unwrap_err(), TokenError::Shape);
    }

    #[test]
    fn a_token_travels_in_a_header_that_nothing_logs() {
        let token = ApiToken::random().unwrap();
        let mut metadata = MetadataMap::new();
        assert!(ApiToken::find(&metadata).unwrap().is_none());
        token.attach(&mut metadata);
        let found = ApiToken::find(&metadata).unwrap().unwrap();
        assert_eq!(found.secret.0, token.secret.0);
        assert!(!format!("{metadata:?}").contains(&hex(&token.secret.0)));
        metadata.insert(HEADER, "Basic YTpi".parse().unwrap());
        assert_eq!(ApiToken::find(&metadata).unwrap_err(), TokenError::Header);
        metadata.insert(HEADER, "Bearer something".parse().unwrap());
        assert!(matches!(ApiToken::find(&metadata), Err(TokenError::Kind { .. })));
    }

    #[test]
    fn no_text_has_the_secret() {
        let api = ApiToken::random().unwrap();
        let join = JoinToken {
            secret: api.secret.clone(),
            ..JoinToken::random(CA).unwrap()
        };
        let mut broken = api.reveal().to_string();
        broken.push('0');
        let error = broken.parse::<ApiToken>().unwrap_err();
        let texts = format!(
            "{api} {api:?} {api:#?} {join} {join:?} {join:#?} {:?} {error} {error:?}",
            api.secret
        );
        assert!(texts.contains(&api.id.to_string()), "who it is may be told");
        for part in api.secret.0.windows(4) {
            assert!(!texts.contains(&hex(part)) && !texts.contains(&format!("{part:?}")));
        }
    }
}
