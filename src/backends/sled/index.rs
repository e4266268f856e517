//! [`Index`]: where the blocks of a generation are and which keys they hold, kept in memory; and the
//! generation's range deletes.
//!
//! ```text
//!   index    fence count u32 | fences | range count u32 | ranges
//!   fence    chunk u32 | encoded length u32 | checksum u32 | flags u8 (1: continues) | version u64 if it continues
//!            | key length u16 | key | filter length u16 | filter
//!   range    version u64 | prefix length u16 | prefix
//! ```
//!
//! A fence's key is the shortest that is above every key of the block before and not above the first
//! of its own. A block `continues` when its first row has the key of the last row before it; its fence then has that
//! row's version, so that one of very many versions of a key is found by search.

use super::bytes::{take, take_bytes, take_u16, take_u32, take_u64};
use super::filter;
use crate::backends::ranges::Ranges;
use crate::types::{Heads, Position, Slice};

/// What the index knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockAt {
    /// The number of its first chunk.
    pub(super) chunk: u32,
    /// The length of its stored form, in bytes.
    pub(super) encoded_len: u32,
    /// The checksum of its stored form.
    pub(super) checksum: u32,
}

#[derive(Clone, Copy, Debug)]
struct Fence {
    block: BlockAt,
    key_start: usize,
    key_len: u16,
    filter_len: u16,
    /// The version of the first row, when it has the key of the row before.
    continues: Option<Position>,
}

/// Fences whose heads lie side by side.
const GROUP_FENCES: usize = 128;

/// The blocks of a generation in key order. Keys and filters lie in one buffer: a fence costs 36 bytes
/// beside them.
#[derive(Debug, Default)]
pub(super) struct Fences {
    fences: Vec<Fence>,
    /// Of each [`GROUP_FENCES`] fences, once all are there.
    groups: Vec<Heads>,
    /// For each fence its key, then its filter.
    bytes: Vec<u8>,
}

/// The whole index.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) fences: Fences,
    pub(super) ranges: Ranges,
}

const CONTINUES: u8 = 1;

impl Fences {
    pub(super) fn push(&mut self, block: BlockAt, key: &[u8], continues: Option<Position>, filter: &[u8]) {
        // Keys are checked to fit two bytes when they are written; a block's filter is far shorter.
        let (key_len, filter_len) = (key.len() as u16, filter.len() as u16);
        self.fences.push(Fence { block, key_start: self.bytes.len(), key_len, filter_len, continues });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(filter);
    }

    pub(super) fn len(&self) -> usize {
        self.fences.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<BlockAt> {
        self.fences.get(index).map(|fence| fence.block)
    }

    /// Whether the block at `index` may hold `key` or something above it only.
    pub(super) fn begins_above(&self, index: usize, key: &[u8]) -> bool {
        self.fences.get(index).is_none_or(|fence| self.key(fence) > key)
    }

    /// The first block that may hold `key`; without one, the first that may hold anything above.
    pub(super) fn seek(&self, key: &[u8]) -> usize {
        let first = self.first_not_below(key);
        match self.fences.get(first).filter(|fence| self.key(fence) == key) {
            // Nothing before it holds the key, unless it goes on with one that began there.
            Some(fence) if fence.continues.is_none() => first,
            _ => first.saturating_sub(1),
        }
    }

    /// The last block at or behind `from`, the result of [`Fences::seek`], that may hold a version above `at` of the key;
    /// the rows not above it follow there or in the next. Without very many versions that is `from`.
    pub(super) fn seek_version(&self, from: usize, key: &[u8], at: Position) -> usize {
        let behind = self.fences.get(from + 1..).unwrap_or_default();
        let newer = |fence: &Fence| fence.continues.is_some_and(|version| version > at) && self.key(fence) == key;
        match behind.first().is_some_and(newer) {
            true => from + behind.partition_point(newer),
            false => from,
        }
    }

    /// Makes ready for searches, after the last fence.
    fn settle(&mut self) {
        let groups = self.fences.chunks(GROUP_FENCES).enumerate();
        let groups = groups.filter_map(|(number, group)| {
            let end = self.fences.get((number + 1) * GROUP_FENCES).map(|fence| self.key(fence));
            let keys = group.iter().map(|fence| self.key(fence));
            Some(Heads::new(self.key(group.first()?), end, keys))
        });
        self.groups = groups.collect();
    }

    /// The first fence whose key is not below `key`; behind the last, when all are.
    fn first_not_below(&self, key: &[u8]) -> usize {
        let key_at = |at: usize| self.fences.get(at).map_or(&[][..], |fence| self.key(fence));
        let (mut low, mut high) = (0, self.groups.len());
        while low < high {
            let middle = low.midpoint(high);
            match key_at(middle * GROUP_FENCES) < key {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        // The last group that begins below the key: in it, or at the beginning of the next.
        let Some(group) = low.checked_sub(1) else { return 0 };
        let start = group * GROUP_FENCES;
        start + self.groups.get(group).map_or(0, |heads| heads.first_not_below(key, |at| key_at(start + at)))
    }

    /// Whether the block at `index` may hold a key with that hash.
    pub(super) fn may_hold(&self, index: usize, hash: u32) -> bool {
        self.fences.get(index).is_some_and(|fence| filter::may_hold(self.filter(fence), hash))
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        let heads: usize = self.groups.iter().map(Heads::memory_bytes).sum();
        (self.fences.capacity() * size_of::<Fence>() + heads + self.bytes.capacity()) as u64
    }

    fn key(&self, fence: &Fence) -> &[u8] {
        self.bytes.get(fence.key_start..fence.key_start + usize::from(fence.key_len)).unwrap_or_default()
    }

    fn filter(&self, fence: &Fence) -> &[u8] {
        let start = fence.key_start + usize::from(fence.key_len);
        self.bytes.get(start..start + usize::from(fence.filter_len)).unwrap_or_default()
    }
}

impl Index {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.fences.bytes.len() + self.fences.len() * 17 + 8);
        bytes.extend_from_slice(&(self.fences.len() as u32).to_le_bytes());
        for fence in &self.fences.fences {
            for number in [fence.block.chunk, fence.block.encoded_len, fence.block.checksum] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.push(if fence.continues.is_some() { CONTINUES } else { 0 });
            fence.continues.iter().for_each(|version| bytes.extend_from_slice(&version.0.to_le_bytes()));
            bytes.extend_from_slice(&fence.key_len.to_le_bytes());
            bytes.extend_from_slice(self.fences.key(fence));
            bytes.extend_from_slice(&fence.filter_len.to_le_bytes());
            bytes.extend_from_slice(self.fences.filter(fence));
        }
        bytes.extend_from_slice(&(self.ranges.list().len() as u32).to_le_bytes());
        for (prefix, version) in self.ranges.list() {
            bytes.extend_from_slice(&version.0.to_le_bytes());
            bytes.extend_from_slice(&(prefix.len() as u16).to_le_bytes());
            bytes.extend_from_slice(prefix);
        }
        bytes
    }

    /// `None` when the bytes are damaged. Counts are not believed: memory grows with what is there.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Index> {
        let bytes = &mut bytes;
        let mut fences = Fences::default();
        for _ in 0..take_u32(bytes)? {
            let block = BlockAt { chunk: take_u32(bytes)?, encoded_len: take_u32(bytes)?, checksum: take_u32(bytes)? };
            let continues = match take(bytes)? {
                [0] => None,
                [CONTINUES] => Some(Position(take_u64(bytes)?)),
                _ => return None,
            };
            let (key, filter) = (short(bytes)?, short(bytes)?);
            fences.push(block, key, continues, filter);
        }
        fences.settle();
        let mut ranges = Vec::new();
        for _ in 0..take_u32(bytes)? {
            let version = Position(take_u64(bytes)?);
            ranges.push((Slice::from(short(bytes)?), version));
        }
        bytes.is_empty().then(|| Index { fences, ranges: Ranges::new(ranges) })
    }
}

/// The shortest key above `last` and not above `first`, where `last < first`.
pub(super) fn separator<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    let common = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    first.get(..=common).unwrap_or(first)
}

fn short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(take_u16(bytes)?);
    take_bytes(bytes, len)
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    fn block(chunk: u32) -> BlockAt {
        BlockAt { chunk, encoded_len: 0x0102, checksum: 0xdead_beef }
    }

    #[test]
    fn golden_bytes() {
        let mut fences = Fences::default();
        fences.push(block(0), b"", None, b"");
        fences.push(block(3), b"ab", Some(Position(5)), b"\x07\x08");
        let index = Index { fences, ranges: Ranges::new(vec![(b"p"[..].into(), Position(9))]) };
        let expected = [
            &b"\x02\0\0\0"[..],
            b"\0\0\0\0\x02\x01\0\0\xef\xbe\xad\xde\0\0\0\0\0",
            b"\x03\0\0\0\x02\x01\0\0\xef\xbe\xad\xde\x01\x05\0\0\0\0\0\0\0\x02\0ab\x02\0\x07\x08",
            b"\x01\0\0\0\x09\0\0\0\0\0\0\0\x01\0p",
        ]
        .concat();
        assert_eq!(index.encode(), expected);
        assert_eq!(Index::decode(&expected).unwrap().encode(), expected);
        for len in 0..expected.len() {
            assert!(Index::decode(&expected[..len]).is_none(), "cut at {len}");
        }
        assert!(Index::decode(&[&expected[..], b"\0"].concat()).is_none());
    }

    #[test]
    fn seeks_go_back_over_blocks_that_continue() {
        let mut fences = Fences::default();
        for (chunk, (key, continues)) in
            [("", None), ("b", None), ("d", Some(90)), ("d", Some(50)), ("e", None)].into_iter().enumerate()
        {
            fences.push(block(chunk as u32), key.as_bytes(), continues.map(Position), b"");
        }
        fences.settle();
        for (key, index) in [("", 0), ("a", 0), ("b", 1), ("c", 1), ("d", 1), ("da", 3), ("e", 4), ("z", 4)] {
            assert_eq!(fences.seek(key.as_bytes()), index, "{key}");
        }
        assert_eq!(Fences::default().seek(b"a"), 0);
        for (at, index) in [(99, 1), (90, 1), (89, 2), (50, 2), (49, 3), (0, 3)] {
            assert_eq!(fences.seek_version(1, b"d", Position(at)), index, "{at}");
        }
        assert_eq!(fences.seek_version(1, b"c", Position(0)), 1);
        assert_eq!(fences.seek_version(4, b"e", Position(0)), 4);
    }

    proptest! {
        #[test]
        fn separators_separate(a in prop::collection::vec(0u8..3, 0..6), b in prop::collection::vec(0u8..3, 0..6)) {
            prop_assume!(a != b);
            let (last, first) = if a < b { (a, b) } else { (b, a) };
            let key = separator(&last, &first);
            prop_assert!(key > &last[..] && key <= &first[..]);
        }

        #[test]
        fn seeks_over_many_groups(keys in prop::collection::btree_set("[ab]{0,3}[a-z]{1,3}", 0..600), sought in "[ab]{0,3}[a-z]{0,3}") {
            let mut fences = Fences::default();
            keys.iter().for_each(|key| fences.push(block(0), key.as_bytes(), None, b""));
            fences.settle();
            for key in keys.iter().step_by(7).chain([&sought]) {
                let expected = keys.range::<str, _>((Bound::Unbounded, Bound::Included(&key[..]))).count();
                prop_assert_eq!(fences.seek(key.as_bytes()), expected.saturating_sub(1));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Index::decode(&bytes);
        }
    }
}
