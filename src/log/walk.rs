//! [`SegmentWalk`]: one segment from its first frame to its last, going on behind damage.
//!
//! Proves everything: checksum, place, order, digest, chain, and the end against the manifest. What to do about damage is the
//! business of those who walk: verification names it, the scrub counts it, a repair fills it.

use std::path::Path;

use super::format::{ALIGNMENT, FRAMES_AT, FrameKind};
use super::manifest::SegmentEntry;
use super::recovery::Problem;
use super::window::{RawFrame, SegmentReader, Slot};
use super::{Frame, Head, LogError};
use crate::types::Position;

/// A step of the walk.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole transaction; `proven` when it follows the one before, and not so for the first one behind damage.
    Frame { frame: Frame, proven: bool },
    /// Something is wrong, and the walk goes on behind it.
    Damage(Box<Damage>),
}

/// A stretch of a segment that is not what it should be.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub problem: Problem,
    /// The state before it.
    pub before: Head,
    /// The whole frame that follows in the segment, if there is one.
    pub resume: Option<RawFrame>,
    /// Whether transactions are missing; else the frames are whole, and their end contradicts the manifest.
    pub gap: bool,
}

/// A walk over the transactions of one segment.
#[derive(Debug)]
pub(super) struct SegmentWalk {
    reader: SegmentReader,
    head: Head,
    offset: u64,
    last: Position,
    sealed: Option<SegmentEntry>,
    resumed: Option<RawFrame>,
    ended: bool,
    resumes: bool,
}

impl SegmentWalk {
    /// From the state `before` the segment to the transaction `last`; with the manifest's entry when it is sealed.
    pub fn new(reader: SegmentReader, before: Head, last: Position, sealed: Option<SegmentEntry>) -> SegmentWalk {
        SegmentWalk {
            reader,
            head: before,
            offset: FRAMES_AT,
            last,
            sealed,
            resumed: None,
            ended: false,
            resumes: true,
        }
    }

    /// The same, but it ends with the first damage: what follows is not searched, which may take long.
    pub fn until_damage(self) -> SegmentWalk {
        SegmentWalk { resumes: false, ..self }
    }

    /// The last whole transaction passed.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The segment's file.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// Where in the file the walk is, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next step; `None` at the end. Bytes that cannot be read are damage.
    ///
    /// Errors: what is neither damage nor a failed read of the segment.
    pub fn next(&mut self) -> Result<Option<Found>, LogError> {
        if let Some(frame) = self.resumed.take() {
            (self.head, self.offset) = (frame.head(), frame.header.end());
            return Ok(Some(Found::Frame { frame: frame.into_frame(), proven: false }));
        }
        if self.ended {
            return Ok(None);
        }
        if self.head.position >= self.last {
            self.ended = true;
            return Ok(self.end().map(|damage| Found::Damage(Box::new(damage))));
        }
        let why = match self.reader.slot(self.offset) {
            Ok(Slot::Frame(raw)) => {
                let (end, kind, head) = (raw.header.end(), raw.header.kind, raw.head());
                let frame = raw.into_frame();
                if kind == FrameKind::Transaction && frame.follows(&self.head) {
                    (self.head, self.offset) = (head, end);
                    return Ok(Some(Found::Frame { frame, proven: true }));
                }
                "a frame that does not follow its predecessor".to_owned()
            }
            Ok(Slot::Other(why)) => why.to_owned(),
            Err(LogError::Io { source, .. }) => format!("cannot be read: {source}"),
            Err(error) => return Err(error),
        };
        let expected = self.head.position.next();
        let resume = if self.resumes { self.resume(expected) } else { None };
        let up_to = resume.as_ref().map_or(self.last, |frame| frame.header.position.previous());
        let problem = self.problem(expected, up_to, &why);
        let damage = Damage { problem, before: self.head, resume: resume.clone(), gap: true };
        self.ended = resume.is_none();
        self.resumed = resume;
        Ok(Some(Found::Damage(Box::new(damage))))
    }

    /// What contradicts the manifest at the end of frames that are whole.
    fn end(&self) -> Option<Damage> {
        let entry = self.sealed.as_ref()?;
        let differs = self.head.position != entry.last || self.head.chain != entry.chain || self.offset != entry.end;
        differs.then(|| Damage {
            problem: self.problem(self.last, self.last, "the segment's end is not the one in the manifest"),
            before: self.head,
            resume: None,
            gap: false,
        })
    }

    /// The next transaction that may follow behind damage.
    fn resume(&mut self, expected: Position) -> Option<RawFrame> {
        let mut from = self.offset + ALIGNMENT;
        while let Some(frame) = next_whole(&mut self.reader, from) {
            let header = frame.header;
            if header.kind == FrameKind::Transaction && (expected..=self.last).contains(&header.position) {
                return Some(frame);
            }
            from = header.end();
        }
        None
    }

    fn problem(&self, first: Position, last: Position, detail: &str) -> Problem {
        Problem {
            path: self.reader.path().to_path_buf(),
            offset: self.offset,
            first,
            last: last.max(first),
            detail: detail.to_owned(),
        }
    }
}

/// The next whole frame that begins at `from` or behind; what cannot be read is passed over.
pub(super) fn next_whole(reader: &mut SegmentReader, mut from: u64) -> Option<RawFrame> {
    const BLOCK_BYTES: u64 = 4096;
    const STRIDE_BYTES: u64 = 64 * BLOCK_BYTES;
    while from < reader.size() {
        let to = from + STRIDE_BYTES;
        from = match reader.search(from, to) {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) => to,
            Err(_) => (from + 1).next_multiple_of(BLOCK_BYTES),
        };
    }
    None
}
