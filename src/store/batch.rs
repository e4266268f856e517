//! [`Batch`]: writes over any keys and partitions that happen at one position or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::prepare::{check_key, check_value};
use crate::event::Event;
use crate::types::{Error, ErrorKind, Key, Position, Result, Slice};

/// What must hold of a key for a transaction to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// There is no entry.
    Absent,
    /// There is an entry, whatever its value.
    Exists,
    /// The entry is the one written at this position: a value that changed and changed back does not
    /// pass.
    Version(Position),
    /// The entry has exactly this value.
    Value(Bytes),
}

impl Predicate {
    /// Whether it holds for what was read.
    pub(crate) fn holds(&self, found: Option<&(Position, Slice)>) -> bool {
        match (self, found) {
            (Predicate::Absent, found) => found.is_none(),
            (_, None) => false,
            (Predicate::Exists, Some(_)) => true,
            (Predicate::Version(version), Some((found, _))) => version == found,
            (Predicate::Value(value), Some((_, found))) => value[..] == found[..],
        }
    }

    /// Errors: `conflict` when it does not hold for what was read of the key.
    pub(crate) fn check(&self, key: &Key, found: Option<(Position, Slice)>) -> Result<()> {
        if self.holds(found.as_ref()) {
            return Ok(());
        }
        let partition = Key::partition_of(key).unwrap_or_default();
        let (partition, name) = (partition.escape_ascii(), key[Key::key_start(key).unwrap_or(0)..].escape_ascii());
        let version = found.map_or_else(|| "none".to_owned(), |(version, _)| version.to_string());
        let message = format!("a predicate failed, partition=`{partition}` key=`{name}` version=`{version}`");
        Err(Error::new(ErrorKind::Conflict, message))
    }
}

/// Writes and conditions, applied together. Range deletes apply first, in order, then key writes; a
/// key may be written once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) ranges: Vec<(Bytes, Bytes)>,
    pub(crate) writes: Vec<Event>,
    pub(crate) checks: Vec<(Key, Predicate)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets a key.
    #[must_use]
    pub fn set(mut self, partition: &[u8], key: &[u8], value: &[u8]) -> Batch {
        let (partition, key) = (Bytes::copy_from_slice(partition), Bytes::copy_from_slice(key));
        self.writes.push(Event::Set { partition, key, value: Bytes::copy_from_slice(value) });
        self
    }

    /// Deletes a key; a missing one is no error.
    #[must_use]
    pub fn delete(mut self, partition: &[u8], key: &[u8]) -> Batch {
        let (partition, key) = (Bytes::copy_from_slice(partition), Bytes::copy_from_slice(key));
        self.writes.push(Event::Delete { partition, key });
        self
    }

    /// Deletes every key of a partition that begins with `prefix` (empty: all).
    #[must_use]
    pub fn delete_range(mut self, partition: &[u8], prefix: &[u8]) -> Batch {
        self.ranges.push((Bytes::copy_from_slice(partition), Bytes::copy_from_slice(prefix)));
        self
    }

    /// Applies the batch only if the predicate holds for the key, else `conflict`.
    #[must_use]
    pub fn check(mut self, partition: &[u8], key: &[u8], predicate: Predicate) -> Batch {
        self.checks.push((Key::new(partition, key), predicate));
        self
    }

    /// Sets a key if the predicate holds for it, else `conflict`.
    #[must_use]
    pub fn set_if(self, partition: &[u8], key: &[u8], value: &[u8], predicate: Predicate) -> Batch {
        self.check(partition, key, predicate).set(partition, key, value)
    }

    /// Deletes a key if the predicate holds for it, else `conflict`.
    #[must_use]
    pub fn delete_if(self, partition: &[u8], key: &[u8], predicate: Predicate) -> Batch {
        self.check(partition, key, predicate).delete(partition, key)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.writes.is_empty() && self.checks.is_empty()
    }

    /// Checks arguments; no key is written twice.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut written = BTreeMap::new();
        for event in &self.writes {
            let (partition, key) = match event {
                Event::Set { partition, key, value } => {
                    check_value(value)?;
                    (partition, key)
                }
                Event::Delete { partition, key } => (partition, key),
                _ => continue,
            };
            check_key(partition, key)?;
            if self.writes.len() > 1 && written.insert((partition, key), ()).is_some() {
                let (partition, key) = (partition.escape_ascii(), key.escape_ascii());
                let message = format!("a key is written twice in one transaction, partition=`{partition}` key=`{key}`");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        for (partition, prefix) in &self.ranges {
            super::prepare::check_range(partition, prefix)?;
        }
        for (key, _) in &self.checks {
            let partition = Key::partition_of(key).unwrap_or_default();
            let start = Key::key_start(key).unwrap_or(0);
            super::prepare::check_readable(&partition, key.get(start..).unwrap_or_default())?;
        }
        Ok(())
    }
}
