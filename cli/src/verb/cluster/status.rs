//! `tresor cluster status`.

use serde::Serialize;
use tresor_proto::v1::{GetStatusRequest, StatusReport, WhoAmIRequest, WhoAmIResponse};

use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;
use crate::verb::coordinator::{self, CoordinatorShown};
use crate::verb::shown::some;
use crate::verb::worker::{self, WorkerShown};

#[derive(Serialize)]
struct MeShown {
    name: String,
    role: String,
    expires: Option<String>,
}

#[derive(Serialize)]
struct ClusterShown {
    cluster: String,
    cluster_id: String,
    time: String,
    /// Who asks.
    me: MeShown,
    coordinators: Vec<CoordinatorShown>,
    workers: Vec<WorkerShown>,
    warnings: Vec<String>,
}

/// Asks the cluster.
pub(super) async fn run(app: &App) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("cluster status")?;
    let doing = || String::from("could not find out how the cluster is");
    let me = cluster.who_am_i(WhoAmIRequest {}).await.doing(doing)?;
    let report = cluster.get_status(GetStatusRequest {}).await.doing(doing)?;
    cluster.hear_of(me.coordinators.iter().map(String::as_str));
    let shown = shown(me, report);
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn shown(me: WhoAmIResponse, report: StatusReport) -> ClusterShown {
    ClusterShown {
        cluster: me.cluster_name,
        cluster_id: me.cluster,
        time: report.time,
        me: MeShown {
            name: me.name,
            role: me.role,
            expires: some(me.expires),
        },
        coordinators: report.coordinators.into_iter().map(CoordinatorShown::from).collect(),
        workers: report.workers.into_iter().map(WorkerShown::from).collect(),
        warnings: report.attention,
    }
}

fn text(shown: &ClusterShown) -> String {
    let expires = match &shown.me.expires {
        Some(expires) => format!(", until {expires}"),
        None => String::new(),
    };
    let mut parts = vec![human::pairs(&[
        ("cluster", format!("{} ({})", shown.cluster, shown.cluster_id)),
        ("time", shown.time.clone()),
        ("you are", format!("{}, {}{expires}", shown.me.name, shown.me.role)),
    ])];
    parts.push(coordinator::table(&shown.coordinators));
    parts.push(if shown.workers.is_empty() {
        String::from("no workers")
    } else {
        worker::table(&shown.workers)
    });
    if !shown.warnings.is_empty() {
        let warning = |warning: &String| format!("warning: {}", human::plain(warning));
        let warnings: Vec<String> = shown.warnings.iter().map(warning).collect();
        parts.push(warnings.join("\n"));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::coordinator::tests::two;

    #[test]
    fn the_text_of_a_cluster() {
        let me = WhoAmIResponse {
            coordinators: vec![String::from("c1:7420")],
            name: String::from("alice"),
            role: String::from("operator"),
            cluster: "ab".repeat(16),
            cluster_name: String::from("prod"),
            expires: String::from("2026-06-01T00:00:00Z"),
        };
        let report = StatusReport {
            time: String::from("2026-03-10T13:00:00Z"),
            attention: vec![String::from("the clock stepped by 2 h: tresor cluster confirm-clock")],
            coordinators: two().into(),
            ..Default::default()
        };
        insta::assert_snapshot!(text(&shown(me, report)), @"
        cluster  prod (abababababababababababababababab)
        time     2026-03-10T13:00:00Z
        you are  alice, operator, until 2026-06-01T00:00:00Z

        COORDINATOR  ADDRESS  ROLE    TERM  APPLIED
        c1           c1:7420  leader     7   40 213
        c2           c2:7420  voter          40 000  does not answer, 213 entries behind, clock 1 min 01 s ahead

        no workers

        warning: the clock stepped by 2 h: tresor cluster confirm-clock
        ");
    }
}
