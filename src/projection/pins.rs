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
    pinned: Mutex<BTreeMap<Position, usize>>,
}

/// A position that stays readable until this is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    position: Position,
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

    /// Pins the published position. Under the same lock that [`Pins::pinned`] takes, so a checkpoint
    /// that asks after its freeze knows every reader below it.
    pub fn pin(self: &Arc<Pins>) -> Pin {
        let mut pinned = self.pinned.lock();
        let position = self.published();
        *pinned.entry(position).or_default() += 1;
        Pin { pins: self.clone(), position }
    }

    /// Pins a given position, which the caller knows to be readable still.
    pub fn pin_at(self: &Arc<Pins>, position: Position) -> Pin {
        *self.pinned.lock().entry(position).or_default() += 1;
        Pin { pins: self.clone(), position }
    }

    /// The pinned positions, ascending.
    pub fn pinned(&self) -> Vec<Position> {
        self.pinned.lock().keys().copied().collect()
    }

    /// The lowest pinned position, the published one when none is pinned.
    pub fn oldest(&self) -> Position {
        let pinned = self.pinned.lock();
        pinned.keys().next().copied().unwrap_or_else(|| self.published())
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
        self.pins.pin_at(self.position)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned.lock();
        if let Some(count) = pinned.get_mut(&self.position) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.position);
            }
        }
    }
}
