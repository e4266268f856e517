//! A store in a wrapper, as servers limit and measure it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::{TEST, rest, unique};
use crate::kv::{Entries, KeyValue, KvFuture, KvPredicate, KvScan, KvValue};

/// Counts calls, as a limiter would take tokens: one a call, none for the steps of a scan nor for close.
pub(super) struct Counted<'s> {
    inner: &'s dyn KeyValue,
    pub calls: AtomicUsize,
    pub scans: AtomicUsize,
}

impl<'s> Counted<'s> {
    pub fn new(inner: &'s dyn KeyValue) -> Counted<'s> {
        Counted { inner, calls: AtomicUsize::new(0), scans: AtomicUsize::new(0) }
    }

    fn count(&self) -> &'s dyn KeyValue {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner
    }
}

impl KeyValue for Counted<'_> {
    fn get<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, KvValue> {
        self.count().get(partition, key)
    }

    fn set<'a>(&'a self, partition: &'a [u8], key: &'a [u8], value: Option<&'a [u8]>) -> KvFuture<'a, ()> {
        self.count().set(partition, key, value)
    }

    fn set_if<'a>(
        &'a self,
        partition: &'a [u8],
        key: &'a [u8],
        value: Option<&'a [u8]>,
        predicate: &'a KvPredicate,
    ) -> KvFuture<'a, ()> {
        self.count().set_if(partition, key, value, predicate)
    }

    fn delete<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, ()> {
        self.count().delete(partition, key)
    }

    fn scan<'a>(&'a self, partition: &'a [u8], options: KvScan<'a>) -> KvFuture<'a, Box<dyn Entries>> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.count().scan(partition, options)
    }

    /// Not passed on: the suite goes on with the store.
    fn close(&self) -> KvFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A wrapper sees each of the five calls once, and neither the steps of a scan nor close.
pub async fn wrapped_store_counts_calls(store: &dyn KeyValue) {
    let counted = Counted::new(store);
    let wrapped: &dyn KeyValue = &counted;
    let key = unique("wrapped").into_bytes();
    wrapped.set(TEST, &key, Some(b"value")).await.expect("the wrapped store sets");
    wrapped.get(TEST, &key).await.expect("the wrapped store gets");
    wrapped.set_if(TEST, &key, Some(b"new"), &KvPredicate::Exists).await.expect("the wrapped store sets");
    let mut entries = wrapped.scan(TEST, KvScan::from(&key)).await.expect("the wrapped store scans");
    assert!(!rest(&mut *entries).await.is_empty());
    wrapped.delete(TEST, &key).await.expect("the wrapped store deletes");
    wrapped.close().await.expect("the wrapper closes");
    assert_eq!(counted.calls.load(Ordering::Relaxed), 5);
}
