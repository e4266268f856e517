//! Projection: from events to key/value writes, index entries, and the live view over them.
//!
//! Owns the pure middle of the store: what an event writes ([`WriteSet`]), what the indexes add, the
//! multi-version memtable, the view of memtables over a base, scans at one position, and the stream
//! of changes that a checkpoint writes. Touches no file, clock or thread; positions and times arrive
//! as arguments. The only I/O is a read of the base through its trait.

mod changes;
mod index;
mod leaves;
mod memtable;
mod pins;
mod project;
mod ranges;
mod references;
mod run;
mod scan;
#[cfg(test)]
mod tests;
mod timeline;
mod view;
mod write_set;

pub use changes::{Keep, changes};
pub use index::{INDEX_PARTITIONS, Index, IndexEntry, IndexSet, UsersByEmail};
pub use memtable::{Found, Memtable};
pub use pins::{Pin, Pins};
pub use project::{
    CURSORS, MARKS, REDACTIONS, REQUESTS, REQUESTS_BY_TIME, RESTORES, Remembered, Restored, decode_request_time_key,
    project_events, project_request, redaction_key,
};
pub use references::{may_be_referred_to, references};
pub use run::Run;
pub use scan::{Scanner, redactions};
pub use timeline::{Timeline, Timelines};
pub use view::{Layers, View};
pub use write_set::{Write, WriteSet};
