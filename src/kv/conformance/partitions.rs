//! The partition iterator.

use std::sync::atomic::Ordering;

use super::fixture::{Sample, assert_fails, sample, set_sample, unique};
use super::wrapped::Counted;
use crate::kv::{KeyValue, KvError, PartitionIterator};

/// a, aa, b, c, d in two partitions of which one is a prefix of the other; gives the shorter.
async fn letters(store: &dyn KeyValue) -> Vec<u8> {
    let partition = unique("m");
    for partition in [partition.clone(), format!("{partition}a")] {
        for key in ["a", "aa", "b", "c", "d"] {
            set_sample(store, partition.as_bytes(), key).await;
        }
    }
    partition.into_bytes()
}

async fn read(entries: &mut PartitionIterator<'_, Sample>, count: usize) -> String {
    let mut keys = Vec::new();
    while keys.len() < count
        && let Some(entry) = entries.next().await.expect("the scan reads")
    {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        assert_eq!(entry.message, sample(&key));
        keys.push(key);
    }
    keys.join(" ")
}

async fn seek(entries: &mut PartitionIterator<'_, Sample>, key: &str, count: usize) -> String {
    entries.seek_ge(key.as_bytes()).await.expect("the scan is open");
    read(entries, count).await
}

/// The full listing of a partition, and never anything of one that its name is a prefix of.
pub async fn partition_full_listing(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let mut entries = PartitionIterator::new(store, &partition, 0);
    assert_eq!(read(&mut entries, 100).await, "a aa b c d");
    assert_eq!(read(&mut entries, 100).await, "");
}

/// Seeks to b, aaa and b, each read to the end.
pub async fn partition_seek_reads_to_the_end(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let mut entries = PartitionIterator::new(store, &partition, 0);
    for key in ["b", "aaa", "b"] {
        assert_eq!(seek(&mut entries, key, 100).await, "b c d");
    }
}

/// Seeks to b, c and d, reading one entry each, cost one scan.
pub async fn partition_seeks_cost_one_scan(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let counted = Counted::new(store);
    let mut entries = PartitionIterator::new(&counted, &partition, 0);
    assert_eq!(counted.scans.load(Ordering::Relaxed), 0, "opened before it is needed");
    for key in ["b", "c", "d"] {
        assert_eq!(seek(&mut entries, key, 1).await, key);
    }
    assert_eq!(counted.scans.load(Ordering::Relaxed), 1);
}

/// An empty name is `MissingPartition` at every seek and next; close is harmless.
pub async fn partition_empty_name(store: &dyn KeyValue) {
    let mut entries = PartitionIterator::<Sample>::new(store, b"", 0);
    for key in [b"a", b"b"] {
        assert_fails!(entries.seek_ge(key).await, KvError::MissingPartition);
        assert_fails!(entries.next().await, KvError::MissingPartition);
    }
    entries.close();
}

/// Past the end there is nothing and no error; a seek goes back.
pub async fn partition_seek_past_the_end_and_back(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let mut entries = PartitionIterator::new(store, &partition, 0);
    assert_eq!(seek(&mut entries, "e", 1).await, "");
    assert_eq!(seek(&mut entries, "a", 1).await, "a");
    entries.close();
    assert_fails!(entries.next().await, KvError::ClosedEntries);
    assert_fails!(entries.seek_ge(b"a").await, KvError::ClosedEntries);
}

/// Pages of 10: reads into the second page, then seeks forwards and back.
pub async fn partition_seek_inside_pages(store: &dyn KeyValue) {
    let partition = letters(store).await;
    let tail: Vec<String> = ('a'..='p').map(|letter| format!("d{letter}")).chain(["z".to_owned()]).collect();
    for key in &tail {
        set_sample(store, &partition, key).await;
    }
    let mut entries = PartitionIterator::new(store, &partition, 10);
    assert_eq!(seek(&mut entries, "b", 11).await, "b c d da db dc dd de df dg dh");
    assert_eq!(seek(&mut entries, "z", 1).await, "z");
    assert_eq!(seek(&mut entries, "d1", 100).await, tail.join(" "));
}
