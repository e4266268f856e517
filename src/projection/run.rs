//! [`Run`]: the writes of many transactions, brought into the order of their keys.
//!
//! What is replayed goes into the memtable in runs: neighbours are then found without a search, and what one thread
//! makes and another one takes is one buffer instead of two allocations for every write.

use std::sync::Arc;

use super::leaves::Version;
use super::memtable::ENTRY_OVERHEAD_BYTES;
use super::write_set::{Write, WriteSet};
use crate::types::{Position, Slice};

/// Keys and values above so many bytes together are better shared than copied.
const WRITE_BYTES_MAX: usize = 1024;
/// Writes of a run at most.
const WRITES_MAX: usize = 1 << 16;

/// Writes of transactions that follow each other.
#[derive(Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    writes: Vec<Packed>,
}

/// A write whose key lies at `start`, and behind it the value, if it has one.
#[derive(Clone, Copy, Debug)]
struct Packed {
    position: Position,
    start: u32,
    key_len: u32,
    value_len: Option<u32>,
}

impl Run {
    /// Adds a transaction; `false` when it is one that no run takes, and has to be inserted by itself: it deletes ranges, has
    /// large values, or meets a full run.
    pub fn push(&mut self, position: Position, set: &WriteSet) -> bool {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let small =
            |write: &Write| write.key.len() + write.value.as_ref().map_or(0, |value| value.len()) <= WRITE_BYTES_MAX;
        let fits = self.writes.len() + set.writes.len() <= WRITES_MAX;
        if !fits || !set.ranges.is_empty() || !set.writes.iter().all(small) {
            return false;
        }
        for write in &set.writes {
            let start = len(&self.bytes);
            self.bytes.extend_from_slice(&write.key);
            self.bytes.extend_from_slice(write.value.as_deref().unwrap_or_default());
            let value_len = write.value.as_deref().map(len);
            self.writes.push(Packed { position, start, key_len: len(&write.key), value_len });
        }
        true
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// About what it adds to a memtable, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.writes.len() * ENTRY_OVERHEAD_BYTES
    }

    /// The writes by key, those of one key by position.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (Slice, Version)> {
        let Run { bytes, mut writes } = self;
        let key =
            |write: &Packed| bytes.get(write.start as usize..).and_then(|rest| rest.get(..write.key_len as usize));
        // Neighbours begin alike; what tells them apart is compared as a number.
        let first = writes.first().and_then(key).unwrap_or_default();
        let common = |shared: usize, write: &Packed| {
            first.iter().zip(key(write).unwrap_or_default()).take(shared).take_while(|(a, b)| a == b).count()
        };
        let shared = writes.iter().fold(first.len(), common);
        let head = |write: &Packed| {
            let rest = key(write).and_then(|key| key.get(shared..)).unwrap_or_default();
            let mut head = [0; 8];
            head.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(head)
        };
        let mut order: Vec<(u64, Packed)> = writes.drain(..).map(|write| (head(&write), write)).collect();
        order.sort_unstable_by(|(head_a, a), (head_b, b)| {
            head_a.cmp(head_b).then_with(|| key(a).cmp(&key(b))).then_with(|| a.position.cmp(&b.position))
        });
        let buffer = Slice::new(Arc::from(bytes));
        order.into_iter().map(move |(_, write)| {
            let (start, middle) = (write.start as usize, (write.start + write.key_len) as usize);
            let value = write.value_len.map(|len| buffer.part(middle..middle + len as usize));
            (buffer.part(start..middle), Version { position: write.position, value })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::projection::Memtable;
    use crate::types::{Key, KeyRange};

    fn set() -> impl Strategy<Value = WriteSet> {
        let tail = prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..3);
        let key = (prop::sample::select(vec![&b"k"[..], b"repo/", b"repo/branch/object"]), tail)
            .prop_map(|(beginning, tail)| Key::new(b"p", &[beginning, &tail].concat()));
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
        prop::collection::btree_map(key, value, 0..9).prop_map(|writes| {
            let write = |(key, value): (Key, Option<Vec<u8>>)| Write { key, value: value.map(Arc::from) };
            WriteSet { ranges: Vec::new(), writes: writes.into_iter().map(write).collect() }
        })
    }

    type Versions = Vec<(Vec<u8>, Position, Option<Vec<u8>>)>;

    fn all(table: &Memtable) -> (Versions, usize) {
        let (versions, next) = table.versions(b"", Position::MAX, b"", usize::MAX);
        assert!(next.is_none());
        let plain = |(key, position, value): (Slice, Position, Option<Slice>)| {
            (key.to_vec(), position, value.map(|value| value.to_vec()))
        };
        (versions.into_iter().map(plain).collect(), table.bytes())
    }

    proptest! {
        #[test]
        fn a_run_writes_what_its_transactions_write(
            sets in prop::collection::vec(set(), 0..200),
            runs in 1usize..4,
            pack in any::<bool>(),
        ) {
            let (single, together) = (Memtable::new(Position::ZERO), Memtable::new(Position::ZERO));
            let each = sets.len() / runs + 1;
            for (number, chunk) in sets.chunks(each).enumerate() {
                let mut run = Run::default();
                for (at, set) in chunk.iter().enumerate() {
                    let position = Position((number * each + at + 1) as u64);
                    single.insert(position, set);
                    prop_assert!(run.push(position, set));
                }
                together.insert_run(run);
                if pack {
                    together.pack();
                }
            }
            prop_assert_eq!(all(&together), all(&single));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut run = Run::default();
        let write = |len: usize| Write { key: Key::new(b"p", b"k"), value: Some(vec![0; len].into()) };
        let with = |ranges: Vec<KeyRange>, writes: Vec<Write>| WriteSet { ranges, writes };
        assert!(!run.push(Position(1), &with(vec![KeyRange::new(b"p", b"")], vec![write(1)])));
        assert!(!run.push(Position(1), &with(vec![], vec![write(1), write(WRITE_BYTES_MAX)])));
        assert!(run.is_empty() && run.bytes() == 0);
        let writes = vec![write(1); WRITES_MAX];
        assert!(run.push(Position(1), &with(vec![], writes)));
        assert!(!run.push(Position(2), &with(vec![], vec![write(1)])));
    }
}
