//! Values at the limit, more of them than the store may hold: what the whole process takes of memory.

use std::fs;

use lakelog::{Batch, Context, Limits, Settings, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::child;

const MIB: u64 = 1 << 20;
const WRITERS: u64 = 20;

/// The most memory that this process ever took, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn values_at_the_limit_take_no_more_memory_than_they_may() {
    const TEST: &str = "overload::values_at_the_limit_take_no_more_memory_than_they_may";
    if child::role().is_none() {
        // Not beside other tests: the peak is that of a process.
        child::passes(child::again(TEST, "alone"));
        return;
    }
    let scratch = child::directory_in_memory(2 << 30);
    let settings = Settings {
        memtable_soft_bytes: 32 << 20,
        memtable_hard_bytes: 64 << 20,
        queue_bytes_max: 64 << 20,
        segment_bytes: 16 << 20,
        min_free_bytes: Some(0),
        write_wait_ms: 120_000,
        ..Settings::default()
    };
    let bound = (settings.memtable_hard_bytes + settings.queue_bytes_max) as u64;
    Runtime::new().unwrap().block_on(async {
        let store = Store::builder(scratch.path().join("store")).settings(settings).create().await.unwrap();
        let before = peak();
        let value = vec![7; Limits::VALUE_BYTES_MAX];
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let (store, batch) = (store.clone(), Batch::new().set(b"p", &number.to_be_bytes(), &value));
            writers.spawn(async move { store.write(Context::new("writer"), batch).await.unwrap() });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        // What the callers hold, what the store may hold, and a batch on its way into the file: its payloads are in the queue's
        // part, its frames are one more copy. The rest is for what allocators keep.
        let callers = (WRITERS + 1) * Limits::VALUE_BYTES_MAX as u64;
        let batch = 2 * Limits::TRANSACTION_BYTES_MAX as u64;
        let took = peak() - before;
        assert!(took <= callers + bound + batch + 64 * MIB, "{} MiB, callers hold {} MiB", took / MIB, callers / MIB);
    });
}
