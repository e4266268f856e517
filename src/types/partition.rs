//! [`PartitionClass`]: what a partition is for.

use super::OWN_PARTITION_BYTE;

/// Partitions of lakeFS that hold what a running server tells itself (data-model page, section 4.0).
const OPERATIONAL: [&[u8]; 3] = [b"catalog", b"mc-ownership", b"usage"];

/// Whether a partition holds records that matter to people, or what a running server tells itself.
///
/// Listings of the log hide transactions that write operational partitions only, unless asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionClass {
    /// Users, repositories, branches, objects: what is audited.
    Record,
    /// Heartbeats (`catalog`), leases (`mc-ownership`), counters (`usage`), and the store's own
    /// partitions.
    Operational,
}

impl PartitionClass {
    /// The class of a partition.
    pub fn of(partition: &[u8]) -> PartitionClass {
        if partition.first() == Some(&OWN_PARTITION_BYTE) || OPERATIONAL.contains(&partition) {
            PartitionClass::Operational
        } else {
            PartitionClass::Record
        }
    }
}
