//! Rules for the names that people give.

use super::VaultError;
use crate::limits::NAME_MAX;

/// Checks a vault's name: 2–50 characters, first a letter, then letters, digits and hyphens (ASCII: it is a file's name, too).
///
/// # Errors
/// [`VaultError::Name`] with the rule.
pub fn check_vault_name(name: &str) -> Result<(), VaultError> {
    let fits = (2..=50).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    check(
        fits,
        "vault name",
        name,
        "2 to 50 letters, digits and hyphens, the first a letter",
    )
}

/// Checks an item's name: 1–255 bytes of UTF-8 without control characters.
///
/// # Errors
/// [`VaultError::Name`] with the rule.
pub fn check_item_name(name: &str) -> Result<(), VaultError> {
    check(
        is_plain(name),
        "item name",
        name,
        "1 to 255 bytes without control characters",
    )
}

/// Checks a disk's name: 1–255 bytes of UTF-8 without control characters.
///
/// # Errors
/// [`VaultError::Name`] with the rule.
pub fn check_disk_name(name: &str) -> Result<(), VaultError> {
    check(
        is_plain(name),
        "disk name",
        name,
        "1 to 255 bytes without control characters",
    )
}

fn is_plain(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn check(fits: bool, what: &'static str, name: &str, rule: &'static str) -> Result<(), VaultError> {
    if fits {
        return Ok(());
    }
    Err(VaultError::Name {
        what,
        name: name.chars().take(80).collect(),
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vault_names_are_letters_digits_and_hyphens() {
        for good in ["ab", "main", "Site-2", &"a".repeat(50)] {
            assert!(check_vault_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "1a",
            "-a",
            "a_b",
            "a b",
            "a/b",
            "..",
            "äb",
            "a.b",
            &"a".repeat(51),
        ] {
            assert!(check_vault_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn items_and_disks_may_be_named_in_any_script_but_not_by_control_characters() {
        for good in ["a", "web-03", "Bücher / Ablage", "仮想", "..", &"a".repeat(255)] {
            assert!(check_item_name(good).is_ok(), "{good}");
            assert!(check_disk_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a\nb",
            "\u{1b}[2J",
            "\u{7f}",
            "\u{85}",
            &"a".repeat(256),
            &"ä".repeat(128),
        ] {
            assert!(check_item_name(bad).is_err(), "{bad:?}");
            assert!(check_disk_name(bad).is_err(), "{bad:?}");
        }
    }
}
