//! Checkpoints: bringing frozen memtables into the base, in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tracing::Instrument as _;

use super::engine::Shared;
use super::submission::Command;
use crate::backends::{Backend, BackendError, Change, Changes};
use crate::projection::{Keep, changes};
use crate::types::{Error, ErrorKind, Hash, Position, ProjectionVersion, Result, Stamp};

/// Freezes the memtable, writes it and every older frozen one to the base, and lets readers rest on it. Returns
/// the position reached. Only what is synced is written. One at a time; others wait.
pub(crate) async fn run(shared: &Arc<Shared>) -> Result<Position> {
    let _one = shared.checkpointing.lock().await;
    freeze_and_write(shared, None, Pace::Full).await
}

/// The same on a thread that may sleep, leaving the processor to writers as long as there is memory for what they write.
pub(crate) async fn run_beside_writers(shared: &Arc<Shared>) -> Result<Position> {
    let _one = shared.checkpointing.lock().await;
    freeze_and_write(shared, None, Pace::BesideWriters).await
}

/// The same, after which the base holds the given indexes whole: what was missing of them is in the memtables.
pub(crate) async fn run_as(shared: &Arc<Shared>, built: Vec<ProjectionVersion>) -> Result<Position> {
    let _one = shared.checkpointing.lock().await;
    let done = freeze_and_write(shared, Some(&built), Pace::Full).await?;
    *shared.built.lock() = built;
    Ok(done)
}

/// How a checkpoint shares the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as it goes.
    Full,
    /// Sleeps three times as long as it works while somebody writes. Where writers keep every core busy, a checkpoint that did not would
    /// take a share like any of their threads. It has time until they have written as much again, so that the next one is no
    /// larger than this, and until memory is half-way to where they have to wait.
    BesideWriters,
}

async fn freeze_and_write(shared: &Arc<Shared>, built: Option<&[ProjectionVersion]>, pace: Pace) -> Result<Position> {
    let frozen_at = shared.ask(Command::Freeze).await??;
    let span = tracing::debug_span!("checkpoint", position = %frozen_at);
    let done = write_frozen(shared, frozen_at, built, pace).instrument(span).await;
    *shared.checkpoint_failure.lock() = done.as_ref().err().map(Error::report);
    done
}

/// Writes every frozen memtable, oldest first. The stamp of the last one names the indexes `built`, if given: those before
/// it do not hold them whole.
pub(crate) async fn write_frozen(
    shared: &Shared,
    frozen_at: Position,
    built: Option<&[ProjectionVersion]>,
    pace: Pace,
) -> Result<Position> {
    let started = Instant::now();
    loop {
        let layers = shared.view.layers();
        let (base, base_position) = (layers.base().clone(), layers.base_position());
        let Some(table) = layers.frozen().last().cloned() else { break };
        // The memtable above says up to where this one goes.
        let above = layers.frozen().len().checked_sub(2).and_then(|at| layers.frozen().get(at));
        let to = above.unwrap_or(layers.active()).floor();
        drop(layers);
        if to > base_position {
            if !is_whole(base.as_ref(), base_position).await? {
                let message = format!(
                    "the base holds not all that was written to it, as when it is made anew and that failed, position=`{base_position}`; it is made anew when the redaction goes on, at the latest at the next open"
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            let built = built.filter(|_| to == frozen_at);
            let stamp = stamp_at(shared, to, built)?;
            let pins = shared.view.pins();
            let (keep, kept) = match stamp.history {
                Some(_) => (pins.pinned(to), Keep::All),
                None => {
                    let keep = pins.keep_only_pinned(to);
                    (keep.clone(), Keep::Seen(keep))
                }
            };
            let changes = changes(table.clone(), kept);
            let changes: Changes<'_> =
                if pace == Pace::Full { changes } else { Box::new(Paced::new(shared, changes, table.bytes())) };
            if let Err(error) = base.write(&stamp, &keep, changes).await {
                counter!("lakelog_checkpoint_failures_total").increment(1);
                return Err(Error::from(error));
            }
        }
        shared.view.rest_on(to);
        shared.memory_freed.notify_waiters();
        shared.retired.lock().push(table);
        // A look ends by itself, at the latest with the page of a scan; one that takes longer leaves it to the upkeep.
        let mut patience = 1000;
        while !free_retired(shared) && patience > 0 {
            patience -= 1;
            tokio::task::yield_now().await;
        }
    }
    histogram!("lakelog_checkpoint_seconds").record(started.elapsed());
    tracing::debug!("checkpoint written");
    Ok(frozen_at)
}

/// Frees the memtables that nobody looks at any more. Here, and not where the last look at one ends: that may be the committer, and
/// a million entries take it half a second, in which nobody's write is answered. What is still looked at is left for the next time;
/// `true` when nothing is.
pub(crate) fn free_retired(shared: &Shared) -> bool {
    let (free, looked_at): (Vec<_>, Vec<_>) =
        std::mem::take(&mut *shared.retired.lock()).into_iter().partition(|table| Arc::strong_count(table) == 1);
    let done = looked_at.is_empty();
    shared.retired.lock().extend(looked_at);
    drop(free);
    done
}

/// Whether so many bytes that wait for a checkpoint are as much as the settings want in one, or an open would have to replay too much.
pub(crate) fn is_due(shared: &Shared, bytes: usize) -> bool {
    let settings = &shared.settings;
    bytes >= settings.memtable_soft_bytes || shared.log_bytes.load(Ordering::Relaxed) >= settings.checkpoint_log_bytes
}

/// Whether a checkpoint that is due should wait for nothing any more: memory is half-way to where writers have to wait, or an open would
/// have to replay twice as much as it should.
pub(crate) fn presses(shared: &Shared) -> bool {
    let settings = &shared.settings;
    let half_way = settings.memtable_soft_bytes / 2 + settings.memtable_hard_bytes / 2;
    let replayed = shared.log_bytes.load(Ordering::Relaxed) / 2;
    shared.view.layers().bytes() >= half_way || replayed >= settings.checkpoint_log_bytes
}

/// Changes that take their time.
struct Paced<'a> {
    shared: &'a Shared,
    changes: Changes<'a>,
    /// Of the memtable that they are of.
    bytes: usize,
    passed: usize,
    since: Instant,
    published: Position,
}

/// Changes between two looks at the clock.
const PACED_CHANGES: usize = 256;
/// Sleep for each time that was worked.
const PAUSES: u32 = 3;
/// The longest sleep.
const PAUSE_MAX: Duration = Duration::from_millis(20);

impl<'a> Paced<'a> {
    fn new(shared: &'a Shared, changes: Changes<'a>, bytes: usize) -> Paced<'a> {
        let published = shared.view.pins().published();
        Paced { shared, changes, bytes, passed: 0, since: Instant::now(), published }
    }

    fn pause(&mut self) {
        let published = self.shared.view.pins().published();
        let time = self.shared.view.layers().active().bytes() < self.bytes && !presses(self.shared);
        if time && published != self.published {
            std::thread::sleep((PAUSES * self.since.elapsed()).min(PAUSE_MAX));
        }
        (self.published, self.since) = (published, Instant::now());
    }
}

impl Iterator for Paced<'_> {
    type Item = std::result::Result<Change, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.passed += 1;
        if self.passed.is_multiple_of(PACED_CHANGES) {
            self.pause();
        }
        self.changes.next()
    }
}

/// Whether the base holds what it held when the layers came to rest on it. Not so after it was cleared and could not be filled: what
/// is written then would be taken for the whole.
pub(crate) async fn is_whole(base: &dyn Backend, position: Position) -> Result<bool> {
    let stamp = base.stamp().await?;
    // A write whose answer was lost may have been carried out.
    Ok(stamp.map_or(Position::ZERO, |stamp| stamp.position) >= position)
}

/// One piece of the base's background work; `true` when there is more.
pub(crate) async fn maintain(shared: &Shared) -> Result<bool> {
    let (base, position, pinned) = {
        // Between the write of a checkpoint and the rest on it the position of the base is an old one.
        let _one = shared.checkpointing.lock().await;
        let layers = shared.view.layers();
        (layers.base().clone(), layers.base_position(), shared.view.pins().pinned(layers.base_position()))
    };
    Ok(base.maintain(position, &pinned).await?)
}

fn stamp_at(shared: &Shared, position: Position, built: Option<&[ProjectionVersion]>) -> Result<Stamp> {
    Ok(Stamp {
        log_id: shared.log.id(),
        format: Stamp::FORMAT,
        position,
        chain: chain_at(shared.log.as_ref(), position)?,
        projections: built.map_or_else(|| shared.built.lock().clone(), <[_]>::to_vec),
        history: shared.history(),
        redaction: shared.base_redaction(),
    })
}

/// The chain hash at a position that the log holds.
fn chain_at(log: &dyn crate::log::Log, position: Position) -> Result<Hash> {
    let head = log.head();
    if head.position == position {
        return Ok(head.chain);
    }
    let frame = log.read(position)?.next().transpose()?;
    let frame = frame.filter(|frame| frame.position == position).ok_or_else(|| {
        let message = format!("the log does not give the transaction at a position, position=`{position}`");
        Error::new(crate::types::ErrorKind::Corrupt, message)
    })?;
    Ok(frame.chain)
}
