//! Filling stores, and many clients at once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::bed::{panicked, per_second};
use super::sample::{KEY_BYTES, Noise, PARTITION, key, pair};
use crate::store::{Batch, Context, Store};
use crate::types::Result;

/// Entries of one transaction while a store is filled.
pub(super) const BATCH_ENTRIES: usize = 1000;

/// Who the bench is in the log.
pub(super) fn context() -> Context {
    Context::new("bench")
}

/// Sets one entry in a transaction of its own.
pub(super) async fn set(store: &Store, noise: &Noise, i: u64) -> Result<()> {
    let pair = pair(i);
    store.write(context(), Batch::new().set(PARTITION, key(&pair), noise.value(i))).await.map(|_| ())
}

/// Sets entries `0..entries`, many in a transaction.
pub(super) async fn fill(store: &Store, noise: &Noise, entries: u64) -> Result<()> {
    let mut next = 0;
    while next < entries {
        let end = entries.min(next + BATCH_ENTRIES as u64);
        let mut batch = Batch::new();
        for i in next..end {
            batch = batch.set(PARTITION, key(&pair(i)), noise.value(i));
        }
        store.write(context(), batch).await?;
        next = end;
    }
    Ok(())
}

/// The pairs of the entries `0..entries`.
pub(super) fn pairs(entries: u64) -> Arc<[[u8; KEY_BYTES]]> {
    (0..entries).map(pair).collect()
}

/// Sets these entries, each in a transaction of its own, from 1024 clients. Key `i % keys`.
pub(super) async fn fill_singly(store: &Store, noise: &Noise, entries: Range<u64>, keys: u64) -> Result<()> {
    let (next, end) = (Arc::new(AtomicU64::new(entries.start)), entries.end);
    let mut clients: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..1024 {
        let (store, noise, next) = (store.clone(), noise.clone(), next.clone());
        clients.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= end {
                    return Ok(());
                }
                set(&store, &noise, i % keys).await?;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.map_err(|_| panicked())??;
    }
    Ok(())
}

/// What many clients did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Driven {
    /// Operations a second.
    pub rate: f64,
    /// The longest that one operation took.
    pub longest: Duration,
}

/// Lets `clients` tasks repeat `operation`, each at least once, until `until` says stop. Each call gets a number of its own from `numbers`.
pub(super) async fn drive<F>(
    clients: usize,
    numbers: &Arc<AtomicU64>,
    until: impl Fn() -> bool + Clone + Send + 'static,
    operation: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Driven>
where
    F: Future<Output = Result<()>> + Send,
{
    let started = Instant::now();
    let mut tasks: JoinSet<Result<(u64, Duration)>> = JoinSet::new();
    for _ in 0..clients {
        let (numbers, until, operation) = (numbers.clone(), until.clone(), operation.clone());
        tasks.spawn(async move {
            let (mut done, mut longest) = (0, Duration::ZERO);
            let mut before = Instant::now();
            loop {
                operation(numbers.fetch_add(1, Ordering::Relaxed)).await?;
                let now = Instant::now();
                longest = longest.max(now - before);
                (before, done) = (now, done + 1);
                if until() {
                    return Ok((done, longest));
                }
            }
        });
    }
    let (mut done, mut longest) = (0, Duration::ZERO);
    while let Some(task) = tasks.join_next().await {
        let (by_one, longest_of_one) = task.map_err(|_| panicked())??;
        done += by_one;
        longest = longest.max(longest_of_one);
    }
    Ok(Driven { rate: per_second(done, started.elapsed()), longest })
}

/// Stops after a time from now.
pub(super) fn after(time: Duration) -> impl Fn() -> bool + Clone + Send + 'static {
    let end = Instant::now() + time;
    move || Instant::now() >= end
}
