//! Making the snapshot that a log begins at: the state at a position out of the view into a file in the log's directory,
//! proven before it has its name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::engine::Shared;
use super::indexing;
use crate::dump::{DumpError, DumpHeader, DumpKind, DumpWriter, DumpedIndex, SnapshotReader, SnapshotWriter};
use crate::env::Env;
use crate::log::{Head, LogError, Snapshot};
use crate::projection::{INDEX_PARTITIONS, Pin, Scanner};
use crate::types::{Entry, Error, ErrorKind, Position, Result};

/// The state at a pinned position, of which the view has everything.
#[derive(Debug)]
pub(super) struct State<'a> {
    shared: &'a Arc<Shared>,
    pin: Pin,
    head: Head,
    indexes: Vec<DumpedIndex>,
    /// An index that was built later is left out: it is built again from what is in.
    without_indexes: bool,
}

/// A snapshot that is synced and proven, under the name of something unfinished.
#[derive(Debug)]
#[must_use = "it holds room until it is finished or discarded"]
pub(super) struct Staged<'a> {
    shared: &'a Arc<Shared>,
    pub snapshot: Snapshot,
}

impl<'a> State<'a> {
    /// Of the position that `pin` holds: readable, and not above the base's.
    pub fn at(shared: &'a Arc<Shared>, pin: Pin) -> Result<State<'a>> {
        let head = shared.log.head_at(pin.position())?;
        let (indexes, whole) = indexing::whole_at(shared, head.position);
        let indexes = if whole { indexes } else { Vec::new() };
        Ok(State { shared, pin, head, indexes, without_indexes: !whole })
    }

    /// The size that its snapshot has, found by making it and keeping nothing.
    pub async fn bytes(&self) -> Result<u64> {
        let (log_id, created) = (self.shared.log.id(), self.shared.log.created());
        let (base, indexes) = (self.head, self.indexes.clone());
        let header = DumpHeader { kind: DumpKind::State, compressed: true, log_id, created, base, indexes };
        let mut writer = DumpWriter::new(io::sink(), "a snapshot", header)?;
        self.each(|entry| writer.entry(&entry.encoded_key, entry.version, &entry.value)).await?;
        Ok(writer.finish()?.1.bytes)
    }

    /// Makes it. What was written of it is removed when that fails.
    ///
    /// Errors: `unavailable` without room, see [`is_no_space`]; `internal` when what was read back is not what was written.
    pub async fn stage(&self) -> Result<Staged<'a>> {
        let made = self.write().await.and_then(|snapshot| {
            prove(&self.shared.env, self.shared, &snapshot)?;
            Ok(snapshot)
        });
        match made {
            Ok(snapshot) => Ok(Staged { shared: self.shared, snapshot }),
            Err(error) => {
                discard(self.shared);
                Err(error)
            }
        }
    }

    async fn write(&self) -> Result<Snapshot> {
        let path = Snapshot::unfinished(&self.shared.log_dir);
        let log = (self.shared.log.id(), self.shared.log.created());
        let mut writer = SnapshotWriter::create(&self.shared.env, &path, log, self.head, self.indexes.clone())?;
        self.each(|entry| writer.entry(&entry.encoded_key, entry.version, &entry.value)).await?;
        Ok(writer.finish()?.0)
    }

    async fn each(&self, mut take: impl FnMut(&Entry) -> Result<(), DumpError>) -> Result<()> {
        let mut scanner = Scanner::new(self.shared.view.clone(), self.pin.clone(), b"", Vec::new(), 0);
        loop {
            let page = scanner.page().await?;
            if page.is_empty() {
                return Ok(());
            }
            let index = |entry: &Entry| self.without_indexes && entry.encoded_key.starts_with(INDEX_PARTITIONS);
            page.iter().filter(|entry| !index(entry)).try_for_each(&mut take)?;
        }
    }
}

impl Staged<'_> {
    /// Gives the file its name, durably. It counts once the log lists it.
    pub fn finish(self) -> Result<Snapshot> {
        let (fs, dir) = (&self.shared.env.fs, &self.shared.log_dir);
        let (from, to) = (Snapshot::unfinished(dir), self.snapshot.path(dir));
        let failed = |source| Error::from(LogError::Io { action: "rename the snapshot", path: to.clone(), source });
        fs.rename(&from, &to).and_then(|()| fs.sync_dir(dir)).map_err(failed)?;
        Ok(self.snapshot)
    }

    /// Removes it.
    pub fn discard(self) {
        discard(self.shared);
    }
}

/// What could not be removed goes at the next attempt, or the next open.
fn discard(shared: &Shared) {
    let _ = shared.env.fs.remove_file(&Snapshot::unfinished(&shared.log_dir));
}

/// Writes a snapshot in `dir` anew without the values of some entries, which stay as empty ones, and gives it under its name; `None`
/// when it has none of them. Entries of indexes are left out where one may come from such a value.
pub(super) fn without(
    shared: &Shared,
    dir: &Path,
    snapshot: &Snapshot,
    erased: &dyn Fn(Position, &[u8]) -> bool,
) -> Result<Option<Snapshot>> {
    let (env, log_id) = (&shared.env, shared.log.id());
    let mut reader = SnapshotReader::open(env, dir, log_id, snapshot)?;
    let (mut found, mut covered) = (false, false);
    while let Some(entry) = reader.entry()? {
        if !entry.value.is_empty() && erased(entry.version, &entry.key) {
            found = true;
            covered |= shared.indexes.covers(&entry.key);
        }
    }
    if !found {
        return Ok(None);
    }
    let mut reader = SnapshotReader::open(env, dir, log_id, snapshot)?;
    let indexes = if covered { Vec::new() } else { reader.indexes().to_vec() };
    let path = Snapshot::unfinished(dir);
    let mut writer = SnapshotWriter::create(env, &path, (log_id, shared.log.created()), snapshot.head, indexes)?;
    while let Some(entry) = reader.entry()? {
        if covered && entry.key.starts_with(INDEX_PARTITIONS) {
            continue;
        }
        let value = if erased(entry.version, &entry.key) { &[][..] } else { &entry.value };
        writer.entry(&entry.key, entry.version, value)?;
    }
    let (rewritten, _) = writer.finish()?;
    let to = rewritten.path(dir);
    let failed = |source| Error::from(LogError::Io { action: "rename the snapshot", path: to.clone(), source });
    env.fs.rename(&path, &to).and_then(|()| env.fs.sync_dir(dir)).map_err(failed)?;
    Ok(Some(rewritten))
}

/// Reads back the file that is to become a snapshot.
fn prove(env: &Env, shared: &Shared, snapshot: &Snapshot) -> Result<()> {
    let path = Snapshot::unfinished(&shared.log_dir);
    let mut reader = SnapshotReader::open_unfinished(env, &path, shared.log.id(), snapshot)?;
    let read_back = (|| {
        while reader.entry()?.is_some() {}
        Ok(())
    })();
    read_back.map_err(|error: DumpError| match error {
        DumpError::Corrupt { .. } => {
            let message = format!("a snapshot does not read back as it was written, path=`{}`", path.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        }
        error => error.into(),
    })
}

/// Whether there was no room for it.
pub(super) fn is_no_space(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        }
        cause = error.source();
    }
    false
}
