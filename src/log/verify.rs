//! Full verification: every byte of every segment, read-only, beside a writer or without one.
//!
//! Goes on behind damage, so that all of it is found: the next whole frame is looked for, and what lies between is
//! named. Judges nothing above the promise: that may be half written.

use std::path::Path;

use super::format::{FRAMES_AT, FrameKind};
use super::manifest::{self, Loaded, SegmentEntry};
use super::recovery::{self, Problem};
use super::segment::{SegmentId, corrupt};
use super::stream::Source;
use super::window::{RawFrame, SegmentReader, Slot};
use super::{Frame, Head, LogError};
use crate::env::{Env, OpenMode};
use crate::types::{LogId, Position};

const PROGRESS_BYTES: u64 = 4 << 20;

/// What a full verification found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The identity of the log.
    pub log_id: LogId,
    /// The oldest readable state.
    pub floor: Head,
    /// The promised state; of the last sound frame where the end is damaged.
    pub head: Head,
    /// How many transactions were found whole and in the chain.
    pub sound: u64,
    /// What is wrong, in the order of positions.
    pub problems: Vec<Problem>,
}

/// Verifies the log in `dir`. `known` is a log id and position that derived state was stamped with; `found` is
/// handed every whole transaction in order, those behind damage too; `progress` is called with bytes done and bytes
/// in total.
///
/// Damage is in the result. Errors: `NotFound`, `NewerFormat`, `Io`, `Corrupt` when no manifest is left to verify
/// against.
pub fn verify(
    env: &Env,
    dir: &Path,
    known: Option<(LogId, Position)>,
    found: &mut dyn FnMut(Frame),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verification, LogError> {
    let loaded = settled(env, dir)?;
    let manifest = &loaded.manifest;
    let source = Source::new(env.fs.clone(), dir);
    let mut walk = Walk {
        head: manifest.start,
        floor: manifest.floor,
        sound: 0,
        problems: Vec::new(),
        done: 0,
        total: 0,
        found,
        progress,
    };
    let promise =
        manifest.promise.max(known.filter(|(id, _)| *id == manifest.log_id).map_or(Position::ZERO, |(_, at)| at));
    walk.total = manifest.segments.iter().map(|entry| entry.end).sum();
    if !loaded.other_sound {
        let path = manifest::slot_path(dir, 1 - loaded.slot);
        let detail = "the second manifest slot is damaged or stale".to_owned();
        walk.problems.push(Problem { path, offset: 0, first: Position::ZERO, last: Position::ZERO, detail });
    }
    for snapshot in [&manifest.snapshot, &manifest.former].into_iter().flatten() {
        walk.total += snapshot.bytes;
        match snapshot.verify(env.fs.as_ref(), dir).map_err(Problem::from_error) {
            Ok(()) => {}
            Err(Ok(problem)) => walk.problems.push(problem),
            Err(Err(LogError::Io { path, source, .. })) => {
                let detail = format!("cannot be read: {source}");
                let (first, last) = (Position(1), snapshot.head.position);
                walk.problems.push(Problem { path, offset: 0, first, last, detail });
            }
            Err(Err(error)) => return Err(error),
        }
        walk.done += snapshot.bytes;
        (walk.progress)(walk.done, walk.total);
    }
    for (index, entry) in manifest.segments.iter().enumerate() {
        let sealed = index + 1 < manifest.segments.len();
        let before = manifest.before(index);
        walk.head = before;
        let last = if sealed { entry.last } else { promise };
        let opened = source.open(manifest.log_id, entry, before, OpenMode::Read, last);
        let mut reader = match opened.map_err(Problem::from_error) {
            Ok((file, _)) => SegmentReader::new(file, entry.path(dir), entry.tag)?,
            Err(Ok(problem)) => {
                walk.problems.push(problem);
                continue;
            }
            Err(Err(error)) => return Err(error),
        };
        if sealed {
            walk.segment(&mut reader, entry.last, Some(entry))?;
        } else {
            let mut promise = promise;
            let mut offset = FRAMES_AT;
            while let Some(frame) = reader.search(offset, u64::MAX)? {
                promise = promise.max(frame.header.promise);
                offset = frame.header.end();
                walk.total = walk.total.max(walk.done + offset);
            }
            walk.segment(&mut reader, promise, None)?;
        }
    }
    let (head, sound, mut problems) = (walk.head, walk.sound, walk.problems);
    // Files that the manifest does not list are judged as recovery would; a writer may list them meanwhile.
    let names = env.fs.read_dir(dir).unwrap_or_default();
    let unlisted = names.iter().filter_map(|name| SegmentId::of_file_name(name)).any(|id| id > manifest.active().id);
    if unlisted && settled(env, dir)?.manifest.generation == manifest.generation {
        let found = recovery::plan(env, dir, known)?.problems().to_vec();
        problems.extend(
            found.into_iter().filter(|found| problems.iter().all(|other| other.path != found.path)).collect::<Vec<_>>(),
        );
    }
    Ok(Verification { log_id: manifest.log_id, floor: manifest.floor, head, sound, problems })
}

/// The manifest; a slot that a writer is just writing looks damaged for a moment.
fn settled(env: &Env, dir: &Path) -> Result<Loaded, LogError> {
    let mut loaded = manifest::load(env.fs.as_ref(), dir)?;
    for _ in 0..3 {
        if loaded.other_sound {
            break;
        }
        loaded = manifest::load(env.fs.as_ref(), dir)?;
    }
    Ok(loaded)
}

struct Walk<'a> {
    head: Head,
    floor: Head,
    sound: u64,
    problems: Vec<Problem>,
    done: u64,
    total: u64,
    found: &'a mut dyn FnMut(Frame),
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Walk<'_> {
    /// Up to `last`; against the manifest's entry when the segment is sealed.
    fn segment(
        &mut self,
        reader: &mut SegmentReader,
        last: Position,
        sealed: Option<&SegmentEntry>,
    ) -> Result<(), LogError> {
        let mut offset = FRAMES_AT;
        let mut reported = 0;
        while self.head.position < last {
            let expected = self.head.position.next();
            let why = match reader.slot(offset) {
                Ok(Slot::Frame(frame)) => {
                    let (end, kind, head) = (frame.header.end(), frame.header.kind, frame.head());
                    let frame = frame.into_frame();
                    if kind == FrameKind::Transaction && frame.follows(&self.head) {
                        self.head = head;
                        self.sound += 1;
                        if head.position == self.floor.position && head != self.floor {
                            let detail = "the floor in the manifest is not of this history";
                            self.report(reader, offset, head.position, head.position, detail);
                        }
                        offset = end;
                        (self.found)(frame);
                        if offset >= reported + PROGRESS_BYTES {
                            reported = offset;
                            (self.progress)(self.done + offset, self.total.max(self.done + offset));
                        }
                        continue;
                    }
                    "a frame that does not follow its predecessor".to_owned()
                }
                Ok(Slot::Other(why)) => why.to_owned(),
                Err(LogError::Io { source, .. }) => format!("cannot be read: {source}"),
                Err(error) => return Err(error),
            };
            let (damaged_at, resume) = (offset, self.resume(reader, offset, expected, last));
            let up_to = resume.as_ref().map_or(last, |frame| frame.header.position.previous());
            self.report(reader, damaged_at, expected, up_to, &why);
            let Some(frame) = resume else { break };
            (self.head, offset) = (frame.head(), frame.header.end());
            (self.found)(frame.into_frame());
        }
        if let Some(entry) = sealed
            && self.head.position == last
            && (self.head.chain != entry.chain || offset != entry.end)
        {
            self.report(reader, offset, last, last, "the segment's end is not the one in the manifest");
        }
        self.done += offset;
        (self.progress)(self.done, self.total.max(self.done));
        Ok(())
    }

    /// The next whole transaction behind damage; what cannot be read is passed over.
    fn resume(&self, reader: &mut SegmentReader, offset: u64, expected: Position, last: Position) -> Option<RawFrame> {
        const BLOCK_BYTES: u64 = 4096;
        const STRIDE_BYTES: u64 = 64 * BLOCK_BYTES;
        let mut from = offset + super::format::ALIGNMENT;
        while from < reader.size() {
            let to = from + STRIDE_BYTES;
            from = match reader.search(from, to) {
                Ok(Some(frame)) => {
                    let header = frame.header;
                    if header.kind == FrameKind::Transaction && (expected..=last).contains(&header.position) {
                        return Some(frame);
                    }
                    header.end()
                }
                Ok(None) => to,
                Err(_) => (from + 1).next_multiple_of(BLOCK_BYTES),
            };
        }
        None
    }

    fn report(&mut self, reader: &SegmentReader, offset: u64, first: Position, last: Position, detail: &str) {
        let found = Problem::from_error(corrupt(reader.path(), offset, first, last, detail));
        self.problems.extend(found.ok());
    }
}
