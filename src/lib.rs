//! lakelog: an embeddable, event-sourced, log-structured metadata store.
//!
//! It holds what a data-versioning server of the lakeFS kind keeps in its database: users, policies,
//! repositories, branches, commits, staged objects. Every change is an event in an append-only, checksummed
//! log; the key/value view, its indexes and its checkpoints are projections of that log.
//!
//! ```
//! use lakelog::{Batch, Context, Predicate, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> lakelog::Result<()> {
//! # let scratch = tempfile::tempdir().unwrap();
//! # let directory = scratch.path().join("metadata");
//! let store = Store::builder(directory).open_or_create().await?;
//! let create = Batch::new().set_if(b"graveler", b"repos/demo", b"...", Predicate::Absent);
//! let done = store.write(Context::new("alice").reason("first repository"), create).await?;
//! // Durable from here on, and visible to everybody.
//! let entry = store.get(b"graveler", b"repos/demo").await?.expect("it was just written");
//! assert_eq!(entry.version, done.position);
//! let answer = store.transact(Context::new("alice"), |tx| async move {
//!     let repositories = tx.scan(lakelog::ScanOptions::new(b"graveler").prefix(b"repos/")).await?;
//!     tx.set(b"usage", b"repositories", repositories.len().to_string().as_bytes())?;
//!     Ok(repositories.len() as u64)
//! });
//! assert_eq!(answer.await?.answer, 1);
//! store.close().await
//! # }
//! ```
//!
//! # How a change goes
//!
//! ```text
//!           command              events              frame               (position, write set)
//!   caller ----------> closure ---------> committer ------> log ------> projection ---> view, indexes
//!              reads    ^   one transaction   validate,      append,      | publish        |
//!                       |                     insert unseen  sync         | replay         | checkpoint
//!                       +----------------- view reads <-------------------+                v
//!                                                                         backends: sled | Postgres | memory
//! ```
//!
//! - [`Store`] opens, writes ([`Batch`]), runs transactions ([`Tx`]), reads ([`Reader`]), checkpoints.
//! - [`Store::subscribe`] follows the log ([`Filter`], [`Delivery`]); [`Store::mark`] names a position, [`At`] means one.
//! - [`Settings`] tells every knob with its default; [`Durability`] is the one to think about.
//! - [`Error`] is a kind that says what to do next, a message, and a source.
//! - [`kv`] is the key/value contract that a lakeFS server writes through; [`migrate`] brings lakeFS key/value files in
//!   and out; [`diagnostics`] verifies and repairs the files of a store.
//! - [`backends`] says what a base has to do, [`env`](mod@env) what the outside world has to be; both can be replaced.
//!
//! # What it is not
//!
//! No server and no network protocol: it is embedded by one, and one process writes to a store at a
//! time. It stores metadata, so a value ends at 16 MiB ([`Limits`]). It prints nothing and installs
//! nothing: logs go to `tracing`, figures to the `metrics` facade.
//!
//! # Features
//!
//! `sled` (default): the embedded base. `postgres` (default): the base in Postgres. `cli` (default): the command line. `conformance`: the suites
//! and the simulated file system, for those who write a backend. `fuzzing`: the fuzz targets.

#![forbid(unsafe_code)]

pub mod backends;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod diagnostics;
pub mod dump;
pub mod env;
pub mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod kv;
pub mod log;
pub mod migrate;
#[doc(hidden)]
pub mod projection;
mod store;
mod types;

pub use backends::{Backend, MemoryBackend};
#[cfg(feature = "postgres")]
pub use backends::{PostgresBackend, PostgresSettings};
#[cfg(feature = "sled")]
pub use backends::{SledBackend, SledSettings};
pub use env::Env;
pub use kv::{KeyValue, Kv, KvError, KvPredicate, KvScan, KvToken, KvValue};
pub use projection::{Index, IndexEntry};
pub use store::{
    Answer, Archive, ArchiveGap, ArchivedPast, Batch, BesideReader, BesideStream, Builder, CommitOn, Committed,
    Context, Cursor, Delivered, Delivery, Dependent, DiffOptions, Difference, Differences, Durability, EntryStream,
    Filter, History, Mark, Origin, Predicate, Reader, Redact, RedactOptions, Redacted, RequestId, Retention, Rewound,
    ScanOptions, ScrubDamage, ScrubReport, Settings, Stats, Store, SubscribeFrom, Subscription, TrimOptions, Trimmed,
    Tx, Undo, Version,
};
pub use types::{
    At, Digest, Entry, Error, ErrorKind, Hash, Key, KeyRange, KeyVersion, Limits, LogId, LogStamp, OWN_PARTITION_BYTE,
    Page, PartitionClass, Position, ProjectionVersion, Result, Salt, Slice, Stamp, Timestamp, VersionPage,
};
