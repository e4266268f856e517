//! Dumps: a history, a part of it, or a state, as one stream of bytes that proves itself.
//!
//! Owns the format of a dump (`docs/format.md`, part 5), taking one from a log's files, checking one, and bringing one
//! into a log. A snapshot in the log's directory is a dump of the state. Knows the log and its frames; of events only
//! redactions, and of views nothing: entries of a state are handed in and out.

mod blocks;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hashed;
mod output;
mod pass;
mod prover;
mod reader;
mod redactions;
mod restore;
mod snapshot;
mod source;
mod take;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use error::DumpError;
pub use format::{DUMP_FORMAT, DumpHeader, DumpKind, DumpedIndex};
pub(crate) use hashed::Hashed;
pub use reader::{DumpItem, DumpReader, StateEntry};
pub use restore::{RestoreOptions, Restored, restore};
pub use snapshot::{SnapshotReader, SnapshotWriter};
pub use source::DumpSource;
#[cfg(test)]
pub(crate) use take::snapshot_at;
pub use take::{DumpOptions, dump};
pub use verify::verify;
pub use writer::{DumpSummary, DumpWriter};
