//! The base beside the log: where it is, and whether it can be trusted (law 8), without opening the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backends::{Backend, BackendError};
#[cfg(feature = "postgres")]
use crate::backends::{PostgresBackend, PostgresReader, PostgresSettings};
use crate::env::Env;
use crate::log::{DirLock, LogError};
use crate::store::{BASE_DIR, LOCK_FILE, LOG_DIR, Settings, base_in};
use crate::types::{Hash, LogId, Position, Result, Stamp};

/// Entries read at a time.
pub(super) const PAGE_ENTRIES: usize = 512;

/// Where the base of a store rests: the files of a store do not say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum BaseAt {
    /// In the store's directory.
    #[default]
    Directory,
    /// In Postgres, named by the id of the store's log. A role that may only read will do, but for dropping the base.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresSettings>),
}

impl BaseAt {
    /// The directory, or the server, database and schema, as problems name it.
    pub(super) fn place(&self, dir: &Path) -> PathBuf {
        match self {
            BaseAt::Directory => dir.join(BASE_DIR),
            #[cfg(feature = "postgres")]
            BaseAt::Postgres(settings) => settings.place().into(),
        }
    }
}

/// What is wrong with a base. It is a cache: dropping it loses nothing that the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseFault {
    /// Positions that the base has seen and the log does not hold.
    pub missing: Option<(Position, Position)>,
    /// In words.
    pub detail: String,
}

impl BaseFault {
    pub(super) fn new(detail: impl Into<String>) -> BaseFault {
        BaseFault { missing: None, detail: detail.into() }
    }
}

/// Takes the lock of a store. Fails `not_found` where there is none.
pub(super) fn lock(env: &Env, dir: &Path) -> Result<DirLock, LogError> {
    let found = env.fs.exists(&dir.join(LOG_DIR));
    match found {
        Ok(true) => DirLock::take(env, &dir.join(LOCK_FILE)),
        Ok(false) => Err(LogError::NotFound { path: dir.to_path_buf() }),
        Err(source) => Err(LogError::Io { action: "look for the store", path: dir.to_path_buf(), source }),
    }
}

/// The base of a store whose lock is held, to be looked at; `None` when it has none.
#[cfg_attr(
    not(feature = "postgres"),
    expect(unused_variables, reason = "only a server holds the bases of several logs")
)]
pub(super) async fn open(env: &Env, dir: &Path, at: &BaseAt, log_id: LogId) -> Result<Option<Arc<dyn Backend>>> {
    match at {
        BaseAt::Directory => embedded(env, dir),
        #[cfg(feature = "postgres")]
        BaseAt::Postgres(settings) => {
            let reader = PostgresReader::connect((**settings).clone(), &log_id.to_string()).await?;
            Ok(reader.map(|reader| Arc::new(reader) as Arc<dyn Backend>))
        }
    }
}

/// Drops what a base holds, for the next open to fill it again. Nobody looks at it any more.
#[cfg_attr(
    not(feature = "postgres"),
    expect(unused_variables, reason = "only a server holds the bases of several logs")
)]
pub(super) async fn clear(env: &Env, dir: &Path, at: &BaseAt, log_id: LogId) -> Result<()> {
    let base = match at {
        BaseAt::Directory => embedded(env, dir)?,
        #[cfg(feature = "postgres")]
        BaseAt::Postgres(settings) => {
            let base = PostgresBackend::connect((**settings).clone(), &log_id.to_string()).await?;
            Some(Arc::new(base) as Arc<dyn Backend>)
        }
    };
    match base {
        Some(base) => Ok(base.clear().await?),
        None => Ok(()),
    }
}

fn embedded(env: &Env, dir: &Path) -> Result<Option<Arc<dyn Backend>>> {
    let dir = dir.join(BASE_DIR);
    let exists = env.fs.exists(&dir);
    let exists = exists.map_err(|source| LogError::Io { action: "look for the base", path: dir.clone(), source })?;
    Ok(if exists { Some(base_in(env, &dir, Settings::default().cache_bytes)?) } else { None })
}

/// The stamp of a base, or why it has none that can be read. Fails `unavailable` where the disk does.
pub(super) async fn stamp(base: &dyn Backend) -> Result<Result<Option<Stamp>, BaseFault>> {
    match base.stamp().await {
        Ok(Some(stamp)) if stamp.format != Stamp::FORMAT => {
            let detail = format!("it has another format, found=`{}` supported=`{}`", stamp.format, Stamp::FORMAT);
            Ok(Err(BaseFault::new(detail)))
        }
        Ok(stamp) => Ok(Ok(stamp)),
        Err(error) => fault(error).map(Err),
    }
}

/// Whether a stamp is of this log's history; `chain` is the log's chain hash at the stamp's position.
pub(super) fn judge(stamp: &Stamp, log_id: LogId, head: Position, chain: Option<Hash>) -> Option<BaseFault> {
    if stamp.log_id != log_id {
        return Some(BaseFault::new(format!("it is of another log, log=`{}`", stamp.log_id)));
    }
    if stamp.position > head {
        let (first, last) = (head.next(), stamp.position);
        let detail = format!("it has seen transactions that the log does not hold, positions=`{first}..={last}`");
        return Some(BaseFault { missing: Some((first, last)), detail });
    }
    let forked = chain.is_some_and(|chain| chain != stamp.chain);
    forked.then(|| BaseFault::new(format!("it is of another history, position=`{}`", stamp.position)))
}

/// Reads everything; says what of it is damaged.
pub(super) async fn read_all(base: &dyn Backend, at: Position) -> Result<Option<BaseFault>> {
    let mut from = Vec::new();
    loop {
        match base.scan(at, &from, &[], PAGE_ENTRIES).await {
            Ok(page) => match page.next {
                Some(next) => from = next.to_vec(),
                None => return Ok(None),
            },
            Err(error) => return fault(error).map(Some),
        }
    }
}

/// Damage as a finding; any other error comes back.
pub(super) fn fault(error: BackendError) -> Result<BaseFault> {
    match error {
        error @ (BackendError::Corrupt { .. } | BackendError::OtherFormat { .. }) => {
            Ok(BaseFault::new(error.to_string()))
        }
        error => Err(error.into()),
    }
}
