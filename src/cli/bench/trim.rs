//! Trim: megabytes of the log that go a second, with the snapshot of the state that stays, beside a dump of that state alone.

use std::fs::{self, File};
use std::time::Instant;

use super::bed::{Bed, io, per_second};
use super::figure::Figure;
use super::load::{context, fill};
use super::reads::lost;
use crate::store::{Settings, Store, TrimOptions};
use crate::types::Result;

/// Times that every entry was written: so many times the state is what goes.
const VERSIONS: u64 = 2;
/// There are so many more segments than with the usual size, since only whole ones go.
const SMALLER: u64 = 16;

/// Log a second, of a store whose base is up to date.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants("trim") {
        return Ok(());
    }
    let (dir, path) = (bed.path("trim"), bed.path("state.dump"));
    let settings = Settings { segment_bytes: bed.scale.segment_bytes / SMALLER, ..bed.in_memory() };
    let (mut states, mut trims) = (Vec::new(), Vec::new());
    // Each round on a new store: what is trimmed is gone.
    for round in 0..=bed.scale.rounds {
        let store = Store::builder(&dir).settings(settings.clone()).create().await?;
        for _ in 0..VERSIONS {
            fill(&store, &bed.noise, bed.scale.entries).await?;
        }
        let head = store.checkpoint().await?;
        let started = Instant::now();
        let file = File::create(&path).map_err(io("write a dump", &path))?;
        let (file, _) = store.dump_state(None, file, "bench", false).await?;
        file.sync_all().map_err(io("write a dump", &path))?;
        let dumped = started.elapsed();
        let started = Instant::now();
        let trimmed = store.trim(context(), TrimOptions::before(head)).await?;
        let took = started.elapsed();
        if trimmed.segments == 0 {
            return Err(lost());
        }
        bed.finish(store, "trim").await?;
        // The first round warms files and threads.
        if round > 0 {
            states.push(per_second(trimmed.bytes, dumped) / 1e6);
            trims.push(per_second(trimmed.bytes, took) / 1e6);
        }
    }
    fs::remove_file(&path).map_err(io("remove a file", &path))?;
    bed.figure(Figure::rate("trim", &trims, "MB/s", &states, 0.5))
}
