//! Every command of docs/quick-start.md does what the page says.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::net::TcpListener;
use std::path::Path;

use common::{Ran, Site};

/// Blocks of code of the page: what stands behind their `sh`, and their lines.
fn blocks() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quick-start.md");
    let page = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<(String, String)> = page
        .split("\n```sh")
        .skip(1)
        .map(|block| {
            let (machine, rest) = block.split_once('\n').unwrap();
            let (lines, _) = rest.split_once("\n```").unwrap();
            (machine.trim().to_owned(), lines.to_owned())
        })
        .collect();
    assert!(blocks.len() >= 12, "the page is read wrong: {blocks:?}");
    blocks
}

/// Runs a script as somebody who types it, in a home folder of their own.
fn run(site: &Site, script: &str) -> Ran {
    let bin = Path::new(env!("CARGO_BIN_EXE_tresor")).parent().unwrap().display();
    let mut command = site.command(&[]);
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let envs: Vec<_> = command
        .get_envs()
        .filter(|(name, value)| value.is_none() && *name != "TRESOR_HOME")
        .map(|(name, _)| name.to_owned())
        .collect();
    command = std::process::Command::new("bash");
    for name in envs {
        command.env_remove(name);
    }
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}\n");
    command
        .args(["-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("HOME", site.path(""))
        .env_remove("XDG_DATA_HOME")
        .current_dir(site.path(""));
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    Ran::new(&["the quick start"], output)
}

#[test]
fn a_first_backup_comes_back_and_schedules_are_set_up() {
    let site = Site::new();
    let lines: Vec<String> = blocks()
        .into_iter()
        .filter(|(machine, _)| machine.is_empty())
        .map(|(_, lines)| lines)
        .collect();
    // A person needs a second between two backups; a vault by itself orders points by seconds.
    let slower = "tresor() { case \"$1\" in node) exec tresor \"$@\" ;; *) command tresor \"$@\" ;; esac\n\
                  if [ \"$1\" = backup ]; then sleep 1.1; fi; }";
    let ran = run(&site, &format!("{slower}\n{}", lines.join("\n")));
    assert_eq!(ran.code, 0, "{ran}");
    for file in ["kit.txt", "restored.raw", "elsewhere.raw", "protection.html"] {
        assert!(site.path(file).is_file(), "{file}: {ran}");
    }
    assert!(
        ran.stdout.contains("2 of 2 items") || ran.stdout.contains("1 of 2 items"),
        "{ran}"
    );
}

/// A port that nobody listens at just now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn three_coordinators_and_a_worker_make_a_cluster() {
    let site = Site::new();
    let machines = ["c1", "c2", "c3"];
    let ports = machines.map(|_| port());
    let image: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    site.file("c1/web.img", image);
    // The three machines are folders here; what would clash on one machine is said by options.
    let mut script = String::from(
        "tresor() { case \"$1 ${2-}\" in\n\
         'cluster init') command tresor \"$@\" --coordinator $machine ;;\n\
         'coordinator start') set -- \"$@\" --listen 127.0.0.1:$port --http 127.0.0.1:0\n\
           if [[ \"$*\" == *--join* ]]; then set -- \"$@\" --name $machine; fi; exec tresor \"$@\" ;;\n\
         'worker start') exec tresor \"$@\" --serve-address 127.0.0.1:$serve --no-metrics ;;\n\
         *) command tresor \"$@\" ;; esac; }\n",
    );
    script.push_str(&format!("serve={}\n", port()));
    for (machine, lines) in blocks().into_iter().filter(|(machine, _)| !machine.is_empty()) {
        let at = machines.iter().position(|name| *name == machine).unwrap();
        script.push_str(&format!(
            "machine={machine}; port={}; mkdir -p ~/{machine}; cd ~/{machine}; export TRESOR_HOME=~/{machine}/home\n",
            ports[at]
        ));
        if machine != "c1" {
            script.push_str("cp ~/c1/join-* .\n");
        }
        script.push_str(&lines);
        script.push('\n');
    }
    for (machine, port) in machines.iter().zip(ports) {
        script = script.replace(&format!("{machine}:7420"), &format!("127.0.0.1:{port}"));
    }
    script.push_str("cd ~; tresor --json coordinator list >members.json; tresor --json point list >points.json\n");
    let ran = run(&site, &script);
    assert_eq!(ran.code, 0, "{ran}");
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(site.path(name)).unwrap()).unwrap() };
    assert_eq!(
        read("members.json")["coordinators"].as_array().unwrap().len(),
        3,
        "{ran}"
    );
    assert_eq!(read("points.json")["points"].as_array().unwrap().len(), 1, "{ran}");
}
