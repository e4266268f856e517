//! [`Leaves`]: keys in order, each with all its versions.
//!
//! ```text
//!   node    up to 128 leaves, each at its bound
//!   leaf    up to 128 slots: key, newest version, older versions
//! ```
//! A search ends among the [`Heads`] of one node and one leaf, and looks at one key. When a leaf is
//! split, the small keys and values of each half are brought into one buffer: a scan then reads memory in order, and
//! what it hands out counts references to few buffers instead of one to every key and value.

use std::sync::Arc;

use crate::types::{Heads, Position, Slice};

/// Slots of a leaf at most.
const LEAF_SLOTS_MAX: usize = 128;
/// Leaves of a node at most.
const NODE_LEAVES_MAX: usize = 128;
/// Room that a full run gets anew: most would stand half empty for long if they got all at once.
const GROWTH: usize = 16;
/// Larger keys and values stay where they are: moving them costs more than reading them in order brings, and
/// whoever keeps a small one would keep them too.
const PACKED_BYTES_MAX: usize = 1024;

/// An ordered map from keys to versions.
#[derive(Debug)]
pub(super) struct Leaves {
    /// The first node and its first leaf have the empty bound, so there is always a leaf for a key.
    nodes: Vec<Node>,
}

type Node = Sorted<Leaf>;
type Leaf = Sorted<Slot>;

/// Items in order, none of them below the bound.
#[derive(Debug)]
struct Sorted<T> {
    bound: Box<[u8]>,
    heads: Heads,
    items: Vec<T>,
}

/// What stands at a key.
trait Keyed {
    fn key(&self) -> &[u8];
}

/// A key with its versions.
#[derive(Debug)]
pub(super) struct Slot {
    pub key: Slice,
    newest: Version,
    /// Nearly all keys have none.
    older: Option<Box<Older>>,
}

/// Ascending positions.
#[derive(Debug, Default)]
struct Older(Vec<Version>);

/// One version: a value, or that the key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub position: Position,
    pub value: Option<Slice>,
}

impl Default for Leaves {
    fn default() -> Leaves {
        let mut node = Node::first();
        node.insert(0, Leaf::first());
        Leaves { nodes: vec![node] }
    }
}

impl Leaves {
    /// The versions of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Slot> {
        let node = self.nodes.get(self.node_at(key))?;
        let leaf = node.items.get(node.leaf_at(key))?;
        leaf.items.get(leaf.find(key).ok()?)
    }

    /// Adds versions: each next to the one before is found without a search. Leaves are packed when they are split, or left as they are
    /// until somebody calls [`Leaves::pack_from`].
    pub fn inserter(&mut self, packs: bool) -> Inserter<'_> {
        Inserter { leaves: self, last: None, packs }
    }

    /// Brings small keys and newest values of the leaf at a place, node and leaf, into a buffer of their own, and gives the place of the next
    /// leaf.
    pub fn pack_from(&mut self, (node_at, leaf_at): (usize, usize)) -> Option<(usize, usize)> {
        let node = self.nodes.get_mut(node_at)?;
        let Some(leaf) = node.items.get_mut(leaf_at) else { return Some((node_at + 1, 0)) };
        leaf.pack();
        Some((node_at, leaf_at + 1))
    }

    /// Takes the versions of a key above a position, and with the last one the key.
    pub fn retract(&mut self, key: &[u8], head: Position) -> Retracted {
        let mut retracted = Retracted::default();
        let node_at = self.node_at(key);
        let Some(node) = self.nodes.get_mut(node_at) else { return retracted };
        let leaf_at = node.leaf_at(key);
        let Some(leaf) = node.items.get_mut(leaf_at) else { return retracted };
        let Ok(at) = leaf.find(key) else { return retracted };
        while leaf.items[at].newest.position > head {
            let slot = &mut leaf.items[at];
            let older = slot.older.as_mut().and_then(|older| older.0.pop());
            retracted.key = older.is_none();
            retracted.versions.push(std::mem::replace(&mut slot.newest, older.unwrap_or(NONE)));
            if retracted.key {
                leaf.heads.remove(at);
                leaf.items.remove(at);
                break;
            }
        }
        retracted
    }

    /// The slots with `from <= key < to` (`to` empty: no end), in runs of neighbours.
    pub fn runs<'a>(&'a self, from: &'a [u8], to: &'a [u8]) -> impl Iterator<Item = &'a [Slot]> {
        let nodes = self.nodes.get(self.node_at(from)..).unwrap_or_default();
        let first = nodes.first().map_or(0, |node| node.leaf_at(from));
        let leaves = nodes.iter().flat_map(|node| &node.items).skip(first).enumerate();
        let leaves = leaves.take_while(move |(_, leaf)| to.is_empty() || &*leaf.bound < to);
        leaves.map(move |(number, leaf)| {
            // Only the first leaf may hold keys below the range, only the last one keys above.
            let start = if number == 0 { leaf.find(from).unwrap_or_else(|at| at) } else { 0 };
            let slots = leaf.items.get(start..).unwrap_or_default();
            match slots.last() {
                Some(last) if !to.is_empty() && last.key[..] >= *to => {
                    &slots[..slots.partition_point(|slot| slot.key[..] < *to)]
                }
                _ => slots,
            }
        })
    }

    /// The leaf of a key: which node, and which of its leaves.
    fn place(&self, key: &[u8]) -> (usize, usize) {
        let node_at = self.node_at(key);
        (node_at, self.nodes.get(node_at).map_or(0, |node| node.leaf_at(key)))
    }

    /// Whether the key belongs into the leaf at a place.
    fn belongs(&self, key: &[u8], (node_at, leaf_at): (usize, usize)) -> bool {
        let Some(node) = self.nodes.get(node_at) else { return false };
        let begins = node.items.get(leaf_at).is_some_and(|leaf| *leaf.bound <= *key);
        let behind = node.items.get(leaf_at + 1).map(Keyed::key);
        let end = behind.or_else(|| self.nodes.get(node_at + 1).map(Keyed::key));
        begins && end.is_none_or(|end| key < end)
    }

    fn node_at(&self, key: &[u8]) -> usize {
        self.nodes.partition_point(|node| *node.bound <= *key).saturating_sub(1)
    }
}

/// Adds versions to [`Leaves`].
pub(super) struct Inserter<'a> {
    leaves: &'a mut Leaves,
    /// Where the last one went.
    last: Option<(usize, usize)>,
    packs: bool,
}

impl Inserter<'_> {
    /// Adds a version; a second one at the same position replaces the first. Whether the key is new.
    pub fn insert(&mut self, key: Slice, version: Version) -> bool {
        let place = match self.last.take() {
            Some(last) if self.leaves.belongs(&key, last) => last,
            _ => self.leaves.place(&key),
        };
        let (node_at, leaf_at) = place;
        let (nodes, behind) = self.leaves.nodes.split_at_mut(node_at + 1);
        let Some(node) = nodes.last_mut() else { return false };
        let node_end = behind.first().map(Keyed::key);
        let (leaves, behind) = node.items.split_at_mut(leaf_at + 1);
        let Some(leaf) = leaves.last_mut() else { return false };
        let leaf_end = behind.first().map(Keyed::key).or(node_end);
        let at = match leaf.find(&key) {
            Ok(at) => {
                leaf.items[at].insert(version);
                self.last = Some(place);
                return false;
            }
            Err(at) => at,
        };
        leaf.insert(at, Slot { key, newest: version, older: None });
        let Some(mut upper) = leaf.split(LEAF_SLOTS_MAX, at, leaf_end) else {
            self.last = Some(place);
            return true;
        };
        if self.packs {
            leaf.pack();
            upper.pack();
        }
        node.insert(leaf_at + 1, upper);
        if let Some(upper) = node.split(NODE_LEAVES_MAX, leaf_at + 1, node_end) {
            self.leaves.nodes.insert(node_at + 1, upper);
        }
        true
    }
}

impl<T: Keyed> Sorted<T> {
    /// Empty, and below all others.
    fn first() -> Sorted<T> {
        Sorted { bound: Box::default(), heads: Heads::default(), items: Vec::new() }
    }

    /// Where the key is, or where it would be.
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.find(key, |at| self.items[at].key())
    }

    fn insert(&mut self, at: usize, item: T) {
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(GROWTH);
        }
        self.heads.insert(at, item.key());
        self.items.insert(at, item);
    }

    /// Above so many items, after one came in at `at`, takes the upper half away as a run of its own; where items arrive in
    /// order, only the last one. `end` is the bound of the run behind this one.
    fn split(&mut self, max: usize, at: usize, end: Option<&[u8]>) -> Option<Sorted<T>> {
        if self.items.len() <= max {
            return None;
        }
        let last = self.items.len() - 1;
        let middle = if at == last { last } else { self.items.len() / 2 };
        let bound: Box<[u8]> = self.items.get(middle)?.key().into();
        let mut items = Vec::with_capacity(self.items.len() - middle + GROWTH);
        items.extend(self.items.drain(middle..));
        self.items.shrink_to_fit();
        let heads = |from: &[u8], to: Option<&[u8]>, items: &[T]| Heads::new(from, to, items.iter().map(Keyed::key));
        self.heads = heads(&self.bound, Some(&bound), &self.items);
        Some(Sorted { heads: heads(&bound, end, &items), bound, items })
    }
}

impl Node {
    /// Where the leaf is that holds the key, if it is there.
    fn leaf_at(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|above| above.saturating_sub(1))
    }
}

impl Leaf {
    /// Brings keys and newest values into one buffer.
    fn pack(&mut self) {
        let small = |slot: &&mut Slot| slot.bytes() <= PACKED_BYTES_MAX;
        let len = self.items.iter_mut().filter(small).map(|slot| slot.bytes()).sum();
        let mut buffer: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        let Some(mut rest) = Arc::get_mut(&mut buffer) else { return };
        for slot in self.items.iter_mut().filter(small) {
            for bytes in [Some(&slot.key), slot.newest.value.as_ref()].into_iter().flatten() {
                let (place, behind) = rest.split_at_mut(bytes.len());
                place.copy_from_slice(bytes);
                rest = behind;
            }
        }
        let buffer = Slice::new(buffer);
        let mut end = 0;
        for slot in self.items.iter_mut().filter(small) {
            for bytes in [Some(&mut slot.key), slot.newest.value.as_mut()].into_iter().flatten() {
                let start = end;
                end += bytes.len();
                *bytes = buffer.part(start..end);
            }
        }
    }
}

impl<T> Keyed for Sorted<T> {
    fn key(&self) -> &[u8] {
        &self.bound
    }
}

impl Keyed for Slot {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// What [`Leaves::retract`] took.
#[derive(Debug, Default)]
pub(super) struct Retracted {
    pub versions: Vec<Version>,
    pub key: bool,
}

const NONE: Version = Version { position: Position::ZERO, value: None };

impl Slot {
    /// The newest version not above a position.
    pub fn newest(&self, at: Position) -> Option<&Version> {
        if self.newest.position <= at {
            return Some(&self.newest);
        }
        // Searched, not walked: a key may have very many versions, and a reader may stand far below them.
        let older = self.older();
        older.get(..older.partition_point(|version| version.position <= at))?.last()
    }

    /// The versions below a position, newest first.
    pub fn versions_below(&self, below: Position) -> impl Iterator<Item = &Version> {
        let older = self.older();
        let end = older.partition_point(|version| version.position < below);
        let newest = (self.newest.position < below).then_some(&self.newest);
        newest.into_iter().chain(older.get(..end).unwrap_or_default().iter().rev())
    }

    /// Loads what is about to be handed out, all of it side by side: counting references and reading one entry after the
    /// other would wait for each.
    pub fn fetch(slots: &[Slot]) {
        let first = |bytes: &Slice| bytes.first().copied().map_or(0, usize::from);
        let firsts = slots.iter().map(|slot| first(&slot.key) + slot.newest.value.as_ref().map_or(0, first));
        std::hint::black_box(firsts.sum::<usize>());
    }

    fn older(&self) -> &[Version] {
        self.older.as_ref().map_or(&[], |older| &older.0)
    }

    /// The bytes of key and newest value.
    fn bytes(&self) -> usize {
        self.key.len() + self.newest.bytes()
    }

    fn insert(&mut self, mut version: Version) {
        if version.position == self.newest.position {
            self.newest = version;
            return;
        }
        if version.position > self.newest.position {
            std::mem::swap(&mut version, &mut self.newest);
        }
        let older = &mut self.older.get_or_insert_default().0;
        match older.binary_search_by_key(&version.position, |older| older.position) {
            Ok(at) => older[at] = version,
            Err(at) => older.insert(at, version),
        }
    }
}

impl Version {
    /// The bytes of its value.
    pub fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<Vec<u8>, BTreeMap<u64, Option<Vec<u8>>>>;

    /// Keys with long common beginnings, some of them beginnings of others; few enough to meet again, many enough to split.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let tail = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..6);
        (prop::sample::select(vec![&b""[..], b"repo", b"repo\0\x01branch/object"]), tail)
            .prop_map(|(beginning, tail)| [beginning, &tail].concat())
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop_oneof![
            9 => prop::collection::vec(any::<u8>(), 0..20),
            1 => Just(vec![7; PACKED_BYTES_MAX + 1]),
        ])
    }

    fn check(leaves: &Leaves, model: &Model, from: &[u8], to: &[u8]) {
        let inside = |key: &[u8]| to.is_empty() || key < to;
        let expected: Vec<_> = model.range(from.to_vec()..).filter(|(key, _)| inside(key)).collect();
        let found: Vec<&Slot> = leaves.runs(from, to).flatten().collect();
        assert_eq!(found.len(), expected.len());
        for (slot, (key, versions)) in found.into_iter().zip(expected) {
            assert_eq!(slot.key[..], key[..]);
            let all = slot
                .versions_below(Position::MAX)
                .map(move |own| (own.position.0, own.value.as_ref().map(|value| value.to_vec())));
            let newest_first = versions.iter().rev().map(|(position, value)| (*position, value.clone()));
            assert!(all.eq(newest_first));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn holds_what_a_map_of_maps_holds(
            written in prop::collection::vec((key(), 1u64..9, value()), 0..1500),
            sorted in any::<bool>(),
            packs in any::<bool>(),
            packed in any::<bool>(),
            retracted in prop::collection::vec((any::<prop::sample::Index>(), 0u64..9), 0..20),
            bounds in prop::collection::vec((key(), key()), 1..10),
        ) {
            let mut written = written;
            if sorted {
                written.sort();
            }
            let (mut leaves, mut model) = (Leaves::default(), Model::new());
            let mut inserter = leaves.inserter(packs);
            for (key, position, value) in &written {
                let version = Version { position: Position(*position), value: value.as_deref().map(Slice::from) };
                let is_new = inserter.insert(Slice::from(&key[..]), version);
                prop_assert_eq!(is_new, !model.contains_key(key));
                model.entry(key.clone()).or_default().insert(*position, value.clone());
            }
            let mut place = packed.then_some((0, 0));
            while let Some(next) = place {
                place = leaves.pack_from(next);
            }
            for (which, head) in &retracted {
                let Some((key, ..)) = written.get(which.index(written.len().max(1))) else { continue };
                let Some(versions) = model.get_mut(key) else { continue };
                let taken = versions.split_off(&(head + 1));
                let gone = versions.is_empty() && !taken.is_empty();
                let Retracted { versions: found, key: removed } = leaves.retract(key, Position(*head));
                prop_assert_eq!((found.len(), removed), (taken.len(), gone));
                if gone {
                    model.remove(key);
                }
            }
            check(&leaves, &model, b"", b"");
            for (from, to) in &bounds {
                check(&leaves, &model, from, to);
                for at in 0..9 {
                    let versions = model.get(from).and_then(|versions| versions.range(..=at).next_back());
                    let found = leaves.get(from).and_then(|slot| slot.newest(Position(at)));
                    prop_assert_eq!(found.map(|own| own.position.0), versions.map(|(position, _)| *position));
                }
            }
        }
    }

    /// As long as a key comes in order, leaves stay full; nodes are split too.
    #[test]
    fn leaves_and_nodes_are_split() {
        let keys = 2 * NODE_LEAVES_MAX * LEAF_SLOTS_MAX;
        for step in [1, 7919] {
            let mut leaves = Leaves::default();
            for i in 0..keys {
                let key = format!("partition\0\x01{:08}", i * step % keys);
                let version = Version { position: Position(1), value: Some(key.as_bytes().into()) };
                assert!(leaves.inserter(true).insert(key.as_bytes().into(), version));
            }
            let nodes = &leaves.nodes;
            assert!(nodes.len() >= 2, "{}", nodes.len());
            if step == 1 {
                assert!(nodes.len() <= 3, "{}", nodes.len());
            }
            for i in 0..keys {
                let key = format!("partition\0\x01{i:08}");
                assert_eq!(leaves.get(key.as_bytes()).unwrap().newest.value.as_deref(), Some(key.as_bytes()));
            }
            assert!(leaves.get(b"partition\0\x01").is_none());
        }
    }

    /// What lies together is counted together.
    #[test]
    fn a_packed_leaf_has_one_buffer() {
        let mut leaves = Leaves::default();
        for i in 0..=LEAF_SLOTS_MAX {
            let version = Version { position: Position(1), value: Some(b"value"[..].into()) };
            leaves.inserter(true).insert(format!("{i:04}").as_bytes().into(), version);
        }
        let packed = leaves.runs(b"", b"").next().unwrap();
        let address = |slice: &Slice| slice.as_ptr() as usize;
        let start = address(&packed[0].key);
        for (number, slot) in packed.iter().enumerate() {
            let value = slot.newest.value.as_ref().unwrap();
            assert_eq!((address(&slot.key) - start, address(value) - start), (number * 9, number * 9 + 4));
        }
    }
}
