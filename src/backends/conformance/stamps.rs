//! Stamps: what is written comes back whole, and what does not follow is refused.

use super::fixture::{clear, get, is_invalid, is_unreadable, put, stamp, try_write, write};
use crate::backends::Backend;
use crate::types::{LogId, Position};

/// Stamps come back as they were written; stale ones and those of another log are `Invalid` and
/// change nothing; an empty backend is readable at zero only.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn stamps(backend: &dyn Backend) {
    clear(backend).await;
    assert_eq!(get(backend, 0, "a").await, None);
    assert!(is_unreadable(backend.get(Position(1), b"a").await));
    assert!(is_unreadable(backend.scan(Position(1), b"", b"", 1).await));

    write(backend, 5, &[], vec![put("a", 4, "old")]).await;
    assert_eq!(backend.stamp().await.expect("sound"), Some(stamp(5)));
    assert!(is_unreadable(backend.get(Position::ZERO, b"a").await));
    assert!(is_unreadable(backend.get(Position(4), b"a").await));
    assert!(is_unreadable(backend.scan(Position(6), b"", b"", 1).await));

    for stale in [3, 5] {
        assert!(is_invalid(try_write(backend, &stamp(stale), &[], vec![put("a", 5, "stale")]).await));
    }
    let mut other = stamp(9);
    other.log_id = LogId(*b"another-log-----");
    assert!(is_invalid(try_write(backend, &other, &[], vec![put("a", 9, "other")]).await));
    assert_eq!(backend.stamp().await.expect("sound"), Some(stamp(5)));
    assert_eq!(get(backend, 5, "a").await, Some((4, b"old"[..].into())));

    // A checkpoint may bring the stamp forward without a change, and change what the stamp says.
    let mut later = stamp(6);
    later.projections.clear();
    later.format = 77;
    try_write(backend, &later, &[], Vec::new()).await.expect("nothing to write is legal");
    assert_eq!(backend.stamp().await.expect("sound"), Some(later));
    assert_eq!(get(backend, 6, "a").await, Some((4, b"old"[..].into())));
}
