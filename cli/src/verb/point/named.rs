//! Times of people: what names a point by `ITEM@TIME` without a zone means this machine's. A cluster, which may be anywhere, is told the moment.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tresor_proto::v1::GetItemRequest;
use tresor_storage::Kind;
use tresor_worker::home::resolve::parse_time;

use crate::app::App;
use crate::cluster::{Cluster, ClusterError};
use crate::error::CliError;

/// The point as the cluster is asked for it. On a home an item's name means that of the vault which is meant, as without a node: one item may be in
/// several.
///
/// # Errors
/// The cluster's own.
pub(crate) async fn named_point(app: &App, cluster: &Cluster, text: &str) -> Result<String, CliError> {
    let vault = app.meant_vault(cluster)?;
    if cluster.is_of_home()
        && !vault.is_empty()
        && let Some(name) = of_vault(cluster, &vault, text).await
    {
        return named(cluster, &name).await;
    }
    named(cluster, text).await
}

/// The same with the id of an item of that vault in place of its name.
async fn of_vault(cluster: &Cluster, vault: &str, text: &str) -> Option<String> {
    let item = async |name: &str| {
        let request = GetItemRequest {
            name: name.to_owned(),
            vault: vault.to_owned(),
        };
        // Whatever is wrong is said when the point is asked for.
        cluster.get_item(request).await.ok().map(|item| item.id)
    };
    if let Some(id) = item(text).await {
        return Some(id);
    }
    let (name, time) = text.rsplit_once('@')?;
    item(name).await.map(|id| format!("{id}@{time}"))
}

async fn named(cluster: &Cluster, text: &str) -> Result<String, CliError> {
    let Some(absolute) = with_moment(text, &TimeZone::system()) else {
        return Ok(text.to_owned());
    };
    // Names may have an `@`, and an item that is there goes before a time.
    let request = GetItemRequest {
        name: text.to_owned(),
        ..Default::default()
    };
    match cluster.get_item(request).await {
        Ok(_) => Ok(text.to_owned()),
        Err(ClusterError::Refused(refusal)) if refusal.kind == Kind::Missing => Ok(absolute),
        Err(error) => Err(error.into()),
    }
}

/// `ITEM@TIME` with the moment that the time means; none where the text has no time, or says its moment itself.
fn with_moment(text: &str, zone: &TimeZone) -> Option<String> {
    let (item, time) = text.rsplit_once('@')?;
    if time.trim().parse::<Timestamp>().is_ok() {
        return None;
    }
    parse_time(time, zone).map(|moment| format!("{item}@{moment}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_zone_is_this_machines() {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        let at = |text| with_moment(text, &berlin);
        assert_eq!(
            at("web@2026-03-10 03:00").unwrap(),
            "web@2026-03-10T02:00:59.999999999Z"
        );
        assert_eq!(at("a@b@2026-03-10").unwrap(), "a@b@2026-03-10T22:59:59.999999999Z");
        for text in [
            "web",
            "web@2026-03-10T03:00:00Z",
            "web@2026-03-10T03:00:00+02:00",
            "root@host",
            "abcdef",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
