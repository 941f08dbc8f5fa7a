//! Rules about the project's own files that no compiler checks: the arrows between crates, sizes, links, commands.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Longest Rust file, its unit tests not counted. Most have 100 to 400 lines; one that needs more has two subjects.
const LINES_MAX: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files of the project whose names end in one of `endings`, as paths from the root.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<PathBuf> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .map(PathBuf::from)
        .filter(|name| root().join(name).is_file())
        .collect();
    assert!(!files.is_empty(), "no file ends in {endings:?}");
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// Direct dependencies of every member, of all kinds, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| String::from("cargo"));
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                name(package),
                package["dependencies"].as_array().unwrap().iter().map(name).collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    // cli ──► coordinator ──► proto ◄── worker ──► storage; tests and benches see all, nothing sees them.
    let arrows: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tresor-proto", [].as_slice()),
        ("tresor-storage", &[]),
        ("tresor-coordinator", &["tresor-proto"]),
        ("tresor-worker", &["tresor-proto", "tresor-storage"]),
        (
            "tresor",
            &["tresor-proto", "tresor-coordinator", "tresor-worker", "tresor-storage"],
        ),
        (
            "tresor-tests",
            &["tresor-proto", "tresor-storage", "tresor-coordinator", "tresor-worker"],
        ),
        (
            "tresor-benches",
            &["tresor-proto", "tresor-storage", "tresor-coordinator", "tresor-worker"],
        ),
    ]);
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        ours,
        arrows.keys().copied().collect(),
        "a new crate needs its arrows here and in ARCHITECTURE.md"
    );
    let mut found = Vec::new();
    for (member, needs) in &dependencies {
        for need in needs.iter().filter(|need| ours.contains(need.as_str())) {
            if !arrows[member.as_str()].contains(&need.as_str()) {
                found.push(format!("{member} must not depend on {need}"));
            }
        }
    }
    assert_none(&found, "arrows");
}

#[test]
fn crates_do_not_know_what_is_not_theirs() {
    let forbidden: [(&str, &[&str]); 4] = [
        ("tresor-storage", &["tonic", "raft", "axum", "clap", "jiff", "qapi"]),
        ("tresor-proto", &["object_store", "rocksdb", "raft", "clap"]),
        ("tresor-coordinator", &["object_store", "zstd", "aegis", "clap"]),
        ("tresor-worker", &["raft", "clap", "rocksdb"]),
    ];
    let dependencies = dependencies();
    let mut found = Vec::new();
    for (member, names) in forbidden {
        let needs = &dependencies[member];
        found.extend(
            names
                .iter()
                .filter(|name| needs.contains(**name))
                .map(|name| format!("{member} knows {name}")),
        );
    }
    assert_none(&found, "what a crate must not know");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let found: Vec<String> = files(&["/Cargo.toml"])
        .iter()
        .filter(|path| !path.starts_with("fuzz"))
        .filter(|path| !read(path).contains("[lints]\nworkspace = true"))
        .map(|path| path.display().to_string())
        .collect();
    assert_none(&found, "no workspace lints in");
}

#[test]
fn rust_files_have_one_subject() {
    let found: Vec<String> = files(&[".rs"])
        .iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.to_string_lossy().ends_with("_tests.rs"))
        .map(|path| {
            (
                path,
                read(path).lines().take_while(|line| *line != "#[cfg(test)]").count(),
            )
        })
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert_none(&found, "split these by subject");
}

#[test]
fn nothing_is_left_to_do_at_run_time() {
    // Spelled in halves, so that this file may be among the searched ones.
    let macros = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        for (number, line) in read(&path).lines().enumerate() {
            if macros.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "unfinished code");
}

#[test]
fn no_text_speaks_of_one_machine_or_of_numbered_issues() {
    let places = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/tmp/", "wt"),
    ];
    let mut found = Vec::new();
    for path in files(&[".md", ".rs", ".sh", ".toml", ".proto", "Makefile", ".ci/run"]) {
        for (number, line) in read(&path).lines().enumerate() {
            let in_comment = path.extension().is_some_and(|kind| kind == "md") || line.trim_start().starts_with("//");
            if places.iter().any(|place| names_a_place(line, place)) || (in_comment && names_an_issue(line)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "say it without the place or the number");
}

/// Whether a line has an absolute path that begins with `place`.
fn names_a_place(line: &str, place: &str) -> bool {
    let inside = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "/.~_-}".contains(c));
    line.match_indices(place).any(|(at, _)| !inside(&line[..at]))
}

/// Whether a line has a word like `#12`, or `issue 12`.
fn names_an_issue(line: &str) -> bool {
    let lower = line.to_lowercase();
    let words: Vec<&str> = lower
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| "().,;:".contains(c)))
        .collect();
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    words.iter().any(|word| word.strip_prefix('#').is_some_and(number))
        || words
            .windows(2)
            .any(|pair| ["issue", "issues"].contains(&pair[0]) && number(pair[1]))
}

/// The targets of links in a Markdown text, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: Vec<&str> = line.split('`').step_by(2).collect();
        // Code is kept as a mark, so that a link around code remains a link.
        for piece in prose.join("code").split("](").skip(1) {
            if let Some(target) = piece.split(')').next() {
                links.push(target.trim().to_owned());
            }
        }
    }
    links
}

/// The anchors of a Markdown text's headings, as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        if in_block || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = Vec::new();
    for path in files(&[".md"]) {
        for link in links(&read(&path)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            if !root().join(&target).exists() {
                found.push(format!("{}: {link}: no such file", path.display()));
            } else if !anchor.is_empty()
                && target.extension().is_some_and(|kind| kind == "md")
                && !anchors(&read(&target)).contains(anchor)
            {
                found.push(format!("{}: {link}: no such heading", path.display()));
            }
        }
    }
    assert_none(&found, "broken links");
}

#[test]
fn documented_make_commands_exist_and_are_listed_by_help() {
    let makefile = read(Path::new("Makefile"));
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| {
            line.split_once(": ## ").or_else(|| {
                line.split_once(":")?
                    .1
                    .contains("## ")
                    .then(|| line.split_once(":").unwrap())
            })
        })
        .map(|(target, _)| target)
        .collect();
    for needed in ["test", "demo", "bench", "build", "help"] {
        assert!(
            targets.contains(needed),
            "the Makefile lacks a described target {needed}: {targets:?}"
        );
    }
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let undescribed: Vec<String> = phony
        .split(' ')
        .filter(|target| !targets.contains(target))
        .map(str::to_owned)
        .collect();
    assert_none(&undescribed, "targets that `make help` does not show");

    let mut found = Vec::new();
    for path in files(&[".md"]) {
        let text = read(&path);
        // `make X` in backticks, or at the start of a line of a code block.
        let quoted = text.split("`make ").skip(1);
        let typed = text
            .lines()
            .filter_map(|line| line.trim_start().trim_start_matches("$ ").strip_prefix("make "));
        let in_blocks = typed.filter(|rest| text.contains("```") && !rest.contains(". "));
        for rest in quoted.chain(in_blocks) {
            let target = rest
                .split(|c: char| !c.is_ascii_lowercase() && c != '-')
                .next()
                .unwrap();
            if !targets.contains(target) && rest.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.push(format!("{}: make {target}", path.display()));
            }
        }
    }
    assert_none(&found, "commands that the Makefile does not have");
}

#[test]
fn scripts_stop_at_the_first_error_and_can_be_run() {
    let mut found = Vec::new();
    for path in files(&[".sh", ".ci/run"]) {
        let mode = std::os::unix::fs::MetadataExt::mode(&root().join(&path).metadata().unwrap());
        let text = read(&path);
        if mode & 0o111 == 0 || !text.starts_with("#!/usr/bin/env bash\n") || !text.contains("\nset -euo pipefail\n") {
            found.push(path.display().to_string());
        }
    }
    assert_none(
        &found,
        "executable, `#!/usr/bin/env bash` and `set -euo pipefail`, please",
    );
}

#[test]
fn the_readers_of_this_file_read_what_they_should() {
    let text = "see [a](docs/a.md#b), [`c`](d.md) and `[no](link)`\n```\n[no](block)\n```\n## A `b`: c-d\n";
    assert_eq!(links(text), ["docs/a.md#b", "d.md"]);
    assert_eq!(anchors(text), BTreeSet::from([String::from("a-b-c-d")]));
    assert!(names_a_place("run `/opt/x`", "/opt/") && names_a_place("/opt/", "/opt/"));
    assert!(!names_a_place("$base/opt/x and ~/opt/x", "/opt/"));
    assert!(names_an_issue("fixes (#12)."));
    assert!(names_an_issue("see issue 7"));
    assert!(!names_an_issue("# Heading 1, #[test] and #fff"));
}
