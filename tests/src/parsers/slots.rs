//! What workers read of each other's slots of the index: checkpoints in the store, and lists of packs.

use tresor_storage::ids::{ChunkId, PackId};
use tresor_storage::index::Found;
use tresor_storage::index::checkpoint::{Entries, Head, PackSet, Piece};
use tresor_storage::index::rebuild::PackList;

use super::{PACK_ID, location};
use crate::random::Random;

pub(super) fn slot_checkpoint(bytes: &[u8]) {
    if let Ok(piece) = Piece::decode(bytes) {
        // Not the same bytes: a writer that no entry names is left out.
        assert_eq!(Piece::decode(&piece.encode()), Ok(piece));
    }
}

pub(super) fn checkpoint_sample(random: &mut Random) -> Vec<u8> {
    let piece = match random.below(3) {
        0 => Piece::Head(Head {
            slots: random.bits() | 1,
            entries: 5,
            packs: 7,
            pack_pieces: 1 + random.below(3) as u32,
            spans: (0..1 + random.below(20) as u8).map(|slot| (slot, slot + 1)).collect(),
        }),
        1 => {
            let mut set = PackSet::default();
            for seq in (0..30).filter(|_| random.one_in(2)) {
                set.push(PackId { seq, ..PACK_ID });
            }
            Piece::Packs(set)
        }
        _ => {
            let found = |n: u8| Found {
                id: ChunkId([n; 32]),
                location: location(random),
                is_lost: n.is_multiple_of(3),
            };
            Piece::Entries(Entries((0..9).map(found).collect()))
        }
    };
    piece.encode()
}

pub(super) fn pack_list(bytes: &[u8]) {
    if let Ok(list) = PackList::decode(bytes) {
        assert_eq!(list.encode(), bytes);
        assert!(list.iter().all(|(pack, length)| list.length(pack) == Some(length)));
    }
}

pub(super) fn pack_list_sample(random: &mut Random) -> PackList {
    let packs = (0..random.below(30)).map(|_| {
        let seq = random.below(50) as u32;
        (PackId { seq, ..PACK_ID }, random.bits() as u32)
    });
    packs.collect()
}
