//! Arguments that are missing or too big: which error, in which order.

use super::fixture::{TEST, assert_fails, unique, value};
use crate::kv::{KeyValue, KvError, KvPredicate, KvScan};

/// Set without a partition is `MissingPartition`.
pub async fn missing_partition(store: &dyn KeyValue) {
    assert_fails!(store.set(b"", b"key", Some(b"value")).await, KvError::MissingPartition);
}

/// Set without a key is `MissingKey`.
pub async fn missing_key(store: &dyn KeyValue) {
    assert_fails!(store.set(TEST, b"", Some(b"value")).await, KvError::MissingKey);
}

/// Set without a value is `MissingValue` and sets nothing.
pub async fn missing_value(store: &dyn KeyValue) {
    let key = unique("no-value");
    assert_fails!(store.set(TEST, key.as_bytes(), None).await, KvError::MissingValue);
    assert_eq!(value(store, TEST, key.as_bytes()).await, None);
}

/// Every call checks the partition, then the key, then the value.
pub async fn missing_arguments(store: &dyn KeyValue) {
    let absent = KvPredicate::Absent;
    assert_fails!(store.get(b"", b"").await, KvError::MissingPartition);
    assert_fails!(store.get(b"", b"key").await, KvError::MissingPartition);
    assert_fails!(store.get(TEST, b"").await, KvError::MissingKey);
    assert_fails!(store.set(b"", b"", None).await, KvError::MissingPartition);
    assert_fails!(store.set(TEST, b"", None).await, KvError::MissingKey);
    assert_fails!(store.set(TEST, b"key", None).await, KvError::MissingValue);
    assert_fails!(store.set_if(b"", b"", None, &absent).await, KvError::MissingPartition);
    assert_fails!(store.set_if(b"", b"key", Some(b"value"), &absent).await, KvError::MissingPartition);
    assert_fails!(store.set_if(TEST, b"", None, &absent).await, KvError::MissingKey);
    assert_fails!(store.set_if(TEST, b"key", None, &absent).await, KvError::MissingValue);
    // The arguments are checked before the predicate.
    assert_fails!(store.set_if(TEST, b"", Some(b"value"), &KvPredicate::Exists).await, KvError::MissingKey);
    assert_fails!(store.delete(b"", b"").await, KvError::MissingPartition);
    assert_fails!(store.delete(b"", b"key").await, KvError::MissingPartition);
    assert_fails!(store.delete(TEST, b"").await, KvError::MissingKey);
    assert_fails!(store.scan(b"", KvScan::default()).await, KvError::MissingPartition);
    assert_fails!(store.scan(b"", KvScan::from(b"key")).await, KvError::MissingPartition);
}

/// A batch size above the limit is `BatchSizeTooBig`; the limit itself works.
pub async fn batch_size_too_big(store: &dyn KeyValue) {
    let options = |batch_size| KvScan { key_start: b"", batch_size };
    let above = options(KvScan::BATCH_SIZE_MAX + 1);
    assert_fails!(store.scan(TEST, above).await, KvError::BatchSizeTooBig { .. });
    assert_fails!(store.scan(b"", above).await, KvError::MissingPartition);
    store.scan(TEST, options(KvScan::BATCH_SIZE_MAX)).await.expect("the limit is allowed");
}
