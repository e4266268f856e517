//! Range deletes, within one write and across several.

use super::fixture::{clear, delete, delete_range, get, keys, maintain, put, write};
use crate::backends::Backend;

/// A range delete hides what is older and begins with its prefix, nothing else, at every readable
/// position.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn range_deletes(backend: &dyn Backend) {
    clear(backend).await;
    let rows = ["a", "b", "b\0", "b\u{1}x", "ba", "bb", "c"];
    write(backend, 1, &[], rows.iter().map(|key| put(key, 1, "1"))).await;

    // 3 covers b*, but ba was written at 3 itself and bb after it; b* was written between 1 and 3.
    let changes = vec![delete_range("b", 3), put("b", 2, "2"), put("ba", 3, "3"), delete("ba", 2), put("bb", 4, "4")];
    write(backend, 4, &[1, 2, 3], changes).await;
    assert_eq!(keys(backend, 1).await, rows);
    assert_eq!(get(backend, 2, "b").await, Some((2, b"2"[..].into())));
    assert_eq!(get(backend, 2, "ba").await, None);
    assert_eq!(keys(backend, 3).await, ["a", "ba", "c"]);
    assert_eq!(get(backend, 3, "ba").await, Some((3, b"3"[..].into())));
    assert_eq!(get(backend, 4, "b").await, None);
    assert_eq!(keys(backend, 4).await, ["a", "ba", "bb", "c"]);

    // Nested and repeated ranges, one of them over keys that were never there.
    let changes = vec![
        delete_range("ba", 5),
        delete_range("zz", 5),
        delete_range("b", 6),
        delete_range("b", 6),
        put("ba", 7, "7"),
        put("bx", 5, "5"),
    ];
    write(backend, 7, &[1, 4, 5], changes).await;
    assert_eq!(keys(backend, 1).await, rows);
    assert_eq!(keys(backend, 4).await, ["a", "ba", "bb", "c"]);
    assert_eq!(keys(backend, 5).await, ["a", "bb", "bx", "c"]);
    assert_eq!(keys(backend, 7).await, ["a", "ba", "c"]);
    while maintain(backend, &[1, 4, 5]).await {}
    assert_eq!(keys(backend, 5).await, ["a", "bb", "bx", "c"]);
    assert_eq!(keys(backend, 7).await, ["a", "ba", "c"]);

    // Everything, and a prefix of ff bytes, which has no end.
    write(backend, 8, &[], vec![delete_range("", 8), put([0xff, 0xff, 1], 8, "8"), put([0xff, 0xff, 0xff], 8, "8")])
        .await;
    assert_eq!(get(backend, 8, [0xff, 0xff, 1]).await, Some((8, b"8"[..].into())));
    assert_eq!(get(backend, 8, "a").await, None);
    write(backend, 9, &[], vec![delete_range([0xff, 0xff, 0xff], 9)]).await;
    assert_eq!(get(backend, 9, [0xff, 0xff, 0xff]).await, None);
    write(backend, 10, &[], vec![delete_range([0xff], 10)]).await;
    while maintain(backend, &[]).await {}
    assert_eq!(keys(backend, 10).await, [""; 0]);
}
