//! Versions and the positions that stay readable.

use super::fixture::{clear, collect, delete, get, is_unreadable, keys, maintain, put, write};
use crate::backends::Backend;
use crate::types::Position;

/// Kept positions show what they showed, whatever is written after them; others are `Unreadable`.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn versions(backend: &dyn Backend) {
    clear(backend).await;
    // Several versions of one key in one write: 2 and 3 are kept, 1 is not.
    let first = vec![put("a", 4, "a4"), delete("a", 3), put("a", 2, "a2"), put("b", 1, "b1")];
    write(backend, 4, &[2, 3], first).await;
    assert!(is_unreadable(backend.get(Position(1), b"b").await));
    assert_eq!(get(backend, 2, "a").await, Some((2, b"a2"[..].into())));
    assert_eq!(get(backend, 3, "a").await, None);
    assert_eq!(get(backend, 4, "a").await, Some((4, b"a4"[..].into())));
    assert_eq!(keys(backend, 3).await, ["b"]);

    // The former stamp stays readable when a write keeps it, and older kept positions stay anyway.
    write(backend, 9, &[4, 7], vec![delete("a", 8), put("b", 7, "b7"), put("c", 6, "")]).await;
    assert_eq!(keys(backend, 2).await, ["a", "b"]);
    assert_eq!(keys(backend, 4).await, ["a", "b"]);
    assert_eq!(get(backend, 4, "b").await, Some((1, b"b1"[..].into())));
    assert_eq!(keys(backend, 7).await, ["a", "b", "c"]);
    assert_eq!(keys(backend, 9).await, ["b", "c"]);
    assert_eq!(get(backend, 9, "c").await, Some((6, b""[..].into())), "empty differs from absent");

    // What is not kept goes with the next write, and does not come back by being named.
    write(backend, 12, &[5], vec![put("a", 12, "a12")]).await;
    assert!(is_unreadable(backend.get(Position(9), b"a").await));
    assert!(is_unreadable(backend.get(Position(5), b"a").await));
    maintain(backend, &[2, 9, 12]).await;
    assert!(is_unreadable(backend.get(Position(9), b"a").await));
    assert!(is_unreadable(backend.scan(Position(4), b"", b"", 1).await));
    assert_eq!(get(backend, 2, "a").await, Some((2, b"a2"[..].into())));

    // A stamp retained while it was current outlives the write that supersedes it.
    write(backend, 13, &[], vec![delete("a", 13)]).await;
    assert_eq!(get(backend, 12, "a").await, Some((12, b"a12"[..].into())));
    assert_eq!(get(backend, 13, "a").await, None);
    let versions: Vec<u64> = collect(backend, 13, b"", b"", 1).await.iter().map(|entry| entry.version.0).collect();
    assert_eq!(versions, [7, 6]);
    maintain(backend, &[]).await;
    assert!(is_unreadable(backend.get(Position(12), b"a").await));
    assert_eq!(keys(backend, 13).await, ["b", "c"]);
}
