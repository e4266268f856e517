//! The store: the facade, the commit loop, checkpoints, recovery of the views.
//!
//! The only place where log, projection and backends meet. Order of a change (law 2): decide on the
//! caller's side, validate in the committer, insert unseen, append, sync, publish, answer.

mod answers;
mod archived;
mod batch;
mod beside;
mod builder;
mod checkpoint;
mod committer;
mod context;
mod cursors;
mod decoded;
mod diff;
mod engine;
mod erasing;
mod facade;
mod feed;
mod filter;
mod findings;
mod history;
mod indexing;
mod insertion;
mod lane;
mod marks;
mod open;
mod owed;
mod pages;
mod past;
mod prepare;
mod queue;
mod reader;
mod recent;
mod redact;
mod replay;
mod requests;
mod restoring;
mod retention;
mod rewind;
mod scrub;
mod seed;
mod settings;
mod snapshot;
mod stats;
mod submission;
mod subscribe;
mod threads;
mod transaction;
mod trim;
mod turn;
mod undo;

#[cfg(test)]
mod archived_redactions;
#[cfg(test)]
mod archives;
#[cfg(test)]
mod dumps;
#[cfg(test)]
mod feed_model;
#[cfg(test)]
mod feed_tests;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod model;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod races;
#[cfg(test)]
mod redactions;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod serializable;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trims;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod turns;

pub use archived::{Archive, ArchivedPast};
pub use batch::{Batch, Predicate};
pub use beside::{BesideReader, BesideStream};
pub use builder::Builder;
pub use context::{Context, RequestId};
pub use cursors::Cursor;
pub use diff::{DiffOptions, Difference, Differences};
pub use facade::{Committed, Store};
pub use feed::{Delivered, Delivery};
pub use filter::Filter;
pub use history::{History, Origin, Version};
pub use marks::Mark;
pub(crate) use open::{BASE_DIR, LOCK_FILE, LOG_DIR, base_in};
pub(crate) use owed::owed_in;
pub(crate) use prepare::{check_key, check_value};
pub use reader::{EntryStream, Reader, ScanOptions};
pub use redact::{ArchiveGap, Redact, RedactOptions, Redacted};
pub(crate) use replay::rebuild;
pub use retention::Retention;
pub use rewind::Rewound;
pub use scrub::{ScrubDamage, ScrubReport};
pub(crate) use seed::seed;
pub use settings::{CommitOn, Durability, Settings};
pub use stats::Stats;
pub use subscribe::{SubscribeFrom, Subscription};
pub use transaction::{Answer, Tx};
pub use trim::{TrimOptions, Trimmed};
pub use undo::{Dependent, Undo};
