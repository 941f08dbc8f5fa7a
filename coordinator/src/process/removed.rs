//! How a coordinator learns that it was removed when its own log does not say it: the others refuse it.
//!
//! Who is removed is cut off at once, often before it has heard of its removal. It then waits for a leader for ever. So whoever knows of no leader asks the
//! other members with its certificate. One refusal is enough: who refuses has shown the certificate of that member, and refuses only whom its log calls
//! removed. Who has joined and was removed before it heard of anything has no row of a member, and asks those through which it joined. They are asked over
//! a connection of its own, because what a channel says of a refused handshake is often no more than that it broke.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::{Connector, NothingRevoked, PeerName, Refusal, Role, SharedIdentity, Trust, refusal};

use crate::node::Handle;
use crate::state::State;

/// How long without a leader before others are asked, and again between two rounds: some elections, so that a cluster in good order is never asked.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one member may take to say anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to a member and to nobody else at its address, as this coordinator.
pub(super) fn connector(identity: &SharedIdentity, member: MemberId, address: &str) -> Option<Connector> {
    let own = identity.current();
    let name = PeerName {
        cluster: own.name().cluster,
        role: Role::Coordinator,
        id: member.0,
    };
    let trust = Trust::exactly(own.ca().clone(), name);
    let made = Connector::with_identity(
        vec![address.to_owned()],
        trust,
        identity.clone(),
        Arc::new(NothingRevoked),
    );
    match made {
        Ok(connector) => Some(connector),
        Err(error) => {
            tracing::error!(%member, address, %error, "the address of a coordinator cannot be used");
            None
        }
    }
}

/// Returns when another member has said that this one was removed. `joined` are the members that its store knew when it was opened.
pub(super) async fn heard_of_removal(handle: Handle, identity: SharedIdentity, joined: BTreeMap<MemberId, String>) {
    let mut leadership = handle.leadership();
    loop {
        if leadership
            .wait_for(|leadership| leadership.leader.is_none())
            .await
            .is_err()
        {
            // The node has ended, and with it all else.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(PAUSE).await;
        if leadership.borrow().leader.is_some() {
            continue;
        }
        let me = handle.me();
        for (member, address) in handle.read(|state| to_ask(state, me, &joined)) {
            let Some(connector) = connector(&identity, member, &address) else {
                continue;
            };
            let asked = tokio::time::timeout(PATIENCE, is_refused(&connector)).await;
            if asked.unwrap_or(false) {
                tracing::error!(by = %member, "this coordinator was removed from its cluster: another one refuses it");
                return;
            }
        }
    }
}

/// Whom to ask: the other members, as the log has them, or as it was heard when this one joined while the log has nothing yet.
fn to_ask(state: &State, me: MemberId, joined: &BTreeMap<MemberId, String>) -> Vec<(MemberId, String)> {
    let rows = state.members().iter().filter(|(_, row)| !row.removed);
    let mut known: BTreeMap<MemberId, String> = rows.map(|(id, row)| (*id, row.address.clone())).collect();
    if state.members().is_empty() {
        known.clone_from(joined);
    }
    known.remove(&me);
    known.into_iter().collect()
}

/// Whether who is there refuses us for good. In TLS 1.3 who connects believes that it is connected before its certificate was looked at: the first thing
/// that is read tells. Who takes the connection begins to speak by itself.
async fn is_refused(connector: &Connector) -> bool {
    let found = match connector.connect().await {
        Ok(mut stream) => stream.read_u8().await.err().and_then(|error| refusal(&error)),
        Err(error) => refusal(&error),
    };
    found == Some(Refusal::Removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_removed_before_it_heard_of_anything_asks_those_through_which_it_joined() {
        let me = MemberId(7);
        let joined = BTreeMap::from([(MemberId(1), String::from("c1:7420")), (me, String::from("c7:7420"))]);
        let nothing = State::default();
        assert_eq!(to_ask(&nothing, me, &joined), [(MemberId(1), String::from("c1:7420"))]);
    }
}
