//! What goes into a support bundle, and what does not. Pure: texts go in, an archive comes out.
//!
//! Nothing secret is put in to begin with: settings name files and not what is in them, tokens and keys are never asked for. [`guard`] is the second line:
//! whatever is secret on this machine and known to the program is taken out of every text, and so is everything that looks like a secret. [`names`] writes
//! pseudonyms where a reader is not to learn names.

pub(crate) mod archive;
pub(crate) mod guard;
pub(crate) mod known;
pub(crate) mod metrics;
pub(crate) mod names;

use std::fs;
use std::path::Path;

use serde::Serialize;

use archive::Archive;
use guard::Guard;
use names::Names;

use crate::error::CliError;

/// Longest file, bytes; of a longer one its end is kept, which is the newest of a log.
const FILE_BYTES_MAX: usize = 16 << 20;

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    /// Its name in the archive.
    pub(crate) name: String,
    /// What it is.
    pub(crate) what: String,
    /// Its length.
    pub(crate) bytes: u64,
}

/// A part that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// What it would have been.
    pub(crate) part: String,
    /// Why.
    pub(crate) why: String,
}

/// A bundle that is being put together.
pub(crate) struct Bundle {
    guard: Guard,
    names: Option<Names>,
    archive: Archive,
    /// What is in it.
    pub(crate) files: Vec<Listed>,
    /// What is not.
    pub(crate) missing: Vec<Missing>,
}

impl Bundle {
    /// An empty one, whose files are in a folder of that name.
    pub(crate) fn new(folder: &str, made: i64, guard: Guard, names: Option<Names>) -> Self {
        Self {
            guard,
            names,
            archive: Archive::new(folder, made),
            files: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// A text without what is secret, and with pseudonyms where they are wanted.
    pub(crate) fn clean(&self, text: &str) -> String {
        let safe = self.guard.clean(text);
        match &self.names {
            Some(names) => names.replace(&safe),
            None => safe,
        }
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, name: &str, what: &str, text: &str) {
        let mut from = text.len().saturating_sub(FILE_BYTES_MAX);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let clean = self.clean(&text[from..]);
        self.archive.add(name, clean.as_bytes());
        self.files.push(Listed {
            name: name.to_owned(),
            what: what.to_owned(),
            bytes: clean.len() as u64,
        });
    }

    /// Adds a value as JSON: its keys stay, whatever names there are.
    pub(crate) fn json(&mut self, name: &str, what: &str, value: &impl Serialize) {
        let mut value = serde_json::to_value(value).expect("what is shown has string keys and no failing parts");
        self.clean_strings(&mut value);
        let text = serde_json::to_string_pretty(&value).expect("a value of JSON is JSON");
        self.archive.add(name, text.as_bytes());
        self.files.push(Listed {
            name: name.to_owned(),
            what: what.to_owned(),
            bytes: text.len() as u64,
        });
    }

    fn clean_strings(&self, value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::String(text) => *text = self.clean(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.clean_strings(value)),
            Value::Object(fields) => {
                let old = std::mem::take(fields);
                for (key, mut value) in old {
                    self.clean_strings(&mut value);
                    // Keys are ours, but for those of stores.
                    let key = if key.contains("://") {
                        self.clean(&key)
                    } else {
                        self.guard.clean(&key)
                    };
                    fields.insert(key, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Notes what could not be had.
    pub(crate) fn lacks(&mut self, part: &str, why: &str) {
        let (part, why) = (self.clean(part), self.clean(why));
        self.missing.push(Missing { part, why });
    }

    /// The archive, with a file that says what is in it.
    pub(crate) fn finish(mut self, head: &str) -> (Vec<u8>, Vec<Listed>, Vec<Missing>) {
        let mut text = format!("{}\n\nIn this archive:\n", self.clean(head));
        for file in &self.files {
            text.push_str(&format!("  {:<34} {}\n", file.name, self.clean(&file.what)));
        }
        if !self.missing.is_empty() {
            text.push_str("\nCould not be had:\n");
            for missing in &self.missing {
                text.push_str(&format!("  {}: {}\n", missing.part, missing.why));
            }
        }
        self.archive.add("README.txt", text.as_bytes());
        (self.archive.finish(), self.files, self.missing)
    }
}

/// Writes a file that its owner alone reads.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let failed = |source| CliError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_a_bundle_is_cleaned_whatever_way_it_goes_in() {
        let mut guard = Guard::default();
        guard.know("hunter2-hunter2");
        let mut names = Names::new([7; 32]);
        names.know("item", "web-03");
        let mut bundle = Bundle::new("b", 0, guard, Some(names));
        bundle.text("a.txt", "a log", "web-03 said hunter2-hunter2");
        bundle.json(
            "b.json",
            "a state",
            &serde_json::json!({"item": ["web-03"], "hunter2-hunter2": "hunter2-hunter2"}),
        );
        bundle.lacks("metrics of hunter2-hunter2@web-03", "web-03 refused hunter2-hunter2");
        let (tar, files, missing) = bundle.finish("of web-03, hunter2-hunter2");
        let text = String::from_utf8_lossy(&tar);
        assert!(!text.contains("hunter2") && !text.contains("web-03"), "{text}");
        assert!(text.contains("\"item\""), "keys stay");
        assert_eq!((files.len(), missing.len()), (2, 1));
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let mut bundle = Bundle::new("b", 0, Guard::default(), None);
        let text = format!("{}ö{}", "a".repeat(100), "z".repeat(FILE_BYTES_MAX - 1));
        bundle.text("a.log", "a log", &text);
        assert_eq!(bundle.files[0].bytes, FILE_BYTES_MAX as u64 - 1);
    }
}
