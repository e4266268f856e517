//! [`FrameStream`]: transactions in order over all segments of a manifest.
//!
//! Used by the writer's process and by readers beside it alike; both hand in what is promised and
//! never get more. Checks density, recorded time and the frame's own proofs on the way, the chain too
//! when asked for.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind, SegmentHeader};
use super::manifest::{self, Manifest, SegmentEntry};
use super::segment::{self, SegmentId, corrupt};
use super::window::{SegmentReader, Slot};
use super::{Frame, Head, LogError, archive};
use crate::env::{File, Fs, OpenMode};
use crate::types::{LogId, Position, Timestamp};

/// Distance between remembered places, in bytes: how much is read in vain to reach a position.
pub(super) const MILESTONE_BYTES: u64 = 512 << 10;

/// How much a reader proves of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Checksum, place and order: enough for bytes that this log's own writer made.
    Order,
    /// Also digest and chain hash, at the cost of hashing every payload.
    Chain,
}

/// How many places where readers stopped are remembered: as many followers go on without reading anything in vain.
const STOPS_MAX: usize = 64;

/// Places passed by writer and readers, so that reading from a position need not start at its segment's
/// beginning. About 60 MB for a log of 1 TB that was read from end to end.
#[derive(Debug, Default)]
pub(super) struct Milestones {
    places: Mutex<BTreeMap<Place, u64>>,
    /// Where readers stopped last, the newest behind: who follows the log goes on exactly there.
    stops: Mutex<VecDeque<(Place, u64)>>,
}

/// A position in a segment's file of a revision.
type Place = (SegmentId, u32, Position);

impl Milestones {
    /// The last known place at or before `position`.
    pub fn before(&self, (id, revision): (SegmentId, u32), position: Position) -> Option<(Position, u64)> {
        let range = (id, revision, Position::ZERO)..=(id, revision, position);
        let places = self.places.lock();
        let place = places.range(range.clone()).next_back().map(|(&(_, _, at), &offset)| (at, offset));
        drop(places);
        let stops = self.stops.lock();
        let before = stops.iter().filter(|(stop, _)| range.contains(stop));
        before.map(|&((_, _, at), offset)| (at, offset)).chain(place).max()
    }

    /// Remembers that a reader stopped before `position`, which begins at `offset` or will.
    pub fn stop(&self, (id, revision): (SegmentId, u32), position: Position, offset: u64) {
        let stop = ((id, revision, position), offset);
        let mut stops = self.stops.lock();
        if stops.contains(&stop) {
            return;
        }
        if stops.len() == STOPS_MAX {
            stops.pop_front();
        }
        stops.push_back(stop);
    }

    /// Remembers that `position` begins at `offset`.
    pub fn pass(&self, (id, revision): (SegmentId, u32), position: Position, offset: u64) {
        let mut places = self.places.lock();
        let passed = places.range((id, revision, Position::ZERO)..=(id, revision, position));
        let near = passed.last().map_or(FRAMES_AT, |(_, &near)| near);
        if offset >= near + MILESTONE_BYTES {
            places.insert((id, revision, position), offset);
        }
    }

    /// Forgets segments below `id`.
    pub fn trim(&self, id: SegmentId) {
        let mut places = self.places.lock();
        *places = places.split_off(&(id, 0, Position::ZERO));
        self.stops.lock().retain(|((segment, ..), _)| *segment >= id);
    }
}

/// Where the segments lie.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    /// Segments below this one lie there.
    pub archive: Option<(PathBuf, SegmentId)>,
    pub milestones: Arc<Milestones>,
}

impl Source {
    /// Over the segments in one directory.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path) -> Source {
        Source { fs, dir: dir.to_path_buf(), archive: None, milestones: Arc::new(Milestones::default()) }
    }

    /// The file of a segment.
    pub fn path(&self, entry: &SegmentEntry) -> PathBuf {
        match &self.archive {
            Some((archive, first)) if entry.id < *first => entry.path(archive),
            _ => entry.path(&self.dir),
        }
    }

    /// Opens a listed segment and checks that its header says what the manifest says. `last` names the
    /// damage when it does not.
    pub fn open(
        &self,
        log_id: LogId,
        entry: &SegmentEntry,
        before: Head,
        mode: OpenMode,
        last: Position,
    ) -> Result<(Box<dyn File>, SegmentHeader), LogError> {
        let path = self.path(entry);
        let damaged = |why: &str| corrupt(&path, 0, entry.first, last, why);
        let (file, header) = segment::open(self.fs.as_ref(), &path, mode)?.map_err(damaged)?;
        let expected = SegmentHeader {
            log_id,
            tag: entry.tag,
            sequence: entry.id.0,
            first: before.position.next(),
            time_before: before.time,
            chain_before: before.chain,
            size: header.size,
        };
        if header != expected {
            return Err(damaged("the segment header is not that of the segment in the manifest"));
        }
        // It had its whole size, synced, before its first frame.
        if file.len().at("read the segment", &path)? < header.size {
            return Err(damaged("the segment file was cut short"));
        }
        Ok((file, header))
    }
}

impl Source {
    /// A segment that is gone may have been replaced by a redaction since the reader began.
    fn redacted(&self, entry: &SegmentEntry) -> Option<SegmentEntry> {
        let segments = match &self.archive {
            Some((dir, first)) if entry.id < *first => archive::segments(self.fs.as_ref(), dir).ok()?,
            _ => manifest::load(self.fs.as_ref(), &self.dir).ok()?.manifest.segments,
        };
        segments.into_iter().find(|listed| listed.id == entry.id && listed.revision > entry.revision)
    }

    /// A segment that is gone may have been trimmed since the reader began.
    fn trimmed(&self, position: Position) -> Option<LogError> {
        let floor = manifest::load(self.fs.as_ref(), &self.dir).ok()?.manifest.floor.position;
        (position <= floor).then_some(LogError::BelowFloor { position, floor })
    }
}

/// Iterates over transactions `from..=to`.
#[derive(Debug)]
pub struct FrameStream {
    source: Source,
    manifest: Arc<Manifest>,
    check: Check,
    from: Position,
    to: Position,
    /// Index of the current segment, its reader, the next offset in it.
    current: Option<(usize, SegmentReader, u64)>,
    /// The state before the next frame. Between a place in the middle of a segment and the first frame from there on, all but the
    /// position is that of the segment's beginning.
    head: Head,
    /// Whether `head` is of a frame that was read in the current segment.
    met: bool,
    /// Where a milestone was last noted in the current segment.
    noted: u64,
    ended: bool,
}

impl FrameStream {
    /// `to` must be promised, and the manifest must list it.
    ///
    /// Errors: `BelowFloor`; `AboveHead` when `from` lies more than one above `to`.
    pub(super) fn new(
        source: Source,
        manifest: Arc<Manifest>,
        from: Position,
        to: Position,
        check: Check,
    ) -> Result<FrameStream, LogError> {
        let from = from.max(Position(1));
        let (head, floor) = (manifest.start, manifest.floor.position);
        if from <= floor {
            return Err(LogError::BelowFloor { position: from, floor });
        }
        if from > to.next() {
            return Err(LogError::AboveHead { position: from, head: to });
        }
        Ok(FrameStream { source, manifest, check, from, to, current: None, head, met: false, noted: 0, ended: false })
    }

    fn advance(&mut self) -> Result<Option<Frame>, LogError> {
        if self.from > self.to {
            return Ok(None);
        }
        loop {
            let Some((index, reader, offset)) = &mut self.current else {
                self.current = Some(self.enter()?);
                continue;
            };
            let entry = &self.manifest.segments[*index];
            let sealed = *index + 1 < self.manifest.segments.len();
            // Sealed segments without transactions are passed by too.
            if sealed && self.head.position >= entry.last {
                // A segment of a copy that went its own way has the same name and tag, and frames without a fault.
                if self.met && self.head != entry.head() {
                    let detail = "the end of the segment is not the one in the manifest";
                    return Err(corrupt(reader.path(), *offset, entry.first, entry.last, detail));
                }
                (self.current, self.head) = (None, entry.head());
                continue;
            }
            let at = *offset;
            let expected = self.head.position.next();
            let last = if sealed { entry.last } else { self.to };
            let slot = reader.slot(at)?;
            let damaged = |detail: &str| Err(corrupt(reader.path(), at, expected, last, detail));
            let frame = match slot {
                Slot::Frame(frame) if frame.header.kind == FrameKind::Transaction => frame,
                Slot::Frame(_) => return damaged("transactions are missing"),
                Slot::Other(why) => return damaged(why),
            };
            if frame.header.position != expected || frame.header.time < self.head.time {
                return damaged("a frame out of order");
            }
            *offset = frame.header.end();
            let before = std::mem::replace(&mut self.head, frame.head());
            self.met = true;
            if at >= self.noted + MILESTONE_BYTES {
                self.noted = at;
                self.source.milestones.pass((entry.id, entry.revision), expected, at);
            }
            let wanted = expected >= self.from;
            if wanted || self.check == Check::Chain {
                let frame = frame.into_frame();
                if self.check == Check::Chain && !frame.follows(&before) {
                    return damaged("the chain hash does not follow");
                }
                if wanted {
                    self.from = expected.next();
                    return Ok(Some(frame));
                }
            }
        }
    }

    /// Opens the segment that holds the next position, as near to it as known.
    fn enter(&mut self) -> Result<(usize, SegmentReader, u64), LogError> {
        (self.noted, self.met) = (FRAMES_AT, false);
        let position = self.from.max(self.head.position.next());
        let segments = &self.manifest.segments;
        let index = segments.partition_point(|entry| entry.first <= position).saturating_sub(1);
        let mut entry = segments[index];
        let before = self.manifest.before(index);
        let last = if index + 1 < segments.len() { entry.last } else { self.to };
        let mut opened = self.source.open(self.manifest.log_id, &entry, before, OpenMode::Read, last);
        if opened.is_err()
            && let Some(redacted) = self.source.redacted(&entry)
        {
            // What was noted of places in the old file is not true of this one.
            if let Some(listed) = Arc::make_mut(&mut self.manifest).segments.get_mut(index) {
                *listed = redacted;
            }
            entry = redacted;
            opened = self.source.open(self.manifest.log_id, &entry, before, OpenMode::Read, last);
        }
        let (file, _) = opened.map_err(|error| self.source.trimmed(position).unwrap_or(error))?;
        let reader = SegmentReader::new(file, self.source.path(&entry), entry.tag)?;
        let milestone = match self.check {
            Check::Order => self.source.milestones.before((entry.id, entry.revision), position),
            Check::Chain => None,
        };
        match milestone {
            Some((at, offset)) => {
                self.head = Head { position: at.previous(), ..before };
                Ok((index, reader, offset))
            }
            None => {
                self.head = before;
                Ok((index, reader, FRAMES_AT))
            }
        }
    }
}

impl Iterator for FrameStream {
    type Item = Result<Frame, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Drop for FrameStream {
    fn drop(&mut self) {
        if let Some((index, _, offset)) = &self.current {
            let entry = &self.manifest.segments[*index];
            self.source.milestones.stop((entry.id, entry.revision), self.head.position.next(), *offset);
        }
    }
}

/// The last transaction in `manifest` up to `to` whose recorded time is not after `time`; the floor when all are
/// after it but it is not.
///
/// Errors: `BelowFloor` when even the floor's time is after it and something was trimmed.
pub(super) fn position_at(
    source: &Source,
    manifest: &Arc<Manifest>,
    to: Position,
    time: Timestamp,
) -> Result<Position, LogError> {
    let floor = manifest.floor;
    if time < floor.time && floor.position > Position::ZERO {
        return Err(LogError::BelowFloor { position: Position::ZERO, floor: floor.position });
    }
    // Times never go back, so the boundary lies in the first segment that ends later.
    let sealed = &manifest.segments[..manifest.segments.len() - 1];
    let index = sealed.partition_point(|entry| entry.last_time <= time);
    let mut found = manifest.before(index).position.max(floor.position).min(to);
    let from = found.next();
    if from > to {
        return Ok(found);
    }
    for frame in FrameStream::new(source.clone(), manifest.clone(), from, to, Check::Order)? {
        let frame = frame?;
        if frame.time > time {
            break;
        }
        found = frame.position;
    }
    Ok(found)
}

/// The chain hash at a position.
pub(super) fn head_at(
    source: &Source,
    manifest: &Arc<Manifest>,
    to: Position,
    position: Position,
) -> Result<Head, LogError> {
    if position == manifest.floor.position {
        return Ok(manifest.floor);
    }
    if position < manifest.floor.position {
        return Err(LogError::BelowFloor { position, floor: manifest.floor.position });
    }
    if position > to {
        return Err(LogError::AboveHead { position, head: to });
    }
    if let Some(entry) = manifest.segments[..manifest.segments.len() - 1].iter().find(|entry| entry.last == position) {
        return Ok(entry.head());
    }
    match FrameStream::new(source.clone(), manifest.clone(), position, position, Check::Order)?.next() {
        Some(frame) => frame.map(|frame| Head { position, time: frame.time, chain: frame.chain }),
        None => Err(LogError::AboveHead { position, head: to }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_at_the_nearest_place_that_is_known() {
        let (one, two) = ((SegmentId(1), 0), (SegmentId(2), 0));
        let milestones = Milestones::default();
        assert_eq!(milestones.before(one, Position(9)), None);
        milestones.pass(one, Position(5), FRAMES_AT + MILESTONE_BYTES);
        milestones.stop(one, Position(3), 300);
        milestones.stop(one, Position(7), 700);
        milestones.stop(two, Position(8), 64);
        for (position, place) in [(2, None), (4, Some(3)), (6, Some(5)), (7, Some(7)), (99, Some(7))] {
            let found = milestones.before(one, Position(position)).map(|(at, _)| at.0);
            assert_eq!(found, place, "{position}");
        }
        assert_eq!(milestones.before(one, Position(8)), Some((Position(7), 700)));
        milestones.trim(two.0);
        assert_eq!(milestones.before(one, Position(99)), None);
        assert_eq!(milestones.before(two, Position(99)), Some((Position(8), 64)));
    }

    #[test]
    fn stops_are_bounded_and_the_newest_stay() {
        let milestones = Milestones::default();
        for round in 0..3 {
            for n in 0..STOPS_MAX as u64 {
                milestones.stop((SegmentId(1), 0), Position(n + 10), n);
            }
            assert_eq!(milestones.stops.lock().len(), STOPS_MAX, "{round}");
        }
        milestones.stop((SegmentId(1), 0), Position(1000), 1000);
        assert_eq!(milestones.stops.lock().len(), STOPS_MAX);
        assert_eq!(milestones.before((SegmentId(1), 0), Position(10)), None);
        assert_eq!(milestones.before((SegmentId(1), 0), Position(1000)), Some((Position(1000), 1000)));
    }
}
