//! PEM (RFC 7468) of one label in a file: what we write and nothing looser, in buffers that are wiped.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters in a line (RFC 7468, section 2).
const LINE: usize = 64;

/// What a certificate's block is called.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// What a PKCS#8 key's block is called.
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Writes one block.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = der.len().div_ceil(3) * 4;
    // Reserved at once: a string that grows leaves copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(base64 + base64 / LINE + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----");
    for (index, group) in der.chunks(3).enumerate() {
        if index % (LINE / 4) == 0 {
            text.push('\n');
        }
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            if place <= group.len() {
                let digit = bits >> (18 - 6 * place) & 63;
                text.push(char::from(ALPHABET[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Reads the one block of `text`; `None` for anything else than a block of that label with nothing around it but white space.
pub(crate) fn decode(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = text
        .trim_ascii()
        .strip_prefix("-----BEGIN ")?
        .strip_prefix(label)?
        .strip_prefix("-----")?
        .strip_suffix("-----")?
        .strip_suffix(label)?
        .strip_suffix("-----END ")?;
    let mut der = Zeroizing::new(Vec::with_capacity(body.len() / 4 * 3 + 3));
    let (mut bits, mut digits, mut padding) = (0_u32, 0, 0);
    for c in body.bytes().filter(|c| !c.is_ascii_whitespace()) {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                0
            }
            _ => return None,
        };
        if padding > 0 && c != b'=' {
            return None;
        }
        bits = bits << 6 | u32::from(digit);
        digits += 1;
        if digits == 4 {
            if padding > 2 {
                return None;
            }
            der.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
            (bits, digits) = (0, 0);
        }
    }
    // Padding that ends a group ends the text: what follows would have been refused above, and a group that is not full is no group.
    (digits == 0 && padding <= 2).then_some(der)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn blocks_of_every_length_survive_and_others_can_read_them() {
        for length in 0..200_u8 {
            let der: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37)).collect();
            let text = encode(CERTIFICATE, &der);
            assert_eq!(decode(CERTIFICATE, &text).unwrap().as_slice(), der);
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
            assert!(text.lines().all(|line| line.len() <= LINE));
        }
    }

    #[test]
    fn what_is_not_the_block_is_refused() {
        let text = encode(PRIVATE_KEY, b"some bytes");
        assert!(decode(PRIVATE_KEY, &text).is_some());
        assert!(decode(CERTIFICATE, &text).is_none());
        for wrong in [
            "",
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAA\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nA===\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAA==AAAA\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAA!A\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            assert!(decode(PRIVATE_KEY, wrong).is_none(), "{wrong}");
        }
        assert!(decode(PRIVATE_KEY, &format!("{}{}", *text, *text)).is_none());
    }
}
