//! Reads of the past beside reads of now, and what a diff costs by how much there is to find.

use std::hint::black_box;
use std::sync::Arc;

use super::bed::{Bed, Side, repeated, side};
use super::figure::Figure;
use super::load::{BATCH_ENTRIES, context, pairs};
use super::reads::{Pairs, at_once, gets, lost, scans};
use super::sample::{Noise, PARTITION, VALUE_BYTES, key, pair, scattered};
use crate::store::{Batch, DiffOptions, Reader, Store};
use crate::types::{Position, Result};

/// Versions of each entry.
const VERSIONS: u64 = 4;
/// Transactions of one version of all entries, at least.
const BATCHES_MIN: u64 = 20;
/// Positions that are read at.
const PLACES: u64 = 16;
/// How many times more the larger diff has to find.
const LARGER: u64 = 10;
/// Reads between two looks at the clock.
const READS: u64 = 256;

/// Gets and scans of the past, and diffs.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    let asof_get = bed.wants_any(&["asof-get-base", "asof-get-memory"]);
    if !asof_get && !bed.wants_any(&["asof-scan", "diff"]) {
        return Ok(());
    }
    // As many rows as the figures of the live base read.
    let entries = bed.scale.entries / VERSIONS;
    let store = &bed.store("past").await?;
    let mut heads = Vec::new();
    for version in 0..VERSIONS {
        set_all(store, &bed.noise, entries, version).await?;
        // One on top of the other, as time goes by; nothing is left in memory.
        heads.push(store.checkpoint().await?);
    }
    let [first, .., before, last] = heads[..] else { return Err(lost()) };
    if asof_get {
        let mut readers = Vec::new();
        for place in 0..PLACES {
            readers.push(store.at(Position(first.0 + (before.0 - first.0) * place / PLACES)).await?);
        }
        let (pairs, readers) = (pairs(entries), readers.into());
        let memory = &bed.store("past-memory").await?;
        set_all(memory, &bed.noise, entries, 0).await?;
        let sides = [gets(bed, store, &pairs, 1), gets(bed, memory, &pairs, 1), past_gets(bed, &readers, &pairs)];
        let [base, memtable, own] = bed.in_turn(sides).await?;
        bed.figure(Figure::rate("asof-get-base", &own, "reads/s", &base, 0.5))?;
        bed.figure(Figure::rate("asof-get-memory", &own, "reads/s", &memtable, 0.2))?;
        bed.finish(memory.clone(), "past-memory").await?;
    }
    if bed.wants("asof-scan") {
        // Of now, where there is nothing but now.
        let single = &bed.store("past-single").await?;
        set_all(single, &bed.noise, entries, 0).await?;
        single.checkpoint().await?;
        let (round, reader) = (bed.scale.round, &store.at(before).await?);
        let live = scans(round, entries, move || single.reader());
        let [reference, own] = bed.in_turn([live, scans(round, entries, move || reader.clone())]).await?;
        bed.finish(single.clone(), "past-single").await?;
        // Beside each entry lie the older versions that it superseded by then.
        let visited: Vec<f64> = own.iter().map(|entries| entries * (VERSIONS - 1) as f64).collect();
        bed.figure(Figure::rate("asof-scan", &visited, "versions/s", &reference, 0.5))?;
    }
    if bed.wants("diff") {
        // The last version of all entries, and the last transactions of those; the very last one may be smaller.
        let (batch, batches) = (batch_entries(entries), last.0 - before.0);
        let few = batches / LARGER;
        let changes = few * batch - (batches * batch - entries);
        let short = diffs(bed, store, Position(last.0 - few), last, changes);
        let [short, long] = bed.in_turn([short, diffs(bed, store, before, last, entries)]).await?;
        bed.figure(Figure::rate("diff", &long, "changes/s", &short, 0.8))?;
    }
    bed.finish(store.clone(), "past").await
}

/// Entries of one transaction.
fn batch_entries(entries: u64) -> u64 {
    (entries / BATCHES_MIN).clamp(1, BATCH_ENTRIES as u64)
}

/// Sets entries `0..entries` to a value that no other version has.
async fn set_all(store: &Store, noise: &Noise, entries: u64, version: u64) -> Result<()> {
    let batch_entries = batch_entries(entries);
    for from in (0..entries).step_by(batch_entries as usize) {
        let mut batch = Batch::new();
        for i in from..entries.min(from + batch_entries) {
            let mut value = [version as u8; VALUE_BYTES];
            value[1..].copy_from_slice(&noise.value(i + version * entries)[1..]);
            batch = batch.set(PARTITION, key(&pair(i)), &value);
        }
        store.write(context(), batch).await?;
    }
    Ok(())
}

/// Random gets at random ones of the positions.
fn past_gets<'a>(bed: &Bed<'_>, readers: &'a Arc<[Reader]>, pairs: &'a Pairs) -> Side<'a> {
    let round = bed.scale.round;
    side(move || async move {
        let (readers, pairs) = (readers.clone(), pairs.clone());
        at_once(1, move |_| {
            let (readers, pairs, mut i) = (readers.clone(), pairs.clone(), 0);
            async move {
                repeated(round, async || {
                    for _ in 0..READS {
                        i += 1;
                        let any = scattered(i) as usize;
                        let (reader, pair) = (&readers[any % readers.len()], &pairs[(any >> 8) % pairs.len()]);
                        let entry = reader.get(PARTITION, key(pair)).await?.ok_or_else(lost)?;
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

/// Everything that differs between two positions.
fn diffs<'a>(bed: &Bed<'_>, store: &'a Store, from: Position, to: Position, expected: u64) -> Side<'a> {
    let round = bed.scale.round;
    side(move || {
        repeated(round, async move || {
            let mut differences = store.diff(from, to, DiffOptions::new()).await?;
            let mut found = 0;
            while let Some(difference) = differences.next().await {
                black_box(difference?.encoded_key.first().copied());
                found += 1;
            }
            if found == expected { Ok(found) } else { Err(lost()) }
        })
    })
}
