//! Log lines on standard error.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::error::CliError;
use crate::screen::Screen;

/// The crates whose lines a level is meant for; those of libraries need a filter.
const OURS: [&str; 3] = ["tresor", "tresor_storage", "tresor_worker"];

/// The filter that a word stands for: a level for our own crates, warnings of others; anything else is a filter as it is.
fn filter(words: &str) -> String {
    match words {
        "off" | "error" => words.to_owned(),
        "warn" | "info" | "debug" | "trace" => {
            let ours = OURS.map(|name| format!("{name}={words}")).join(",");
            format!("warn,{ours}")
        }
        other => other.to_owned(),
    }
}

/// Starts logging.
///
/// # Errors
/// [`CliError::Settings`] for a filter that is none.
pub(crate) fn start(words: &str, format: LogFormat, screen: &Screen) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(filter(words)).map_err(|error| CliError::Settings {
        problems: vec![format!(
            "log {words:?} is neither a level (off, error, warn, info, debug, trace) nor a filter: {error}"
        )],
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(screen.clone());
    // Fails only when a subscriber is there already, which then logs.
    let _ = match format {
        LogFormat::Human => builder.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_meant_for_our_own_crates() {
        assert_eq!(
            filter("debug"),
            "warn,tresor=debug,tresor_storage=debug,tresor_worker=debug"
        );
        assert_eq!(filter("error"), "error");
        assert_eq!(filter("tresor_worker::nbd=trace"), "tresor_worker::nbd=trace");
    }
}
