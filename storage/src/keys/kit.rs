//! Recovery kits: a page of paper that opens a vault when everything else is lost.
//!
//! What must be typed back is four lines of 20 characters, each with a group of five that checks it and the lines before it: a typing error is
//! found at its line. The characters are Crockford's base 32: no case, and O, I and L are read as the digits that they look like.
//! They hold a version, the vault's id and the secret of the kit's slot; name, stores and the header's hash are for people and for finding the vault.

use zeroize::Zeroizing;

use super::{Key, KeyError, Unlock};
use crate::ids::{VaultId, hex, unhex};
use crate::limits::{SHORT_TEXT_MAX, STORES_MAX, URL_MAX};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const VERSION: u8 = 1;
/// Version, vault id, secret, and a zero that fills the last line.
const PAYLOAD_LEN: usize = 1 + 16 + 32 + 1;
const LINES: usize = 4;
const LINE_CHARS: usize = PAYLOAD_LEN * 8 / 5 / LINES;
const CHECK_CHARS: usize = 5;
/// Largest text read.
const TEXT_MAX: usize = 256 << 10;

const _: () = assert!(LINE_CHARS * LINES * 5 == PAYLOAD_LEN * 8);

/// A recovery kit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryKit {
    /// The vault.
    pub vault: VaultId,
    /// Its name where the kit was made; empty when only the key was typed.
    pub vault_name: String,
    /// The name of the kit's slot; empty when only the key was typed.
    pub slot: String,
    /// The BLAKE3 of `vault.pb`; none when only the key was typed.
    pub header_hash: Option<[u8; 32]>,
    /// Where the vault is: URLs without credentials.
    pub stores: Vec<String>,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The secret of the kit's slot.
    pub secret: Key,
}

impl RecoveryKit {
    /// What opens the kit's slot.
    pub fn unlock(&self) -> Unlock {
        Unlock::Kit(self.secret.clone())
    }

    /// The text to print.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        text.push_str("TRESOR RECOVERY KIT\n\n");
        text.push_str(
            "Whoever has this page can read the vault's backups. Without it, and without every other key of the\n",
        );
        text.push_str(
            "vault, nobody can, not even its makers. Print it, keep it apart from the backups, try it once.\n\n",
        );
        let mut field = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            // What is read back line by line is written as one line.
            text.extend(value.chars().filter(|c| !c.is_control()));
            text.push('\n');
        };
        field("Vault name", &self.vault_name);
        field("Vault id", &self.vault.to_string());
        if let Some(hash) = &self.header_hash {
            field("Header", &hex(hash));
        }
        for store in &self.stores {
            field("Store", store);
        }
        field("Key slot", &self.slot);
        field("Made", &self.made_at);
        text.push_str("\nTo recover, give this text to tresor, or type the four lines of the key.\n\n");
        let symbols = symbols(&self.payload());
        for line in 0..LINES {
            text.push_str("Key ");
            text.push(char::from(b'1' + line as u8));
            text.push(':');
            let data = &symbols[line * LINE_CHARS..(line + 1) * LINE_CHARS];
            let check = check(&symbols[..(line + 1) * LINE_CHARS]);
            for (at, symbol) in data.iter().chain(&check).enumerate() {
                if at % 5 == 0 {
                    text.push(if at == 0 { ' ' } else { '-' });
                }
                text.push(char::from(ALPHABET[usize::from(*symbol)]));
            }
            text.push('\n');
        }
        text
    }

    /// Reads a kit's text, or only the lines of its key. Case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// [`KeyError::File`] that says which line is wrong.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Self::parse(text).map_err(|why| KeyError::File {
            path: String::from("recovery kit"),
            why,
        })
    }

    fn payload(&self) -> Zeroizing<[u8; PAYLOAD_LEN]> {
        let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
        payload[0] = VERSION;
        payload[1..17].copy_from_slice(&self.vault.0);
        payload[17..49].copy_from_slice(self.secret.expose());
        payload
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(String::from("too long for a recovery kit"));
        }
        let symbols = read_key(text)?;
        let payload = bytes(&symbols);
        if payload[0] != VERSION {
            return Err(format!("version {} of recovery kits is not known", payload[0]));
        }
        if payload[PAYLOAD_LEN - 1] != 0 {
            return Err(String::from("its key contradicts itself"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&payload[1..17]);
        let vault = VaultId(id);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&payload[17..49]);

        let short = |what: &str, value: Option<&str>, max: usize| match value {
            Some(value) if value.len() > max => Err(format!("{what} has more than {max} bytes")),
            other => Ok(other.unwrap_or_default().to_owned()),
        };
        if let Some(id) = field(text, "vault id").next()
            && id.to_ascii_lowercase().parse() != Ok(vault)
        {
            return Err(String::from(
                "the vault id is not the one in the key: the page was damaged or put together from two",
            ));
        }
        let header_hash = match field(text, "header").next() {
            None => None,
            Some(hash) => Some(
                unhex(&hash.to_ascii_lowercase())
                    .ok_or_else(|| String::from("the header is not 64 hexadecimal digits"))?,
            ),
        };
        let stores = field(text, "store")
            .take(STORES_MAX)
            .map(|url| short("a store", Some(url), URL_MAX))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            vault,
            vault_name: short("the vault name", field(text, "vault name").next(), SHORT_TEXT_MAX)?,
            slot: short("the key slot", field(text, "key slot").next(), super::SLOT_NAME_MAX * 4)?,
            header_hash,
            stores,
            made_at: short("the time", field(text, "made").next(), SHORT_TEXT_MAX)?,
            secret: Key::from_bytes(*secret),
        })
    }
}

/// Values of lines `name: value`, whatever the case of the name.
fn field<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Five bits each, checked.
fn read_key(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut lines: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(LINES);
    for line in 1..=LINES {
        let name = format!("key {line}");
        let Some(value) = field(text, &name).next() else { break };
        lines.push(read_symbols(value).map_err(|c| bad_character(line, c))?);
    }
    if lines.is_empty() {
        // Only the key was typed, perhaps without its line breaks.
        let all = read_symbols(text)
            .map_err(|c| format!("there are no lines \"Key 1:\" to \"Key {LINES}:\", and {c:?} is in no key"))?;
        lines = all
            .chunks(LINE_CHARS + CHECK_CHARS)
            .map(|line| Zeroizing::new(line.to_vec()))
            .collect();
    }
    let mut symbols = Zeroizing::new(Vec::with_capacity(LINES * LINE_CHARS));
    for (line, found) in lines.iter().take(LINES).enumerate().map(|(at, found)| (at + 1, found)) {
        if found.len() != LINE_CHARS + CHECK_CHARS {
            return Err(format!(
                "line {line} of the key has {} characters, not {}",
                found.len(),
                LINE_CHARS + CHECK_CHARS
            ));
        }
        let (data, checked) = found.split_at(LINE_CHARS);
        symbols.extend_from_slice(data);
        if check(&symbols)[..] != *checked {
            return Err(format!("line {line} of the key has a typing error"));
        }
    }
    if lines.len() != LINES {
        return Err(format!("the key has {} lines, not {LINES}", lines.len()));
    }
    Ok(symbols)
}

fn bad_character(line: usize, c: char) -> String {
    format!("line {line} of the key has {c:?}, which is in no key")
}

fn read_symbols(text: &str) -> Result<Zeroizing<Vec<u8>>, char> {
    let mut symbols = Zeroizing::new(Vec::with_capacity(text.len().min(1024)));
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let upper = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let symbol = ALPHABET.iter().position(|a| char::from(*a) == upper).ok_or(c)?;
        symbols.push(symbol as u8);
    }
    Ok(symbols)
}

/// Bytes as groups of five bits, highest first.
fn symbols(payload: &[u8; PAYLOAD_LEN]) -> Zeroizing<Vec<u8>> {
    let bit = |at: usize| payload[at / 8] >> (7 - at % 8) & 1;
    let symbol = |at: usize| (0..5).fold(0, |symbol, n| symbol << 1 | bit(at * 5 + n));
    Zeroizing::new((0..LINES * LINE_CHARS).map(symbol).collect())
}

fn bytes(symbols: &[u8]) -> Zeroizing<[u8; PAYLOAD_LEN]> {
    let bit = |at: usize| symbols[at / 5] >> (4 - at % 5) & 1;
    let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |byte, n| byte << 1 | bit(at * 8 + n));
    }
    payload
}

/// 25 bits of a hash of all symbols up to and with this line.
fn check(symbols: &[u8]) -> [u8; CHECK_CHARS] {
    let mut hasher = blake3::Hasher::new_derive_key("tresor v1 recovery kit line");
    hasher.update(symbols);
    let hash = hasher.finalize();
    std::array::from_fn(|at| hash.as_bytes()[at] & 31)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kit() -> RecoveryKit {
        RecoveryKit {
            vault: VaultId([0x11; 16]),
            vault_name: String::from("main"),
            slot: String::from("recovery-kit"),
            header_hash: Some([0x22; 32]),
            stores: vec![String::from("s3://backup/main"), String::from("file:///srv/store")],
            made_at: String::from("2026-11-22T05:00:00Z"),
            secret: Key::from_bytes(std::array::from_fn(|n| n as u8)),
        }
    }

    #[test]
    fn the_page_is_as_people_have_it_in_their_safes() {
        let expected = "\
TRESOR RECOVERY KIT

Whoever has this page can read the vault's backups. Without it, and without every other key of the
vault, nobody can, not even its makers. Print it, keep it apart from the backups, try it once.

Vault name: main
Vault id: 11111111111111111111111111111111
Header: 2222222222222222222222222222222222222222222222222222222222222222
Store: s3://backup/main
Store: file:///srv/store
Key slot: recovery-kit
Made: 2026-11-22T05:00:00Z

To recover, give this text to tresor, or type the four lines of the key.

Key 1: 048H2-48H24-8H248-H248H-ZW4EB
Key 2: 248H2-48G00-820C2-0A1G7-QX5SV
Key 3: 104GM-2RC1M-70Y40-H289H-03RSW
Key 4: 858P2-WC1J6-GV3GE-HW7R0-4754D
";
        assert_eq!(kit().to_text().as_str(), expected);
    }

    #[test]
    fn the_text_reads_back_whatever_its_case_and_spaces() {
        let text = kit().to_text();
        assert_eq!(RecoveryKit::from_text(&text).unwrap(), kit());
        let other = text
            .replace("Key 1:", "  KEY 1 :  ")
            .replace('-', " ")
            .replace('\n', "\r\n");
        assert_eq!(RecoveryKit::from_text(&other).unwrap().secret, kit().secret);
        let key: String = text
            .lines()
            .filter_map(|l| {
                l.strip_prefix("Key ")
                    .filter(|l| !l.starts_with('s'))
                    .and_then(|l| l.split_once(": "))
            })
            .map(|l| l.1)
            .collect();
        let typed = key.to_lowercase().replace('0', "o").replace('1', "l");
        let read = RecoveryKit::from_text(&typed).unwrap();
        assert_eq!(
            (read.vault, read.secret, read.header_hash),
            (kit().vault, kit().secret, None)
        );
    }

    #[test]
    fn a_typing_error_is_found_at_its_line() {
        let text = kit().to_text();
        for line in 1..=LINES {
            let start = text.find(&format!("Key {line}: ")).unwrap() + 7;
            for at in start..start + 29 {
                let mut bytes = text.as_bytes().to_vec();
                if bytes[at] == b'-' {
                    continue;
                }
                bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
                let error = RecoveryKit::from_text(&String::from_utf8(bytes).unwrap()).unwrap_err();
                assert!(
                    error
                        .to_string()
                        .contains(&format!("line {line} of the key has a typing error")),
                    "{error}"
                );
            }
        }
        let swapped = text
            .replace("Key 2:", "Key 9:")
            .replace("Key 3:", "Key 2:")
            .replace("Key 9:", "Key 3:");
        assert!(RecoveryKit::from_text(&swapped).is_err());
    }

    #[test]
    fn pages_put_together_from_two_kits_are_refused() {
        let other = RecoveryKit {
            vault: VaultId([0x33; 16]),
            secret: Key::random(),
            ..kit()
        };
        let mixed = kit().to_text().replace("Vault id: 11", "Vault id: 33");
        assert!(RecoveryKit::from_text(&mixed).is_err());
        let (ours, theirs) = (kit().to_text(), other.to_text());
        let cut = |text: &str| text.find("Key 3:").unwrap();
        let mixed = format!("{}{}", &ours[..cut(&ours)], &theirs[cut(&theirs)..]);
        let error = RecoveryKit::from_text(&mixed).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn what_is_no_kit_is_refused() {
        for text in [
            "",
            "hello",
            "Key 1:",
            "Key 1: ÄÖÜ",
            &"A".repeat(101),
            &"0".repeat(1 << 20),
        ] {
            assert!(RecoveryKit::from_text(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    proptest! {
        #[test]
        fn any_secret_survives_the_paper(vault: [u8; 16], secret: [u8; 32]) {
            let kit = RecoveryKit { vault: VaultId(vault), secret: Key::from_bytes(secret), ..kit() };
            prop_assert_eq!(RecoveryKit::from_text(&kit.to_text()).unwrap(), kit);
        }

        #[test]
        fn no_text_makes_the_reader_fail_otherwise_than_by_an_error(text in ".{0,400}") {
            let _ = RecoveryKit::from_text(&text);
        }
    }
}
