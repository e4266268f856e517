//! A checkpoint and the reads that it serves, beside a bare sled with a row for each entry and a cache of the same size.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use super::bed::{Bed, Side, io, per_second, repeated, side};
use super::figure::Figure;
use super::load::{fill, pairs};
use super::reads::{at_once, gets, scan};
use super::sample::{KEY_BYTES, scattered};
use crate::types::{Error, ErrorKind, Result};

/// Reads between two looks at the clock.
const READS: u64 = 256;
/// Where the bare sled lies.
const BARE: &str = "bare-sled";

/// Checkpoints into the base, and gets and scans of it.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if bed.wants("checkpoint-sled") {
        checkpoint(bed).await?;
    }
    if !bed.wants_any(&["base-get", "base-scan"]) {
        return Ok(());
    }
    let store = &bed.store("base").await?;
    fill(store, &bed.noise, bed.scale.entries).await?;
    // Nothing is left in memory but the base's cache.
    store.checkpoint().await?;
    let pairs = pairs(bed.scale.entries);
    let bare = &bare_sled(bed, &pairs)?;
    if bed.wants("base-get") {
        let [reference, own] = bed.in_turn([sled_gets(bed, bare, &pairs), gets(bed, store, &pairs, 1)]).await?;
        bed.figure(Figure::rate("base-get", &own, "reads/s", &reference, 0.9))?;
    }
    if bed.wants("base-scan") {
        let [reference, own] = bed.in_turn([sled_scan(bed, bare), scan(bed, store)]).await?;
        bed.figure(Figure::rate("base-scan", &own, "entries/s", &reference, 0.9))?;
    }
    bed.finish(store.clone(), "base").await
}

/// A checkpoint of everything, from memory into an empty base, beside a sled that the same rows go into in order, flushed.
async fn checkpoint(bed: &mut Bed<'_>) -> Result<()> {
    let mut sorted = pairs(bed.scale.entries).to_vec();
    sorted.sort_unstable();
    let (sorted, rows, bed_ref) = (&sorted, bed.scale.entries, &*bed);
    let bare = side(move || async move {
        let started = Instant::now();
        let bare = bare_sled(bed_ref, sorted)?;
        let rate = per_second(rows, started.elapsed());
        drop(bare);
        let dir = bed_ref.path(BARE);
        fs::remove_dir_all(&dir).map_err(io("remove a sled", &dir))?;
        Ok(rate)
    });
    let own = side(move || async move {
        let store = bed_ref.store("checkpoint-sled").await?;
        fill(&store, &bed_ref.noise, rows).await?;
        let started = Instant::now();
        store.checkpoint().await?;
        let rate = per_second(rows, started.elapsed());
        bed_ref.finish(store, "checkpoint-sled").await?;
        Ok(rate)
    });
    let [reference, own] = bed.in_turn([bare, own]).await?;
    bed.figure(Figure::rate("checkpoint-sled", &own, "rows/s", &reference, 1.0))
}

/// The rows in the order of `pairs`, flushed.
fn bare_sled(bed: &Bed<'_>, pairs: &[[u8; KEY_BYTES]]) -> Result<sled::Db> {
    let config = sled::Config::new()
        .path(bed.path(BARE))
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(bed.settings().cache_bytes)
        .segment_size(8 << 20)
        .flush_every_ms(None);
    let fill = || {
        let bare = config.open()?;
        for (i, pair) in pairs.iter().enumerate() {
            bare.insert(pair, bed.noise.value(i as u64))?;
        }
        bare.flush()?;
        Ok(bare)
    };
    fill().map_err(failed)
}

fn sled_gets<'a>(bed: &Bed<'_>, bare: &'a sled::Db, pairs: &'a Arc<[[u8; KEY_BYTES]]>) -> Side<'a> {
    let round = bed.scale.round;
    side(move || async move {
        let (bare, pairs) = (bare.clone(), pairs.clone());
        at_once(1, move |_| {
            let (bare, pairs, mut i) = (bare.clone(), pairs.clone(), 0);
            async move {
                repeated(round, async || {
                    for _ in 0..READS {
                        i += 1;
                        let value = bare.get(pairs[scattered(i) as usize % pairs.len()]).map_err(failed)?;
                        black_box(value.as_ref().and_then(|value| value.first().copied()));
                    }
                    Ok(READS)
                })
                .await
            }
        })
        .await
    })
}

fn sled_scan<'a>(bed: &Bed<'_>, bare: &'a sled::Db) -> Side<'a> {
    let round = bed.scale.round;
    side(move || {
        repeated(round, async move || {
            let mut found = 0;
            for entry in bare.iter() {
                let (key, value) = entry.map_err(failed)?;
                black_box((key.first().copied(), value.first().copied()));
                found += 1;
            }
            Ok(found)
        })
    })
}

fn failed(error: sled::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the bare sled failed").with_source(error)
}
