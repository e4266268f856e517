//! Snapshots: a dump of the state as a file of the log, written whole before it counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::corrupt;
use super::error::{DumpError, IoOn};
use super::format::{DumpHeader, DumpKind, DumpedIndex};
use super::hashed::{Hashed, Hasher};
use super::reader::{DumpItem, DumpReader, StateEntry};
use super::source::remove;
use super::writer::{DumpSummary, DumpWriter};
use crate::env::{Env, File, OpenMode, Sequential};
use crate::log::{Head, Snapshot};
use crate::types::{Digest, LogId, Position, Timestamp};

/// Writes a snapshot under the name of something unfinished.
#[derive(Debug)]
pub struct SnapshotWriter {
    writer: DumpWriter<Hashed<Sequential>>,
    hasher: Hasher,
    path: PathBuf,
}

impl SnapshotWriter {
    /// Begins the snapshot of the state at `head` of a log, in a file `path`; one that is there is replaced.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(
        env: &Env,
        path: &Path,
        (log_id, created): (LogId, Timestamp),
        head: Head,
        indexes: Vec<DumpedIndex>,
    ) -> Result<SnapshotWriter, DumpError> {
        let name = path.display().to_string();
        remove(env.fs.as_ref(), path)?;
        let file: Arc<dyn File> = Arc::from(env.fs.open(path, OpenMode::CreateNew).on("create the snapshot", &name)?);
        let header = DumpHeader { kind: DumpKind::State, compressed: true, log_id, created, base: head, indexes };
        let (out, hasher) = Hashed::new(Sequential::new(file));
        let writer = DumpWriter::new(out, &name, header)?;
        Ok(SnapshotWriter { writer, hasher, path: path.to_path_buf() })
    }

    /// Adds an entry, in the order of encoded keys.
    ///
    /// # Errors
    /// `Io`.
    pub fn entry(&mut self, key: &[u8], version: Position, value: &[u8]) -> Result<(), DumpError> {
        self.writer.entry(key, version, value)
    }

    /// Writes what is left and syncs it. The file goes to [`Snapshot::path`] before the log is told.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<(Snapshot, DumpSummary), DumpError> {
        let (out, summary) = self.writer.finish()?;
        out.inner().file().sync_all().on("sync the snapshot", &self.path.display().to_string())?;
        Ok((Snapshot { head: summary.head, bytes: summary.bytes, digest: self.hasher.digest() }, summary))
    }
}

/// Reads a snapshot that a log names, and proves that it is that one.
#[derive(Debug)]
pub struct SnapshotReader {
    reader: DumpReader,
    hasher: Hasher,
    name: String,
    digest: Digest,
}

impl SnapshotReader {
    /// Opens the snapshot of the log `log_id` in `dir`.
    ///
    /// # Errors
    /// `Corrupt`, `NewerFormat`, `Io`, those of [`Snapshot::open`].
    pub fn open(env: &Env, dir: &Path, log_id: LogId, snapshot: &Snapshot) -> Result<SnapshotReader, DumpError> {
        let file = Arc::from(snapshot.open(env.fs.as_ref(), dir)?);
        SnapshotReader::over(file, &snapshot.path(dir), log_id, snapshot)
    }

    /// Opens one that has not got its name yet, at `path`.
    ///
    /// # Errors
    /// As [`SnapshotReader::open`].
    pub fn open_unfinished(
        env: &Env,
        path: &Path,
        log_id: LogId,
        snapshot: &Snapshot,
    ) -> Result<SnapshotReader, DumpError> {
        let file = env.fs.open(path, OpenMode::Read).on("read the snapshot back", &path.display().to_string())?;
        SnapshotReader::over(Arc::from(file), path, log_id, snapshot)
    }

    fn over(file: Arc<dyn File>, path: &Path, log_id: LogId, snapshot: &Snapshot) -> Result<SnapshotReader, DumpError> {
        let name = path.display().to_string();
        let (input, hasher) = Hashed::new(Sequential::new(file));
        let reader = match DumpReader::new(input, &name) {
            // The log says that it is one.
            Err(DumpError::NotADump { .. }) => return Err(corrupt(&name, 0, Position::ZERO, "it is no snapshot")),
            reader => reader?,
        };
        let DumpHeader { kind, log_id: found, base, .. } = reader.header();
        if (*kind, *found, *base) != (DumpKind::State, log_id, snapshot.head) {
            return Err(corrupt(&name, 0, Position::ZERO, "the snapshot is not of the state in the manifest"));
        }
        Ok(SnapshotReader { reader, hasher, name, digest: snapshot.digest })
    }

    /// The indexes whose entries it holds whole.
    pub fn indexes(&self) -> &[DumpedIndex] {
        &self.reader.header().indexes
    }

    /// How many bytes were read.
    pub fn bytes_read(&self) -> u64 {
        self.reader.bytes_read()
    }

    /// The next entry; `None` when all were handed out and the file is proven to be the one that the log names.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn entry(&mut self) -> Result<Option<StateEntry>, DumpError> {
        match self.reader.next()? {
            Some(DumpItem::Entry(entry)) => Ok(Some(entry)),
            Some(DumpItem::Frame(..)) => Err(corrupt(&self.name, 0, Position::ZERO, "a snapshot holds transactions")),
            // All of it has passed: the reader looks for the end of the file before it says that the dump ends.
            None if self.hasher.digest() == self.digest => Ok(None),
            None => Err(corrupt(&self.name, 0, Position::ZERO, "the snapshot has another SHA-256")),
        }
    }
}
