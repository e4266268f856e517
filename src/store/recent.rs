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
    /// By ascending position. One list for all transactions: the committer allocates nothing for one of them.
    written: VecDeque<(Position, Written)>,
    floor: Position,
}

/// What was written; without the values, which are not needed here and may be large.
#[derive(Debug)]
enum Written {
    Key(Key),
    Range(KeyRange),
}

impl Recent {
    /// Nothing remembered, everything above `floor` will be.
    pub fn new(floor: Position) -> Recent {
        Recent { floor, ..Recent::default() }
    }

    /// Remembers a transaction's writes.
    pub fn push(&mut self, position: Position, set: &WriteSet) {
        let keys = set.writes.iter().map(|write| Written::Key(write.key.clone()));
        let ranges = set.ranges.iter().map(|range| Written::Range(range.clone()));
        self.written.extend(keys.chain(ranges).map(|written| (position, written)));
    }

    /// Takes back what was not appended.
    pub fn retract(&mut self, head: Position) {
        while self.written.pop_back_if(|(position, _)| *position > head).is_some() {}
    }

    /// Forgets what no open transaction needs, and the oldest where it is too much.
    pub fn forget(&mut self, oldest_reader: Position) {
        while let Some(&(position, _)) = self.written.front() {
            if position > oldest_reader && self.written.len() <= WRITES_MAX {
                return;
            }
            // From here on a reader below it counts as too old, so what is left of the same transaction is not asked for.
            self.floor = position;
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
    /// Whether it changes what a read of `from <= key < to` saw (`to` empty: no end).
    fn meets_range(&self, from: &[u8], to: &[u8]) -> bool {
        match self {
            Written::Key(key) => &key[..] >= from && (to.is_empty() || &key[..] < to),
            Written::Range(range) => range.meets(from, to),
        }
    }
}
