//! The node of a home: a coordinator and a worker in one process, on no network.
//!
//! The first command that writes something in a home makes its node. `tresor node start` serves it: schedules run, other commands of the user come over
//! the socket. While no such process runs, a command on that home is the node itself for as long as it takes: it finds the same state, does what it was
//! told through the same services, and begins nothing that nobody asked for. Whoever holds `node/lock` is the node; all others are its guests, and one of
//! them becomes the node when it leaves them ([`seat`]).
//!
//! ```text
//! node/lock           who is the node now
//! node/socket         for guests
//! node/coordinator/   its state
//! node/worker/        its chunk indexes
//! ```
//! The home's vaults and keys stay where they are. A vault that the home has just made is the node's under the claim that it was made with; one that was
//! written to before is taken over with its key file, and the home takes the node's claim for its own (`vaults`). So what works on a vault by itself
//! (`vault key`, `point diff`, …) goes on to. The key with which the node opens a vault is the home's key file, whatever the log has of it.

mod host;
mod place;
mod seat;
mod vaults;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tresor_coordinator::node::driver::Upkeep;
use tresor_proto::tls::local;
use tresor_worker::control::ControlError;
use tresor_worker::home::Home;
use tresor_worker::home::lock::Lock;

use crate::app::App;
use crate::args::{
    ClusterVerb, CoordinatorVerb, ItemVerb, JobVerb, LimitVerb, NotifyVerb, PointVerb, PolicyVerb, ReportVerb,
    VaultVerb, Verb, WorkerVerb,
};
use crate::cluster::Target;
use crate::error::{CliError, Doing as _};

use place::{START, serves_on};

pub(crate) use host::{Host, Serving, found};
pub(crate) use place::Place;
pub(crate) use seat::{Access, Seat};
pub(crate) use vaults::{adopt, adopt_all, keep_adopting};

/// How long to wait for a node that holds the lock and does not serve: it starts, or stops.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long who only reads waits for it: a restore goes without.
const PATIENCE_TO_READ: Duration = Duration::from_secs(3);
/// What is said when a home gets a node.
pub(crate) const MADE: &str =
    "this home has a node now, which keeps its state; schedules run while tresor node start does";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(30);

/// What a verb wants of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Its state.
    Calls,
    /// Its worker too.
    Work,
}

/// What a verb wants of the node of its home; none: it works on files, on vaults by themselves, or on another cluster.
fn need(verb: &Verb) -> Option<Need> {
    match verb {
        Verb::Backup(_) | Verb::Restore(_) => Some(Need::Work),
        Verb::Vault(VaultVerb::Verify(_) | VaultVerb::Create(_) | VaultVerb::TakeOver(_)) => Some(Need::Work),
        Verb::Job(JobVerb::Watch(_) | JobVerb::Retry(_)) => Some(Need::Work),
        // To have the worker's index for itself.
        Verb::Vault(VaultVerb::Remove(_) | VaultVerb::Rebuild(_)) => Some(Need::Calls),
        Verb::Point(PointVerb::Diff(_)) | Verb::Vault(_) => None,
        Verb::Cluster(ClusterVerb::Init(_)) => None,
        Verb::Coordinator(CoordinatorVerb::Start(_)) | Verb::Worker(WorkerVerb::Start(_)) => None,
        Verb::Status(_)
        | Verb::Item(_)
        | Verb::Policy(_)
        | Verb::Point(_)
        | Verb::Job(_)
        | Verb::Explain(_)
        | Verb::Cluster(_)
        | Verb::Coordinator(_)
        | Verb::Worker(_)
        | Verb::Limit(_)
        | Verb::Notify(_)
        | Verb::Report(_)
        | Verb::SupportBundle(_)
        | Verb::Audit(_) => Some(Need::Calls),
        Verb::Node(_)
        | Verb::Login(_)
        | Verb::Logout(_)
        | Verb::Config(_)
        | Verb::Completion(_)
        | Verb::Man(_)
        | Verb::Reference(_) => None,
    }
}

/// Makes this process the node of its home, or finds the process that is, and enters it at its seat there. Nothing is entered where no node is needed:
/// another cluster is meant, or a vault that is the home's own; or, where none is made yet, something is only looked at.
///
/// # Errors
/// By cause.
pub(crate) async fn enter(app: &App, verb: &Verb) -> Result<(), CliError> {
    let Some(need) = need(verb) else { return Ok(()) };
    if app.settings.cluster.value != Target::None || (app.store().is_some() && !hands_over_store(verb)) {
        return Ok(());
    }
    let place = Place::of(&app.settings.home.value);
    let is_made = place.coordinator().is_made();
    let is_made = is_made.map_err(|error| failed("could not open the node of this home", error))?;
    let founding = if is_made {
        Founding::None
    } else {
        kind_of_founding(verb)
    };
    if !is_made && founding == Founding::None {
        return Ok(());
    }
    if !is_made {
        // Before anything is made for it.
        crate::verb::check(app, verb)?;
    }
    if is_homes_own(app, verb)? {
        return Ok(());
    }
    if is_made {
        match place.check() {
            Err(error) if only_reads(verb) => {
                without_node(app, &error);
                return Ok(());
            }
            checked => checked?,
        }
    } else if founding == Founding::Needed {
        check_founding(app)?;
    }
    match Box::pin(become_or_find(app, verb, &place, need, founding)).await {
        // Getting data back needs a vault and its key, and nothing else.
        Err(error) if only_reads(verb) && !matches!(error, CliError::Interrupted) => {
            without_node(app, &error);
            Ok(())
        }
        entered => entered,
    }
}

/// Says that the node is done without.
fn without_node(app: &App, error: &CliError) {
    app.screen.say(&format!(
        "warning: {}; the vault is read without the node",
        error.chain()
    ));
}

async fn become_or_find(app: &App, verb: &Verb, place: &Place, need: Need, founding: Founding) -> Result<(), CliError> {
    let patience = if only_reads(verb) { PATIENCE_TO_READ } else { PATIENCE };
    let works = need == Need::Work;
    // Who becomes the node later may be waiting for a vault to be taken over.
    let may_work = works || kind_of_founding(verb) != Founding::None;
    let name = verb_name(verb);
    let is_new = match find(place, name, patience).await? {
        Found::Guest { is_brief } => {
            let socket = place.socket();
            app.enter(Seat::new(
                app,
                place,
                name,
                may_work,
                Access::Guest { socket, is_brief },
            ));
            false
        }
        Found::Host(lock) => {
            let is_new = founding != Founding::None && found(place).await?;
            place.check()?;
            let serving = Serving {
                upkeep: Upkeep::Own,
                works: is_new || works,
                http: None,
                item_metrics: false,
            };
            let nothing = BTreeSet::new();
            let host = Box::pin(Host::start(&app.settings, place, lock, serving, &nothing)).await?;
            app.enter(Seat::new(app, place, name, may_work, host.access()).with(host));
            is_new
        }
    };
    match Box::pin(settle(app, verb, is_new)).await {
        Ok(true) => Ok(()),
        // The reason why it ends counts, and not what came of ending.
        left => {
            if let Some(seat) = app.leave_node() {
                let _ = seat.leave(true).await;
            }
            left.map(drop)
        }
    }
}

/// Sees to it that the vault which a verb means is the node's: of many, one whose store is away holds nobody else up. Returns whether the node is of use for
/// the verb: what it does not hold yet is read without it.
async fn settle(app: &App, verb: &Verb, is_new: bool) -> Result<bool, CliError> {
    let (home, node) = (app.home("node")?, app.node_of_home());
    let node = node.expect("it was entered before");
    let is_protecting = matches!(verb, Verb::Item(ItemVerb::Protect(_)));
    if is_new && kind_of_founding(verb) == Founding::Needed {
        app.screen.note(MADE);
    }
    // What is protected is kept in a vault, and its disks are on a host that is known once its worker has taken one over.
    if (is_protecting || is_new && kind_of_founding(verb) == Founding::Needed) && home.vaults()?.is_empty() {
        Box::pin(crate::verb::first_vault(app, &home)).await?;
    }
    match verb {
        // The vault may have yet to be made: they see to it themselves.
        Verb::Backup(_) | Verb::Vault(VaultVerb::Create(_) | VaultVerb::TakeOver(_)) => Ok(true),
        _ if only_reads(verb) => vaults::is_to_be_asked(app, &home, &node, meant_vault(app, &home, verb)?).await,
        // A point is named in any of them.
        _ if is_new => Box::pin(adopt_all(app, &home, &node)).await.map(|_| true),
        // It is of no vault.
        Verb::Policy(_) => Ok(true),
        _ if kind_of_founding(verb) != Founding::None => {
            if let Some(name) = app.chosen_vault(&home, None)? {
                Box::pin(adopt(app, &home, &node, &name)).await?;
            }
            Ok(true)
        }
        _ => Ok(true),
    }
}

/// The vault of this home that a verb means.
fn meant_vault(app: &App, home: &Home, verb: &Verb) -> Result<Option<String>, CliError> {
    let given = match verb {
        Verb::Backup(_) | Verb::Restore(_) | Verb::Point(_) => None,
        Verb::Vault(VaultVerb::Verify(args)) => args.name.as_deref(),
        Verb::Vault(VaultVerb::Rebuild(args)) => args.name.as_deref(),
        _ => return Ok(None),
    };
    app.chosen_vault(home, given)
}

/// Whether a verb means a vault that the node cannot have, because only a passphrase opens it; or it is looked at with a key that the caller names, or there
/// is nothing to look at.
fn is_homes_own(app: &App, verb: &Verb) -> Result<bool, CliError> {
    let looks = only_reads(verb) || matches!(verb, Verb::Point(_));
    if !looks && !matches!(verb, Verb::Backup(_) | Verb::Vault(VaultVerb::Rebuild(_))) {
        return Ok(false);
    }
    if looks && !app.settings.home.value.exists() {
        return Ok(true);
    }
    let home = app.home("node")?;
    let vaults = home.vaults()?;
    if looks && vaults.is_empty() || only_reads(verb) && app.has_explicit_key() {
        return Ok(true);
    }
    let Some(name) = meant_vault(app, &home, verb)? else {
        return Ok(false);
    };
    Ok(vaults.iter().any(|entry| entry.name == name && !home.has_key(entry.id)))
}

/// Whether a verb looks at a vault and changes nothing of it: then it can do without the node.
fn only_reads(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Restore(_)
            | Verb::Status(_)
            | Verb::Report(ReportVerb::Protection(_) | ReportVerb::Capacity(_))
            | Verb::SupportBundle(_)
            | Verb::Point(PointVerb::List(_) | PointVerb::Show(_))
            | Verb::Vault(VaultVerb::Verify(_))
    )
}

/// Refuses to make a node that would have none of the vaults that are there.
fn check_founding(app: &App) -> Result<(), CliError> {
    let home = app.home("node")?;
    let vaults = home.vaults()?;
    if vaults.is_empty() || vaults.iter().any(|entry| home.has_key(entry.id)) {
        return Ok(());
    }
    Err(CliError::usage_hint(
        "only passphrases open the vaults of this home, and nobody is there to type one when a schedule runs",
        "tresor vault create NAME makes a vault with a key file",
    ))
}

/// Whether a verb makes a home's node where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Founding {
    /// It looks at what is there, or works on a vault by itself.
    None,
    /// It writes: from the first thing that is written on, a home's state is in its node's log.
    ByTheWay,
    /// It keeps what only a node can keep, and the person is told of schedules.
    Needed,
}

fn kind_of_founding(verb: &Verb) -> Founding {
    match verb {
        Verb::Item(ItemVerb::Protect(_)) | Verb::Policy(PolicyVerb::Create(_)) => Founding::Needed,
        Verb::Vault(VaultVerb::Create(args)) if args.passphrase => Founding::None,
        Verb::Backup(_) | Verb::Vault(VaultVerb::Create(_) | VaultVerb::TakeOver(_)) => Founding::ByTheWay,
        Verb::Point(PointVerb::Hold(_) | PointVerb::Release(_) | PointVerb::Remove(_) | PointVerb::Undelete(_)) => {
            Founding::ByTheWay
        }
        Verb::Limit(LimitVerb::Set(_)) | Verb::Notify(NotifyVerb::Add(_)) => Founding::ByTheWay,
        _ => Founding::None,
    }
}

/// What others are told who find this process to be the node.
fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Backup(_) => "backup",
        Verb::Restore(_) => "restore",
        Verb::Vault(_) => "vault",
        Verb::Job(_) => "job",
        _ => "a command",
    }
}

fn hands_over_store(verb: &Verb) -> bool {
    matches!(verb, Verb::Vault(VaultVerb::Create(_) | VaultVerb::TakeOver(_)))
}

/// Whose the node is.
enum Found {
    /// Ours to be, for as long as the lock is held.
    Host(Lock),
    /// Another process is it, and serves: for one command only, if it is brief.
    Guest {
        /// It ends with its command.
        is_brief: bool,
    },
}

/// Takes the lock of the node, or finds that its holder serves.
///
/// # Errors
/// [`ControlError::Busy`] with the holder, if it serves nobody within `patience`.
async fn find(place: &Place, verb: &str, patience: Duration) -> Result<Found, CliError> {
    place.prepare()?;
    let began = Instant::now();
    loop {
        match place.take(verb) {
            Ok(lock) => return Ok(Found::Host(lock)),
            Err(ControlError::Busy { holder }) if local::is_served(&place.socket()) => {
                return Ok(Found::Guest {
                    is_brief: !serves_on(&holder),
                });
            }
            Err(ControlError::Busy { .. }) if began.elapsed() < patience => sleep(PAUSE).await,
            Err(error) => return Err(error).doing(|| String::from("could not reach the node of this home")),
        }
    }
}

/// Takes the lock of the node, for `tresor node start`: a command that is the node for a moment is waited for.
///
/// # Errors
/// [`ControlError::Busy`] when another `tresor node start` has it.
pub(crate) async fn become_node(place: &Place) -> Result<Lock, CliError> {
    place.prepare()?;
    loop {
        match place.take(START) {
            Ok(lock) => return Ok(lock),
            Err(ControlError::Busy { holder }) if !serves_on(&holder) => sleep(PAUSE).await,
            Err(error) => return Err(error).doing(|| String::from("could not be the node of this home")),
        }
    }
}

pub(crate) fn failed(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Process {
        doing: doing.to_owned(),
        source: Box::new(error),
    }
}
