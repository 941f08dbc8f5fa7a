//! Values of settings: how they are written, and which are possible.

use std::time::Duration;

use crate::args::LogFormat;
use crate::cluster::Target;

/// Most cores that a job is given.
const CORES_MAX: usize = 1024;
/// Levels of zstd that are worth their time.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// How long a cluster is waited for at most: nobody looks on for longer than an hour.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

pub(super) fn parse_log_format(word: &str) -> Result<LogFormat, String> {
    [LogFormat::Human, LogFormat::Json]
        .into_iter()
        .find(|format| format.name() == word)
        .ok_or_else(|| format!("{word:?} is neither human nor json"))
}

pub(super) fn parse_cores(text: &str) -> Result<usize, String> {
    let cores = text.parse().map_err(|_| format!("{text:?} is no number of cores"))?;
    check_cores(cores).map(|()| cores)
}

pub(super) fn check_cores(cores: usize) -> Result<(), String> {
    if (1..=CORES_MAX).contains(&cores) {
        Ok(())
    } else {
        Err(format!("{cores} cores: 1 to {CORES_MAX} are possible"))
    }
}

pub(super) fn parse_level(text: &str) -> Result<i32, String> {
    let level = text.parse().map_err(|_| format!("{text:?} is no level"))?;
    check_level(level).map(|()| level)
}

pub(super) fn check_level(level: i32) -> Result<(), String> {
    let (first, last) = (COMPRESSION_LEVELS.start(), COMPRESSION_LEVELS.end());
    if COMPRESSION_LEVELS.contains(&level) {
        Ok(())
    } else {
        Err(format!("level {level}: {first} to {last} are possible"))
    }
}

pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    text.parse()
}

pub(super) fn parse_patience(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("{text:?} is no duration such as \"30s\""))?;
    match Duration::try_from(parsed) {
        Ok(patience) if patience <= PATIENCE_MAX => Ok(patience),
        _ => Err(format!("{text:?}: 0 s to 1 h are possible")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_bounded() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("0s", Some(0)),
            ("1h", Some(3600)),
            ("2h", None),
            ("-1s", None),
            ("30", None),
        ] {
            assert_eq!(parse_patience(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
