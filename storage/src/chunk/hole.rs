//! Finding zeros.

/// Whether all bytes are zero. Runs at memory speed: whole blocks are or-ed together before one test.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<256>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        let any = words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word));
        if any != 0 {
            return false;
        }
    }
    rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_seen() {
        let mut bytes = vec![0_u8; 1000];
        assert!(is_zero(&bytes));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes), "at {at}");
            bytes[at] = 0;
        }
    }
}
