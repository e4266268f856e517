//! The state out of the log's files: a base filled from the snapshot that a log begins at, and a dump of the state.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::facade::Store;
use super::indexing;
use crate::backends::{Backend, BackendError, Change};
use crate::dump::{DumpError, DumpHeader, DumpKind, DumpSummary, DumpWriter, DumpedIndex, SnapshotReader};
use crate::env::Env;
use crate::log::{Head, Snapshot};
use crate::projection::{INDEX_PARTITIONS, IndexSet};
use crate::types::{Error, ErrorKind, LogId, Position, ProjectionVersion, Result, Slice, Stamp};

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
    /// Writes a dump of the state of now, without its history: a new store can be begun with it. `name` is what errors call
    /// the file. What was written is a dump only when this has returned. Blocks the task on the sink.
    ///
    /// # Errors
    /// `invalid` for a store in which nothing ever happened; `unavailable` when the sink fails.
    pub async fn dump_state<W: Write + Send + 'static>(
        &self,
        out: W,
        name: &str,
        compress: bool,
    ) -> Result<(W, DumpSummary)> {
        let shared = self.shared();
        let reader = self.reader();
        let indexes = indexing::whole(shared, reader.position());
        // In every setting, what is dumped is durable.
        self.sync().await?;
        if reader.position() == Position::ZERO {
            return Err(Error::new(
                ErrorKind::Invalid,
                "nothing ever happened in the store, so it has no state to dump",
            ));
        }
        let header = DumpHeader {
            kind: DumpKind::State,
            compressed: compress,
            log_id: shared.log.id(),
            created: shared.log.created(),
            base: shared.log.head_at(reader.position())?,
            indexes,
        };
        let mut writer = DumpWriter::new(out, name, header)?;
        let mut entries = reader.scan_all(true);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            writer.entry(&entry.encoded_key, entry.version, &entry.value)?;
        }
        Ok(writer.finish()?)
    }
}
