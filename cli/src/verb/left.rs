//! What a cluster left in a vault: the words of its coordinators in the newest catalogue, read without any of them.

use std::collections::BTreeMap;

use tresor_coordinator::rpc::catalogue;
use tresor_storage::ids::PointId;

/// What coordinators knew of a vault.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// When that was so, RFC 3339.
    pub(crate) time: String,
    /// Policies of its items.
    pub(crate) policies: Vec<String>,
    /// How many items.
    pub(crate) items: u64,
    /// How many points, hidden ones too.
    pub(crate) points: u64,
    /// Points that are held, and why.
    holds: BTreeMap<PointId, String>,
    /// Whether all of it fitted into the catalogue.
    pub(crate) is_whole: bool,
}

impl Left {
    /// Of the words in a catalogue. None where no cluster wrote it, or what it wrote cannot be read: that is told, and stops nobody.
    pub(crate) fn read(words: &[u8]) -> Option<Self> {
        if words.is_empty() {
            return None;
        }
        let decoded = match catalogue::decode(words) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(%error, "what a cluster left in the vault cannot be read");
                return None;
            }
        };
        let header = decoded.header.clone();
        let state = match decoded.state() {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "what a cluster left in the vault cannot be read");
                return None;
            }
        };
        let held = state
            .points()
            .iter()
            .filter_map(|(id, point)| Some((PointId(id.0), point.held.as_deref()?.to_owned())));
        Some(Self {
            cluster: header.cluster_name,
            time: header.time.to_string(),
            policies: state.policies_by_name().map(|(name, _)| name.to_owned()).collect(),
            items: state.items().len() as u64,
            points: state.points().len() as u64,
            holds: held.collect(),
            is_whole: header.is_whole,
        })
    }

    /// Why a point is held.
    pub(crate) fn hold(&self, point: PointId) -> Option<&str> {
        self.holds.get(&point).map(String::as_str)
    }

    /// How many points are held.
    pub(crate) fn held(&self) -> u64 {
        self.holds.len() as u64
    }
}
