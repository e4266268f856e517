//! [`FrameSource`]: another copy of a log's transactions; and [`LogCopy`], one made of segment files.
//!
//! A copy is believed nothing: each transaction that it gives follows, by its chain hash, the state that was asked for.
//! Whether that state leads to what the damaged log demands is judged by the repair.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind};
use super::manifest;
use super::segment::{self, MISSING, SegmentId};
use super::snapshot::Snapshot;
use super::walk::next_whole;
use super::window::{RawFrame, SegmentReader, Slot};
use super::{Frame, Head, LogError};
use crate::env::{Env, Fs, OpenMode};
use crate::types::{LogId, Position, Timestamp};

/// Transactions of a log from somewhere else: a directory of segments, a dump.
pub trait FrameSource: Debug + Send {
    /// The transaction that follows `before`: position, time, digest and chain hash prove it. `None` when the copy has none.
    /// Asked for in rising order, as a rule, and from the beginning again.
    ///
    /// Errors: `Io`. Damage in the copy is no error: what is damaged there is not there.
    fn follow(&mut self, before: &Head) -> Result<Option<Frame>, LogError>;

    /// What the copy says of the log as a whole; `None` when it is a part of it only.
    fn witness(&self) -> Option<Witness>;
}

/// What a whole copy of a log knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// When the log was created.
    pub created: Timestamp,
    /// The oldest readable state.
    pub floor: Head,
    /// The state before its first segment.
    pub start: Head,
    /// The snapshot of the state at the floor.
    pub snapshot: Option<Snapshot>,
    /// A position that was synced.
    pub promise: Position,
}

/// A segment file of a copy.
#[derive(Clone, Debug)]
pub(super) struct CopiedSegment {
    pub id: SegmentId,
    /// How many redactions have replaced its file.
    pub revision: u32,
    pub path: PathBuf,
    /// Of its frames; 0 when the header does not say.
    pub tag: u64,
    /// The first position in it; 1 when the header does not say.
    pub first: Position,
}

/// The segment files in a directory: a store's, a copy of one, or archived segments. Needs no manifest, and reads what is whole.
#[derive(Debug)]
pub struct LogCopy {
    fs: Arc<dyn Fs>,
    log_id: LogId,
    witness: Option<Witness>,
    segments: Vec<CopiedSegment>,
    cursor: Option<Cursor>,
}

/// A place between two frames.
#[derive(Debug)]
struct Cursor {
    index: usize,
    reader: SegmentReader,
    offset: u64,
}

impl LogCopy {
    /// Opens the segments of one log in a directory: of `log_id`, or of the log that most of them say they are of. Changes nothing.
    ///
    /// Errors: `NotFound` where there are none, `NewerFormat`, `Io`.
    pub fn open(env: &Env, dir: &Path, log_id: Option<LogId>) -> Result<LogCopy, LogError> {
        let fs = env.fs.clone();
        let not_found = || LogError::NotFound { path: dir.to_path_buf() };
        if !fs.exists(dir).at("look for the copy", dir)? {
            return Err(not_found());
        }
        let manifest = match manifest::load(fs.as_ref(), dir) {
            Ok(loaded) => Some(loaded.manifest),
            Err(error @ LogError::NewerFormat { .. }) => return Err(error),
            Err(_) => None,
        };
        let mut found = Vec::new();
        for name in fs.read_dir(dir).at("list the directory", dir)? {
            let Some((id, revision)) = SegmentId::and_revision_of(&name) else { continue };
            let path = id.path(revision, dir);
            let header = match segment::open(fs.as_ref(), &path, OpenMode::Read) {
                Ok(Ok((_, header))) if header.sequence == id.0 => Some(header),
                Ok(Err(MISSING)) => continue,
                Err(error @ LogError::NewerFormat { .. }) => return Err(error),
                // Its frames may be whole all the same.
                Ok(_) | Err(_) => None,
            };
            found.push((CopiedSegment { id, revision, path, tag: 0, first: Position(1) }, header));
        }
        let most = || {
            let ids = found.iter().filter_map(|(_, header)| header.map(|header| header.log_id));
            let count = |id: &LogId| found.iter().filter(|(_, header)| header.is_some_and(|h| h.log_id == *id)).count();
            ids.max_by_key(|id| (count(id), *id))
        };
        let log_id = log_id.or(manifest.as_ref().map(|manifest| manifest.log_id)).or_else(most);
        let manifest = manifest.filter(|manifest| Some(manifest.log_id) == log_id);
        let listed = |id| manifest.as_ref()?.segments.iter().find(|entry| entry.id == id).copied();
        let mut segments = Vec::new();
        for (segment, header) in found {
            match (header, listed(segment.id)) {
                (Some(header), _) if Some(header.log_id) == log_id => {
                    segments.push(CopiedSegment { tag: header.tag, first: header.first, ..segment });
                }
                (Some(_), _) => {}
                (None, Some(entry)) => segments.push(CopiedSegment { tag: entry.tag, first: entry.first, ..segment }),
                (None, None) => segments.push(segment),
            }
        }
        if segments.is_empty() {
            return Err(not_found());
        }
        let witness = manifest.map(|manifest| Witness {
            created: manifest.created,
            floor: manifest.floor,
            start: manifest.start,
            snapshot: manifest.snapshot,
            promise: manifest.promise,
        });
        Ok(LogCopy { fs, log_id: log_id.unwrap_or_default(), witness, segments, cursor: None })
    }

    /// The identity of the log; zeros when no segment's header says.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    pub(super) fn segments(&self) -> &[CopiedSegment] {
        &self.segments
    }

    pub(super) fn reader(&self, segment: &CopiedSegment) -> Result<SegmentReader, LogError> {
        let file = self.fs.open(&segment.path, OpenMode::Read).at("open the segment", &segment.path)?;
        SegmentReader::new(file, segment.path.clone(), segment.tag)
    }

    /// The frame at the cursor, when it is the one that follows.
    fn at_cursor(&mut self, before: &Head) -> Option<Frame> {
        let cursor = self.cursor.as_mut()?;
        let Ok(Slot::Frame(raw)) = cursor.reader.slot(cursor.offset) else { return None };
        let (end, frame) = (raw.header.end(), transaction(raw)?);
        frame.follows(before).then(|| {
            cursor.offset = end;
            frame
        })
    }

    /// Looks through the segments that may hold it, the likeliest first.
    fn seek(&mut self, before: &Head) -> Result<Option<Frame>, LogError> {
        let position = before.position.next();
        for index in (0..self.segments.len()).rev() {
            let segment = &self.segments[index];
            if segment.first > position {
                continue;
            }
            let mut reader = self.reader(segment)?;
            let (mut offset, mut highest) = (FRAMES_AT, Position::ZERO);
            while let Some(raw) = next_whole(&mut reader, offset) {
                offset = raw.header.end();
                highest = highest.max(raw.header.position);
                if raw.header.position == position
                    && let Some(frame) = transaction(raw)
                    && frame.follows(before)
                {
                    self.cursor = Some(Cursor { index, reader, offset });
                    return Ok(Some(frame));
                }
            }
            // Positions rise from segment to segment, but for what a recovery wrote anew.
            if highest < position && segment.tag != 0 {
                break;
            }
        }
        Ok(None)
    }

    /// Enters the segment behind the cursor's.
    fn step_on(&mut self) -> Result<(), LogError> {
        let Some(index) = self.cursor.take().map(|cursor| cursor.index + 1) else { return Ok(()) };
        if let Some(segment) = self.segments.get(index) {
            let reader = self.reader(segment)?;
            self.cursor = Some(Cursor { index, reader, offset: FRAMES_AT });
        }
        Ok(())
    }
}

impl FrameSource for LogCopy {
    fn follow(&mut self, before: &Head) -> Result<Option<Frame>, LogError> {
        if let Some(frame) = self.at_cursor(before) {
            return Ok(Some(frame));
        }
        self.step_on()?;
        match self.at_cursor(before) {
            Some(frame) => Ok(Some(frame)),
            None => self.seek(before),
        }
    }

    fn witness(&self) -> Option<Witness> {
        self.witness
    }
}

fn transaction(raw: RawFrame) -> Option<Frame> {
    (raw.header.kind == FrameKind::Transaction).then(|| raw.into_frame())
}
