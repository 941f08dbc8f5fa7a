//! Texts and lists as they get into rows: checked for length, so that no row grows beyond what its table was reckoned with.

use std::collections::BTreeMap;

use super::reply::Refusal;

/// Longest name, label or other line for people, bytes.
const LINE_MAX: usize = 255;
/// Longest path, bytes: what Linux takes.
const PATH_MAX: usize = 4096;
/// Longest schedule, retention or URL, bytes: no honest one has a tenth of it.
pub(super) const LONG_LINE_MAX: usize = 2048;
/// Longest wrapped key or certificate, bytes: honest ones have a few hundred.
const BLOB_MAX: usize = 64 * 1024;
/// Labels of an item or a worker, of either kind.
const LABELS_MAX: usize = 64;
/// Points, or whatever else an entry is a list of: more come in several entries, since every other entry waits while one is applied. An entry of
/// so many takes tens of milliseconds, and has a megabyte where it carries points as a whole.
pub const BATCH_MAX: usize = 10_000;

/// 2–50 characters, first a letter, then letters, digits and hyphens.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let good = (2..=50).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        Ok(())
    } else {
        Err(Refusal::invalid(
            "name",
            format!(
                "{:?} must have 2 to 50 characters: a letter, then letters, digits and hyphens",
                name.chars().take(60).collect::<String>()
            ),
        ))
    }
}

/// A name for people: 1–255 bytes without control characters.
pub(super) fn check_label(field: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > LINE_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            field,
            format!("must have 1 to {LINE_MAX} bytes and no control characters"),
        ));
    }
    Ok(())
}

/// A line that may be empty: at most 255 bytes without control characters.
pub(super) fn check_line(field: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Ok(());
    }
    check_long_line(field, text, LINE_MAX)
}

/// A line that may be empty, of at most `max` bytes.
pub(super) fn check_long_line(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            field,
            format!("must have at most {max} bytes and no control characters"),
        ));
    }
    Ok(())
}

pub(super) fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    if path.is_empty() || path.len() > PATH_MAX || path.contains('\0') {
        return Err(Refusal::invalid(
            field,
            format!("must be a path of at most {PATH_MAX} bytes"),
        ));
    }
    Ok(())
}

/// Bytes that the state only keeps.
pub(super) fn check_blob(field: &str, bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > BLOB_MAX {
        return Err(Refusal::invalid(field, format!("must have at most {BLOB_MAX} bytes")));
    }
    Ok(())
}

pub(super) fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(Refusal::invalid(field, format!("at most {LABELS_MAX} fit")));
    }
    for (key, value) in labels {
        check_label(field, key)?;
        check_line(field, value)?;
    }
    Ok(())
}

/// ◆ The work of an entry is bounded.
pub(super) fn check_batch<T>(field: &str, batch: &[T]) -> Result<(), Refusal> {
    if batch.len() > BATCH_MAX {
        return Err(Refusal::invalid(
            field,
            format!("at most {BATCH_MAX} at a time: send the rest in another request"),
        ));
    }
    Ok(())
}

/// What of a text can be a name: it was written by a guest or another cluster, and a point is not lost for its sake.
pub(super) fn cleaned(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    shortened(&text, LINE_MAX)
}

/// The beginning of a text, for what is better cut than refused.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
