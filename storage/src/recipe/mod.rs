//! Recipes: the ordered chunk tree of one disk.
//!
//! A [`Leaf`] tiles one segment with holes and chunks, a [`Node`] has up to 256 leaves or nodes, a [`Root`] names a whole disk. All are named by
//! what they say of content; hints of where things lie travel beside and are no part of a name. Equal roots mean equal disks.

mod builder;
mod hints;
mod leaf;
mod leaves;
mod name;
mod node;
mod root;
mod tree;

pub use builder::{NodeSink, Parent, TreeBuilder};
pub use leaf::{Entry, Leaf, leaf_id};
pub use leaves::{LeafRun, RangeLeaf};
pub(crate) use name::name_of;
pub use node::{Child, Node};
pub use root::{Root, location_from_stored, location_to_stored, writer_from_stored, writer_to_stored};
pub use tree::{NodeSource, Tree, diff};
