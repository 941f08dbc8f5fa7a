//! `tresor support-bundle`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Writes one file for whoever helps: settings, versions, logs, metrics and the cluster's state, without anything secret
///
/// What cannot be had is noted in it, and it is written all the same. It is a tar archive, compressed by zstd; look into
/// it before you send it: tar --zstd -tvf FILE.
#[derive(Debug, Args)]
pub(crate) struct SupportBundleArgs {
    /// Where to [default: tresor-support-DATE.tar.zst here]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,

    /// How far back logs and failed jobs go: 30m, 24h, 7d
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = parse_span)]
    pub(crate) since: i64,

    /// Write pseudonyms for the names of items, vaults, policies, hosts, nodes, disks and stores
    ///
    /// The same name has the same pseudonym in every bundle that this home makes, so that two of them can be compared.
    #[arg(long)]
    pub(crate) anonymous: bool,

    /// Also ask these for metrics: HOST:PORT of workers and coordinators; may be given several times
    #[arg(long = "metrics-of", value_name = "HOST:PORT")]
    pub(crate) metrics_of: Vec<String>,
}

/// Longest span, days: journals of a year are nobody's help.
const DAYS_MAX: i64 = 366;

/// Seconds of `30m`, `24h` or `7d`.
fn parse_span(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no span such as 30m, 24h or 7d, up to {DAYS_MAX}d");
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let span = number.checked_mul(unit).ok_or_else(wrong)?;
    match span {
        60.. if span <= DAYS_MAX * 86_400 => Ok(span),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_and_a_bound() {
        assert_eq!(parse_span("24h"), Ok(86_400));
        assert_eq!(parse_span("30m"), Ok(1800));
        assert_eq!(parse_span("7d"), Ok(604_800));
        for wrong in ["", "24", "h", "-1h", "0h", "1.5h", "400d", "9999999999999999999d", "1ä"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
