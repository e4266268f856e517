//! [`LogFiles`]: reading a log's files beside the process that writes them, or after it.
//!
//! Takes no lock and changes nothing. Shows promised positions only: what lies behind the promise may be half
//! written at any moment, so it is looked at again with the next [`LogFiles::refresh`], never judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::format::{self, FRAMES_AT, FrameKind};
use super::manifest::{self, Loaded, Manifest, SegmentEntry};
use super::segment::SegmentId;
use super::stream::{self, Check, FrameStream, MILESTONE_BYTES, Source};
use super::window::{SegmentReader, Slot};
use super::{Head, LogError, Proof, Snapshot, archive, recovery};
use crate::env::{Env, OpenMode};
use crate::types::{LogId, Position, Timestamp};

/// Looks at a log whose manifest is damaged before what is missing counts as lost.
const LOOKS_MAX: usize = 3;

/// A log's files, open for reading.
#[derive(Debug)]
pub struct LogFiles {
    source: Source,
    dir: PathBuf,
    archive: Option<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// With an archive: begun with what lies there.
    manifest: Arc<Manifest>,
    /// The first segment of the log itself.
    own: SegmentId,
    /// The last whole frame that was passed, and where the next one begins in the active segment.
    last: Head,
    next_at: u64,
    promise: Position,
}

impl LogFiles {
    /// Opens the log in `dir` for reading.
    ///
    /// Errors: `NotFound`, `NewerFormat`, `Corrupt` when the manifest or the active segment's header is damaged, or the log's end is
    /// missing; `Io`.
    pub fn open(env: &Env, dir: &Path) -> Result<LogFiles, LogError> {
        LogFiles::open_in(env, dir, None)
    }

    /// The same with what was archived by trims: positions below the floor are read from the directory `archive`, and
    /// the floor is where the archive begins.
    ///
    /// Errors: as [`LogFiles::open`]; `NoArchive`; `OtherArchive` when it is not of this log, or does not reach to where the log
    /// begins.
    pub fn open_with_archive(env: &Env, dir: &Path, archive: &Path) -> Result<LogFiles, LogError> {
        LogFiles::open_in(env, dir, Some(archive.to_path_buf()))
    }

    fn open_in(env: &Env, dir: &Path, archive: Option<PathBuf>) -> Result<LogFiles, LogError> {
        let source = Source::new(env.fs.clone(), dir);
        let loaded = manifest::load(env.fs.as_ref(), dir)?;
        let manifest = match loaded.other_sound {
            true => loaded.manifest,
            false => with_unlisted(env, dir, loaded)?,
        };
        let seen = Seen::new(manifest, &source, archive.as_deref(), Position::ZERO)?;
        let files = LogFiles { source, dir: dir.to_path_buf(), archive, seen: Mutex::new(seen) };
        files.refresh()?;
        Ok(files)
    }

    /// The identity of the log in `dir`, which its manifest alone tells.
    ///
    /// Errors: `NotFound`, `NewerFormat`, `Corrupt` when the manifest is damaged, `Io`.
    pub fn identify(env: &Env, dir: &Path) -> Result<LogId, LogError> {
        Ok(manifest::load(env.fs.as_ref(), dir)?.manifest.log_id)
    }

    /// The snapshots that the manifest of the log in `dir` lists, that of the floor first.
    ///
    /// Errors: as [`LogFiles::identify`].
    pub fn listed_snapshots(env: &Env, dir: &Path) -> Result<Vec<Snapshot>, LogError> {
        let manifest = manifest::load(env.fs.as_ref(), dir)?.manifest;
        Ok(manifest.snapshot.into_iter().chain(manifest.former).collect())
    }

    /// The identity of the log.
    pub fn id(&self) -> LogId {
        self.seen.lock().manifest.log_id
    }

    /// When the log was created.
    pub fn created(&self) -> Timestamp {
        self.seen.lock().manifest.created
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn source_of(&self, seen: &Seen) -> Source {
        Source { archive: self.archive.clone().map(|archive| (archive, seen.own)), ..self.source.clone() }
    }

    /// Looks for what was promised since, and gives the promised position. It never goes back.
    ///
    /// Errors: `Corrupt`, `Io`.
    pub fn refresh(&self) -> Result<Position, LogError> {
        let mut seen = self.seen.lock();
        let manifest = manifest::load(self.source.fs.as_ref(), &self.dir)?.manifest;
        // An older one is what is left of a slot that is being written or is damaged: what was seen stays seen.
        // What an archive lists changes without the log.
        let again = self.archive.is_some() && manifest.generation == seen.manifest.generation;
        if manifest.generation > seen.manifest.generation || again {
            let same_active = manifest.active() == seen.manifest.active();
            let fresh = Seen::new(manifest, &self.source, self.archive.as_deref(), seen.promise)?;
            match same_active {
                true => (seen.manifest, seen.own) = (fresh.manifest, fresh.own),
                false => *seen = fresh,
            }
        }
        let index = seen.manifest.segments.len() - 1;
        let (entry, before) = (*seen.manifest.active(), seen.manifest.before(index));
        let (file, _) =
            self.source.open(seen.manifest.log_id, &entry, before, OpenMode::Read, seen.promise.max(entry.first))?;
        let mut reader = SegmentReader::new(file, entry.path(&self.dir), entry.tag)?;
        seen.promise = seen.promise.max(seen.manifest.promise);
        let mut noted = seen.next_at;
        while let Slot::Frame(frame) = reader.slot(seen.next_at)? {
            seen.promise = seen.promise.max(frame.header.promise);
            // A mark may be overwritten, and after a seal only a new manifest leads on.
            if frame.header.kind != FrameKind::Transaction || frame.header.position != seen.last.position.next() {
                break;
            }
            if seen.next_at >= noted + MILESTONE_BYTES {
                noted = seen.next_at;
                self.source.milestones.pass((entry.id, entry.revision), frame.header.position, noted);
            }
            (seen.last, seen.next_at) = (frame.head(), frame.header.end());
        }
        Ok(seen.promise)
    }

    /// The promised state, as of the last refresh.
    ///
    /// Errors: `Corrupt`, `Io`; `AboveHead` when what was promised is missing.
    pub fn head(&self) -> Result<Head, LogError> {
        let seen = self.seen.lock().clone();
        if seen.last.position == seen.promise {
            return Ok(seen.last);
        }
        stream::head_at(&self.source_of(&seen), &seen.manifest, seen.promise, seen.promise)
    }

    /// The promised position, as of the last refresh.
    pub fn synced(&self) -> Position {
        self.seen.lock().promise
    }

    /// The oldest readable state.
    pub fn floor(&self) -> Head {
        self.seen.lock().manifest.floor
    }

    /// The snapshot of the state at the floor, unless that is the beginning of everything. It lies in [`LogFiles::floor_dir`]; an
    /// archive that begins above the beginning of everything may have none.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.seen.lock().manifest.snapshot
    }

    /// The last redaction of which everything is done.
    pub fn redaction(&self) -> Position {
        self.seen.lock().manifest.redaction
    }

    /// The directory that the log begins in: its archive, or its own.
    pub fn floor_dir(&self) -> &Path {
        self.archive.as_deref().unwrap_or(&self.dir)
    }

    /// The segments, the active one last.
    pub fn segments(&self) -> Vec<SegmentEntry> {
        self.seen.lock().manifest.segments.clone()
    }

    /// Bytes of the segments up to the last transaction, archived ones too, as of the last refresh; preallocated room not counted.
    pub fn bytes(&self) -> u64 {
        let seen = self.seen.lock();
        let sealed: u64 = seen.manifest.segments.iter().rev().skip(1).map(|entry| entry.end).sum();
        sealed + seen.next_at
    }

    /// Bytes of the transactions after a position, headers of segments that begin after it included, as of the last refresh.
    /// Reads one segment where the position lies inside of it.
    ///
    /// Errors: `BelowFloor`, `AboveHead`, `Corrupt`, `Io`.
    pub fn bytes_after(&self, position: Position) -> Result<u64, LogError> {
        let seen = self.seen.lock().clone();
        let mut bytes = 0;
        for (index, entry) in seen.manifest.segments.iter().enumerate() {
            let active = index + 1 == seen.manifest.segments.len();
            let (last, end) = if active { (seen.promise, seen.next_at) } else { (entry.last, entry.end) };
            if position < entry.first {
                bytes += end;
            } else if position < last {
                let (source, manifest) = (self.source.clone(), seen.manifest.clone());
                for frame in FrameStream::new(source, manifest, position.next(), last, Check::Order)? {
                    let frame = frame?;
                    let proof = match frame.proof {
                        Proof::Salted(salt) => salt.0.len(),
                        Proof::Erased(digest) => digest.0.len(),
                    };
                    bytes += format::frame_bytes(proof + frame.payload.len());
                }
            }
        }
        Ok(bytes)
    }

    /// Transactions from `from` to the promised position.
    ///
    /// Errors: `BelowFloor`, `AboveHead`; `Corrupt` from the iterator.
    pub fn frames(&self, from: Position, check: Check) -> Result<FrameStream, LogError> {
        let seen = self.seen.lock().clone();
        FrameStream::new(self.source_of(&seen), seen.manifest, from, seen.promise, check)
    }

    /// The state at a position from the floor to the promised one.
    ///
    /// Errors: `BelowFloor`, `AboveHead`, `Corrupt`, `Io`.
    pub fn head_at(&self, position: Position) -> Result<Head, LogError> {
        let seen = self.seen.lock().clone();
        stream::head_at(&self.source_of(&seen), &seen.manifest, seen.promise, position)
    }

    /// The last promised transaction whose recorded time is not after `time`, or the floor.
    ///
    /// Errors: `BelowFloor` when that was trimmed, `Corrupt`, `Io`.
    pub fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        let seen = self.seen.lock().clone();
        stream::position_at(&self.source_of(&seen), &seen.manifest, seen.promise, time)
    }
}

/// The manifest, and the segments that the newest one would list: where a slot is damaged it is perhaps that of the newest, and who
/// went by the other one would take an older state for all that there is.
///
/// Errors: `Corrupt` when a segment should follow and does not; as [`manifest::load`].
fn with_unlisted(env: &Env, dir: &Path, mut loaded: Loaded) -> Result<Manifest, LogError> {
    let mut missing = None;
    for _ in 0..LOOKS_MAX {
        let listed = loaded.manifest.clone();
        let plan = recovery::plan_from(env, dir, None, loaded)?;
        let Some(problem) = plan.problems().first() else { return Ok(plan.manifest) };
        if problem.path != plan.manifest.active().id.next().path(0, dir) {
            // Where it is met it will be said.
            return Ok(listed);
        }
        missing = Some(problem.to_error());
        // A writer beside may be at work on the files.
        loaded = manifest::load(env.fs.as_ref(), dir)?;
        if loaded.other_sound {
            return Ok(loaded.manifest);
        }
    }
    missing.map_or(Ok(loaded.manifest), Err)
}

impl Seen {
    fn new(manifest: Manifest, source: &Source, archive: Option<&Path>, promise: Position) -> Result<Seen, LogError> {
        let own = manifest.segments.first().map_or(SegmentId(0), |entry| entry.id);
        let manifest = match archive {
            Some(archive) => archive::attach(source.fs.as_ref(), archive, manifest)?,
            None => manifest,
        };
        let last = manifest.before(manifest.segments.len() - 1);
        Ok(Seen { manifest: Arc::new(manifest), own, last, next_at: FRAMES_AT, promise })
    }
}
