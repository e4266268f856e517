//! What writers feel of a checkpoint that runs beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::bed::{Bed, panicked, side};
use super::figure::Figure;
use super::load::{after, drive, fill, set};
use crate::types::Result;

const CLIENTS: usize = 64;

/// Throughput of 64 writers during a checkpoint beside that without one, and the longest that one write took.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants_any(&["checkpoint-writes", "checkpoint-pause"]) {
        return Ok(());
    }
    let store = &bed.store("checkpoint").await?;
    let (noise, round, entries) = (&bed.noise, bed.scale.round, bed.scale.entries);
    let numbers = &Arc::new(AtomicU64::new(0));
    let longest = &parking_lot::Mutex::new(Duration::ZERO);
    let writer = move || {
        let (store, noise) = (store.clone(), noise.clone());
        move |i| {
            let (store, noise) = (store.clone(), noise.clone());
            async move { set(&store, &noise, i).await }
        }
    };
    let without = side(move || async move { Ok(drive(CLIENTS, numbers, after(round), writer()).await?.rate) });
    let with = side(move || async move {
        // So that there is something to bring into the base.
        fill(store, noise, entries).await?;
        let done = Arc::new(AtomicBool::new(false));
        let until = done.clone();
        let checkpointed = store.clone();
        let checkpoint = tokio::spawn(async move {
            let reached = checkpointed.checkpoint().await;
            done.store(true, Ordering::Release);
            reached
        });
        let driven = drive(CLIENTS, numbers, move || until.load(Ordering::Acquire), writer()).await?;
        checkpoint.await.map_err(|_| panicked())??;
        let mut longest = longest.lock();
        *longest = driven.longest.max(*longest);
        Ok(driven.rate)
    });
    let [without, with] = bed.in_turn([without, with]).await?;
    let longest = longest.lock().as_secs_f64() * 1000.0;
    bed.finish(store.clone(), "checkpoint").await?;
    bed.figure(Figure::rate("checkpoint-writes", &with, "writes/s", &without, 0.7))?;
    bed.figure(Figure::cost("checkpoint-pause", longest, "ms", 50.0))
}
