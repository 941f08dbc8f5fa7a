//! Several commands on one home at the same time: who is the node, who goes through whom, and what becomes of guests when their host is gone.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::node::{Node, claims, comes_back, log_of, points, signal, until, without_node};
use common::{Ran, Site, disk, noise};

#[test]
fn commands_at_the_same_time_share_one_node() {
    let site = Site::new();
    let images: Vec<String> = (1..4).map(|n| site.file(&format!("vm-{n}.img"), disk(n))).collect();
    site.json(&["backup", &images[0]]);
    Node::start(&site).stop();
    let children: Vec<Child> = images
        .iter()
        .map(|image| {
            let mut command = site.command(&["backup", image, "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let ran = Ran::new(&["backup"], child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{ran}");
    }
    assert_eq!(points(&site).len(), 4);
}

/// Starts a command whose output is kept.
fn spawn(site: &Site, args: &[&str]) -> Child {
    let mut command = site.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    Ran::new(&["(spawned)"], child.wait_with_output().unwrap())
}

/// Starts backups of these images at once and expects all of them to succeed.
fn back_up_at_once(site: &Site, images: &[String]) {
    let children: Vec<Child> = images
        .iter()
        .map(|image| spawn(site, &["backup", image, "--json"]))
        .collect();
    for ran in children.into_iter().map(ended) {
        assert_eq!(ran.code, 0, "{ran}");
    }
}

#[test]
fn the_first_commands_of_a_home_may_come_at_the_same_time() {
    for _ in 0..3 {
        let site = Site::new();
        let images: Vec<String> = (1..4).map(|n| site.file(&format!("vm-{n}.img"), disk(n))).collect();
        back_up_at_once(&site, &images);
        assert_eq!(points(&site).len(), 3);
        assert_eq!(claims(&site), 1, "one vault, made once");
        let verified = site.run(&["vault", "verify", "--level", "all"]);
        assert_eq!(verified.code, 0, "{verified}");
    }
}

#[test]
fn an_old_home_is_taken_over_once_by_commands_that_come_at_the_same_time() {
    for _ in 0..3 {
        let site = Site::new();
        let images: Vec<String> = (1..4).map(|n| site.file(&format!("vm-{n}.img"), disk(n))).collect();
        site.json(&["backup", &images[0]]);
        without_node(&site);
        let listing = spawn(&site, &["point", "list", "--json"]);
        let backups: Vec<Child> = images
            .iter()
            .map(|image| spawn(&site, &["backup", image, "--json"]))
            .collect();
        let restored = site.text("back.img");
        let restore = spawn(&site, &["restore", "vm-1", "--to", &restored, "--json"]);
        for ran in backups.into_iter().map(ended) {
            assert_eq!(ran.code, 0, "{ran}");
        }
        let listed = ended(listing);
        assert_eq!(listed.code, 0, "{listed}");
        assert!(
            !listed.value()["points"].as_array().unwrap().is_empty(),
            "what is there is there while it is taken over: {listed}"
        );
        let ran = ended(restore);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(std::fs::read(&restored).unwrap() == disk(1));
        assert_eq!(claims(&site), 2, "that of the making, and that of the node");
        assert_eq!(points(&site).len(), 4);
    }
}

/// A command that is the node for long enough that others are its guests.
fn host(site: &Site) -> Child {
    let image = site.file("host.img", noise(7, 384 << 20));
    let child = spawn(site, &["backup", &image, "--json"]);
    let socket = site.path("home/node/socket");
    until("the node is served", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    child
}

#[test]
fn a_guest_whose_host_is_killed_goes_on_as_the_node() {
    for wait in [0, 400, 1500] {
        let site = Site::new();
        let small = site.file("small.img", noise(1, 50_000));
        site.json(&["backup", &small]);
        let mut host = host(&site);
        let bytes = noise(2, 96 << 20);
        let image = site.file("guest.img", &bytes);
        let began = Instant::now();
        let guest = spawn(&site, &["backup", &image, "--json"]);
        std::thread::sleep(Duration::from_millis(wait));
        host.kill().unwrap();
        host.wait().unwrap();
        let ran = ended(guest);
        assert_eq!(ran.code, 0, "after {wait} ms and {:?}: {ran}", began.elapsed());
        comes_back(&site, "guest", &bytes);
        let guests = points(&site).into_iter().filter(|point| point["item"] == "guest");
        assert_eq!(guests.count(), 1, "one request, one point");
    }
}

#[test]
fn a_guest_restores_on_when_its_host_is_interrupted() {
    let site = Site::new();
    let bytes = noise(1, 96 << 20);
    let image = site.file("web.img", &bytes);
    site.json(&["backup", &image]);
    let host = host(&site);
    let target = site.text("back.img");
    let guest = spawn(&site, &["restore", "web", "--to", &target, "--json"]);
    std::thread::sleep(Duration::from_millis(300));
    signal("-INT", &host);
    let (left, ran) = (ended(host), ended(guest));
    assert!(left.code == 130 || left.code == 0, "{left}");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(std::fs::read(&target).unwrap() == bytes);
}

#[test]
fn a_guest_of_a_command_hears_at_once_of_an_attempt_that_nobody_will_repeat() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["vault", "create", "main"]);
    site.json(&["vault", "create", "second"]);
    let host = host(&site);
    std::fs::rename(site.path("home/stores/second/vault.pb"), site.path("away")).unwrap();
    let began = Instant::now();
    let failed = site.run(&["--json", "--vault", "second", "backup", &image]);
    assert_ne!(failed.code, 0, "{failed}");
    assert!(failed.stderr.contains("is not tried again"), "{failed}");
    // An attempt that failed so is repeated half a minute later, where anybody repeats it.
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}: {failed}",
        began.elapsed()
    );
    let made = ended(host);
    assert_eq!(made.code, 0, "its own backup goes on: {made}");
}

/// Makes the store of a vault of the home one that nobody answers at.
fn goes_away(site: &Site, vault: &str) {
    let path = site.path(&format!("home/vaults/{vault}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    let dead = text.replace(&format!("\"stores/{vault}\""), "\"s3://dead/x\"");
    assert_ne!(dead, text);
    std::fs::write(&path, dead).unwrap();
    site.file("home/key", "none\n");
    let table = "[stores.\"s3://dead\"]\nendpoint = \"http://127.0.0.1:9\"\nallow_http = true\nregion = \"none\"\n\
        access_key_id = \"none\"\nsecret_access_key_file = \"key\"\n";
    site.file("home/config.toml", table);
}

#[test]
fn a_vault_whose_store_is_away_holds_up_no_other() {
    let site = Site::new();
    let bytes = disk(1);
    let image = site.file("web.img", &bytes);
    site.json(&["vault", "create", "main"]);
    site.json(&["vault", "create", "second"]);
    without_node(&site);
    goes_away(&site, "second");
    let made = site.run(&["--json", "backup", &image]);
    assert_eq!(made.code, 0, "{made}");
    assert!(!made.stderr.contains("second"), "nobody asked for it: {made}");
    comes_back(&site, "web", &bytes);
    let verified = site.run(&["vault", "verify", "main"]);
    assert_eq!(verified.code, 0, "{verified}");
    assert!(!verified.stderr.contains("warning"), "{verified}");
    let listed = site.run(&["point", "list"]);
    assert!(
        listed.stderr.contains("vault second is not the node's yet"),
        "what a list does not say is said: {listed}"
    );
}

#[test]
fn a_node_that_is_served_has_a_vault_as_soon_as_its_store_is_back() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    site.json(&["backup", &image]);
    without_node(&site);
    let (there, away) = (site.path("home/stores/main/vault.pb"), site.path("away"));
    std::fs::rename(&there, &away).unwrap();
    let node = Node::start(&site);
    assert!(
        log_of(&site).contains("could not make vault main the node's"),
        "{}",
        log_of(&site)
    );
    std::fs::rename(&away, &there).unwrap();
    until("the node has the vault", || {
        log_of(&site).contains("vault main is the node's now")
    });
    assert_eq!(points(&site).len(), 1);
    node.stop();
}
