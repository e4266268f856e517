//! The vocabulary that every room speaks: ids, keys, limits, stamps, entries, errors.
//!
//! Owns plain values without behaviour beyond encoding and ordering. Knows no file, no clock, no
//! thread, and imports nothing from the rest of the crate.

mod at;
mod entry;
mod error;
mod heads;
mod ids;
mod key;
mod limits;
mod partition;
mod slice;
mod stamp;

pub use at::At;
pub use entry::{Entry, KeyVersion, Page, VersionPage};
pub use error::{Error, ErrorKind, Result};
pub(crate) use heads::Heads;
pub use ids::{Digest, Hash, LogId, Position, Salt, Timestamp};
pub use key::{Key, KeyRange, OWN_PARTITION_BYTE};
pub use limits::Limits;
pub use partition::PartitionClass;
pub use slice::Slice;
pub use stamp::{LogStamp, ProjectionVersion, Stamp};
