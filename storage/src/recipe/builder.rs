//! Writing a recipe from its leaves, in disk order.
//!
//! What the parent recipe has under the same name at the same place is taken over with its hint and stored once only: an unchanged disk
//! writes no node at all.

use async_trait::async_trait;

use super::leaves::RangeLeaf;
use super::node::{Child, Node};
use super::root::{Root, depth_of, segments_of};
use super::tree::Tree;
use crate::chunk::{Fingerprint, IdKeys, Profile};
use crate::error::Result;
use crate::ids::{ChunkId, Location};
use crate::limits::{FRAME_CHUNKS_PLAIN_MAX, NODE_CHILDREN, RECIPE_NODE_MAX};

/// Bytes of leaves and nodes that go into one recipe frame.
const BATCH_BYTES: usize = 256 << 10;
const _: () = assert!(BATCH_BYTES + RECIPE_NODE_MAX + 4096 <= FRAME_CHUNKS_PLAIN_MAX);

/// Stores recipe nodes.
#[async_trait]
pub trait NodeSink: Send {
    /// Stores the nodes as one frame and says where each went.
    ///
    /// # Errors
    /// When they cannot be stored.
    async fn place_nodes(&mut self, nodes: &[(ChunkId, Vec<u8>)]) -> Result<Vec<Location>>;
}

/// The recipe that a new one follows, as far as it can be read.
pub type Parent<'a> = Option<&'a Tree>;

#[derive(Debug, Clone, Copy)]
enum Slot {
    Hole,
    At(Child),
    /// In the batch that is being collected.
    Pending {
        id: ChunkId,
        print: Option<Fingerprint>,
        index: usize,
    },
}

/// A recipe being written.
#[derive(Debug)]
pub struct TreeBuilder {
    keys: IdKeys,
    profile: Profile,
    size: u64,
    depth: u8,
    pushed: u64,
    /// Slots of the node being filled on each level; level 0 are leaves.
    levels: Vec<Vec<Slot>>,
    /// Index of the node being filled above each level.
    indexes: Vec<u64>,
    /// Whether a slot of that level was stored by this recipe. The node above then has hints of its own and is written even when the parent
    /// has one of the same name: names cover no hints, and the old hints may lead into damage that was just stored again.
    fresh: Vec<bool>,
    batch: Vec<(ChunkId, Vec<u8>)>,
    batch_bytes: usize,
}

impl TreeBuilder {
    /// Begins the recipe of a disk of `size` bytes.
    pub fn new(keys: IdKeys, profile: Profile, size: u64) -> Self {
        let depth = depth_of(size);
        let levels = usize::from(depth) + 1;
        Self {
            keys,
            profile,
            size,
            depth,
            pushed: 0,
            levels: vec![Vec::new(); levels],
            indexes: vec![0; levels],
            fresh: vec![false; levels],
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Segments pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The next segment is a hole.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn push_hole(&mut self, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<()> {
        self.push(Slot::Hole, sink, parent).await
    }

    /// The next segment's leaf is stored already.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn push_stored(&mut self, leaf: Child, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<()> {
        self.push(Slot::At(leaf), sink, parent).await
    }

    /// The next segment's leaf is new.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn push_new(
        &mut self,
        id: ChunkId,
        print: Option<Fingerprint>,
        bytes: Vec<u8>,
        sink: &mut dyn NodeSink,
        parent: Parent<'_>,
    ) -> Result<()> {
        let slot = self.collect(id, print, bytes, sink).await?;
        self.fresh[0] = true;
        self.push(slot, sink, parent).await
    }

    /// The next segment, as somebody else stored it.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn push_made(&mut self, leaf: RangeLeaf, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<()> {
        match leaf {
            RangeLeaf::Hole => self.push(Slot::Hole, sink, parent).await,
            RangeLeaf::Stored(child) => self.push(Slot::At(child), sink, parent).await,
            RangeLeaf::New(child) => {
                self.fresh[0] = true;
                self.push(Slot::At(child), sink, parent).await
            }
        }
    }

    async fn collect(
        &mut self,
        id: ChunkId,
        print: Option<Fingerprint>,
        bytes: Vec<u8>,
        sink: &mut dyn NodeSink,
    ) -> Result<Slot> {
        if self.batch_bytes >= BATCH_BYTES {
            self.flush(sink).await?;
        }
        self.batch_bytes += bytes.len();
        self.batch.push((id, bytes));
        Ok(Slot::Pending {
            id,
            print,
            index: self.batch.len() - 1,
        })
    }

    /// Places the leaves and nodes that were collected so far, however few.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn flush(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let locations = sink.place_nodes(&self.batch).await?;
        for slot in self.levels.iter_mut().flatten() {
            if let Slot::Pending { id, print, index } = *slot {
                *slot = Slot::At(Child {
                    id,
                    hint: locations[index],
                    print,
                });
            }
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    async fn push(&mut self, slot: Slot, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<()> {
        assert!(self.pushed < segments_of(self.size), "more segments than the disk has");
        self.pushed += 1;
        self.levels[0].push(slot);
        for level in 0..usize::from(self.depth) {
            if self.levels[level].len() < NODE_CHILDREN {
                break;
            }
            self.close(level, sink, parent).await?;
        }
        Ok(())
    }

    /// Makes a node of the slots of a level and puts it as a slot into the level above.
    async fn close(&mut self, level: usize, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<()> {
        let index = self.indexes[level];
        self.indexes[level] += 1;
        let above = (level + 1) as u8;
        let slots = &self.levels[level];
        let slot = if slots.iter().all(|s| matches!(s, Slot::Hole)) {
            Slot::Hole
        } else {
            // Names need no locations, so a node that the parent has costs nothing.
            let id = self.node(level).id(&self.keys);
            let inherited = match parent {
                // A parent's node that cannot be read only costs writing ours.
                Some(tree) if !self.fresh[level] => tree
                    .child(above, index)
                    .await
                    .ok()
                    .flatten()
                    .filter(|child| child.id == id),
                _ => None,
            };
            match inherited {
                Some(child) => Slot::At(child),
                None => {
                    self.flush(sink).await?;
                    let bytes = self.node(level).encode();
                    self.fresh[level + 1] = true;
                    self.collect(id, None, bytes, sink).await?
                }
            }
        };
        self.levels[level].clear();
        self.fresh[level] = false;
        self.levels[level + 1].push(slot);
        Ok(())
    }

    fn node(&self, level: usize) -> Node {
        let child = |slot: &Slot| match *slot {
            Slot::Hole => None,
            Slot::At(child) => Some(child),
            // Only for the name, which does not cover hints.
            Slot::Pending { id, print, .. } => Some(Child {
                id,
                hint: NOWHERE,
                print,
            }),
        };
        Node {
            level: (level + 1) as u8,
            children: self.levels[level].iter().map(child).collect(),
        }
    }

    /// Stores what is left and names the disk.
    ///
    /// # Errors
    /// Those of the sink.
    ///
    /// # Panics
    /// When segments are missing.
    pub async fn finish(mut self, sink: &mut dyn NodeSink, parent: Parent<'_>) -> Result<Root> {
        assert_eq!(self.pushed, segments_of(self.size), "every segment is pushed");
        for level in 0..usize::from(self.depth) {
            if !self.levels[level].is_empty() {
                self.close(level, sink, parent).await?;
            }
        }
        self.flush(sink).await?;
        let child = match self.levels[usize::from(self.depth)].as_slice() {
            [] | [Slot::Hole] => None,
            [Slot::At(child)] => Some(*child),
            _ => unreachable!("one slot at the top, and nothing is pending after a flush"),
        };
        Ok(Root::new(&self.keys, self.profile, self.size, child))
    }
}

const NOWHERE: Location = Location {
    pack: crate::ids::PackId {
        writer: crate::ids::Writer {
            cluster: crate::ids::ClusterId(0),
            session: crate::ids::SessionId(0),
            part: crate::ids::PartId(0),
        },
        seq: 0,
    },
    frame_offset: 0,
    frame_length: 0,
    place: 0,
};

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::leaf::{Entry, Leaf};
    use super::super::tree::{NodeSource, diff};
    use super::*;
    use crate::ids::{ClusterId, PackId, PartId, SessionId, Writer};
    use crate::keys::{Generation, GenerationKeys, Key, Keyring};
    use crate::limits::SEGMENT;
    use crate::recipe::LeafRun;

    #[derive(Default, Clone)]
    struct Memory(Arc<Mutex<HashMap<Location, Bytes>>>, Arc<Mutex<usize>>);

    #[async_trait]
    impl NodeSink for Memory {
        async fn place_nodes(&mut self, nodes: &[(ChunkId, Vec<u8>)]) -> Result<Vec<Location>> {
            let mut map = self.0.lock().unwrap();
            *self.1.lock().unwrap() += nodes.len();
            let frame = map.len() as u32;
            Ok(nodes
                .iter()
                .enumerate()
                .map(|(place, (_, bytes))| {
                    let location = at(frame, place as u32);
                    map.insert(location, Bytes::copy_from_slice(bytes));
                    location
                })
                .collect())
        }
    }

    #[async_trait]
    impl NodeSource for Memory {
        async fn node(&self, _: ChunkId, hint: Location) -> Result<Bytes> {
            Ok(self.0.lock().unwrap()[&hint].clone())
        }
    }

    fn at(frame: u32, place: u32) -> Location {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(1),
            part: PartId(1),
        };
        Location {
            pack: PackId { writer, seq: 0 },
            frame_offset: frame,
            frame_length: 1,
            place,
        }
    }

    fn keys() -> IdKeys {
        let generation = GenerationKeys {
            meta: Key::from_bytes([2; 32]),
            data: None,
        };
        IdKeys::new(&Keyring {
            id: Key::from_bytes([1; 32]),
            cut: None,
            generations: [(Generation(1), generation)].into(),
        })
    }

    fn leaf(value: u8) -> Option<Leaf> {
        let chunk = |v: u8| Entry::Chunk {
            grains: 32,
            id: ChunkId([v; 32]),
            hint: at(u32::from(v), 3),
        };
        (value != 0).then(|| Leaf {
            entries: (0..32).map(|i| chunk(value.wrapping_add(i % 3))).collect(),
        })
    }

    async fn build(values: &[u8], store: &mut Memory, parent: Option<&Tree>) -> Root {
        let keys = keys();
        let mut builder = TreeBuilder::new(keys.clone(), Profile::Grain32k, values.len() as u64 * SEGMENT);
        for (i, value) in values.iter().enumerate() {
            let known = match parent {
                Some(tree) => tree.child(0, i as u64).await.unwrap(),
                None => None,
            };
            match leaf(*value) {
                None => builder.push_hole(store, parent).await.unwrap(),
                Some(leaf) => {
                    let id = leaf.id(&keys);
                    match known.filter(|child| child.id == id) {
                        Some(child) => builder.push_stored(child, store, parent).await.unwrap(),
                        None => builder.push_new(id, None, leaf.encode(), store, parent).await.unwrap(),
                    }
                }
            }
        }
        builder.finish(store, parent).await.unwrap()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_leaf_reads_back_and_diff_finds_exactly_what_differs(
            old in prop::collection::vec(0_u8..4, 0..700),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 0..8),
        ) {
            run(async {
                let mut store = Memory::default();
                let first = Tree::new(build(&old, &mut store, None).await, keys(), Arc::new(store.clone()));
                for (i, value) in old.iter().enumerate() {
                    assert_eq!(first.leaf(i as u64).await.unwrap(), leaf(*value));
                }
                let mut new = old.clone();
                for (at, value) in edits {
                    if !new.is_empty() {
                        let at = at.index(new.len());
                        new[at] = value;
                    }
                }
                let second = build(&new, &mut store, Some(&first)).await;
                let fresh = build(&new, &mut Memory::default(), None).await;
                assert_eq!(second.id, fresh.id, "a name does not depend on the way there");
                let second = Tree::new(second, keys(), Arc::new(store.clone()));
                let found = diff(&first, &second).await.unwrap();
                for (i, (a, b)) in old.iter().zip(&new).enumerate() {
                    let offset = i as u64 * SEGMENT;
                    let touched = found.iter().any(|(start, len)| *start < offset + SEGMENT && start + len > offset);
                    assert_eq!(touched, a != b, "segment {i}");
                }
                let present = second.present(0..new.len() as u64).await.unwrap();
                let expected: Vec<_> = (0..new.len() as u64).filter(|i| new[*i as usize] != 0).collect();
                assert_eq!(present.iter().map(|(s, _)| *s).collect::<Vec<_>>(), expected);
            });
        }
    }

    #[test]
    fn a_disk_of_which_others_stored_a_range_is_named_as_one_that_was_stored_alone() {
        run(async {
            let values: Vec<u8> = (0..600).map(|i| (i % 5) as u8).collect();
            let mut store = Memory::default();
            let whole = build(&values, &mut store, None).await;
            let keys = keys();
            let mut run = LeafRun::new();
            for value in &values[256..512] {
                match leaf(*value) {
                    None => run.push_hole(),
                    Some(leaf) => run
                        .push_new(leaf.id(&keys), None, leaf.encode(), &mut store)
                        .await
                        .unwrap(),
                }
            }
            let made = run.finish(&mut store).await.unwrap();
            assert_eq!(made.len(), 256);
            let mut builder = TreeBuilder::new(keys.clone(), Profile::Grain32k, 600 * SEGMENT);
            for (at, value) in values.iter().enumerate() {
                let sink = &mut store;
                match (made.get(at.wrapping_sub(256)), leaf(*value)) {
                    (Some(made), _) => builder.push_made(*made, sink, None).await.unwrap(),
                    (None, None) => builder.push_hole(sink, None).await.unwrap(),
                    (None, Some(leaf)) => builder
                        .push_new(leaf.id(&keys), None, leaf.encode(), sink, None)
                        .await
                        .unwrap(),
                }
            }
            let root = builder.finish(&mut store, None).await.unwrap();
            assert_eq!(root.id, whole.id);
            let tree = Tree::new(root, keys, Arc::new(store.clone()));
            for (segment, value) in values.iter().enumerate() {
                assert_eq!(
                    tree.leaf(segment as u64).await.unwrap(),
                    leaf(*value),
                    "segment {segment}"
                );
            }
        });
    }

    #[test]
    fn an_unchanged_disk_stores_no_node() {
        run(async {
            let values: Vec<u8> = (0..600).map(|i| (i % 5) as u8).collect();
            let mut store = Memory::default();
            let tree = Tree::new(build(&values, &mut store, None).await, keys(), Arc::new(store.clone()));
            let before = *store.1.lock().unwrap();
            let root = build(&values, &mut store, Some(&tree)).await;
            assert_eq!(root, *tree.root());
            assert_eq!(*store.1.lock().unwrap(), before);
        });
    }
}
