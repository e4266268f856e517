//! [`Recent`]: the write sets of the last transactions, for validating range reads.

use std::collections::VecDeque;

use super::lane::Reads;
use super::prepare::SharedWriteSet;
use crate::types::Position;

/// Transactions remembered at most.
const TRANSACTIONS_MAX: usize = 1 << 16;
/// Writes remembered at most, over all transactions: bounds the time that a validation takes.
const WRITES_MAX: usize = 1 << 17;

/// Write sets above a floor, as long as an open transaction may have read below them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    sets: VecDeque<(Position, SharedWriteSet)>,
    writes: usize,
    floor: Position,
}

impl Recent {
    /// Nothing remembered, everything above `floor` will be.
    pub fn new(floor: Position) -> Recent {
        Recent { floor, ..Recent::default() }
    }

    /// Remembers a transaction's writes.
    pub fn push(&mut self, position: Position, set: SharedWriteSet) {
        self.writes += set.writes.len() + set.ranges.len();
        self.sets.push_back((position, set));
    }

    /// Takes back what was not appended.
    pub fn retract(&mut self, head: Position) {
        while let Some((_, set)) = self.sets.pop_back_if(|(position, _)| *position > head) {
            self.writes -= set.writes.len() + set.ranges.len();
        }
    }

    /// Forgets what no open transaction needs, and the oldest where it is too much.
    pub fn forget(&mut self, oldest_reader: Position) {
        let too_much = |recent: &Recent| recent.sets.len() > TRANSACTIONS_MAX || recent.writes > WRITES_MAX;
        while let Some((position, set)) = self.sets.front() {
            if *position > oldest_reader && !too_much(self) {
                return;
            }
            self.floor = *position;
            self.writes -= set.writes.len() + set.ranges.len();
            self.sets.pop_front();
        }
    }

    /// Whether a range read at `read_at` is still what it was. A transaction older than what is
    /// remembered is not: it runs again.
    pub fn invalidates(&self, reads: &Reads, read_at: Position) -> bool {
        if reads.ranges.is_empty() {
            return false;
        }
        read_at < self.floor
            || self
                .sets
                .iter()
                .rev()
                .take_while(|(position, _)| *position > read_at)
                .any(|(_, set)| reads.ranges.iter().any(|(from, to)| set.meets_range(from, to)))
    }
}
