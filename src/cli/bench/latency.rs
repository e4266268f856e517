//! How long one operation takes while so many a second are asked for, whatever the store does meanwhile.
//!
//! Open loop: each operation has its time to begin, fixed beforehand, and its latency counts from then. A store that stalls finds
//! all that should have begun meanwhile in its latencies, where a client that waits for its answer before it asks again would
//! have left them out (coordinated omission). Whatever makes an operation begin late, the bench's own clock included, counts.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::bed::{Bed, panicked, per_second};
use super::load::{fill, set};
use super::sample::{PARTITION, key, pair, scattered};
use crate::types::Result;

/// Operations under way at most: a store that cannot do what is asked for would otherwise fill the memory.
const UNDER_WAY_MAX: u64 = 1 << 17;

/// The latencies of one operation at one rate, in microseconds from the time when each should have begun.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    /// What was done: `latency-set`, `latency-get`.
    pub name: String,
    /// Operations that were to begin each second.
    pub offered: u64,
    /// Operations that ended each second: fewer than offered when it was too much.
    pub reached: f64,
    /// Half took at most this.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    pub(super) fn new(name: &str, offered: u64, reached: f64, mut latencies: Vec<Duration>) -> Latency {
        latencies.sort_unstable();
        // The smallest that at least so many are not above.
        let at = |part: f64| {
            let rank = (latencies.len() as f64 * part).ceil() as usize;
            latencies.get(rank.saturating_sub(1)).map_or(0.0, |latency| latency.as_micros() as f64)
        };
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        Latency { name: name.to_owned(), offered, reached: reached.round(), p50, p99, p999, max }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { name, offered, reached, p50, p99, p999, max } = self;
        write!(
            f,
            "{name:<14} {offered:>7}/s offered {reached:>9}/s reached   p50 {p50:>8} p99 {p99:>8} p99.9 {p999:>8} max {max:>8} us"
        )
    }
}

/// Sets and gets at each rate of the scale, reporting each as it comes.
pub(super) async fn measure(bed: &Bed<'_>, report: &mut dyn FnMut(&Latency) -> Result<()>) -> Result<()> {
    let store = bed.store("latency").await?;
    let entries = bed.scale.entries;
    fill(&store, &bed.noise, entries).await?;
    let number = Arc::new(AtomicU64::new(entries));
    for &rate in bed.scale.rates {
        if bed.wants("latency-set") {
            let (store, noise, number) = (store.clone(), bed.noise.clone(), number.clone());
            let operation = move |_| {
                let (store, noise, i) = (store.clone(), noise.clone(), number.fetch_add(1, Ordering::Relaxed));
                async move { set(&store, &noise, i).await }
            };
            report(&offer("latency-set", rate, bed.scale.offered, operation).await?)?;
        }
        if bed.wants("latency-get") {
            let store = store.clone();
            let operation = move |i| {
                let store = store.clone();
                async move { store.get(PARTITION, key(&pair(scattered(i) % entries))).await.map(drop) }
            };
            report(&offer("latency-get", rate, bed.scale.offered, operation).await?)?;
        }
    }
    bed.finish(store, "latency").await
}

/// Begins `rate` operations a second for `time`, each at its time or as soon after it as there is a thread, and waits for all.
pub(super) async fn offer<F>(
    name: &str,
    rate: u64,
    time: Duration,
    operation: impl Fn(u64) -> F + Send + 'static,
) -> Result<Latency>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let count = (rate as f64 * time.as_secs_f64()).ceil().max(1.0) as u64;
    let done = Arc::new(Done::default());
    let started = Instant::now();
    let (runtime, begun) = (Handle::current(), done.clone());
    // On a thread of its own: a timer of the runtime is late by a millisecond, and by more when its threads are busy.
    let beginning = std::thread::spawn(move || {
        for i in 0..count {
            let due = started + Duration::from_nanos((i as f64 * 1e9 / rate as f64) as u64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            while i - begun.ended.load(Ordering::Acquire) >= UNDER_WAY_MAX {
                std::thread::sleep(Duration::from_millis(1));
            }
            let (work, done) = (operation(i), begun.clone());
            runtime.spawn(async move {
                let result = work.await;
                done.end(due.elapsed(), result);
            });
        }
    });
    while done.ended.load(Ordering::Acquire) < count {
        done.changed.notified().await;
    }
    let reached = per_second(count, started.elapsed());
    beginning.join().map_err(|_| panicked())?;
    let (latencies, failure) = std::mem::take(&mut *done.latencies.lock());
    failure.map_or_else(|| Ok(Latency::new(name, rate, reached, latencies)), Err)
}

/// What has ended.
#[derive(Default)]
struct Done {
    ended: AtomicU64,
    latencies: Mutex<(Vec<Duration>, Option<crate::types::Error>)>,
    changed: Notify,
}

impl Done {
    fn end(&self, latency: Duration, result: Result<()>) {
        let mut latencies = self.latencies.lock();
        latencies.0.push(latency);
        if let Err(error) = result {
            latencies.1.get_or_insert(error);
        }
        drop(latencies);
        self.ended.fetch_add(1, Ordering::Release);
        self.changed.notify_one();
    }
}
