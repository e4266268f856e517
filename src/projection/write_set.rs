//! [`WriteSet`]: what one transaction does to the views.

use std::sync::Arc;

use crate::types::{Key, KeyRange};

/// The writes of one transaction. Range deletes apply first, in order; then the key writes, which win.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Ranges whose entries go.
    pub ranges: Vec<KeyRange>,
    /// Keys that get a value or go. Each key once.
    pub writes: Vec<Write>,
}

/// A key with its new value, `None` when it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The encoded pair.
    pub key: Key,
    /// The new value; shared with the memtable, never copied again.
    pub value: Option<Arc<[u8]>>,
}

impl WriteSet {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.writes.is_empty()
    }

    /// Whether a write of this set changes what a read of `from <= key < to` saw (`to` empty: no end).
    pub fn meets_range(&self, from: &[u8], to: &[u8]) -> bool {
        let inside = |key: &[u8]| key >= from && (to.is_empty() || key < to);
        self.writes.iter().any(|write| inside(&write.key)) || self.ranges.iter().any(|range| range.meets(from, to))
    }

    /// Adds a write.
    pub fn put(&mut self, key: Key, value: Option<&[u8]>) {
        self.writes.push(Write { key, value: value.map(Arc::from) });
    }
}
