//! Finding and running programs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::QemuError;

/// Most of what a program says that is kept.
pub(super) const SAID_MAX: usize = 16 << 10;

/// Where a program is, by `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| {
            file.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// Runs a program to its end. Dropping the future kills it.
///
/// # Errors
/// `NotInstalled`, `Start`, `TimedOut`; `Failed` if it ends with another status than 0.
pub(super) async fn run<I>(program: &'static str, arguments: I, timeout: Duration) -> Result<(), QemuError>
where
    I: IntoIterator<Item: AsRef<OsStr>>,
{
    let file = find(program).ok_or(QemuError::NotInstalled { program })?;
    let child = tokio::process::Command::new(file)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| QemuError::Start { program, source })?;
    let output = tokio::time::timeout(timeout, child.wait_with_output())
        .await
        .map_err(|_| QemuError::TimedOut {
            program,
            what: "end",
            after: timeout,
        })?
        .map_err(|source| QemuError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(QemuError::Failed {
        program,
        message: message(program, &output.stderr, &output.status.to_string()),
    })
}

/// What is worth telling of what a program said: its last line, without its own name and without the node that we gave.
pub(super) fn message(program: &str, said: &[u8], status: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    let line = line
        .strip_prefix(program)
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(line);
    let line = line.rsplit_once("}': ").map_or(line, |(_, rest)| rest);
    if line.is_empty() {
        status.to_owned()
    } else {
        line.chars().filter(|c| !c.is_control()).take(500).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_message_is_the_last_line_without_noise() {
        let said = b"warning\nqemu-nbd: Failed to blk_new_open 'json:{\"driver\":\"qcow2\"}': Image is not in qcow2 format\n\n";
        assert_eq!(message("qemu-nbd", said, ""), "Image is not in qcow2 format");
        assert_eq!(
            message("qemu-nbd", b" \n", "signal: 9 (SIGKILL)"),
            "signal: 9 (SIGKILL)"
        );
    }

    #[tokio::test]
    async fn a_program_that_fails_hangs_or_is_missing_has_its_own_error() {
        let ran = run("false", ["x"], Duration::from_secs(10)).await;
        assert!(matches!(ran, Err(QemuError::Failed { .. })));
        let ran = run("sleep", ["60"], Duration::from_millis(50)).await;
        assert!(matches!(ran, Err(QemuError::TimedOut { .. })));
        let ran = run("tresor-has-no-such-program", ["x"], Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(ran.hint(), Some("install qemu-utils"));
    }
}
