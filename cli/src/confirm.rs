//! Asking a person before what cannot be undone, or what somebody should have read first.

use std::io::{self, Write as _};

use crate::error::CliError;
use crate::screen::Screen;

/// Asks a question whose answer is yes or no, unless `yes` says that it is answered.
///
/// # Errors
/// [`CliError::Usage`] when the answer is no, or when there is nobody to ask.
pub(crate) fn confirm(screen: &Screen, yes: bool, question: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !screen.can_ask() {
        return Err(CliError::usage_hint(
            format!("this must be confirmed: {question}"),
            "pass --yes",
        ));
    }
    if is_yes(&ask(&format!("{question} [y/N] "))?) {
        Ok(())
    } else {
        Err(CliError::usage("not confirmed: nothing was changed"))
    }
}

/// Asks at standard error and reads a line.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn ask(prompt: &str) -> Result<String, CliError> {
    let failed = |source| CliError::File {
        doing: "ask on",
        path: "the terminal".into(),
        source,
    };
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}

/// Whether a line means yes. Everything but yes is no: an empty line, too.
fn is_yes(line: &str) -> bool {
    matches!(line.to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (line, yes) in [("y", true), ("YES", true), ("", false), ("n", false), ("yep", false)] {
            assert_eq!(is_yes(line), yes, "{line:?}");
        }
    }
}
