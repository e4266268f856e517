//! The state out of the log's files: a base filled from the snapshot that a log begins at, and a dump of the state.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::beside::BesideReader;
use super::facade::Store;
use super::indexing;
use super::reader::Reader;
use crate::backends::{Backend, BackendError, Change};
use crate::dump::{DumpError, DumpHeader, DumpKind, DumpSummary, DumpWriter, DumpedIndex, SnapshotReader};
use crate::env::Env;
use crate::log::{Head, LogFiles, Snapshot};
use crate::projection::{INDEX_PARTITIONS, IndexSet};
use crate::types::{At, Entry, Error, ErrorKind, LogId, Position, ProjectionVersion, Result, Slice, Stamp, Timestamp};

/// Fills an empty base with the state of a snapshot in `dir`, in one write that is stamped with it and with the
/// beginning of a history, and the last redaction of which nothing is in the snapshot. Gives the indexes that the base then holds
/// whole: entries of indexes that this program does not keep up are left out, since they would go stale unseen.
///
/// Errors: `corrupt` when the snapshot is not what the log says; those of the base.
pub(crate) async fn seed(
    env: &Env,
    dir: &Path,
    log_id: LogId,
    snapshot: &Snapshot,
    indexes: &IndexSet,
    base: &dyn Backend,
    redaction: Position,
) -> Result<Vec<ProjectionVersion>> {
    let mut reader = SnapshotReader::open(env, dir, log_id, snapshot)?;
    let mut projections: Vec<ProjectionVersion> =
        reader.indexes().iter().map(|index| held(index, snapshot.head.position)).collect();
    let known = indexing::all_known(indexes, &projections);
    if !known {
        projections.clear();
    }
    let Head { position, chain, .. } = snapshot.head;
    let history = Some(position);
    let stamp = Stamp { log_id, format: Stamp::FORMAT, position, chain, projections, history, redaction };
    // A backend has no words for what is wrong with where its changes come from.
    let failure = Arc::new(Mutex::new(None::<DumpError>));
    let failed = failure.clone();
    let changes = std::iter::from_fn(move || {
        loop {
            let entry = match reader.entry() {
                Ok(entry) => entry?,
                Err(error) => {
                    let detail = error.to_string();
                    *failed.lock() = Some(error);
                    return Some(Err(BackendError::Unavailable { place: "the snapshot".to_owned(), detail }));
                }
            };
            if known || !entry.key.starts_with(INDEX_PARTITIONS) {
                let (key, value) = (Slice::from(&entry.key[..]), Slice::from(&entry.value[..]));
                return Some(Ok(Change::Put { key, version: entry.version, value }));
            }
        }
    });
    let written = base.write(&stamp, &[], Box::new(changes)).await;
    match (failure.lock().take(), written) {
        (Some(error), _) => Err(error.into()),
        (None, written) => Ok(written.map(|()| stamp.projections)?),
    }
}

fn held(index: &DumpedIndex, since: Position) -> ProjectionVersion {
    ProjectionVersion { name: index.name.clone(), version: index.version, since }
}

impl Store {
    /// Writes a dump of the state at a position, a time or a mark, or of now, without its history: a new store can be begun with it.
    /// `name` is what errors call the file. What was written is a dump only when this has returned. Blocks the task on the sink.
    ///
    /// # Errors
    /// `invalid` for a store in which nothing ever happened by then; those of [`Store::at`]; `not_found` when a value of then was redacted;
    /// `unavailable` when the sink fails.
    pub async fn dump_state<W: Write + Send + 'static>(
        &self,
        at: Option<At>,
        out: W,
        name: &str,
        compress: bool,
    ) -> Result<(W, DumpSummary)> {
        let reader = match at {
            Some(at) => self.at(at).await?,
            None => self.reader(),
        };
        // In every setting, what is dumped is durable.
        self.sync().await?;
        dump_reader(&reader, out, name, compress).await
    }
}

/// A dump of what a reader reads, at or below the synced position.
pub(super) async fn dump_reader<W: Write + Send + 'static>(
    reader: &Reader,
    out: W,
    name: &str,
    compress: bool,
) -> Result<(W, DumpSummary)> {
    let shared = reader.shared();
    let (indexes, whole) = indexing::whole_at(shared, reader.position());
    let indexes = if whole { indexes } else { Vec::new() };
    let base = shared.log.head_at(reader.position())?;
    let mut writer = begin_state(out, name, compress, (shared.log.id(), shared.log.created()), base, indexes)?;
    let mut entries = reader.scan_all(true);
    while let Some(entry) = entries.next().await {
        put(&mut writer, &entry?, whole)?;
    }
    Ok(writer.finish()?)
}

impl BesideReader {
    /// The same of the state that it reads, beside the process that has the store open; `files` are the log's. Entries of indexes
    /// are left out: who restores it builds them.
    ///
    /// # Errors
    /// As [`Store::dump_state`], and `unavailable` when the connection breaks.
    pub async fn dump_state<W: Write + Send + 'static>(
        &self,
        files: &LogFiles,
        out: W,
        name: &str,
        compress: bool,
    ) -> Result<(W, DumpSummary)> {
        files.refresh()?;
        let base = files.head_at(self.position())?;
        let mut writer = begin_state(out, name, compress, (files.id(), files.created()), base, Vec::new())?;
        let mut entries = self.scan_all(true).await?;
        while let Some(entry) = entries.next().await {
            put(&mut writer, &entry?, false)?;
        }
        Ok(writer.finish()?)
    }
}

fn begin_state<W: Write + Send + 'static>(
    out: W,
    name: &str,
    compressed: bool,
    (log_id, created): (LogId, Timestamp),
    base: Head,
    indexes: Vec<DumpedIndex>,
) -> Result<DumpWriter<W>> {
    if base.position == Position::ZERO {
        let message = "nothing had happened in the store, so it has no state to dump";
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let header = DumpHeader { kind: DumpKind::State, compressed, log_id, created, base, indexes };
    Ok(DumpWriter::new(out, name, header)?)
}

fn put<W: Write + Send + 'static>(writer: &mut DumpWriter<W>, entry: &Entry, with_indexes: bool) -> Result<()> {
    if with_indexes || !entry.encoded_key.starts_with(INDEX_PARTITIONS) {
        writer.entry(&entry.encoded_key, entry.version, &entry.value)?;
    }
    Ok(())
}
