//! What follows the transactions of a redaction: segments, snapshots and archives written anew without what they name, and the base
//! made anew from them.
//!
//! All of it can be done again at any time, and is: at the next open, by a chore, and before a trim or another redaction. The log's
//! manifest names the last redaction that went through log, snapshots and base, an archive's index the last one that went through that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::checkpoint;
use super::engine::{Shared, beside};
use super::facade::Store;
use super::findings::{Pair, left_of};
use super::indexing;
use super::owed;
use super::replay::Rebuilding;
use super::seed::seed;
use super::snapshot::without;
use crate::event::{Event, Transaction};
use crate::log::{Frame, LogError, Snapshot};
use crate::projection::redactions;
use crate::types::{Digest, Error, Hash, Key, Position, Result, Stamp};

/// What redactions were to erase.
#[derive(Debug, Default)]
struct Erasure {
    /// By the transaction concerned, in the order of the redactions.
    said: BTreeMap<Position, Vec<Said>>,
}

/// What one transaction was to lose.
#[derive(Debug)]
struct Said {
    digest: Digest,
    keys: Vec<Pair>,
}

impl Store {
    /// Does what is left of redactions that were interrupted, in archives that are owed something too.
    ///
    /// Errors: `unavailable`, naming it, for an archive that is not there; all others are done by then.
    pub(super) async fn finish_redactions(&self) -> Result<()> {
        let open = self.shared().redactions_open.load(Ordering::Acquire);
        if !open && owed::owed(self.shared())?.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        let rest = async move {
            let shared = store.shared();
            let _one = shared.trimming.lock().await;
            finish(shared).await?;
            let mut failed = None;
            for archive in owed::owed(shared)? {
                let settled = match owed::check_owed(shared, &archive) {
                    Ok(()) => settle(shared, &archive).await.map(drop),
                    absent => absent,
                };
                match settled {
                    Ok(()) => owed::forget(shared, &archive)?,
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Ok(()), Err)
        };
        beside("the redaction", rest).await
    }
}

/// Does what is left of interrupted redactions in log, snapshots and base. The caller holds [`Shared::trimming`].
pub(super) async fn finish(shared: &Arc<Shared>) -> Result<()> {
    if !shared.redactions_open.load(Ordering::Acquire) {
        return Ok(());
    }
    heal_base(shared).await?;
    let all = redactions(&shared.view).await?;
    shared.redactions.store(!all.is_empty(), Ordering::Release);
    let settled = shared.log.redaction().max(shared.log.floor());
    let open: BTreeSet<Position> = all.into_iter().filter(|redaction| *redaction > settled).collect();
    if let Some(first) = open.first() {
        tracing::info!(position = %first, "a redaction that was interrupted goes on");
        complete(shared, &open).await?;
    }
    shared.redactions_open.store(false, Ordering::Release);
    Ok(())
}

/// Fills a base that was cleared and not filled again, as when a connection broke.
async fn heal_base(shared: &Arc<Shared>) -> Result<()> {
    let _no_checkpoint = shared.checkpointing.lock().await;
    let (base, position) = {
        let layers = shared.view.layers();
        (layers.base().clone(), layers.base_position())
    };
    if !checkpoint::is_whole(base.as_ref(), position).await? {
        rebuild_base(shared, shared.base_redaction()).await?;
    }
    Ok(())
}

/// Everything behind the transactions of redactions but archives.
pub(super) async fn complete(shared: &Arc<Shared>, redactions: &BTreeSet<Position>) -> Result<()> {
    let Some(last) = redactions.last().copied() else { return Ok(()) };
    // What is in memory is in the base then, and made anew with it; and the log shows the transactions, whatever the durability.
    checkpoint::run(shared).await?;
    let erasure = Erasure::read(shared, redactions, None)?;
    let _no_checkpoint = shared.checkpointing.lock().await;
    let kept: Vec<Snapshot> = shared.log.snapshot().into_iter().chain(shared.log.former()).collect();
    let snapshots = rewritten(shared, &shared.log_dir, kept, &erasure)?;
    let erase = |position: Position, payload: &Bytes| erasure.left(shared, position, payload);
    shared.log.redact(&erasure.positions(), &erase, &snapshots)?;
    if shared.base_redaction() < last {
        rebuild_base(shared, last).await?;
    }
    shared.log.complete_redaction(last)?;
    tracing::info!(position = %last, "redacted");
    Ok(())
}

/// Brings an archive to where the log is: every redaction that is done there and not yet here. Whether there was one.
///
/// Errors: those of [`Log::redact_archive`](crate::log::Log::redact_archive); `conflict` for a redaction of which nothing says any more what
/// it erased, since it was trimmed and not archived there.
pub(super) async fn settle(shared: &Arc<Shared>, archive: &Path) -> Result<bool> {
    let (archived, done) = (shared.log.archived(archive)?, shared.log.redaction());
    if archived.redaction >= done {
        return Ok(false);
    }
    let all = redactions(&shared.view).await?;
    let owed = all.into_iter().filter(|redaction| *redaction > archived.redaction && *redaction <= done).collect();
    let erasure = Erasure::read(shared, &owed, Some(archive))?;
    let snapshots = rewritten(shared, archive, archived.snapshots, &erasure)?;
    let erase = |position: Position, payload: &Bytes| erasure.left(shared, position, payload);
    shared.log.redact_archive(archive, &erasure.positions(), &erase, &snapshots, done)?;
    tracing::info!(position = %done, archive = %archive.display(), "redacted in an archive");
    Ok(!owed.is_empty())
}

impl Erasure {
    /// What redactions say, as the log has them, or, below its floor, what is stored in it or in an archive.
    fn read(shared: &Shared, redactions: &BTreeSet<Position>, archive: Option<&Path>) -> Result<Erasure> {
        let (log, mut erasure) = (&shared.log, Erasure::default());
        let mut trimmed: BTreeMap<Position, Option<Bytes>> =
            redactions.range(..=log.floor()).map(|redaction| (*redaction, None)).collect();
        if !trimmed.is_empty() {
            for source in [None].into_iter().chain(archive.map(Some)) {
                for frame in log.read_stored(source)? {
                    let Frame { position, payload, .. } = frame?;
                    trimmed.entry(position).and_modify(|said| *said = Some(payload));
                }
            }
        }
        for redaction in redactions {
            let payload = match trimmed.remove(redaction) {
                Some(payload) => payload.ok_or_else(|| LogError::OtherArchive {
                    path: archive.unwrap_or(&shared.log_dir).to_path_buf(),
                    detail: format!(
                        "what a redaction erased is not known any more, since it was trimmed, redaction=`{redaction}`; remove the archive"
                    ),
                })?,
                None => {
                    let frame = log.read(*redaction)?.next().transpose()?;
                    let frame = frame.filter(|frame| frame.position == *redaction);
                    let above = LogError::AboveHead { position: *redaction, head: log.head().position };
                    frame.ok_or(above)?.payload
                }
            };
            for event in Transaction::decode(payload)?.events {
                let Event::Redacted { transactions } = event else { continue };
                for said in transactions {
                    let left = Said { digest: said.digest, keys: said.keys };
                    erasure.said.entry(said.position).or_default().push(left);
                }
            }
        }
        Ok(erasure)
    }

    fn positions(&self) -> BTreeSet<Position> {
        self.said.keys().copied().collect()
    }

    /// What is left of a payload; `None` when all of it.
    fn left(&self, shared: &Shared, position: Position, payload: &Bytes) -> Result<Option<Bytes>, LogError> {
        let failed = |error: Error| damaged(shared, position, &error.report());
        let mut now = payload.clone();
        for said in self.said.get(&position).into_iter().flatten() {
            let left = left_of(&now, &said.keys, false).map_err(failed)?;
            let without_reason = left_of(&now, &said.keys, true).map_err(failed)?;
            let vouched = [&left, &without_reason].into_iter().find(|left| Digest::of_bytes(left) == said.digest);
            now = match vouched {
                Some(vouched) => vouched.clone(),
                // Redacted once more since, the transaction is not what this one left of it; it holds none of the values then.
                None if left == now => continue,
                // It was below the floor when it was redacted, and came back with an older dump.
                None if said.digest == Digest::default() => left,
                None => return Err(damaged(shared, position, "what is left of it is not what the redaction recorded")),
            };
        }
        Ok((now != *payload).then_some(now))
    }
}

fn damaged(shared: &Shared, position: Position, detail: &str) -> LogError {
    let detail = format!("a transaction cannot be redacted: {detail}");
    LogError::Corrupt { path: shared.log_dir.clone(), offset: 0, first: position, last: position, detail }
}

/// Writes anew the snapshots in which something is to be erased.
fn rewritten(shared: &Shared, dir: &Path, snapshots: Vec<Snapshot>, erasure: &Erasure) -> Result<Vec<Snapshot>> {
    let is_erased = |version: Position, encoded: &[u8]| {
        let mut keys = erasure.said.get(&version).into_iter().flatten().flat_map(|said| &said.keys);
        keys.any(|(partition, key)| Key::new(partition, key)[..] == *encoded)
    };
    let mut rewritten = Vec::new();
    for snapshot in snapshots {
        rewritten.extend(without(shared, dir, &snapshot, &is_erased)?);
    }
    Ok(rewritten)
}

/// Makes the base anew from snapshot and log, up to where it stood, so that the memtables above it go on. Reads meanwhile find
/// either what is there already or an error.
async fn rebuild_base(shared: &Arc<Shared>, redaction: Position) -> Result<()> {
    let (base, to) = {
        let layers = shared.view.layers();
        (layers.base().clone(), layers.base_position())
    };
    base.clear().await?;
    // With a history whatever the settings say: range restores read it. The next checkpoint goes by the settings.
    let (log, history) = (&shared.log, Some(shared.log.floor()));
    let mut from = Position::ZERO;
    let mut held = None;
    if let Some(snapshot) = log.snapshot() {
        let (env, dir, indexes) = (&shared.env, &shared.log_dir, &shared.indexes);
        held = Some(seed(env, dir, log.id(), &snapshot, indexes, base.as_ref(), redaction).await?);
        from = snapshot.head.position;
    }
    let built = indexing::projections(&shared.indexes, held.as_deref());
    if from < to {
        let stamp = Stamp {
            log_id: log.id(),
            format: Stamp::FORMAT,
            position: from,
            chain: Hash::default(),
            projections: built.clone(),
            history,
            redaction,
        };
        let memory_bytes = shared.settings.memtable_soft_bytes;
        let mut rebuilding = Rebuilding::new(base, &shared.indexes, stamp, memory_bytes);
        for frame in log.read(from.next())? {
            let frame = frame?;
            let position = frame.position;
            if rebuilding.apply(frame).await? || position == to {
                rebuilding.write().await?;
            }
            if position == to {
                break;
            }
        }
    }
    *shared.built.lock() = built;
    shared.base_redaction.store(redaction.0, Ordering::Release);
    Ok(())
}
