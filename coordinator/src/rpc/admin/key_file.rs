//! The text of a key file: what a person shows to have a vault taken over.
//!
//! ```text
//! # comments
//! tresor-key 1
//! vault 32 hexadecimal digits
//! key 64 hexadecimal digits
//! check 16 hexadecimal digits: the first 8 bytes of the BLAKE3 of the three lines above, each with its line feed
//! ```
//! The bytes of the key mean nothing here: they are wrapped, and handed to workers of the vault.

use tresor_proto::ids::{VaultId, hex, unhex};
use zeroize::Zeroizing;

use crate::rpc::refused::Refused;

/// Longest key file that is read, bytes.
const LENGTH_MAX: usize = 4 << 10;
const FIRST_LINE: &str = "tresor-key 1";

/// The vault and its key.
///
/// # Errors
/// [`Refused::Invalid`]; no text of the file is in it.
pub(super) fn read(bytes: &[u8]) -> Result<(VaultId, Zeroizing<[u8; 32]>), Refused> {
    let wrong = |rule: &str| Refused::invalid("key_file", rule);
    if bytes.len() > LENGTH_MAX {
        return Err(wrong("is too long for a key file"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("is not a key file"))?;
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(FIRST_LINE) => {}
        Some(line) if line.starts_with("tresor-key ") => {
            return Err(wrong("is a key file of a version that is not known"));
        }
        _ => return Err(wrong("is not a key file")),
    }
    let mut field = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(' '))
            .ok_or_else(|| wrong("is cut short or damaged"))
    };
    let (vault, key, check) = (field("vault")?, field("key")?, field("check")?);
    if lines.next().is_some() {
        return Err(wrong("has more in it than a key file has"));
    }
    let vault: VaultId = vault.parse().map_err(|_| wrong("is damaged: its vault is no id"))?;
    let key = Zeroizing::new(unhex::<32>(key).ok_or_else(|| wrong("is damaged: its key has not 64 digits"))?);
    let checked = Zeroizing::new(format!(
        "{FIRST_LINE}\nvault {vault}\nkey {}\n",
        Zeroizing::new(hex(key.as_ref())).as_str()
    ));
    if hex(&blake3::hash(checked.as_bytes()).as_bytes()[..8]) != check {
        return Err(wrong("is damaged: its checksum is another"));
    }
    Ok((vault, key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(super) mod tests {
    use super::*;

    /// A key file as it is written.
    pub(in crate::rpc::admin) fn text(vault: VaultId, key: [u8; 32]) -> String {
        let lines = format!("{FIRST_LINE}\nvault {vault}\nkey {}\n", hex(&key));
        let check = hex(&blake3::hash(lines.as_bytes()).as_bytes()[..8]);
        format!("# Key of a Tresor vault.\n{lines}check {check}\n")
    }

    #[test]
    fn a_key_file_gives_its_vault_and_key() {
        let text = text(VaultId([0xab; 16]), [0xcd; 32]);
        let (vault, key) = read(text.as_bytes()).unwrap();
        assert_eq!((vault, *key), (VaultId([0xab; 16]), [0xcd; 32]));
    }

    #[test]
    fn the_checksum_is_that_of_key_files_on_disk() {
        let text = "tresor-key 1\nvault 00000000000000000000000000000000\nkey \
                    0000000000000000000000000000000000000000000000000000000000000000\ncheck ";
        let lines = text.strip_suffix("check ").unwrap();
        let check = hex(&blake3::hash(lines.as_bytes()).as_bytes()[..8]);
        assert!(read(format!("{text}{check}\n").as_bytes()).is_ok());
    }

    #[test]
    fn whatever_is_wrong_with_it_no_secret_is_repeated() {
        let good = text(VaultId([0xab; 16]), [0xcd; 32]);
        let mut wrong = vec![
            String::new(),
            good.replace("tresor-key 1", "tresor-key 2"),
            good.replace("cdcd", "cdce"),
            good.replace("cdcd", "cd"),
            good.replace("abab", "abac"),
            format!("{good}more\n"),
            good.repeat(100),
            good.replace("key cd", "kei cd"),
        ];
        wrong.extend((1..good.lines().count()).map(|n| good.lines().take(n).collect::<Vec<_>>().join("\n")));
        for text in wrong {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("key_file: ") && !error.contains("cd"), "{error}");
        }
        assert!(read(&[0xff, 0xfe]).is_err());
    }
}
