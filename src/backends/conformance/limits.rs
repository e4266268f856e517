//! The largest and the strangest keys and values.

use super::fixture::{clear, collect, get, is_invalid, maintain, put, stamp, try_write, write};
use crate::backends::Backend;
use crate::types::{Key, Limits, Position, Slice};

/// Empty values, values and keys at the limits, every byte in a key; above the limits: `Invalid`.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn limits(backend: &dyn Backend) {
    clear(backend).await;
    // Bytes that do not compress, so that the largest value stays the largest.
    let mut state = 1u64;
    let largest: Slice = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(Limits::VALUE_BYTES_MAX)
    .collect::<Vec<u8>>()
    .into();
    // The longest pair: each zero of the partition is encoded as two bytes.
    let longest = |last: u8| {
        let mut key = vec![0xff; Limits::PARTITION_AND_KEY_BYTES_MAX - Limits::PARTITION_BYTES_MAX];
        key.pop();
        key.push(last);
        Key::encode(&[0; Limits::PARTITION_BYTES_MAX], &key)
    };
    let mut rows: Vec<(Vec<u8>, Slice)> =
        (0..=255u8).map(|byte| (vec![b'k', byte, 0, byte], Slice::from(&[][..]))).collect();
    rows.push((longest(0), b"first"[..].into()));
    rows.push((longest(1), largest.clone()));
    rows.push((longest(2), largest.part(0..300_000)));
    rows.push((Vec::new(), b"the empty key"[..].into()));
    rows.push((b"kk".to_vec(), b"after the large ones"[..].into()));
    rows.sort();
    write(backend, 1, &[], rows.iter().map(|(key, value)| put(key, 1, value))).await;

    for (key, value) in &rows {
        assert!(get(backend, 1, key).await == Some((1, value.clone())), "{}", key.escape_ascii());
    }
    let entries = collect(backend, 1, b"", b"", 50).await;
    assert!(entries.iter().map(|entry| (entry.encoded_key.to_vec(), entry.value.clone())).eq(rows.iter().cloned()));
    // A page ends soon after a large value.
    let page = backend.scan(Position(1), &longest(0), b"", 1000).await.expect("readable");
    assert!(page.entries.len() <= 3 && page.next.is_some());

    let above = Slice::from(vec![0; Limits::VALUE_BYTES_MAX + 1]);
    assert!(is_invalid(try_write(backend, &stamp(2), &[], vec![put("a", 2, above)]).await));
    assert!(is_invalid(try_write(backend, &stamp(2), &[], vec![put(vec![1; 1 << 17], 2, "")]).await));

    // Superseded, the largest value is found in neither place.
    write(backend, 2, &[], vec![put(longest(1), 2, "small")]).await;
    while maintain(backend, &[]).await {}
    assert_eq!(get(backend, 2, longest(1)).await, Some((2, b"small"[..].into())));
}
