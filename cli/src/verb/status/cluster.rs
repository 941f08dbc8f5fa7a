//! `tresor status` of a cluster.

use serde::Serialize;
use tresor_proto::v1::{self, GetStatusRequest};

use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::coordinator::CoordinatorShown;
use crate::verb::job::{self, JobShown};
use crate::verb::shown::some;
use crate::verb::vault::VaultShown;
use crate::verb::worker::WorkerShown;

/// Items of one kind of trouble, and running jobs, that are named to people; `--json` has all.
const ROWS_SHOWN: usize = 30;

#[derive(Debug, Serialize)]
pub(super) struct NoteShown {
    item: String,
    item_id: String,
    vault: String,
    why: Option<String>,
    newest_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct StatusShown {
    cluster: String,
    time: String,
    items: u64,
    protected: u64,
    /// Whose newest job failed.
    failing: Vec<NoteShown>,
    late: Vec<NoteShown>,
    /// Protected, and without any point.
    never: Vec<NoteShown>,
    /// Without a policy.
    no_schedule: Vec<NoteShown>,
    running: Vec<JobShown>,
    queued: u64,
    /// What a person has to do.
    pub(super) warnings: Vec<String>,
    coordinators: Vec<CoordinatorShown>,
    workers: Vec<WorkerShown>,
    vaults: Vec<VaultShown>,
}

impl From<v1::ItemNote> for NoteShown {
    fn from(note: v1::ItemNote) -> Self {
        Self {
            item: note.name,
            item_id: note.item,
            vault: note.vault,
            why: some(note.why),
            newest_time: some(note.newest),
        }
    }
}

impl From<v1::StatusReport> for StatusShown {
    fn from(report: v1::StatusReport) -> Self {
        let notes = |notes: Vec<v1::ItemNote>| notes.into_iter().map(NoteShown::from).collect();
        Self {
            cluster: report.cluster_name,
            time: report.time,
            items: report.items,
            protected: report.protected,
            failing: notes(report.failing),
            late: notes(report.late),
            never: notes(report.never),
            no_schedule: notes(report.unscheduled),
            running: report.running.into_iter().map(JobShown::from).collect(),
            queued: report.queued,
            warnings: report.attention,
            coordinators: report.coordinators.into_iter().map(CoordinatorShown::from).collect(),
            workers: report.workers.into_iter().map(WorkerShown::from).collect(),
            vaults: report.vaults.into_iter().map(VaultShown::from).collect(),
        }
    }
}

/// Asks the cluster.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, cluster: &Cluster) -> Result<Answer, CliError> {
    let shown = ask(cluster).await?;
    Ok(app.screen.answer(&shown, || text(&shown, app.now)))
}

/// What the cluster says.
pub(super) async fn ask(cluster: &Cluster) -> Result<StatusShown, CliError> {
    let report = cluster.get_status(GetStatusRequest {}).await;
    let report = report.doing(|| String::from("could not find out how things are"))?;
    Ok(StatusShown::from(report))
}

fn text(shown: &StatusShown, now: jiff::Timestamp) -> String {
    let mut text = format!("cluster {}: {}\n", human::plain(&shown.cluster), protection(shown));
    text.push_str(&format!("{}\n", nodes(shown)));
    text.push_str(&attention(shown, &shown.no_schedule, now));
    for warning in &shown.warnings {
        text.push_str(&format!("warning: {}\n", human::plain(warning)));
    }
    text.trim_end().to_owned()
}

/// Items in trouble, `no_schedule` among them, and what runs and waits.
pub(super) fn attention(shown: &StatusShown, no_schedule: &[NoteShown], now: jiff::Timestamp) -> String {
    let mut text = String::new();
    let mut table = Table::new(&["item", "vault", "is", ">newest", ""]);
    let mut rows = 0;
    let mut more = String::new();
    for (state, notes) in [
        ("failing", &shown.failing[..]),
        ("late", &shown.late),
        ("never", &shown.never),
        ("no-schedule", no_schedule),
    ] {
        for note in notes.iter().take(ROWS_SHOWN) {
            let newest = note.newest_time.as_deref().map(|time| human::ago(time, now));
            table.row([
                note.item.clone(),
                note.vault.clone(),
                state.replace('-', " "),
                newest.unwrap_or_else(|| String::from("none")),
                note.why.clone().unwrap_or_default(),
            ]);
            rows += 1;
        }
        if notes.len() > ROWS_SHOWN {
            let count = human::count((notes.len() - ROWS_SHOWN) as u64);
            more.push_str(&format!("and {count} more: tresor item list --state {state}\n"));
        }
    }
    if rows > 0 {
        text.push_str(&format!("\n{}\n{more}", table.render()));
    }
    if !shown.running.is_empty() {
        let some = &shown.running[..shown.running.len().min(ROWS_SHOWN)];
        text.push_str(&format!("\n{}\n", job::table(some, now)));
    }
    let hidden = shown.running.len().saturating_sub(ROWS_SHOWN);
    match (hidden, shown.queued) {
        (0, 0) => {}
        (0, queued) => text.push_str(&format!("{} jobs wait\n", human::count(queued))),
        (hidden, queued) => text.push_str(&format!(
            "{} more jobs run, {} wait: tresor job list\n",
            human::count(hidden as u64),
            human::count(queued)
        )),
    }
    text
}

fn protection(shown: &StatusShown) -> String {
    let (items, protected) = (human::count(shown.items), human::count(shown.protected));
    match shown.items.saturating_sub(shown.protected) {
        _ if shown.items == 0 => String::from("nothing is protected: tresor item protect ITEM DISK…"),
        0 => format!("all {items} items are protected"),
        not => format!(
            "{protected} of {items} items are protected, {} are not: tresor item list --state unprotected",
            human::count(not)
        ),
    }
}

/// Who is there: `3 coordinators, c1 leads; 12 workers: 11 ready, 1 silent; 2 vaults`.
fn nodes(shown: &StatusShown) -> String {
    let leader = shown.coordinators.iter().find(|coordinator| coordinator.leader);
    let leader = leader.map_or_else(
        || String::from("none leads"),
        |leader| format!("{} leads", human::plain(&leader.coordinator)),
    );
    let silent = shown
        .coordinators
        .iter()
        .filter(|coordinator| !coordinator.reachable)
        .count();
    let silent = match silent {
        0 => String::new(),
        count => format!(", {count} of them not answering"),
    };
    let mut states = std::collections::BTreeMap::new();
    for worker in &shown.workers {
        *states.entry(worker.state.as_str()).or_insert(0_u64) += 1;
    }
    let states: Vec<String> = states
        .iter()
        .map(|(state, count)| format!("{count} {}", human::plain(state)))
        .collect();
    let states = if states.is_empty() {
        String::new()
    } else {
        format!(": {}", states.join(", "))
    };
    format!(
        "{}{silent}, {leader}; {}{states}; {}",
        human::many(shown.coordinators.len(), "coordinator"),
        human::many(shown.workers.len(), "worker"),
        human::many(shown.vaults.len(), "vault")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::coordinator::tests::two;
    use crate::verb::job::running_job;

    fn note(name: &str, why: &str, newest: &str) -> v1::ItemNote {
        v1::ItemNote {
            item: "ab".repeat(16),
            name: name.to_owned(),
            vault: String::from("main"),
            why: why.to_owned(),
            newest: newest.to_owned(),
        }
    }

    fn now() -> jiff::Timestamp {
        "2026-03-10T13:00:00Z".parse().expect("a time")
    }

    #[test]
    fn the_text_of_a_cluster_that_needs_a_person() {
        let worker = |state: &str| v1::Worker {
            state: state.to_owned(),
            ..Default::default()
        };
        let report = v1::StatusReport {
            time: String::from("2026-03-10T13:00:00Z"),
            cluster_name: String::from("prod"),
            items: 830,
            protected: 812,
            unscheduled: vec![note("lab-1", "it has no policy", "2026-03-01T00:00:00Z")],
            never: vec![note("new-1", "due at 2026-03-11T02:30:00Z", "")],
            late: vec![note("db-1", "no worker on kvm-9", "2026-03-07T02:30:00Z")],
            failing: vec![note("web-03", "disk /vm/web.img is missing", "2026-03-10T02:30:00Z")],
            running: vec![running_job()],
            queued: 4,
            attention: vec![String::from("coordinator c2 does not answer: start it, or remove it")],
            workers: vec![worker("ready"), worker("silent"), worker("ready")],
            coordinators: two().into(),
            vaults: vec![v1::Vault::default()],
        };
        insta::assert_snapshot!(text(&StatusShown::from(report), now()), @"
        cluster prod: 812 of 830 items are protected, 18 are not: tresor item list --state unprotected
        2 coordinators, 1 of them not answering, c1 leads; 3 workers: 2 ready, 1 silent; 1 vault

        ITEM    VAULT  IS           NEWEST
        web-03  main   failing        10 h  disk /vm/web.img is missing
        db-1    main   late            3 d  no worker on kvm-9
        new-1   main   never          none  due at 2026-03-11T02:30:00Z
        lab-1   main   no schedule     9 d  it has no policy

        JOB  WHAT              STATE    AGE  WORKER
        812  backup of web-03  running  1 h  kvm-2   3.0 GiB of 20.0 GiB
        4 jobs wait
        warning: coordinator c2 does not answer: start it, or remove it
        ");
    }

    #[test]
    fn a_cluster_that_is_well_says_so_in_two_lines() {
        let report = v1::StatusReport {
            cluster_name: String::from("prod"),
            items: 2,
            protected: 2,
            coordinators: vec![two()[0].clone()],
            ..Default::default()
        };
        insta::assert_snapshot!(text(&StatusShown::from(report), now()), @"
        cluster prod: all 2 items are protected
        1 coordinator, c1 leads; 0 workers; 0 vaults
        ");
    }

    #[test]
    fn of_many_late_items_some_are_named_and_the_rest_counted() {
        let report = v1::StatusReport {
            items: 40,
            protected: 40,
            late: (0..ROWS_SHOWN + 7).map(|n| note(&format!("vm-{n}"), "", "")).collect(),
            ..Default::default()
        };
        let text = text(&StatusShown::from(report), now());
        assert!(text.contains("and 7 more: tresor item list --state late"), "{text}");
        assert_eq!(text.matches("vm-").count(), ROWS_SHOWN);
    }
}
