//! What deploy/ and its pages say to the program exists: every command, option and variable is held against docs/cli.md, which the program makes itself.
//!
//! Three rules. Where a command line stands (`tresor worker start --permits 2`, an argv list in YAML), its command and each of its options must be of the
//! reference. Every other option of deploy/, as in `TRESOR_WORKER_OPTIONS` or split over lines, must at least be known to some command, or be another tool's.
//! Every variable that begins with `TRESOR_` is the program's, or one that deploy/ itself reads.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Variables that files of deploy/ make up and read themselves.
const OWN_VARIABLES: [&str; 11] = [
    "TRESOR_COORDINATOR_OPTIONS",
    "TRESOR_COORDINATOR_JOIN",
    "TRESOR_WORKER_OPTIONS",
    "TRESOR_WORKER_JOIN",
    "TRESOR_NODE_OPTIONS",
    "TRESOR_DEB_CHECK",
    "TRESOR_DEB_COMPRESSION",
    "TRESOR_DEB_REVISION",
    "TRESOR_DISKS",
    "TRESOR_KUBE_ACCOUNT",
    "TRESOR_VERSION",
];

/// Names of every command with its own options, and the options of all.
struct Reference {
    commands: BTreeMap<Vec<String>, BTreeSet<String>>,
    global: BTreeSet<String>,
    text: String,
}

impl Reference {
    fn parse(text: &str) -> Self {
        let mut commands = BTreeMap::new();
        let mut global = BTreeSet::new();
        let mut at: Option<Vec<String>> = None;
        let mut in_global = false;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                in_global = title == "Options of every command";
                at = title
                    .strip_prefix("tresor ")
                    .map(|words| words.split(' ').map(str::to_owned).collect());
                if let Some(words) = &at {
                    commands.insert(words.clone(), BTreeSet::new());
                }
            }
            let Some(item) = line.strip_prefix("- `-") else {
                continue;
            };
            let options = item.split('`').next().unwrap();
            for option in format!("-{options}")
                .split([' ', ','])
                .filter(|word| word.starts_with('-'))
            {
                if let Some(words) = &at {
                    commands.get_mut(words).unwrap().insert(option.to_owned());
                } else if in_global {
                    global.insert(option.to_owned());
                }
            }
        }
        global.extend(["--help", "-h", "-V", "--version", "-vv", "-vvv"].map(str::to_owned));
        Self {
            commands,
            global,
            text: text.to_owned(),
        }
    }

    /// Whether `word` begins the name of a command.
    fn begins(&self, word: &str) -> bool {
        self.commands.keys().any(|words| words[0] == word)
    }

    fn knows_option(&self, option: &str) -> bool {
        self.global.contains(option) || self.commands.values().any(|options| options.contains(option))
    }

    /// What is wrong with the words that follow `tresor`, if they are a command line.
    fn fault(&self, words: &[&str]) -> Option<String> {
        // Options of every command may stand before it; of those, all that take a value are written with `=` or with one word.
        let mut name: Vec<String> = Vec::new();
        let mut options = Vec::new();
        let mut skip = false;
        for word in words {
            if std::mem::take(&mut skip) {
                continue;
            }
            if let Some(option) = word.strip_prefix('-').map(|_| word.split('=').next().unwrap()) {
                options.push(option.to_owned());
                skip = name.is_empty() && !word.contains('=') && ["--home", "--cluster", "--vault"].contains(&option);
                continue;
            }
            let mut longer = name.clone();
            longer.push((*word).to_owned());
            if self.commands.keys().any(|words| words.starts_with(&longer)) {
                name = longer;
            } else if !self.commands.contains_key(&name) {
                return Some(format!("there is no command {}", longer.join(" ")));
            }
        }
        if name.is_empty() {
            // Options alone, as of `tresor --version`, or nothing at all.
            let unknown = options.iter().find(|option| !self.global.contains(*option));
            return unknown.map(|option| format!("no option of every command: {option}"));
        }
        let Some(own) = self.commands.get(&name) else {
            // A group, as in `tresor vault …`: said of all its commands.
            return None;
        };
        options
            .iter()
            .find(|option| !own.contains(*option) && !self.global.contains(*option))
            .map(|option| format!("tresor {} has no option {option}", name.join(" ")))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn reference() -> Reference {
    Reference::parse(&std::fs::read_to_string(root().join("docs/cli.md")).unwrap())
}

/// All files below deploy/ that are text for people or programs, and the pages about them.
fn sources() -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Dashboards are queries, and speak of metrics alone; `disks` and `secrets` are of who tries compose.yaml.
                if !["grafana", "disks", "secrets"].iter().any(|name| path.ends_with(name)) {
                    folders.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                sources.push((path, text));
            }
        }
    }
    for page in ["docs/install.md", "docs/operations.md", "README.md"] {
        let path = root().join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        sources.push((path, text));
    }
    sources.sort();
    sources
}

/// The text with what one command is made of on one line: continued lines, and lists of YAML.
fn joined(path: &Path, text: &str) -> String {
    let text = text.replace("\\\n", " ");
    if !path.extension().is_some_and(|kind| kind == "yml" || kind == "yaml") {
        return text;
    }
    let mut joined = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let continues = trimmed.starts_with("- ") && !trimmed.contains(": ") || joined.ends_with(',');
        joined.push(if continues { ' ' } else { '\n' });
        joined.push_str(if continues {
            trimmed.strip_prefix("- ").unwrap_or(trimmed)
        } else {
            line
        });
    }
    // What compose gives to the image's entry point, and the chart to its container, is a command line too.
    for verb in ["worker", "coordinator"] {
        joined = joined.replace(&format!("[{verb}, start"), &format!("[tresor, {verb}, start"));
        joined = joined.replace(&format!("args: {verb} start"), &format!("args: tresor {verb} start"));
    }
    joined
}

/// The words after each `tresor` that is a program's name, up to where its command line ends.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for line in text.lines() {
        for (at, _) in line.match_indices("tresor") {
            let before = line[..at].chars().next_back();
            let rest = &line[at + "tresor".len()..];
            let rest = without_substitutions(rest);
            // A path to it, an argument of a list, or a word of its own; and not `tresor-worker`, `tresor.env` or `tresor:`.
            if before.is_some_and(|c| c.is_alphanumeric() || "-_.@:".contains(c)) || !rest.starts_with([' ', ',', '"'])
            {
                continue;
            }
            let end = rest
                .find(['`', '|', ';', '>', '<', '&', ')', '#', '…'])
                .unwrap_or(rest.len());
            // Lists of YAML: `[tresor, worker, start]`, and values that a template fills in.
            let rest = rest[..end]
                .split(']')
                .next()
                .unwrap()
                .replace("{{", " ")
                .replace("}}", " ");
            let words: Vec<String> = rest
                .split([' ', ',', '"', '\''])
                .map(|word| word.trim_end_matches(['.', ':']))
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect();
            lines.push(words);
        }
    }
    lines
}

/// A line of a shell without what other programs say in it.
fn without_substitutions(line: &str) -> String {
    let mut parts = line.split("$(");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(')').map_or("", |(_, after)| after));
    }
    kept
}

/// The parts of a page that are code.
fn code(path: &Path, text: &str) -> String {
    if path.extension().is_none_or(|kind| kind != "md") {
        return text.to_owned();
    }
    let mut code = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            code.push_str(line);
        } else {
            code.push_str(&line.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("\n"));
        }
        code.push('\n');
    }
    code
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn every_command_line_of_deployment_and_its_pages_is_one_of_the_program() {
    let reference = reference();
    let (mut found, mut count) = (Vec::new(), 0);
    for (path, text) in sources() {
        let is_page = path.extension().is_some_and(|kind| kind == "md");
        for words in command_lines(&joined(&path, &code(&path, &text))) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let first = words.iter().find(|word| !word.starts_with('-'));
            // Elsewhere than in a page `tresor` is also a user, a folder and a subject of sentences.
            let is_command = first.is_some_and(|word| reference.begins(word))
                || words
                    .first()
                    .is_some_and(|word| reference.global.contains(word.split('=').next().unwrap()));
            // `runuser -u tresor -- tresor …` is the second's.
            if words.first() == Some(&"--") || (!is_page && !is_command) {
                continue;
            }
            count += 1;
            if let Some(fault) = reference.fault(&words) {
                found.push(format!("{}: {fault}: tresor {}", shown(&path), words.join(" ")));
            }
        }
    }
    assert!(
        found.is_empty(),
        "commands that the program does not have:\n  {}",
        found.join("\n  ")
    );
    assert!(
        count > 80,
        "only {count} command lines were found: does the reader still read them?"
    );
}

#[test]
fn every_option_in_deployment_is_somebodys() {
    // Of the tools that the same files call.
    let others: BTreeSet<&str> = BTreeSet::from_iter(OTHERS.split_whitespace());
    let reference = reference();
    let mut found = Vec::new();
    for (path, text) in sources() {
        // Scripts and pages call many tools, and have their own command lines checked above.
        let is_setting = path.extension().is_some_and(|kind| {
            ["yml", "yaml", "env", "service", "conf", "j2", "tpl"]
                .iter()
                .any(|name| kind == *name)
        });
        if !is_setting || path.ends_with("prometheus.yaml") {
            continue;
        }
        let words = text.split(|c: char| c.is_whitespace() || "\"'`[](),={}:;".contains(c));
        for word in words.filter(|word| word.starts_with("--") && word.len() > 2 && !word.starts_with("---")) {
            let word = word.trim_end_matches('.');
            if !reference.knows_option(word) && !others.contains(word) {
                found.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    assert!(found.is_empty(), "options that nobody has:\n  {}", found.join("\n  "));
}

/// Options of other tools in settings: docker, mc, Prometheus, systemctl.
const OTHERS: &str = "--build --rm --detach --config-dir --ignore-existing --config.file --storage.tsdb.path --storage.tsdb.retention.time --property --value";

#[test]
fn every_variable_of_deployment_is_read_by_somebody() {
    let reference = reference();
    let mut found = Vec::new();
    for (path, text) in sources() {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        for word in words.filter(|word| word.starts_with("TRESOR_") && word.len() > "TRESOR_".len()) {
            if !OWN_VARIABLES.contains(&word) && !reference.text.contains(&format!("`{word}`")) {
                found.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    assert!(
        found.is_empty(),
        "variables that nobody reads:\n  {}",
        found.join("\n  ")
    );
}

#[test]
fn the_reader_of_this_file_finds_what_is_wrong() {
    let reference = Reference::parse(
        "## Options of every command\n\n- `--home DIR`: x\n- `-q, --quiet`: x\n\n## tresor worker start\n\n- `--permits N`: x\n\n## tresor worker list\n\n## tresor status\n",
    );
    let fault = |line: &str| reference.fault(&line.split(' ').collect::<Vec<_>>());
    for right in [
        "worker start --permits 2",
        "--home h worker start --permits=2 -q",
        "status",
        "worker",
        "--version",
    ] {
        assert_eq!(fault(right), None, "{right}");
    }
    for wrong in [
        "worker stop",
        "worker start --permit 2",
        "worker list --permits 2",
        "wroker start",
        "--hom h status",
    ] {
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    assert!(reference.knows_option("--permits") && !reference.knows_option("--permit"));
    let text = joined(
        Path::new("a.yml"),
        "argv:\n  - tresor\n  - worker\n  - start\n  - --permits=2\nx: [tresor, status]\n",
    );
    assert_eq!(
        command_lines(&text),
        [vec!["worker", "start", "--permits=2"], vec!["status"]]
    );
    assert!(command_lines("user tresor; tresor.env tresor-worker").is_empty());
    assert_eq!(
        command_lines("tresor login $(cat --a b) --name c"),
        [vec!["login", "--name", "c"]]
    );
    assert_eq!(code(Path::new("a.md"), "say `tresor status` now"), "tresor status\n");
}
