//! Short ways to say stamps and changes, and to look at a backend.

use crate::backends::{Backend, BackendError, Change};
use crate::types::{Entry, Hash, LogId, Position, ProjectionVersion, Slice, Stamp};

pub(super) fn stamp(position: u64) -> Stamp {
    let mut chain = [0xc4; 32];
    chain[..8].copy_from_slice(&position.to_le_bytes());
    Stamp {
        log_id: LogId(*b"conformance-log!"),
        format: Stamp::FORMAT,
        position: Position(position),
        chain: Hash(chain),
        projections: vec![ProjectionVersion { name: "users-by-email".into(), version: 3, since: Position(1) }],
        history: None,
        redaction: Position::ZERO,
    }
}

pub(super) fn put(key: impl AsRef<[u8]>, version: u64, value: impl AsRef<[u8]>) -> Change {
    Change::Put { key: key.as_ref().into(), version: Position(version), value: value.as_ref().into() }
}

pub(super) fn delete(key: impl AsRef<[u8]>, version: u64) -> Change {
    Change::Delete { key: key.as_ref().into(), version: Position(version) }
}

pub(super) fn delete_range(prefix: impl AsRef<[u8]>, version: u64) -> Change {
    Change::DeleteRange { prefix: prefix.as_ref().into(), version: Position(version) }
}

pub(super) fn positions(numbers: &[u64]) -> Vec<Position> {
    numbers.iter().copied().map(Position).collect()
}

pub(super) async fn try_write(
    backend: &dyn Backend,
    stamp: &Stamp,
    keep: &[u64],
    changes: Vec<Change>,
) -> Result<(), BackendError> {
    backend.write(stamp, &positions(keep), Box::new(changes.into_iter().map(Ok))).await
}

pub(super) async fn write(backend: &dyn Backend, position: u64, keep: &[u64], changes: Vec<Change>) {
    try_write(backend, &stamp(position), keep, changes).await.expect("the write keeps the contract");
}

pub(super) async fn clear(backend: &dyn Backend) {
    backend.clear().await.expect("clear works");
    assert_eq!(backend.stamp().await.expect("a cleared backend is sound"), None);
}

/// The version and the value of a key.
pub(super) async fn get(backend: &dyn Backend, at: u64, key: impl AsRef<[u8]>) -> Option<(u64, Slice)> {
    let found = backend.get(Position(at), key.as_ref()).await.expect("the position is readable");
    found.map(|(version, value)| (version.0, value))
}

/// A whole range, page by page.
pub(super) async fn collect(backend: &dyn Backend, at: u64, from: &[u8], to: &[u8], limit: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut from = Slice::from(from);
    loop {
        let page = backend.scan(Position(at), &from, to, limit).await.expect("the position is readable");
        assert!(page.entries.len() <= limit.max(1), "a page above its limit");
        for entry in page.entries {
            assert!(entry.encoded_key >= from, "an entry before the page");
            assert!(entries.last().is_none_or(|last| last.encoded_key < entry.encoded_key), "entries out of order");
            entries.push(entry);
        }
        let Some(next) = page.next else { return entries };
        let last = entries.last().map_or(&from, |last| &last.encoded_key);
        assert!(next > from || (next == from && entries.is_empty()), "a page that does not advance");
        assert!(next > *last || entries.is_empty(), "the next page repeats an entry");
        from = next;
    }
}

/// One piece of maintenance that keeps these positions; `true` when there is more.
pub(super) async fn maintain(backend: &dyn Backend, keep: &[u64]) -> bool {
    let at = backend.stamp().await.expect("sound").map_or(Position::ZERO, |stamp| stamp.position);
    backend.maintain(at, &positions(keep)).await.expect("maintenance works")
}

/// All keys that live at a position, as text.
pub(super) async fn keys(backend: &dyn Backend, at: u64) -> Vec<String> {
    let entries = collect(backend, at, b"", b"", 100).await;
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.encoded_key).into_owned()).collect()
}

pub(super) fn is_invalid<T>(result: Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Invalid { .. }))
}

pub(super) fn is_unreadable<T>(result: Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Unreadable { .. }))
}
