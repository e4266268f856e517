//! [`RangeTombstones`]: which prefixes were deleted at which positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{KeyRange, Position};

/// Range deletes of one memtable.
///
/// Ranges are prefixes, so the ranges that cover a key are found by looking up the key's own
/// prefixes, one for each length that occurs; there are few lengths and mostly no ranges at all.
#[derive(Debug, Default)]
pub struct RangeTombstones {
    /// Encoded prefix -> positions, ascending.
    positions: BTreeMap<Arc<[u8]>, Vec<Position>>,
    /// Prefix length -> how many prefixes have it.
    lengths: BTreeMap<usize, usize>,
}

impl RangeTombstones {
    /// Records a range delete. Positions arrive in ascending order.
    pub fn insert(&mut self, range: &KeyRange, position: Position) {
        if let Some(positions) = self.positions.get_mut(range.prefix()) {
            positions.push(position);
            return;
        }
        self.positions.insert(range.prefix().into(), vec![position]);
        *self.lengths.entry(range.prefix().len()).or_default() += 1;
    }

    /// Takes back what was recorded above a position; says how many that were.
    pub fn retract(&mut self, range: &KeyRange, above: Position) -> usize {
        let Some(positions) = self.positions.get_mut(range.prefix()) else { return 0 };
        let before = positions.len();
        positions.retain(|&position| position <= above);
        let retracted = before - positions.len();
        if positions.is_empty() {
            self.positions.remove(range.prefix());
            let length = range.prefix().len();
            if let Some(count) = self.lengths.get_mut(&length) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length);
                }
            }
        }
        retracted
    }

    /// The newest range delete not above `at` that covers the key, and its prefix.
    pub fn covering(&self, key: &[u8], at: Position) -> Option<(Position, &[u8])> {
        self.lengths
            .keys()
            .filter_map(|&length| self.positions.get_key_value(key.get(..length)?))
            .filter_map(|(prefix, positions)| Some((newest(positions, at)?, &**prefix)))
            .max()
    }

    /// The positions of all range deletes that cover the key, in no order.
    pub fn all_covering(&self, key: &[u8]) -> Vec<Position> {
        let prefixes = self.lengths.keys().filter_map(|&length| key.get(..length));
        prefixes.filter_map(|prefix| self.positions.get(prefix)).flatten().copied().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// All of them, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[Position])> {
        self.positions.iter().map(|(prefix, positions)| (&**prefix, &positions[..]))
    }
}

fn newest(positions: &[Position], at: Position) -> Option<Position> {
    positions.iter().rev().copied().find(|&position| position <= at)
}
