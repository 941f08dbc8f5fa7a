//! `tresor reference`: the command line as a page of Markdown, which is `docs/cli.md`.

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _};

use crate::args::Cli;
use crate::screen::Answer;

/// What is said once, before the commands.
const HEAD: &str = include_str!("reference_head.md");

/// The page.
pub(crate) fn run() -> Answer {
    let mut page = String::from(HEAD);
    let mut root = Cli::command();
    root.build();
    page.push_str("\n## Options of every command\n\n");
    options(&mut page, root.get_arguments().filter(|arg| arg.is_global_set()));
    commands(&mut page, &root);
    Answer::text(page)
}

/// All commands below one, depth first, in the order of the help.
fn commands(page: &mut String, command: &Command) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.has_subcommands() {
            commands(page, command);
        } else {
            section(page, command);
        }
    }
}

fn section(page: &mut String, command: &Command) {
    let mut command = command.clone();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let about = plain(command.get_long_about().or(command.get_about()));
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    page.push_str(&format!(
        "\n## {name}\n\n{about}.\n\n```\n{usage}\n```\n",
        about = about.trim_end_matches('.')
    ));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
        .collect();
    let own = own.into_iter().filter(|arg| arg.get_id() != "help");
    let (positionals, flags): (Vec<&Arg>, Vec<&Arg>) = own.partition(|arg| arg.is_positional());
    if positionals.is_empty() && flags.is_empty() {
        return;
    }
    page.push('\n');
    options(page, positionals.into_iter().chain(flags));
}

fn options<'a>(page: &mut String, args: impl Iterator<Item = &'a Arg>) {
    for arg in args.filter(|arg| arg.get_id() != "help" && arg.get_id() != "version") {
        let value = arg
            .get_value_names()
            .filter(|_| arg.get_action().takes_values())
            .and_then(|names| names.first());
        let value = value.map(ToString::to_string);
        let name = match (arg.get_short(), arg.get_long(), value) {
            (None, None, value) => value.unwrap_or_default(),
            (short, long, value) => {
                let names = short
                    .map(|c| format!("-{c}"))
                    .into_iter()
                    .chain(long.map(|name| format!("--{name}")));
                let names = names.collect::<Vec<_>>().join(", ");
                value.map_or(names.clone(), |value| format!("{names} {value}"))
            }
        };
        page.push_str(&format!(
            "- `{name}`: {}",
            plain(arg.get_long_help().or(arg.get_help()))
        ));
        let takes_values = arg.get_action().takes_values();
        let possible = arg.get_possible_values();
        let listed = takes_values && !possible.is_empty();
        let explained = possible.iter().any(|value| value.get_help().is_some());
        let defaults: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        if takes_values && !defaults.iter().all(|value| value.is_empty()) {
            page.push_str(&format!(" (default `{}`)", defaults.join(" ")));
        }
        if listed && explained {
            for value in possible.iter().filter(|value| !value.is_hide_set()) {
                page.push_str(&format!("\n  - `{}`: {}", value.get_name(), plain(value.get_help())));
            }
        } else if listed {
            let names: Vec<String> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
            page.push_str(&format!(" ({})", names.join(", ")));
        }
        page.push('\n');
    }
}

fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}
