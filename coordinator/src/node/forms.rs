//! Which forms of entries may be written: all coordinators have to know them.
//!
//! A coordinator that meets an entry it does not know stops, since the others go on with a state that it cannot have. So that a cluster may be
//! upgraded one coordinator after the other, a leader writes a newer form only when every member said that it knows it, and the log says so first
//! ([`Command::RaiseVersion`](crate::state::command::Command::RaiseVersion)). That happens with the first change that needs the form: until then
//! the way back to the version before is open.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tresor_proto::ids::MemberId;

use crate::state::entry::ENTRY_FORM;

/// The form that a program knows which says nothing: those before it was asked.
pub(crate) const FORM_UNSAID: u16 = 1;

/// The forms to raise the log to, one after the other, before an entry of form `needed` is written.
///
/// `raised` is what the log says now, `members` all but the one that asks, `said` what each of them said last.
///
/// # Errors
/// The members that do not know the form, or were not heard.
pub(super) fn before(
    needed: u16,
    raised: u16,
    members: impl IntoIterator<Item = MemberId>,
    said: &BTreeMap<MemberId, u16>,
) -> Result<RangeInclusive<u16>, Vec<MemberId>> {
    debug_assert!(needed <= ENTRY_FORM, "a program writes what it knows");
    if needed > raised {
        let knows = |member: &MemberId| said.get(member).is_some_and(|form| *form >= needed);
        let behind: Vec<MemberId> = members.into_iter().filter(|member| !knows(member)).collect();
        if !behind.is_empty() {
            return Err(behind);
        }
    }
    Ok(raised + 1..=needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME_AND: [MemberId; 2] = [MemberId(2), MemberId(3)];

    fn asked(needed: u16, raised: u16, said: &[(u64, u16)]) -> Result<Vec<u16>, Vec<MemberId>> {
        let said = said.iter().map(|(member, form)| (MemberId(*member), *form)).collect();
        before(needed, raised, ME_AND, &said).map(Iterator::collect)
    }

    #[test]
    fn what_every_log_may_have_raises_nothing_whoever_was_heard() {
        assert_eq!(asked(1, 1, &[]), Ok(vec![]));
        assert_eq!(asked(1, 2, &[(2, 1)]), Ok(vec![]));
        assert_eq!(asked(2, 2, &[]), Ok(vec![]));
    }

    #[test]
    fn a_new_form_waits_for_every_member() {
        assert_eq!(asked(2, 1, &[(2, 2), (3, 1)]), Err(vec![MemberId(3)]));
        assert_eq!(
            asked(2, 1, &[(3, 2)]),
            Err(vec![MemberId(2)]),
            "one that was not heard may be older"
        );
        assert_eq!(asked(2, 1, &[(2, 2), (3, 2)]), Ok(vec![2]));
        assert_eq!(asked(2, 1, &[(2, 2), (3, 7)]), Ok(vec![2]), "a newer one knows it too");
    }
}
