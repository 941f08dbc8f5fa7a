//! From the command line to the exit code.
//!
//! With `--json` the one value on standard output is the answer, or, when there is none, the error; people read errors at standard error in any case.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use serde::Serialize;
use tracing::{Instrument as _, Span};

use crate::app::App;
use crate::args::{Cli, Verb};
use crate::config::{self, FileConfig};
use crate::error::CliError;
use crate::exit::{Code, Failure};
use crate::hint::hint;
use crate::logging::{self, Logging};
use crate::screen::{Answer, Screen};
use crate::verb;

/// Threads for reads, writes, hashing and compression. Each keeps buffers of its own between calls, so their number bounds memory; cores and a
/// disk are busy with far fewer.
const BLOCKING_THREADS: usize = 16;

/// How long threads that are stuck in the system may hold up the end of the process.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct ErrorShown<'a> {
    error: ErrorParts<'a>,
}

#[derive(Serialize)]
struct ErrorParts<'a> {
    kind: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    exit_code: u8,
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let screen = Screen::new(cli.global.quiet, cli.global.json);
    let (result, vault) = match prepare(&cli, &screen) {
        Ok((app, logging)) => {
            let result = start(&app, cli.verb);
            logging.finish();
            (result, app.settings.vault.value)
        }
        Err(error) => (Err(error), String::from("NAME")),
    };
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => fail(&error, &vault, &screen),
    };
    let code = match screen.print(&answer) {
        Ok(()) => answer.code,
        Err(error) => {
            screen.say(&format!("error: could not write to standard output: {error}"));
            if answer.code == Code::Done {
                Code::Failed
            } else {
                answer.code
            }
        }
    };
    ExitCode::from(code.number())
}

fn prepare(cli: &Cli, screen: &Screen) -> Result<(App, Logging), CliError> {
    let env = |name: &str| std::env::var_os(name);
    // These tell of the program itself: no setting matters, and none that is wrong may stop them.
    let about_itself = matches!(cli.verb, Verb::Completion(_) | Verb::Man(_) | Verb::Reference(_));
    let home = config::home(&cli.global, &env)?;
    let file = if about_itself {
        FileConfig::default()
    } else {
        match FileConfig::load(&home.value) {
            // What is wrong with it may be why it is made; it says so itself.
            Err(error) if matches!(cli.verb, Verb::SupportBundle(_)) => {
                screen.say(&format!("warning: {}", error.chain()));
                FileConfig::default()
            }
            file => file?,
        }
    };
    let settings = config::resolve(home, &cli.global, &env, file)?;
    let otlp = settings.otlp.value.as_ref().filter(|_| !about_itself);
    let (log, format) = (&settings.log.value, settings.log_format.value);
    let logging = logging::start(log, format, screen, otlp, cli.verb.service().unwrap_or("tresor"))?;
    Ok((App::new(&cli.global, settings, screen.clone()), logging))
}

fn start(app: &App, verb: Verb) -> Result<Answer, CliError> {
    // Every thread's heap would begin with huge pages that the kernel clears and nobody fills; a third of the memory held, and a twentieth of
    // the time of a first backup. Where the kernel does not know the call it does no harm.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|source| CliError::File {
            doing: "start",
            path: "threads".into(),
            source,
        })?;
    // What runs until it is told to stop is no one thing.
    let span = match verb.service() {
        Some(_) => Span::none(),
        None => logging::command(verb.word()),
    };
    let result = runtime.block_on(Box::pin(verb::run(app, verb)).instrument(span));
    runtime.shutdown_timeout(PATIENCE);
    result
}

/// Tells an error; the answer is the error as JSON, or nothing.
fn fail(error: &CliError, vault: &str, screen: &Screen) -> Answer {
    let failure = error.failure();
    let (message, hint) = (error.chain(), hint(error, vault));
    screen.say(&format!("error: {message}"));
    if let Some(hint) = &hint {
        screen.say(&format!("hint: {hint}"));
    }
    let exit_code = failure.code().number();
    let parts = ErrorParts {
        kind: failure.word(),
        message: &message,
        hint: hint.as_deref(),
        exit_code,
    };
    screen
        .answer(&ErrorShown { error: parts }, String::new)
        .with_code(failure.code())
}

/// A command line that is none, or that asks for help or the version.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked = !error.use_stderr();
    // A reader that went away has what it wanted.
    let _ = error.print();
    if asked {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let exit_code = Failure::Usage.code().number();
        let parts = ErrorParts {
            kind: Failure::Usage.word(),
            message,
            hint: Some("tresor --help"),
            exit_code,
        };
        let screen = Screen::new(true, true);
        let _ = screen.print(&screen.answer(&ErrorShown { error: parts }, String::new));
    }
    ExitCode::from(Failure::Usage.code().number())
}
