//! `tresor cluster …`.

mod backup;
mod restore;
mod status;
mod token;

use serde::Serialize;
use tresor_proto::v1::{ConfirmClockRequest, ListCoordinatorsRequest};

use crate::app::App;
use crate::args::{ApiTokenVerb, ClusterVerb, JoinTokenVerb, YesArgs};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::screen::Answer;
use crate::verb::coordinator::{self, CoordinatorShown};

#[derive(Serialize)]
struct Confirmed {
    confirmed: bool,
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: ClusterVerb) -> Result<Answer, CliError> {
    match verb {
        ClusterVerb::Init(args) => Box::pin(super::process::init::run(app, args)).await,
        ClusterVerb::Status => status::run(app).await,
        ClusterVerb::JoinToken(JoinTokenVerb::Create(args)) => token::create_join(app, args).await,
        ClusterVerb::JoinToken(JoinTokenVerb::List) => token::list(app, token::JOIN).await,
        ClusterVerb::JoinToken(JoinTokenVerb::Revoke(args)) => token::revoke(app, token::JOIN, args.id).await,
        ClusterVerb::ApiToken(ApiTokenVerb::Create(args)) => token::create_api(app, args).await,
        ClusterVerb::ApiToken(ApiTokenVerb::List) => token::list(app, token::API).await,
        ClusterVerb::ApiToken(ApiTokenVerb::Revoke(args)) => token::revoke(app, token::API, args.id).await,
        ClusterVerb::ConfirmClock(args) => confirm_clock(app, &args).await,
        ClusterVerb::Backup(args) => Box::pin(backup::run(app, &args)).await,
        ClusterVerb::Restore(args) => Box::pin(restore::restore(app, args)).await,
        ClusterVerb::Recover(args) => Box::pin(restore::recover(app, args)).await,
        ClusterVerb::VaultKey(args) => Box::pin(restore::vault_key(app, &args)).await,
    }
}

/// Shows the clocks to the person who is to confirm them.
async fn confirm_clock(app: &App, args: &YesArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("cluster confirm-clock")?;
    let doing = || String::from("could not confirm the clock");
    if !args.yes {
        let listed = cluster
            .list_coordinators(ListCoordinatorsRequest {})
            .await
            .doing(doing)?;
        let shown: Vec<CoordinatorShown> = listed.coordinators.into_iter().map(CoordinatorShown::from).collect();
        app.screen.say(&coordinator::table(&shown));
    }
    let now = crate::human::time(app.now);
    confirm(
        &app.screen,
        args.yes,
        &format!("It is {now} here. Is the cluster's clock right, and may points expire again?"),
    )?;
    let confirmed = cluster.confirm_clock(ConfirmClockRequest::default()).await;
    confirmed.doing(doing)?;
    Ok(app.screen.answer(&Confirmed { confirmed: true }, || {
        String::from("the clock is confirmed: points expire again")
    }))
}
