//! [`AttachedLog`]: a log and its archive as one log that is only read.
//!
//! Stands where a store has its log, so that readers of the past ask it the same questions. Ends where the log was synced
//! when it was attached, and takes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::stream::Check;
use super::{Archived, Draft, Erase, Frames, Head, Log, LogError, LogFiles, Removable, Snapshot, archive, manifest};
use crate::env::Env;
use crate::types::{LogId, Position, Timestamp};

/// A log with its archive, for reading.
#[derive(Debug)]
pub struct AttachedLog {
    files: LogFiles,
    dir: PathBuf,
    /// Each with the directory that it lies in, by ascending position.
    snapshots: Vec<(PathBuf, Snapshot)>,
    /// The floor of the log without its archive.
    own_floor: Position,
    /// The oldest state that is asked for.
    floor: Head,
    head: Head,
    synced: watch::Sender<Position>,
}

impl AttachedLog {
    /// Attaches the archive in `archive` to the log in `dir`. Takes no lock and changes nothing. The floor is where the archive begins.
    ///
    /// Errors: as [`LogFiles::open_with_archive`].
    pub fn open(env: &Env, dir: &Path, archive: &Path) -> Result<AttachedLog, LogError> {
        let files = LogFiles::open_with_archive(env, dir, archive)?;
        let manifest = manifest::load(env.fs.as_ref(), dir)?.manifest;
        let archived = archive::Index::of_log(env.fs.as_ref(), archive, &manifest)?.snapshots;
        let own_floor = manifest.floor.position;
        let own = [manifest.former, manifest.snapshot].into_iter().flatten();
        let mut snapshots: Vec<(PathBuf, Snapshot)> =
            archived.into_iter().map(|snapshot| (archive.to_path_buf(), snapshot)).collect();
        snapshots.extend(own.map(|snapshot| (dir.to_path_buf(), snapshot)));
        snapshots.sort_by_key(|(_, snapshot)| snapshot.head.position);
        let (floor, head) = (files.floor(), files.head()?);
        let synced = watch::Sender::new(head.position);
        Ok(AttachedLog { files, dir: archive.to_path_buf(), snapshots, own_floor, floor, head, synced })
    }

    /// The floor of the log without its archive, when it was attached.
    pub fn own_floor(&self) -> Position {
        self.own_floor
    }

    /// The oldest state that can be made from what is there: the beginning of everything, or the first snapshot.
    ///
    /// Errors: `OtherArchive` when there is neither.
    pub fn oldest_state(&self) -> Result<Position, LogError> {
        let begins = self.files.floor().position;
        if begins == Position::ZERO {
            return Ok(begins);
        }
        self.snapshots.first().map(|(_, snapshot)| snapshot.head.position).ok_or_else(|| LogError::OtherArchive {
            path: self.dir.clone(),
            detail: format!(
                "no state can be made from it: it begins after a position and has no snapshot, start=`{begins}`"
            ),
        })
    }

    /// The newest snapshot of a state not above `position`, and the directory that it lies in; none when everything begins before.
    pub fn snapshot_before(&self, position: Position) -> Option<&(PathBuf, Snapshot)> {
        self.snapshots.iter().rev().find(|(_, snapshot)| snapshot.head.position <= position)
    }

    /// Makes a state the floor: what lies below is not asked for.
    ///
    /// Errors: `BelowFloor`, `AboveHead`, `Corrupt`, `Io`.
    pub fn begin_at(&mut self, position: Position) -> Result<(), LogError> {
        self.floor = self.files.head_at(position)?;
        Ok(())
    }

    fn refused<T>(&self) -> Result<T, LogError> {
        Err(LogError::ReadOnly { path: self.files.dir().to_path_buf() })
    }
}

impl Log for AttachedLog {
    fn id(&self) -> LogId {
        self.files.id()
    }

    fn created(&self) -> Timestamp {
        self.files.created()
    }

    fn head(&self) -> Head {
        self.head
    }

    fn head_at(&self, position: Position) -> Result<Head, LogError> {
        self.files.head_at(position)
    }

    fn append(&self, _expected: Position, _batch: &[Draft]) -> Result<Head, LogError> {
        self.refused()
    }

    fn sync(&self) -> Result<Position, LogError> {
        Ok(self.head.position)
    }

    fn read(&self, from: Position) -> Result<Frames<'_>, LogError> {
        let (from, head) = (from.max(Position(1)), self.head.position);
        if from <= self.floor.position {
            return Err(LogError::BelowFloor { position: from, floor: self.floor.position });
        }
        let frames = self.files.frames(from, Check::Order)?;
        Ok(Box::new(frames.take_while(move |frame| !matches!(frame, Ok(frame) if frame.position > head))))
    }

    fn follow(&self) -> watch::Receiver<Position> {
        self.synced.subscribe()
    }

    fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        Ok(self.files.position_at(time)?.min(self.head.position))
    }

    fn upkeep(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn close(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn floor(&self) -> Position {
        self.floor.position
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot_before(self.floor.position).map(|(_, snapshot)| *snapshot)
    }

    fn removable(&self, _keep: Position) -> Result<Removable, LogError> {
        Ok(Removable::default())
    }

    fn floor_above(&self, _bytes: u64) -> Position {
        self.floor.position
    }

    fn archive(&self, _dir: &Path, _keep: Position) -> Result<Removable, LogError> {
        self.refused()
    }

    fn former(&self) -> Option<Snapshot> {
        None
    }

    fn read_stored(&self, _archive: Option<&Path>) -> Result<Frames<'_>, LogError> {
        self.read(self.floor.position.next())
    }

    fn redact(
        &self,
        _positions: &BTreeSet<Position>,
        _erase: &Erase<'_>,
        _snapshots: &[Snapshot],
    ) -> Result<(), LogError> {
        self.refused()
    }

    fn redact_archive(
        &self,
        _dir: &Path,
        _positions: &BTreeSet<Position>,
        _erase: &Erase<'_>,
        _snapshots: &[Snapshot],
        _redaction: Position,
    ) -> Result<(), LogError> {
        self.refused()
    }

    fn archived(&self, _dir: &Path) -> Result<Archived, LogError> {
        self.refused()
    }

    fn begins(&self) -> Position {
        self.floor.position
    }

    fn redaction(&self) -> Position {
        Position::ZERO
    }

    fn complete_redaction(&self, _redaction: Position) -> Result<(), LogError> {
        self.refused()
    }

    fn trim(&self, _snapshot: Snapshot, _keep: Position) -> Result<(), LogError> {
        self.refused()
    }
}
