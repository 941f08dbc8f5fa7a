//! Machines with links between them that can be cut: a network namespace for each, and one for the switch between them, in which the test itself sits.
//!
//! It needs rights that only root has; without them a story is skipped by name, or fails with `TRESOR_REQUIRE_NAMESPACES=1`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cluster::Place;

/// The namespaces of a story; gone when it ends.
pub(crate) struct Network {
    switch: String,
    machines: Vec<String>,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| error.to_string())?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&ran.stderr).trim()
    ))
}

/// Takes this thread to a machine, or to the switch; what it starts is there, too.
pub(crate) fn enter(namespace: &str) -> Result<(), String> {
    let file = File::open(format!("/var/run/netns/{namespace}")).map_err(|error| error.to_string())?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| error.to_string())
}

impl Network {
    /// A switch with so many machines, and this thread beside it.
    fn build(machines: usize) -> Result<Self, String> {
        let id = std::process::id();
        let mut network = Self {
            switch: format!("tresor-{id}-s"),
            machines: Vec::new(),
        };
        let switch = network.switch.clone();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "set", "lo", "up"])?;
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        ip(&["-n", &switch, "address", "add", "10.77.0.254/24", "dev", "switch"])?;
        for number in 1..=machines {
            let machine = format!("tresor-{id}-{number}");
            ip(&["netns", "add", &machine])?;
            network.machines.push(machine.clone());
            let port = format!("port{number}");
            ip(&[
                "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &machine,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "switch"])?;
            ip(&["-n", &switch, "link", "set", &port, "up"])?;
            ip(&["-n", &machine, "link", "set", "lo", "up"])?;
            let address = format!("10.77.0.{number}/24");
            ip(&["-n", &machine, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &machine, "link", "set", "eth0", "up"])?;
        }
        enter(&switch)?;
        Ok(network)
    }

    /// Where its machines are.
    pub(crate) fn places(&self) -> Vec<Place> {
        let places = (1..).zip(&self.machines);
        places
            .map(|(number, machine)| Place {
                ip: format!("10.77.0.{number}"),
                namespace: Some(machine.clone()),
            })
            .collect()
    }

    /// A network for a story, or none where none can be made: then the story is named as one that was not told.
    pub(crate) fn or_skipped(machines: usize, story: &str) -> Option<Self> {
        match Self::build(machines) {
            Ok(network) => Some(network),
            Err(why) => {
                let required = std::env::var("TRESOR_REQUIRE_NAMESPACES").is_ok_and(|value| value == "1");
                assert!(!required, "network namespaces cannot be made here: {why}");
                #[expect(clippy::print_stderr, reason = "a story that is not told is named")]
                {
                    eprintln!("skipped: {story} (network namespaces cannot be made here: {why})");
                }
                None
            }
        }
    }

    /// Cuts a machine's link.
    pub(crate) fn cut(&self, machine: &str) {
        self.link(machine, "down");
    }

    /// Mends a machine's link.
    pub(crate) fn mend(&self, machine: &str) {
        self.link(machine, "up");
    }

    fn link(&self, machine: &str, state: &str) {
        let port = format!("port{}", self.number(machine));
        ip(&["-n", &self.switch, "link", "set", &port, state]).unwrap();
    }

    /// Lets nothing through any more from one machine to another one; what the other one sends arrives.
    pub(crate) fn deafen(&self, from: &str, to: &str) {
        let to = format!("10.77.0.{}/32", self.number(to));
        ip(&["-n", from, "route", "add", "blackhole", &to]).unwrap();
    }

    /// Lets it through again.
    pub(crate) fn undeafen(&self, from: &str, to: &str) {
        let to = format!("10.77.0.{}/32", self.number(to));
        ip(&["-n", from, "route", "delete", "blackhole", &to]).unwrap();
    }

    fn number(&self, machine: &str) -> usize {
        self.machines.iter().position(|name| name == machine).unwrap() + 1
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.machines.iter().chain([&self.switch]) {
            // What was not made is not there.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}
