//! [`Scrubber`]: one pass over the sealed segments and the snapshots of a log that is in use, in small steps.
//!
//! Proves all that a verification proves of them. Takes no lock and changes nothing. A segment that is trimmed or written anew meanwhile
//! is passed over: what counts is what the manifest lists when something seems wrong.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{self, SegmentEntry};
use super::recovery::Problem;
use super::segment::SegmentId;
use super::snapshot::Snapshot;
use super::stream::Source;
use super::walk::{Found, SegmentWalk};
use super::window::SegmentReader;
use super::{Head, LogError};
use crate::env::{Env, File, FileExt as _, OpenMode};
use crate::types::{LogId, Position};

/// A pass under way.
#[derive(Debug)]
pub struct Scrubber {
    source: Source,
    log_id: LogId,
    queue: VecDeque<(SegmentEntry, Head)>,
    current: Option<(SegmentEntry, SegmentWalk)>,
    /// After the segments.
    snapshots: VecDeque<Snapshot>,
    reading: Option<SnapshotRead>,
    bytes: u64,
}

/// A snapshot read so far.
#[derive(Debug)]
struct SnapshotRead {
    snapshot: Snapshot,
    file: Box<dyn File>,
    hasher: Sha256,
    at: u64,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// So many bytes of a file were read, and more are to come.
    Part(u64),
    /// A file is done.
    File {
        /// Which segment; none for a snapshot.
        id: Option<SegmentId>,
        /// Its file.
        path: PathBuf,
        /// Bytes read in this step.
        bytes: u64,
        /// The first thing that is wrong with it; the rest of it was not read then.
        damage: Option<Problem>,
    },
    /// The pass is at its end.
    Ended,
}

impl Scrubber {
    /// A pass over the segments that are sealed now, from `from` on, and then the snapshots.
    ///
    /// Errors: as reading the manifest: `Corrupt`, `NewerFormat`, `Io`.
    pub fn begin(env: &Env, dir: &Path, from: SegmentId) -> Result<Scrubber, LogError> {
        let manifest = manifest::load(env.fs.as_ref(), dir)?.manifest;
        let sealed = manifest.segments.iter().enumerate().take(manifest.segments.len() - 1);
        let queue: VecDeque<_> = sealed
            .filter(|(_, entry)| entry.id >= from)
            .map(|(index, entry)| (*entry, manifest.before(index)))
            .collect();
        let snapshots: VecDeque<_> = manifest.snapshot.into_iter().chain(manifest.former).collect();
        let bytes = queue.iter().map(|(entry, _)| entry.end).sum::<u64>()
            + snapshots.iter().map(|snapshot| snapshot.bytes).sum::<u64>();
        let source = Source::new(env.fs.clone(), dir);
        Ok(Scrubber { source, log_id: manifest.log_id, queue, current: None, snapshots, reading: None, bytes })
    }

    /// Bytes of all its segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads at most about so many bytes of one file.
    ///
    /// Errors: `Io` when the segment cannot be opened or the manifest cannot be read; the same step may be tried again.
    pub fn step(&mut self, bytes: u64) -> Result<Scrubbed, LogError> {
        let (entry, mut walk) = match self.current.take() {
            Some(current) => current,
            None => {
                let Some(&(entry, before)) = self.queue.front() else { return self.snapshot(bytes) };
                let opened = self.source.open(self.log_id, &entry, before, OpenMode::Read, entry.last);
                let file = match opened {
                    Ok((file, _)) => file,
                    Err(error) => {
                        let problem = Problem::from_error(error)?;
                        self.queue.pop_front();
                        return self.done(&entry, 0, Some(problem));
                    }
                };
                let reader = SegmentReader::new(file, entry.path(&self.source.dir), entry.tag)?;
                self.queue.pop_front();
                (entry, SegmentWalk::new(reader, before, entry.last, Some(entry)).until_damage())
            }
        };
        let began = walk.offset();
        let read = |walk: &SegmentWalk| walk.offset() - began;
        while read(&walk) < bytes {
            match walk.next()? {
                Some(Found::Frame { .. }) => {}
                Some(Found::Damage(damage)) => return self.done(&entry, read(&walk), Some(damage.problem)),
                None => return self.done(&entry, read(&walk), None),
            }
        }
        let part = read(&walk);
        self.current = Some((entry, walk));
        Ok(Scrubbed::Part(part))
    }

    /// Damage counts when the segment still belongs to the log as it did when the pass began.
    fn done(&self, entry: &SegmentEntry, bytes: u64, damage: Option<Problem>) -> Result<Scrubbed, LogError> {
        let listed = match damage {
            Some(_) => manifest::load(self.source.fs.as_ref(), &self.source.dir)?.manifest.segments.contains(entry),
            None => true,
        };
        let path = entry.path(&self.source.dir);
        Ok(Scrubbed::File { id: Some(entry.id), path, bytes, damage: damage.filter(|_| listed) })
    }

    /// A piece of a snapshot.
    fn snapshot(&mut self, bytes: u64) -> Result<Scrubbed, LogError> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let Some(snapshot) = self.snapshots.pop_front() else { return Ok(Scrubbed::Ended) };
                match snapshot.open(self.source.fs.as_ref(), &self.source.dir) {
                    Ok(file) => SnapshotRead { snapshot, file, hasher: Sha256::new(), at: 0 },
                    Err(error) => return self.snapshot_done(&snapshot, 0, Some(Problem::from_error(error)?)),
                }
            }
        };
        let SnapshotRead { snapshot, file, hasher, at } = &mut reading;
        let problem = |detail: String| Problem {
            path: snapshot.path(&self.source.dir),
            offset: *at,
            first: Position(1),
            last: snapshot.head.position,
            detail,
        };
        let mut piece = vec![0; usize::try_from(bytes.min(snapshot.bytes - *at)).unwrap_or(0)];
        if let Err(error) = file.read_exact_at(&mut piece, *at) {
            let problem = problem(format!("cannot be read: {error}"));
            return self.snapshot_done(snapshot, 0, Some(problem));
        }
        hasher.update(&piece);
        let read = piece.len() as u64;
        if *at + read < snapshot.bytes {
            reading.at += read;
            self.reading = Some(reading);
            return Ok(Scrubbed::Part(read));
        }
        let same = std::mem::take(hasher).finalize()[..] == snapshot.digest.0;
        let damage = (!same).then(|| problem("the snapshot has another SHA-256".to_owned()));
        self.snapshot_done(snapshot, read, damage)
    }

    fn snapshot_done(&self, snapshot: &Snapshot, bytes: u64, damage: Option<Problem>) -> Result<Scrubbed, LogError> {
        let listed = match damage {
            Some(_) => {
                let manifest = manifest::load(self.source.fs.as_ref(), &self.source.dir)?.manifest;
                [manifest.snapshot, manifest.former].contains(&Some(*snapshot))
            }
            None => true,
        };
        let path = snapshot.path(&self.source.dir);
        Ok(Scrubbed::File { id: None, path, bytes, damage: damage.filter(|_| listed) })
    }
}
