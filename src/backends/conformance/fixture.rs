//! Short ways to say stamps and changes, and to look at a backend: for the suites, and for the tests of each backend.

use crate::backends::{Backend, BackendError, Change};
use crate::types::{Entry, Hash, LogId, Position, ProjectionVersion, Slice, Stamp};

pub(in crate::backends) fn stamp(position: u64) -> Stamp {
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

pub(in crate::backends) fn put(key: impl AsRef<[u8]>, version: u64, value: impl AsRef<[u8]>) -> Change {
    Change::Put { key: key.as_ref().into(), version: Position(version), value: value.as_ref().into() }
}

pub(in crate::backends) fn delete(key: impl AsRef<[u8]>, version: u64) -> Change {
    Change::Delete { key: key.as_ref().into(), version: Position(version) }
}

pub(in crate::backends) fn delete_range(prefix: impl AsRef<[u8]>, version: u64) -> Change {
    Change::DeleteRange { prefix: prefix.as_ref().into(), version: Position(version) }
}

pub(in crate::backends) fn positions(numbers: &[u64]) -> Vec<Position> {
    numbers.iter().copied().map(Position).collect()
}

pub(in crate::backends) async fn try_write(
    backend: &dyn Backend,
    stamp: &Stamp,
    keep: &[u64],
    changes: impl IntoIterator<Item = Change, IntoIter: Send>,
) -> Result<(), BackendError> {
    backend.write(stamp, &positions(keep), Box::new(changes.into_iter().map(Ok))).await
}

pub(in crate::backends) async fn write(
    backend: &dyn Backend,
    position: u64,
    keep: &[u64],
    changes: impl IntoIterator<Item = Change, IntoIter: Send>,
) {
    try_write(backend, &stamp(position), keep, changes).await.expect("the write keeps the contract");
}

pub(in crate::backends) async fn clear(backend: &dyn Backend) {
    backend.clear().await.expect("clear works");
    assert_eq!(backend.stamp().await.expect("a cleared backend is sound"), None);
}

/// The version and the value of a key.
pub(in crate::backends) async fn get(backend: &dyn Backend, at: u64, key: impl AsRef<[u8]>) -> Option<(u64, Slice)> {
    let found = backend.get(Position(at), key.as_ref()).await.expect("the position is readable");
    found.map(|(version, value)| (version.0, value))
}

/// A whole range, page by page.
pub(in crate::backends) async fn collect(
    backend: &dyn Backend,
    at: u64,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Vec<Entry> {
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

/// Every entry at a position: key, version, value.
#[cfg(all(test, any(feature = "postgres", feature = "sled")))]
pub(in crate::backends) async fn dump(
    backend: &dyn Backend,
    at: u64,
) -> Result<Vec<(Slice, u64, Slice)>, BackendError> {
    let (mut entries, mut from) = (Vec::new(), Slice::from(&b""[..]));
    loop {
        let page = backend.scan(Position(at), &from, b"", 100).await?;
        entries.extend(page.entries.into_iter().map(|entry| (entry.encoded_key, entry.version.0, entry.value)));
        match page.next {
            Some(next) => from = next,
            None => return Ok(entries),
        }
    }
}

/// One piece of maintenance that keeps these positions; `true` when there is more.
pub(in crate::backends) async fn maintain(backend: &dyn Backend, keep: &[u64]) -> bool {
    let at = backend.stamp().await.expect("sound").map_or(Position::ZERO, |stamp| stamp.position);
    backend.maintain(at, &positions(keep)).await.expect("maintenance works")
}

/// All keys that live at a position, as text.
pub(in crate::backends) async fn keys(backend: &dyn Backend, at: u64) -> Vec<String> {
    let entries = collect(backend, at, b"", b"", 100).await;
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.encoded_key).into_owned()).collect()
}

pub(in crate::backends) fn is_invalid<T>(result: Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Invalid { .. }))
}

pub(in crate::backends) fn is_unreadable<T>(result: Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Unreadable { .. }))
}
