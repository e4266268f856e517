//! Seeded keys and values of the size that a data-versioning server has.

/// Partition and key together.
pub(super) const KEY_BYTES: usize = 39;
/// A value.
pub(super) const VALUE_BYTES: usize = 200;
/// A record of a bare loop: what a `set` of such a key and value takes encoded, about.
pub(super) const RECORD_BYTES: usize = 256;
/// The partition that everything lies in.
pub(super) const PARTITION: &[u8] = b"bench";

const NOISE_BYTES: usize = 1 << 20;

/// Partition and key of the `i`-th entry, one behind the other. Neighbours by number lie far apart by key.
pub(super) fn pair(i: u64) -> [u8; KEY_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pair = *b"bench-----------------branch-----------";
    for (place, &number) in [scattered(i), i].iter().enumerate() {
        for digit in 0..16 {
            let at = [PARTITION.len(), PARTITION.len() + 18][place] + digit;
            if let Some(byte) = pair.get_mut(at) {
                *byte = DIGITS[(number >> (60 - 4 * digit)) as usize & 15];
            }
        }
    }
    pair
}

/// The key of a pair.
pub(super) fn key(pair: &[u8; KEY_BYTES]) -> &[u8] {
    pair.split_at(PARTITION.len()).1
}

/// A number that looks random; each `i` gives another one (splitmix64).
pub(super) fn scattered(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Values without end, each a part of one block of noise.
#[derive(Clone, Debug)]
pub(super) struct Noise(std::sync::Arc<[u8]>);

impl Noise {
    /// Always the same noise.
    pub fn seeded() -> Noise {
        Noise((0..NOISE_BYTES as u64 / 8).flat_map(|i| scattered(!i).to_le_bytes()).collect())
    }

    /// The value of the `i`-th entry.
    pub fn value(&self, i: u64) -> &[u8] {
        self.bytes(i, VALUE_BYTES)
    }

    /// The record of the `i`-th write of a bare loop.
    pub fn record(&self, i: u64) -> &[u8] {
        self.bytes(i, RECORD_BYTES)
    }

    fn bytes(&self, i: u64, len: usize) -> &[u8] {
        let start = scattered(i) as usize % (self.0.len() - len);
        &self.0[start..start + len]
    }
}
