//! `tresor audit …`.

use serde::Serialize;
use tresor_proto::v1::{self, ListAuditRequest, VerifyAuditRequest};
use tresor_storage::ids::hex;

use super::shown::{note_more, some};
use crate::app::App;
use crate::args::{AuditListArgs, AuditVerb};
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human::{self, Table};
use crate::screen::Answer;

#[derive(Debug, Serialize)]
struct EntryShown {
    seq: u64,
    time: String,
    actor: String,
    action: String,
    object: Option<String>,
    outcome: String,
    hash: String,
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<EntryShown>,
    /// There are more.
    more: bool,
}

#[derive(Serialize)]
struct Verified {
    whole: bool,
    first: u64,
    last: u64,
    head: String,
    broken: Option<String>,
}

impl From<v1::AuditEntry> for EntryShown {
    fn from(entry: v1::AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            time: entry.time,
            actor: entry.actor,
            action: entry.action,
            object: some(entry.object),
            outcome: entry.outcome,
            hash: hex(&entry.hash),
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: AuditVerb) -> Result<Answer, CliError> {
    match verb {
        AuditVerb::List(args) => list(app, args).await,
        AuditVerb::Verify => verify(app).await,
    }
}

async fn list(app: &App, args: AuditListArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("audit list")?;
    let request = ListAuditRequest {
        contains: args.contains.unwrap_or_default(),
        ..Default::default()
    };
    let listed = cluster
        .audit(request, args.limit.most(app.screen.is_for_person()))
        .await
        .doing(|| String::from("could not list the audit trail"))?;
    let shown = Entries {
        entries: listed.rows.into_iter().map(EntryShown::from).collect(),
        more: listed.more,
    };
    note_more(app, shown.more, shown.entries.len());
    Ok(app.screen.answer(&shown, || table(&shown.entries)))
}

async fn verify(app: &App) -> Result<Answer, CliError> {
    let verified = app
        .need_cluster("audit verify")?
        .verify_audit(VerifyAuditRequest {})
        .await;
    let verified = verified.doing(|| String::from("could not verify the audit trail"))?;
    let shown = Verified {
        whole: verified.whole,
        first: verified.first,
        last: verified.last,
        head: hex(&verified.head),
        broken: some(verified.broken),
    };
    let answer = app.screen.answer(&shown, || verified_text(&shown));
    Ok(if shown.whole {
        answer
    } else {
        answer.with_code(Code::Damage)
    })
}

fn verified_text(shown: &Verified) -> String {
    let range = format!("entries {} to {}", shown.first, shown.last);
    if shown.whole {
        return format!("the audit trail is whole: {range}, its end has hash {}", shown.head);
    }
    let broken = shown.broken.as_deref().map(human::plain);
    format!("THE AUDIT TRAIL IS BROKEN ({range}): {}", broken.unwrap_or_default())
}

fn table(entries: &[EntryShown]) -> String {
    if entries.is_empty() {
        return String::from("no entries");
    }
    let mut table = Table::new(&[">seq", "time", "actor", "action", "object", "outcome"]);
    for entry in entries {
        table.row([
            entry.seq.to_string(),
            entry.time.clone(),
            entry.actor.clone(),
            entry.action.clone(),
            entry.object.clone().unwrap_or_default(),
            entry.outcome.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_audit_trail() {
        let entry = v1::AuditEntry {
            seq: 4711,
            time: String::from("2026-03-10T12:00:00Z"),
            actor: String::from("alice"),
            action: String::from("restore"),
            object: String::from("web-03@2026-03-09T02:30:00Z"),
            outcome: String::from("done"),
            hash: vec![0xab; 32].into(),
        };
        let refused = v1::AuditEntry {
            seq: 4710,
            action: String::from("remove point"),
            outcome: String::from("denied: read-only"),
            ..entry.clone()
        };
        insta::assert_snapshot!(table(&[entry, refused].map(EntryShown::from)), @"
         SEQ  TIME                  ACTOR  ACTION        OBJECT                       OUTCOME
        4711  2026-03-10T12:00:00Z  alice  restore       web-03@2026-03-09T02:30:00Z  done
        4710  2026-03-10T12:00:00Z  alice  remove point  web-03@2026-03-09T02:30:00Z  denied: read-only
        ");
    }

    #[test]
    fn a_broken_trail_is_told_loudly() {
        let broken = Verified {
            whole: false,
            first: 1,
            last: 4711,
            head: "ab".repeat(32),
            broken: Some(String::from("entry 4000 has another hash than entry 4001 says")),
        };
        insta::assert_snapshot!(verified_text(&broken), @"THE AUDIT TRAIL IS BROKEN (entries 1 to 4711): entry 4000 has another hash than entry 4001 says");
        let whole = Verified {
            whole: true,
            broken: None,
            ..broken
        };
        insta::assert_snapshot!(verified_text(&whole), @"the audit trail is whole: entries 1 to 4711, its end has hash abababababababababababababababababababababababababababababababab");
    }
}
