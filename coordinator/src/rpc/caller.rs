//! Who is on the other side of a call.

use crate::state::entry::Actor;

/// Who calls, as the authentication layer found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the log.
    pub actor: Actor,
    /// For people: the token's name, the node's name.
    pub name: String,
    /// What it may (role name of a token: admin, operator, restorer, auditor, read-only; or worker, coordinator, local).
    pub role: String,
}
