//! Agreeing with a server on an export.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::NbdError;
use super::connection::NbdStream;
use super::wire::{self, BlockSizes, ClientOption, Flags, Info, OptionReply, OptionReplyKind};

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    /// Bytes of the disk.
    pub(super) size: u64,
    pub(super) flags: Flags,
    pub(super) blocks: BlockSizes,
    /// Replies come in chunks.
    pub(super) is_structured: bool,
    /// Numbers of the contexts that were asked for, in that order; none where the server has it not.
    pub(super) contexts: Vec<Option<u32>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) export: &'a str,
    pub(super) contexts: &'a [&'a str],
    /// Promises to heed the server's block sizes.
    pub(super) block_sizes: bool,
}

/// Speaks with the server up to the point where requests may be sent.
///
/// # Errors
/// `Refused` if the server does not give the export; `Protocol`, `Disconnected`. Waits as long as the server does: give it a deadline.
pub(super) async fn handshake(stream: &mut NbdStream, wanted: Wanted<'_>) -> Result<Export, NbdError> {
    if wanted.export.len() > wire::STRING_MAX {
        return Err(NbdError::Unsupported {
            what: "be named so",
            why: "the name is too long",
        });
    }
    let flags = wire::greeting(&read::<{ wire::GREETING_LENGTH }>(stream).await?)?;
    if flags & wire::FIXED_NEWSTYLE == 0 {
        return Err(NbdError::Protocol {
            why: "it speaks an old protocol only",
        });
    }
    let has_no_zeroes = flags & wire::NO_ZEROES != 0;
    let answer = u32::from(wire::FIXED_NEWSTYLE | (flags & wire::NO_ZEROES));
    send(stream, &answer.to_be_bytes()).await?;

    let is_structured = structured_replies(stream).await?;
    let mut contexts = vec![None; wanted.contexts.len()];
    if is_structured && !wanted.contexts.is_empty() {
        set_contexts(stream, wanted, &mut contexts).await?;
    }
    let (size, flags, blocks) = match go(stream, wanted).await? {
        Some(agreed) => agreed,
        None => {
            // Contexts belong to `GO`; a server that knows one knows the other.
            contexts.fill(None);
            let (size, flags) = export_name(stream, wanted.export, has_no_zeroes).await?;
            (size, flags, BlockSizes::default())
        }
    };
    if size > i64::MAX as u64 {
        return Err(NbdError::Protocol {
            why: "the size of the export makes no sense",
        });
    }
    Ok(Export {
        size,
        flags,
        blocks,
        is_structured,
        contexts,
    })
}

async fn structured_replies(stream: &mut NbdStream) -> Result<bool, NbdError> {
    send(stream, &wire::option(ClientOption::StructuredReply, &[])).await?;
    for _ in 0..wire::OPTION_REPLIES_MAX {
        let (reply, _) = reply(stream, ClientOption::StructuredReply).await?;
        match reply.kind {
            OptionReplyKind::Ack => return Ok(true),
            OptionReplyKind::Unsupported | OptionReplyKind::Refused(_) => return Ok(false),
            _ => {}
        }
    }
    Err(NbdError::Protocol {
        why: "it answers an option without end",
    })
}

async fn set_contexts(stream: &mut NbdStream, wanted: Wanted<'_>, ids: &mut [Option<u32>]) -> Result<(), NbdError> {
    let data = wire::meta_contexts(wanted.export, wanted.contexts);
    send(stream, &wire::option(ClientOption::SetMetaContext, &data)).await?;
    for _ in 0..wire::OPTION_REPLIES_MAX {
        let (reply, payload) = reply(stream, ClientOption::SetMetaContext).await?;
        match reply.kind {
            OptionReplyKind::Ack => return Ok(()),
            // No contexts then; whether the export is there at all is what `GO` tells.
            OptionReplyKind::Unsupported | OptionReplyKind::Refused(_) => {
                ids.fill(None);
                return Ok(());
            }
            OptionReplyKind::MetaContext => {
                let (id, name) = wire::meta_context(&payload)?;
                if let Some(at) = wanted.contexts.iter().position(|wanted| *wanted == name) {
                    ids[at] = Some(id);
                }
            }
            _ => {}
        }
    }
    Err(NbdError::Protocol {
        why: "it answers an option without end",
    })
}

/// None if the server does not know `GO`.
async fn go(stream: &mut NbdStream, wanted: Wanted<'_>) -> Result<Option<(u64, Flags, BlockSizes)>, NbdError> {
    send(
        stream,
        &wire::option(ClientOption::Go, &wire::go(wanted.export, wanted.block_sizes)),
    )
    .await?;
    let mut export = None;
    let mut blocks = BlockSizes::default();
    for _ in 0..wire::OPTION_REPLIES_MAX {
        let (reply, payload) = reply(stream, ClientOption::Go).await?;
        match reply.kind {
            OptionReplyKind::Ack => {
                let (size, flags) = export.ok_or(NbdError::Protocol {
                    why: "it does not tell the size of the export",
                })?;
                return Ok(Some((size, flags, blocks)));
            }
            OptionReplyKind::Info => match wire::info(&payload)? {
                Info::Export { size, flags } => export = Some((size, flags)),
                Info::BlockSizes(sizes) => blocks = sizes,
                Info::Other => {}
            },
            OptionReplyKind::Unsupported => return Ok(None),
            OptionReplyKind::Refused(why) => {
                let said = String::from_utf8_lossy(&payload);
                let why = if said.trim().is_empty() {
                    why.to_owned()
                } else {
                    format!("{why}: {}", printable(&said))
                };
                // A courtesy; the refusal is what counts.
                let _ = send(stream, &wire::option(ClientOption::Abort, &[])).await;
                return Err(NbdError::Refused {
                    export: wanted.export.to_owned(),
                    why,
                });
            }
            _ => {}
        }
    }
    Err(NbdError::Protocol {
        why: "it answers an option without end",
    })
}

async fn export_name(stream: &mut NbdStream, name: &str, has_no_zeroes: bool) -> Result<(u64, Flags), NbdError> {
    send(stream, &wire::option(ClientOption::ExportName, name.as_bytes())).await?;
    // The only refusal that this option knows is to hang up.
    let refused = |_| NbdError::Refused {
        export: name.to_owned(),
        why: "the connection was closed at its name".to_owned(),
    };
    let head = read::<{ wire::EXPORT_NAME_REPLY_LENGTH }>(stream)
        .await
        .map_err(refused)?;
    if !has_no_zeroes {
        read::<{ wire::EXPORT_NAME_ZEROES }>(stream).await?;
    }
    wire::export_name_reply(&head)
}

async fn reply(stream: &mut NbdStream, option: ClientOption) -> Result<(OptionReply, Vec<u8>), NbdError> {
    let reply = wire::option_reply(&read::<{ wire::OPTION_REPLY_LENGTH }>(stream).await?)?;
    if reply.option != option as u32 {
        return Err(NbdError::Protocol {
            why: "it answers an option that was not asked",
        });
    }
    // Bounded by the parser.
    let mut payload = vec![0; reply.length as usize];
    stream
        .reader
        .read_exact(&mut payload)
        .await
        .map_err(|e| NbdError::disconnected(&e))?;
    Ok((reply, payload))
}

async fn read<const N: usize>(stream: &mut NbdStream) -> Result<[u8; N], NbdError> {
    let mut bytes = [0; N];
    stream
        .reader
        .read_exact(&mut bytes)
        .await
        .map_err(|e| NbdError::disconnected(&e))?;
    Ok(bytes)
}

async fn send(stream: &mut NbdStream, bytes: &[u8]) -> Result<(), NbdError> {
    stream
        .writer
        .write_all(bytes)
        .await
        .map_err(|e| NbdError::disconnected(&e))?;
    stream.writer.flush().await.map_err(|e| NbdError::disconnected(&e))
}

/// Foreign text without what could upset a terminal, and not for ever.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(200).collect()
}
