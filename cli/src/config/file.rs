//! `HOME/config.toml`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::stores::StoreTable;
use super::values::{check_cores, check_level, parse_log_format, parse_patience, parse_target};
use crate::error::CliError;
use crate::otlp::Endpoint;

/// Largest file read.
const FILE_MAX: u64 = 1 << 20;

/// What the file may say; unknown keys are refused. Relative paths count from the home.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileConfig {
    /// The vault that commands work with.
    pub(crate) vault: Option<String>,
    /// The cluster that commands work with: a login's name, addresses, or a socket.
    pub(crate) cluster: Option<String>,
    /// How long a cluster that cannot answer is waited for: "30s".
    pub(crate) cluster_patience: Option<String>,
    /// What is logged: a level (off, error, warn, info, debug, trace) or a filter.
    pub(crate) log: Option<String>,
    /// How log lines look: human or json.
    pub(crate) log_format: Option<String>,
    /// Where spans go: the URL of a collector of OpenTelemetry.
    pub(crate) otlp: Option<String>,
    /// Where a backup leaves its numbers for Prometheus.
    pub(crate) metrics_file: Option<PathBuf>,
    /// The file whose first line is the passphrase.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Cores that a job uses; default: all.
    pub(crate) cores: Option<usize>,
    /// Level of zstd for data, 1 to 19; default: 1.
    pub(crate) compression_level: Option<i32>,
    /// How stores are reached, by URL; the longest beginning of a vault's URL wins.
    pub(crate) stores: BTreeMap<String, StoreTable>,
}

impl FileConfig {
    /// Reads the file of a home; one that is not there says nothing.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it must be.
    pub(crate) fn load(home: &Path) -> Result<Self, CliError> {
        let path = home.join("config.toml");
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(CliError::File {
                    doing: "read",
                    path,
                    source,
                });
            }
        };
        let mut text = String::new();
        match file.take(FILE_MAX + 1).read_to_string(&mut text) {
            Ok(length) if length as u64 > FILE_MAX => Err(CliError::Settings {
                problems: vec![format!("{} is larger than {FILE_MAX} bytes", path.display())],
            }),
            Ok(_) => Self::parse(&text, &path),
            Err(source) => Err(CliError::File {
                doing: "read",
                path,
                source,
            }),
        }
    }

    /// Reads its text.
    ///
    /// # Errors
    /// [`CliError::Settings`] with line and cause; the line itself is not shown, since a secret may be in it.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1
            });
            CliError::Settings {
                problems: vec![format!(
                    "{} line {line}: {}",
                    path.display(),
                    without_value(error.message())
                )],
            }
        })
    }

    /// All that is wrong with its values.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: &str, result: Result<(), String>| {
            if let Err(why) = result {
                problems.push(format!("config.toml: {key}: {why}"));
            }
        };
        let text = |text: &Option<String>, check: fn(&str) -> Result<(), String>| text.as_deref().map_or(Ok(()), check);
        check("cluster", text(&self.cluster, |text| parse_target(text).map(drop)));
        check(
            "cluster_patience",
            text(&self.cluster_patience, |text| parse_patience(text).map(drop)),
        );
        check("cores", self.cores.map_or(Ok(()), check_cores));
        check("compression_level", self.compression_level.map_or(Ok(()), check_level));
        check(
            "log_format",
            text(&self.log_format, |word| parse_log_format(word).map(drop)),
        );
        check("otlp", text(&self.otlp, |url| url.parse::<Endpoint>().map(drop)));
        for (url, table) in &self.stores {
            for why in table.problems() {
                check(&format!("stores.{url:?}"), Err(why));
            }
        }
        problems
    }
}

/// A message of the parser without the value that it may repeat: `invalid type: string "…", expected u32`.
fn without_value(message: &str) -> String {
    let Some((what, rest)) = message.split_once(": ") else {
        return message.to_owned();
    };
    if !what.starts_with("invalid ") {
        return message.to_owned();
    }
    match rest.rsplit_once("expected ") {
        Some((_, expected)) => format!("{what}, expected {expected}"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = FileConfig::parse("cores = 2\n\ncolour = 1\n", Path::new("/h/config.toml")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("/h/config.toml line 3: unknown field `colour`"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
        for text in [
            "[stores.\"s3://b\"]\nsecret_access_key = \"hunter2\"\n",
            "[stores.\"s3://b\"]\nsecret_access_key_file = \"hunter2\" hunter2\n",
            "[stores.\"s3://b\"]\nregion = hunter2\n",
            "cores = \"hunter2\"\n",
        ] {
            let error = FileConfig::parse(text, Path::new("c")).unwrap_err().chain();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
