//! Where checkpoints rest: one small trait, one conformance suite, several homes.
//!
//! A backend is a cache to us (law 8): it holds what was projected up to a stamp and may be dropped
//! and rebuilt at any time. It knows ordered bytes and versions, no partitions, no events, no log.

mod checked;
#[cfg(any(test, feature = "conformance"))]
#[allow(clippy::panic, reason = "a suite is a test, wherever it is compiled")]
pub mod conformance;
mod error;
mod forward;
mod memory;
mod observed;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sled", feature = "postgres"))]
mod ranges;
mod readable;
#[cfg(feature = "sled")]
mod sled;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

pub use error::BackendError;
pub use memory::MemoryBackend;
pub use observed::Observed;
#[cfg(feature = "postgres")]
pub(crate) use postgres::PostgresReader;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBackend, PostgresSettings};
#[cfg(feature = "sled")]
pub use sled::{SledBackend, SledSettings};

use crate::types::{Page, Position, Slice, Stamp, VersionPage};

/// What a backend's methods return: a future that may be sent between threads.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// The changes of one checkpoint: all range deletes first, by ascending version, then key changes by
/// ascending key and, for one key, descending version.
pub type Changes<'a> = Box<dyn Iterator<Item = Result<Change, BackendError>> + Send + 'a>;

/// One change of a checkpoint. Keys are encoded pairs ([`crate::Key`]); prefixes are encoded too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The keys that begin with `prefix` and whose version is below `version` are gone.
    DeleteRange {
        /// The encoded prefix.
        prefix: Slice,
        /// The position of the range delete.
        version: Position,
    },
    /// A key has a value.
    Put {
        /// The encoded key.
        key: Slice,
        /// The position that wrote it.
        version: Position,
        /// The value, possibly empty.
        value: Slice,
    },
    /// A key is gone.
    Delete {
        /// The encoded key.
        key: Slice,
        /// The position that deleted it.
        version: Position,
    },
}

/// How much a backend holds, for `stats` and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk, as far as the backend can tell.
    pub disk_bytes: u64,
    /// Bytes of memory that it holds on to (caches, indexes).
    pub memory_bytes: u64,
}

/// Ordered, versioned bytes with atomic, stamped writes. Dyn-safe; at most eight methods.
///
/// Shared contract:
///
/// - **What a read sees.** A read names a position `at`. For each key it sees the newest version not
///   above `at`, unless that is a delete, or a range delete with a version above it and not above
///   `at` covers the key. (A put whose version *equals* that of a range delete is visible: range
///   operations apply first.)
/// - **Readable positions** are the position of the current stamp, every position from [`Stamp::history`] on where the
///   stamp says one, and every position named by the last [`Backend::maintain`] or as `keep` of a write since.
///   Reading at any other is `Unreadable`.
///   Without a stamp the current position is [`Position::ZERO`], where everything is absent. A position
///   that was let go does not become readable again by being named. After reopening a durable
///   backend, what was readable at its last completed write is; the opener says what to keep.
/// - **Damage** is an error, never an absent key and never a panic: `Corrupt` names what is damaged.
/// - Futures of local backends may block for one page of I/O; a caller that minds runs them on a
///   blocking thread.
pub trait Backend: Debug + Send + Sync {
    /// The stamp of the last completed write, `None` when nothing was ever written or after
    /// [`Backend::clear`]. Cheap. Fails `Corrupt` when there is something that cannot be trusted.
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>>;

    /// Brings the state to `stamp`, atomically and durably: after a crash either the former state with
    /// its stamp or the new one is there. `changes` has every change in (former stamp, `stamp`] that a
    /// read at `stamp` or at a position of `keep` can see; beside those there may be late puts, versions at or
    /// below the former stamp of keys that were never written before (an index that is being built). Positions of `keep` (sorted, some below
    /// the former stamp) stay readable until a later `maintain` leaves them out; with a history, `changes` has every change. On an
    /// error, also one that comes out of `changes`, nothing is changed. `Invalid` are: a stamp not above the former one, or of
    /// another log; a history that begins below the former one's, or below the stamp where the former kept none.
    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()>;

    /// The entry of an encoded key at a position: version and value.
    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>>;

    /// Live entries with `from <= key < to` (`to` empty: to the end) in order: at most `limit` of
    /// them (0 counts as 1), fewer when a page grows large. [`Page::next`] is `None` only when the range is exhausted. An
    /// empty range gives an empty page.
    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page>;

    /// The versions, deletes included, of the keys with `from <= key < to` (`to` empty: to the end): at most `limit` of
    /// them (0 counts as 1), fewer when a page grows large. Of the key `from` only versions below `below`
    /// ([`Position::MAX`]: all). A range delete appears as a delete of each key that it hid. Versions that no position
    /// of the history sees may be left out, as may deletes of what was not there. `Unreadable` when the stamp keeps no history.
    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage>;

    /// Says which positions besides the stamp `at` and its history must stay readable (sorted): others become unreadable at
    /// once, and what only they could see may be dropped; unless a write has completed since, which may keep more. Then does one
    /// bounded piece of background work (merging, removing what is superseded); `true` when there is more. Never changes what any
    /// readable position shows.
    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool>;

    /// Drops everything, durably: afterwards there is no stamp.
    fn clear(&self) -> BackendFuture<'_, ()>;

    /// How much is held. Cheap.
    fn usage(&self) -> Usage;
}
