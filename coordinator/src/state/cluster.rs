//! The cluster itself: its beginning, its form, its clock.

use tresor_proto::ids::MemberId;

use super::command::Founding;
use super::reply::{Refusal, Reply};
use super::rows::{Cluster, Member};
use super::texts::{check_blob, check_label};
use super::{FIRST_FORM, State};

impl State {
    pub(super) fn found(&mut self, index: u64, founding: &Founding) -> Result<Reply, Refusal> {
        if !self.cluster.is_empty() {
            return Err(Refusal::exists("cluster", &founding.name));
        }
        check_label("name", &founding.name)?;
        check_label("member.name", &founding.member.name)?;
        check_label("member.address", &founding.member.address)?;
        check_blob("ca_certificate", &founding.ca_certificate)?;
        check_blob("ca_key", &founding.ca_key)?;
        if let Some(admin) = &founding.admin {
            self.create_api_token(admin)?;
        }
        let now = self.clock.now;
        self.clock.form = FIRST_FORM;
        self.cluster.insert(
            (),
            Cluster {
                id: founding.cluster,
                name: founding.name.clone(),
                ca_certificate: founding.ca_certificate.clone(),
                ca_key: founding.ca_key.clone(),
                created: now,
            },
        );
        let member = if founding.member.member == MemberId(0) {
            MemberId(index)
        } else {
            founding.member.member
        };
        self.members.insert(
            member,
            Member {
                name: founding.member.name.clone(),
                address: founding.member.address.clone(),
                joined: now,
                removed: false,
            },
        );
        Ok(Reply::Made(member.0))
    }

    pub(super) fn raise_version(&mut self, to: u16) -> Result<Reply, Refusal> {
        if to <= self.clock.form {
            return Ok(Reply::Done);
        }
        // Whether this program knows the form is not asked: then members of two versions would answer differently, and have two states from here on.
        // One that does not know it stops at the first entry that has it.
        if to != self.clock.form + 1 {
            return Err(Refusal::invalid("to", "forms are raised one by one"));
        }
        self.clock.form = to;
        Ok(Reply::Done)
    }

    pub(super) fn stop_expiry(&mut self, step: i64) -> Result<Reply, Refusal> {
        if !self.clock.clock_is_doubted() {
            self.clock.expiry_stopped = Some(step);
        }
        Ok(Reply::Done)
    }

    pub(super) fn confirm_clock(&mut self) -> Result<Reply, Refusal> {
        if self.clock.expiry_stopped.take().is_none() {
            return Err(Refusal::held("no clock waits to be confirmed"));
        }
        Ok(Reply::Done)
    }
}
