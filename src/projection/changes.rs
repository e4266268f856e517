//! The changes that a checkpoint writes: what of a frozen memtable anybody can still see.

use std::collections::VecDeque;
use std::sync::Arc;

use super::memtable::Memtable;
use crate::backends::{BackendError, Change, Changes};
use crate::types::{Position, Slice};

/// Keys looked at under one lock.
const CHUNK_KEYS: usize = 1024;

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
    Box::new(KeyChanges { table, keep, ready: ranges, next: Some(Slice::from(&[][..])) })
}

struct KeyChanges {
    table: Arc<Memtable>,
    keep: Keep,
    ready: VecDeque<Change>,
    /// Where the next chunk begins; `None` after the last.
    next: Option<Slice>,
}

impl Iterator for KeyChanges {
    type Item = Result<Change, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            let from = self.next.take()?;
            let (keys, next) = self.table.versions(&from, CHUNK_KEYS);
            self.next = next;
            for (key, versions) in keys {
                self.push(key, versions);
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl KeyChanges {
    fn push(&mut self, key: Slice, versions: Vec<(Position, Option<Slice>)>) {
        // Descending, as the versions are: the newest is for everybody above, then each kept
        // position sees the newest one not above it.
        let (readers, mut newest) = match &self.keep {
            Keep::Seen(positions) => (&positions[..], true),
            Keep::All => (&[][..], true),
        };
        let mut readers = readers.iter().rev().peekable();
        for (version, value) in versions {
            let mut seen = newest || matches!(self.keep, Keep::All);
            newest = false;
            while readers.next_if(|&&reader| reader >= version).is_some() {
                seen = true;
            }
            if !seen {
                continue;
            }
            let key = key.clone();
            self.ready.push_back(match value {
                Some(value) => Change::Put { key, version, value },
                None => Change::Delete { key, version },
            });
        }
    }
}
