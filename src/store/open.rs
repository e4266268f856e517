//! Opening: log recovery, trust or rebuild of the base, replay of what came after it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::runtime::Handle;
use tracing::Instrument as _;

use super::beside;
use super::builder::Builder;
use super::checkpoint::{Pace, write_frozen};
use super::committer::Committer;
use super::decoded::{DecodedRun, Step, decoded_above};
use super::engine::{Parts, Shared};
use super::facade::Store;
use super::indexing;
use super::replay::apply;
use super::scrub::ScrubReport;
use super::seed::seed;
use super::threads::Threads;
#[cfg(feature = "postgres")]
use crate::backends::PostgresBackend;
use crate::backends::{Backend, BackendError};
use crate::env::{Env, create_dir_durably};
use crate::event::{Event, Transaction};
#[cfg(feature = "postgres")]
use crate::log::LogFiles;
use crate::log::{DirLock, FileLog, Log, LogError, LogSettings};
use crate::projection::{Pins, View};
use crate::types::{Error, ErrorKind, LogId, Position, Result, Stamp};

/// The log's directory in the store's.
pub(crate) const LOG_DIR: &str = "log";
/// The base's directory in the store's.
pub(crate) const BASE_DIR: &str = "base";
/// The lock file in the store's directory.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// What to do about a store that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Required,
    Forbidden,
    Allowed,
}

/// An open store without threads: whoever holds the committer steps it.
pub(crate) struct Opened {
    pub shared: Arc<Shared>,
    pub committer: Committer,
}

/// Opens on a blocking thread, since recovery reads files, then starts the threads.
pub(crate) async fn open(builder: Builder, existing: Existing) -> Result<Store> {
    let handle = Handle::current();
    let runtime = handle.clone();
    let (serves, dir) = (builder.serves_readers, builder.dir.clone());
    let opened = tokio::task::spawn_blocking(move || runtime.block_on(open_stepped(builder, existing)))
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "opening the store panicked").with_source(error))??;
    let threads = Threads::start(&opened.shared, opened.committer, &handle)?;
    let store = Store::new(opened.shared, threads);
    if let Err(error) = store.finish_redactions().await {
        tracing::warn!(error = %error.report(), "a redaction that was interrupted is not done yet; it is tried again");
    }
    store.start_chores(&handle);
    if serves {
        match beside::listen(&dir, store.shared(), store.threads(), &handle) {
            Ok(socket) => *store.shared().socket.lock() = Some(socket),
            Err(error) => tracing::warn!(%error, "other processes cannot read beside this one"),
        }
    }
    Ok(store)
}

/// Opens without starting anything.
pub(crate) async fn open_stepped(builder: Builder, existing: Existing) -> Result<Opened> {
    let span = tracing::info_span!("open", dir = %builder.dir.display());
    recover(builder, existing).instrument(span).await
}

async fn recover(builder: Builder, existing: Existing) -> Result<Opened> {
    builder.settings.validate()?;
    let started = Instant::now();
    let lock = lock(&builder, existing)?;
    let found = base(&builder).await?;
    let stamp = match &found {
        Some(base) => sound_stamp(base.as_ref()).await?,
        None => None,
    };
    let base_opened = started.elapsed();
    let log = open_log(&builder, lock, existing, stamp.as_ref())?;
    let log_opened = started.elapsed();
    let base = match found {
        Some(base) => base,
        None => base_named(&builder, log.id()).await?,
    };
    if let Some(stamp) = stamp.as_ref().filter(|stamp| stamp.log_id != log.id() && builder.backend.is_some()) {
        let message = format!(
            "the base was made from another log, log=`{}` base=`{}`; give another base, or clear this one",
            log.id(),
            stamp.log_id
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let mut trusted = match &stamp {
        Some(stamp) if trusted(&log, stamp, &builder)? => stamp.position,
        found => {
            if found.is_some() {
                tracing::warn!("the base is not of this log's history; it is rebuilt");
            }
            base.clear().await?;
            Position::ZERO
        }
    };
    let mut keeps_history = stamp.as_ref().is_none_or(|stamp| stamp.history.is_some()) || trusted == Position::ZERO;
    if !keeps_history && restores_follow(&log, trusted)? {
        tracing::info!("what follows the checkpoint restores ranges, and it keeps no history; it is rebuilt with one");
        base.clear().await?;
        (trusted, keeps_history) = (Position::ZERO, true);
    }
    // A base that is made now is made from what the log has, so nothing is in it that is not in the log.
    let redaction = match &stamp {
        Some(stamp) if trusted > Position::ZERO => stamp.redaction,
        _ => log.redaction(),
    };
    let mut stamped = stamp.filter(|_| trusted > Position::ZERO).map(|stamp| stamp.projections);
    if let Some(snapshot) = log.snapshot().filter(|snapshot| trusted < snapshot.head.position) {
        let (env, dir) = (&builder.env, builder.dir.join(LOG_DIR));
        stamped = Some(seed(env, &dir, log.id(), &snapshot, &builder.indexes, base.as_ref(), log.redaction()).await?);
        trusted = snapshot.head.position;
    }
    let scrub = ScrubReport::load(&builder.env, &builder.dir);
    let shared = Shared::new(Parts {
        view: Arc::new(View::new(base, trusted, Arc::new(Pins::default()))),
        env: builder.env,
        settings: builder.settings,
        log: Arc::new(log),
        built: indexing::projections(&builder.indexes, stamped.as_deref()),
        indexes: builder.indexes,
        log_dir: builder.dir.join(LOG_DIR),
        scrub,
        keeps_history,
        redaction,
    });
    let shared = Arc::new(shared);
    replay(&shared, trusted).await?;
    tracing::debug!(
        base = ?base_opened,
        log = ?log_opened.saturating_sub(base_opened),
        replay = ?started.elapsed().saturating_sub(log_opened),
        head = %shared.log.head().position,
        from = %trusted,
        "opened"
    );
    shared.keeps_history.store(shared.settings.history, Ordering::Release);
    let committer = Committer::new(shared.clone());
    Ok(Opened { shared, committer })
}

/// Takes the lock before anything is looked at. Only a store that may be created gets a directory.
fn lock(builder: &Builder, existing: Existing) -> Result<DirLock> {
    let (fs, dir) = (&builder.env.fs, &builder.dir);
    let failed = |action: &'static str| move |source| Error::from(LogError::Io { action, path: dir.clone(), source });
    if !fs.exists(&dir.join(LOG_DIR)).map_err(failed("look for the store"))? && existing == Existing::Required {
        return Err(Error::from(LogError::NotFound { path: dir.clone() }));
    }
    if existing != Existing::Required {
        create_dir_durably(fs.as_ref(), dir).map_err(failed("create the directory"))?;
    }
    Ok(DirLock::take(&builder.env, &dir.join(LOCK_FILE))?)
}

fn open_log(builder: &Builder, lock: DirLock, existing: Existing, stamp: Option<&Stamp>) -> Result<FileLog> {
    let settings =
        LogSettings { segment_bytes: builder.settings.segment_bytes, min_free_bytes: builder.settings.min_free_bytes };
    let (env, dir) = (&builder.env, &builder.dir.join(LOG_DIR));
    let known = stamp.map(|stamp| (stamp.log_id, stamp.position));
    match existing {
        Existing::Forbidden => create_log(env, lock, dir, settings, stamp),
        Existing::Required => Ok(FileLog::open(env.clone(), lock, dir, settings, known)?),
        Existing::Allowed => match FileLog::open(env.clone(), lock.clone(), dir, settings.clone(), known) {
            Err(LogError::NotFound { .. }) => create_log(env, lock, dir, settings, stamp),
            opened => Ok(opened?),
        },
    }
}

/// A new log, but not in the place of one that was lost: its base, which a new log has no use for, may then be all that is
/// left of it.
fn create_log(env: &Env, lock: DirLock, dir: &Path, settings: LogSettings, stamp: Option<&Stamp>) -> Result<FileLog> {
    let failed = |source| LogError::Io { action: "look for the log", path: dir.to_path_buf(), source };
    if let Some(stamp) = stamp
        && !env.fs.exists(dir).map_err(failed)?
    {
        let message = format!(
            "the log is missing, but there is a base made from it, path=`{}` log=`{}` position=`{}`; put the log back, or remove the base to begin anew",
            dir.display(),
            stamp.log_id,
            stamp.position
        );
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(FileLog::create(env.clone(), lock, dir, settings)?)
}

/// The base, before the log is opened: what its stamp says is evidence. None where it is named by a log that is yet to be made.
async fn base(builder: &Builder) -> Result<Option<Arc<dyn Backend>>> {
    if let Some(backend) = &builder.backend {
        return Ok(Some(backend.clone()));
    }
    #[cfg(feature = "postgres")]
    if let Some(settings) = &builder.postgres {
        return match LogFiles::identify(&builder.env, &builder.dir.join(LOG_DIR)) {
            Ok(log_id) => base_named(builder, log_id).await.map(Some),
            Err(LogError::NotFound { .. }) => {
                // Before anything is made: a server that is not there.
                settings.try_out().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        };
    }
    default_base(builder).map(Some)
}

/// The base that is named by the log.
#[cfg(feature = "postgres")]
async fn base_named(builder: &Builder, log_id: LogId) -> Result<Arc<dyn Backend>> {
    match &builder.postgres {
        Some(settings) => Ok(Arc::new(PostgresBackend::connect(settings.clone(), &log_id.to_string()).await?)),
        None => default_base(builder),
    }
}

/// The base that is named by the log: no kind that this build has is.
#[cfg(not(feature = "postgres"))]
async fn base_named(builder: &Builder, _log_id: LogId) -> Result<Arc<dyn Backend>> {
    default_base(builder)
}

fn default_base(builder: &Builder) -> Result<Arc<dyn Backend>> {
    base_in(&builder.env, &builder.dir.join(BASE_DIR), builder.settings.cache_bytes)
}

/// A base in a directory, which is made when absent; in memory without an embedded one.
#[cfg(feature = "sled")]
pub(crate) fn base_in(env: &Env, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Backend>> {
    use crate::backends::{SledBackend, SledSettings};
    Ok(Arc::new(SledBackend::open(env.clone(), dir, SledSettings { cache_bytes })?))
}

/// A base in a directory, which is made when absent; in memory without an embedded one.
#[cfg(not(feature = "sled"))]
pub(crate) fn base_in(_env: &Env, _dir: &Path, _cache_bytes: u64) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(crate::backends::MemoryBackend::new()))
}

/// The base's stamp, or none where the base cannot be trusted: it is then dropped and rebuilt.
async fn sound_stamp(base: &dyn Backend) -> Result<Option<Stamp>> {
    match base.stamp().await {
        Ok(stamp) => Ok(stamp.filter(|stamp| stamp.format == Stamp::FORMAT)),
        Err(error @ (BackendError::Corrupt { .. } | BackendError::OtherFormat { .. })) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the base cannot be read; it is rebuilt");
            Ok(None)
        }
        Err(error) => Err(Error::from(error)),
    }
}

/// Whether the stamp is of this log's history and of indexes that this version knows.
fn trusted(log: &FileLog, stamp: &Stamp, builder: &Builder) -> Result<bool> {
    if stamp.log_id != log.id() || stamp.position < log.floor() {
        return Ok(false);
    }
    if stamp.redaction < log.redaction() {
        tracing::info!("the base holds what was redacted since; it is rebuilt");
        return Ok(false);
    }
    if !indexing::all_known(&builder.indexes, &stamp.projections) {
        return Ok(false);
    }
    if builder.settings.history && stamp.history.is_none_or(|begins| begins > log.floor()) {
        tracing::info!("the base keeps no history; it is rebuilt with one");
        return Ok(false);
    }
    Ok(stamp.position > Position::ZERO && log.head_at(stamp.position)?.chain == stamp.chain)
}

/// Whether a transaction above `from` restores a range.
fn restores_follow(log: &FileLog, from: Position) -> Result<bool> {
    if from >= log.head().position {
        return Ok(false);
    }
    for frame in log.read(from.next())? {
        let transaction = Transaction::decode(frame?.payload)?;
        if transaction.events.iter().any(|event| matches!(event, Event::RestoreRange { .. })) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Applies every transaction above `from` and publishes the head.
async fn replay(shared: &Arc<Shared>, from: Position) -> Result<()> {
    let head = shared.log.head().position;
    shared.view.pins().publish(from);
    if from == head {
        return Ok(());
    }
    let run_bytes = shared.settings.memtable_soft_bytes / 4;
    for step in decoded_above(&shared.log, &shared.indexes, from, run_bytes)? {
        let (position, payload_bytes) = match step? {
            Step::Run(DecodedRun { last, payload_bytes, run }) => {
                shared.view.layers().active().insert_run(run);
                (last, payload_bytes)
            }
            Step::One(decoded) => {
                let reached = (decoded.position, decoded.payload_bytes);
                apply(&shared.view, &shared.indexes, decoded).await?;
                reached
            }
        };
        shared.log_bytes.fetch_add(payload_bytes as u64, Ordering::Relaxed);
        shared.view.pins().publish(position);
        if shared.view.layers().active().bytes() >= shared.settings.memtable_soft_bytes {
            shared.view.freeze(position);
            match write_frozen(shared, position, None, Pace::Full).await {
                Ok(_) => shared.log_bytes.store(0, Ordering::Relaxed),
                // On a full disk, or without a connection: what fits into memory is served all the same, as it would be had the store
                // been open. The next checkpoint writes it.
                Err(error) if error.kind() == ErrorKind::Unavailable && !memory_is_full(shared) => {
                    tracing::warn!(error = %error.report(), "a checkpoint while opening failed; the store opens without it");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Writers wait at the hard limit, but the last of them may have gone a step above it.
fn memory_is_full(shared: &Shared) -> bool {
    let settings = &shared.settings;
    shared.view.layers().bytes() >= settings.memtable_hard_bytes.saturating_add(settings.memtable_soft_bytes)
}
