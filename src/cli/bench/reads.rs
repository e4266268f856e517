//! Reads of a view that lies in memory beside a bare ordered map of the same entries, and what the view weighs.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::bed::{Bed, Side, io, panicked, repeated, side};
use super::figure::Figure;
use super::load::{fill, pairs};
use super::sample::{KEY_BYTES, PARTITION, VALUE_BYTES, key, scattered};
use crate::store::{Reader, ScanOptions, Store};
use crate::types::{Error, ErrorKind, Result};

/// Reads between two looks at the clock.
const READS: u64 = 256;

pub(super) type Pairs = Arc<[[u8; KEY_BYTES]]>;

/// All figures of a view in memory.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants_any(&["memory-per-entry", "get-1", "get-2", "scan"]) {
        return Ok(());
    }
    let entries = bed.scale.entries;
    let before = resident_bytes()?;
    let store = &bed.store("reads").await?;
    fill(store, &bed.noise, entries).await?;
    let grown = resident_bytes()?.saturating_sub(before) as f64;
    let beside = grown / entries as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
    bed.figure(Figure::cost("memory-per-entry", beside.max(0.0), "B", 150.0))?;
    if bed.wants_any(&["get-1", "get-2", "scan"]) {
        let pairs = pairs(entries);
        let value = |i: usize| bed.noise.value(i as u64).to_vec();
        let map: Arc<BTreeMap<Vec<u8>, Vec<u8>>> =
            Arc::new(pairs.iter().enumerate().map(|(i, pair)| (pair.to_vec(), value(i))).collect());
        for (name, threads) in [("get-1", 1), ("get-2", 2)] {
            if bed.wants(name) {
                let sides = [map_gets(bed, &map, &pairs, threads), gets(bed, store, &pairs, threads)];
                let [reference, own] = bed.in_turn(sides).await?;
                bed.figure(Figure::rate(name, &own, "reads/s", &reference, 0.8))?;
            }
        }
        if bed.wants("scan") {
            let [reference, own] = bed.in_turn([map_scan(bed, &map), scan(bed, store)]).await?;
            bed.figure(Figure::rate("scan", &own, "entries/s", &reference, 0.3))?;
        }
    }
    bed.finish(store.clone(), "reads").await
}

fn map_gets<'a>(bed: &Bed<'_>, map: &'a Arc<BTreeMap<Vec<u8>, Vec<u8>>>, pairs: &'a Pairs, threads: u64) -> Side<'a> {
    let round = bed.scale.round;
    side(move || async move {
        let (map, pairs) = (map.clone(), pairs.clone());
        at_once(threads, move |thread| {
            let (map, pairs, mut i) = (map.clone(), pairs.clone(), thread << 40);
            async move {
                repeated(round, async || {
                    for _ in 0..READS {
                        i += 1;
                        let value = map.get(&pairs[scattered(i) as usize % pairs.len()][..]);
                        black_box(value.and_then(|value| value.first().copied()));
                    }
                    Ok(READS)
                })
                .await
            }
        })
        .await
    })
}

/// Random gets of the store.
pub(super) fn gets<'a>(bed: &Bed<'_>, store: &'a Store, pairs: &'a Pairs, threads: u64) -> Side<'a> {
    let round = bed.scale.round;
    side(move || async move {
        let (store, pairs) = (store.clone(), pairs.clone());
        at_once(threads, move |thread| {
            let (store, pairs, mut i) = (store.clone(), pairs.clone(), thread << 40);
            async move {
                repeated(round, async || {
                    for _ in 0..READS {
                        i += 1;
                        let pair = &pairs[scattered(i) as usize % pairs.len()];
                        let entry = store.get(PARTITION, key(pair)).await?.ok_or_else(lost)?;
                        black_box(entry.value.first().copied());
                    }
                    Ok(READS)
                })
                .await
            }
        })
        .await
    })
}

fn map_scan<'a>(bed: &Bed<'_>, map: &'a BTreeMap<Vec<u8>, Vec<u8>>) -> Side<'a> {
    let round = bed.scale.round;
    side(move || {
        repeated(round, async move || {
            for (key, value) in map {
                black_box((key.first().copied(), value.first().copied()));
            }
            Ok(map.len() as u64)
        })
    })
}

/// Scans of everything in the store.
pub(super) fn scan<'a>(bed: &Bed<'_>, store: &'a Store) -> Side<'a> {
    scans(bed.scale.round, bed.scale.entries, move || store.reader())
}

/// Scans of the so many entries that each reader sees.
pub(super) fn scans<'a>(round: Duration, expected: u64, reader: impl Fn() -> Reader + Copy + 'a) -> Side<'a> {
    side(move || {
        repeated(round, async move || {
            let mut entries = reader().scan(ScanOptions::new(PARTITION))?;
            let mut found = 0;
            while let Some(entry) = entries.next().await {
                let entry = entry?;
                black_box((entry.encoded_key.first().copied(), entry.value.first().copied()));
                found += 1;
            }
            if found == expected { Ok(found) } else { Err(lost()) }
        })
    })
}

/// Runs the same work on threads of its own and adds up the rates.
pub(super) async fn at_once<F>(threads: u64, work: impl Fn(u64) -> F + Clone + Send + 'static) -> Result<f64>
where
    F: Future<Output = Result<f64>>,
{
    let started: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, runtime) = (work.clone(), Handle::current());
            tokio::task::spawn_blocking(move || runtime.block_on(work(thread)))
        })
        .collect();
    let mut rate = 0.0;
    for thread in started {
        rate += thread.await.map_err(|_| panicked())??;
    }
    Ok(rate)
}

/// What was written is not all found.
pub(super) fn lost() -> Error {
    Error::new(ErrorKind::Internal, "the store lost an entry of the bench")
}

/// Memory of the process that is its own and not a file's, in bytes.
fn resident_bytes() -> Result<u64> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(io("read the memory in use", path))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    let missing = || Error::new(ErrorKind::Unavailable, "the system does not tell the memory in use");
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(missing)
}
