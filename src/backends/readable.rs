//! [`Readable`]: which positions a backend must answer, and which versions they can see.
//!
//! Owns the rule of retention that every backend of this crate shares; stores nothing on disk.

use std::collections::BTreeSet;

use super::BackendError;
use crate::types::Position;

/// The position of the current stamp ([`Position::ZERO`] without one) and what is retained besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readable {
    current: Position,
    retained: BTreeSet<Position>,
}

impl Readable {
    #[cfg(any(test, feature = "sled"))]
    /// A state that was written down: positions above the current one were never complete.
    pub(crate) fn new(current: Position, retained: impl IntoIterator<Item = Position>) -> Readable {
        Readable { current, retained: retained.into_iter().filter(|&position| position <= current).collect() }
    }

    /// Fails `Unreadable` at any position that nobody keeps.
    pub(crate) fn check(&self, at: Position) -> Result<(), BackendError> {
        if self.contains(at) {
            return Ok(());
        }
        Err(BackendError::Unreadable { position: at, stamp: self.current })
    }

    fn contains(&self, at: Position) -> bool {
        at == self.current || self.retained.contains(&at)
    }

    /// A write brought the state to `stamp` and asked for `keep`. A position at or below the former
    /// stamp that had been let go before does not come back.
    pub(crate) fn advance(&mut self, stamp: Position, keep: &[Position]) {
        let kept: Vec<Position> =
            keep.iter().copied().filter(|&position| position > self.current || self.contains(position)).collect();
        self.retained.extend(kept);
        self.current = stamp;
    }

    /// Lets go of every position that `positions` leaves out; `true` when one was.
    pub(crate) fn retain(&mut self, positions: &[Position]) -> bool {
        let kept: BTreeSet<Position> = positions.iter().copied().filter(|&position| self.contains(position)).collect();
        let shrunk = self.retained.iter().any(|position| !kept.contains(position));
        self.retained = kept;
        shrunk
    }

    /// Whether some readable position lies in `from <= position < below` (`None`: no upper end):
    /// exactly these see a version `from` that is superseded at `below`.
    pub(crate) fn any_in(&self, from: Position, below: Option<Position>) -> bool {
        let inside = |position: Position| position >= from && below.is_none_or(|below| position < below);
        inside(self.current) || self.retained.range(from..).next().is_some_and(|&position| inside(position))
    }

    #[cfg(any(test, feature = "sled"))]
    /// What is retained besides the current position, ascending.
    pub(crate) fn retained(&self) -> impl Iterator<Item = Position> + '_ {
        self.retained.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_and_go() {
        let mut readable = Readable::default();
        assert!(readable.check(Position::ZERO).is_ok());
        readable.advance(Position(10), &[Position(4)]);
        assert!(readable.check(Position(4)).is_ok() && readable.check(Position(10)).is_ok());
        assert!(readable.check(Position::ZERO).is_err());
        // 3 was never complete, and a position that nobody kept cannot come back.
        readable.advance(Position(20), &[Position(3), Position(10), Position(15)]);
        assert!(readable.check(Position(3)).is_err());
        assert_eq!(readable.retained().collect::<Vec<_>>(), [Position(4), Position(10), Position(15)]);
        assert!(readable.retain(&[Position(7), Position(15), Position(20)]));
        assert_eq!(readable.retained().collect::<Vec<_>>(), [Position(15), Position(20)]);
    }

    #[test]
    fn versions_are_seen_between_their_position_and_the_next() {
        let readable = Readable::new(Position(20), [Position(5), Position(99)]);
        assert!(readable.any_in(Position(5), Some(Position(6))));
        assert!(!readable.any_in(Position(6), Some(Position(20))));
        assert!(readable.any_in(Position(6), Some(Position(21))));
        assert!(readable.any_in(Position(6), None));
        assert!(!readable.any_in(Position(21), None));
    }
}
