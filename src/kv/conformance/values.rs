//! Set, get, delete.

use super::fixture::{TEST, assert_fails, set, unique, value};
use crate::kv::{KeyValue, KvError};

/// What was set is got, whatever happens to the caller's buffers.
pub async fn set_then_get(store: &dyn KeyValue) {
    let name = unique("set-get");
    let (mut key, mut bytes) = (name.clone().into_bytes(), b"value\0\xff".to_vec());
    set(store, TEST, &key, &bytes).await;
    key.fill(b'x');
    bytes.fill(b'x');
    let copy = name.into_bytes();
    assert_eq!(value(store, TEST, &copy).await.as_deref(), Some(&b"value\0\xff"[..]));
    assert_eq!(value(store, TEST, &key).await, None, "the key is the caller's buffer");
}

/// A second set replaces the value.
pub async fn second_set_replaces(store: &dyn KeyValue) {
    let key = unique("replace").into_bytes();
    set(store, TEST, &key, b"first").await;
    set(store, TEST, &key, b"second").await;
    assert_eq!(value(store, TEST, &key).await.as_deref(), Some(&b"second"[..]));
}

/// A missing key, and a known key in an unknown partition, are `NotFound`.
pub async fn get_missing(store: &dyn KeyValue) {
    let (key, other) = (unique("known").into_bytes(), unique("partition").into_bytes());
    set(store, TEST, &key, b"value").await;
    assert_fails!(store.get(TEST, unique("unknown").as_bytes()).await, KvError::NotFound { .. });
    assert_fails!(store.get(&other, &key).await, KvError::NotFound { .. });
}

/// A value of no bytes is legal and differs from no entry.
pub async fn empty_value_is_a_value(store: &dyn KeyValue) {
    let key = unique("empty").into_bytes();
    set(store, TEST, &key, b"").await;
    assert_eq!(value(store, TEST, &key).await.as_deref(), Some(&b""[..]));
}

/// Deleting succeeds for an existing key, a missing key and a missing partition.
pub async fn delete_succeeds(store: &dyn KeyValue) {
    let key = unique("delete").into_bytes();
    set(store, TEST, &key, b"value").await;
    store.delete(TEST, &key).await.expect("deleting an existing key succeeds");
    assert_eq!(value(store, TEST, &key).await, None);
    store.delete(TEST, &key).await.expect("deleting a missing key succeeds");
    store.delete(unique("invalid_partition").as_bytes(), &key).await.expect("a missing partition is no error");
}
