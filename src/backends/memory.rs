//! [`MemoryBackend`]: a base in memory, and the reference that other backends are compared with.
//!
//! Owns a multi-version ordered map. Range deletes become deletes of the keys they cover when they
//! are written, so that a read looks at one key only; a write holds the lock while it is applied.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::checked::CheckedChanges;
use super::readable::Readable;
use super::{Backend, BackendError, BackendFuture, Change, Changes, Usage};
use crate::types::{Entry, KeyRange, KeyVersion, Page, Position, Slice, Stamp, VersionPage};

/// Keys that one call of [`Backend::maintain`] looks at, and that one page passes over.
const STEP_KEYS: usize = 16 << 10;
/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// What a version costs beside its bytes, for [`Usage`]: an estimate.
const VERSION_OVERHEAD_BYTES: usize = 64;

/// A backend in memory. Clones share one state, so a clone outlives whoever uses another: that is
/// how a simulated crash keeps its base.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    state: Arc<RwLock<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    stamp: Option<Stamp>,
    readable: Readable,
    keys: BTreeMap<Slice, Versions>,
    /// Where the next sweep for versions that nobody sees begins; `None` when none is due.
    sweep: Option<Slice>,
    bytes: usize,
}

/// The versions of one key, descending; `None` is a delete.
#[derive(Clone, Debug, Default)]
struct Versions(VecDeque<(Position, Option<Slice>)>);

impl MemoryBackend {
    /// An empty backend.
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    /// A copy that goes its own way from here.
    #[cfg(test)]
    pub(crate) fn fork(&self) -> MemoryBackend {
        MemoryBackend { state: Arc::new(RwLock::new(self.state.read().clone())) }
    }
}

impl Backend for MemoryBackend {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        Box::pin(async { Ok(self.state.read().stamp.clone()) })
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(async move {
            let former = self.state.read().stamp.clone();
            // Collected before the lock is taken: an error among the changes must leave no trace.
            let changes: Vec<Change> =
                CheckedChanges::new(former.as_ref(), stamp, keep, changes)?.collect::<Result<_, _>>()?;
            let mut state = self.state.write();
            if state.stamp != former {
                return Err(BackendError::Invalid { detail: "two writes at once".into() });
            }
            state.apply(stamp, keep, changes);
            Ok(())
        })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(async move {
            let state = self.state.read();
            state.readable.check(at)?;
            Ok(state
                .keys
                .get(key)
                .and_then(|versions| versions.at(at))
                .map(|(version, value)| (version, value.clone())))
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let state = self.state.read();
            state.readable.check(at)?;
            Ok(state.page(at, from, to, limit.max(1)))
        })
    }

    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage> {
        Box::pin(async move {
            let state = self.state.read();
            state.readable.check_history()?;
            Ok(state.version_page(from, below, to, limit.max(1)))
        })
    }

    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
        Box::pin(async move {
            let mut state = self.state.write();
            if state.readable.retain(at, keep) {
                state.sweep = Some(Slice::from(&b""[..]));
            }
            Ok(state.sweep_step())
        })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async {
            *self.state.write() = State::default();
            Ok(())
        })
    }

    fn usage(&self) -> Usage {
        Usage { disk_bytes: 0, memory_bytes: self.state.read().bytes as u64 }
    }
}

impl State {
    fn apply(&mut self, stamp: &Stamp, keep: &[Position], changes: Vec<Change>) {
        let mut ranges = Vec::new();
        let mut touched = Vec::new();
        for change in changes {
            let (key, version, value) = match change {
                Change::DeleteRange { prefix, version } => {
                    ranges.push((prefix, version));
                    continue;
                }
                Change::Put { key, version, value } => (key, version, Some(value)),
                Change::Delete { key, version } => (key, version, None),
            };
            self.bytes += cost(&key, value.as_ref());
            self.keys.entry(key.clone()).or_default().insert(version, value);
            touched.push(key);
        }
        for (prefix, version) in ranges {
            for (key, versions) in self.keys.range_mut::<[u8], _>(bounds(&prefix, &KeyRange::end_of(&prefix))) {
                if versions.hide_below(version) {
                    self.bytes += cost(key, None);
                    touched.push(key.clone());
                }
            }
        }
        let forgets = self.stamp.as_ref().is_some_and(|former| former.history != stamp.history);
        if forgets {
            self.sweep = Some(Slice::from(&b""[..]));
        }
        self.stamp = Some(stamp.clone());
        self.readable.advance(stamp, keep);
        touched.iter().for_each(|key| self.prune(key));
    }

    /// Drops the versions of a key that no readable position sees.
    fn prune(&mut self, key: &Slice) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        for value in versions.prune(&self.readable) {
            self.bytes -= cost(key, value.as_ref());
        }
        if versions.0.is_empty() {
            self.keys.remove(key);
        }
    }

    fn sweep_step(&mut self) -> bool {
        let Some(from) = self.sweep.take() else { return false };
        let mut keys: Vec<Slice> = self.keys.range(from..).take(STEP_KEYS + 1).map(|(key, _)| key.clone()).collect();
        if keys.len() > STEP_KEYS {
            self.sweep = keys.pop();
        }
        keys.iter().for_each(|key| self.prune(key));
        self.sweep.is_some()
    }

    fn page(&self, at: Position, from: &[u8], to: &[u8], limit: usize) -> Page {
        let mut page = Page::default();
        if !to.is_empty() && from >= to {
            return page;
        }
        let mut bytes = 0;
        for (passed, (key, versions)) in self.keys.range::<[u8], _>(bounds(from, to)).enumerate() {
            if page.entries.len() >= limit || bytes >= PAGE_BYTES || passed >= limit.max(STEP_KEYS) {
                page.next = Some(key.clone());
                break;
            }
            if let Some((version, value)) = versions.at(at) {
                bytes += key.len() + value.len();
                page.entries.push(Entry { encoded_key: key.clone(), version, value: value.clone() });
            }
        }
        page
    }

    fn version_page(&self, from: &[u8], below: Position, to: &[u8], limit: usize) -> VersionPage {
        let mut page = VersionPage::default();
        if !to.is_empty() && from >= to {
            return page;
        }
        let mut bytes = 0;
        for (key, versions) in self.keys.range::<[u8], _>(bounds(from, to)) {
            let below = if key[..] == *from { below } else { Position::MAX };
            let first = versions.0.partition_point(|(version, _)| *version >= below);
            for (version, value) in versions.0.iter().skip(first) {
                if page.versions.len() >= limit || bytes >= PAGE_BYTES {
                    page.next = Some((key.clone(), version.next()));
                    return page;
                }
                bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
                let (encoded_key, version, value) = (key.clone(), *version, value.clone());
                page.versions.push(KeyVersion { encoded_key, version, value });
            }
        }
        page
    }
}

impl Versions {
    /// The first version not above a position.
    fn index_at(&self, at: Position) -> usize {
        self.0.partition_point(|(version, _)| *version > at)
    }

    fn at(&self, at: Position) -> Option<(Position, &Slice)> {
        let (version, value) = self.0.get(self.index_at(at))?;
        Some((*version, value.as_ref()?))
    }

    fn insert(&mut self, version: Position, value: Option<Slice>) {
        self.0.insert(self.index_at(version), (version, value));
    }

    /// A range delete at `version` covers the key; `true` when that hides something.
    fn hide_below(&mut self, version: Position) -> bool {
        let hides =
            self.0.get(self.index_at(version)).is_some_and(|(older, value)| *older < version && value.is_some());
        if hides {
            self.insert(version, None);
        }
        hides
    }

    /// Removes and returns what no readable position sees.
    fn prune(&mut self, readable: &Readable) -> Vec<Option<Slice>> {
        let mut removed = Vec::new();
        let mut newer = None;
        let mut kept = VecDeque::with_capacity(self.0.len());
        for (version, value) in self.0.drain(..) {
            if readable.any_in(version, newer) {
                kept.push_back((version, value));
            } else {
                removed.push(value);
            }
            newer = Some(version);
        }
        // A delete with nothing below it hides nothing.
        while kept.pop_back_if(|(_, value)| value.is_none()).is_some() {
            removed.push(None);
        }
        self.0 = kept;
        removed
    }
}

fn cost(key: &Slice, value: Option<&Slice>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + VERSION_OVERHEAD_BYTES
}

fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) })
}

#[cfg(test)]
mod tests;
