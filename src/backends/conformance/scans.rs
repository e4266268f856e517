//! Scans: bounds, order and pages.

use super::fixture::{clear, collect, delete, put, write};
use crate::backends::Backend;
use crate::types::{Page, Position, Slice};

const ROWS: u32 = 2_500;

/// Any range in pages of any size gives each live entry once, in order.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn scans(backend: &dyn Backend) {
    clear(backend).await;
    assert_eq!(backend.scan(Position::ZERO, b"", b"", 10).await.expect("readable"), Page::default());
    let value = [b'v'; 200];
    write(backend, 1, &[], (0..ROWS).map(|row| put(key(row), 1, value))).await;
    // Every third row is gone, every fifth has a newer value.
    let changes = (0..ROWS).filter_map(|row| match (row % 3, row % 5) {
        (0, _) => Some(delete(key(row), 2)),
        (_, 0) => Some(put(key(row), 2, "new")),
        _ => None,
    });
    write(backend, 2, &[1], changes).await;

    let live: Vec<u32> = (0..ROWS).filter(|row| row % 3 != 0).collect();
    for limit in [1, 7, 1000, usize::MAX] {
        let (from, to) = if limit == 1 { (key(100), key(300)) } else { (Vec::new(), Vec::new()) };
        let expected: Vec<Slice> = live
            .iter()
            .map(|&row| Slice::from(key(row)))
            .filter(|key| key[..] >= from[..] && (to.is_empty() || key[..] < to[..]))
            .collect();
        let entries = collect(backend, 2, &from, &to, limit).await;
        assert_eq!(
            entries.iter().map(|entry| entry.encoded_key.clone()).collect::<Vec<_>>(),
            expected,
            "limit {limit}"
        );
        for entry in entries {
            let row: u32 = String::from_utf8_lossy(&entry.encoded_key[1..]).parse().expect("a row's number");
            let newer = row.is_multiple_of(5);
            assert_eq!(entry.version, Position(if newer { 2 } else { 1 }));
            assert_eq!(&entry.value[..], if newer { &b"new"[..] } else { &value[..] });
        }
    }
    assert_eq!(collect(backend, 1, b"", b"", 900).await.len(), ROWS as usize, "the kept position shows all rows");

    // Bounds: inclusive, exclusive, between keys, outside.
    let one = |from: &'static [u8], to: &'static [u8]| async move {
        let page = backend.scan(Position(1), from, to, 1_000_000).await.expect("readable");
        page.entries.first().map(|entry| entry.encoded_key.clone())
    };
    assert_eq!(one(b"k00000100", b"k00000101").await, Some(b"k00000100"[..].into()));
    assert_eq!(one(b"k00000100\0", b"k00000101").await, None);
    assert_eq!(one(b"k00000100x", b"").await, Some(b"k00000101"[..].into()));
    for (from, to) in [(&b"k00000100"[..], &b"k00000100"[..]), (b"k00000101", b"k00000100"), (b"l", b""), (b"", b"k")] {
        let page = backend.scan(Position(1), from, to, 10).await.expect("readable");
        assert_eq!(page, Page::default(), "{from:?} to {to:?}");
    }
    // A limit of zero counts as one; `next` is the place to go on.
    let page = backend.scan(Position(1), b"", b"", 0).await.expect("readable");
    assert_eq!(page.entries.len(), 1);
    assert!(page.next.is_some_and(|next| next[..] > key(0)[..] && next[..] <= key(1)[..]));
}

fn key(row: u32) -> Vec<u8> {
    format!("k{row:08}").into_bytes()
}
