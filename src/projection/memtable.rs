//! [`Memtable`]: recent writes in memory, every version of them.
//!
//! One writer (the committer), many readers. The writer inserts a transaction before it is published, and says before
//! (it announces) which keys that will be: readers never see it, because they read at a published position and every version carries its
//! own. A lock is held for one lookup, one transaction's inserts, or one bounded page of a scan, and
//! never across I/O.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use super::leaves::{Inserter, Leaves, Retracted, Slot, Version};
use super::ranges::RangeTombstones;
use super::run::Run;
use super::write_set::WriteSet;
use crate::types::{Position, Slice};

/// What an entry costs beside its bytes: its slot at the usual fill, two counted allocations until its leaf is packed.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 128;
/// What a further version of a key costs beside its bytes.
const VERSION_OVERHEAD_BYTES: usize = 48;

/// Keys are told apart by so many numbers where only the newest write of anything like them is asked for.
const WRITTEN_PLACES: usize = 1 << 16;

/// Writes inserted under one lock.
const LOCKED_WRITES_MAX: usize = 256;

/// Every write above a position, in order of keys.
#[derive(Debug)]
pub struct Memtable {
    floor: Position,
    map: RwLock<Map>,
    /// The newest write of any key with that number, announced or inserted.
    written: Box<[AtomicU64]>,
    /// The newest write that `written` does not tell of: a range delete, or the last one of a run.
    unplaced: AtomicU64,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Map {
    entries: Leaves,
    ranges: RangeTombstones,
}

/// What a memtable knows of a key at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has this value, written at this position.
    Value(Position, Slice),
    /// It was deleted at this position.
    Deleted(Position),
    /// Nothing: an older layer decides.
    Nothing,
}

/// One key of a page: its newest version at the position read.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub key: Slice,
    pub version: Position,
    pub value: Option<Slice>,
}

/// A version of a key: its position, and the value unless it is a delete.
pub(super) type KeyVersion = (Slice, Position, Option<Slice>);

/// A bounded run of keys, and where the next one begins.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub items: Vec<Item>,
    pub next: Option<Slice>,
}

impl Memtable {
    /// An empty memtable that will hold every write above `floor`.
    pub fn new(floor: Position) -> Memtable {
        let (entries, ranges) = (Leaves::default(), RangeTombstones::default());
        Memtable {
            floor,
            map: RwLock::new(Map { entries, ranges }),
            written: (0..WRITTEN_PLACES).map(|_| AtomicU64::new(0)).collect(),
            unplaced: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The position above which every write is here (or in a newer memtable).
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// An estimate of the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Inserts a transaction's writes at its position. A large one takes the lock several times, so readers
    /// get their turn; nobody reads at its position yet.
    pub fn insert(&self, position: Position, set: &WriteSet) {
        self.announce(position, set);
        self.insert_announced(position, set);
    }

    /// Says which keys a transaction writes, before it is inserted: from now on [`Memtable::may_be_written_since`] tells of it.
    pub fn announce(&self, position: Position, set: &WriteSet) {
        if !set.ranges.is_empty() {
            self.unplaced.fetch_max(position.0, Ordering::Relaxed);
        }
        for write in &set.writes {
            if let Some(newest) = self.written.get(written_place(&write.key)) {
                newest.fetch_max(position.0, Ordering::Relaxed);
            }
        }
    }

    /// As [`Memtable::insert`], of a transaction that was announced.
    pub fn insert_announced(&self, position: Position, set: &WriteSet) {
        let mut bytes = 0;
        let mut map = self.map.write();
        for (number, range) in set.ranges.iter().enumerate() {
            if number % LOCKED_WRITES_MAX == LOCKED_WRITES_MAX - 1 {
                RwLockWriteGuard::bump(&mut map);
            }
            bytes += range.prefix().len() + ENTRY_OVERHEAD_BYTES;
            map.ranges.insert(range, position);
        }
        for (number, write) in set.writes.iter().enumerate() {
            if number % LOCKED_WRITES_MAX == LOCKED_WRITES_MAX - 1 {
                RwLockWriteGuard::bump(&mut map);
            }
            let version = Version { position, value: write.value.clone().map(Slice::new) };
            bytes += insert(&mut map.entries.inserter(true), write.key.clone().into(), version);
        }
        drop(map);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Inserts the writes of a run. As with [`Memtable::insert`], nobody reads at its positions yet. They share its buffer until
    /// [`Memtable::pack`].
    pub fn insert_run(&self, run: Run) {
        let mut bytes = 0;
        let mut map = self.map.write();
        self.unplaced.fetch_max(run.last().0, Ordering::Relaxed);
        let mut writes = run.into_sorted().peekable();
        while writes.peek().is_some() {
            let mut entries = map.entries.inserter(false);
            for (key, version) in writes.by_ref().take(LOCKED_WRITES_MAX) {
                bytes += insert(&mut entries, key, version);
            }
            RwLockWriteGuard::bump(&mut map);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Lets go of the buffers of runs: what is left of them is brought together where its neighbours are. Others read and write meanwhile.
    pub fn pack(&self) {
        let mut place = Some((0, 0));
        while let Some(next) = place {
            // A leaf at a time: a few microseconds.
            place = self.map.write().entries.pack_from(next);
        }
    }

    /// Takes back a transaction that was inserted above `head` but not appended.
    pub fn retract(&self, head: Position, set: &WriteSet) {
        let mut bytes = 0;
        let mut map = self.map.write();
        for range in &set.ranges {
            bytes += map.ranges.retract(range, head) * (range.prefix().len() + ENTRY_OVERHEAD_BYTES);
        }
        for (number, write) in set.writes.iter().enumerate() {
            if number % LOCKED_WRITES_MAX == LOCKED_WRITES_MAX - 1 {
                RwLockWriteGuard::bump(&mut map);
            }
            let Retracted { versions, key } = map.entries.retract(&write.key, head);
            bytes += versions.iter().map(|version| version.bytes() + VERSION_OVERHEAD_BYTES).sum::<usize>();
            if key {
                // The first version of a key costs what an entry costs.
                bytes += write.key.len() + ENTRY_OVERHEAD_BYTES - VERSION_OVERHEAD_BYTES;
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is known of a key at a position.
    pub fn get(&self, key: &[u8], at: Position) -> Found {
        let map = self.map.read();
        let version = map.entries.get(key).and_then(|slot| slot.newest(at));
        let range = if map.ranges.is_empty() { None } else { map.ranges.covering(key, at) };
        match (version, range) {
            (Some(version), Some((range, _))) if range > version.position => Found::Deleted(range),
            (Some(Version { position, value: Some(value) }), _) => Found::Value(*position, value.fetched()),
            (Some(Version { position, value: None }), _) => Found::Deleted(*position),
            (None, Some((range, _))) => Found::Deleted(range),
            (None, None) => Found::Nothing,
        }
    }

    /// Whether a position above `since`, published or not, wrote the key or deleted a range around it. Nearly always answered
    /// without a search, so that the committer can ask it of every read. Of what is only announced it does not know.
    pub fn written_since(&self, key: &[u8], since: Position) -> bool {
        self.may_be_written_since(key, since)
            && match self.get(key, Position::MAX) {
                Found::Value(position, _) | Found::Deleted(position) => position > since,
                Found::Nothing => false,
            }
    }

    /// Whether a position above `since`, inserted or announced, may have written the key or deleted a range around it.
    pub fn may_be_written_since(&self, key: &[u8], since: Position) -> bool {
        let newer = |newest: &AtomicU64| newest.load(Ordering::Relaxed) > since.0;
        self.written.get(written_place(key)).is_some_and(newer) || newer(&self.unplaced)
    }

    /// Keys with `from <= key < to` (`to` empty: to the end) that have a version at `at`, deletes
    /// included; looks at no more than `limit` keys under the lock.
    pub(super) fn items(&self, from: &[u8], to: &[u8], at: Position, limit: usize) -> Items {
        let map = self.map.read();
        let mut items = Vec::new();
        let mut looked_at = 0;
        for run in map.entries.runs(from, to) {
            let (looked, rest) = run.split_at(run.len().min(limit - looked_at));
            looked_at += looked.len();
            Slot::fetch(looked);
            items.reserve(looked.len());
            let versions = looked.iter().filter_map(|slot| Some((&slot.key, slot.newest(at)?)));
            items.extend(versions.map(|(key, version)| Item {
                key: key.clone(),
                version: version.position,
                value: version.value.clone(),
            }));
            if let Some(next) = rest.first() {
                return Items { items, next: Some(next.key.clone()) };
            }
        }
        Items { items, next: None }
    }

    /// The newest range delete not above `at` that covers the key, and its prefix.
    pub(super) fn covering(&self, key: &[u8], at: Position) -> Option<(Position, Slice)> {
        let map = self.map.read();
        map.ranges.covering(key, at).map(|(position, prefix)| (position, prefix.into()))
    }

    /// The positions of all range deletes that cover the key, in no order.
    pub(super) fn all_covering(&self, key: &[u8]) -> Vec<Position> {
        self.map.read().ranges.all_covering(key)
    }

    /// Whether there are range deletes at all.
    pub(super) fn has_ranges(&self) -> bool {
        !self.map.read().ranges.is_empty()
    }

    /// All range deletes, by ascending position.
    pub(super) fn range_deletes(&self) -> Vec<(Position, Slice)> {
        let map = self.map.read();
        let mut ranges: Vec<(Position, Slice)> = map
            .ranges
            .iter()
            .flat_map(|(prefix, positions)| positions.iter().map(move |&position| (position, prefix.into())))
            .collect();
        ranges.sort();
        ranges
    }

    /// Versions of keys with `from <= key < to` (`to` empty: to the end), of one key newest first and of `from` only those below
    /// `below`: no more than `limit` under the lock. And where to go on: a key, and below which of its versions.
    pub(super) fn versions(
        &self,
        from: &[u8],
        below: Position,
        to: &[u8],
        limit: usize,
    ) -> (Vec<KeyVersion>, Option<(Slice, Position)>) {
        let mut found = Vec::new();
        if !to.is_empty() && from >= to {
            return (found, None);
        }
        let map = self.map.read();
        for slot in map.entries.runs(from, to).flatten() {
            let below = if slot.key[..] == *from { below } else { Position::MAX };
            for version in slot.versions_below(below) {
                if found.len() == limit {
                    return (found, Some((slot.key.clone(), version.position.next())));
                }
                found.push((slot.key.clone(), version.position, version.value.clone()));
            }
        }
        (found, None)
    }
}

/// Inserts a version, and gives what that costs, in bytes.
fn insert(entries: &mut Inserter<'_>, key: Slice, version: Version) -> usize {
    let (key_bytes, value_bytes) = (key.len(), version.bytes());
    value_bytes
        + match entries.insert(key, version) {
            true => key_bytes + ENTRY_OVERHEAD_BYTES,
            false => VERSION_OVERHEAD_BYTES,
        }
}

fn written_place(key: &[u8]) -> usize {
    crc32fast::hash(key) as usize % WRITTEN_PLACES
}
