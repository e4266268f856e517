//! Names, sample items, and short ways to look at a store.

use tokio_stream::StreamExt;

use crate::kv::{Entries, KeyValue, KvError, KvPredicate, KvScan, scan_prefix, set_message};
use crate::types::Entry;

pub(super) const TEST: &[u8] = b"test";
pub(super) const UNUSED: &[u8] = b"unused";

/// A message with a field, for the typed iterators.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sample {
    #[prost(string, tag = "1")]
    pub name: String,
}

pub(super) fn sample(name: &str) -> Sample {
    Sample { name: name.to_owned() }
}

/// Bytes that are no protobuf message: a field that is longer than the value.
pub(super) const NO_MESSAGE: &[u8] = b"\x0a\xff\x01x";

/// A name that no other run uses.
pub(super) fn unique(name: &str) -> String {
    format!("{:016x}-{name}", rand::random::<u64>())
}

/// The key of a sample item.
pub(super) fn item_key(prefix: &str, number: usize) -> Vec<u8> {
    format!("{prefix}-key-{number:04}").into_bytes()
}

/// The keys and values of sample items.
pub(super) fn items(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<(Vec<u8>, Vec<u8>)> {
    numbers.map(|number| (item_key(prefix, number), format!("{prefix}-value-{number:04}").into_bytes())).collect()
}

/// Sets this many sample items.
pub(super) async fn fill(store: &dyn KeyValue, partition: &[u8], prefix: &str, count: usize) {
    for (key, value) in items(prefix, 0..count) {
        set(store, partition, &key, &value).await;
    }
}

pub(super) async fn set(store: &dyn KeyValue, partition: &[u8], key: &[u8], value: &[u8]) {
    store.set(partition, key, Some(value)).await.expect("a set with good arguments succeeds");
}

pub(super) async fn set_sample(store: &dyn KeyValue, partition: &[u8], key: &str) {
    set_message(store, partition, key.as_bytes(), &sample(key)).await.expect("a set with good arguments succeeds");
}

/// The value of a key; `None` when it is not found.
pub(super) async fn value(store: &dyn KeyValue, partition: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    match store.get(partition, key).await {
        Err(KvError::NotFound { .. }) => None,
        found => Some(found.expect("get finds the key or says that it is not there").value.to_vec()),
    }
}

/// The predicate that `get` gives for a key that exists.
pub(super) async fn token(store: &dyn KeyValue, partition: &[u8], key: &[u8]) -> KvPredicate {
    store.get(partition, key).await.expect("the key exists").predicate
}

/// Everything that is left of a scan, in order.
pub(super) async fn rest(entries: &mut dyn Entries) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.expect("the scan reads");
        assert!(found.last().is_none_or(|(last, _)| last[..] < entry.key()[..]), "entries out of order");
        found.push((entry.key().to_vec(), entry.value.to_vec()));
    }
    found
}

/// The next entry of a scan that has one.
pub(super) async fn next(entries: &mut dyn Entries) -> Entry {
    entries.next().await.expect("there is an entry").expect("the scan reads")
}

pub(super) async fn scan(store: &dyn KeyValue, partition: &[u8], from: &[u8]) -> Box<dyn Entries> {
    store.scan(partition, KvScan::from(from)).await.expect("a scan with good arguments opens")
}

/// The entries of a prefix.
pub(super) async fn under(store: &dyn KeyValue, partition: &[u8], prefix: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = scan_prefix(store, partition, prefix.as_bytes(), b"").await.expect("the scan opens");
    rest(&mut entries).await
}

/// Asserts one kind of error.
macro_rules! assert_fails {
    ($result:expr, $pattern:pat) => {
        let error = $result.err();
        assert!(matches!(&error, Some($pattern)), "{error:?} instead of {}", stringify!($pattern));
    };
}
pub(super) use assert_fails;
