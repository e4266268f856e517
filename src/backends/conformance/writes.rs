//! Writes that fail: nothing of them is seen.

use super::fixture::{
    clear, delete, delete_range, get, is_invalid, keys, maintain, positions, put, stamp, try_write, write,
};
use crate::backends::{Backend, BackendError, Change};
use crate::types::Position;

/// A write whose changes fail on the way, or break the contract, leaves the former state; the next
/// sound one works.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn failing_writes(backend: &dyn Backend) {
    clear(backend).await;
    write(backend, 10, &[], vec![put("a", 7, "a7"), put("b", 10, "b10")]).await;

    for failing_at in [0, 1, 3, 4000] {
        let source = || BackendError::Unavailable { place: "log".into(), detail: "gone".into() };
        let first = std::iter::once(Ok(delete_range("", 11)));
        let puts = (0..failing_at).map(|n| Ok(put(format!("a{n:08}"), 12, [n as u8; 300])));
        let changes = first.chain(puts).chain(std::iter::once_with(|| Err(source()))).chain([Ok(put("z", 12, ""))]);
        let failed = backend.write(&stamp(12), &positions(&[10]), Box::new(changes)).await;
        assert!(matches!(failed, Err(BackendError::Unavailable { .. })), "{failed:?}");
        former_state(backend).await;
    }

    let invalid: [(&[u64], Vec<Change>); 9] = [
        (&[], vec![put("b", 11, ""), put("a", 11, "")]),
        (&[], vec![put("a", 11, ""), put("a", 12, "")]),
        (&[], vec![put("a", 11, ""), put("a", 11, "")]),
        (&[], vec![put("a", 11, ""), delete_range("a", 11)]),
        (&[], vec![delete_range("a", 12), delete_range("a", 11)]),
        (&[], vec![put("a", 13, "")]),
        (&[], vec![delete("a", 10)]),
        (&[], vec![delete_range("a", 10)]),
        (&[12, 11], vec![put("a", 11, "")]),
    ];
    for (keep, changes) in invalid {
        let shown = format!("{keep:?} {changes:?}");
        assert!(is_invalid(try_write(backend, &stamp(12), keep, changes).await), "{shown}");
        former_state(backend).await;
    }
    assert!(is_invalid(try_write(backend, &stamp(12), &[13], Vec::new()).await));

    write(backend, 12, &[], vec![put("a", 11, "a11")]).await;
    assert_eq!(get(backend, 12, "a").await, Some((11, b"a11"[..].into())));
    assert_eq!(keys(backend, 12).await, ["a", "b"]);

    // A late put: a key that was never written, at the version of what it indexes.
    write(backend, 20, &[12], vec![put("index", 7, "a"), put("z", 20, "")]).await;
    assert_eq!(get(backend, 20, "index").await, Some((7, b"a"[..].into())));
    assert_eq!(keys(backend, 20).await, ["a", "b", "index", "z"]);
    while maintain(backend, &[]).await {}
    assert_eq!(keys(backend, 20).await, ["a", "b", "index", "z"]);
}

async fn former_state(backend: &dyn Backend) {
    assert_eq!(backend.stamp().await.expect("sound"), Some(stamp(10)));
    assert!(backend.get(Position(12), b"a").await.is_err());
    assert_eq!(keys(backend, 10).await, ["a", "b"]);
    assert_eq!(get(backend, 10, "a").await, Some((7, b"a7"[..].into())));
}
