//! Names of content: BLAKE3 keyed with keys of the vault, one for each kind of thing.
//!
//! Equal plaintext in two vaults has two names, and without the key nobody can test a guess.

use crate::ids::ChunkId;
use crate::keys::{Key, Keyring};

/// The keys under which content is named.
#[derive(Debug, Clone)]
pub struct IdKeys {
    chunk: Key,
    leaf: Key,
    node: Key,
    root: Key,
}

impl IdKeys {
    /// Derives them from the vault's `K_id`.
    pub fn new(keyring: &Keyring) -> Self {
        let derive = |context| keyring.id.derive(context, &[]);
        Self {
            chunk: derive("tresor v1 chunk id"),
            leaf: derive("tresor v1 leaf id"),
            node: derive("tresor v1 node id"),
            root: derive("tresor v1 root id"),
        }
    }

    /// Names a chunk by its plaintext.
    pub fn chunk(&self, plain: &[u8]) -> ChunkId {
        name(&self.chunk, plain)
    }

    /// Names a leaf by its entries.
    pub fn leaf(&self, entries: &[u8]) -> ChunkId {
        name(&self.leaf, entries)
    }

    /// Names a node by its children.
    pub fn node(&self, children: &[u8]) -> ChunkId {
        name(&self.node, children)
    }

    /// Names a root.
    pub fn root(&self, root: &[u8]) -> ChunkId {
        name(&self.root, root)
    }
}

fn name(key: &Key, bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(key.expose(), bytes).as_bytes())
}
