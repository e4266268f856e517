//! [`Run`]: the writes of many transactions, brought into the order of their keys.
//!
//! What is replayed goes into the memtable in runs: neighbours are then found without a search, and what one thread
//! makes and another one takes is one buffer instead of two allocations for every write.

use std::sync::Arc;

use super::leaves::Version;
use super::memtable::ENTRY_OVERHEAD_BYTES;
use super::write_set::{Write, WriteSet};
use crate::event::Event;
use crate::types::{Key, Position, Slice};

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
    /// Adds a transaction; `false`, with nothing added, when it is one that no run takes, and has to be inserted by itself: it deletes
    /// ranges, has large values, or meets a full run.
    pub fn push(&mut self, position: Position, set: &WriteSet) -> bool {
        let writes = set
            .writes
            .iter()
            .map(|Write { key, value }| (value.as_deref(), |to: &mut Vec<u8>| to.extend_from_slice(key)));
        set.ranges.is_empty() && self.put_all(position, set.writes.len(), writes, |_| true)
    }

    /// The same of events, which write what [`project_events`](super::project_events) says, without making it first; none is taken but
    /// sets and deletes of keys that, encoded, pass `takes`.
    pub fn push_events(&mut self, position: Position, events: &[Event], takes: impl Fn(&[u8]) -> bool) -> bool {
        let plain = |event: &Event| matches!(event, Event::Set { .. } | Event::Delete { .. });
        let writes = events.iter().filter_map(|event| {
            let (partition, key, value) = match event {
                Event::Set { partition, key, value } => (partition, key, Some(&value[..])),
                Event::Delete { partition, key } => (partition, key, None),
                _ => return None,
            };
            Some((value, move |to: &mut Vec<u8>| Key::encode_into(partition, key, to)))
        });
        events.iter().all(plain) && self.put_all(position, events.len(), writes, takes)
    }

    fn put_all<'a>(
        &mut self,
        position: Position,
        count: usize,
        writes: impl Iterator<Item = (Option<&'a [u8]>, impl FnOnce(&mut Vec<u8>))>,
        takes: impl Fn(&[u8]) -> bool,
    ) -> bool {
        if self.writes.len() + count > WRITES_MAX {
            return false;
        }
        let (bytes, before) = (self.bytes.len(), self.writes.len());
        for (value, put_key) in writes {
            let start = self.bytes.len();
            put_key(&mut self.bytes);
            let middle = self.bytes.len();
            let value_len = value.map(<[u8]>::len);
            let small = middle - start + value_len.unwrap_or(0) <= WRITE_BYTES_MAX;
            if !small || !self.bytes.get(start..).is_some_and(&takes) {
                self.bytes.truncate(bytes);
                self.writes.truncate(before);
                return false;
            }
            self.bytes.extend_from_slice(value.unwrap_or_default());
            // No more than all writes at their largest, and so far below the limit.
            let short = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
            let (start, key_len) = (short(start), short(middle - start));
            self.writes.push(Packed { position, start, key_len, value_len: value_len.map(short) });
        }
        true
    }

    /// The last position that wrote.
    pub(super) fn last(&self) -> Position {
        self.writes.last().map_or(Position::ZERO, |write| write.position)
    }

    /// About what it adds to a memtable, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.writes.len() * ENTRY_OVERHEAD_BYTES
    }

    /// The writes by key, those of one key by position.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (Slice, Version)> {
        let Run { bytes, writes } = self;
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
        let mut order: Vec<(u64, Packed)> = writes.into_iter().map(|write| (head(&write), write)).collect();
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
    use crate::projection::{Memtable, project_events};
    use crate::types::KeyRange;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let tail = prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..3);
        let key = (prop::sample::select(vec![&b"k"[..], b"repo/", b"repo/branch/object"]), tail)
            .prop_map(|(beginning, tail)| [beginning, &tail].concat());
        let partition = prop::sample::select(vec![&b"p"[..], b"p\0", b"p\0\0q"]);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
        prop::collection::btree_map((partition, key), value, 0..9).prop_map(|writes| {
            let events = writes.into_iter().map(|((partition, key), value)| match value {
                Some(value) => Event::Set { partition: partition.into(), key: key.into(), value: value.into() },
                None => Event::Delete { partition: partition.into(), key: key.into() },
            });
            events.collect()
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
            transactions in prop::collection::vec(events(), 0..200),
            runs in 1usize..4,
            of_events in any::<bool>(),
            pack in any::<bool>(),
        ) {
            let (single, together) = (Memtable::new(Position::ZERO), Memtable::new(Position::ZERO));
            let each = transactions.len() / runs + 1;
            for (number, chunk) in transactions.chunks(each).enumerate() {
                let mut run = Run::default();
                for (at, events) in chunk.iter().enumerate() {
                    let position = Position((number * each + at + 1) as u64);
                    let set = project_events(events, Vec::new());
                    single.insert(position, &set);
                    match of_events {
                        true => prop_assert!(run.push_events(position, events, |_| true)),
                        false => prop_assert!(run.push(position, &set)),
                    }
                }
                together.insert_run(run);
                if pack {
                    together.pack();
                }
            }
            prop_assert_eq!(all(&together), all(&single));
            let head = Position(transactions.len() as u64);
            for (key, position, _) in all(&single).0 {
                for since in [Position::ZERO, position.previous(), position, head] {
                    prop_assert_eq!(together.written_since(&key, since), single.written_since(&key, since));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut run = Run::default();
        let write = |len: usize| Write { key: Key::new(b"p", b"k"), value: Some(vec![0; len].into()) };
        let with = |ranges: Vec<KeyRange>, writes: Vec<Write>| WriteSet { ranges, writes };
        assert!(!run.push(Position(1), &with(vec![KeyRange::new(b"p", b"")], vec![write(1)])));
        assert!(!run.push(Position(1), &with(vec![], vec![write(1), write(WRITE_BYTES_MAX)])));
        let event = |value: usize| Event::Set {
            partition: b"p"[..].into(),
            key: b"k"[..].into(),
            value: vec![0; value].into(),
        };
        assert!(!run.push_events(Position(1), &[event(1), event(WRITE_BYTES_MAX)], |_| true));
        assert!(!run.push_events(Position(1), &[event(1), event(1)], |key| key != b"p\0\x01k"));
        let range = Event::DeleteRange { partition: b"p"[..].into(), prefix: b""[..].into() };
        assert!(!run.push_events(Position(1), &[event(1), range], |_| true));
        assert!(run.writes.is_empty() && run.bytes() == 0);
        let writes = vec![write(1); WRITES_MAX];
        assert!(run.push(Position(1), &with(vec![], writes)));
        assert!(!run.push(Position(2), &with(vec![], vec![write(1)])));
    }
}
