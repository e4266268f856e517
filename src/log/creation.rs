//! Making a log: a new one, or one that takes up a history made elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::apply::Recovered;
use super::error::IoAt;
use super::format::FRAMES_AT;
use super::manifest::{self, Manifest, SegmentEntry};
use super::rotation::segment_header;
use super::segment::{self, MinFree, SegmentId, Spare};
use super::settings::LogSettings;
use super::snapshot::Snapshot;
use super::writer::FileLog;
use super::{DirLock, Head, LOG_FORMAT, LogError};
use crate::env::{Env, Fs, OpenMode};
use crate::types::{Hash, LogId, Position, Timestamp};

/// How a segment gets its room.
type Room = fn(&dyn Fs, &Path, u64, MinFree) -> Result<Spare, LogError>;

/// What a log begins with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Its identity.
    pub id: LogId,
    /// Its time of creation.
    pub created: Timestamp,
    /// The state before its first transaction; [`Head::origin`] where there is none.
    pub start: Head,
    /// The snapshot of that state, and the file, synced and on the same file system, that is moved into the log. Required
    /// above position 0.
    pub snapshot: Option<(Snapshot, PathBuf)>,
}

impl Birth {
    fn check(&self) -> Result<(), LogError> {
        let sound = match &self.snapshot {
            Some((snapshot, _)) => snapshot.head == self.start && self.start.position > Position::ZERO,
            None => self.start == Head::origin(self.id),
        };
        let detail = || format!("it is not of the state that the log begins at, position=`{}`", self.start.position);
        if sound { Ok(()) } else { Err(LogError::InvalidSnapshot { detail: detail() }) }
    }
}

impl Head {
    /// The state before the first transaction of a log.
    pub fn origin(id: LogId) -> Head {
        Head { position: Position::ZERO, time: Timestamp(0), chain: Hash::origin(id, LOG_FORMAT) }
    }
}

impl FileLog {
    /// Makes a new, empty log in `dir` and opens it. `dir` must be absent or empty; its parent, where the lock lies,
    /// must exist. A crash leaves either no log or a whole one.
    ///
    /// Errors: `Exists`, `NoSpace`, `InvalidSetting`, `Io`.
    pub fn create(env: Env, lock: DirLock, dir: &Path, settings: LogSettings) -> Result<FileLog, LogError> {
        let mut id = LogId::default();
        env.entropy.fill(&mut id.0);
        let birth = Birth { id, created: env.clock.now(), start: Head::origin(id), snapshot: None };
        FileLog::create_from(env, lock, dir, settings, birth)
    }

    /// As [`FileLog::create_from`], for a log that is written through and closed before anybody sees it: its segments get their room from
    /// the file system without being zeroed. What cannot be made durable then, it is not for anybody.
    ///
    /// Errors: as [`FileLog::create_from`].
    pub fn create_unseen(
        env: Env,
        lock: DirLock,
        dir: &Path,
        settings: LogSettings,
        birth: Birth,
    ) -> Result<FileLog, LogError> {
        let mut log = FileLog::make(env, lock, dir, settings, birth, Spare::reserve)?;
        log.unseen = true;
        Ok(log)
    }

    /// As [`FileLog::create`], with identity and beginning from elsewhere.
    ///
    /// Errors: as [`FileLog::create`]; `InvalidSnapshot`.
    pub fn create_from(
        env: Env,
        lock: DirLock,
        dir: &Path,
        settings: LogSettings,
        birth: Birth,
    ) -> Result<FileLog, LogError> {
        FileLog::make(env, lock, dir, settings, birth, Spare::allocate)
    }

    fn make(
        env: Env,
        lock: DirLock,
        dir: &Path,
        settings: LogSettings,
        birth: Birth,
        room: Room,
    ) -> Result<FileLog, LogError> {
        settings.check()?;
        birth.check()?;
        let fs = env.fs.as_ref();
        if fs.exists(dir).at("look for the log", dir)? && !fs.read_dir(dir).at("list the directory", dir)?.is_empty() {
            return Err(LogError::Exists { path: dir.to_path_buf() });
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        let mut name = dir.file_name().unwrap_or_default().to_os_string();
        name.push(".new");
        // Made beside its place and then renamed, so a directory with the log's name is a whole log.
        let making = parent.join(name);
        fs.remove_dir_all(&making).at("remove what an interrupted creation left", &making)?;
        fs.create_dir_all(&making).at("create the directory", &making)?;
        let Birth { id, created, start, snapshot } = birth;
        if let Some((snapshot, file)) = &snapshot {
            fs.rename(file, &snapshot.path(&making)).at("move the snapshot into the log", file)?;
        }
        let entry = SegmentEntry::empty(SegmentId(1), segment::random_tag(&env), start);
        let mut manifest = Manifest {
            generation: 1,
            log_id: id,
            created,
            promise: start.position,
            floor: start,
            start,
            snapshot: snapshot.map(|(snapshot, _)| snapshot),
            former: None,
            redaction: start.position,
            segments: vec![entry],
        };
        let spare = room(fs, &making, settings.segment_bytes, settings.min_free())?;
        let size = spare.size();
        let header = segment_header(id, &entry, start, size);
        spare.into_segment(fs, &making, &header, |_| Ok(FRAMES_AT))?;
        manifest::store(fs, &making, 1, &manifest)?;
        manifest.generation = 2;
        manifest::store(fs, &making, 0, &manifest)?;
        for slot in 0..2 {
            manifest::reserve(fs, &making, manifest::open_slot(fs, &making, slot)?.as_ref(), slot, 1)?;
        }
        fs.rename(&making, dir).at("rename the new log", dir)?;
        fs.sync_dir(parent).at("sync the directory", parent)?;
        // Nothing to recover: what a recovery would read is what was just written, and a whole segment of zeros.
        let path = entry.path(dir);
        let file = Arc::from(fs.open(&path, OpenMode::Write).at("open the segment", &path)?);
        let (dir, end) = (dir.to_path_buf(), FRAMES_AT);
        let made = Recovered { dir, manifest, slot: 0, file, size, end, head: start, first_time: None };
        Ok(FileLog::over(env, lock, settings, made))
    }
}
