//! What a worker has of the index is damaged, old, or not its own any more: backups and restores are right all the same, and it is made anew.
//!
//! Every backup here is of a clone: one megabyte of its own in a disk that all have. So what an index does not know is counted, and what it says wrongly
//! would be restored otherwise.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tresor_tests::random::Random;

use super::cluster::Cluster;
use super::program::{until, until_just_now};
use super::reupload::copy_folder;
use super::watch::files;

/// What all disks have in common.
const COMMON: usize = 8 << 20;
/// What each has of its own, in its middle.
const OWN: usize = 1 << 20;
/// What may be stored of a clone when the index knows everything else: its own, and the chunks that have an end of it in them.
const OWN_MAX: u64 = OWN as u64 + (512 << 10);
/// What a worker says when the slots that it was granted are whole.
const WHOLE: &str = "slots of the index are whole";
const ANEW: &str = "index of slots is made anew";

/// A cluster whose workers back clones up.
struct Story {
    cluster: Cluster,
    random: Random,
    common: Vec<u8>,
    points: Vec<(String, Vec<u8>)>,
}

impl Story {
    fn begin() -> Self {
        let mut cluster = Cluster::start(1);
        cluster.add_workers(&["w1", "w2", "w3"]);
        cluster.make_vault();
        cluster.slots_are_held();
        assert!(cluster.slots()["w3"] > 256, "{:?}", cluster.slots());
        let mut random = Random::seeded(4);
        let common = random.bytes(COMMON);
        Self {
            cluster,
            random,
            common,
            points: Vec::new(),
        }
    }

    /// Lets a worker back a new clone up. Returns how many bytes nobody had, as far as the index knew.
    fn clone_on(&mut self, worker: &str) -> u64 {
        let item = format!("clone{}", self.points.len());
        let mut bytes = self.common.clone();
        bytes[COMMON / 2..COMMON / 2 + OWN].copy_from_slice(&self.random.bytes(OWN));
        self.cluster.protect_on(&item, worker, &bytes);
        let job = self.cluster.begin_backup(&item);
        let done = self.cluster.job_is(job, "done");
        self.points.push((done.point, bytes));
        done.counts.unwrap().bytes_new
    }

    /// The index knows what all clones have in common, whoever asks.
    fn assert_knows(&mut self, why: &str) {
        for worker in ["w1", "w2"] {
            let new = self.clone_on(worker);
            assert!(new <= OWN_MAX, "{why}: {worker} stored {new} bytes of a clone");
        }
    }

    fn kill(&mut self, worker: &str) {
        self.cluster.kill(worker);
    }

    /// All owners answer under their present grants: a point counts when each has taken what it is to have of it, and this one has something for all.
    fn settles(&mut self) {
        let item = format!("other{}", self.points.len());
        let bytes = self.random.bytes(OWN);
        self.cluster.protect_on(&item, "w1", &bytes);
        let job = self.cluster.begin_backup(&item);
        let point = self.cluster.job_is(job, "done").point;
        self.points.push((point, bytes));
    }

    /// Starts it again and waits until it answers for its slots. Returns what it says since.
    fn restart(&mut self, worker: &str) -> Since {
        let since = Since::now(&self.cluster, worker);
        self.cluster.restart(worker);
        until(format!("{worker} is registered"), || {
            since.log(&self.cluster).contains("worker is registered").then_some(())
        });
        self.settles();
        since
    }

    /// Every point restores to what its disk was.
    fn check(&self) {
        let target = self.cluster.path("restored.img");
        for (point, bytes) in &self.points {
            let _ = std::fs::remove_file(&target);
            let to = format!("w1:{}", target.display());
            self.cluster.verb(&["restore", point, "--to", &to]);
            assert!(
                std::fs::read(&target).unwrap() == *bytes,
                "{point} is restored otherwise"
            );
        }
        assert_eq!(self.cluster.points().len(), self.points.len());
    }
}

/// What a node says from some moment on.
struct Since {
    node: String,
    from: usize,
}

impl Since {
    fn now(cluster: &Cluster, node: &str) -> Self {
        Self {
            node: node.to_owned(),
            from: cluster.log(node).len(),
        }
    }

    fn log(&self, cluster: &Cluster) -> String {
        cluster.log(&self.node)[self.from..].to_owned()
    }

    fn says(&self, cluster: &Cluster, what: &str) {
        until(format!("{} says that {what}", self.node), || {
            self.log(cluster).contains(what).then_some(())
        });
    }
}

/// Turns one bit in the middle of a file.
fn flip(path: &Path) {
    let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

/// Cuts the newest file that is so named, and has anything, to half its length.
fn cut(folder: &Path, is_meant: impl Fn(&str) -> bool) {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let length = |path: &PathBuf| path.metadata().unwrap().len();
    let meant = files(folder)
        .into_iter()
        .filter(|path| is_meant(&name(path)) && length(path) > 0);
    let newest = meant.max_by_key(name).unwrap();
    let length = length(&newest);
    std::fs::File::options()
        .write(true)
        .open(&newest)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
}

#[test]
fn an_index_that_is_damaged_or_old_costs_duplicates_until_it_is_made_anew() {
    let mut story = Story::begin();
    story.clone_on("w1");
    story.assert_knows("nothing is wrong");
    let folder = story.cluster.slots_folder("w3");
    let database = story.cluster.stored().slots_path("w3");
    let old = story.cluster.path("old");

    // Started again: what was in its log is in tables now, and two backups later there is an older copy of it.
    story.kill("w3");
    copy_folder(&folder, &old);
    story.restart("w3");
    story.assert_knows("it was started again");

    // A table is damaged, which is seen when it is read.
    story.kill("w3");
    let tables = files(&database)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let tables: Vec<PathBuf> = tables.collect();
    assert!(!tables.is_empty());
    tables.iter().for_each(|table| flip(table));
    let since = story.restart("w3");
    story.clone_on("w1");
    since.says(&story.cluster, ANEW);
    since.says(&story.cluster, WHOLE);
    story.assert_knows("tables were damaged");

    // The end of its log is gone: it is as if the last packs had never come.
    story.kill("w3");
    cut(&database, |name| name.ends_with(".log") && !name.starts_with("LOG"));
    story.restart("w3");
    story.clone_on("w2");
    story.clone_on("w1");
    story.assert_knows("its log was cut");

    // The end of its list of files is gone.
    story.kill("w3");
    cut(&database, |name| name.starts_with("MANIFEST-"));
    story.restart("w3");
    story.clone_on("w2");
    story.clone_on("w1");
    story.assert_knows("its list of files was cut");

    // The database is an old one, and what stands beside it is not.
    story.kill("w3");
    std::fs::remove_dir_all(&database).unwrap();
    copy_folder(&old.join(database.file_name().unwrap()), &database);
    let since = story.restart("w3");
    since.says(&story.cluster, ANEW);
    since.says(&story.cluster, WHOLE);
    story.assert_knows("the database was an old one");

    // All of it is old: the log knows that another life had the slots since.
    story.kill("w3");
    std::fs::remove_dir_all(&folder).unwrap();
    copy_folder(&old, &folder);
    let since = story.restart("w3");
    since.says(&story.cluster, WHOLE);
    story.assert_knows("the whole folder was an old one");

    story.check();
    story.cluster.assert_replicas_agree();
}

#[test]
fn checkpoints_that_are_old_or_damaged_leave_nothing_out_and_bring_nothing_wrong() {
    let mut story = Story::begin();
    story.clone_on("w1");
    story.assert_knows("nothing is wrong");
    // Two checkpoints of each group, and packs that only the second has, and packs that none has.
    let mut groups = [0; 2];
    for (number, groups) in (0..).zip(&mut groups) {
        assert!(story.cluster.terminate("w3").success());
        *groups = story.cluster.stored().put_checkpoints("w3", number);
        story.restart("w3");
        story.assert_knows("a checkpoint was put");
    }
    assert!(groups[0] > 8 && groups[0] == groups[1], "{groups:?}");

    let newest = story.cluster.stored().newest_checkpoints();
    assert_eq!(newest.len(), groups[1]);
    for (at, objects) in newest.iter().enumerate() {
        match at % 4 {
            0 => {}
            // Gone: the older one is the newest now.
            1 => objects.iter().for_each(|object| std::fs::remove_file(object).unwrap()),
            // The head stands, and something of what it says cannot be had.
            2 => flip(objects.last().unwrap()),
            _ => objects.iter().for_each(|object| flip(object)),
        }
    }
    // And of one group all that there is.
    let folder = newest[3][0].parent().unwrap().parent().unwrap().to_owned();
    files(&folder)
        .iter()
        .filter(|object| !newest[3].contains(object))
        .for_each(|object| flip(object));

    story.kill("w3");
    let since = ["w1", "w2"].map(|worker| Since::now(&story.cluster, worker));
    story.cluster.verb(&["worker", "remove", "w3", "--force", "--yes"]);
    story.cluster.forget("w3");
    story.cluster.slots_are_held();
    let said = since.map(|since| {
        since.says(&story.cluster, WHOLE);
        since.log(&story.cluster)
    });
    let said = said.concat();
    let finding = |line: &&str| line.contains("finding while the index is rebuilt") && line.contains("slots/");
    let damaged = (0..newest.len()).filter(|at| at % 4 >= 2).count();
    assert!(
        said.lines().filter(finding).count() >= damaged,
        "damage is not told: {said}"
    );
    let from = |line: &str| {
        let number = line.split("checkpoints=").nth(1)?;
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        number[..end].parse::<usize>().ok()
    };
    let read: usize = said.lines().filter(|line| line.contains(WHOLE)).filter_map(from).sum();
    assert!(read + 1 >= groups[1], "{read} of {} checkpoints were read", groups[1]);
    story.assert_knows("checkpoints were damaged and old");
    story.check();
}

#[test]
fn an_owner_that_believes_that_it_still_owns_is_asked_again_elsewhere() {
    const BIG: usize = 192 << 20;
    let mut story = Story::begin();
    story.clone_on("w1");

    // A backup that has asked w3 for what all clones have, and has much before it.
    let mut bytes = story.common.clone();
    bytes.extend(story.random.bytes(BIG));
    story.cluster.protect_on("big", "w1", &bytes);
    let packs = story.cluster.packs();
    let since = Since::now(&story.cluster, "w1");
    let job = story.cluster.begin_backup("big");
    until_just_now("a pack is put", || (story.cluster.packs() > packs).then_some(()));
    story.cluster.pause(&["w1", "w3"]);
    let began = Instant::now();
    assert_ne!(story.cluster.job(job).state, "done", "the backup is over already");
    // w1 shows that it lives, w3 does not until its slots are another's.
    until("the slots of w3 are another's", || {
        if began.elapsed() > Duration::from_secs(20) && began.elapsed() < Duration::from_secs(21) {
            story.cluster.resume("w1");
            std::thread::sleep(Duration::from_millis(300));
            story.cluster.pause(&["w1"]);
        }
        (story.cluster.slots()["w3"] == 0).then_some(())
    });
    // Both go on with what they believed.
    story.cluster.resume("w3");
    story.cluster.resume("w1");
    let done = story.cluster.job_is(job, "done");
    story.points.push((done.point.clone(), bytes));
    let said = since.log(&story.cluster);
    let asked_again = said.matches("shares of the index got other owners").count();
    assert!(
        asked_again > 0 || done.attempts.len() > 1,
        "it committed on what a former owner said: {said}"
    );
    // Slots move back to w3, and each is made when it comes.
    until("the index knows what all clones have", || {
        (story.clone_on("w2") <= OWN_MAX).then_some(())
    });
    story.check();
}
