//! The bytes of the NBD protocol: newstyle negotiation, requests, simple and structured replies. Pure.
//!
//! After `doc/proto.md` of the NBD project. Numbers are big endian. Only what a client sends is encoded and only what a server sends is parsed; every
//! length is checked against a bound before anything is taken.

use super::{NbdErrno, NbdError};

/// First word of a server's greeting, `NBDMAGIC`.
const GREETING: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting and first of every option, `IHAVEOPT`.
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Bytes of a greeting, with the handshake flags.
pub(super) const GREETING_LENGTH: usize = 18;
/// Bytes of the head of an option reply.
pub(super) const OPTION_REPLY_LENGTH: usize = 20;
/// Bytes of the answer to `EXPORT_NAME`, without the zeros behind it.
pub(super) const EXPORT_NAME_REPLY_LENGTH: usize = 10;
/// Zeros behind it, for servers that know no better.
pub(super) const EXPORT_NAME_ZEROES: usize = 124;
/// Bytes of a request's head.
pub(super) const REQUEST_LENGTH: usize = 28;
/// Bytes of a simple reply's head.
pub(super) const SIMPLE_REPLY_LENGTH: usize = 16;
/// Bytes of a structured reply chunk's head.
pub(super) const CHUNK_LENGTH: usize = 20;

/// Longest payload of an option reply: an export's name, its description or a context's, each at most 4096, with their heads.
pub(super) const OPTION_PAYLOAD_MAX: u32 = 16 << 10;
/// Replies to one option: a server may send as many pieces of information as it likes, but not for ever.
pub(super) const OPTION_REPLIES_MAX: usize = 256;
/// Longest string of the protocol.
pub(super) const STRING_MAX: usize = 4096;
/// Largest request for data, unless the server says less; also what a server must take if it says nothing.
pub(super) const BLOCK_MAX: u32 = 32 << 20;
/// Longest block status chunk: 256 Ki extents.
pub(super) const STATUS_PAYLOAD_MAX: u32 = 4 + 8 * (256 << 10);
/// Longest error chunk: a number, a text, an offset.
pub(super) const ERROR_PAYLOAD_MAX: u32 = 4 + 2 + STRING_MAX as u32 + 8;

/// The context that tells holes.
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
/// Of `base:allocation`: reads as zeros. (The other bit tells that nothing is allocated, which does not mean zeros.)
pub(super) const STATE_ZERO: u32 = 2;

/// Handshake flags.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

/// What an export can do (transmission flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub(super) u16);

impl Flags {
    const HAS_FLAGS: u16 = 1 << 0;
    const READ_ONLY: u16 = 1 << 1;
    const FLUSH: u16 = 1 << 2;
    const TRIM: u16 = 1 << 5;
    const WRITE_ZEROES: u16 = 1 << 6;
    const MULTI_CONN: u16 = 1 << 8;

    const fn has(self, flag: u16) -> bool {
        self.0 & Self::HAS_FLAGS != 0 && self.0 & flag != 0
    }

    /// Nothing can be written.
    pub const fn is_read_only(self) -> bool {
        self.has(Self::READ_ONLY)
    }

    /// `FLUSH` is known.
    pub const fn can_flush(self) -> bool {
        self.has(Self::FLUSH)
    }

    /// `TRIM` is known.
    pub const fn can_trim(self) -> bool {
        self.has(Self::TRIM)
    }

    /// `WRITE_ZEROES` is known.
    pub const fn can_write_zeroes(self) -> bool {
        self.has(Self::WRITE_ZEROES)
    }

    /// Several connections see one another's writes after a flush.
    pub const fn can_multi_conn(self) -> bool {
        self.has(Self::MULTI_CONN)
    }
}

/// Options that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientOption {
    ExportName = 1,
    Abort = 2,
    Go = 7,
    StructuredReply = 8,
    SetMetaContext = 10,
}

/// Commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
    BlockStatus = 7,
}

impl Command {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write zeros",
            Self::BlockStatus => "tell what is allocated",
        }
    }
}

const fn broken(why: &'static str) -> NbdError {
    NbdError::Protocol { why }
}

/// Takes numbers and pieces from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], NbdError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(broken("a message is too short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(broken("a message is too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, NbdError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, NbdError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, NbdError> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Reads a greeting: the handshake flags.
pub(super) fn greeting(bytes: &[u8]) -> Result<u16, NbdError> {
    let mut reader = Reader(bytes);
    if reader.u64()? != GREETING {
        return Err(broken("it does not greet as an NBD server"));
    }
    if reader.u64()? != OPTION {
        return Err(broken("it speaks the old protocol only"));
    }
    reader.u16()
}

/// An option with its data.
pub(super) fn option(option: ClientOption, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend_from_slice(&OPTION.to_be_bytes());
    bytes.extend_from_slice(&(option as u32).to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Data of `GO`: the export, and whether its block sizes are wanted.
pub(super) fn go(export: &str, block_sizes: bool) -> Vec<u8> {
    let mut data = Vec::with_capacity(8 + export.len());
    data.extend_from_slice(&(export.len() as u32).to_be_bytes());
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&u16::from(block_sizes).to_be_bytes());
    if block_sizes {
        data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    }
    data
}

/// Data of `SET_META_CONTEXT`: the export and the names of contexts.
pub(super) fn meta_contexts(export: &str, names: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend_from_slice(&(export.len() as u32).to_be_bytes());
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&(names.len() as u32).to_be_bytes());
    for name in names {
        data.extend_from_slice(&(name.len() as u32).to_be_bytes());
        data.extend_from_slice(name.as_bytes());
    }
    data
}

/// The head of an option reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionReply {
    /// The option answered.
    pub(super) option: u32,
    pub(super) kind: OptionReplyKind,
    /// Bytes that follow.
    pub(super) length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionReplyKind {
    Ack,
    Info,
    MetaContext,
    /// Not known, or forbidden by the server's policy: another way may do.
    Unsupported,
    /// A refusal.
    Refused(&'static str),
    /// A kind that may be passed over.
    Other,
}

/// Reads the head of an option reply.
pub(super) fn option_reply(bytes: &[u8]) -> Result<OptionReply, NbdError> {
    let mut reader = Reader(bytes);
    if reader.u64()? != OPTION_REPLY {
        return Err(broken("an option reply does not start as one"));
    }
    let option = reader.u32()?;
    let kind = match reader.u32()? {
        1 => OptionReplyKind::Ack,
        3 => OptionReplyKind::Info,
        4 => OptionReplyKind::MetaContext,
        0x8000_0001 | 0x8000_0002 => OptionReplyKind::Unsupported,
        0x8000_0003 => OptionReplyKind::Refused("the option was invalid"),
        0x8000_0004 => OptionReplyKind::Refused("not supported on its platform"),
        0x8000_0005 => OptionReplyKind::Refused("TLS is required"),
        0x8000_0006 => OptionReplyKind::Refused("no such export"),
        0x8000_0007 => OptionReplyKind::Refused("the server is shutting down"),
        0x8000_0008 => OptionReplyKind::Refused("it needs a client that heeds block sizes"),
        0x8000_0009 => OptionReplyKind::Refused("the request is too big"),
        other if other & 0x8000_0000 != 0 => OptionReplyKind::Refused("unknown error"),
        _ => OptionReplyKind::Other,
    };
    let length = reader.u32()?;
    if length > OPTION_PAYLOAD_MAX {
        return Err(broken("an option reply is too long"));
    }
    Ok(OptionReply { option, kind, length })
}

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// A piece of information about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Info {
    Export { size: u64, flags: Flags },
    BlockSizes(BlockSizes),
    Other,
}

/// What lengths and offsets a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockSizes {
    /// Offsets and lengths are multiples of this; a power of two.
    pub(super) min: u32,
    /// Largest request with data.
    pub(super) max: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { min: 1, max: BLOCK_MAX }
    }
}

/// Reads the payload of an `INFO` reply.
pub(super) fn info(payload: &[u8]) -> Result<Info, NbdError> {
    let mut reader = Reader(payload);
    match reader.u16()? {
        INFO_EXPORT => {
            let info = Info::Export {
                size: reader.u64()?,
                flags: Flags(reader.u16()?),
            };
            if !reader.0.is_empty() {
                return Err(broken("information about the export is too long"));
            }
            Ok(info)
        }
        INFO_BLOCK_SIZE => {
            let (min, preferred, max) = (reader.u32()?, reader.u32()?, reader.u32()?);
            let sound = min.is_power_of_two() && min <= 64 << 10 && preferred >= min && max >= min && max >= 512;
            if !sound || !reader.0.is_empty() {
                return Err(broken("its block sizes make no sense"));
            }
            Ok(Info::BlockSizes(BlockSizes {
                min,
                max: max.min(BLOCK_MAX) / min * min,
            }))
        }
        _ => Ok(Info::Other),
    }
}

/// Reads the answer to `EXPORT_NAME`.
pub(super) fn export_name_reply(bytes: &[u8]) -> Result<(u64, Flags), NbdError> {
    let mut reader = Reader(bytes);
    Ok((reader.u64()?, Flags(reader.u16()?)))
}

/// Reads the payload of a `META_CONTEXT` reply: the context's number and its name.
pub(super) fn meta_context(payload: &[u8]) -> Result<(u32, &str), NbdError> {
    let mut reader = Reader(payload);
    let id = reader.u32()?;
    let name = std::str::from_utf8(reader.0).map_err(|_| broken("the name of a context is no text"))?;
    if name.len() > STRING_MAX {
        return Err(broken("the name of a context is too long"));
    }
    Ok((id, name))
}

/// A request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) flags: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST_LENGTH] {
        let mut bytes = [0; REQUEST_LENGTH];
        bytes[0..4].copy_from_slice(&REQUEST.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&(self.command as u16).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// Which head a reply has, by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyKind {
    Simple,
    Structured,
}

/// Reads the first word of a reply.
pub(super) fn reply_kind(magic: u32) -> Result<ReplyKind, NbdError> {
    match magic {
        SIMPLE_REPLY => Ok(ReplyKind::Simple),
        STRUCTURED_REPLY => Ok(ReplyKind::Structured),
        _ => Err(broken("a reply does not start as one")),
    }
}

/// The head of a simple reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SimpleReply {
    pub(super) error: Option<NbdErrno>,
    pub(super) cookie: u64,
}

/// Reads the head of a simple reply, with its first word.
pub(super) fn simple_reply(bytes: &[u8]) -> Result<SimpleReply, NbdError> {
    let mut reader = Reader(bytes);
    if reply_kind(reader.u32()?)? != ReplyKind::Simple {
        return Err(broken("a reply does not start as one"));
    }
    let error = reader.u32()?;
    Ok(SimpleReply {
        error: (error != 0).then(|| NbdErrno::from_wire(error)),
        cookie: reader.u64()?,
    })
}

/// The head of a structured reply chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) kind: ChunkKind,
    /// No chunk of this reply follows.
    pub(super) is_last: bool,
    pub(super) cookie: u64,
    /// Bytes that follow; within the bounds of the kind, except for data, which is bounded by the request.
    pub(super) length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkKind {
    /// Nothing, which is success.
    None,
    /// An offset (8 bytes) and data.
    Data,
    /// An offset and a length of zeros.
    Hole,
    /// A context and its extents.
    Status,
    /// An error number and a text, perhaps an offset.
    Error,
}

/// Reads the head of a structured reply chunk, with its first word.
pub(super) fn chunk(bytes: &[u8]) -> Result<Chunk, NbdError> {
    let mut reader = Reader(bytes);
    if reply_kind(reader.u32()?)? != ReplyKind::Structured {
        return Err(broken("a reply does not start as one"));
    }
    let flags = reader.u16()?;
    let kind = reader.u16()?;
    let cookie = reader.u64()?;
    let length = reader.u32()?;
    let is_last = flags & 1 != 0;
    let kind = match kind {
        0 => ChunkKind::None,
        1 => ChunkKind::Data,
        2 => ChunkKind::Hole,
        5 => ChunkKind::Status,
        error if error & 0x8000 != 0 => ChunkKind::Error,
        _ => return Err(broken("a chunk is of an unknown kind")),
    };
    let sound = match kind {
        ChunkKind::None => length == 0 && is_last,
        ChunkKind::Data => length > 8 && length <= 8 + BLOCK_MAX,
        ChunkKind::Hole => length == 12,
        ChunkKind::Status => (12..=STATUS_PAYLOAD_MAX).contains(&length) && length % 8 == 4,
        ChunkKind::Error => (6..=ERROR_PAYLOAD_MAX).contains(&length),
    };
    if !sound {
        return Err(broken("the length of a chunk makes no sense"));
    }
    Ok(Chunk {
        kind,
        is_last,
        cookie,
        length,
    })
}

/// Reads the payload of a hole chunk: offset and length.
pub(super) fn hole(payload: &[u8]) -> Result<(u64, u32), NbdError> {
    let mut reader = Reader(payload);
    Ok((reader.u64()?, reader.u32()?))
}

/// Reads the payload of an error chunk.
pub(super) fn error(payload: &[u8]) -> Result<NbdErrno, NbdError> {
    let mut reader = Reader(payload);
    let number = reader.u32()?;
    let length = reader.u16()?;
    reader.bytes(usize::from(length))?;
    if number == 0 {
        return Err(broken("an error is none"));
    }
    Ok(NbdErrno::from_wire(number))
}

/// A range and its state in one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusExtent {
    pub(super) length: u32,
    pub(super) state: u32,
}

/// Reads the payload of a block status chunk: the context's number and extents, none empty, at least one.
pub(super) fn status(payload: &[u8]) -> Result<(u32, Vec<StatusExtent>), NbdError> {
    let mut reader = Reader(payload);
    let context = reader.u32()?;
    if reader.0.is_empty() || reader.0.len() % 8 != 0 {
        return Err(broken("the length of a chunk makes no sense"));
    }
    let mut extents = Vec::with_capacity(reader.0.len() / 8);
    while !reader.0.is_empty() {
        let extent = StatusExtent {
            length: reader.u32()?,
            state: reader.u32()?,
        };
        if extent.length == 0 {
            return Err(broken("an extent is empty"));
        }
        extents.push(extent);
    }
    Ok((context, extents))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use proptest::prelude::*;

    fn chunk_head(flags: u16, kind: u16, cookie: u64, length: u32) -> Vec<u8> {
        let mut bytes = STRUCTURED_REPLY.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn a_request_is_laid_out_as_the_protocol_has_it() {
        let request = Request {
            command: Command::Read,
            flags: 1,
            cookie: 2,
            offset: 3,
            length: 4,
        };
        assert_eq!(
            request.encode(),
            [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4
            ]
        );
    }

    #[test]
    fn an_option_is_laid_out_as_the_protocol_has_it() {
        assert_eq!(
            option(ClientOption::Go, &go("a", true)),
            *b"IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x01a\0\x01\0\x03"
        );
        assert_eq!(meta_contexts("", &["x:y"]), *b"\0\0\0\0\0\0\0\x01\0\0\0\x03x:y");
    }

    #[test]
    fn a_greeting_of_the_old_protocol_or_of_another_service_is_refused() {
        assert_eq!(greeting(b"NBDMAGICIHAVEOPT\0\x03").unwrap(), 3);
        assert!(greeting(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0").is_err());
        assert!(greeting(b"SSH-2.0-OpenSSH_9.2").is_err());
        assert!(greeting(b"NBDMAGIC").is_err());
    }

    #[test]
    fn chunks_of_impossible_lengths_are_refused() {
        for (flags, kind, length) in [
            (1, 0, 1),
            (0, 0, 0),
            (0, 1, 8),
            (0, 1, 9 + BLOCK_MAX),
            (0, 2, 11),
            (0, 5, 4),
            (0, 5, 13),
            (0, 5, STATUS_PAYLOAD_MAX + 8),
            (0, 0x8001, 5),
            (0, 0x8001, ERROR_PAYLOAD_MAX + 1),
            (0, 3, 8),
        ] {
            assert!(
                chunk(&chunk_head(flags, kind, 7, length)).is_err(),
                "kind {kind:#x} length {length}"
            );
        }
        assert_eq!(
            chunk(&chunk_head(1, 1, 7, 520)).unwrap(),
            Chunk {
                kind: ChunkKind::Data,
                is_last: true,
                cookie: 7,
                length: 520
            }
        );
    }

    #[test]
    fn block_sizes_are_checked_and_clamped() {
        let sizes = |min: u32, preferred: u32, max: u32| {
            let mut payload = vec![0, 3];
            for number in [min, preferred, max] {
                payload.extend(number.to_be_bytes());
            }
            info(&payload)
        };
        assert_eq!(
            sizes(512, 4096, u32::MAX).unwrap(),
            Info::BlockSizes(BlockSizes {
                min: 512,
                max: BLOCK_MAX
            })
        );
        for (min, preferred, max) in [
            (0, 4096, 4096),
            (3, 4096, 4096),
            (1 << 17, 1 << 17, 1 << 20),
            (4096, 4096, 512),
            (1, 1, 1),
        ] {
            assert!(sizes(min, preferred, max).is_err(), "{min} {preferred} {max}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = greeting(&bytes);
            let _ = option_reply(&bytes);
            let _ = info(&bytes);
            let _ = export_name_reply(&bytes);
            let _ = meta_context(&bytes);
            let _ = simple_reply(&bytes);
            let _ = chunk(&bytes);
            let _ = hole(&bytes);
            let _ = error(&bytes);
            let _ = status(&bytes);
        }

        #[test]
        fn any_chunk_head_that_is_taken_is_bounded(flags in any::<u16>(), kind in any::<u16>(), length in any::<u32>()) {
            if let Ok(chunk) = chunk(&chunk_head(flags, kind, 1, length)) {
                let bound = match chunk.kind {
                    ChunkKind::None => 0,
                    ChunkKind::Data => 8 + BLOCK_MAX,
                    ChunkKind::Hole => 12,
                    ChunkKind::Status => STATUS_PAYLOAD_MAX,
                    ChunkKind::Error => ERROR_PAYLOAD_MAX,
                };
                prop_assert!(chunk.length <= bound);
            }
        }

        #[test]
        fn a_status_that_is_taken_has_no_empty_extent(words in prop::collection::vec(0..3u32, 1..20)) {
            let payload: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            if let Ok((context, extents)) = status(&payload) {
                prop_assert_eq!(context, words[0]);
                prop_assert_eq!(extents.len() * 2 + 1, words.len());
                prop_assert!(extents.iter().all(|e| e.length > 0));
            }
        }
    }
}
