//! The audit trail: shown, and its chain checked.

use tresor_proto::v1;

use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::convert;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::state::State;
use crate::state::command::Command;
use crate::state::entry::Actor;

/// Longest text that is looked for, bytes.
const CONTAINS_MAX: usize = 512;

/// Who did it: as it stands in the chain, with the name that people know.
fn actor_text(state: &State, actor: &Actor) -> String {
    let name = match actor {
        Actor::Token(id) => state.tokens().get(id).map(|token| token.name.as_str()),
        Actor::Worker(id) => state.workers().get(id).map(|worker| worker.name.as_str()),
        Actor::Member(id) => state.members().get(id).map(|member| member.name.as_str()),
        Actor::Cluster | Actor::Local { .. } | Actor::Founder => None,
    };
    match name {
        Some(name) if !name.is_empty() => format!("{actor} ({name})"),
        _ => actor.to_string(),
    }
}

impl Services {
    /// Entries of the audit trail, the newest first. Whoever begins to look stands in it, too.
    pub(crate) async fn list_audit(
        &self,
        caller: &Caller,
        message: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Refused> {
        if message.contains.len() > CONTAINS_MAX {
            return Err(Refused::invalid(
                "contains",
                format!("must have at most {CONTAINS_MAX} bytes"),
            ));
        }
        let page = Page::<u64>::read("audit", &message.contains, message.page_size, &message.page_token)?;
        if page.after.is_none() {
            let object = match message.contains.as_str() {
                "" => String::from("all"),
                text => format!("entries with {text:?}"),
            };
            let note = Command::Note {
                action: String::from("list audit"),
                object,
            };
            self.handle.change(caller.actor.clone(), None, note).await?;
        }
        self.look(|state| {
            let rows = state.audit().range(..page.after.unwrap_or(u64::MAX)).rev();
            let (entries, next_page_token) = page.fill(rows.map(|(seq, entry)| (*seq, entry)), |seq, entry| {
                let actor = actor_text(state, &entry.actor);
                let passes = [&actor, &entry.action, &entry.object]
                    .iter()
                    .any(|text| text.contains(&message.contains));
                passes.then(|| convert::audited(*seq, entry, actor))
            });
            Ok(v1::ListAuditResponse {
                entries,
                next_page_token,
            })
        })
        .await
    }

    /// Checks the chain of the audit trail as far as it is kept.
    pub(crate) async fn verify_audit(
        &self,
        _: &Caller,
        _: v1::VerifyAuditRequest,
    ) -> Result<v1::VerifyAuditResponse, Refused> {
        self.look_long(|_, state| {
            let broken = state.verify_audit().err();
            v1::VerifyAuditResponse {
                whole: broken.is_none(),
                first: state.audit().first().map_or(0, |(seq, _)| *seq),
                last: state.audit().last().map_or(0, |(seq, _)| *seq),
                head: state.marks().audit_head.to_vec().into(),
                broken: broken.map(|broken| broken.to_string()).unwrap_or_default(),
            }
        })
        .await
    }
}
