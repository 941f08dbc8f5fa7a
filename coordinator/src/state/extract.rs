//! Single rows as they are stored, for who writes some of them elsewhere.

use tresor_proto::ids::{ItemId, PointId, PolicyId, VaultId};

use super::State;
use super::table::RowChange;

/// Which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOf {
    /// The marks: clock, versions, the head of the audit trail.
    Marks,
    /// A vault's.
    Vault(VaultId),
    /// A policy's.
    Policy(PolicyId),
    /// An item's.
    Item(ItemId),
    /// A point's.
    Point(PointId),
    /// That of a point that is given up.
    GivenUp(PointId),
}

impl State {
    /// Rows of the limits of a vault's store, as they are stored.
    pub fn stored_limits(&self, vault: VaultId) -> Vec<RowChange> {
        let url = self.vaults.get(&vault).map_or("", |vault| vault.spec.url.as_str());
        let limits = self.limits.iter().filter(|(subject, _)| subject.has_store(url));
        limits
            .filter_map(|(subject, _)| self.limits.stored(15, subject))
            .collect()
    }

    /// A row as it is stored; none if there is none. The numbers are those of the tables.
    pub fn stored(&self, row: RowOf) -> Option<RowChange> {
        match row {
            RowOf::Marks => self.marks.stored(1, &()),
            RowOf::Vault(id) => self.vaults.stored(3, &id),
            RowOf::Policy(id) => self.policies.stored(4, &id),
            RowOf::Item(id) => self.items.stored(5, &id),
            RowOf::Point(id) => self.points.stored(6, &id),
            RowOf::GivenUp(id) => self.given_up.stored(7, &id),
        }
    }
}
