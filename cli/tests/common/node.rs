//! A home with a node, and what is asked of it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Site, files};

/// Longest that anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `tresor node start`, killed with the test.
pub struct Node(pub Child);

impl Node {
    /// Starts it, and waits until it works.
    pub fn start(site: &Site) -> Self {
        Self::start_in(site, &[])
    }

    /// Starts it with variables of its environment.
    pub fn start_in(site: &Site, variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(site.path("node.log")).unwrap();
        let child = site
            .command(&["node", "start"])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self(child);
        until("the node works", || {
            assert!(node.0.try_wait().unwrap().is_none(), "{}", log_of(site));
            log_of(site).contains("the node of home")
        });
        node
    }

    /// Stops it.
    pub fn stop(mut self) {
        signal("-TERM", &self.0);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already, where the test stopped it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the served node said.
pub fn log_of(site: &Site) -> String {
    std::fs::read_to_string(site.path("node.log")).unwrap()
}

/// Sends a signal.
pub fn signal(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All points, as they are listed.
pub fn points(site: &Site) -> Vec<Value> {
    site.json(&["point", "list"])["points"].as_array().unwrap().clone()
}

/// All jobs, as they are listed.
pub fn jobs(site: &Site) -> Vec<Value> {
    site.json(&["job", "list"])["jobs"].as_array().unwrap().clone()
}

/// Makes a home what it was when homes had no node of their own accord: its vault is written by the home's claim.
pub fn without_node(site: &Site) {
    std::fs::remove_dir_all(site.path("home/node")).unwrap();
}

/// How many claims the vault `main` has.
pub fn claims(site: &Site) -> usize {
    files(&site.path("home/stores/main/cluster")).len()
}

/// Restores the newest point of an item, and expects these bytes.
pub fn comes_back(site: &Site, item: &str, bytes: &[u8]) {
    let target = site.text("back.img");
    site.json(&["restore", item, "--to", &target]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    std::fs::remove_file(&target).unwrap();
}
