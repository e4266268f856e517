//! [`Stats`]: how a store is doing.

use std::collections::BTreeMap;

use super::facade::Store;
use super::scrub::ScrubReport;
use crate::types::{LogId, Position, Result};

/// Figures of an open store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The log's identity.
    pub log_id: LogId,
    /// The last transaction that readers see.
    pub head: Position,
    /// The last durable transaction.
    pub synced: Position,
    /// The oldest readable state.
    pub floor: Position,
    /// The position of the base.
    pub checkpoint: Position,
    /// Entries by partition, the store's own left out.
    pub partitions: BTreeMap<Vec<u8>, u64>,
    /// Memory of recent writes and of the base's caches, in bytes.
    pub memory_bytes: u64,
    /// Bytes of the base on disk.
    pub base_bytes: u64,
    /// What the scrub did and found.
    pub scrub: ScrubReport,
}

impl Store {
    /// Counts everything: reads every entry once.
    pub async fn stats(&self) -> Result<Stats> {
        let reader = self.reader();
        let mut entries = reader.scan_all(false);
        let mut partitions: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            *partitions.entry(entry?.partition()).or_default() += 1;
        }
        let shared = self.shared();
        let layers = shared.view.layers();
        let usage = layers.base().usage();
        Ok(Stats {
            log_id: self.log_id(),
            head: self.head(),
            synced: self.synced(),
            floor: shared.log.floor(),
            checkpoint: layers.base_position(),
            partitions,
            memory_bytes: layers.bytes() as u64 + usage.memory_bytes,
            base_bytes: usage.disk_bytes,
            scrub: shared.scrub.lock().clone(),
        })
    }
}
