//! [`FileLog`]: the log of the one writing process.
//!
//! Keeps law 6 (a failed write or sync of a segment or manifest in use latches) and the order of
//! promises: frames are written, synced, and only then a mark says so. Starts no thread: whoever owns the
//! log calls [`Log::append`], [`Log::sync`] and [`FileLog::prepare_spare`] from threads of its own, or in
//! turn from a simulation.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::append::Item;
use super::apply::Recovered;
use super::archive::Archived;
use super::error::IoAt as _;
use super::format::{FrameHeader, FrameKind, MARK_BYTES};
use super::manifest::{self, Manifest, SegmentEntry};
use super::recovery::{self, Plan};
use super::redact::Erase;
use super::segment::{MISSING, SegmentId, Spare};
use super::settings::LogSettings;
use super::snapshot::Snapshot;
use super::stream::{self, Check, FrameStream, Milestones, Source};
use super::trim::Removable;
use super::{DirLock, Draft, Frames, Head, Log, LogError};
use crate::env::{Env, File, FileExt as _};
use crate::types::{Digest, LogId, Position, Timestamp};

/// A log in files, open for writing.
#[derive(Debug)]
pub struct FileLog {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) settings: LogSettings,
    pub(super) id: LogId,
    /// Nobody sees it before it was closed, so its segments are not zeroed before they are written.
    pub(super) unseen: bool,
    /// Held by appends, syncs, rotation and trim; never by readers.
    pub(super) writer: Mutex<Writer>,
    /// What readers and other threads see; held for a few instructions only.
    pub(super) view: Mutex<View>,
    pub(super) synced: watch::Sender<Position>,
    /// The spare segment when one is ready. Held while one is filled, so that a rotation in the
    /// meantime waits for that instead of filling a second one.
    pub(super) spare: Mutex<Option<Spare>>,
    pub(super) milestones: Arc<Milestones>,
    /// Held until the log is closed or dropped.
    lock: Mutex<Option<DirLock>>,
}

#[derive(Clone, Debug)]
pub(super) struct View {
    pub head: Head,
    pub synced: Head,
    pub manifest: Arc<Manifest>,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    pub id: SegmentId,
    pub tag: u64,
    pub size: u64,
    /// Where the next frame goes. A mark may lie there now.
    pub end: u64,
    /// Recorded time of the first transaction in the segment.
    pub first_time: Option<Timestamp>,
    /// The manifest slot that was written last.
    pub slot: usize,
    pub buffer: Vec<u8>,
    pub state: State,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Open,
    Latched { cause: String },
    Closed,
}

impl FileLog {
    /// Opens a log for writing: plans the recovery, and carries it out when no damage stands against it.
    /// `known` is what derived state was stamped with: the log of that id must reach that position.
    ///
    /// Errors: `NotFound`, `NewerFormat`, `Corrupt`, `NoSpace`, `InvalidSetting`, `Io`.
    pub fn open(
        env: Env,
        lock: DirLock,
        dir: &Path,
        settings: LogSettings,
        known: Option<(LogId, Position)>,
    ) -> Result<FileLog, LogError> {
        settings.check()?;
        let plan = recovery::plan(&env, dir, known)?;
        FileLog::open_planned(env, lock, plan, settings)
    }

    /// Carries out a plan made under the same lock, and opens the log.
    ///
    /// Errors: as [`FileLog::open`]; the first problem of the plan, when it has one, with nothing changed.
    pub fn open_planned(env: Env, lock: DirLock, plan: Plan, settings: LogSettings) -> Result<FileLog, LogError> {
        settings.check()?;
        let recovered = plan.apply(&env, &settings)?;
        // Never needed; that it could not be removed costs room, nothing else.
        let _ = env.fs.remove_file(&Snapshot::unfinished(&recovered.dir));
        Ok(FileLog::over(env, lock, settings, recovered))
    }

    /// Over files that are as a recovery leaves them.
    pub(super) fn over(env: Env, lock: DirLock, settings: LogSettings, recovered: Recovered) -> FileLog {
        let active = *recovered.manifest.active();
        FileLog {
            id: recovered.manifest.log_id,
            unseen: false,
            writer: Mutex::new(Writer {
                file: recovered.file,
                path: active.path(&recovered.dir),
                id: active.id,
                tag: active.tag,
                size: recovered.size,
                end: recovered.end,
                first_time: recovered.first_time,
                slot: recovered.slot,
                buffer: Vec::new(),
                state: State::Open,
            }),
            synced: watch::Sender::new(recovered.head.position),
            view: Mutex::new(View {
                head: recovered.head,
                synced: recovered.head,
                manifest: Arc::new(recovered.manifest),
            }),
            dir: recovered.dir,
            env,
            settings,
            spare: Mutex::new(None),
            milestones: Arc::new(Milestones::default()),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// The state at the synced position.
    pub fn synced(&self) -> Head {
        self.view.lock().synced
    }

    /// The segments, the active one last.
    pub fn segments(&self) -> Vec<SegmentEntry> {
        self.view.lock().manifest.segments.clone()
    }

    /// As [`Log::read`], proving as much as `check` says.
    pub fn read_checked(&self, from: Position, check: Check) -> Result<FrameStream, LogError> {
        let view = self.view.lock().clone();
        FrameStream::new(self.source(), view.manifest, from, view.synced.position, check)
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn forget_places_below(&self, id: SegmentId) {
        self.milestones.trim(id);
    }

    pub(super) fn source(&self) -> Source {
        Source { milestones: self.milestones.clone(), ..Source::new(self.env.fs.clone(), &self.dir) }
    }

    /// Writes the older slot and shows the manifest to readers; latches when that fails.
    pub(super) fn store_manifest(&self, writer: &mut Writer, manifest: Manifest) -> Result<(), LogError> {
        let slot = 1 - writer.slot;
        if let Err(error) = manifest::store(self.env.fs.as_ref(), &self.dir, slot, &manifest) {
            let View { head, synced, .. } = self.view.lock().clone();
            return Err(writer.latch(io_of(error), synced.position.next(), head.position));
        }
        writer.slot = slot;
        self.view.lock().manifest = Arc::new(manifest);
        Ok(())
    }

    /// The promise of everything synced, durable in two places.
    fn leave_marks(&self, writer: &mut Writer) -> Result<(), LogError> {
        writer.check()?;
        let View { synced, manifest, .. } = self.view.lock().clone();
        let marked = self.write_mark(writer, synced).and_then(|()| writer.file.sync_data());
        marked.map_err(|error| writer.latch(error, synced.position, synced.position))?;
        // A second witness far from the first: one lost block at the tail cannot take both.
        if manifest.promise < synced.position {
            let promised = Manifest {
                generation: manifest.generation + 1,
                promise: synced.position,
                ..Manifest::clone(&manifest)
            };
            self.store_manifest(writer, promised)?;
        }
        Ok(())
    }

    /// A mark at the end of the frames, not synced by itself.
    fn write_mark(&self, writer: &Writer, synced: Head) -> io::Result<()> {
        let mut mark = Vec::with_capacity(MARK_BYTES as usize);
        writer.header(FrameKind::Mark, 0, &synced, synced.position, writer.end).encode(&[], &mut mark);
        writer.file.write_all_at(&mark, writer.end)
    }
}

impl Writer {
    pub(super) fn check(&self) -> Result<(), LogError> {
        match &self.state {
            State::Open => Ok(()),
            State::Latched { cause } => Err(LogError::Latched { cause: cause.clone() }),
            State::Closed => Err(LogError::Closed),
        }
    }

    /// Law 6: no more writes. The error names what may or may not be durable.
    pub fn latch(&mut self, source: io::Error, first: Position, last: Position) -> LogError {
        self.state = State::Latched { cause: source.to_string() };
        LogError::DurabilityUnknown { first: first.min(last), last, source }
    }

    pub fn header(&self, kind: FrameKind, body_len: usize, at: &Head, promise: Position, offset: u64) -> FrameHeader {
        FrameHeader {
            kind,
            erased: false,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            position: at.position,
            time: at.time,
            promise,
            offset,
            tag: self.tag,
            chain: at.chain,
        }
    }
}

impl FileLog {
    /// Latches when the active segment is no longer where it was: whoever removed or moved the directory under an open store
    /// is not to be told of changes as durable that nobody will find.
    fn check_present(&self) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let here = self.env.fs.exists(&writer.path).at("look for the segment", &writer.path)?;
        if !here {
            let View { head, synced, .. } = self.view.lock().clone();
            let gone = io::Error::new(io::ErrorKind::NotFound, format!("{MISSING}, path=`{}`", writer.path.display()));
            return Err(writer.latch(gone, synced.position.next(), head.position));
        }
        Ok(())
    }
}

impl Log for FileLog {
    fn upkeep(&self) -> Result<(), LogError> {
        self.check_present()?;
        self.prepare_spare()
    }

    fn close(&self) -> Result<(), LogError> {
        // Before the sync, which then covers it.
        let settled = if self.unseen { self.settle(&mut self.writer.lock()) } else { Ok(()) };
        let synced = settled.and_then(|()| self.sync());
        let mut writer = self.writer.lock();
        let closed = synced.map(|_| {
            // Everything is durable already. What cannot be marked has fewer witnesses, nothing else.
            if let Err(error) = self.leave_marks(&mut writer) {
                tracing::warn!(error = &error as &dyn std::error::Error, "the log was closed without its last marks");
            }
        });
        // Nothing is written any more, latched or not: the next opener recovers.
        writer.state = State::Closed;
        *self.lock.lock() = None;
        closed
    }

    fn id(&self) -> LogId {
        self.id
    }

    fn created(&self) -> Timestamp {
        self.view.lock().manifest.created
    }

    fn head(&self) -> Head {
        self.view.lock().head
    }

    fn head_at(&self, position: Position) -> Result<Head, LogError> {
        let view = self.view.lock().clone();
        if position == view.synced.position {
            return Ok(view.synced);
        }
        stream::head_at(&self.source(), &view.manifest, view.synced.position, position)
    }

    fn append(&self, expected: Position, batch: &[Draft]) -> Result<Head, LogError> {
        debug_assert!(batch.iter().all(|draft| draft.digest == Digest::of(&draft.salt, &draft.payload)));
        self.append_items(expected, batch.iter().map(Item::of_draft))
    }

    fn sync(&self) -> Result<Position, LogError> {
        let started = Instant::now();
        let mut writer = self.writer.lock();
        writer.check()?;
        let View { head, synced, .. } = self.view.lock().clone();
        if head == synced {
            return Ok(synced.position);
        }
        let done = writer.file.sync_data().and_then(|()| self.write_mark(&writer, head));
        done.map_err(|error| writer.latch(error, synced.position.next(), head.position))?;
        self.view.lock().synced = head;
        self.synced.send_replace(head.position);
        metrics::histogram!("lakelog_sync_seconds").record(started.elapsed());
        tracing::trace!(synced = %head.position, "sync");
        Ok(head.position)
    }

    fn read(&self, from: Position) -> Result<Frames<'_>, LogError> {
        Ok(Box::new(self.read_checked(from, Check::Order)?))
    }

    fn follow(&self) -> watch::Receiver<Position> {
        self.synced.subscribe()
    }

    fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        let view = self.view.lock().clone();
        stream::position_at(&self.source(), &view.manifest, view.synced.position, time)
    }

    fn floor(&self) -> Position {
        self.view.lock().manifest.floor.position
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.view.lock().manifest.snapshot
    }

    fn removable(&self, keep: Position) -> Result<Removable, LogError> {
        let manifest = self.view.lock().manifest.clone();
        let (segments, snapshots) = manifest.removable(keep);
        self.measure(segments, &snapshots)
    }

    fn floor_above(&self, bytes: u64) -> Position {
        self.floor_with_above(bytes)
    }

    fn former(&self) -> Option<Snapshot> {
        self.view.lock().manifest.former
    }

    fn read_stored(&self, archive: Option<&Path>) -> Result<Frames<'_>, LogError> {
        self.stored(archive)
    }

    fn redact(
        &self,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
        snapshots: &[Snapshot],
    ) -> Result<(), LogError> {
        self.redact_frames(positions, erase, snapshots)
    }

    fn redact_archive(
        &self,
        dir: &Path,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
        snapshots: &[Snapshot],
        redaction: Position,
    ) -> Result<(), LogError> {
        self.redact_archived(dir, positions, erase, snapshots, redaction)
    }

    fn archived(&self, dir: &Path) -> Result<Archived, LogError> {
        self.archived_in(dir)
    }

    fn begins(&self) -> Position {
        self.view.lock().manifest.start.position
    }

    fn redaction(&self) -> Position {
        self.view.lock().manifest.redaction
    }

    fn complete_redaction(&self, redaction: Position) -> Result<(), LogError> {
        self.note_redaction(redaction)
    }

    fn archive(&self, dir: &Path, keep: Position) -> Result<Removable, LogError> {
        self.archive_to(dir, keep)
    }

    fn trim(&self, snapshot: Snapshot, keep: Position) -> Result<(), LogError> {
        self.trim_to(snapshot, keep)
    }
}

/// The failed access under an error of the log; keeps the words of every other error.
pub(super) fn io_of(error: LogError) -> io::Error {
    match error {
        LogError::Io { action, path, source } => {
            io::Error::new(source.kind(), format!("{action} failed, path=`{}`: {source}", path.display()))
        }
        other => io::Error::other(other),
    }
}
