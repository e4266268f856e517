//! How soon a store is there: replay of the whole log, and an open after a kill.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bed::{Bed, per_second, side};
use super::figure::Figure;
use super::load::fill_singly;
use crate::backends::MemoryBackend;
use crate::env::Env;
use crate::event::{DecodeError, Transaction};
use crate::log::{Check, LogFiles};
use crate::store::{Settings, Store};
use crate::types::{Error, ErrorKind, Position, Result};

/// The log's directory in the store's.
pub(super) const LOG_DIR: &str = "log";
/// How long a store that was dropped may take to give its lock back.
const UNLOCK_MAX: Duration = Duration::from_secs(30);

/// Replay and open.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if bed.wants("replay") {
        replay(bed).await?;
    }
    if bed.wants("open-after-kill") {
        open_after_kill(bed).await?;
    }
    Ok(())
}

/// The whole log into an empty view, beside checksum and decoding of the same payloads, read before.
async fn replay(bed: &mut Bed<'_>) -> Result<()> {
    let (dir, settings, count) = (&bed.path("replay"), &bed.in_memory(), bed.scale.replayed);
    let store = bed.store("replay").await?;
    fill_singly(&store, &bed.noise, count, u64::MAX).await?;
    store.close().await?;
    let log = LogFiles::open(&Env::os(), &dir.join(LOG_DIR))?;
    let payloads = log.frames(Position(1), Check::Order)?.map(|frame| Ok(frame?.payload));
    // In one block, as the bytes of a log lie in the page cache, and not in as many windows.
    let payloads: Vec<Bytes> = payloads.collect::<Result<_>>()?;
    let payloads = &payloads;
    let bare = side(move || async move {
        let started = Instant::now();
        for payload in payloads {
            let transaction = Transaction::decode(payload.clone()).map_err(undecodable)?;
            black_box((crc32fast::hash(payload), transaction));
        }
        Ok(per_second(payloads.len() as u64, started.elapsed()))
    });
    let own = side(move || async move {
        let builder = Store::builder(dir).settings(settings.clone()).with_backend(Arc::new(MemoryBackend::new()));
        let started = Instant::now();
        let store = builder.open().await?;
        let rate = per_second(store.head().0, started.elapsed());
        store.close().await?;
        Ok(rate)
    });
    let [bare, own] = bed.in_turn([bare, own]).await?;
    bed.figure(Figure::rate("replay", &own, "transactions/s", &bare, 0.35))
}

/// A transaction that the store itself has written.
pub(super) fn undecodable(error: DecodeError) -> Error {
    Error::new(ErrorKind::Internal, "the bench's own log does not decode").with_source(error)
}

/// An open with a long history, checkpoints behind it, after the store was dropped as a kill would. The slowest of all rounds.
async fn open_after_kill(bed: &mut Bed<'_>) -> Result<()> {
    let dir = bed.path("open");
    let store = Store::builder(&dir).settings(bed.settings()).create().await?;
    fill_singly(&store, &bed.noise, bed.scale.history, bed.scale.entries).await?;
    drop(store);
    let mut slowest = Duration::ZERO;
    for _ in 0..bed.scale.rounds {
        let (store, time) = open_when_unlocked(&dir, &bed.settings()).await?;
        slowest = slowest.max(time);
        if store.head().0 < bed.scale.history {
            return Err(Error::new(ErrorKind::Internal, "the store lost a transaction of the bench"));
        }
        drop(store);
    }
    let (store, _) = open_when_unlocked(&dir, &bed.settings()).await?;
    bed.finish(store, "open").await?;
    bed.figure(Figure::cost("open-after-kill", slowest.as_secs_f64(), "s", 1.0))
}

/// The threads of a dropped store end by themselves; until then its directory is locked.
async fn open_when_unlocked(dir: &Path, settings: &Settings) -> Result<(Store, Duration)> {
    let given_up = Instant::now() + UNLOCK_MAX;
    loop {
        let started = Instant::now();
        match Store::builder(dir).settings(settings.clone()).open().await {
            Ok(store) => return Ok((store, started.elapsed())),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < given_up => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
