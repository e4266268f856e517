//! [`Recent`]: which keys the last transactions wrote, for validating range reads.

use std::collections::VecDeque;

use super::lane::Reads;
use crate::projection::WriteSet;
use crate::types::{Key, KeyRange, Position};

/// Writes remembered at most, over all transactions: bounds memory and the time that a validation takes.
const WRITES_MAX: usize = 1 << 16;

/// Keys and ranges written above a floor, as long as an open transaction may have read below them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    written: VecDeque<(Position, Written)>,
    writes: usize,
    floor: Position,
}

/// What one transaction wrote; without the values, which are not needed here and may be large.
#[derive(Debug)]
struct Written {
    keys: Vec<Key>,
    ranges: Vec<KeyRange>,
}

impl Recent {
    /// Nothing remembered, everything above `floor` will be.
    pub fn new(floor: Position) -> Recent {
        Recent { floor, ..Recent::default() }
    }

    /// Remembers a transaction's writes.
    pub fn push(&mut self, position: Position, set: &WriteSet) {
        let keys = set.writes.iter().map(|write| write.key.clone()).collect();
        self.writes += set.writes.len() + set.ranges.len();
        self.written.push_back((position, Written { keys, ranges: set.ranges.clone() }));
    }

    /// Takes back what was not appended.
    pub fn retract(&mut self, head: Position) {
        while let Some((_, written)) = self.written.pop_back_if(|(position, _)| *position > head) {
            self.writes -= written.len();
        }
    }

    /// Forgets what no open transaction needs, and the oldest where it is too much.
    pub fn forget(&mut self, oldest_reader: Position) {
        while let Some((position, written)) = self.written.front() {
            if *position > oldest_reader && self.writes <= WRITES_MAX {
                return;
            }
            self.floor = *position;
            self.writes -= written.len();
            self.written.pop_front();
        }
    }

    /// Whether a range read at `read_at` may have changed since. A transaction older than what is
    /// remembered counts as changed: it runs again.
    pub fn invalidates(&self, reads: &Reads, read_at: Position) -> bool {
        if reads.ranges.is_empty() {
            return false;
        }
        read_at < self.floor
            || self
                .written
                .iter()
                .rev()
                .take_while(|(position, _)| *position > read_at)
                .any(|(_, written)| reads.ranges.iter().any(|(from, to)| written.meets_range(from, to)))
    }
}

impl Written {
    fn len(&self) -> usize {
        self.keys.len() + self.ranges.len()
    }

    /// Whether a write changes what a read of `from <= key < to` saw (`to` empty: no end).
    fn meets_range(&self, from: &[u8], to: &[u8]) -> bool {
        self.keys.iter().any(|key| &key[..] >= from && (to.is_empty() || &key[..] < to))
            || self.ranges.iter().any(|range| range.meets(from, to))
    }
}
