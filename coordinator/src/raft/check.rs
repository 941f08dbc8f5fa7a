//! Messages from other members, before raft-rs sees them.
//!
//! raft-rs trusts its messages: many that no correct member sends make it panic. Who sends has shown a certificate of a member, so this is
//! against errors and versions, not against lies: a member that lies can break a cluster without any malformed message. What is checked:
//!
//! | rule | what raft-rs would do |
//! |---|---|
//! | bounded size, decodes, no field or kind of a later version | misunderstand |
//! | from who sent it, to us, not from a removed member | count votes and progress for others |
//! | kinds that travel between members alone | take a local message, or a proposal, from outside |
//! | a term, except where none is sent; numbers below 2⁶⁰ | take it for local; overflow |
//! | entries that follow each other and an entry with a term, in terms that grow and are not beyond the message's | slice out of bounds |
//! | entries of kinds that we make, without contexts, none too large | lose what it does not store |
//! | commit not past our log, in heartbeats | panic: see [`Refused::LogLost`] |
//! | acknowledgements not past our log | wait for entries that there are not |
//! | a read of one entry with a short context | index out of bounds |
//! | "be elected now" from our leader alone | start elections |
//! | no requests for snapshots, and no snapshot outside of its stream | send and take what nobody checked |

use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use tresor_proto::ids::MemberId;

use super::limits::{CONTEXT_BYTES_MAX, MESSAGE_BYTES_MAX, NUMBER_MAX};
use crate::store::{ENTRY_BYTES_MAX, Membership};

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too large.
    #[error("a message has {bytes} bytes, {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not what a member of this version sends.
    #[error("a message is malformed: {why}")]
    Malformed {
        /// Which rule it breaks.
        why: &'static str,
    },
    /// It is for somebody else.
    #[error("a message for member {to} came here")]
    NotForUs {
        /// Who should have got it.
        to: MemberId,
    },
    /// It names another sender than the one it came from.
    #[error("a message of member {named} came from member {from}")]
    OtherSender {
        /// Who sent it.
        from: MemberId,
        /// Who it says did.
        named: MemberId,
    },
    /// Its sender is not a member any more.
    #[error("member {from} was removed")]
    Removed {
        /// Who.
        from: MemberId,
    },
    /// The leader knows that this member stored more than it has. This member stops: it lost what it had acknowledged, and its votes and
    /// acknowledgements are worth nothing. It must be removed and join under a new number.
    #[error("entry {commit} was acknowledged by this member, but its log ends at {last}: it lost data")]
    LogLost {
        /// What was acknowledged.
        commit: u64,
        /// What there is.
        last: u64,
    },
    /// This member stopped.
    #[error("this member stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// What a member is when a message comes.
pub(super) struct Situation<'a> {
    pub(super) me: MemberId,
    pub(super) term: u64,
    pub(super) last_index: u64,
    pub(super) leader: MemberId,
    pub(super) membership: &'a Membership,
}

fn malformed<T>(why: &'static str) -> Result<T, Refused> {
    Err(Refused::Malformed { why })
}

/// Reads a message and checks what holds of all of them.
pub(super) fn read(from: MemberId, bytes: &[u8], now: &Situation<'_>) -> Result<Message, Refused> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refused::TooLarge { bytes: bytes.len() });
    }
    let Ok(message) = Message::parse_from_bytes(bytes) else {
        return malformed("it cannot be decoded");
    };
    if message.unknown_fields.fields.is_some() || message.entries.iter().any(|e| e.unknown_fields.fields.is_some()) {
        return malformed("it has fields of another version");
    }
    if message.from != from.0 || message.from == 0 || from == now.me {
        let named = MemberId(message.from);
        return Err(Refused::OtherSender { from, named });
    }
    if message.to != now.me.0 {
        let to = MemberId(message.to);
        return Err(Refused::NotForUs { to });
    }
    if now.membership.was_removed(from) {
        return Err(Refused::Removed { from });
    }
    let numbers = [
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.iter().any(|number| *number >= NUMBER_MAX) {
        return malformed("a number is too large");
    }
    if message.context.len() > CONTEXT_BYTES_MAX {
        return malformed("its context is too long");
    }
    if message.request_snapshot != 0 || message.priority != 0 || message.deprecated_priority != 0 {
        return malformed("it asks for what members do not ask for");
    }
    Ok(message)
}

/// Checks a message other than a snapshot's.
pub(super) fn check(message: &Message, now: &Situation<'_>) -> Result<(), Refused> {
    use MessageType as Type;
    if message.snapshot.is_some() {
        return malformed("a snapshot is beside its stream");
    }
    let kind = message.msg_type;
    if (message.term == 0) != (kind == Type::MsgReadIndex) {
        return malformed("it has no term, or one that it must not have");
    }
    let carries_entries = matches!(kind, Type::MsgAppend | Type::MsgReadIndex | Type::MsgReadIndexResp);
    if !carries_entries && !message.entries.is_empty() {
        return malformed("it has entries");
    }
    match kind {
        Type::MsgAppend => check_entries(message),
        Type::MsgHeartbeat => {
            // A leader names no more than what this member acknowledged. One of an older term is answered with ours and not followed.
            if message.term >= now.term && message.commit > now.last_index {
                return Err(Refused::LogLost {
                    commit: message.commit,
                    last: now.last_index,
                });
            }
            Ok(())
        }
        Type::MsgAppendResponse => {
            // Only of this term: an older leader's log may have been longer.
            if message.term == now.term && !message.reject && message.index > now.last_index {
                return malformed("it acknowledges what was never sent");
            }
            Ok(())
        }
        Type::MsgReadIndex | Type::MsgReadIndexResp => match message.get_entries() {
            [read] if (1..=CONTEXT_BYTES_MAX).contains(&read.data.len()) => Ok(()),
            _ => malformed("it is not about one read"),
        },
        Type::MsgTimeoutNow => {
            if message.from != now.leader.0 || message.term != now.term {
                return malformed("it is not from our leader");
            }
            Ok(())
        }
        Type::MsgHeartbeatResponse
        | Type::MsgRequestVote
        | Type::MsgRequestVoteResponse
        | Type::MsgRequestPreVote
        | Type::MsgRequestPreVoteResponse => Ok(()),
        Type::MsgHup
        | Type::MsgBeat
        | Type::MsgPropose
        | Type::MsgSnapshot
        | Type::MsgUnreachable
        | Type::MsgSnapStatus
        | Type::MsgCheckQuorum
        | Type::MsgTransferLeader => malformed("it is of a kind that does not travel"),
    }
}

fn check_entries(message: &Message) -> Result<(), Refused> {
    if message.log_term > message.term {
        return malformed("its log is of a later term than itself");
    }
    // raft-rs takes an entry that there is not for one of term 0, and so a message that names one for the continuation of any log.
    if (message.index == 0) != (message.log_term == 0) {
        return malformed("its entries follow an entry without a term");
    }
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index != before.0 + 1 || entry.term < before.1 || entry.term > message.term {
            return malformed("its entries do not follow each other");
        }
        before = (entry.index, entry.term);
        check_entry(entry)?;
    }
    Ok(())
}

fn check_entry(entry: &Entry) -> Result<(), Refused> {
    if entry.entry_type == EntryType::EntryConfChange || !entry.context.is_empty() || entry.sync_log {
        return malformed("an entry is of a kind that is not made here");
    }
    if entry.data.len() > ENTRY_BYTES_MAX {
        return malformed("an entry is too large");
    }
    Ok(())
}
