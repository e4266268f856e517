//! [`salvage`]: all that is readable of a damaged store, as a new store.
//!
//! The new log has an identity of its own and dense positions. Where transactions were lost there is one of the actor `lakelog` in their
//! place, with no events and a reason that names them, so whoever reads the log meets the gap. The source is only read, without its lock,
//! and never asked to open.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::dump::{SnapshotReader, StateEntry};
use crate::env::Env;
use crate::event::{Event, Transaction};
use crate::log::{
    self, DirLock, Draft, FileLog, Frame, FrameSource as _, Head, Log as _, LogCopy, LogError, LogSettings, Piece,
    Proof,
};
use crate::store::{LOCK_FILE, LOG_DIR};
use crate::types::{Digest, Error, ErrorKind, Key, LogId, OWN_PARTITION_BYTE, Position, Result, Salt, Timestamp};

/// Where the new log is made until it is whole.
const MAKING: &str = "log.salvage";
/// Appended at once, and synced at once.
const BATCH_BYTES: usize = 1 << 20;
const SYNC_BYTES: usize = 64 << 20;
/// Entries of a state in one transaction at most.
const STATE_EVENTS: usize = 10_000;
/// Who stands for what was lost.
const ACTOR: &str = "lakelog";

/// What a salvage found, and where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvageReport {
    /// The identity of the damaged log; zeros when nothing of it says.
    pub source: LogId,
    /// The identity of the new log; `None` when nothing was written.
    pub log_id: Option<LogId>,
    /// Transactions that were read.
    pub transactions: u64,
    /// The last position of the new log.
    pub head: Position,
    /// Stretches of positions without a loss, in order.
    pub kept: Vec<KeptRange>,
    /// What was lost, in order.
    pub lost: Vec<LostRange>,
    /// The state that a trimmed log begins at, when its snapshot can be read.
    pub state: Option<KeptState>,
    /// Events of cursors left out: a consumer's place in the old log means nothing in the new one.
    pub cursors: u64,
}

/// Transactions that are in the new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRange {
    /// The first and last position in the damaged log.
    pub old: (Position, Position),
    /// The first and last position in the new one.
    pub new: (Position, Position),
}

/// A state that was taken over without its history, as transactions of the actor `lakelog`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// The position that it was the state of in the damaged log.
    pub at: Position,
    /// The first and last position in the new log.
    pub new: (Position, Position),
    /// How many entries.
    pub entries: u64,
}

/// Transactions that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The first and last position in the damaged log.
    pub old: (Position, Position),
    /// The position of the transaction that stands for them in the new one.
    pub new: Position,
    /// Why.
    pub why: String,
}

/// Reads all that can be read of the store in `dir` and writes it into a new store in `to`, which is absent, empty, or what an interrupted
/// salvage left. Without `to` it only reports what that would give. `progress` is called with segments done and segments in total.
///
/// Marks and restored ranges are brought to the new positions. The source is not changed; its manifest, its base and its opening are
/// not needed.
///
/// # Errors
/// `not_found` without a segment of a log; `conflict` when `to` holds anything else; `unavailable` for a newer format, without room, and
/// where the disk fails.
pub fn salvage(env: &Env, dir: &Path, to: Option<&Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<SalvageReport> {
    let inner = dir.join(LOG_DIR);
    let (copy, log_dir) = match LogCopy::open(env, &inner, None) {
        Err(LogError::NotFound { .. }) => (LogCopy::open(env, dir, None)?, dir),
        opened => (opened?, inner.as_path()),
    };
    let snapshot = copy.witness().and_then(|witness| witness.snapshot);
    // In full before the first entry is taken: half a state is none.
    let snapshot = match snapshot.map(|snapshot| snapshot.verify(env.fs.as_ref(), log_dir).map(|()| snapshot)) {
        Some(Ok(snapshot)) => Some(snapshot),
        Some(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the state at the floor is lost");
            None
        }
        None => None,
    };
    let target = to.map(|to| Target::create(env, to)).transpose()?;
    let mut writer = Writer {
        env,
        log: target.as_ref().map(|target| &target.log),
        report: SalvageReport {
            source: copy.log_id(),
            log_id: target.as_ref().map(|target| target.log.id()),
            transactions: 0,
            head: Position::ZERO,
            kept: Vec::new(),
            lost: Vec::new(),
            state: None,
            cursors: 0,
        },
        time: Timestamp(0),
        batch: Vec::new(),
        bytes: 0,
        unsynced: 0,
    };
    if let Some(snapshot) = &snapshot {
        writer.take_state(SnapshotReader::open(env, log_dir, copy.log_id(), snapshot)?, snapshot.head)?;
    }
    copy.salvage(snapshot.map(|snapshot| snapshot.head), &mut |piece| writer.take(piece), progress)?;
    writer.append()?;
    let report = writer.report;
    if let Some(target) = target {
        target.finish(env)?;
    }
    Ok(report)
}

/// The store in the making.
struct Target {
    dir: PathBuf,
    log: FileLog,
}

impl Target {
    fn create(env: &Env, dir: &Path) -> Result<Target> {
        let fs = env.fs.as_ref();
        let failed = |source| LogError::Io { action: "create the directory", path: dir.to_path_buf(), source };
        if fs.exists(dir).map_err(failed)? {
            let names = fs.read_dir(dir).map_err(failed)?;
            let ours = |name: &String| name == LOCK_FILE || name.starts_with(MAKING);
            if let Some(name) = names.iter().find(|name| !ours(name)) {
                let message = format!("the directory is not empty, path=`{}` found=`{name}`", dir.display());
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        fs.create_dir_all(dir).map_err(failed)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs.sync_dir(parent).map_err(failed)?;
        let lock = DirLock::take(env, &dir.join(LOCK_FILE))?;
        let making = dir.join(MAKING);
        fs.remove_dir_all(&making).map_err(failed)?;
        let log = FileLog::create(env.clone(), lock, &making, LogSettings::default())?;
        Ok(Target { dir: dir.to_path_buf(), log })
    }

    /// Only a whole log gets the name of one.
    fn finish(self, env: &Env) -> Result<()> {
        log::Log::close(&self.log)?;
        let path = self.dir.join(LOG_DIR);
        let renamed = env.fs.rename(&self.dir.join(MAKING), &path).and_then(|()| env.fs.sync_dir(&self.dir));
        Ok(renamed.map_err(|source| LogError::Io { action: "rename the new log", path, source })?)
    }
}

/// Brings pieces into the new log, or only counts them.
struct Writer<'a> {
    env: &'a Env,
    log: Option<&'a FileLog>,
    report: SalvageReport,
    time: Timestamp,
    batch: Vec<Draft>,
    bytes: usize,
    unsynced: usize,
}

impl Writer<'_> {
    /// The entries of a state as writes; what the store itself keeps is derived or has no meaning in another log.
    fn take_state(&mut self, mut reader: SnapshotReader, head: Head) -> Result<()> {
        let reason =
            format!("the state at position {} of log {}, from its snapshot", head.position, self.report.source);
        let first = self.report.head.next();
        let (mut events, mut bytes, mut entries) = (Vec::new(), 0, 0);
        self.time = head.time;
        loop {
            let entry = reader.entry()?;
            let ended = entry.is_none();
            if let Some(StateEntry { key: encoded, value, .. }) = entry
                && let (Some(partition), Some(start)) = (Key::partition_of(&encoded), Key::key_start(&encoded))
                && partition.first() != Some(&OWN_PARTITION_BYTE)
            {
                entries += 1;
                bytes += encoded.len() + value.len();
                let (partition, key) = (Bytes::from(partition), encoded.slice(start..));
                events.push(Event::Set { partition, key, value });
            }
            if bytes >= BATCH_BYTES || events.len() >= STATE_EVENTS || (ended && (entries == 0 || !events.is_empty())) {
                let events = std::mem::take(&mut events);
                let actor = ACTOR.to_owned();
                let part = Transaction { actor, reason: Some(reason.clone()), events, ..Transaction::default() };
                let draft = self.draft(head.time, part.encode());
                self.push(draft)?;
                bytes = 0;
            }
            if ended {
                self.report.state = Some(KeptState { at: head.position, new: (first, self.report.head), entries });
                return Ok(());
            }
        }
    }

    fn take(&mut self, piece: Piece) -> Result<(), LogError> {
        match piece {
            Piece::Lost { first, last, why } => self.lose(first, last, why),
            Piece::Frame(frame) => match Transaction::decode(frame.payload.clone()) {
                Ok(transaction) => self.keep(frame, transaction),
                // A store with it would not open.
                Err(error) => self.lose(frame.position, frame.position, &format!("it does not decode: {error}")),
            },
        }
    }

    fn keep(&mut self, frame: Frame, mut transaction: Transaction) -> Result<(), LogError> {
        let changed = self.translate(&mut transaction);
        let Frame { position, time, proof, payload, .. } = frame;
        let payload = if changed { transaction.encode() } else { payload };
        let draft = match proof {
            Proof::Salted(salt) if !changed => {
                Draft { time: self.time.max(time), salt, digest: Digest::of(&salt, &payload), payload }
            }
            _ => self.draft(time, payload),
        };
        self.push(draft)?;
        let new = self.report.head;
        self.report.transactions += 1;
        match self.report.kept.last_mut() {
            Some(range) if range.old.1.next() == position && range.new.1.next() == new => {
                (range.old.1, range.new.1) = (position, new);
            }
            _ => self.report.kept.push(KeptRange { old: (position, position), new: (new, new) }),
        }
        Ok(())
    }

    fn lose(&mut self, first: Position, last: Position, why: &str) -> Result<(), LogError> {
        let reason = format!("transactions {first}..={last} of log {} were lost: {why}", self.report.source);
        tracing::warn!(%first, %last, why, "lost");
        let lost = Transaction { actor: ACTOR.to_owned(), reason: Some(reason), ..Transaction::default() };
        let draft = self.draft(self.time, lost.encode());
        self.push(draft)?;
        self.report.lost.push(LostRange { old: (first, last), new: self.report.head, why: why.to_owned() });
        Ok(())
    }

    /// Positions that events name, as they are in the new log. Whether anything changed.
    fn translate(&mut self, transaction: &mut Transaction) -> bool {
        let before = transaction.events.len();
        let mut changed = false;
        // A cursor carries a chain hash of the old log: its consumer has to begin anew.
        transaction.events.retain(|event| !matches!(event, Event::CursorSet { .. } | Event::CursorDeleted { .. }));
        self.report.cursors += (before - transaction.events.len()) as u64;
        for event in &mut transaction.events {
            let named = match event {
                Event::MarkSet { position, .. } => position,
                Event::RestoreRange { as_of, .. } => as_of,
                Event::Redacted { transactions } => {
                    let kept = |position: Position| self.report.lost.iter().all(|lost| !within(lost.old, position));
                    let count = transactions.len();
                    transactions.retain(|left| kept(left.position));
                    changed |= transactions.len() != count;
                    for left in transactions {
                        let new = self.report.place(left.position);
                        if self.report.state.is_some_and(|state| left.position <= state.at) {
                            // What is left of it there is not what the old log left.
                            changed |= left.digest != Digest::default();
                            left.digest = Digest::default();
                        }
                        changed |= new != left.position;
                        left.position = new;
                    }
                    continue;
                }
                _ => continue,
            };
            let new = self.report.place(*named);
            changed |= new != *named;
            *named = new;
        }
        changed || transaction.events.len() != before
    }

    /// Under a new salt.
    fn draft(&self, time: Timestamp, payload: Bytes) -> Draft {
        let mut salt = Salt::default();
        self.env.entropy.fill(&mut salt.0);
        Draft { time: self.time.max(time), salt, digest: Digest::of(&salt, &payload), payload }
    }

    fn push(&mut self, draft: Draft) -> Result<(), LogError> {
        self.time = draft.time;
        self.report.head = self.report.head.next();
        if self.log.is_none() {
            return Ok(());
        }
        self.bytes += draft.payload.len() + 128;
        self.batch.push(draft);
        if self.bytes >= BATCH_BYTES { self.append() } else { Ok(()) }
    }

    fn append(&mut self) -> Result<(), LogError> {
        let Some(log) = self.log else { return Ok(()) };
        log.append(log.head().position, &std::mem::take(&mut self.batch))?;
        self.unsynced += std::mem::take(&mut self.bytes);
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            log.sync()?;
        }
        Ok(())
    }
}

fn within((first, last): (Position, Position), position: Position) -> bool {
    (first..=last).contains(&position)
}

impl SalvageReport {
    /// The position in the new log of one in the old: of what stands for it, where it was lost. Positions above those seen so far stay.
    pub fn place(&self, old: Position) -> Position {
        if let Some(state) = self.state.filter(|state| old <= state.at) {
            return if old == Position::ZERO { old } else { state.new.1 };
        }
        let kept = self.kept.partition_point(|range| range.old.1 < old);
        if let Some(range) = self.kept.get(kept).filter(|range| within(range.old, old)) {
            return Position(range.new.0.0 + (old.0 - range.old.0.0));
        }
        let lost = self.lost.partition_point(|range| range.old.1 < old);
        self.lost.get(lost).filter(|range| within(range.old, old)).map_or(old, |range| range.new)
    }
}
