//! Background work and clearing.

use super::fixture::{clear, collect, delete, delete_range, get, maintain, put, stamp, write};
use crate::backends::Backend;
use crate::types::{Entry, Position};

/// Maintenance comes to an end, and never changes what a readable position shows; what only
/// dropped positions saw may go.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn maintenance(backend: &dyn Backend) {
    clear(backend).await;
    assert!(!maintain(backend, &[]).await, "an empty backend has nothing to do");
    let mut kept: Vec<(u64, Vec<Entry>)> = Vec::new();
    for round in 1..=24u64 {
        let position = round * 10;
        let mut changes = Vec::new();
        if round % 8 == 5 {
            changes.push(delete_range("k1", position - 5));
        }
        for key in (0..60).filter(|key| (key * 7 + round) % 3 == 0) {
            let key_bytes = format!("k{key:02}");
            let gone = (key + round) % 4 == 0;
            changes.push(if gone {
                delete(key_bytes, position)
            } else {
                put(key_bytes, position, vec![round as u8; 50])
            });
        }
        let keep: Vec<u64> = kept.iter().map(|(at, _)| *at).collect();
        write(backend, position, &keep, changes).await;
        if round % 5 == 0 {
            kept.push((position, collect(backend, position, b"", b"", 1000).await));
        }
        if round % 3 == 0 || round % 5 == 0 {
            let keep: Vec<u64> = kept.iter().map(|(at, _)| *at).collect();
            maintain(backend, &keep).await;
        }
        for (at, entries) in &kept {
            assert_eq!(&collect(backend, *at, b"", b"", 13).await, entries, "at {at} after round {round}");
        }
    }
    let current = collect(backend, 240, b"", b"", 1000).await;
    finish(backend, &[50, 150]).await;
    for (at, entries) in kept.iter().filter(|(at, _)| [50, 150].contains(at)) {
        assert_eq!(&collect(backend, *at, b"", b"", 13).await, entries, "at {at} after retain");
    }
    assert!(backend.get(Position(100), b"k00").await.is_err());
    finish(backend, &[]).await;
    assert_eq!(collect(backend, 240, b"", b"", 1000).await, current);
}

/// After `clear` nothing is left, twice in a row too, and another log may begin.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn clearing(backend: &dyn Backend) {
    clear(backend).await;
    write(backend, 5, &[3], vec![put("a", 2, "2")]).await;
    clear(backend).await;
    clear(backend).await;
    assert!(backend.get(Position(5), b"a").await.is_err());
    assert!(backend.get(Position(3), b"a").await.is_err());
    assert_eq!(get(backend, 0, "a").await, None);

    let mut other = stamp(2);
    other.log_id = crate::types::LogId(*b"another-log-----");
    super::fixture::try_write(backend, &other, &[], vec![put("b", 1, "1")]).await.expect("a new log may begin");
    assert_eq!(backend.stamp().await.expect("sound"), Some(other));
    assert_eq!(get(backend, 2, "a").await, None);
    assert_eq!(get(backend, 2, "b").await, Some((1, b"1"[..].into())));
}

async fn finish(backend: &dyn Backend, keep: &[u64]) {
    for _ in 0..1000 {
        if !maintain(backend, keep).await {
            return;
        }
    }
    panic!("maintenance does not come to an end");
}
