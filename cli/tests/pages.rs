//! Help, manual pages, completions, the reference: one for every command, and in step.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::Path;

use common::Site;

/// Every command, as the reference lists them.
fn commands(site: &Site) -> Vec<String> {
    let page = site.run(&["reference"]).stdout;
    let commands: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## tresor "))
        .map(str::to_owned)
        .collect();
    assert!(commands.len() >= 22, "{commands:?}");
    commands
}

#[test]
fn the_help_of_every_command() {
    let site = Site::new();
    let help = site.run(&["--help"]);
    insta::assert_snapshot!("help", help.stdout);
    for command in commands(&site) {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = site.run(&args);
        assert_eq!(help.code, 0, "{help}");
        // The options of every command are said once, above.
        let own = help
            .stdout
            .split("Options of every command:")
            .next()
            .unwrap()
            .to_owned();
        insta::assert_snapshot!(format!("help-{}", command.replace(' ', "-")), own);
    }
}

#[test]
fn the_reference_is_the_one_in_the_documentation() {
    let site = Site::new();
    let page = site.run(&["reference"]).stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("TRESOR_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/cli.md is out of step: run this test with TRESOR_UPDATE_DOCS=1"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let site = Site::new();
    let ran = site.run(&["man", "pages"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran}");
    for command in commands(&site) {
        let page = site
            .path("pages")
            .join(format!("tresor-{}.1", command.replace(' ', "-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(
            text.contains(".SH SYNOPSIS") || text.contains(".SH NAME"),
            "{}",
            page.display()
        );
    }
}

#[test]
fn every_shell_completes_every_verb() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = site.run(&["completion", shell]);
        assert_eq!(ran.code, 0, "{ran}");
        for command in commands(&site) {
            let verb = command.rsplit(' ').next().unwrap();
            assert!(ran.stdout.contains(verb), "{shell} does not know {command}");
        }
    }
}

#[test]
fn a_broken_configuration_does_not_stop_help_for_shells() {
    let site = Site::new();
    site.file("home/config.toml", "nonsense");
    assert_eq!(site.run(&["completion", "bash"]).code, 0);
    assert_eq!(site.run(&["status"]).code, 2);
}
