//! Recovery: first a plan, read-only and printable, then its application.
//!
//! Law 7 is kept here. Only the active segment is read; where its frames stop, the rest of it is searched
//! for whole frames, and the highest promise found in any of them, in the manifest, in the header of
//! a following segment or in a stamp decides: what is missing at or below it is damage, what is
//! missing above it was never acknowledged. Nothing is removed: what is cut goes into a side file.
//!
//! Applying a plan may be interrupted anywhere: the manifest is written last, and until then the same
//! plan, or one that loses more of what was never acknowledged, is found again.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::apply::CutBytes;
use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind, MARK_BYTES, SegmentHeader};
use super::manifest::{self, Loaded, Manifest, SegmentEntry};
use super::segment::{self, SegmentId, corrupt};
use super::stream::Source;
use super::window::{SegmentReader, Slot, locate};
use super::{Head, LogError};
use crate::env::{Env, OpenMode};
use crate::types::{LogId, Position, Timestamp};

/// Something wrong with the log's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file concerned.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The first position concerned.
    pub first: Position,
    /// The last position concerned, as far as known.
    pub last: Position,
    /// What is wrong.
    pub detail: String,
}

impl Problem {
    /// As the error that a call would give.
    pub fn to_error(&self) -> LogError {
        corrupt(&self.path, self.offset, self.first, self.last, self.detail.clone())
    }

    /// From an error that names damage; any other error comes back.
    pub(crate) fn from_error(error: LogError) -> Result<Problem, LogError> {
        match error {
            LogError::Corrupt { path, offset, first, last, detail } => {
                Ok(Problem { path, offset, first, last, detail })
            }
            other => Err(other),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_error().fmt(f)
    }
}

/// What opening the log would do. Displays as one step a line.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) dir: PathBuf,
    pub(super) loaded: Loaded,
    /// The manifest as it will be, before a fresh segment is added.
    pub(super) manifest: Manifest,
    /// Where frames of the active segment end after recovery, when it goes on in place.
    pub(super) end: u64,
    /// The last position known to be synced, and where the frames up to it end.
    pub(super) promised: Head,
    pub(super) promised_end: u64,
    pub(super) first_time: Timestamp,
    /// Bytes behind the kept frames that go into a side file.
    pub(super) cut: Option<CutBytes>,
    pub(super) fresh: bool,
    /// Whether only the state that was derived says that all of it is promised.
    unnoted: bool,
    head: Head,
    adopted: Vec<SegmentId>,
    problems: Vec<Problem>,
}

impl Plan {
    /// The identity of the log.
    pub fn log_id(&self) -> crate::types::LogId {
        self.manifest.log_id
    }

    /// The last transaction after recovery.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The last position that was known to be synced. Transactions above it up to the head are whole, but were
    /// perhaps never acknowledged.
    pub fn promised(&self) -> Position {
        self.promised.position
    }

    /// Damage that stands against opening. Empty for a log that opens.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The steps, one a line; empty when nothing needs to be done.
    pub fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = self.problems.iter().map(|problem| format!("refuse to open: {problem}")).collect();
        for id in &self.adopted {
            steps.push(format!("take segment {id} into the manifest, which was written before it"));
        }
        if let Some(cut) = &self.cut {
            steps.push(format!(
                "cut {} bytes that were never acknowledged, from {} offset {}, and keep them in {}",
                cut.len(),
                cut.source.display(),
                cut.offset,
                cut.path(&self.dir).display()
            ));
        }
        if self.fresh && self.promised.position < self.head.position {
            steps.push(format!(
                "write transactions {}..={} anew: they are whole, but no promise covers them",
                self.promised.position.next(),
                self.head.position
            ));
        }
        if self.unnoted {
            steps.push(format!("note in the manifest that transactions up to {} are promised", self.head.position));
        }
        if self.fresh {
            steps.push(format!("begin segment {}", self.manifest.active().id.next()));
        }
        if !self.loaded.other_sound {
            steps.push("write the damaged or stale manifest slot anew".to_owned());
        }
        steps
    }

    /// Whether the manifest must be written.
    pub(super) fn changes_manifest(&self) -> bool {
        self.fresh || self.unnoted || !self.adopted.is_empty() || !self.loaded.other_sound
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// What a segment holds, read to where its frames stop, and what lies behind.
#[derive(Debug)]
struct Examined {
    /// The last frame in unbroken order.
    kept: Head,
    /// Where it ends; behind the seal when there is one.
    end: u64,
    first_time: Timestamp,
    /// The highest promise in any whole frame, behind the break too.
    promise: Position,
    /// The highest position of a transaction in any whole frame.
    highest: Position,
    sealed: bool,
    /// The end of what is behind the kept frames and is neither zero nor our mark.
    dirty_to: Option<u64>,
    /// Why reading stopped.
    why: &'static str,
}

/// Reads a segment whose state before it is `before`.
fn examine(reader: &mut SegmentReader, before: Head) -> Result<Examined, LogError> {
    let mut kept = before;
    let mut end = FRAMES_AT;
    let mut promise = Position::ZERO;
    let mut first_time = None;
    let mut sealed = false;
    let why = loop {
        let frame = match reader.slot(end)? {
            Slot::Frame(frame) => frame,
            Slot::Other(why) => break why,
        };
        let header = frame.header;
        match header.kind {
            FrameKind::Transaction => {
                if !frame.into_frame().follows(&kept) {
                    break "a frame that does not follow its predecessor";
                }
                promise = promise.max(header.promise);
                kept = Head { position: header.position, time: header.time, chain: header.chain };
                first_time.get_or_insert(header.time);
                end = header.end();
            }
            FrameKind::Seal if frame.head() == kept => {
                promise = promise.max(header.promise);
                sealed = true;
                end = header.end();
                break "the end of the segment";
            }
            FrameKind::Seal => break "a seal that does not follow its predecessor",
            FrameKind::Mark => break "a mark",
        }
    };
    let mut highest = kept.position;
    let mut offset = end;
    let mut clean_from = end;
    while let Some(frame) = reader.search(offset, u64::MAX)? {
        promise = promise.max(frame.header.promise);
        highest = highest.max(frame.header.position);
        if frame.header.kind == FrameKind::Mark && frame.header.offset == end && !sealed {
            clean_from = end + MARK_BYTES;
        }
        offset = frame.header.end();
    }
    let dirty_to = reader.last_nonzero(clean_from)?;
    Ok(Examined { kept, end, first_time: first_time.unwrap_or(before.time), promise, highest, sealed, dirty_to, why })
}

/// Finds out what opening the log in `dir` would do, without changing anything. `known` is a position that
/// derived state was stamped with.
///
/// Damage is in [`Plan::problems`]. Errors: `NotFound`, `NewerFormat`, `Corrupt` when there is no valid
/// manifest to plan from, `Io`.
pub fn plan(env: &Env, dir: &Path, known: Option<(LogId, Position)>) -> Result<Plan, LogError> {
    let span = tracing::info_span!("recovery", path = %dir.display());
    let _entered = span.enter();
    let plan = plan_from(env, dir, known, manifest::load(env.fs.as_ref(), dir)?)?;
    for step in plan.steps() {
        tracing::info!(step, "recovery planned");
    }
    Ok(plan)
}

/// [`plan`] with a manifest at hand.
pub(super) fn plan_from(
    env: &Env,
    dir: &Path,
    known: Option<(LogId, Position)>,
    loaded: Loaded,
) -> Result<Plan, LogError> {
    let source = Source::new(env.fs.clone(), dir);
    let mut manifest = loaded.manifest.clone();
    // Another log's state says nothing about this one.
    let known = known.filter(|(id, _)| *id == manifest.log_id).map_or(Position::ZERO, |(_, position)| position);
    let mut problems = Vec::new();
    if let Some(snapshot) = &manifest.snapshot
        && let Err(error) = snapshot.open(env.fs.as_ref(), dir)
    {
        problems.push(Problem::from_error(error)?);
    }
    for index in 0..manifest.segments.len() - 1 {
        problems.extend(check_sealed(&source, &manifest, index)?);
    }
    let mut promise = manifest.promise;
    let mut adopted = Vec::new();
    let files = segment_files(env, dir)?;
    let examined = loop {
        let index = manifest.segments.len() - 1;
        let (entry, before) = (*manifest.active(), manifest.before(index));
        let last = promise.max(known);
        let opened = source.open(manifest.log_id, &entry, before, OpenMode::Read, last.max(entry.first));
        let mut reader = match opened.map_err(Problem::from_error) {
            Ok((file, _)) => SegmentReader::new(file, entry.path(dir), entry.tag)?,
            Err(Ok(problem)) => {
                problems.push(problem);
                break None;
            }
            Err(Err(error)) => return Err(error),
        };
        let examined = examine(&mut reader, before)?;
        promise = promise.max(examined.promise);
        let next = entry.id.next();
        if !files.contains(&next) {
            if let Some(&beyond) = files.range(next..).next() {
                problems.push(Problem {
                    path: next.path(0, dir),
                    offset: 0,
                    first: examined.kept.position.next(),
                    last: last.max(examined.kept.position.next()),
                    detail: format!("the segment file is missing, but segment {beyond} exists"),
                });
            } else if examined.sealed && !loaded.other_sound {
                // The slot is written only after the successor is durably there.
                problems.push(Problem {
                    path: next.path(0, dir),
                    offset: 0,
                    first: examined.kept.position.next(),
                    last: last.max(examined.kept.position.next()),
                    detail: "the segment file is missing: its predecessor is sealed, and the manifest slot that \
                             should list it is damaged or stale"
                        .to_owned(),
                });
            }
            break Some((reader, examined));
        }
        match follow_on(&source, &manifest, &mut reader, &examined, before)? {
            Ok(None) => break Some((reader, examined)),
            Ok(Some(successor)) => {
                if let Some(active) = manifest.segments.last_mut() {
                    *active = successor.ended;
                }
                promise = promise.max(successor.ended.last);
                manifest.segments.push(successor.entry);
                adopted.push(next);
            }
            Err(problem) => {
                problems.push(*problem);
                break Some((reader, examined));
            }
        }
    };
    let mut plan = Plan {
        // Readers beside the store, and dumps of its files, do not know the derived state.
        unnoted: promise < known,
        dir: dir.to_path_buf(),
        end: FRAMES_AT,
        promised: manifest.start,
        promised_end: FRAMES_AT,
        first_time: manifest.active().first_time,
        head: manifest.before(manifest.segments.len() - 1),
        cut: None,
        fresh: false,
        loaded,
        manifest,
        adopted,
        problems,
    };
    if let Some((mut reader, examined)) = examined {
        plan.judge(&mut reader, &examined, promise.max(known), files.iter().next_back().copied())?;
    }
    Ok(plan)
}

impl Plan {
    /// Torn or damaged, in place or into a fresh segment.
    fn judge(
        &mut self,
        reader: &mut SegmentReader,
        examined: &Examined,
        promise: Position,
        last_file: Option<SegmentId>,
    ) -> Result<(), LogError> {
        let index = self.manifest.segments.len() - 1;
        let (entry, before) = (*self.manifest.active(), self.manifest.before(index));
        self.head = examined.kept;
        self.first_time = examined.first_time;
        self.end = examined.end;
        if promise > examined.kept.position {
            let found = if examined.highest > examined.kept.position { ", whole frames follow" } else { "" };
            self.problems.push(Problem {
                path: reader.path().to_path_buf(),
                offset: examined.end,
                first: examined.kept.position.next(),
                last: promise,
                detail: format!("transactions that were promised are missing: {}{found}", examined.why),
            });
        }
        let promised = promise.clamp(before.position, examined.kept.position);
        match locate(reader, before, promised)? {
            Some((head, end)) => (self.promised, self.promised_end) = (head, end),
            None => {
                return Err(corrupt(
                    reader.path(),
                    FRAMES_AT,
                    entry.first,
                    promised,
                    "the segment changed while it was read",
                ));
            }
        }
        if let Some(to) = examined.dirty_to {
            let mut cut =
                CutBytes { source: reader.path().to_path_buf(), id: entry.id, offset: examined.end, to, crc: 0 };
            cut.crc = cut.checksum(reader)?;
            self.cut = Some(cut);
        }
        let leftover = last_file.is_some_and(|file| file > entry.id);
        self.fresh = examined.sealed
            || promised < examined.kept.position
            || examined.dirty_to.is_some()
            || (leftover && self.problems.is_empty());
        Ok(())
    }
}

/// A sealed segment costs opening its file and its header: its content is checked when it is read.
fn check_sealed(source: &Source, manifest: &Manifest, index: usize) -> Result<Option<Problem>, LogError> {
    let (entry, before) = (&manifest.segments[index], manifest.before(index));
    let checked = source.open(manifest.log_id, entry, before, OpenMode::Read, entry.last).and_then(|(_, header)| {
        let path = entry.path(&source.dir);
        match header.size < entry.end {
            true => Err(corrupt(&path, 0, entry.first, entry.last, "the file is smaller than the manifest says")),
            false => Ok(()),
        }
    });
    match checked {
        Ok(()) => Ok(None),
        Err(error) => Problem::from_error(error).map(Some),
    }
}

fn segment_files(env: &Env, dir: &Path) -> Result<BTreeSet<SegmentId>, LogError> {
    let names = env.fs.read_dir(dir).at("list the directory", dir)?;
    Ok(names.iter().filter_map(|name| SegmentId::of_file_name(name)).collect())
}

struct Successor {
    /// The segment before it, as it ends.
    ended: SegmentEntry,
    entry: SegmentEntry,
}

/// Judges a file with the name of the segment after the active one, which the manifest does not list.
///
/// It is there because a crash came before the manifest was written, and then it holds nothing but
/// copies (`None`: it is made anew), or because the manifest is older than it, and then it is the log's
/// end (`Some`). Everything else is damage, and nothing is touched.
fn follow_on(
    source: &Source,
    manifest: &Manifest,
    reader: &mut SegmentReader,
    examined: &Examined,
    before: Head,
) -> Result<Result<Option<Successor>, Box<Problem>>, LogError> {
    let entry = *manifest.active();
    let path = entry.id.next().path(0, &source.dir);
    let problem = |first: Position, last: Position, detail: &str| {
        Ok(Err(Box::new(Problem {
            path: path.clone(),
            offset: 0,
            first,
            last: last.max(first),
            detail: detail.to_owned(),
        })))
    };
    let above = examined.kept.position.next();
    let (file, header) = match segment::open(source.fs.as_ref(), &path, OpenMode::Read)? {
        Ok(opened) => opened,
        Err(why) => return problem(above, above, &format!("a segment that the manifest does not list: {why}")),
    };
    if header.log_id != manifest.log_id || header.sequence != entry.id.next().0 {
        return problem(above, above, "a segment of another log, or of another place in this one");
    }
    // A segment begins only above what was synced.
    let joint = header.first.previous();
    if joint > examined.kept.position {
        return problem(above, joint, "the segment begins above the end of its predecessor");
    }
    let follows = |head: &Head| head.chain == header.chain_before && head.time == header.time_before;
    let Some((joint, joint_end)) = locate(reader, before, joint)?.filter(|(head, _)| follows(head)) else {
        return problem(
            header.first,
            above,
            "the segment does not follow from its predecessor: files of different logs are mixed",
        );
    };
    let mut successor = SegmentReader::new(file, path.clone(), header.tag)?;
    let found = examine(&mut successor, joint)?;
    let in_use =
        found.promise >= header.first || found.kept.position > examined.kept.position || found.dirty_to.is_some();
    if !in_use {
        let copied = locate(reader, before, found.kept.position)?;
        if copied.is_some_and(|(head, _)| head.chain == found.kept.chain) {
            return Ok(Ok(None));
        }
        return problem(
            header.first,
            found.kept.position,
            "the segment contradicts its predecessor: files of different logs are mixed",
        );
    }
    let promised_before = examined.promise.max(manifest.promise);
    if promised_before > joint.position {
        return problem(
            header.first,
            promised_before,
            "the segment begins below what its predecessor promised: files of different logs are mixed",
        );
    }
    Ok(Ok(Some(Successor { ended: ended(entry, examined, joint, joint_end), entry: entry_of(&header, joint) })))
}

/// The entry of a segment that ends at `head`.
fn ended(entry: SegmentEntry, examined: &Examined, head: Head, end: u64) -> SegmentEntry {
    let first_time = if head.position >= entry.first { examined.first_time } else { head.time };
    SegmentEntry { last: head.position, end, first_time, last_time: head.time, chain: head.chain, ..entry }
}

fn entry_of(header: &SegmentHeader, before: Head) -> SegmentEntry {
    SegmentEntry::empty(SegmentId(header.sequence), header.tag, before)
}
