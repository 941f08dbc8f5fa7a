//! Fingerprints of segments: to see at memory speed that one did not change.
//!
//! A fingerprint is the AEGIS-128L MAC of a whole segment under a key of the vault, kept beside the leaf's name in the node above. A segment with
//! the parent's fingerprint is taken to be the parent's, and is neither cut nor hashed: reading an unchanged disk then costs what reading
//! memory costs, a tenth of naming its chunks.
//!
//! Why that is safe: under a key that nobody outside has, two different segments share a 128-bit tag with probability 2⁻¹²⁸, and someone who
//! chooses content without the key (in a guest, say) cannot do better than guess, once for each backup of a segment. Each segment is compared
//! with one other only, the one at the same place in the parent, so there is no birthday to be had.

use aegis::aegis128l::Aegis128LMac;

use crate::keys::Key;

/// The MAC of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It would answer guesses of content for who sees a log.
        f.write_str("Fingerprint(…)")
    }
}

/// Takes the fingerprints of one vault. Cheap to clone; holds their key.
#[derive(Clone)]
pub struct Fingerprinter {
    mac: Aegis128LMac<16>,
}

impl std::fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprinter(…)")
    }
}

impl Fingerprinter {
    /// Makes one for a vault's `K_cut`.
    pub fn new(cut: &Key) -> Self {
        let derived = cut.derive("tresor v1 segment fingerprint", &[]);
        let mut key = [0; 16];
        key.copy_from_slice(&derived.expose()[..16]);
        Self {
            mac: Aegis128LMac::new(&key),
        }
    }

    /// The fingerprint of a segment, which the disk's end may have cut short (then in whole grains).
    pub fn of(&self, segment: &[u8]) -> Fingerprint {
        let mut mac = self.mac.clone();
        mac.update(segment);
        Fingerprint(mac.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_a_length_and_the_key_change_it() {
        let key = Key::from_bytes([7; 32]);
        let prints = Fingerprinter::new(&key);
        let segment = vec![3; 8192];
        let print = prints.of(&segment);
        assert_eq!(prints.of(&segment), print);
        for bit in [0, 8191 * 8 + 7, 4096 * 8] {
            let mut other = segment.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(prints.of(&other), print, "bit {bit}");
        }
        assert_ne!(prints.of(&segment[..4096]), print);
        assert_ne!(Fingerprinter::new(&Key::from_bytes([8; 32])).of(&segment), print);
    }
}
