//! [`Survey`]: all damage of a log that frames from somewhere else could fill, found without changing anything.
//!
//! Walks every segment that belongs to the log, also one whose header is damaged or whose file is gone; with both manifest slots gone,
//! over a manifest made anew from the segments' headers, as far as these and a whole copy prove it.

use std::path::{Path, PathBuf};

use super::copy::{LogCopy, Witness};
use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind, MARK_BYTES, SEAL_BYTES};
use super::manifest::{self, Loaded, Manifest, SegmentEntry};
use super::recovery::{self, Problem};
use super::segment::{self, MISSING};
use super::stream::Source;
use super::verify::promised;
use super::walk::{Damage, Found, SegmentWalk, next_whole};
use super::window::{SegmentReader, locate};
use super::{Frame, Head, LogError};
use crate::env::{Env, OpenMode};
use crate::types::{LogId, Position};

/// What was found of a log that may be damaged.
#[derive(Debug)]
pub struct Survey {
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
    /// Whether both slots are gone, and the manifest was made from the segments.
    pub(super) rebuilt: bool,
    /// Those with damage.
    pub(super) segments: Vec<Surveyed>,
    /// Damage that frames cannot fill.
    pub(super) other: Vec<Problem>,
}

/// A damaged segment.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub entry: SegmentEntry,
    pub before: Head,
    /// Number and tag of the next segment, when this one is sealed.
    pub next: Option<SegmentEntry>,
    /// The last position that it must hold.
    pub last: Position,
    /// Of the file in bytes, as it should be.
    pub size: u64,
    /// What is wrong with the file as a whole: it is missing, cut, or has another header.
    pub file: Option<Problem>,
    pub missing: bool,
    pub damages: Vec<Damage>,
    /// The state at `last`, as a mark of the segment says it.
    pub marked: Option<Head>,
}

/// Looks at everything. `known` is what derived state was stamped with, `witness` what a whole copy says; `found` is handed every whole
/// transaction in order.
///
/// Errors: `Corrupt` when both manifest slots are gone and it cannot be proven what they said; `NotFound`, `NewerFormat`, `Io`.
pub fn survey(
    env: &Env,
    dir: &Path,
    known: Option<(LogId, Position)>,
    witness: Option<Witness>,
    found: &mut dyn FnMut(Frame),
) -> Result<Survey, LogError> {
    let (loaded, rebuilt) = match manifest::load(env.fs.as_ref(), dir) {
        Ok(loaded) => (loaded, false),
        Err(LogError::Corrupt { path, detail, .. }) => match from_segments(env, dir, witness)? {
            Ok(manifest) => (Loaded { manifest, slot: 0, other_sound: true }, true),
            Err(why) => {
                let detail = format!("{detail}; it cannot be made anew: {why}");
                return Err(segment::corrupt(&path, 0, Position(1), Position::MAX, detail));
            }
        },
        Err(error) => return Err(error),
    };
    let (manifest, problems) = match recovery::plan_from(env, dir, known, loaded.clone()) {
        Ok(plan) => (plan.manifest.clone(), plan.problems().to_vec()),
        // A sector of the active segment that cannot be read: the walk passes over it.
        Err(LogError::Io { .. }) => (loaded.manifest, Vec::new()),
        Err(error) => return Err(error),
    };
    let known = known.filter(|(id, _)| *id == manifest.log_id).map_or(Position::ZERO, |(_, position)| position);
    let promise = manifest.promise.max(known);
    let mut segments = Vec::new();
    for index in 0..manifest.segments.len() {
        let surveyed = Surveyed::look(env, dir, &manifest, index, promise, found)?;
        segments.extend(surveyed.filter(|surveyed| surveyed.file.is_some() || !surveyed.damages.is_empty()));
    }
    let listed = |problem: &Problem| manifest.segments.iter().any(|entry| entry.path(dir) == problem.path);
    let other = problems.into_iter().filter(|problem| !listed(problem)).collect();
    Ok(Survey { dir: dir.to_path_buf(), manifest, rebuilt, segments, other })
}

impl Surveyed {
    fn look(
        env: &Env,
        dir: &Path,
        manifest: &Manifest,
        index: usize,
        promise: Position,
        found: &mut dyn FnMut(Frame),
    ) -> Result<Option<Surveyed>, LogError> {
        let fs = env.fs.as_ref();
        let Some(&entry) = manifest.segments.get(index) else { return Ok(None) };
        let (before, next) = (manifest.before(index), manifest.segments.get(index + 1).copied());
        let path = entry.path(dir);
        let source = Source::new(env.fs.clone(), dir);
        let expected = if next.is_some() { entry.last } else { promise.max(before.position) };
        let opened = source.open(manifest.log_id, &entry, before, OpenMode::Read, expected);
        let (mut size, mut file) = match opened {
            Ok((_, header)) => (header.size, None),
            Err(LogError::Io { source, .. }) => {
                let detail = format!("the segment header cannot be read: {source}");
                (0, Some(Problem { path: path.clone(), offset: 0, first: entry.first, last: expected, detail }))
            }
            Err(error) => (0, Some(Problem::from_error(error)?)),
        };
        let reader = match fs.open(&path, OpenMode::Read) {
            Ok(opened) => Some(SegmentReader::new(opened, path.clone(), entry.tag)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("open the segment", &path),
        };
        let missing = reader.is_none();
        let (mut last, mut marked, mut damages) = (expected, None, Vec::new());
        match reader {
            Some(mut reader) => {
                if next.is_none() {
                    last = promised(&mut reader, last).0;
                    marked = mark_at(&mut reader, last);
                }
                if let Some(header) = segment::open(fs, &path, OpenMode::Read).ok().and_then(Result::ok) {
                    size = size.max(header.1.size);
                }
                size = size.max(reader.size()).max(entry.end.next_multiple_of(4096));
                let mut walk = SegmentWalk::new(reader, before, last, next.map(|_| entry));
                while let Some(step) = walk.next()? {
                    match step {
                        Found::Frame { frame, .. } => found(frame),
                        Found::Damage(damage) => damages.push(*damage),
                    }
                }
            }
            None if last > before.position => {
                let problem = Problem { path, offset: FRAMES_AT, first: entry.first, last, detail: MISSING.to_owned() };
                damages.push(Damage { problem, before, resume: None, gap: true });
            }
            None => {}
        }
        if size == 0 {
            size = (entry.end + SEAL_BYTES + MARK_BYTES).next_multiple_of(4096) + FRAMES_AT;
        }
        if let Some(file) = &mut file {
            file.last = file.last.max(last);
        }
        Ok(Some(Surveyed { entry, before, next, last, size, file, missing, damages, marked }))
    }
}

/// The state at `position`, when a mark of the segment says it.
fn mark_at(reader: &mut SegmentReader, position: Position) -> Option<Head> {
    let mut offset = FRAMES_AT;
    while let Some(frame) = next_whole(reader, offset) {
        offset = frame.header.end();
        if frame.header.kind != FrameKind::Transaction && frame.header.position == position {
            return Some(frame.head());
        }
    }
    None
}

/// A manifest from the headers of the segments. `Err` says what is not proven.
///
/// Each header proves the end of the segment before it. That nothing is missing below the first one is proven by the origin of
/// the chain or by the floor of a whole copy.
fn from_segments(env: &Env, dir: &Path, witness: Option<Witness>) -> Result<Result<Manifest, String>, LogError> {
    let copy = LogCopy::open(env, dir, None)?;
    let log_id = copy.log_id();
    let Some(witness) = witness else {
        return Ok(Err("a copy that has a manifest of its own is needed to say what belongs to the log".to_owned()));
    };
    let mut manifest = Manifest {
        generation: 1,
        log_id,
        created: witness.created,
        // What was lost at the end is known to the copy alone.
        promise: witness.promise,
        floor: witness.floor,
        start: witness.start,
        snapshot: witness.snapshot,
        former: None,
        // Redactions are looked at again: what is done of them stays done.
        redaction: Position::ZERO,
        segments: Vec::new(),
    };
    let mut previous: Option<(SegmentReader, Head)> = None;
    let mut first = None;
    for copied in copy.segments() {
        let Ok((_, header)) = segment::open(env.fs.as_ref(), &copied.path, OpenMode::Read)? else {
            return Ok(Err(format!("the header of segment {} is damaged", copied.id)));
        };
        let before = Head { position: header.first.previous(), time: header.time_before, chain: header.chain_before };
        let entry = SegmentEntry { revision: copied.revision, ..SegmentEntry::empty(copied.id, header.tag, before) };
        if let (Some(ended), Some((reader, began))) = (manifest.segments.last_mut(), &mut previous) {
            if ended.id.next() != copied.id {
                return Ok(Err(format!("segment {} is missing", ended.id.next())));
            }
            let Some((at_end, end)) = locate(reader, *began, before.position)?.filter(|(head, _)| *head == before)
            else {
                return Ok(Err(format!("segment {} does not lead to its successor", ended.id)));
            };
            let first = locate(reader, *began, ended.first).ok().flatten().filter(|_| before.position >= ended.first);
            (ended.last, ended.end, ended.last_time, ended.chain) = (at_end.position, end, at_end.time, at_end.chain);
            ended.first_time = first.map_or(ended.first_time, |(head, _)| head.time);
            manifest.promise = manifest.promise.max(before.position);
        }
        manifest.segments.push(entry);
        first.get_or_insert(before);
        previous = Some((copy.reader(copied)?, before));
    }
    let Some(first) = first else { return Ok(Err("there is no segment".to_owned())) };
    let origin = Head::origin(log_id);
    if first == origin {
        // Nothing is missing below, so all of it can be read.
        (manifest.floor, manifest.start, manifest.snapshot) = (origin, origin, None);
    } else if first != witness.start {
        return Ok(Err(format!("nothing proves that the log begins with segment {}", copy.segments()[0].id)));
    } else if let Some(Err(error)) = witness.snapshot.map(|snapshot| snapshot.verify(env.fs.as_ref(), dir)) {
        return Ok(Err(format!("the state at the floor is needed: {error}")));
    }
    Ok(Ok(manifest))
}
