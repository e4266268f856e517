//! Durable writes from 1, 64 and 1024 clients beside bare loops that are as durable.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::bed::{Bed, Side, repeated, side};
use super::figure::Figure;
use super::group_commit::{GroupCommit, Ring};
use super::load::{after, context, drive, fill, set};
use super::sample::{PARTITION, key, pair, scattered};
use crate::store::{Batch, CommitOn, Predicate, Settings, Store};
use crate::types::Result;

const UNIT: &str = "writes/s";

/// All figures of durable writes.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if bed.wants_any(&["set-1", "set-1-caller"]) {
        one_writer(bed).await?;
    }
    if bed.wants_any(&["set-64", "set-64-kept", "set-if-64", "transact-64"]) {
        many_writers(bed).await?;
    }
    if bed.wants_any(&["set-1024", "set-1024-kept"]) {
        crowd(bed).await?;
    }
    Ok(())
}

async fn one_writer(bed: &mut Bed<'_>) -> Result<()> {
    let ring = &Mutex::new(Ring::create(&bed.path("raw"), bed.scale.file_bytes)?);
    let own_thread = &filled(bed, "set-1", CommitOn::OwnThread).await?;
    let caller = &filled(bed, "set-1-caller", CommitOn::CallerThread).await?;
    let (noise, round) = (&bed.noise, bed.scale.round);
    let raw = side(move || {
        let mut i = 0;
        repeated(round, async move || {
            i += 1;
            ring.lock().write(noise.record(i)).map(|()| 1)
        })
    });
    let numbers = &numbers(bed);
    let [raw, on_own_thread, on_callers] = bed
        .in_turn([raw, own(bed, own_thread, numbers, 1, Kind::Set), own(bed, caller, numbers, 1, Kind::Set)])
        .await?;
    bed.finish(own_thread.clone(), "set-1").await?;
    bed.finish(caller.clone(), "set-1-caller").await?;
    bed.figure(Figure::rate("set-1", &on_own_thread, UNIT, &raw, 0.9))?;
    bed.figure(Figure::rate("set-1-caller", &on_callers, UNIT, &raw, 0.9))
}

async fn many_writers(bed: &mut Bed<'_>) -> Result<()> {
    let clients = 64.min(bed.scale.clients_max);
    let [bare, kept] = [group_commit(bed, "bare-64", false)?, group_commit(bed, "kept-64", true)?];
    // A store each, so that each grows no faster than the map of the bare loop.
    let names = ["set-64", "set-if-64", "transact-64"];
    let store = |name| filled(bed, name, CommitOn::OwnThread);
    let stores = [store(names[0]).await?, store(names[1]).await?, store(names[2]).await?];
    let numbers = &numbers(bed);
    let [bare_rate, kept_rate, set, set_if, transact] = bed
        .in_turn([
            reference(bed, &bare, numbers, clients),
            reference(bed, &kept, numbers, clients),
            own(bed, &stores[0], numbers, clients, Kind::Set),
            own(bed, &stores[1], numbers, clients, Kind::SetIf),
            own(bed, &stores[2], numbers, clients, Kind::Transact),
        ])
        .await?;
    bare.finish()?;
    kept.finish()?;
    for (store, name) in stores.into_iter().zip(names) {
        bed.finish(store, name).await?;
    }
    bed.figure(Figure::rate("set-64", &set, UNIT, &bare_rate, 0.75))?;
    bed.figure(Figure::rate("set-64-kept", &set, UNIT, &kept_rate, 0.85))?;
    bed.figure(Figure::rate("set-if-64", &set_if, UNIT, &set, 0.9))?;
    bed.figure(Figure::rate("transact-64", &transact, UNIT, &set, 0.7))
}

async fn crowd(bed: &mut Bed<'_>) -> Result<()> {
    let clients = 1024.min(bed.scale.clients_max);
    let [bare, kept] = [group_commit(bed, "bare-1024", false)?, group_commit(bed, "kept-1024", true)?];
    let store = filled(bed, "set-1024", CommitOn::OwnThread).await?;
    let numbers = &numbers(bed);
    let [bare_rate, kept_rate, set] = bed
        .in_turn([
            reference(bed, &bare, numbers, clients),
            reference(bed, &kept, numbers, clients),
            own(bed, &store, numbers, clients, Kind::Set),
        ])
        .await?;
    bare.finish()?;
    kept.finish()?;
    bed.finish(store, "set-1024").await?;
    bed.figure(Figure::rate("set-1024", &set, UNIT, &bare_rate, 0.5))?;
    bed.figure(Figure::rate("set-1024-kept", &set, UNIT, &kept_rate, 0.85))
}

/// A store with as many entries as the scale wants beforehand.
async fn filled(bed: &Bed<'_>, name: &str, commit_on: CommitOn) -> Result<Store> {
    let settings = Settings { commit_on, ..bed.in_memory() };
    let store = Store::builder(bed.path(name)).settings(settings).create().await?;
    fill(&store, &bed.noise, bed.scale.filled).await?;
    Ok(store)
}

/// Numbers of entries that are in no store yet.
fn numbers(bed: &Bed<'_>) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(bed.scale.filled))
}

fn group_commit(bed: &Bed<'_>, name: &str, kept: bool) -> Result<GroupCommit> {
    Ok(GroupCommit::start(Ring::create(&bed.path(name), bed.scale.file_bytes)?, kept, bed.noise.clone()))
}

fn reference<'a>(bed: &Bed<'_>, bare: &'a GroupCommit, numbers: &'a Arc<AtomicU64>, clients: usize) -> Side<'a> {
    let round = bed.scale.round;
    side(move || async move { Ok(drive(clients, numbers, after(round), bare.client()).await?.rate) })
}

/// What a writer of the store does.
#[derive(Clone, Copy)]
enum Kind {
    /// Sets a key.
    Set,
    /// Sets a key that must be absent, and is.
    SetIf,
    /// Reads two keys, sets a third.
    Transact,
}

fn own<'a>(bed: &'a Bed<'_>, store: &'a Store, numbers: &'a Arc<AtomicU64>, clients: usize, kind: Kind) -> Side<'a> {
    side(move || async move {
        let (store, noise) = (store.clone(), bed.noise.clone());
        let operation = move |i: u64| {
            let (store, noise) = (store.clone(), noise.clone());
            async move {
                match kind {
                    Kind::Set => set(&store, &noise, i).await,
                    Kind::SetIf => {
                        let pair = pair(i);
                        let batch = Batch::new().set_if(PARTITION, key(&pair), noise.value(i), Predicate::Absent);
                        store.write(context(), batch).await.map(|_| ())
                    }
                    Kind::Transact => {
                        let noise = &noise;
                        let transaction = store.transact(context(), |tx| async move {
                            for other in [scattered(i), scattered(i + 1)] {
                                tx.get(PARTITION, key(&pair(other % i.max(1)))).await?;
                            }
                            tx.set(PARTITION, key(&pair(i)), noise.value(i))
                        });
                        transaction.await.map(|_| ())
                    }
                }
            }
        };
        Ok(drive(clients, numbers, after(bed.scale.round), operation).await?.rate)
    })
}
