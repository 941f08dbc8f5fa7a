//! Kinds of changes that handlers propose, by the numbers under which their answers are remembered ([`Command::kind`]).
//!
//! [`Command::kind`]: crate::state::command::Command::kind

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    ConfirmClock = 3,
    RemoveMember = 5,
    AddVault = 6,
    RemoveVault = 7,
    CreatePolicy = 8,
    UpdatePolicy = 9,
    RemovePolicy = 10,
    Protect = 11,
    UpdateItem = 12,
    Unprotect = 13,
    Hold = 14,
    Release = 15,
    HidePoints = 16,
    ShowPoint = 17,
    Enqueue = 20,
    Cancel = 25,
    Retry = 26,
    Drain = 29,
    RemoveWorker = 30,
    CreateApiToken = 33,
    CreateJoinToken = 34,
    RevokeToken = 35,
    Note = 36,
    SetLimit = 37,
    RemoveLimit = 38,
    AddChannel = 39,
    RemoveChannel = 40,
}

impl Kind {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}
