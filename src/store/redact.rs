//! Redact: values are taken out of the history, and everything else of it stays provable.
//!
//! Order: every transaction concerned is found in the log | one transaction deletes what is still live and says what is
//! erased | memory goes into the base | snapshots, segments and archives are written anew without it | the base is made anew
//! from them | the log notes that it is done. From the transaction on the redaction is decided: what a crash leaves is done
//! at the next open, from what the transaction says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::checkpoint;
use super::context::Context;
use super::engine::{Shared, beside, on_blocking_thread};
use super::facade::Store;
use super::indexing;
use super::prepare::check_key;
use super::replay::apply;
use super::seed::seed;
use super::snapshot::without;
use super::transaction::Tx;
use crate::dump::SnapshotReader;
use crate::event::{Event, RedactedTransaction, Transaction};
use crate::log::{Frame, Log, LogError, Snapshot};
use crate::projection::{Keep, Pins, REDACTIONS, Scanner, View, changes};
use crate::types::{Digest, Error, ErrorKind, Key, KeyRange, Position, Result, Stamp};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redacted {
    /// The transaction that says so; the head for a dry run.
    pub position: Position,
    /// Values, each at its position.
    pub values: u64,
}

type Keys = Vec<(Bytes, Bytes)>;

/// What was found.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// By the position that wrote it, or that restored it.
    keys: BTreeMap<Position, BTreeSet<(Bytes, Bytes)>>,
    /// Of what is left of the payload.
    digests: BTreeMap<Position, Digest>,
    values: u64,
}

/// A range restore that may have brought back what is erased.
struct Restore {
    position: Position,
    as_of: Position,
    range: KeyRange,
    digest: Digest,
}

impl Plan {
    fn add(&mut self, position: Position, key: (Bytes, Bytes)) {
        self.keys.entry(position).or_default().insert(key);
    }

    fn holds(&self, position: Position, key: &(Bytes, Bytes)) -> bool {
        self.keys.get(&position).is_some_and(|keys| keys.contains(key))
    }

    fn event(&self) -> Event {
        let transactions = self.keys.iter().map(|(position, keys)| RedactedTransaction {
            position: *position,
            // Without a frame there is nothing to vouch for.
            digest: self.digests.get(position).copied().unwrap_or_default(),
            keys: keys.iter().cloned().collect(),
        });
        Event::Redacted { transactions: transactions.collect() }
    }
}

impl RedactOptions {
    /// Erases this from the store and from the archive of its settings.
    pub fn new(what: Redact) -> RedactOptions {
        RedactOptions { what, archive: None, dry_run: false }
    }
}

impl Store {
    /// Erases values from the whole history: from log, archive, snapshots, base and memory. One transaction deletes what is still
    /// live and records what was erased; every other transaction stays as it was, and the chain still proves it. Keys, times, actors,
    /// and the digest of what was erased together with a random salt that is erased too, stay. What was copied elsewhere before (dumps,
    /// backups, archives not named) is for the caller to erase.
    ///
    /// Reading an erased value as of then is `not_found` from now on. Costs a pass over the log, the writing of every segment concerned, and
    /// the making of a new base; meanwhile writes go on, and reads of what is in the base are `unavailable` for as long as it is made. Readers of
    /// positions below the floor end. A crash after the transaction does not undo it: the next open does the rest.
    ///
    /// # Errors
    /// With nothing changed: `not_found` when there is nothing to erase and for a transaction below the floor, `invalid` above the
    /// head and for partitions of the store's own, `conflict` for the archive of another log. `unavailable`, `corrupt` or `closed`
    /// also when the transaction is there and the rest is not done yet: a chore, or the next open, tries again.
    pub async fn redact(&self, context: Context, options: RedactOptions) -> Result<Redacted> {
        let context = context.for_many("redacted")?;
        let store = self.clone();
        let redaction = async move {
            let _one = store.shared().trimming.lock().await;
            store.redact_now(context, options).await
        };
        beside("the redaction", redaction).await
    }

    async fn redact_now(&self, context: Context, options: RedactOptions) -> Result<Redacted> {
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
        let archives = archives(shared, options.archive.as_deref());
        for archive in &archives {
            shared.log.archived_snapshots(archive)?;
        }
        // No range restore that has read what is erased is committed behind this.
        let gate = shared.floor_gate.write().await;
        if options.dry_run {
            let head = self.head();
            let plan = find(shared, &options.what, &archives, head).await?;
            return Ok(Redacted { position: head, values: plan.values });
        }
        // Set before it can be committed: whoever reads what is erased behind that asks.
        shared.redactions.store(true, Ordering::Release);
        shared.redactions_open.store(true, Ordering::Release);
        let (what, shared_again, archives_again) = (options.what.clone(), shared.clone(), archives.clone());
        let done = self.transact(context, move |tx: Tx| {
            let (what, shared, archives) = (what.clone(), shared_again.clone(), archives_again.clone());
            async move {
                let plan = find(&shared, &what, &archives, tx.position()).await?;
                if plan.values == 0 {
                    return Err(Error::new(ErrorKind::NotFound, "there is no value to redact"));
                }
                let keys: BTreeSet<&(Bytes, Bytes)> = plan.keys.values().flatten().collect();
                for key in keys {
                    let live = tx.read(&Key::new(&key.0, &key.1)).await?;
                    if live.is_some_and(|(version, _)| plan.holds(version, key)) {
                        tx.delete(&key.0, &key.1)?;
                    }
                }
                tx.record(plan.event());
                Ok(plan.values)
            }
        });
        let done = match done.await {
            Ok(done) => done,
            Err(error) => {
                // Where the fate is unknown, the log takes nothing more, and another process will see.
                let undecided = !matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Closed);
                shared.redactions_open.fetch_and(!undecided, Ordering::AcqRel);
                return Err(error);
            }
        };
        shared.redacted_at.store(done.position.0, Ordering::Release);
        drop(gate);
        complete(shared, done.position, &archives).await?;
        shared.redactions_open.store(false, Ordering::Release);
        Ok(Redacted { position: done.position, values: done.answer })
    }

    /// Does what is left of redactions that were interrupted.
    pub(super) async fn finish_redactions(&self) -> Result<()> {
        if !self.shared().redactions_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let store = self.clone();
        let redaction = async move {
            let _one = store.shared().trimming.lock().await;
            finish(store.shared()).await
        };
        beside("the redaction", redaction).await
    }
}

/// The same for who holds [`Shared::trimming`].
pub(super) async fn finish(shared: &Arc<Shared>) -> Result<()> {
    if !shared.redactions_open.load(Ordering::Acquire) {
        return Ok(());
    }
    heal_base(shared).await?;
    let settled = shared.log.redaction().max(shared.log.floor());
    let range = KeyRange::new(REDACTIONS, b"");
    let pin = shared.view.pins().pin();
    let mut scanner = Scanner::new(shared.view.clone(), pin, range.prefix(), range.end(), 0);
    let (mut any, mut open) = (false, BTreeSet::new());
    loop {
        let page = scanner.page().await?;
        if page.is_empty() {
            break;
        }
        any = true;
        open.extend(page.iter().map(|entry| entry.version).filter(|version| *version > settled));
    }
    shared.redactions.store(any, Ordering::Release);
    for redaction in open {
        tracing::info!(position = %redaction, "a redaction that was interrupted goes on");
        complete(shared, redaction, &archives(shared, None)).await?;
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

/// The archives to look into: that of the settings once there is one, and one that was named.
fn archives(shared: &Shared, named: Option<&Path>) -> Vec<PathBuf> {
    let kept = shared.settings.archive.as_deref();
    let there = kept.filter(|dir| !matches!(shared.log.archived_snapshots(dir), Err(LogError::NoArchive { .. })));
    let mut archives: Vec<PathBuf> = there.into_iter().chain(named).map(Path::to_path_buf).collect();
    archives.dedup();
    archives
}

/// Looks through everything that is stored up to a position.
async fn find(shared: &Arc<Shared>, what: &Redact, archives: &[PathBuf], to: Position) -> Result<Plan> {
    shared.sync_to(to).await?;
    let (log, what, archives) = (shared.log.clone(), what.clone(), archives.to_vec());
    let env = (shared.env.clone(), shared.log_dir.clone());
    let (mut plan, restores) = on_blocking_thread({
        let what = what.clone();
        move || -> Result<(Plan, Vec<Restore>)> {
            let mut found = (Plan::default(), Vec::new());
            let sources = archives.iter().map(|archive| Some(archive.as_path())).chain([None]);
            for archive in sources {
                find_stored(log.as_ref(), &what, archive, to, &mut found)?;
                if let Redact::Key { partition, key } = &what {
                    let key = (Bytes::copy_from_slice(partition), Bytes::copy_from_slice(key));
                    let (dir, snapshots) = match archive {
                        Some(dir) => (dir, log.archived_snapshots(dir)?),
                        None => (env.1.as_path(), log.snapshot().into_iter().chain(log.former()).collect()),
                    };
                    for snapshot in snapshots {
                        let mut reader = SnapshotReader::open(&env.0, dir, log.id(), &snapshot)?;
                        let encoded = Key::new(&key.0, &key.1);
                        while let Some(entry) = reader.entry()? {
                            if entry.key == encoded[..]
                                && !entry.value.is_empty()
                                && !found.0.holds(entry.version, &key)
                            {
                                found.0.add(entry.version, key.clone());
                                found.0.values += 1;
                            }
                        }
                    }
                }
            }
            Ok(found)
        }
    })
    .await??;
    // In their order: one may have restored what another one brought.
    for Restore { position, as_of, range, digest } in restores {
        let keys: BTreeSet<(Bytes, Bytes)> = plan.keys.values().flatten().cloned().collect();
        for key in keys {
            let encoded = Key::new(&key.0, &key.1);
            if !range.contains(&encoded) {
                continue;
            }
            let brought = match as_of < shared.log.floor() {
                // Both lie below the floor, and all that the key ever was is erased.
                true => matches!(what, Redact::Key { .. }),
                false => {
                    let then = shared.view.get(&encoded, as_of).await?;
                    then.is_some_and(|(version, _)| plan.holds(version, &key))
                }
            };
            if brought {
                plan.add(position, key);
                plan.digests.entry(position).or_insert(digest);
            }
        }
    }
    Ok(plan)
}

fn find_stored(
    log: &dyn Log,
    what: &Redact,
    archive: Option<&Path>,
    to: Position,
    (plan, restores): &mut (Plan, Vec<Restore>),
) -> Result<()> {
    for frame in log.read_stored(archive)? {
        let frame = frame?;
        let position = frame.position;
        if position > to {
            break;
        }
        let whole = *what == Redact::Position(position);
        if matches!(what, Redact::Position(wanted) if position < *wanted) {
            continue;
        }
        let transaction = Transaction::decode(frame.payload.clone())?;
        let mut keys = Keys::new();
        for event in &transaction.events {
            match event {
                Event::Set { partition, key, .. } if whole || is(what, partition, key) => {
                    keys.push((partition.clone(), key.clone()));
                }
                Event::RestoreRange { partition, prefix, as_of } => {
                    let (range, digest) = (KeyRange::new(partition, prefix), Digest::of_bytes(&frame.payload));
                    // Found twice where an archive is read with the log: the same is added again.
                    restores.push(Restore { position, as_of: *as_of, range, digest });
                }
                _ => {}
            }
        }
        if !keys.is_empty() {
            let left = left_of(&frame.payload, &keys, whole)?;
            plan.digests.insert(position, Digest::of_bytes(&left));
            for key in keys {
                plan.values += u64::from(!plan.holds(position, &key));
                plan.add(position, key);
            }
        }
    }
    restores.sort_by_key(|restore| restore.position);
    Ok(())
}

fn is(what: &Redact, partition: &[u8], key: &[u8]) -> bool {
    matches!(what, Redact::Key { partition: p, key: k } if p == partition && k == key)
}

/// A payload without the values of these keys.
fn left_of(payload: &Bytes, keys: &[(Bytes, Bytes)], reason: bool) -> Result<Bytes> {
    let mut transaction = Transaction::decode(payload.clone())?;
    for event in &mut transaction.events {
        if let Event::Set { partition, key, .. } = event
            && keys.iter().any(|(p, k)| p == partition && k == key)
        {
            *event = Event::Erased { partition: partition.clone(), key: key.clone() };
        }
    }
    if reason {
        transaction.reason = None;
    }
    Ok(transaction.encode())
}

/// Everything behind the transaction at `redaction`. Can be done again at any time.
async fn complete(shared: &Arc<Shared>, redaction: Position, archives: &[PathBuf]) -> Result<()> {
    // What is in memory is in the base then, and made anew with it; and the log shows the transaction, whatever the durability.
    checkpoint::run(shared).await?;
    let erased = said(shared, redaction)?;
    let _no_checkpoint = shared.checkpointing.lock().await;
    let positions: BTreeSet<Position> = erased.keys().copied().collect();
    let erase = |position: Position, payload: &Bytes| -> Result<Option<Bytes>, LogError> {
        let Some(said) = erased.get(&position) else { return Ok(None) };
        let failed = |error: Error| damaged(shared, position, &error.report());
        let left = left_of(payload, &said.keys, false).map_err(failed)?;
        let without_reason = left_of(payload, &said.keys, true).map_err(failed)?;
        let vouched = [&left, &without_reason].into_iter().find(|left| Digest::of_bytes(left) == said.digest);
        match vouched {
            Some(vouched) => Ok(Some(vouched.clone())),
            // Redacted once more since, the transaction is not what this one left of it; it holds none of the values then.
            None if left == *payload => Ok(None),
            // It was below the floor when it was redacted, and came back with an older dump.
            None if said.digest == Digest::default() => Ok(Some(left)),
            None => Err(damaged(shared, position, "what is left of it is not what the redaction recorded")),
        }
    };
    let dir = &shared.log_dir;
    let kept: Vec<Snapshot> = shared.log.snapshot().into_iter().chain(shared.log.former()).collect();
    let snapshots = rewritten(shared, dir, kept, &erased)?;
    shared.log.redact(&positions, &erase, &snapshots)?;
    for archive in archives {
        let snapshots = rewritten(shared, archive, shared.log.archived_snapshots(archive)?, &erased)?;
        shared.log.redact_archive(archive, &positions, &erase, &snapshots)?;
    }
    if shared.base_redaction() < redaction {
        rebuild_base(shared, redaction).await?;
    }
    shared.log.complete_redaction(redaction)?;
    tracing::info!(position = %redaction, "redacted");
    Ok(())
}

fn damaged(shared: &Shared, position: Position, detail: &str) -> LogError {
    let detail = format!("a transaction cannot be redacted: {detail}");
    LogError::Corrupt { path: shared.log_dir.clone(), offset: 0, first: position, last: position, detail }
}

/// What one transaction was to lose.
struct Said {
    digest: Digest,
    keys: Keys,
}

fn said(shared: &Shared, redaction: Position) -> Result<BTreeMap<Position, Said>> {
    let frame = shared.log.read(redaction)?.next().transpose()?;
    let Some(Frame { payload, .. }) = frame.filter(|frame| frame.position == redaction) else {
        return Err(LogError::AboveHead { position: redaction, head: shared.log.head().position }.into());
    };
    let mut erased = BTreeMap::new();
    for event in Transaction::decode(payload)?.events {
        let Event::Redacted { transactions } = event else { continue };
        erased.extend(
            transactions.into_iter().map(|said| (said.position, Said { digest: said.digest, keys: said.keys })),
        );
    }
    Ok(erased)
}

/// Writes anew the snapshots in which something is to be erased.
fn rewritten(
    shared: &Shared,
    dir: &Path,
    snapshots: Vec<Snapshot>,
    erased: &BTreeMap<Position, Said>,
) -> Result<Vec<Snapshot>> {
    let is_erased = |version: Position, encoded: &[u8]| {
        let keys = erased.get(&version).map_or(&[][..], |said| &said.keys);
        keys.iter().any(|(partition, key)| Key::new(partition, key)[..] == *encoded)
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
    let view = Arc::new(View::new(base.clone(), from, Arc::new(Pins::default())));
    view.pins().publish(from);
    if from < to {
        for frame in log.read(from.next())? {
            let frame = frame?;
            let (position, chain) = (frame.position, frame.chain);
            if position > to {
                break;
            }
            apply(&view, &shared.indexes, frame).await?;
            view.pins().publish(position);
            if view.layers().active().bytes() < shared.settings.memtable_soft_bytes && position < to {
                continue;
            }
            view.freeze(position);
            let Some(table) = view.layers().frozen().last().cloned() else { continue };
            let stamp = Stamp {
                log_id: log.id(),
                format: Stamp::FORMAT,
                position,
                chain,
                projections: built.clone(),
                history,
                redaction,
            };
            base.write(&stamp, &[], changes(table, Keep::All)).await?;
            view.rest_on(position);
        }
    }
    *shared.built.lock() = built;
    shared.base_redaction.store(redaction.0, Ordering::Release);
    Ok(())
}
