//! Building an index that a store does not have yet, while everything else serves.
//!
//! From the open on, every write keeps the new index up like the others. What was written before is
//! read at one pinned position and its entries are inserted at the versions of what they index, unless
//! something newer is known of them. The index is asked only once it is whole in the base; a checkpoint
//! names it as being built until then, so that a kill starts the build again.

use super::checkpoint;
use super::context::Context;
use super::engine::Shared;
use super::facade::Store;
use crate::dump::DumpedIndex;
use crate::projection::{IndexSet, Scanner, WriteSet};
use crate::types::{Entry, Error, ErrorKind, Position, ProjectionVersion, Result};

/// Marks an index in a stamp that is not whole yet.
const BUILDING: &str = "building:";

/// The indexes that a fresh or trusted base stands for: those that its stamp names as whole, and
/// those to build, as the next stamp will name them.
pub(crate) fn projections(indexes: &IndexSet, stamped: Option<&[ProjectionVersion]>) -> Vec<ProjectionVersion> {
    let mut projections = indexes.versions();
    if let Some(stamped) = stamped {
        for projection in &mut projections {
            match stamped.iter().find(|stamped| same(stamped, projection)) {
                Some(stamped) => projection.since = stamped.since,
                None => projection.name.insert_str(0, BUILDING),
            }
        }
    }
    projections
}

/// Whether two are the same index by the same rules.
fn same(a: &ProjectionVersion, b: &ProjectionVersion) -> bool {
    a.name == b.name && a.version == b.version
}

/// Whether every index that a stamp names is kept up by this program. One that is not would go stale
/// unseen, so its base is rebuilt.
pub(crate) fn all_known(indexes: &IndexSet, stamped: &[ProjectionVersion]) -> bool {
    let known = indexes.versions();
    stamped.iter().all(|projection| {
        let name = projection.name.strip_prefix(BUILDING).unwrap_or(&projection.name);
        known.iter().any(|known| known.name == name && known.version == projection.version)
    })
}

/// The indexes that the store holds whole at a position, as a dump of its state names them.
pub(crate) fn whole(shared: &Shared, at: Position) -> Vec<DumpedIndex> {
    let built = shared.built.lock();
    let whole = built.iter().filter(|index| !index.name.starts_with(BUILDING) && index.since <= at);
    whole.map(|whole| DumpedIndex { name: whole.name.clone(), version: whole.version }).collect()
}

/// The same at a position of the past, and whether these are all that there are entries of.
pub(crate) fn whole_at(shared: &Shared, position: Position) -> (Vec<DumpedIndex>, bool) {
    let built = shared.built.lock();
    let whole =
        |projection: &&ProjectionVersion| !projection.name.starts_with(BUILDING) && projection.since <= position;
    let indexes: Vec<DumpedIndex> = built
        .iter()
        .filter(whole)
        .map(|whole| DumpedIndex { name: whole.name.clone(), version: whole.version })
        .collect();
    let all = indexes.len() == built.len();
    (indexes, all)
}

/// The indexes that are to be built.
fn missing(shared: &Shared) -> IndexSet {
    let built = shared.built.lock();
    shared.indexes.only(|name| built.iter().any(|projection| projection.name.strip_prefix(BUILDING) == Some(name)))
}

/// `unavailable` while the index is being built; `not_found` below the position where it was.
pub(crate) fn check_built(shared: &Shared, name: &str, at: Position) -> Result<()> {
    match shared.built.lock().iter().find(|projection| projection.name == name) {
        Some(index) if at >= index.since => Ok(()),
        Some(index) => {
            let message = format!(
                "the index was built later, index=`{name}` position=`{at}` since=`{}`; scan the partition",
                index.since
            );
            Err(Error::new(ErrorKind::NotFound, message))
        }
        None => Err(Error::new(ErrorKind::Unavailable, format!("the index is being built, index=`{name}`; try again"))),
    }
}

impl Store {
    /// Builds the missing indexes, if any, and checkpoints the result.
    pub(crate) async fn build_indexes(&self) -> Result<()> {
        let shared = self.shared();
        let missing = missing(shared);
        if missing.is_empty() {
            return Ok(());
        }
        self.insert_entries(&missing).await?;
        let since = self.leave_trace("an index was built").await?;
        // All entries are frozen with this checkpoint, so the stamp of its last write may name the index as whole.
        let former = shared.built.lock().clone();
        let mut built = shared.indexes.versions();
        for index in &mut built {
            index.since = former.iter().find(|former| same(former, index)).map_or(since, |former| former.since);
        }
        checkpoint::run_as(shared, built).await.map(|_| ())
    }

    /// A checkpoint needs a position of its own to be stamped with, and the audit should say that something
    /// happened here.
    async fn leave_trace(&self, reason: &str) -> Result<Position> {
        self.append(&Context::new("lakelog").reason(reason), Vec::new()).await
    }

    async fn insert_entries(&self, missing: &IndexSet) -> Result<()> {
        let shared = self.shared();
        let pin = shared.view.pins().pin();
        let mut scanner = Scanner::new(shared.view.clone(), pin, &[], Vec::new(), 0);
        loop {
            let page: Vec<Entry> = scanner.page().await?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page.iter().filter(|entry| missing.covers(&entry.encoded_key)) {
                insert_entry(shared, missing, entry).await?;
            }
            // The committer rings for a checkpoint only when something is written.
            if shared.view.layers().active().bytes() >= shared.settings.memtable_soft_bytes {
                self.leave_trace("an index is being built").await?;
                checkpoint::run(shared).await?;
            }
        }
    }
}

/// Inserts the index entries of an entry that was read a while ago.
async fn insert_entry(shared: &Shared, missing: &IndexSet, entry: &Entry) -> Result<()> {
    let mut old = WriteSet::default();
    missing.project(&entry.encoded_key, None, Some(&entry.value), &mut old);
    loop {
        let generation = shared.view.layers().generation();
        let now = shared.view.latest(&entry.encoded_key).await?;
        let mut current = WriteSet::default();
        missing.project(&entry.encoded_key, None, now.as_ref().map(|(_, value)| &value[..]), &mut current);
        let mut set = WriteSet::default();
        for write in &old.writes {
            // What the entry does not give any more was deleted by the write that changed it; what is there
            // already was written since, or by a build that was interrupted.
            let wanted = current.writes.iter().any(|now| now.key == write.key);
            if wanted && shared.view.latest(&write.key).await?.is_none() {
                set.writes.push(write.clone());
            }
        }
        if set.is_empty() || shared.view.insert_late(generation, entry.version, &set) {
            return Ok(());
        }
    }
}
