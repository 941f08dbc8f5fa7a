//! `tresor coordinator …`.

use serde::Serialize;
use tresor_proto::v1::{self, ListCoordinatorsRequest, RemoveCoordinatorRequest, TransferLeaderRequest};

use crate::app::App;
use crate::args::{CoordinatorNameArgs, CoordinatorVerb};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::worker::clock;

/// A coordinator as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct CoordinatorShown {
    pub(crate) coordinator: String,
    coordinator_id: u64,
    address: String,
    role: String,
    pub(crate) leader: bool,
    pub(crate) reachable: bool,
    term: u64,
    commit: u64,
    applied: u64,
    matched: u64,
    clock_ms: i64,
}

#[derive(Serialize)]
struct Coordinators {
    coordinators: Vec<CoordinatorShown>,
}

#[derive(Serialize)]
struct Removed {
    coordinator: String,
    removed: bool,
}

#[derive(Serialize)]
struct Transferred {
    leader: Option<String>,
}

impl From<v1::Coordinator> for CoordinatorShown {
    fn from(coordinator: v1::Coordinator) -> Self {
        Self {
            coordinator: coordinator.name,
            coordinator_id: coordinator.id,
            address: coordinator.address,
            role: coordinator.role,
            leader: coordinator.leader,
            reachable: coordinator.reachable,
            term: coordinator.term,
            commit: coordinator.commit,
            applied: coordinator.applied,
            matched: coordinator.matched,
            clock_ms: coordinator.clock_ms,
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: CoordinatorVerb) -> Result<Answer, CliError> {
    match verb {
        CoordinatorVerb::Start(args) => Box::pin(super::process::coordinator::run(app, args)).await,
        CoordinatorVerb::List => list(app).await,
        CoordinatorVerb::Remove(args) => remove(app, args).await,
        CoordinatorVerb::Transfer(args) => transfer(app, args.to).await,
    }
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("coordinator list")?;
    let listed = cluster.list_coordinators(ListCoordinatorsRequest {}).await;
    let listed = listed.doing(|| String::from("could not list coordinators"))?;
    cluster.hear_of(
        listed
            .coordinators
            .iter()
            .map(|coordinator| coordinator.address.as_str()),
    );
    let shown = Coordinators {
        coordinators: listed.coordinators.into_iter().map(CoordinatorShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || table(&shown.coordinators)))
}

async fn remove(app: &App, args: CoordinatorNameArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("coordinator remove")?;
    let name = human::plain(&args.name);
    confirm(
        &app.screen,
        args.yes,
        &format!("Coordinator {name} will be refused for good, and a new one must join in its place. Remove it?"),
    )?;
    let request = RemoveCoordinatorRequest {
        name: args.name.clone(),
        ..Default::default()
    };
    let removed = cluster.remove_coordinator(request).await;
    removed.doing(|| format!("could not remove coordinator {name}"))?;
    let shown = Removed {
        coordinator: args.name,
        removed: true,
    };
    Ok(app.screen.answer(&shown, || format!("coordinator {name} is removed")))
}

async fn transfer(app: &App, to: Option<String>) -> Result<Answer, CliError> {
    let request = TransferLeaderRequest {
        to: to.clone().unwrap_or_default(),
    };
    let handed = app.need_cluster("coordinator transfer")?.transfer_leader(request).await;
    handed.doing(|| String::from("could not hand over the lead"))?;
    let shown = Transferred { leader: to };
    Ok(app.screen.answer(&shown, || match &shown.leader {
        Some(name) => format!("{} leads", human::plain(name)),
        None => String::from("another coordinator leads: tresor coordinator list says which"),
    }))
}

/// Coordinators as a table.
pub(crate) fn table(coordinators: &[CoordinatorShown]) -> String {
    let newest = coordinators.iter().map(|c| c.commit).max().unwrap_or(0);
    let mut table = Table::new(&["coordinator", "address", "role", ">term", ">applied", ""]);
    for coordinator in coordinators {
        let role = if coordinator.leader {
            "leader"
        } else {
            coordinator.role.as_str()
        };
        // Of others the leader knows what they have, not what they have applied.
        let has = coordinator.applied.max(coordinator.matched);
        let behind = match newest.saturating_sub(has) {
            0 => String::new(),
            entries => format!("{} entries behind", human::count(entries)),
        };
        let silent = if coordinator.reachable {
            String::new()
        } else {
            String::from("does not answer")
        };
        let remarks: Vec<String> = [silent, behind, clock(coordinator.clock_ms)]
            .into_iter()
            .filter(|remark| !remark.is_empty())
            .collect();
        let number = |number: u64| {
            if number == 0 {
                String::new()
            } else {
                human::count(number)
            }
        };
        table.row([
            coordinator.coordinator.clone(),
            coordinator.address.clone(),
            role.to_owned(),
            number(coordinator.term),
            number(has),
            remarks.join(", "),
        ]);
    }
    table.render()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A leader, and one that does not answer.
    pub(crate) fn two() -> [v1::Coordinator; 2] {
        let leader = v1::Coordinator {
            id: 1,
            name: String::from("c1"),
            address: String::from("c1:7420"),
            role: String::from("voter"),
            leader: true,
            term: 7,
            commit: 40_213,
            applied: 40_213,
            reachable: true,
            ..Default::default()
        };
        let silent = v1::Coordinator {
            id: 2,
            name: String::from("c2"),
            address: String::from("c2:7420"),
            leader: false,
            term: 0,
            commit: 0,
            applied: 0,
            matched: 40_000,
            reachable: false,
            clock_ms: 61_000,
            ..leader.clone()
        };
        [leader, silent]
    }

    #[test]
    fn the_table_of_coordinators_says_who_leads_and_who_is_behind() {
        insta::assert_snapshot!(table(&two().map(CoordinatorShown::from)), @"
        COORDINATOR  ADDRESS  ROLE    TERM  APPLIED
        c1           c1:7420  leader     7   40 213
        c2           c2:7420  voter          40 000  does not answer, 213 entries behind, clock 1 min 01 s ahead
        ");
    }
}
