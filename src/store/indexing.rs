//! Building an index that a store does not have yet, while everything else serves.
//!
//! From the open on, every write keeps the new index up like the others. What was written before is
//! read at one pinned position and its entries are inserted at the versions of what they index, so a
//! later change that is already there hides them. The index is asked only once it is whole; a
//! checkpoint names it as being built until then, so that a kill starts the build again.

use super::checkpoint;
use super::context::Context;
use super::engine::Shared;
use super::facade::Store;
use crate::projection::{IndexSet, Scanner, WriteSet};
use crate::types::{Entry, Error, ErrorKind, ProjectionVersion, Result};

/// Marks an index in a stamp that is not whole yet.
const BUILDING: &str = "building:";

/// The indexes that a fresh or trusted base stands for: those that its stamp names as whole, and
/// those to build, as the next stamp will name them.
pub(crate) fn projections(indexes: &IndexSet, stamped: Option<&[ProjectionVersion]>) -> Vec<ProjectionVersion> {
    let mut projections = indexes.versions();
    if let Some(stamped) = stamped {
        for projection in projections.iter_mut().filter(|projection| !stamped.contains(projection)) {
            projection.name.insert_str(0, BUILDING);
        }
    }
    projections
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

/// The indexes that are to be built.
fn missing(shared: &Shared) -> IndexSet {
    let built = shared.built.lock();
    shared.indexes.only(|name| built.iter().any(|projection| projection.name.strip_prefix(BUILDING) == Some(name)))
}

/// `unavailable` while the index is being built.
pub(crate) fn check_built(shared: &Shared, name: &str) -> Result<()> {
    if shared.built.lock().iter().any(|projection| projection.name == name) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, format!("the index is being built, index=`{name}`; try again")))
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
        // No other checkpoint may come between the transaction and the stamp that calls the index whole.
        let one = shared.checkpointing.lock().await;
        // A checkpoint needs a position of its own to be stamped with, and the audit should say that
        // something happened here.
        self.append(&Context::new("lakelog").reason("an index was built"), Vec::new()).await?;
        for projection in shared.built.lock().iter_mut() {
            if let Some(name) = projection.name.strip_prefix(BUILDING) {
                projection.name = name.to_owned();
            }
        }
        checkpoint::run_alone(shared, &one).await.map(|_| ())
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
            for entry in &page {
                let mut set = WriteSet::default();
                missing.project(&entry.encoded_key, None, Some(&entry.value), &mut set);
                if !set.is_empty() {
                    shared.view.insert_late(entry.version, &set);
                }
            }
            if shared.view.layers().active().bytes() >= shared.settings.memtable_soft_bytes {
                // Memory stays bounded although nobody else may be writing.
                self.append(&Context::new("lakelog").reason("an index is being built"), Vec::new()).await?;
                checkpoint::run(shared).await?;
            }
        }
    }
}
