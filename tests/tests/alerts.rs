//! Rules about alerts, their pages and the dashboards: each alert has a page, each metric exists, and promtool agrees.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const RULES: &str = "deploy/prometheus/tresor-alerts.yaml";
const STORIES: &str = "deploy/prometheus/tresor-alerts.test.yaml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of metrics in the documentation; of a histogram those that a scrape gives, too.
fn documented() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in read("docs/metrics.md").lines() {
        let Some((name, rest)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | ")) else {
            continue;
        };
        names.insert(name.to_owned());
        if rest.starts_with("histogram") {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
    }
    assert!(names.len() > 80, "docs/metrics.md has {} metrics", names.len());
    names
}

/// Words of an expression that are names of ours, or of a process.
fn metrics(expression: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_word(c));
    let ours = words.filter(|word| {
        ["tresor_", "process_"]
            .iter()
            .any(|begin| word.len() > begin.len() && word.starts_with(begin))
    });
    ours.map(str::to_owned).collect()
}

/// What stands under the key of each alert in the rules, up to the next alert.
fn alerts() -> BTreeMap<String, String> {
    let rules = read(RULES);
    let parts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let alerts: BTreeMap<String, String> = parts
        .iter()
        .map(|part| {
            let (name, body) = part.split_once('\n').unwrap();
            (name.to_owned(), body.to_owned())
        })
        .collect();
    assert_eq!(alerts.len(), parts.len(), "each alert has a name of its own");
    alerts
}

/// Files of a folder, without their ending.
fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(root().join(folder)).unwrap();
    files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect()
}

#[test]
fn every_alert_has_a_page_that_says_what_to_do_and_every_page_an_alert() {
    let alerts = alerts();
    let pages = stems("docs/runbooks", ".md");
    assert_eq!(alerts.keys().cloned().collect::<BTreeSet<_>>(), pages);
    for (name, body) in &alerts {
        assert!(
            body.contains(&format!("runbook_url: docs/runbooks/{name}.md")),
            "{name} names another page"
        );
        assert!(
            body.contains("summary: ") && body.contains("severity: "),
            "{name} says too little"
        );
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["**What it means.**", "**See why.**", "**What to do.**"] {
            assert!(page.contains(part), "the page of {name} does not say: {part}");
        }
    }
}

#[test]
fn commands_of_the_pages_are_commands_of_the_program() {
    let reference = read("docs/cli.md");
    let known: BTreeSet<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## tresor "))
        .collect();
    assert!(known.len() > 40, "{known:?}");
    for page in stems("docs/runbooks", ".md") {
        let text = read(&format!("docs/runbooks/{page}.md"));
        for (at, _) in text.match_indices("tresor ") {
            let before = text[..at].chars().next_back();
            // A command, not a word in a sentence or the name of a unit.
            if !matches!(before, Some('\n' | '`')) {
                continue;
            }
            let command = text[at + "tresor ".len()..].lines().next().unwrap();
            let command = command.split(['`', ';']).next().unwrap();
            let is_known = known
                .iter()
                .any(|known| command == *known || command.starts_with(&format!("{known} ")));
            assert!(is_known, "{page}: there is no tresor {command}");
        }
    }
}

#[test]
fn every_metric_of_an_alert_or_a_dashboard_exists() {
    let known = documented();
    let mut used = BTreeMap::new();
    for (name, body) in alerts() {
        let expression = body.split("labels:").next().unwrap().to_owned();
        assert!(!metrics(&expression).is_empty(), "{name} is about nothing of ours");
        used.insert(name, expression);
    }
    for (name, board) in dashboards() {
        used.insert(name, board.to_string());
    }
    for (of, text) in used {
        for metric in metrics(&text) {
            // Groups of rules are named so, too.
            assert!(
                known.contains(&metric),
                "{of} uses {metric}, which docs/metrics.md does not have"
            );
        }
    }
    // Stories of the rules are about what is shown, too.
    for metric in metrics(&read(STORIES)) {
        assert!(known.contains(&metric), "{STORIES} has {metric}");
    }
}

/// Of an answer whether the tool is there; what is skipped for want of it is said by name, and nothing is skipped where tests must be complete.
fn promtool(args: &[&str]) -> Option<std::process::Output> {
    match Command::new("promtool").args(args).current_dir(root()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool is not there: {error}; scripts/install-deps.sh test installs it"
            );
            #[expect(clippy::print_stderr, reason = "for whoever wonders what was tested")]
            {
                eprintln!(
                    "skipped: promtool {} (scripts/install-deps.sh test installs it)",
                    args.join(" ")
                );
            }
            None
        }
    }
}

#[test]
fn promtool_reads_the_rules_and_each_alert_fires_where_it_should() {
    for args in [&["check", "rules", RULES][..], &["test", "rules", STORIES]] {
        if let Some(output) = promtool(args) {
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
        }
    }
    let stories = read(STORIES);
    for name in alerts().keys() {
        let fires = format!("alertname: {name}\n        exp_alerts:\n          - exp_labels:");
        assert!(stories.contains(&fires), "no story has {name} fire");
        let quiet = format!("alertname: {name}, exp_alerts: []");
        assert!(stories.contains(&quiet), "no story has {name} silent");
    }
}

fn dashboards() -> BTreeMap<String, Value> {
    let names = stems("deploy/grafana/dashboards", ".json");
    let read = |name: String| {
        let text = read(&format!("deploy/grafana/dashboards/{name}.json"));
        (name, serde_json::from_str(&text).unwrap())
    };
    names.into_iter().map(read).collect()
}

#[test]
fn dashboards_are_uniform_and_say_what_they_show() {
    let boards = dashboards();
    let names: Vec<&str> = boards.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "coordinators",
            "fleet",
            "item",
            "jobs",
            "stores",
            "throughput",
            "worker"
        ]
    );
    let mut uids = BTreeSet::new();
    for (name, board) in &boards {
        assert!(uids.insert(board["uid"].to_string()), "{name} has the uid of another");
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(
                ids.insert(panel["id"].to_string()),
                "{name} / {title}: its id is another's"
            );
            let place = &panel["gridPos"];
            let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
            assert!(right <= 24, "{name} / {title} does not fit");
            if panel["type"] == "row" {
                continue;
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(
                panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{name} / {title}"
            );
            assert!(defaults["unit"].is_string(), "{name} / {title} has no unit");
            assert!(
                defaults["thresholds"]["steps"].is_array(),
                "{name} / {title} has no thresholds"
            );
            assert!(
                !panel["targets"].as_array().unwrap().is_empty(),
                "{name} / {title} asks nothing"
            );
        }
    }
}

#[test]
fn dashboards_are_what_their_program_writes() {
    let ran = Command::new("python3")
        .arg("deploy/grafana/dashboards.py")
        .arg("--check")
        .current_dir(root())
        .output();
    match ran {
        Ok(ran) => assert!(
            ran.status.success(),
            "run deploy/grafana/dashboards.py: {}",
            String::from_utf8_lossy(&ran.stderr)
        ),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "python3 is not there: {error}");
            #[expect(clippy::print_stderr, reason = "for whoever wonders what was tested")]
            {
                eprintln!("skipped: dashboards.py --check (python3 is not there)");
            }
        }
    }
}
