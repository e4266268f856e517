//! Salvage: all transactions of a log that can still be read, without asking whether it opens.
//!
//! Goes by the segment files and what they say of themselves; a manifest helps where there is one, and is not needed. What lies behind a
//! break is taken only up to what was promised: above that it may be left of writes that were never acknowledged.

use super::copy::{FrameSource as _, LogCopy};
use super::format::{ALIGNMENT, FRAMES_AT, FrameKind};
use super::verify::promised;
use super::walk::next_whole;
use super::window::{RawFrame, Slot};
use super::{Frame, Head, LogError};
use crate::types::Position;

/// A piece of a log that may be damaged, in the order of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole transaction.
    Frame(Frame),
    /// Transactions that cannot be read.
    Lost {
        /// The first one.
        first: Position,
        /// The last one.
        last: Position,
        /// Why, in words.
        why: &'static str,
    },
}

impl LogCopy {
    /// Hands over everything that can be read, and what cannot; only what comes `after` a state, where one is given. `progress` is called with segments done and segments in total.
    ///
    /// Errors: those of `found`.
    pub fn salvage(
        &self,
        after: Option<Head>,
        found: &mut dyn FnMut(Piece) -> Result<(), LogError>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), LogError> {
        let witness = self.witness();
        let segments = self.segments();
        let (last, head) = match after {
            Some(head) => (head.position, Some(head)),
            None => (Position::ZERO, witness.map(|witness| witness.start)),
        };
        let mut walk = Salvage { last, head, found };
        let began = witness.map_or_else(
            || segments.first().map_or(Position::ZERO, |segment| segment.first.previous()),
            |witness| witness.start.position,
        );
        walk.lose(began, "trimmed, or the segments are gone")?;
        let mut promise = witness.map_or(Position::ZERO, |witness| witness.promise);
        for (index, segment) in segments.iter().enumerate() {
            progress(index as u64, segments.len() as u64);
            let later = segments.iter().skip(index + 1).filter(|later| later.tag != 0);
            // A segment begins only above what was synced: what an older one holds there was never acknowledged.
            let bound = later.map(|later| later.first.previous()).min();
            let Ok(mut reader) = self.reader(segment) else { continue };
            let trusted = match bound {
                Some(bound) => bound,
                None => {
                    promise = promised(&mut reader, promise).0;
                    promise
                }
            };
            let (mut offset, mut broken) = (FRAMES_AT, false);
            loop {
                let raw = match reader.slot(offset) {
                    Ok(Slot::Frame(raw)) => Some(raw),
                    Ok(Slot::Other(_)) | Err(_) => {
                        broken = true;
                        next_whole(&mut reader, offset + ALIGNMENT)
                    }
                };
                let Some(raw) = raw else { break };
                offset = raw.header.end();
                let above = bound.is_some_and(|bound| raw.header.position > bound);
                if raw.header.kind != FrameKind::Transaction || above {
                    // Nothing that counts follows in order any more.
                    broken = true;
                    continue;
                }
                broken |= !walk.take(raw, if broken { trusted } else { trusted.max(walk.last.next()) })?;
            }
        }
        progress(segments.len() as u64, segments.len() as u64);
        walk.lose(promise, "damaged or missing")
    }
}

struct Salvage<'a> {
    last: Position,
    head: Option<Head>,
    found: &'a mut dyn FnMut(Piece) -> Result<(), LogError>,
}

impl Salvage<'_> {
    /// Everything up to here that was not found is lost.
    fn lose(&mut self, to: Position, why: &'static str) -> Result<(), LogError> {
        if to > self.last {
            (self.found)(Piece::Lost { first: self.last.next(), last: to, why })?;
            self.last = to;
        }
        Ok(())
    }

    /// Takes a frame that goes on from what was taken, or lies behind a gap and not above `trusted`. `false` when it was not what
    /// should be there.
    fn take(&mut self, raw: RawFrame, trusted: Position) -> Result<bool, LogError> {
        let (position, head) = (raw.header.position, raw.head());
        if position <= self.last {
            // A copy of what was taken, as recovery makes them.
            return Ok(true);
        }
        let frame = raw.into_frame();
        let next = position == self.last.next();
        if position > trusted
            || (next && self.head.is_some_and(|head| head.position == self.last && !frame.follows(&head)))
        {
            return Ok(false);
        }
        self.lose(position.previous(), "damaged or missing")?;
        (self.last, self.head) = (position, Some(head));
        (self.found)(Piece::Frame(frame))?;
        Ok(true)
    }
}
