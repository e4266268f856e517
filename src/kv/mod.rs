//! The key/value contract that lakeFS-like servers write through: get, set, set-if, delete, scan.
//!
//! Owns the trait [`KeyValue`], its implementation [`Kv`] over a [`Store`](crate::Store), the
//! iterators and message functions on top of the trait, and the suite that every implementation
//! passes (`conformance`, under the feature of that name). It never refuses or cascades on domain grounds: a
//! server has rules of its own. Transactions, history and range deletes are the store's, not this
//! contract's.
//!
//! What lakeFS has and this contract has not, because nothing here corresponds to it:
//!
//! - A registry of drivers, with its errors (unknown driver, driver configuration, connect failed, setup
//!   failed, table not active): a [`Kv`] is constructed over an open store, and opening one
//!   has the store's errors.
//! - Schema versions (migration required, migration version): the server reads and writes that entry
//!   as any other.
//! - Import files and dumps (invalid format, unsupported): these are `migrate`'s.
//! - The registry of value types (pattern already registered).
//! - A cancelled context: dropping a future cancels the call. A read that is dropped did nothing; a write that
//!   is dropped is applied wholly or not at all.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod entries;
mod error;
mod message;
mod over_store;
mod partition;
mod predicate;
mod prefix;
mod primary;
mod secondary;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

pub use entries::{Entries, KvScan};
pub use error::KvError;
pub use message::{MessageEntry, get_message, set_message, set_message_if};
pub use over_store::Kv;
pub use partition::PartitionIterator;
pub use predicate::{KvPredicate, KvToken, KvValue};
pub use prefix::{PrefixIterator, format_path, scan_prefix};
pub use primary::{PrimaryIterator, StartAt};
pub use secondary::{SecondaryIndex, SecondaryIterator};

/// What the contract's methods return: a future that may be sent between threads. Nothing happens
/// before it is polled.
pub type KvFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KvError>> + Send + 'a>>;

/// (partition, key) -> value, all byte strings; ordered bytewise within a partition. Dyn-safe, so
/// that a server can wrap it (limits, metrics).
///
/// Shared contract:
///
/// - **Partitions** need no creation; an absent one and an empty one are the same. Partitions that are
///   prefixes of one another do not see each other's keys. No call spans two.
/// - **Arguments** are checked in this order and before any I/O: an empty partition is
///   [`KvError::MissingPartition`], an empty key [`KvError::MissingKey`], no value
///   [`KvError::MissingValue`]. A value of no bytes is legal and differs from absent. What exceeds a limit of the
///   implementation (see [`crate::Limits`]) is refused and changes nothing.
/// - **Aliasing:** an implementation keeps no reference to the caller's buffers.
/// - **Atomicity:** each call by itself. When a write has returned it is durable and every later
///   read sees it.
pub trait KeyValue: Send + Sync {
    /// The value of a key and the predicate that says "still this entry". [`KvError::NotFound`] when
    /// there is no entry.
    fn get<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, KvValue>;

    /// Sets a key; the last writer wins.
    fn set<'a>(&'a self, partition: &'a [u8], key: &'a [u8], value: Option<&'a [u8]>) -> KvFuture<'a, ()>;

    /// Sets a key if the predicate holds for it at that moment, else [`KvError::PredicateFailed`] and nothing
    /// is changed.
    fn set_if<'a>(
        &'a self,
        partition: &'a [u8],
        key: &'a [u8],
        value: Option<&'a [u8]>,
        predicate: &'a KvPredicate,
    ) -> KvFuture<'a, ()>;

    /// Deletes a key; a missing key or partition is no error.
    fn delete<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, ()>;

    /// The entries of a partition in key order, from [`KvScan::key_start`] to its end. What is written
    /// meanwhile, by whomever, does not disturb it: keys that are untouched during the whole scan come exactly
    /// once. [`KvError::BatchSizeTooBig`] above [`KvScan::BATCH_SIZE_MAX`].
    fn scan<'a>(&'a self, partition: &'a [u8], options: KvScan<'a>) -> KvFuture<'a, Box<dyn Entries>>;

    /// Ends the use of the store; afterwards every call fails, a scan with its first item at the latest.
    /// Closing again is no error.
    fn close(&self) -> KvFuture<'_, ()>;
}
