//! `tresor limit …`.

use clap::{Args, Subcommand, ValueEnum};

/// What can be done with limits.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitVerb {
    Set(LimitSetArgs),
    /// Lists limits, with what they come to now
    List,
    Remove(LimitRemoveArgs),
}

/// Of what a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LimitOf {
    /// A store, of all workers together: a vault's name, or a URL with all that lies below it
    Store,
    /// One worker
    Worker,
    /// The disks of a host, of all workers there together
    Host,
    /// One job, until it ends
    Job,
}

/// Limits the use of a store, a worker, a host or a job; within a second, also of what runs
///
/// With --when a rule for some hours, beside the one for all others. What is not named in a rule is not limited by it. A rule of the
/// same hours is replaced.
#[derive(Debug, Args)]
pub(crate) struct LimitSetArgs {
    /// Of what
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) of: LimitOf,

    /// The store's vault or URL, the worker, the host, or the job's number
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Bytes a second into the store; of a host, read from its disks: 50MB/s, 20MiB/s, 400Mbit/s
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) upload: Option<u64>,

    /// Bytes a second from the store; of a host, written to its disks
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) download: Option<u64>,

    /// Requests a second: 100/s
    #[arg(long, value_name = "RATE", value_parser = parse_requests)]
    pub(crate) requests: Option<u32>,

    /// Of a job, requests at a time; of all others, jobs at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: Option<u32>,

    /// Only in such hours: "mon-fri 08:00-18:00"; may be given several times
    #[arg(long = "when", value_name = "TEXT")]
    pub(crate) windows: Vec<String>,

    /// The time zone of the hours, by its IANA name: Europe/Berlin [default: the coordinator's]
    #[arg(long, value_name = "ZONE", requires = "windows")]
    pub(crate) zone: Option<String>,
}

/// Removes a limit, or one rule of it; who waited for it goes on at once
#[derive(Debug, Args)]
pub(crate) struct LimitRemoveArgs {
    /// Of what
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) of: LimitOf,

    /// The store's vault or URL, the worker, the host, or the job's number
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Only the rule of these hours
    #[arg(long = "when", value_name = "TEXT")]
    pub(crate) windows: Vec<String>,

    /// Only the rule without hours
    #[arg(long, conflicts_with = "windows")]
    pub(crate) always: bool,
}

/// Units of a rate, in bytes a second, as `value / divisor`. Bits are written with a small b, as providers do.
const UNITS: [(&str, u64, u64); 14] = [
    ("KB", 1000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("KiB", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("TB", 1_000_000_000_000, 1),
    ("TiB", 1 << 40, 1),
    ("B", 1, 1),
    ("kB", 1000, 1),
    ("kbit", 1000, 8),
    ("Mbit", 1_000_000, 8),
    ("Gbit", 1_000_000_000, 8),
    ("bit", 1, 8),
];

/// A rate such as `50MB/s`.
fn parse_rate(text: &str) -> Result<u64, String> {
    let amount = text.trim().strip_suffix("/s").and_then(parse_amount);
    amount.ok_or_else(|| format!("{text:?} is no rate such as 50MB/s, 20MiB/s or 400Mbit/s"))
}

/// So much memory: `4GiB`.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    let amount = Some(text.trim()).filter(|text| !text.ends_with("bit"));
    amount
        .and_then(parse_amount)
        .ok_or_else(|| format!("{text:?} is no size such as 4GiB"))
}

fn parse_amount(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let (_, factor, divisor) = UNITS.iter().find(|(name, ..)| *name == unit.trim())?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 12 || part.len() > 3 || part.contains('.') {
        return None;
    }
    let thousandths: u64 = format!("{whole}{part:0<3}").parse().ok()?;
    let bytes = u128::from(thousandths) * u128::from(*factor) / u128::from(*divisor) / 1000;
    u64::try_from(bytes).ok()
}

/// `100/s`, or the number alone.
fn parse_requests(text: &str) -> Result<u32, String> {
    let number = text.trim();
    let number = number.strip_suffix("/s").unwrap_or(number);
    match number.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no number of requests a second such as 100/s")),
        Ok(requests) => Ok(requests),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_and_are_per_second() {
        for (text, bytes) in [
            ("50MB/s", 50_000_000),
            ("20MiB/s", 20 << 20),
            ("400Mbit/s", 50_000_000),
            ("1.5 GB/s", 1_500_000_000),
            ("0.25kB/s", 250),
            ("9bit/s", 1),
        ] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "50",
            "50MB",
            "MB/s",
            "50 M/s",
            "-1MB/s",
            "1.2.3MB/s",
            "50mb/s",
            "99999999999999GB/s",
        ] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_memory("4GiB"), Ok(4 << 30));
        assert!(parse_memory("4Gbit").is_err() && parse_memory("4GiB/s").is_err());
        assert_eq!(parse_requests("100/s"), Ok(100));
        assert_eq!(parse_requests("7"), Ok(7));
        assert!(parse_requests("0/s").is_err() && parse_requests("many").is_err());
    }
}
