//! Reading a recipe: any leaf by its segment, with the nodes on the way kept for the next.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::leaf::{Entry, Leaf};
use super::node::{Child, Node};
use super::root::Root;
use crate::chunk::IdKeys;
use crate::error::{Doing, Result};
use crate::ids::{ChunkId, Location};
use crate::limits::{GRAIN, NODE_CHILDREN, SEGMENT};

/// Nodes kept by a tree: a walk in disk order needs one a level, parallel walks a few more.
const NODES_KEPT: usize = 32;

/// Gives the bytes of recipe nodes.
#[async_trait]
pub trait NodeSource: Send + Sync {
    /// The node or leaf `id`, which was at `hint` when its parent was written. The bytes are checked by the caller.
    ///
    /// # Errors
    /// When it cannot be had.
    async fn node(&self, id: ChunkId, hint: Location) -> Result<Bytes>;
}

/// The recipe of one disk, read as far as asked.
pub struct Tree {
    root: Root,
    keys: IdKeys,
    source: Arc<dyn NodeSource>,
    kept: Mutex<HashMap<(u8, u64), Arc<Node>>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Tree {
    /// Opens a recipe; reads nothing yet.
    pub fn new(root: Root, keys: IdKeys, source: Arc<dyn NodeSource>) -> Self {
        Self {
            root,
            keys,
            source,
            kept: Mutex::new(HashMap::new()),
        }
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// How many children a level has in all: segments at level 0.
    fn width(&self, level: u8) -> u64 {
        (0..level).fold(self.root.segments(), |width, _| width.div_ceil(NODE_CHILDREN as u64))
    }

    /// The child of that index in a level (level 0: leaves); `None` for holes and beyond the end.
    ///
    /// # Errors
    /// When a node above it cannot be read.
    pub async fn child(&self, level: u8, index: u64) -> Result<Option<Child>> {
        if level > self.root.depth || index >= self.width(level) {
            return Ok(None);
        }
        if level == self.root.depth {
            return Ok(self.root.child);
        }
        let at = index / NODE_CHILDREN as u64;
        let kept = self
            .kept
            .lock()
            .expect("no panic while held")
            .get(&(level + 1, at))
            .cloned();
        let node = match kept {
            Some(node) => node,
            None => match self.read_node(level + 1, at).await? {
                Some(node) => node,
                None => return Ok(None),
            },
        };
        Ok(node.children[(index % NODE_CHILDREN as u64) as usize])
    }

    /// The indexes, in the level below, of what is under a node. There is nothing below level 0.
    pub fn children(&self, level: u8, index: u64) -> Range<u64> {
        let Some(below) = level.checked_sub(1) else {
            return 0..0;
        };
        let first = index.saturating_mul(NODE_CHILDREN as u64);
        first..(first + NODE_CHILDREN as u64).min(self.width(below)).max(first)
    }

    async fn read_node(&self, level: u8, index: u64) -> Result<Option<Arc<Node>>> {
        let Some(child) = Box::pin(self.child(level, index)).await? else {
            return Ok(None);
        };
        let doing = || format!("read recipe node {index} of level {level}");
        let bytes = self.source.node(child.id, child.hint).await.doing(doing)?;
        let before = index * NODE_CHILDREN as u64;
        let children = (self.width(level - 1) - before).min(NODE_CHILDREN as u64) as usize;
        let node = Arc::new(Node::decode(&bytes, &self.keys, child.id, level, children).doing(doing)?);
        let mut kept = self.kept.lock().expect("no panic while held");
        if kept.len() >= NODES_KEPT {
            // Nodes of low levels are used up in disk order: the lowest index goes first.
            if let Some(oldest) = kept.keys().min_by_key(|(level, index)| (*level, *index)).copied() {
                kept.remove(&oldest);
            }
        }
        kept.insert((level, index), Arc::clone(&node));
        Ok(Some(node))
    }

    /// The leaf of a segment; `None` when all of it is a hole.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn leaf(&self, segment: u64) -> Result<Option<Leaf>> {
        let Some(child) = self.child(0, segment).await? else {
            return Ok(None);
        };
        self.read_leaf(segment, child).await.map(Some)
    }

    /// Reads the leaf of a segment whose child is known.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_leaf(&self, segment: u64, child: Child) -> Result<Leaf> {
        let doing = || format!("read recipe leaf of segment {segment}");
        let bytes = self.source.node(child.id, child.hint).await.doing(doing)?;
        Leaf::decode(&bytes, &self.keys, child.id, self.root.grains(segment)).doing(doing)
    }

    /// The segments of the given range that are not holes, skipping whole nodes that are.
    ///
    /// # Errors
    /// When a node cannot be read.
    pub async fn present(&self, segments: Range<u64>) -> Result<Vec<(u64, Child)>> {
        let mut found = Vec::new();
        let mut segment = segments.start;
        let end = segments.end.min(self.root.segments());
        while segment < end {
            if let Some(child) = self.child(0, segment).await? {
                found.push((segment, child));
                segment += 1;
                continue;
            }
            // Climb while the node above is a hole too, to skip all of it.
            let mut skip = 1;
            for level in 1..=self.root.depth {
                let width = (NODE_CHILDREN as u64).pow(u32::from(level));
                if self.child(level, segment / width).await?.is_some() {
                    break;
                }
                skip = width - segment % width;
            }
            segment += skip;
        }
        Ok(found)
    }
}

/// The ranges (byte offset, length) in which two disks differ, as far as chunks tell: ascending, merged where they touch.
///
/// Reads only nodes and leaves whose names differ.
///
/// # Errors
/// When a node of either cannot be read.
pub async fn diff(a: &Tree, b: &Tree) -> Result<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    if a.root.id == b.root.id {
        return Ok(ranges);
    }
    let mut push = |offset: u64, length: u64| match ranges.last_mut() {
        Some((start, len)) if *start + *len == offset => *len += length,
        _ => ranges.push((offset, length)),
    };
    let (small, large) = (a.root.size.min(b.root.size), a.root.size.max(b.root.size));
    let top = a.root.depth.min(b.root.depth);
    // Children to compare, the next one last.
    let mut todo: Vec<(u8, u64)> = (0..a.width(top).min(b.width(top)))
        .rev()
        .map(|index| (top, index))
        .collect();
    while let Some((level, index)) = todo.pop() {
        let (left, right) = (a.child(level, index).await?, b.child(level, index).await?);
        // Equal names cover equal numbers of grains, but a shorter disk's last node has another name anyway.
        if left.map(|c| c.id) == right.map(|c| c.id) {
            continue;
        }
        if level > 0 {
            let width = a.width(level - 1).min(b.width(level - 1));
            let first = index * NODE_CHILDREN as u64;
            todo.extend(
                (first..(first + NODE_CHILDREN as u64).min(width))
                    .rev()
                    .map(|index| (level - 1, index)),
            );
            continue;
        }
        let left = flatten(a.leaf(index).await?, a.root.grains(index));
        let right = flatten(b.leaf(index).await?, b.root.grains(index));
        let grains = left.len().min(right.len());
        let mut at = 0;
        while at < grains {
            if left[at] == right[at] {
                at += 1;
                continue;
            }
            let start = at;
            while at < grains && left[at] != right[at] {
                at += 1;
            }
            let offset = index * SEGMENT + start as u64 * u64::from(GRAIN);
            let end = (index * SEGMENT + at as u64 * u64::from(GRAIN)).min(small);
            if offset < end {
                push(offset, end - offset);
            }
        }
    }
    if large > small {
        push(small, large - small);
    }
    Ok(ranges)
}

/// One name for each grain: chunk and the grain's number in it.
fn flatten(leaf: Option<Leaf>, grains: u32) -> Vec<Option<(ChunkId, u32)>> {
    let Some(leaf) = leaf else {
        return vec![None; grains as usize];
    };
    let mut names = Vec::with_capacity(grains as usize);
    for entry in leaf.entries {
        let id = match entry {
            Entry::Hole { .. } => None,
            Entry::Chunk { id, .. } => Some(id),
        };
        names.extend((0..entry.grains()).map(|i| id.map(|id| (id, i))));
    }
    names
}
