//! Open and close.

use tokio_stream::StreamExt;

use super::fixture::{TEST, scan, set, unique, value};
use crate::kv::{KeyValue, KvPredicate, KvScan};
use crate::types::ErrorKind;

/// Two stores are open at the same time and do not see each other.
pub async fn two_stores_at_once(store: &dyn KeyValue, other: &dyn KeyValue) {
    let key = unique("two").into_bytes();
    set(store, TEST, &key, b"one").await;
    assert_eq!(value(other, TEST, &key).await, None);
    set(other, TEST, &key, b"two").await;
    assert_eq!(value(store, TEST, &key).await.as_deref(), Some(&b"one"[..]));
}

/// After close every call fails as `closed`, an open scan too; closing again succeeds.
pub async fn closed_store_refuses_every_call(store: &dyn KeyValue) {
    let key = unique("closed").into_bytes();
    set(store, TEST, &key, b"value").await;
    let mut entries = scan(store, TEST, b"").await;
    store.close().await.expect("the store closes");
    let errors = [
        store.get(TEST, &key).await.err(),
        store.set(TEST, &key, Some(b"new")).await.err(),
        store.set_if(TEST, &key, Some(b"new"), &KvPredicate::Exists).await.err(),
        store.delete(TEST, &key).await.err(),
        match store.scan(TEST, KvScan::default()).await {
            Ok(mut entries) => entries.next().await.expect("the scan tells that the store is closed").err(),
            Err(error) => Some(error),
        },
        entries.next().await.expect("the scan tells that the store is closed").err(),
    ];
    for error in errors {
        assert_eq!(error.expect("a closed store refuses").kind(), ErrorKind::Closed);
    }
    store.close().await.expect("closing again is no error");
}
