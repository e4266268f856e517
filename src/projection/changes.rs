//! The changes that a checkpoint writes: what of a frozen memtable anybody can still see.

use std::collections::VecDeque;
use std::sync::Arc;

use super::memtable::{KeyVersion, Memtable};
use crate::backends::{BackendError, Change, Changes};
use crate::types::{Position, Slice};

/// Versions looked at under one lock.
const CHUNK_VERSIONS: usize = if cfg!(test) { 3 } else { 1024 };

/// Which versions of a key a checkpoint writes.
#[derive(Clone, Debug)]
pub enum Keep {
    /// The newest and those that these positions (ascending) see.
    Seen(Vec<Position>),
    /// All: the base keeps the history.
    All,
}

/// The changes of a frozen memtable in the order that [`crate::backends::Backend::write`] asks for:
/// range deletes by position, then keys, each with the versions to keep.
pub fn changes(table: Arc<Memtable>, keep: Keep) -> Changes<'static> {
    let ranges: VecDeque<Change> =
        table.range_deletes().into_iter().map(|(version, prefix)| Change::DeleteRange { prefix, version }).collect();
    let next = Some((Slice::from(&[][..]), Position::MAX));
    Box::new(KeyChanges { table, keep, ready: ranges, next, key: None, readers: 0 })
}

struct KeyChanges {
    table: Arc<Memtable>,
    keep: Keep,
    ready: VecDeque<Change>,
    /// Where the next chunk begins, and below which version of that key; `None` after the last.
    next: Option<(Slice, Position)>,
    /// The key whose versions are being looked at.
    key: Option<Slice>,
    /// How many of the positions to keep lie below the versions of it that were looked at.
    readers: usize,
}

impl Iterator for KeyChanges {
    type Item = Result<Change, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            let (from, below) = self.next.take()?;
            let (versions, next) = self.table.versions(&from, below, &[], CHUNK_VERSIONS);
            self.next = next;
            for version in versions {
                self.push(version);
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl KeyChanges {
    /// Versions of one key come newest first: that one is for everybody above, then each kept position sees the newest one not
    /// above it.
    fn push(&mut self, (key, version, value): KeyVersion) {
        let newest = self.key.as_ref() != Some(&key);
        let seen = match &self.keep {
            Keep::All => true,
            Keep::Seen(positions) => {
                if newest {
                    self.readers = positions.len();
                }
                let readers = self.readers;
                self.readers = positions.get(..readers).map_or(0, |left| left.partition_point(|at| *at < version));
                newest || self.readers < readers
            }
        };
        if newest {
            self.key = Some(key.clone());
        }
        if !seen {
            return;
        }
        self.ready.push_back(match value {
            Some(value) => Change::Put { key, version, value },
            None => Change::Delete { key, version },
        });
    }
}
