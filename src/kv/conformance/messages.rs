//! Messages as values.

use super::fixture::{NO_MESSAGE, Sample, assert_fails, sample, set, set_sample, unique, value};
use crate::kv::{KeyValue, KvError, KvPredicate, PrimaryIterator, StartAt, get_message, set_message, set_message_if};

async fn get(store: &dyn KeyValue, partition: &[u8]) -> Result<(Sample, KvPredicate), KvError> {
    get_message(store, partition, b"key").await
}

/// A message that was set is got.
pub async fn message_set_and_get(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    set_message(store, &partition, b"key", &sample("one")).await.expect("the message is set");
    assert_eq!(get(store, &partition).await.expect("the key exists").0, sample("one"));
}

/// A missing message is `NotFound`.
pub async fn message_get_missing(store: &dyn KeyValue) {
    assert_fails!(get(store, unique("messages").as_bytes()).await, KvError::NotFound { .. });
}

/// A message of default fields is a value of no bytes.
pub async fn message_of_defaults_is_a_value(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    set_message(store, &partition, b"key", &Sample::default()).await.expect("the message is set");
    assert_eq!(value(store, &partition, b"key").await.as_deref(), Some(&b""[..]));
    assert_eq!(get(store, &partition).await.expect("the key exists").0, Sample::default());
}

/// Set-if with "absent", with the right and with a stale predicate.
pub async fn message_set_if(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    let set_if = |name, predicate| {
        let partition = &partition;
        async move { set_message_if(store, partition, b"key", &sample(name), &predicate).await }
    };
    set_if("one", KvPredicate::Absent).await.expect("there is no entry");
    assert_fails!(set_if("two", KvPredicate::Absent).await, KvError::PredicateFailed { .. });
    let (_, first) = get(store, &partition).await.expect("the key exists");
    set_if("two", first.clone()).await.expect("the entry is unchanged");
    assert_fails!(set_if("three", first).await, KvError::PredicateFailed { .. });
    assert_eq!(get(store, &partition).await.expect("the key exists").0, sample("two"));
}

/// A message is deleted once or twice.
pub async fn message_delete_is_idempotent(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    set_message(store, &partition, b"key", &sample("one")).await.expect("the message is set");
    for _ in 0..2 {
        store.delete(&partition, b"key").await.expect("deleting succeeds");
        assert_fails!(get(store, &partition).await, KvError::NotFound { .. });
    }
}

/// Scans behind an existing key, a missing one, before all, behind all.
pub async fn message_scans_after(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    let keys: Vec<String> = (0..25).map(|number| format!("m-{number:02}")).collect();
    for key in &keys {
        set_sample(store, &partition, key).await;
    }
    for (after, expected) in [(&b"m-10"[..], 11), (b"m-10+", 11), (b"", 0), (b"m-24", 25), (b"z", 25)] {
        let mut entries = PrimaryIterator::<Sample>::open(store, &partition, b"m-", StartAt::After(after))
            .await
            .expect("the scan opens");
        for key in &keys[expected..] {
            let entry = entries.next().await.expect("the scan reads").expect("there is an entry");
            assert_eq!((&entry.key[..], entry.message), (key.as_bytes(), sample(key)));
        }
        assert!(entries.next().await.expect("the scan ends").is_none());
    }
}

/// A value that is no such message is `Decode`.
pub async fn message_that_does_not_decode(store: &dyn KeyValue) {
    let partition = unique("messages").into_bytes();
    set(store, &partition, b"key", NO_MESSAGE).await;
    assert_fails!(get(store, &partition).await, KvError::Decode { .. });
}
