//! The real program, killed with `kill -9` before each call by which it makes, syncs, names or removes a file.
//!
//! Whatever the moment: points that were there restore byte for byte, a point that is listed restores byte for byte, the same command works when it
//! is given again, and nothing in the vault is damaged.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;
#[path = "common/trace.rs"]
mod trace;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Site, noise};

/// Syncs of an unchanged backup: five of the log, and ten for the openings of its database and of the index; seven of the vault's manifest; one of each
/// log that the four commands before it left, which may be in the system's memory alone.
const SYNCS_MAX: usize = 28;

/// The tracer waits for all children of this process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// A disk of a few segments with holes.
fn disk(seed: u64) -> Vec<u8> {
    let mut bytes = noise(seed, 200_000);
    bytes.resize(5 << 20, 0);
    bytes.extend(noise(9, 150_000));
    bytes.resize(9 << 20, 0);
    bytes.extend(noise(seed + 1, 4096));
    bytes
}

/// A home with a vault in a folder, both below `state`, so that they can be put back as they were.
struct Stage {
    site: Site,
}

impl Stage {
    fn new() -> Self {
        let site = Site::new();
        std::fs::create_dir(site.path("state")).unwrap();
        site.file("one.raw", disk(1));
        site.file("two.raw", disk(2));
        Self { site }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        command.env("TRESOR_HOME", self.site.path("state/home"));
        command
    }

    fn run(&self, args: &[&str]) -> common::Ran {
        common::Ran::new(args, self.command(args).output().unwrap())
    }

    fn done(&self, args: &[&str]) -> common::Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{ran}");
        ran
    }

    fn make_vault(&self) {
        let store = format!("file://{}", self.site.text("state/store"));
        self.done(&["vault", "create", "main", "--store", &store]);
    }

    fn save(&self) {
        copy(&self.site.path("state"), &self.site.path("saved"));
    }

    fn put_back(&self) {
        copy(&self.site.path("saved"), &self.site.path("state"));
    }

    fn points(&self) -> Vec<String> {
        let listed = self.done(&["--json", "point", "list"]).value();
        let points = listed["points"].as_array().unwrap();
        points
            .iter()
            .map(|point| point["point"].as_str().unwrap().to_owned())
            .collect()
    }

    fn restored(&self, point: &str) -> Vec<u8> {
        let target = self.site.path("restored.raw");
        let _ = std::fs::remove_file(&target);
        self.done(&["restore", point, "--to", target.to_str().unwrap()]);
        std::fs::read(target).unwrap()
    }
}

/// Kills `args` before each of its calls, and looks at what is left with `check`. Every `of`-th moment from `part` on.
fn kill_everywhere(stage: &Stage, args: &[&str], part: usize, of: usize, check: impl Fn(&Stage, usize, &str)) {
    stage.save();
    let whole = trace::run(&stage.command(args), None);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(
        whole.calls.iter().filter(|call| call.contains("sync")).count() >= 5,
        "nothing durable is done without syncs: {whole:?}"
    );
    let mut killed = 0;
    // Some more: threads do not always come in one order, and a call that comes late must not be left out.
    for moment in (part..whole.calls.len() + 3).step_by(of) {
        stage.put_back();
        let traced = trace::run(&stage.command(args), Some(moment));
        match traced.code {
            None => killed += 1,
            Some(code) => assert_eq!(
                (code, moment + 3 >= whole.calls.len()),
                (0, true),
                "{moment}: {traced:?}"
            ),
        }
        let call = traced.calls.get(moment).copied().unwrap_or("end");
        check(stage, moment, call);
    }
    assert!(
        killed + 3 >= whole.calls.len() / of,
        "only {killed} of {} calls were killed at",
        whole.calls.len()
    );
}

/// Of a home with one point, a second backup is killed.
fn kill_backups(part: usize, of: usize) {
    let _alone = alone();
    let stage = Stage::new();
    stage.make_vault();
    let (one, two) = (disk(1), disk(2));
    stage.done(&["backup", &stage.site.text("one.raw"), "--item", "vm"]);
    let [first] = stage.points().try_into().unwrap();
    let two_path = stage.site.text("two.raw");
    kill_everywhere(
        &stage,
        &["backup", &two_path, "--item", "vm"],
        part,
        of,
        |stage, moment, call| {
            let points = stage.points();
            assert!(points.contains(&first), "moment {moment} ({call}): {points:?}");
            for point in &points {
                let expected = if *point == first { &one } else { &two };
                assert!(stage.restored(point) == *expected, "moment {moment} ({call}): {point}");
            }
            stage.done(&["backup", &two_path, "--item", "vm"]);
            let newest = stage
                .points()
                .into_iter()
                .find(|point| !points.contains(point))
                .unwrap();
            assert!(stage.restored(&newest) == two, "moment {moment} ({call})");
            stage.done(&["vault", "verify", "--level", "contents"]);
        },
    );
}

/// Each sync is a wait for the disk: what the node adds to a backup is bounded.
#[test]
fn an_unchanged_backup_waits_for_the_disk_a_bounded_number_of_times() {
    let _alone = alone();
    let stage = Stage::new();
    stage.make_vault();
    let one = stage.site.text("one.raw");
    let backup = ["backup", &one, "--item", "vm"];
    stage.done(&backup);
    stage.done(&backup);
    let traced = trace::run(&stage.command(&backup), None);
    assert_eq!(traced.code, Some(0));
    let syncs = traced
        .calls
        .iter()
        .filter(|call| matches!(**call, "fsync" | "fdatasync"))
        .count();
    assert!(syncs <= SYNCS_MAX, "{syncs}: {:?}", traced.calls);
}

#[test]
fn kill_a_backup_before_each_call_first_part() {
    kill_backups(0, 2);
}

#[test]
fn kill_a_backup_before_each_call_second_part() {
    kill_backups(1, 2);
}

/// The first command of a home makes its node, too: there are many calls.
fn kill_creations(part: usize, of: usize) {
    let _alone = alone();
    let stage = Stage::new();
    let store = format!("file://{}", stage.site.text("state/store"));
    let one_path = stage.site.text("one.raw");
    kill_everywhere(
        &stage,
        &["vault", "create", "main", "--store", &store],
        part,
        of,
        |stage, moment, call| {
            // Either it is there, or it can be made, or what is left is a whole vault, which the message says how to use.
            if stage.run(&["vault", "show", "main"]).code != 0 {
                let again = stage.run(&["vault", "create", "main", "--store", &store]);
                if again.code != 0 {
                    assert!(
                        again.stderr.contains("vault take-over"),
                        "moment {moment} ({call}): {again}"
                    );
                    stage.done(&["vault", "take-over", "main", "--store", &store]);
                }
            }
            stage.done(&["backup", &one_path, "--item", "vm"]);
            let [point] = stage.points().try_into().unwrap();
            assert!(stage.restored(&point) == disk(1), "moment {moment} ({call})");
        },
    );
}

#[test]
fn kill_the_creation_of_a_vault_before_each_call_first_part() {
    kill_creations(0, 4);
}

#[test]
fn kill_the_creation_of_a_vault_before_each_call_second_part() {
    kill_creations(1, 4);
}

#[test]
fn kill_the_creation_of_a_vault_before_each_call_third_part() {
    kill_creations(2, 4);
}

#[test]
fn kill_the_creation_of_a_vault_before_each_call_fourth_part() {
    kill_creations(3, 4);
}

#[test]
fn kill_the_removal_of_a_point_before_each_call() {
    let _alone = alone();
    let stage = Stage::new();
    stage.make_vault();
    stage.done(&["backup", &stage.site.text("one.raw"), "--item", "vm"]);
    let [first] = stage.points().try_into().unwrap();
    stage.done(&["backup", &stage.site.text("two.raw"), "--item", "vm"]);
    let second = stage.points().into_iter().find(|point| *point != first).unwrap();
    kill_everywhere(&stage, &["point", "remove", &first], 0, 1, |stage, moment, call| {
        let points = stage.points();
        assert!(points.contains(&second), "moment {moment} ({call}): {points:?}");
        for point in &points {
            let expected = disk(if *point == first { 1 } else { 2 });
            assert!(stage.restored(point) == expected, "moment {moment} ({call}): {point}");
        }
    });
}
