//! [`Entry`] and [`Page`]: what reads hand out.

use super::{Key, Position, Slice};

/// One live entry of a view or a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The encoded pair of partition and key ([`Key`]).
    pub encoded_key: Slice,
    /// The position that wrote the entry.
    pub version: Position,
    /// The value; empty is legal and differs from absent.
    pub value: Slice,
}

impl Entry {
    /// The partition.
    pub fn partition(&self) -> Vec<u8> {
        Key::partition_of(&self.encoded_key).unwrap_or_default()
    }

    /// The key within its partition.
    pub fn key(&self) -> Slice {
        let start = Key::key_start(&self.encoded_key).unwrap_or(0);
        self.encoded_key.part(start..self.encoded_key.len())
    }
}

/// One version of a key: a value, or that the key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// The encoded pair of partition and key ([`Key`]).
    pub encoded_key: Slice,
    /// The position that wrote or deleted it.
    pub version: Position,
    /// The value; `None` where the key was deleted.
    pub value: Option<Slice>,
}

/// A bounded run of versions: keys in order, of one key the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// The versions found. May be empty although `next` is set.
    pub versions: Vec<KeyVersion>,
    /// Where to go on: a key, and the version below which its versions follow; `None` when the range is exhausted.
    pub next: Option<(Slice, Position)>,
}

/// A bounded run of entries in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries found, in order. May be empty although `next` is set.
    pub entries: Vec<Entry>,
    /// Where the following page begins (inclusive, encoded); `None` when the range is exhausted.
    pub next: Option<Slice>,
}
