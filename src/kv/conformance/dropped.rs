//! Calls whose future is dropped: the counterpart of a cancelled context.

use std::future::poll_fn;
use std::task::Poll;

use super::fixture::{TEST, rest, scan, set, unique, value};
use crate::kv::{KeyValue, KvFuture, KvPredicate, KvScan};

/// Polls a call once, then drops it. `None` when it was not done by then.
async fn poll_once<T>(mut call: KvFuture<'_, T>) -> Option<T> {
    let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
    match polled {
        Poll::Ready(done) => Some(done.expect("a call that finishes at once succeeds")),
        Poll::Pending => None,
    }
}

/// A future that nobody polls does nothing.
pub async fn a_call_that_is_not_polled_does_nothing(store: &dyn KeyValue) {
    let (key, kept) = (unique("unpolled").into_bytes(), unique("kept").into_bytes());
    set(store, TEST, &kept, b"old").await;
    drop(store.set(TEST, &key, Some(b"new")));
    drop(store.set_if(TEST, &key, Some(b"new"), &KvPredicate::Absent));
    drop(store.delete(TEST, &kept));
    assert_eq!(value(store, TEST, &key).await, None);
    assert_eq!(value(store, TEST, &kept).await.as_deref(), Some(&b"old"[..]));
}

/// Each call dropped half-way is applied wholly or not at all, and the store goes on.
pub async fn a_call_that_is_dropped_leaves_the_store_usable(store: &dyn KeyValue) {
    let partition = unique("dropped").into_bytes();
    for round in 0..20 {
        let key = format!("key-{}", round % 3).into_bytes();
        set(store, &partition, &key, b"old").await;
        if let Some(found) = poll_once(store.get(&partition, &key)).await {
            assert_eq!(&found.value[..], b"old");
        }
        if let Some(mut entries) = poll_once(store.scan(&partition, KvScan::default())).await {
            assert!(rest(&mut *entries).await.iter().any(|(found, _)| *found == key));
        }
        poll_once(store.set_if(&partition, &key, Some(b"if"), &KvPredicate::Exists)).await;
        poll_once(store.set(&partition, &key, Some(b"new"))).await;
        let found = value(store, &partition, &key).await.expect("the key exists");
        assert!([&b"old"[..], b"if", b"new"].contains(&&found[..]), "{found:?}");
        poll_once(store.delete(&partition, &key)).await;
        // Later calls come later, so nothing of the former ones shows after it.
        set(store, &partition, &key, b"last").await;
        assert_eq!(value(store, &partition, &key).await.as_deref(), Some(&b"last"[..]));
    }
    assert_eq!(rest(&mut *scan(store, &partition, b"").await).await.len(), 3);
}
