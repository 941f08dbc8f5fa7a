//! The numbers of a backup for Prometheus, as a text file that the node exporter's collector picks up.
//!
//! A backup that cron starts has ended before anybody could ask it. The file is replaced by a rename, so no half of it is ever read; the time of the last
//! success is carried over from the file before, since an alarm stands on it that must not fall silent because backups fail.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use prometheus::{Encoder as _, Gauge, GaugeVec, Opts, Registry, TextEncoder};
use tresor_proto::v1;
use tresor_worker::backup::BackupCounts;

use crate::error::CliError;
use crate::exit::Failure;

const LAST_SUCCESS: &str = "tresor_backup_last_success_timestamp_seconds";
/// Largest former file that is looked at.
const FILE_MAX: u64 = 1 << 20;

/// Requests to the store, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Requests {
    pub(crate) put: u64,
    pub(crate) get: u64,
    pub(crate) head: u64,
    pub(crate) list: u64,
    pub(crate) delete: u64,
}

impl From<tresor_storage::backend::Traffic> for Requests {
    fn from(traffic: tresor_storage::backend::Traffic) -> Self {
        Self {
            put: traffic.puts,
            get: traffic.gets,
            head: traffic.heads,
            list: traffic.lists,
            delete: traffic.deletes,
        }
    }
}

impl From<&v1::JobCounts> for Requests {
    fn from(counts: &v1::JobCounts) -> Self {
        Self {
            put: counts.puts,
            get: counts.gets,
            head: counts.heads,
            list: counts.lists,
            delete: counts.deletes,
        }
    }
}

impl From<&v1::Counts> for Requests {
    fn from(counts: &v1::Counts) -> Self {
        Self {
            put: counts.puts,
            get: counts.gets,
            head: counts.heads,
            list: counts.lists,
            delete: counts.deletes,
        }
    }
}

/// One backup in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BackupRun {
    /// When it ended, seconds since 1970.
    pub(crate) ended: i64,
    /// How long it took, seconds.
    pub(crate) seconds: f64,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// What it took, if it got to its end.
    pub(crate) counts: Option<BackupCounts>,
    /// Requests to the store.
    pub(crate) requests: Requests,
}

/// Writes the file.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, run: &BackupRun) -> Result<(), CliError> {
    let file = |doing| {
        move |source| CliError::File {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let text = render(run, last_success(path));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The collector reads *.prom: neither a half-written file nor what a killed process left may be called so.
    name.push(format!(".{}.tmp", std::process::id()));
    let part: PathBuf = path.with_file_name(name);
    let result = std::fs::File::create(&part).and_then(|mut out| out.write_all(text.as_bytes()));
    if let Err(source) = result.and_then(|()| std::fs::rename(&part, path)) {
        let _ = std::fs::remove_file(&part);
        return Err(file("write")(source));
    }
    Ok(())
}

/// The time of the last success that the former file tells.
fn last_success(path: &Path) -> Option<f64> {
    if std::fs::metadata(path).ok()?.len() > FILE_MAX {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(LAST_SUCCESS)?.strip_prefix(' '))?;
    line.trim()
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value > 0.0)
}

fn render(run: &BackupRun, before: Option<f64>) -> String {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::new(name, help).expect("name and help are well-formed");
        gauge.set(value);
        registry.register(Box::new(gauge)).expect("every name is used once");
    };
    let family = |name: &str, help: &str, label: &str, values: &[(&str, f64)]| {
        let gauges = GaugeVec::new(Opts::new(name, help), &[label]).expect("name, help and label are well-formed");
        for (word, value) in values {
            gauges.with_label_values(&[*word]).set(*value);
        }
        registry.register(Box::new(gauges)).expect("every name is used once");
    };
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    let float = |number: u64| number as f64;

    let ended = run.ended as f64;
    if let Some(success) = if run.failure.is_none() { Some(ended) } else { before } {
        gauge(LAST_SUCCESS, "When the last successful backup ended.", success);
    }
    gauge(
        "tresor_backup_last_run_timestamp_seconds",
        "When the last backup ended, successful or not.",
        ended,
    );
    gauge(
        "tresor_backup_duration_seconds",
        "How long the last backup took.",
        run.seconds,
    );
    let code = run.failure.map_or(0, |failure| failure.code().number());
    gauge(
        "tresor_backup_exit_code",
        "Exit code of the last backup: 0 is success.",
        f64::from(code),
    );
    let outcome = run.failure.map_or("done", Failure::word);
    let outcomes: Vec<(&str, f64)> = std::iter::once("done")
        .chain(Failure::WORDS)
        .map(|word| (word, if word == outcome { 1.0 } else { 0.0 }))
        .collect();
    family(
        "tresor_backup_outcome",
        "How the last backup ended: 1 for what it was.",
        "kind",
        &outcomes,
    );
    if let Some(counts) = run.counts {
        gauge(
            "tresor_backup_read_bytes",
            "Bytes read from the disks, holes left out.",
            float(counts.bytes_read),
        );
        gauge(
            "tresor_backup_new_bytes",
            "Bytes of new chunks, before compression.",
            float(counts.bytes_new),
        );
        gauge(
            "tresor_backup_stored_bytes",
            "Bytes put into the store.",
            float(counts.bytes_stored),
        );
        let chunks = [("new", float(counts.chunks_new)), ("known", float(counts.chunks_known))];
        family(
            "tresor_backup_chunks",
            "Chunks of the disks, by whether the vault had them.",
            "state",
            &chunks,
        );
    }
    let Requests {
        put,
        get,
        head,
        list,
        delete,
    } = run.requests;
    let requests = [
        ("put", put),
        ("get", get),
        ("head", head),
        ("list", list),
        ("delete", delete),
    ];
    let requests = requests.map(|(word, number)| (word, float(number)));
    family(
        "tresor_backup_requests",
        "Requests to the store during the last backup.",
        "operation",
        &requests,
    );

    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .expect("a buffer takes everything, and families are not empty");
    String::from_utf8(text).expect("the text format is UTF-8")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use tresor_storage::Kind;

    fn run(failure: Option<Failure>) -> BackupRun {
        let counts = BackupCounts {
            bytes_read: 4096,
            bytes_new: 2048,
            bytes_stored: 1024,
            chunks_new: 1,
            chunks_known: 2,
            ..Default::default()
        };
        let counts = failure.is_none().then_some(counts);
        BackupRun {
            ended: 1_700_000_000,
            seconds: 1.5,
            failure,
            counts,
            requests: Requests {
                put: 3,
                ..Default::default()
            },
        }
    }

    #[test]
    fn the_text_of_a_successful_backup() {
        insta::assert_snapshot!(render(&run(None), None));
    }

    #[test]
    fn the_last_success_outlives_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tresor.prom");
        write(&path, &run(None)).unwrap();
        let failed = BackupRun {
            ended: 1_700_000_100,
            ..run(Some(Failure::Vault(Kind::Full)))
        };
        write(&path, &failed).unwrap();
        write(&path, &failed).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("tresor_backup_last_success_timestamp_seconds 1700000000\n"),
            "{text}"
        );
        assert!(
            text.contains("tresor_backup_last_run_timestamp_seconds 1700000100\n"),
            "{text}"
        );
        assert!(text.contains("tresor_backup_outcome{kind=\"full\"} 1\n"), "{text}");
        assert!(text.contains("tresor_backup_outcome{kind=\"done\"} 0\n"), "{text}");
        assert!(!text.contains("tresor_backup_read_bytes"), "{text}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "a temporary file was left"
        );
    }

    #[test]
    fn a_foreign_former_file_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tresor.prom");
        for former in [
            "",
            "tresor_backup_last_success_timestamp_seconds",
            "tresor_backup_last_success_timestamp_seconds x\n",
            "\u{0}",
        ] {
            std::fs::write(&path, former).unwrap();
            assert_eq!(last_success(&path), None, "{former:?}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        write(&path, &run(None)).unwrap();
    }
}
