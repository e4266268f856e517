//! Redact: values are taken out of the history, and everything else of it stays provable.
//!
//! Order: every transaction concerned is found | archives are noted as owed | transactions delete what is still live and say what is
//! erased | memory goes into the base | snapshots and segments are written anew without it | the base is made anew from them | the log
//! notes that it is done | archives. From its transaction on a redaction is decided: what a crash leaves is done at the next open, from
//! what the transaction says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::context::Context;
use super::engine::beside;
use super::erasing::{complete, finish, settle};
use super::facade::{Committed, Store};
use super::findings::{Findings, look};
use super::owed;
use super::prepare::check_key;
use super::transaction::Tx;
use crate::log::LogError;
use crate::types::{Error, ErrorKind, Key, Limits, Position, Result};

/// What one transaction records at most, in bytes: half of its limit, so that nothing else in it decides whether it fits.
const PART_BYTES: usize = Limits::TRANSACTION_BYTES_MAX / 2;

/// What is to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redact {
    /// Every value that a key ever had.
    Key {
        /// The partition.
        partition: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
    /// Every value that a transaction wrote, and its reason.
    Position(Position),
}

/// What is to be erased, and where besides the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactOptions {
    /// What.
    pub what: Redact,
    /// An archive of the log ([`TrimOptions::archive`](crate::TrimOptions)) to erase it from too. That of the settings always is.
    pub archive: Option<PathBuf>,
    /// Only count.
    pub dry_run: bool,
}

/// What a redaction erased, or would erase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redacted {
    /// The last transaction that says so; the head for a dry run, and the redaction before where only archives lacked something.
    pub position: Position,
    /// Values, each at its position.
    pub values: u64,
    /// Transactions that nobody looked into: they were trimmed, and are in no archive that was looked into.
    pub gaps: Vec<ArchiveGap>,
}

/// Transactions that are missing between the end of an archive and where the log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveGap {
    /// The archive.
    pub archive: PathBuf,
    /// The first of them.
    pub first: Position,
    /// The last of them.
    pub last: Position,
}

impl RedactOptions {
    /// Erases this from the store and from the archive of its settings.
    pub fn new(what: Redact) -> RedactOptions {
        RedactOptions { what, archive: None, dry_run: false }
    }
}

impl Store {
    /// Erases values from the whole history: from log, archives, snapshots, base and memory. A transaction deletes what is still
    /// live and records what was erased (several do where one would be too large); every other transaction stays as it was, and the chain
    /// still proves it. Keys, times, actors, and the digest of what was erased together with a random salt that is erased too, stay. What was
    /// copied elsewhere before (dumps, backups, archives not named) is for the caller to erase.
    ///
    /// Reading an erased value as of then is `not_found` from now on. Costs a pass over the log, the writing of every segment concerned, and
    /// the making of a new base; meanwhile writes go on, and reads of what is in the base are `unavailable` for as long as it is made. Readers of
    /// positions below the floor end. A crash after the transaction does not undo it: the next open does the rest, in the
    /// archives too, which are remembered until that is done. First of all archives get what they are still owed of earlier redactions.
    ///
    /// # Errors
    /// With nothing changed: `not_found` when there is nothing to erase and for a transaction below the floor, `invalid` above the
    /// head, for partitions of the store's own and for a transaction of too many keys, `conflict` for the archive of another log,
    /// `unavailable`, naming it, when the archive of the settings is not there or one that is still owed something. `unavailable`,
    /// `corrupt` or `closed` also when the transaction is there and the rest is not done yet: a chore, or the next open, tries again.
    pub async fn redact(&self, context: Context, options: RedactOptions) -> Result<Redacted> {
        let context = context.for_many("redacted")?;
        let store = self.clone();
        let redaction = async move {
            let _one = store.shared().trimming.lock().await;
            store.redact_in_parts(context, options, PART_BYTES).await
        };
        beside("the redaction", redaction).await
    }

    /// As [`Store::redact`], for who holds [`Shared::trimming`](super::engine::Shared::trimming); each transaction records about so many bytes.
    pub(super) async fn redact_in_parts(
        &self,
        context: Context,
        options: RedactOptions,
        part_bytes: usize,
    ) -> Result<Redacted> {
        let shared = self.shared();
        finish(shared).await?;
        match &options.what {
            Redact::Key { partition, key } => check_key(partition, key)?,
            Redact::Position(position) => {
                self.resolve(&(*position).into()).await?;
                if *position <= shared.log.floor() {
                    return Err(LogError::BelowFloor { position: *position, floor: shared.log.floor() }.into());
                }
            }
        }
        let archives: Arc<[PathBuf]> = owed::archives(shared, options.archive.as_deref())?.into();
        let mut gaps = Vec::new();
        let mut settled = false;
        for archive in archives.iter() {
            if let Some((first, last)) = shared.log.archived(archive)?.gap {
                gaps.push(ArchiveGap { archive: archive.clone(), first, last });
            }
            settled |= !options.dry_run && settle(shared, archive).await?;
        }
        let findings = Arc::new(Mutex::new(Findings::new(options.what)));
        // No range restore that has read what is erased is committed behind this.
        let gate = shared.floor_gate.write().await;
        if options.dry_run {
            let position = self.head();
            look(shared, &findings, &archives, position).await?;
            let values = findings.lock().values();
            return Ok(Redacted { position, values, gaps });
        }
        owed::remember(shared, &archives)?;
        // Set before it can be committed: whoever reads what is erased behind that asks.
        shared.redactions.store(true, Ordering::Release);
        shared.redactions_open.store(true, Ordering::Release);
        let (mut after, mut redactions) = (Position::ZERO, BTreeSet::new());
        while redactions.is_empty() || findings.lock().goes_on(after) {
            let part = self.redact_part(&context, &findings, &archives, after, part_bytes).await;
            let Committed { position, answer: last, .. } = match part {
                Ok(part) => part,
                Err(error) => {
                    // Where the fate is unknown, the log takes nothing more, and another process will see.
                    if redactions.is_empty() && !matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Closed) {
                        shared.redactions_open.store(false, Ordering::Release);
                    }
                    if redactions.is_empty() && error.kind() == ErrorKind::NotFound {
                        archives.iter().try_for_each(|archive| owed::forget(shared, archive))?;
                        if settled {
                            return Ok(Redacted { position: shared.log.redaction(), values: 0, gaps });
                        }
                    }
                    return Err(error);
                }
            };
            shared.redacted_at.store(position.0, Ordering::Release);
            redactions.insert(position);
            after = Position(last);
        }
        drop(gate);
        complete(shared, &redactions).await?;
        shared.redactions_open.store(false, Ordering::Release);
        for archive in archives.iter() {
            settle(shared, archive).await.map_err(|error| in_archive(archive, error))?;
            owed::forget(shared, archive)?;
        }
        let (position, values) = (redactions.last().copied().unwrap_or_default(), findings.lock().values());
        Ok(Redacted { position, values, gaps })
    }

    /// Commits the next part of what is found, and answers where that ends. A part that loses to a write of one of its keys looks only at what came since, so
    /// it gets through however much is written.
    async fn redact_part(
        &self,
        context: &Context,
        findings: &Arc<Mutex<Findings>>,
        archives: &Arc<[PathBuf]>,
        after: Position,
        part_bytes: usize,
    ) -> Result<Committed<u64>> {
        let shared = self.shared();
        self.transact(context.clone(), |tx: Tx| {
            let (shared, findings, archives) = (shared.clone(), findings.clone(), archives.clone());
            async move {
                look(&shared, &findings, &archives, tx.position()).await?;
                let (last, keys, event) = {
                    let findings = findings.lock();
                    if findings.values() == 0 {
                        return Err(Error::new(ErrorKind::NotFound, "there is no value to redact"));
                    }
                    let part = findings.part(after, part_bytes)?;
                    (part.last().map_or(after.0, |last| last.0), findings.keys(&part), findings.event(&part))
                };
                for ((partition, key), positions) in keys {
                    let live = tx.read(&Key::new(&partition, &key)).await?;
                    if live.is_some_and(|(version, _)| positions.contains(&version)) {
                        tx.delete(&partition, &key)?;
                    }
                }
                tx.record(event);
                Ok(last)
            }
        })
        .await
    }
}

/// Says of an error in an archive what is done and what is left.
fn in_archive(archive: &Path, error: Error) -> Error {
    let message = format!(
        "redacted everywhere but in an archive, path=`{}`; it is tried again each minute, at the next open, and by redacting with that archive",
        archive.display()
    );
    Error::new(error.kind(), message).with_source(error)
}
