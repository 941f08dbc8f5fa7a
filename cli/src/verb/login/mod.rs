//! `tresor login` and `tresor logout`.

use std::path::PathBuf;

use serde::Serialize;
use tresor_proto::tls::Fingerprint;
use tresor_proto::token::ApiToken;
use tresor_proto::v1::{WhoAmIRequest, WhoAmIResponse};
use zeroize::Zeroizing;

use crate::app::App;
use crate::args::{LoginArgs, LogoutArgs};
use crate::cluster::{
    Cluster, ClusterError, Kept, Target, check_cluster_name, list, meet, parse_addresses, parse_token,
};
use crate::config::{Origin, read_small};
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

/// The variable that names the file with the token.
const TOKEN_FILE: &str = "TRESOR_TOKEN_FILE";

#[derive(Serialize)]
struct LoggedIn {
    /// The name it is kept under.
    cluster: String,
    cluster_id: String,
    addresses: Vec<String>,
    name: String,
    role: String,
    expires: Option<String>,
    folder: String,
}

#[derive(Serialize)]
struct LoggedOut {
    cluster: String,
    forgotten: bool,
}

/// Makes a cluster known here. Nothing is kept before the token was good for it.
///
/// # Errors
/// By cause.
pub(crate) async fn login(app: &App, args: LoginArgs) -> Result<Answer, CliError> {
    let usage = |why: String| CliError::usage(why);
    let addresses = parse_addresses(&args.addresses).map_err(usage)?;
    let pinned = parse_fingerprint(&args.ca_fingerprint)?;
    if let Some(name) = &args.name {
        check_cluster_name(name).map_err(usage)?;
    }
    let doing = || format!("could not log in to {}", list(&addresses));
    // Nobody is asked for a secret before it is clear who is to get it.
    let met = meet(&addresses, pinned).await.doing(doing)?;
    let mut kept = Kept {
        name: args.name.clone().unwrap_or_else(|| list(&addresses)),
        cluster: met.cluster,
        addresses: addresses.clone(),
        given: addresses.clone(),
        ca: met.ca,
        token: token(app, &args)?,
    };
    let cluster = Cluster::kept(&kept, app.settings.cluster_patience.value, &app.screen)?;
    let me = cluster.who_am_i(WhoAmIRequest {}).await.doing(doing)?;
    if args.name.is_none() {
        kept.name = name(&me, &kept.cluster);
    }
    // The cluster knows more of them than were typed.
    if let Some(known) = cluster.nearest_first(&me.coordinators) {
        kept.addresses = known;
    }
    let folder = kept.save(&app.settings.home.value).doing(doing)?;
    let shown = LoggedIn {
        cluster: kept.name,
        cluster_id: kept.cluster,
        addresses: kept.addresses.iter().map(ToString::to_string).collect(),
        name: me.name,
        role: me.role,
        expires: crate::verb::shown::some(me.expires),
        folder: folder.display().to_string(),
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

/// The fingerprint as programs print it: digits in pairs with colons between them, too.
fn parse_fingerprint(text: &str) -> Result<Fingerprint, CliError> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    digits.to_ascii_lowercase().parse().map_err(|_| {
        CliError::usage(String::from(
            "--ca-fingerprint: 64 hexadecimal digits are needed, as tresor cluster init printed them",
        ))
    })
}

/// From the file that was named, or typed.
fn token(app: &App, args: &LoginArgs) -> Result<ApiToken, CliError> {
    let variable = std::env::var_os(TOKEN_FILE).filter(|path| !path.is_empty());
    let text = match args.token_file.clone().or(variable.map(PathBuf::from)) {
        Some(path) => read_small(&path)?,
        None if app.screen.can_ask() => {
            let asked = rpassword::prompt_password("Token: ").map(Zeroizing::new);
            asked.map_err(|source| CliError::File {
                doing: "ask on",
                path: "the terminal".into(),
                source,
            })?
        }
        None => {
            return Err(CliError::usage_hint(
                "no token, and nobody to ask",
                format!("pass --token-file FILE, or set {TOKEN_FILE}"),
            ));
        }
    };
    parse_token(&text).map_err(|why| CliError::usage(why.to_string()))
}

/// The cluster's own name, if a folder can have it.
fn name(me: &WhoAmIResponse, cluster: &str) -> String {
    if check_cluster_name(&me.cluster_name).is_ok() {
        return me.cluster_name.clone();
    }
    format!("cluster-{}", cluster.chars().take(8).collect::<String>())
}

fn text(shown: &LoggedIn) -> String {
    let until = match &shown.expires {
        Some(expires) => format!(" until {expires}"),
        None => String::new(),
    };
    human::plain(&format!(
        "you are {}, {} of cluster {}{until}; use it with --cluster {}, or TRESOR_CLUSTER={}",
        shown.name, shown.role, shown.cluster, shown.cluster, shown.cluster
    ))
}

/// Forgets a cluster.
///
/// # Errors
/// When it is not clear which, or a file cannot be removed.
pub(crate) fn logout(app: &App, args: LogoutArgs) -> Result<Answer, CliError> {
    let home = &app.settings.home.value;
    let name = match (args.name, &app.settings.cluster.value) {
        (Some(name), _) => name,
        (None, Target::Named(name)) => name.clone(),
        (None, Target::Members(addresses)) => Kept::find(home, addresses)?.name,
        (None, Target::Socket(path)) => {
            let path = path.display();
            return Err(CliError::usage(format!("nothing is kept of the node at unix:{path}")));
        }
        (None, Target::None) => only(Kept::names(home)?)?,
    };
    check_cluster_name(&name).map_err(CliError::usage)?;
    if !Kept::forget(home, &name)? {
        return Err(ClusterError::NotKept { cluster: name }.into());
    }
    let still = matches!(&app.settings.cluster.value, Target::Named(chosen) if *chosen == name);
    if still && app.settings.cluster.origin == Origin::File {
        app.screen.note(&format!("config.toml still says cluster = \"{name}\""));
    }
    let shown = LoggedOut {
        cluster: name,
        forgotten: true,
    };
    Ok(app.screen.answer(&shown, || {
        format!(
            "cluster {} is forgotten here; its token stays good until it is revoked",
            shown.cluster
        )
    }))
}

fn only(mut names: Vec<String>) -> Result<String, CliError> {
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(CliError::usage("no login is kept here")),
        _ => Err(CliError::usage_hint(
            format!("several logins are kept here: {}", names.join(", ")),
            "tresor logout NAME",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_understood_as_it_is_printed_anywhere() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [&plain, &colons] {
            assert_eq!(parse_fingerprint(text).ok().map(|f| f.0), Some([0xab; 32]), "{text}");
        }
        for text in ["", "ab", &"g0".repeat(32), &"ab".repeat(33)] {
            assert!(parse_fingerprint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cluster_whose_name_no_folder_can_have_is_kept_under_its_id() {
        let me = |name: &str| WhoAmIResponse {
            cluster_name: name.to_owned(),
            ..Default::default()
        };
        let id = "0123456789abcdef".repeat(2);
        assert_eq!(name(&me("prod"), &id), "prod");
        for odd in ["", "../etc", "two words"] {
            assert_eq!(name(&me(odd), &id), "cluster-01234567");
        }
    }
}
