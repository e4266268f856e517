//! [`Readable`]: which positions a backend must answer, and which versions they can see.
//!
//! Owns the rule of retention that every backend of this crate shares; stores nothing on disk.

use std::collections::BTreeSet;

use super::BackendError;
use crate::types::{Position, Stamp};

/// The position of the current stamp ([`Position::ZERO`] without one) and what is retained besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readable {
    current: Position,
    retained: BTreeSet<Position>,
    /// Every position from here to the current one.
    history: Option<Position>,
}

impl Readable {
    #[cfg(any(test, feature = "sled", feature = "postgres"))]
    /// A state that was written down: positions above the current one were never complete.
    pub(crate) fn new(stamp: &Stamp, retained: impl IntoIterator<Item = Position>) -> Readable {
        let (current, history) = (stamp.position, stamp.history);
        Readable { current, retained: retained.into_iter().filter(|&position| position <= current).collect(), history }
    }

    /// Fails `Unreadable` at any position that nobody keeps.
    pub(crate) fn check(&self, at: Position) -> Result<(), BackendError> {
        if self.contains(at) {
            return Ok(());
        }
        Err(BackendError::Unreadable { position: at, stamp: self.current })
    }

    fn contains(&self, at: Position) -> bool {
        at == self.current || self.retained.contains(&at) || self.in_history(at)
    }

    fn in_history(&self, at: Position) -> bool {
        at <= self.current && self.history.is_some_and(|from| at >= from)
    }

    /// Fails `Unreadable` when no history is kept.
    pub(crate) fn check_history(&self) -> Result<(), BackendError> {
        let unreadable = BackendError::Unreadable { position: Position::ZERO, stamp: self.current };
        self.history.map(|_| ()).ok_or(unreadable)
    }

    #[cfg(feature = "postgres")]
    /// From where on every position is readable.
    pub(crate) fn history(&self) -> Option<Position> {
        self.history
    }

    /// A write brought the state to `stamp` and asked for `keep`. A position at or below the former
    /// stamp that had been let go before does not come back.
    pub(crate) fn advance(&mut self, stamp: &Stamp, keep: &[Position]) {
        let kept: Vec<Position> =
            keep.iter().copied().filter(|&position| position > self.current || self.contains(position)).collect();
        self.retained.extend(kept);
        (self.current, self.history) = (stamp.position, stamp.history);
    }

    /// Lets go of every position that `positions` leaves out, if they were listed at the current one; `true` when one was.
    pub(crate) fn retain(&mut self, at: Position, positions: &[Position]) -> bool {
        if at != self.current {
            return false;
        }
        let kept: BTreeSet<Position> = positions.iter().copied().filter(|&position| self.contains(position)).collect();
        let shrunk = self.retained.iter().any(|position| !kept.contains(position));
        self.retained = kept;
        shrunk
    }

    /// Whether some readable position lies in `from <= position < below` (`None`: no upper end):
    /// exactly these see a version `from` that is superseded at `below`.
    pub(crate) fn any_in(&self, from: Position, below: Option<Position>) -> bool {
        let inside = |position: Position| position >= from && below.is_none_or(|below| position < below);
        inside(self.current)
            || self.retained.range(from..).next().is_some_and(|&position| inside(position))
            || self.history.is_some_and(|first| from <= self.current && inside(first.max(from)))
    }

    #[cfg(feature = "sled")]
    /// Whether something besides the current position is readable.
    pub(crate) fn has_past(&self) -> bool {
        self.history.is_some() || !self.retained.is_empty()
    }

    #[cfg(feature = "sled")]
    /// The oldest readable position.
    pub(crate) fn oldest(&self) -> Position {
        let oldest = self.history.into_iter().chain(self.retained.first().copied()).min();
        oldest.map_or(self.current, |oldest| oldest.min(self.current))
    }

    #[cfg(any(test, feature = "sled", feature = "postgres"))]
    /// What is retained besides the current position, ascending.
    pub(crate) fn retained(&self) -> impl Iterator<Item = Position> + '_ {
        self.retained.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Hash, LogId};

    fn stamp(position: u64, history: Option<u64>) -> Stamp {
        Stamp {
            log_id: LogId([0; 16]),
            format: Stamp::FORMAT,
            position: Position(position),
            chain: Hash([0; 32]),
            projections: Vec::new(),
            history: history.map(Position),
            redaction: Position::ZERO,
        }
    }

    #[test]
    fn a_history_is_readable_from_its_beginning_on() {
        let mut readable = Readable::new(&stamp(20, Some(7)), [Position(5)]);
        for (at, expected) in [(4, false), (5, true), (6, false), (7, true), (13, true), (20, true), (21, false)] {
            assert_eq!(readable.check(Position(at)).is_ok(), expected, "{at}");
        }
        assert!(readable.any_in(Position(8), Some(Position(9))) && readable.any_in(Position(1), Some(Position(8))));
        assert!(!readable.any_in(Position(6), Some(Position(7))) && !readable.any_in(Position(21), None));
        // What somebody reads outlives the history that it was part of.
        readable.advance(&stamp(30, Some(15)), &[Position(9)]);
        assert!(readable.check(Position(9)).is_ok() && readable.check(Position(10)).is_err());
        assert!(!readable.retain(Position(29), &[]), "a list that is older than the stamp");
        assert!(readable.check(Position(9)).is_ok());
        assert!(readable.retain(Position(30), &[]));
        assert!(readable.check(Position(9)).is_err());
    }

    #[test]
    fn positions_come_and_go() {
        let mut readable = Readable::default();
        assert!(readable.check(Position::ZERO).is_ok());
        readable.advance(&stamp(10, None), &[Position(4)]);
        assert!(readable.check(Position(4)).is_ok() && readable.check(Position(10)).is_ok());
        assert!(readable.check(Position::ZERO).is_err());
        // 3 was never complete, and a position that nobody kept cannot come back.
        readable.advance(&stamp(20, None), &[Position(3), Position(10), Position(15)]);
        assert!(readable.check(Position(3)).is_err());
        assert_eq!(readable.retained().collect::<Vec<_>>(), [Position(4), Position(10), Position(15)]);
        assert!(readable.retain(Position(20), &[Position(7), Position(15), Position(20)]));
        assert_eq!(readable.retained().collect::<Vec<_>>(), [Position(15), Position(20)]);
    }

    #[test]
    fn versions_are_seen_between_their_position_and_the_next() {
        let readable = Readable::new(&stamp(20, None), [Position(5), Position(99)]);
        assert!(readable.any_in(Position(5), Some(Position(6))));
        assert!(!readable.any_in(Position(6), Some(Position(20))));
        assert!(readable.any_in(Position(6), Some(Position(21))));
        assert!(readable.any_in(Position(6), None));
        assert!(!readable.any_in(Position(21), None));
    }
}
