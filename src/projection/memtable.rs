//! [`Memtable`]: recent writes in memory, every version of them.
//!
//! One writer (the committer), many readers. The writer inserts a transaction before it is synced:
//! readers never see it, because they read at a published position and every version carries its
//! own. A lock is held for one lookup, one transaction's inserts, or one bounded page of a scan, and
//! never across I/O.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use super::ranges::RangeTombstones;
use super::write_set::{Write, WriteSet};
use crate::types::{Key, Position, Slice};

/// Entries of a page whose memory is fetched at once.
const FETCHED_AHEAD: usize = 64;
/// What an entry costs beside its bytes: map slot at the usual fill, two counted allocations.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// What a further version of a key costs beside its bytes.
const VERSION_OVERHEAD_BYTES: usize = 48;

/// Writes inserted under one lock.
const LOCKED_WRITES_MAX: usize = 256;

/// Every write above a position, in order of keys.
#[derive(Debug)]
pub struct Memtable {
    floor: Position,
    map: RwLock<Map>,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Map {
    entries: BTreeMap<Key, Versions>,
    ranges: RangeTombstones,
}

/// The versions of one key. Nearly all keys have one: that case allocates nothing.
#[derive(Debug)]
enum Versions {
    One(Version),
    /// Ascending positions.
    Many(Vec<Version>),
}

/// One version: a value, or that the key is gone.
#[derive(Clone, Debug)]
struct Version {
    position: Position,
    value: Option<Arc<[u8]>>,
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

impl Version {
    /// The bytes of its value.
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

impl Versions {
    fn as_slice(&self) -> &[Version] {
        match self {
            Versions::One(version) => std::slice::from_ref(version),
            Versions::Many(versions) => versions,
        }
    }

    fn newest(&self, at: Position) -> Option<&Version> {
        // Searched, not walked: a key may have very many versions, and a reader may stand far below them.
        let versions = self.as_slice();
        versions.get(..versions.partition_point(|version| version.position <= at))?.last()
    }

    /// Adds a version in its place; a second one at the same position replaces the first.
    fn insert(&mut self, version: Version) {
        let versions = match self {
            Versions::Many(versions) => versions,
            Versions::One(only) => {
                let only = only.clone();
                *self = Versions::Many(vec![only]);
                let Versions::Many(versions) = self else { return };
                versions
            }
        };
        match versions.binary_search_by_key(&version.position, |version| version.position) {
            Ok(at) => versions[at] = version,
            Err(at) => versions.insert(at, version),
        }
    }
}

impl Memtable {
    /// An empty memtable that will hold every write above `floor`.
    pub fn new(floor: Position) -> Memtable {
        Memtable { floor, map: RwLock::default(), bytes: AtomicUsize::new(0) }
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
            bytes += insert_write(&mut map.entries, position, write);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
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
            let Slot::Occupied(mut slot) = map.entries.entry(write.key.clone()) else { continue };
            let versions = slot.get().as_slice();
            let kept = versions.partition_point(|version| version.position <= head);
            let (kept, taken) = versions.split_at(kept);
            bytes += taken.iter().map(|version| version.bytes() + VERSION_OVERHEAD_BYTES).sum::<usize>();
            if kept.is_empty() {
                // The first version of a key costs what an entry costs.
                bytes += write.key.len() + ENTRY_OVERHEAD_BYTES - VERSION_OVERHEAD_BYTES;
                slot.remove();
            } else {
                *slot.get_mut() = Versions::Many(kept.to_vec());
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is known of a key at a position.
    pub fn get(&self, key: &[u8], at: Position) -> Found {
        let map = self.map.read();
        let version = map.entries.get(key).and_then(|versions| versions.newest(at));
        let range = if map.ranges.is_empty() { None } else { map.ranges.covering(key, at) };
        match (version, range) {
            (Some(version), Some((range, _))) if range > version.position => Found::Deleted(range),
            (Some(Version { position, value: Some(value) }), _) => Found::Value(*position, Slice::new(value.clone())),
            (Some(Version { position, value: None }), _) => Found::Deleted(*position),
            (None, Some((range, _))) => Found::Deleted(range),
            (None, None) => Found::Nothing,
        }
    }

    /// The newest position, published or not, that wrote the key or deleted a range around it.
    pub fn newest_write(&self, key: &[u8]) -> Option<Position> {
        match self.get(key, Position::MAX) {
            Found::Value(position, _) | Found::Deleted(position) => Some(position),
            Found::Nothing => None,
        }
    }

    /// Keys with `from <= key < to` (`to` empty: to the end) that have a version at `at`, deletes
    /// included; looks at no more than `limit` keys under the lock.
    pub(super) fn items(&self, from: &[u8], to: &[u8], at: Position, limit: usize) -> Items {
        let upper = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        if !to.is_empty() && from >= to {
            return Items::default();
        }
        let map = self.map.read();
        let mut items = Vec::with_capacity(limit.min(map.entries.len()));
        let range = map.entries.range::<[u8], _>((Bound::Included(from), upper));
        let mut ahead = range.clone();
        for (looked_at, (key, versions)) in range.enumerate() {
            if looked_at == limit {
                return Items { items, next: Some(key.clone().into()) };
            }
            if looked_at.is_multiple_of(FETCHED_AHEAD) {
                fetch(ahead.by_ref().take(FETCHED_AHEAD.min(limit - looked_at)));
            }
            if let Some(version) = versions.newest(at) {
                let value = version.value.clone().map(Slice::new);
                items.push(Item { key: key.clone().into(), version: version.position, value });
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
        let upper = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        let map = self.map.read();
        for (key, versions) in map.entries.range::<[u8], _>((Bound::Included(from), upper)) {
            let mut versions = versions.as_slice();
            if key[..] == *from {
                let end = versions.partition_point(|version| version.position < below);
                versions = versions.get(..end).unwrap_or_default();
            }
            let slice = Slice::from(key.clone());
            for version in versions.iter().rev() {
                if found.len() == limit {
                    return (found, Some((slice, version.position.next())));
                }
                found.push((slice.clone(), version.position, version.value.clone().map(Slice::new)));
            }
        }
        (found, None)
    }
}

/// Loads the counters of keys and values that are to be cloned. Cloning raises them one by one, each waiting for
/// its memory; loads wait side by side.
fn fetch<'a>(entries: impl Iterator<Item = (&'a Key, &'a Versions)>) {
    let counters = entries.map(|(key, versions)| {
        let value = versions.as_slice().last().and_then(|version| version.value.as_ref());
        Arc::strong_count(&key.0) + value.map_or(0, Arc::strong_count)
    });
    std::hint::black_box(counters.sum::<usize>());
}

/// Inserts one write and returns the memory it takes.
fn insert_write(entries: &mut BTreeMap<Key, Versions>, position: Position, write: &Write) -> usize {
    let version = Version { position, value: write.value.clone() };
    let value_bytes = version.bytes();
    match entries.entry(write.key.clone()) {
        Slot::Vacant(slot) => {
            slot.insert(Versions::One(version));
            write.key.len() + value_bytes + ENTRY_OVERHEAD_BYTES
        }
        Slot::Occupied(mut slot) => {
            slot.get_mut().insert(version);
            value_bytes + VERSION_OVERHEAD_BYTES
        }
    }
}
