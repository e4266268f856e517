//! Deleting while iterating.

use tokio::task::yield_now;
use tokio_stream::StreamExt;

use super::fixture::{fill, items, next, rest, scan, under, unique};
use crate::kv::KeyValue;

/// The turns of a reader (R: read the next key) and a deleter (D: delete the next key).
const TURNS: [&str; 6] = [
    "RRRRRRRDDDDDDD",
    "RRRDRDRDRDRDDD",
    "RRRRRDRDRDRDRDRRRRR",
    "DDDDRDRDRDRDDRDDDDD",
    "DDDDRDRDDRRDDDDD",
    "DDDDDRRRRR",
];

/// A reader and a deleter of other keys take turns: every step succeeds, all is read, only what was to go is gone.
pub async fn delete_while_iterating_in_turns(store: &dyn KeyValue) {
    for turns in TURNS {
        let partition = unique("turns").into_bytes();
        let count = |turn| turns.chars().filter(|&found| found == turn).count();
        let (reads, deletes) = (count('R'), count('D'));
        fill(store, &partition, "readPrefix", reads).await;
        fill(store, &partition, "toDelPrefix", deletes).await;
        fill(store, &partition, "naPrefix", 5).await;
        let mut reader = scan(store, &partition, b"readPrefix").await;
        let mut deleter = scan(store, &partition, b"toDelPrefix").await;
        let mut read = Vec::new();
        for turn in turns.chars() {
            if turn == 'R' {
                let entry = next(&mut *reader).await;
                read.push((entry.key().to_vec(), entry.value.to_vec()));
            } else {
                let entry = next(&mut *deleter).await;
                store.delete(&partition, &entry.key()).await.expect("deleting succeeds");
            }
        }
        assert_eq!(read, items("readPrefix", 0..reads), "{turns}");
        assert_eq!(under(store, &partition, "toDelPrefix").await, [], "{turns}");
        assert_eq!(under(store, &partition, "readPrefix").await, items("readPrefix", 0..reads), "{turns}");
        assert_eq!(under(store, &partition, "naPrefix").await, items("naPrefix", 0..5), "{turns}");
    }
}

/// Nested prefixes, a reader and a deleter running freely to the end of the partition.
pub async fn delete_while_iterating_nested_prefixes(store: &dyn KeyValue) {
    const PREFIXES: [&str; 3] = ["pref", "prefin", "prefinin"];
    let partition = unique("nested").into_bytes();
    for (read_from, delete_from) in [("prefin", "prefinin"), ("prefinin", "prefin"), ("prefinin", "prefinin")] {
        delete_all(store, &partition, "").await;
        assert_eq!(rest(&mut *scan(store, &partition, b"").await).await, []);
        let mut all = Vec::new();
        for prefix in PREFIXES {
            fill(store, &partition, prefix, 100).await;
            all.extend(items(prefix, 0..100));
        }
        let read = async {
            let mut entries = scan(store, &partition, read_from.as_bytes()).await;
            let mut read = Vec::new();
            while let Some(entry) = entries.next().await {
                let entry = entry.expect("the scan reads");
                read.push((entry.key().to_vec(), entry.value.to_vec()));
                yield_now().await;
            }
            read
        };
        let (read, ()) = tokio::join!(read, delete_all(store, &partition, delete_from));
        assert!(read.is_sorted_by(|a, b| a.0 < b.0), "out of order or twice");
        let above = |(key, _): &&(Vec<u8>, Vec<u8>), from: &str| key[..] >= *from.as_bytes();
        let visible: Vec<_> = all.iter().filter(|item| above(item, read_from) && !above(item, delete_from)).collect();
        assert!(visible.iter().all(|item| read.contains(item)), "an untouched key was not read");
        assert!(read.iter().all(|item| all.contains(item)), "a key that was never set");
        let intact: Vec<_> = all.iter().filter(|item| !above(item, delete_from)).cloned().collect();
        assert_eq!(rest(&mut *scan(store, &partition, b"").await).await, intact);
    }
}

/// Deletes key by key while scanning.
async fn delete_all(store: &dyn KeyValue, partition: &[u8], from: &str) {
    let mut entries = scan(store, partition, from.as_bytes()).await;
    while let Some(entry) = entries.next().await {
        let entry = entry.expect("the scan reads");
        store.delete(partition, &entry.key()).await.expect("deleting succeeds");
        yield_now().await;
    }
}
