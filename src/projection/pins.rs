//! [`Pins`]: the published position, and which older positions somebody still reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::Position;

/// Which positions are being read. A checkpoint keeps what their readers see.
#[derive(Debug, Default)]
pub struct Pins {
    published: AtomicU64,
    pinned: Mutex<Pinned>,
}

#[derive(Debug, Default)]
struct Pinned {
    readers: BTreeMap<Position, usize>,
    /// Where layers in use read their base.
    bases: BTreeMap<Position, usize>,
    /// Where the last checkpoint that keeps only what is seen brings the base, as soon as it knows what is seen.
    kept_from: Position,
}

/// A position that stays readable until this is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    position: Position,
    base: bool,
}

impl Pins {
    /// The position that readers see: everything at or below it is durable (under durability `sync`)
    /// and in the view.
    pub fn published(&self) -> Position {
        Position(self.published.load(Ordering::Acquire))
    }

    /// Publishes. Called by the committer only, with ascending positions.
    pub fn publish(&self, position: Position) {
        self.published.store(position.0, Ordering::Release);
    }

    /// Pins the published position for a reader. Under the same lock that [`Pins::pinned`] takes, so
    /// a checkpoint that asks after its freeze knows every reader below it.
    pub fn pin(self: &Arc<Pins>) -> Pin {
        let mut pinned = self.pinned.lock();
        let position = self.published();
        *pinned.readers.entry(position).or_default() += 1;
        Pin { pins: self.clone(), position, base: false }
    }

    /// Pins a position of the past. Whether it can be read is for the caller to see, afterwards: from here on it is kept.
    pub fn pin_at(self: &Arc<Pins>, position: Position) -> Pin {
        *self.pinned.lock().readers.entry(position).or_default() += 1;
        Pin { pins: self.clone(), position, base: false }
    }

    /// Pins the position of a base for the layers that read it there.
    pub(super) fn pin_base(self: &Arc<Pins>, position: Position) -> Pin {
        *self.pinned.lock().bases.entry(position).or_default() += 1;
        Pin { pins: self.clone(), position, base: true }
    }

    /// The pinned positions below `below`, ascending, each once.
    pub fn pinned(&self, below: Position) -> Vec<Position> {
        self.pinned.lock().below(below)
    }

    /// The same for a checkpoint that brings the base to `to` and keeps nothing else below it: who pins such a position from now on
    /// comes too late, and sees so in [`Pins::kept_from`].
    pub fn keep_only_pinned(&self, to: Position) -> Vec<Position> {
        let mut pinned = self.pinned.lock();
        pinned.kept_from = pinned.kept_from.max(to);
        pinned.below(to)
    }

    /// Positions below this one may be kept only for those who had pinned them before, where the base keeps no history.
    pub fn kept_from(&self) -> Position {
        self.pinned.lock().kept_from
    }

    /// The lowest position that a reader has pinned, the published one when there is none.
    pub fn oldest_reader(&self) -> Position {
        let pinned = self.pinned.lock();
        pinned.readers.keys().next().copied().unwrap_or_else(|| self.published())
    }
}
impl Pin {
    /// The pinned position.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Clone for Pin {
    fn clone(&self) -> Pin {
        let mut pinned = self.pins.pinned.lock();
        *pinned.of(self.base).entry(self.position).or_default() += 1;
        Pin { pins: self.pins.clone(), position: self.position, base: self.base }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned.lock();
        let counts = pinned.of(self.base);
        if let Some(count) = counts.get_mut(&self.position) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.position);
            }
        }
    }
}

impl Pinned {
    fn below(&self, below: Position) -> Vec<Position> {
        let all = self.readers.keys().chain(self.bases.keys()).copied();
        // Position zero is the empty state: nothing has to be kept for its readers.
        let mut positions: Vec<Position> = all.filter(|&at| at > Position::ZERO && at < below).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    fn of(&mut self, base: bool) -> &mut BTreeMap<Position, usize> {
        if base { &mut self.bases } else { &mut self.readers }
    }
}
