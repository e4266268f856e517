//! A Bloom filter over the keys of one block: most gets of absent keys end here, without reading.
//!
//! Ten bits a key, six probes: about one in a hundred absent keys passes. The probes are part of the
//! format.

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 6;
/// Below, few keys would share too few bits.
const FILTER_BYTES_MIN: usize = 8;

/// What is remembered of a key: its CRC-32.
pub(super) fn hash(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// The filter over the keys with these hashes.
pub(super) fn build(hashes: &[u32]) -> Vec<u8> {
    let mut filter = vec![0; (hashes.len() * BITS_PER_KEY).div_ceil(8).max(FILTER_BYTES_MIN)];
    for &hash in hashes {
        for (byte, mask) in probes(hash, filter.len()) {
            if let Some(byte) = filter.get_mut(byte) {
                *byte |= mask;
            }
        }
    }
    filter
}

/// `false` when the key is certainly not among those of the filter.
pub(super) fn may_hold(filter: &[u8], hash: u32) -> bool {
    probes(hash, filter.len()).all(|(byte, mask)| filter.get(byte).is_none_or(|byte| byte & mask != 0))
}

/// The byte and the bit of each probe: `hash + i * (hash rotated right by 17)` modulo the bits.
fn probes(hash: u32, filter_len: usize) -> impl Iterator<Item = (usize, u8)> {
    let bits = (filter_len as u64 * 8).max(1);
    let step = hash.rotate_right(17);
    (0..PROBES).map(move |probe| {
        let bit = u64::from(hash.wrapping_add(step.wrapping_mul(probe))) % bits;
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_its_keys_and_few_others() {
        for count in [1u32, 3, 17, 290] {
            let own: Vec<u32> = (0..count).map(|n| hash(format!("repo/{n}").as_bytes())).collect();
            let filter = build(&own);
            assert!(own.iter().all(|&hash| may_hold(&filter, hash)));
            let passed = (0..10_000).filter(|n| may_hold(&filter, hash(format!("other/{n}").as_bytes()))).count();
            assert!(passed < 300, "{passed} of 10000 with {count} keys");
        }
        assert!(may_hold(&[], 7), "no filter excludes nothing");
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hash(b"123456789"), 0xcbf4_3926);
        // Step 0x1c9365fa: bits 38, 32, 26, 20, 14, 8.
        assert_eq!(build(&[0xcbf4_3926]), [0, 1 | 1 << 6, 1 << 4, 1 << 2, 1 | 1 << 6, 0, 0, 0]);
    }
}
