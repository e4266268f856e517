//! The caller's side of a commit: checking arguments, encoding, hashing.
//!
//! Everything that does not depend on a transaction's place is done here, on the caller's thread, so
//! that the one committer thread does as little as possible.

use bytes::Bytes;

use super::context::Context;
use super::engine::Shared;
use crate::event::{self, Event, Request};
use crate::projection::{Restored, Write, WriteSet, project_events};
use crate::types::{Digest, Error, ErrorKind, Limits, OWN_PARTITION_BYTE, Result, Salt};

/// What an event takes of the queue's room beside its bytes.
const EVENT_BYTES: usize = 32;

/// A transaction with everything but its place in the log.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub payload: Bytes,
    pub salt: Salt,
    pub digest: Digest,
    pub set: WriteSet,
    /// Which writes of `set` an index covers.
    pub indexed: Vec<usize>,
    pub request: Option<Request>,
}

impl Prepared {
    /// Encodes and hashes a transaction within the limits.
    pub fn new(
        shared: &Shared,
        context: &Context,
        answer: Bytes,
        events: &[Event],
        restored: Vec<Restored>,
    ) -> Result<Prepared> {
        if events.len() > Limits::TRANSACTION_OPERATIONS_MAX {
            return Err(too_large("operations", events.len(), Limits::TRANSACTION_OPERATIONS_MAX));
        }
        if answer.len() > Limits::ANSWER_BYTES_MAX && context.request.is_some() {
            return Err(too_large("answer bytes", answer.len(), Limits::ANSWER_BYTES_MAX));
        }
        let request =
            context.request.as_ref().map(|request| Request { id: request.id.clone(), digest: request.digest, answer });
        let set = project_events(events, restored);
        let payload = event::encode(&context.actor, context.reason.as_deref(), request.as_ref(), events);
        if payload.len() > Limits::TRANSACTION_BYTES_MAX {
            return Err(too_large("bytes", payload.len(), Limits::TRANSACTION_BYTES_MAX));
        }
        let mut salt = Salt::default();
        shared.env.entropy.fill(&mut salt.0);
        let digest = Digest::of(&salt, &payload);
        let covered = set.writes.iter().enumerate().filter(|(_, write)| shared.indexes.covers(&write.key));
        let indexed = covered.map(|(at, _)| at).collect();
        Ok(Prepared { payload, salt, digest, set, indexed, request })
    }

    /// The writes that an index covers.
    pub fn indexed_writes(&self) -> impl Iterator<Item = &Write> {
        self.indexed.iter().filter_map(|&at| self.set.writes.get(at))
    }
}

/// What a transaction takes of the queue's room once it is prepared, in bytes: payload and write set hold the same bytes once each.
pub(crate) fn room_bytes(events: &[Event], restored: &[Restored]) -> usize {
    let restored: usize = restored.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    2 * events.iter().map(|event| event.bytes() + EVENT_BYTES).sum::<usize>() + restored + 512
}

fn too_large(what: &str, found: usize, max: usize) -> Error {
    Error::new(ErrorKind::Invalid, format!("the transaction is too large, {what}=`{found}` limit=`{max}`"))
}

/// Checks a partition and a key that are to be read: neither is empty.
pub(crate) fn check_readable(partition: &[u8], key: &[u8]) -> Result<()> {
    check_partition(partition)?;
    if key.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "the key is empty"));
    }
    check_length(partition, key)
}

/// Checks a partition and a key that are to be written.
pub(crate) fn check_key(partition: &[u8], key: &[u8]) -> Result<()> {
    check_writable(partition)?;
    check_readable(partition, key)
}

/// Checks a range that is to be deleted; the prefix may be empty.
pub(crate) fn check_range(partition: &[u8], prefix: &[u8]) -> Result<()> {
    check_writable(partition)?;
    check_partition(partition)?;
    check_length(partition, prefix)
}

/// Checks a value.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > Limits::VALUE_BYTES_MAX {
        let (found, max) = (value.len(), Limits::VALUE_BYTES_MAX);
        return Err(Error::new(ErrorKind::Invalid, format!("the value is too long, bytes=`{found}` limit=`{max}`")));
    }
    Ok(())
}

/// Checks a partition that is to be read.
pub(crate) fn check_partition(partition: &[u8]) -> Result<()> {
    let (found, max) = (partition.len(), Limits::PARTITION_BYTES_MAX);
    if found == 0 {
        return Err(Error::new(ErrorKind::Invalid, "the partition is empty"));
    }
    if found > max {
        let message = format!("the partition is too long, bytes=`{found}` limit=`{max}`");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn check_writable(partition: &[u8]) -> Result<()> {
    if partition.first() == Some(&OWN_PARTITION_BYTE) {
        let partition = partition.escape_ascii();
        let message = format!("the partition belongs to the store itself, partition=`{partition}`");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn check_length(partition: &[u8], key: &[u8]) -> Result<()> {
    let (found, max) = (partition.len() + key.len(), Limits::PARTITION_AND_KEY_BYTES_MAX);
    if found > max {
        let message = format!("partition and key are too long, bytes=`{found}` limit=`{max}`");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}
