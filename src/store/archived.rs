//! [`Archive`] and [`ArchivedPast`]: the states below the floor, made again from what a trim has archived.
//!
//! A base is filled in a scratch directory from the nearest snapshot, or from nothing, and what follows it in archive and log is
//! replayed into it up to the last state asked for. What reads it is the reader of the live store. What a redaction erased
//! later is known, too: the rest of the log is looked through for that and nothing else.

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::decoded::decode;
use super::diff::{DiffOptions, Differences};
use super::engine::{Parts, Shared};
use super::indexing;
use super::open::{LOCK_FILE, LOG_DIR, base_in};
use super::reader::Reader;
use super::replay::rebuild;
use super::scrub::ScrubReport;
use super::seed::{dump_reader, seed};
use super::settings::Settings;
use crate::dump::DumpSummary;
use crate::env::Env;
use crate::event::{self, Event};
use crate::log::{AttachedLog, DirLock, Frame, Log as _, LogError};
use crate::projection::{IndexSet, redactions};
use crate::types::{At, Error, ErrorKind, Position, Result};

const SCRATCH_PREFIX: &str = "past-";
const SCRATCH_SUFFIX: &str = ".tmp";
/// A name may be swept away by another process before it is locked.
const SCRATCH_ATTEMPTS: usize = 8;
const CACHE_BYTES: u64 = 16 << 20;
const MEMTABLE_BYTES: usize = 32 << 20;

/// A store's log with the archive of what was trimmed from it, attached for reading: beside the process that has the store open,
/// or without one. Takes no lock and changes nothing.
#[derive(Debug)]
pub struct Archive {
    env: Env,
    log: AttachedLog,
}

impl Archive {
    /// Attaches the archive in the directory `archive` to the store in `dir`.
    ///
    /// # Errors
    /// `not_found` when there is no store or no archive; `conflict` when the archive is of another log, or does not reach to where
    /// the log begins: both positions are named; `corrupt`.
    pub fn attach(env: &Env, dir: &Path, archive: &Path) -> Result<Archive> {
        Ok(Archive { env: env.clone(), log: AttachedLog::open(env, &dir.join(LOG_DIR), archive)? })
    }

    /// The oldest state that can be read: where the archive begins, or its first snapshot when it begins above the beginning of
    /// everything.
    ///
    /// # Errors
    /// `conflict` when no state can be made from the archive.
    pub fn oldest(&self) -> Result<Position> {
        Ok(self.log.oldest_state()?)
    }

    /// The floor of the store: from here on it reads by itself, at less cost.
    pub fn store_floor(&self) -> Position {
        self.log.own_floor()
    }

    /// The last state that can be read: the synced position when the archive was attached.
    pub fn head(&self) -> Position {
        self.log.head().position
    }

    /// The position that is meant by a position or a time. A mark is never below the floor of the store, which knows it.
    ///
    /// # Errors
    /// `not_found` below [`Archive::oldest`], `invalid` above [`Archive::head`] and for a mark; `corrupt`.
    pub fn resolve(&self, at: &At) -> Result<Position> {
        let position = match at {
            At::Position(position) => *position,
            At::Time(time) => self.log.position_at(*time)?,
            At::Mark(name) => {
                let message = format!("an archive knows no marks, name=`{}`; ask the store", name.escape_debug());
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        };
        let (floor, head) = (self.log.oldest_state()?, self.head());
        if position < floor {
            return Err(LogError::BelowFloor { position, floor }.into());
        }
        if position > head {
            return Err(LogError::AboveHead { position, head }.into());
        }
        Ok(position)
    }

    /// Makes the states of these positions readable. They take room in a directory of their own in `scratch`, which goes with what
    /// this returns; what a kill leaves there is removed by the next call. `progress` is told how many transactions of how many were read.
    ///
    /// Costs a replay of what lies between the nearest snapshot below the first state and the last one, and one look through the rest
    /// of the log. Memory is bounded, the room is what a base with the history of these states takes. Reads files on the thread that it is polled on.
    ///
    /// # Errors
    /// As [`Archive::resolve`] for both ends; `corrupt` when transactions or the snapshot are damaged; `unavailable` when the
    /// scratch directory has no room, or the log holds what this version does not know.
    pub async fn rebuild(
        mut self,
        scratch: &Path,
        states: RangeInclusive<Position>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<ArchivedPast> {
        let from = self.resolve(&At::Position(*states.start()))?;
        let to = self.resolve(&At::Position(*states.end()))?.max(from);
        let scratch = Scratch::create(&self.env, scratch)?;
        let indexes = IndexSet::built_in();
        let base = base_in(&self.env, &scratch.dir.join("base"), CACHE_BYTES)?;
        let (begins, stamped) = match self.log.snapshot_before(from) {
            Some((dir, snapshot)) => {
                let redaction = Position::ZERO;
                let id = self.log.id();
                let held = seed(&self.env, dir, id, snapshot, &indexes, base.as_ref(), redaction).await?;
                (snapshot.head.position, Some(held))
            }
            None => (Position::ZERO, None),
        };
        self.log.begin_at(begins)?;
        let head = self.head();
        let total = head.0 - begins.0;
        let mut read = 0;
        let frames = self.log.read(begins.next())?.filter_map(|frame| {
            read += 1;
            if read % 1024 == 0 {
                progress(read, total);
            }
            match frame {
                Ok(frame) if frame.position > to => redactions_of(frame).transpose(),
                frame => Some(frame.map_err(Error::from)),
            }
        });
        let view = rebuild(begins, frames, self.log.id(), &indexes, base, MEMTABLE_BYTES, |_| {}).await?;
        let shared = Shared::new(Parts {
            env: self.env.clone(),
            settings: Settings::default(),
            log: Arc::new(self.log),
            view,
            built: indexing::projections(&indexes, stamped.as_deref()),
            indexes,
            log_dir: scratch.dir.clone(),
            scrub: ScrubReport::default(),
            keeps_history: true,
            redaction: Position::ZERO,
        });
        // Else each value that is read would be looked up.
        let any = !redactions(&shared.view).await?.is_empty();
        shared.redactions.store(any, Ordering::Release);
        // Nobody takes commands.
        shared.queue.close();
        Ok(ArchivedPast { shared: Arc::new(shared), states: from..=to, scratch: Some(scratch) })
    }
}

/// What a transaction says of redactions, and nothing else of it.
fn redactions_of(frame: Frame) -> Result<Option<Frame>> {
    let transaction = decode(frame.position, frame.payload.clone())?;
    let mut events = transaction.events;
    events.retain(|event| matches!(event, Event::Redacted { .. }));
    Ok((!events.is_empty()).then(|| Frame { payload: event::encode(&transaction.actor, None, None, &events), ..frame }))
}

/// States of the past, readable as those of a store are ([`Archive::rebuild`]). Dropping it removes what it took in the scratch directory; its
/// readers answer `closed` then.
#[derive(Debug)]
pub struct ArchivedPast {
    shared: Arc<Shared>,
    states: RangeInclusive<Position>,
    scratch: Option<Scratch>,
}

impl ArchivedPast {
    /// A reader of one of the states, the same as [`Store::at`](crate::Store::at) gives. Its histories begin with the nearest snapshot below the
    /// first state: rebuild from [`Archive::oldest`] on for whole ones.
    ///
    /// # Errors
    /// `not_found` below the states rebuilt, `invalid` above them.
    pub fn at(&self, position: Position) -> Result<Reader> {
        let (floor, head) = (*self.states.start(), *self.states.end());
        if position < floor {
            return Err(LogError::BelowFloor { position, floor }.into());
        }
        if position > head {
            return Err(LogError::AboveHead { position, head }.into());
        }
        Ok(Reader::pinned(self.shared.clone(), self.shared.view.pins().pin_at(position)))
    }

    /// What differs between two of the states, as [`Store::diff`](crate::Store::diff).
    ///
    /// # Errors
    /// As [`ArchivedPast::at`] and [`Store::diff`](crate::Store::diff).
    pub fn diff(&self, a: Position, b: Position, options: DiffOptions<'_>) -> Result<Differences> {
        Differences::between(self.at(a)?, self.at(b)?, options)
    }

    /// A dump of one of the states, as [`Store::dump_state`](crate::Store::dump_state).
    ///
    /// # Errors
    /// As [`ArchivedPast::at`] and [`Store::dump_state`](crate::Store::dump_state).
    pub async fn dump_state<W: Write + Send + 'static>(
        &self,
        at: Position,
        out: W,
        name: &str,
        compress: bool,
    ) -> Result<(W, DumpSummary)> {
        dump_reader(&self.at(at)?, out, name, compress).await
    }
}

impl Drop for ArchivedPast {
    fn drop(&mut self) {
        self.shared.view.close();
        // Behind the base, which has its files open.
        self.scratch.take();
    }
}

/// A directory that nobody else uses as long as this lives.
#[derive(Debug)]
struct Scratch {
    env: Env,
    dir: PathBuf,
    _lock: DirLock,
}

impl Scratch {
    fn create(env: &Env, parent: &Path) -> Result<Scratch> {
        let failed = |action: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::from(LogError::Io { action, path, source })
        };
        env.fs.create_dir_all(parent).map_err(failed("create the scratch directory", parent))?;
        Scratch::sweep(env, parent);
        let mut attempt = 0;
        loop {
            let mut random = [0; 8];
            env.entropy.fill(&mut random);
            let dir = parent.join(format!("{SCRATCH_PREFIX}{:016x}{SCRATCH_SUFFIX}", u64::from_le_bytes(random)));
            env.fs.create_dir_all(&dir).map_err(failed("create the scratch directory", &dir))?;
            attempt += 1;
            match DirLock::take(env, &dir.join(LOCK_FILE)) {
                Ok(lock) => return Ok(Scratch { env: env.clone(), dir, _lock: lock }),
                Err(error) => {
                    // Whatever it was: nothing of ours is left behind.
                    let _ = env.fs.remove_dir_all(&dir);
                    let swept = matches!(error, LogError::Locked { .. } | LogError::Io { .. });
                    if attempt == SCRATCH_ATTEMPTS || !swept {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Removes what was left by processes that are no more.
    fn sweep(env: &Env, parent: &Path) {
        let names = env.fs.read_dir(parent).unwrap_or_default();
        let ours = |name: &&String| {
            let digits = name.strip_prefix(SCRATCH_PREFIX).and_then(|rest| rest.strip_suffix(SCRATCH_SUFFIX));
            digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        for dir in names.iter().filter(ours).map(|name| parent.join(name)) {
            if let Ok(_lock) = DirLock::take(env, &dir.join(LOCK_FILE))
                && let Err(error) = env.fs.remove_dir_all(&dir)
            {
                tracing::warn!(%error, dir = %dir.display(), "a scratch directory that nobody uses could not be removed");
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.env.fs.remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "a scratch directory could not be removed");
        }
    }
}
