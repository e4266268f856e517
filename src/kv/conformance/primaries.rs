//! The primary iterator.

use super::fixture::{NO_MESSAGE, Sample, assert_fails, sample, set, set_sample, unique};
use crate::kv::{KeyValue, KvError, PrimaryIterator, StartAt};

/// a, aa, b, c, d in a partition.
async fn letters(store: &dyn KeyValue) -> Vec<u8> {
    let partition = unique("primary").into_bytes();
    for key in ["a", "aa", "b", "c", "d"] {
        set_sample(store, &partition, key).await;
    }
    partition
}

async fn listing(store: &dyn KeyValue, partition: &[u8], prefix: &str, start: StartAt<'_>) -> String {
    let mut entries =
        PrimaryIterator::<Sample>::open(store, partition, prefix.as_bytes(), start).await.expect("the scan opens");
    let mut keys = Vec::new();
    while let Some(entry) = entries.next().await.expect("the scan reads") {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        assert_eq!(entry.message, sample(&key));
        keys.push(key);
    }
    keys.join(" ")
}

/// No prefix: all entries.
pub async fn primary_all(store: &dyn KeyValue) {
    let partition = letters(store).await;
    assert_eq!(listing(store, &partition, "", StartAt::First).await, "a aa b c d");
}

/// Prefix `a`: a and aa.
pub async fn primary_prefix(store: &dyn KeyValue) {
    let partition = letters(store).await;
    assert_eq!(listing(store, &partition, "a", StartAt::First).await, "a aa");
}

/// After leaves out exactly that key, and is at the end after the last.
pub async fn primary_after(store: &dyn KeyValue) {
    let partition = letters(store).await;
    assert_eq!(listing(store, &partition, "", StartAt::After(b"d")).await, "");
    assert_eq!(listing(store, &partition, "", StartAt::After(b"b")).await, "c d");
    assert_eq!(listing(store, &partition, "", StartAt::After(b"aaa")).await, "b c d");
    assert_eq!(listing(store, &partition, "a", StartAt::After(b"a")).await, "aa");
}

/// From includes that key.
pub async fn primary_from(store: &dyn KeyValue) {
    let partition = letters(store).await;
    assert_eq!(listing(store, &partition, "", StartAt::From(b"b")).await, "b c d");
    assert_eq!(listing(store, &partition, "a", StartAt::From(b"b")).await, "");
}

/// A value that does not decode stops the iterator, and it stays so.
pub async fn primary_undecodable_value(store: &dyn KeyValue) {
    let partition = letters(store).await;
    set(store, &partition, b"b", NO_MESSAGE).await;
    let mut entries =
        PrimaryIterator::<Sample>::open(store, &partition, b"", StartAt::From(b"aa")).await.expect("the scan opens");
    assert!(entries.next().await.expect("the first value decodes").is_some());
    for _ in 0..3 {
        assert_fails!(entries.next().await, KvError::Decode { .. });
    }
}

/// A closed iterator says so.
pub async fn primary_close(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let mut entries =
        PrimaryIterator::<Sample>::open(store, &partition, b"", StartAt::First).await.expect("the scan opens");
    entries.next().await.expect("the scan reads");
    entries.close();
    assert_fails!(entries.next().await, KvError::ClosedEntries);
    entries.close();
    assert_fails!(PrimaryIterator::<Sample>::open(store, b"", b"", StartAt::First).await, KvError::MissingPartition);
}
