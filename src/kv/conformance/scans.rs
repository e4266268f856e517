//! Scans: order, start, page sizes, seeks, close.

use tokio_stream::StreamExt;

use super::fixture::{TEST, UNUSED, assert_fails, fill, item_key, items, next, rest, scan, set, under, unique};
use crate::kv::{Entries, KeyValue, KvError, KvScan, scan_prefix};

/// Of 100 items in one partition and the same keys in another, a scan from the prefix gives the 100 in order.
pub async fn scan_from_the_prefix(store: &dyn KeyValue) {
    let (prefix, other) = (unique("scan"), unique("unused").into_bytes());
    let partition = unique("partition").into_bytes();
    fill(store, &partition, &prefix, 100).await;
    fill(store, &other, &prefix, 100).await;
    let mut entries = scan(store, &partition, prefix.as_bytes()).await;
    assert_eq!(rest(&mut *entries).await, items(&prefix, 0..100));
    // Empty: from the first key of the partition.
    let mut entries = scan(store, &partition, b"").await;
    assert_eq!(rest(&mut *entries).await, items(&prefix, 0..100));
}

/// A scan from item 5's key gives items 5 to 99; from between two keys, what is above.
pub async fn scan_start_is_inclusive(store: &dyn KeyValue) {
    let (prefix, partition) = (unique("scan"), unique("partition").into_bytes());
    fill(store, &partition, &prefix, 100).await;
    let fifth = item_key(&prefix, 5);
    assert_eq!(rest(&mut *scan(store, &partition, &fifth).await).await, items(&prefix, 5..100));
    let above = [&fifth[..], b"\0"].concat();
    assert_eq!(rest(&mut *scan(store, &partition, &above).await).await, items(&prefix, 6..100));
}

/// A partition that nobody wrote to has no entries.
pub async fn scan_of_an_empty_partition(store: &dyn KeyValue) {
    let partition = unique("nothing").into_bytes();
    assert_eq!(rest(&mut *scan(store, &partition, b"").await).await, []);
}

async fn last_key_goes(store: &dyn KeyValue, batch_size: usize) {
    let (prefix, partition) = (unique("scan"), unique("partition").into_bytes());
    fill(store, &partition, &prefix, 100).await;
    let options = KvScan { key_start: prefix.as_bytes(), batch_size };
    let mut entries = store.scan(&partition, options).await.expect("the scan opens");
    store.delete(&partition, &item_key(&prefix, 99)).await.expect("deleting succeeds");
    let found = rest(&mut *entries).await;
    let expected = items(&prefix, 0..100);
    assert!(found == expected || found == expected[..99], "{} entries", found.len());
}

/// Pages of 95, the last of 100 keys deleted after opening: 99 or 100 entries in order.
pub async fn scan_while_the_last_key_goes(store: &dyn KeyValue) {
    last_key_goes(store, 95).await;
}

/// The same with pages of 99, so that the second page may be empty.
pub async fn scan_while_the_last_key_goes_at_a_page_end(store: &dyn KeyValue) {
    last_key_goes(store, 99).await;
}

/// A prefix scan without `after` gives exactly the prefix's entries of its partition.
pub async fn scan_prefix_without_after(store: &dyn KeyValue) {
    let prefix = unique("prefix");
    fill(store, TEST, &prefix, 100).await;
    fill(store, UNUSED, &prefix, 3).await;
    set(store, TEST, format!("{prefix}~").as_bytes(), b"in").await;
    set(store, TEST, &[&prefix.as_bytes()[..prefix.len() - 1], b"y"].concat(), b"above").await;
    set(store, TEST, &prefix.as_bytes()[..prefix.len() - 1], b"below").await;
    let mut expected = items(&prefix, 0..100);
    expected.push((format!("{prefix}~").into_bytes(), b"in".to_vec()));
    assert_eq!(under(store, TEST, &prefix).await, expected);
    assert_eq!(under(store, UNUSED, &prefix).await, items(&prefix, 0..3));
    // `after` is a full key, inclusive, and nothing when it is below the prefix.
    let after = item_key(&prefix, 98);
    let mut entries = scan_prefix(store, TEST, prefix.as_bytes(), &after).await.expect("the scan opens");
    assert_eq!(rest(&mut entries).await, expected[98..]);
    let mut entries = scan_prefix(store, TEST, prefix.as_bytes(), b"\0").await.expect("the scan opens");
    assert_eq!(rest(&mut entries).await, expected);
}

/// Seeks go forwards, backwards, and back from the end; pages are no obstacle.
pub async fn scan_seeks(store: &dyn KeyValue) {
    let (prefix, partition) = (unique("seek"), unique("partition").into_bytes());
    fill(store, &partition, &prefix, 30).await;
    let mut entries = scan(store, &partition, &item_key(&prefix, 20)).await;
    for number in [25, 3, 29, 0, 12] {
        entries.seek_ge(&item_key(&prefix, number)).expect("the scan is open");
        assert_eq!(next(&mut *entries).await.key()[..], item_key(&prefix, number));
    }
    assert_eq!(rest(&mut *entries).await, items(&prefix, 13..30));
    entries.seek_ge(b"\xff").expect("the scan is open");
    assert!(entries.next().await.is_none());
    entries.seek_ge(&[&item_key(&prefix, 27)[..], b"+"].concat()).expect("the scan is open");
    assert_eq!(rest(&mut *entries).await, items(&prefix, 28..30));
}

/// A prefix scan stops for good at its end; a seek goes on, and ends at once below the prefix.
pub async fn scan_prefix_seeks(store: &dyn KeyValue) {
    let partition = unique("partition").into_bytes();
    for key in ["a1", "b1", "b2", "c1"] {
        set(store, &partition, key.as_bytes(), b"").await;
    }
    let mut entries = scan_prefix(store, &partition, b"b", b"").await.expect("the scan opens");
    assert_eq!(rest(&mut entries).await.len(), 2);
    assert!(entries.next().await.is_none() && entries.next().await.is_none());
    entries.seek_ge(b"b2").expect("the scan is open");
    assert_eq!(rest(&mut entries).await, [(b"b2".to_vec(), b"".to_vec())]);
    entries.seek_ge(b"a").expect("the scan is open");
    assert!(entries.next().await.is_none());
    entries.seek_ge(b"b").expect("the scan is open");
    assert_eq!(rest(&mut entries).await.len(), 2);
    entries.close();
    assert_fails!(entries.next().await.expect("closed entries tell so"), KvError::ClosedEntries);
}

/// Closed entries say so, to `next` once and to every seek.
pub async fn scan_close(store: &dyn KeyValue) {
    let (prefix, partition) = (unique("close"), unique("partition").into_bytes());
    fill(store, &partition, &prefix, 3).await;
    let mut entries = scan(store, &partition, b"").await;
    next(&mut *entries).await;
    entries.close();
    assert_fails!(entries.seek_ge(b""), KvError::ClosedEntries);
    assert_fails!(entries.next().await.expect("closed entries tell so"), KvError::ClosedEntries);
    assert!(entries.next().await.is_none());
    entries.close();
    assert!(entries.next().await.is_none());
    assert_fails!(entries.seek_ge(b""), KvError::ClosedEntries);
}
