//! Set-if: each predicate, where it holds and where it fails.

use super::fixture::{TEST, assert_fails, set, token, unique, value};
use crate::kv::{KeyValue, KvError, KvPredicate};

async fn sets(store: &dyn KeyValue, key: &[u8], predicate: &KvPredicate) {
    store.set_if(TEST, key, Some(b"new"), predicate).await.expect("the predicate holds");
    assert_eq!(value(store, TEST, key).await.as_deref(), Some(&b"new"[..]));
}

async fn fails(store: &dyn KeyValue, key: &[u8], predicate: &KvPredicate) {
    let before = value(store, TEST, key).await;
    assert_fails!(store.set_if(TEST, key, Some(b"new"), predicate).await, KvError::PredicateFailed { .. });
    assert_eq!(value(store, TEST, key).await, before, "a failed predicate changes nothing");
}

fn raw(bytes: &'static [u8]) -> KvPredicate {
    KvPredicate::Value(bytes.into())
}

/// "Absent" on a new key sets.
pub async fn absent_on_a_new_key_sets(store: &dyn KeyValue) {
    sets(store, unique("new").as_bytes(), &KvPredicate::Absent).await;
}

/// The predicate of get sets while the entry is unchanged.
pub async fn token_of_an_unchanged_entry_sets(store: &dyn KeyValue) {
    let key = unique("unchanged").into_bytes();
    set(store, TEST, &key, b"v1").await;
    let first = token(store, TEST, &key).await;
    sets(store, &key, &first).await;
    // It was changed by that.
    fails(store, &key, &first).await;
}

/// Raw bytes that differ from the value fail.
pub async fn raw_bytes_that_differ_fail(store: &dyn KeyValue) {
    let key = unique("raw").into_bytes();
    set(store, TEST, &key, b"v1").await;
    fails(store, &key, &raw(b"pred")).await;
}

/// Raw bytes pass when the value is exactly these, however it came to be; empty ones too.
pub async fn raw_bytes_compare_with_the_value(store: &dyn KeyValue) {
    let key = unique("raw").into_bytes();
    for (bytes, other) in [(&b"v1"[..], &b"v"[..]), (b"", b"v")] {
        set(store, TEST, &key, bytes).await;
        fails(store, &key, &raw(other)).await;
        sets(store, &key, &raw(bytes)).await;
    }
}

/// Raw bytes on a missing key fail, empty ones too.
pub async fn raw_bytes_on_a_missing_key_fail(store: &dyn KeyValue) {
    let key = unique("raw").into_bytes();
    fails(store, &key, &raw(b"v1")).await;
    fails(store, &key, &raw(b"")).await;
}

/// "Absent" on an existing key fails, also when the value is empty.
pub async fn absent_on_an_existing_key_fails(store: &dyn KeyValue) {
    let key = unique("existing").into_bytes();
    for bytes in [&b"v1"[..], b""] {
        set(store, TEST, &key, bytes).await;
        fails(store, &key, &KvPredicate::Absent).await;
    }
}

/// The predicate of get for an empty value is not mistaken for "absent".
pub async fn token_of_an_empty_value_sets(store: &dyn KeyValue) {
    let key = unique("empty").into_bytes();
    set(store, TEST, &key, b"").await;
    let empty = token(store, TEST, &key).await;
    assert_ne!(empty, KvPredicate::Absent);
    sets(store, &key, &empty).await;
    store.delete(TEST, &key).await.expect("deleting succeeds");
    fails(store, &key, &empty).await;
}

/// "Exists" on an existing key sets, whatever its value.
pub async fn exists_on_an_existing_key_sets(store: &dyn KeyValue) {
    let key = unique("existing").into_bytes();
    for bytes in [&b"v1"[..], b""] {
        set(store, TEST, &key, bytes).await;
        sets(store, &key, &KvPredicate::Exists).await;
    }
}

/// "Exists" on a missing key fails, and the key is still missing.
pub async fn exists_on_a_missing_key_fails(store: &dyn KeyValue) {
    fails(store, unique("missing").as_bytes(), &KvPredicate::Exists).await;
}

/// A value that changed and changed back is another entry.
pub async fn token_of_a_value_changed_back_fails(store: &dyn KeyValue) {
    let key = unique("aba").into_bytes();
    set(store, TEST, &key, b"a").await;
    let first = token(store, TEST, &key).await;
    set(store, TEST, &key, b"b").await;
    set(store, TEST, &key, b"a").await;
    fails(store, &key, &first).await;
    let last = token(store, TEST, &key).await;
    sets(store, &key, &last).await;
}

/// An entry that was deleted and set again is another entry.
pub async fn token_of_a_deleted_entry_fails(store: &dyn KeyValue) {
    let key = unique("deleted").into_bytes();
    set(store, TEST, &key, b"a").await;
    let first = token(store, TEST, &key).await;
    store.delete(TEST, &key).await.expect("deleting succeeds");
    fails(store, &key, &first).await;
    set(store, TEST, &key, b"a").await;
    fails(store, &key, &first).await;
}

/// A predicate that another store gave for the same key and value fails.
pub async fn token_of_another_store_fails(store: &dyn KeyValue, other: &dyn KeyValue) {
    let key = unique("other").into_bytes();
    set(store, TEST, &key, b"a").await;
    set(other, TEST, &key, b"a").await;
    let mut foreign = token(other, TEST, &key).await;
    fails(store, &key, &foreign).await;
    // Also when the version is right by chance.
    if let (KvPredicate::Token(foreign), KvPredicate::Token(own)) = (&mut foreign, token(store, TEST, &key).await) {
        foreign.version = own.version;
    }
    fails(store, &key, &foreign).await;
}
