//! Full verification: every byte of every segment, read-only, beside a writer or without one.
//!
//! Goes on behind damage, so that all of it is found: the next whole frame is looked for, and what lies between is
//! named. Judges nothing above the promise: that may be half written.

use std::path::{Path, PathBuf};

use super::format::FRAMES_AT;
use super::manifest::{self, Loaded, Manifest};
use super::recovery::{self, Problem};
use super::segment::SegmentId;
use super::stream::Source;
use super::walk::{Found, SegmentWalk, next_whole};
use super::window::SegmentReader;
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
    let total = manifest.segments.iter().map(|entry| entry.end).sum();
    let (head, floor) = (manifest.start, manifest.floor);
    let mut sums = Sums { head, floor, sound: 0, problems: Vec::new(), done: 0, total };
    let promise =
        manifest.promise.max(known.filter(|(id, _)| *id == manifest.log_id).map_or(Position::ZERO, |(_, at)| at));
    if !loaded.other_sound {
        let path = manifest::slot_path(dir, 1 - loaded.slot);
        let detail = "the second manifest slot is damaged or stale".to_owned();
        sums.problems.push(Problem { path, offset: 0, first: Position::ZERO, last: Position::ZERO, detail });
    }
    for snapshot in [&manifest.snapshot, &manifest.former].into_iter().flatten() {
        sums.total += snapshot.bytes;
        match snapshot.verify(env.fs.as_ref(), dir).map_err(Problem::from_error) {
            Ok(()) => {}
            Err(Ok(problem)) => sums.problems.push(problem),
            Err(Err(LogError::Io { path, source, .. })) => {
                let detail = format!("cannot be read: {source}");
                let (first, last) = (Position(1), snapshot.head.position);
                sums.problems.push(Problem { path, offset: 0, first, last, detail });
            }
            Err(Err(error)) => return Err(error),
        }
        sums.done += snapshot.bytes;
        progress(sums.done, sums.total);
    }
    for (index, entry) in manifest.segments.iter().enumerate() {
        let sealed = index + 1 < manifest.segments.len();
        let before = manifest.before(index);
        sums.head = before;
        let last = if sealed { entry.last } else { promise };
        let opened = source.open(manifest.log_id, entry, before, OpenMode::Read, last);
        let mut reader = match opened.map_err(Problem::from_error) {
            Ok((file, _)) => SegmentReader::new(file, entry.path(dir), entry.tag)?,
            Err(Ok(problem)) => {
                sums.problems.push(problem);
                continue;
            }
            Err(Err(error)) => return Err(error),
        };
        let last = match sealed {
            true => last,
            false => {
                let (promise, end) = promised(&mut reader, last);
                sums.total += end - FRAMES_AT;
                promise
            }
        };
        sums.walk(SegmentWalk::new(reader, before, last, sealed.then_some(*entry)), found, progress)?;
    }
    let Sums { head, sound, mut problems, .. } = sums;
    if !problems.is_empty() {
        // Beside a writer: a trim or a redaction may have removed what the manifest listed when this began.
        let now = settled(env, dir)?.manifest;
        let gone: Vec<PathBuf> = paths(manifest, dir).filter(|path| paths(&now, dir).all(|now| now != *path)).collect();
        problems.retain(|problem| !gone.contains(&problem.path));
    }
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

/// The files that a manifest lists.
fn paths<'a>(manifest: &'a Manifest, dir: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    let snapshots = manifest.snapshot.iter().chain(&manifest.former).map(|snapshot| snapshot.path(dir));
    manifest.segments.iter().map(|entry| entry.path(dir)).chain(snapshots)
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

/// The highest promise in any whole frame of the active segment, or `known` when that is higher; and where its frames end. A
/// sector that cannot be read promises nothing: the walk names it.
pub(super) fn promised(reader: &mut SegmentReader, known: Position) -> (Position, u64) {
    let (mut promise, mut offset) = (known, FRAMES_AT);
    while let Some(frame) = next_whole(reader, offset) {
        promise = promise.max(frame.header.promise);
        offset = frame.header.end();
    }
    (promise, offset)
}

/// What was found so far.
struct Sums {
    head: Head,
    floor: Head,
    sound: u64,
    problems: Vec<Problem>,
    done: u64,
    total: u64,
}

impl Sums {
    fn walk(
        &mut self,
        mut walk: SegmentWalk,
        found: &mut dyn FnMut(Frame),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), LogError> {
        let mut reported = 0;
        while let Some(step) = walk.next()? {
            match step {
                Found::Frame { frame, proven } => {
                    self.sound += u64::from(proven);
                    let head = Head { position: frame.position, time: frame.time, chain: frame.chain };
                    if head.position == self.floor.position && head != self.floor {
                        let detail = "the floor in the manifest is not of this history".to_owned();
                        let (path, offset) = (walk.path().to_path_buf(), walk.offset());
                        let (first, last) = (head.position, head.position);
                        self.problems.push(Problem { path, offset, first, last, detail });
                    }
                    found(frame);
                }
                Found::Damage(damage) => self.problems.push(damage.problem),
            }
            if walk.offset() >= reported + PROGRESS_BYTES {
                reported = walk.offset();
                progress(self.done + reported, self.total.max(self.done + reported));
            }
        }
        self.head = walk.head();
        self.done += walk.offset();
        progress(self.done, self.total.max(self.done));
        Ok(())
    }
}
