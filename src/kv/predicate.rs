//! [`KvPredicate`]: under which condition `set_if` sets, and what `get` gives to say it.

use bytes::Bytes;

use crate::types::{LogId, Position, Slice};

/// A condition on the entry of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvPredicate {
    /// There is no entry (lakeFS: nil).
    Absent,
    /// There is an entry, whatever its value.
    Exists,
    /// The entry is the one that `get` gave with this token: one that was deleted, or changed and
    /// changed back, does not pass.
    Token(KvToken),
    /// The entry has exactly this value.
    Value(Bytes),
}

impl From<KvToken> for KvPredicate {
    fn from(token: KvToken) -> KvPredicate {
        KvPredicate::Token(token)
    }
}

/// Which entry a `get` saw. Opaque to callers, who may store it and use it in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvToken {
    /// The log that the version is a position of. A token of another log never passes.
    pub log_id: LogId,
    /// The position that wrote the entry.
    pub version: Position,
}

/// What `get` finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvValue {
    /// The value, possibly empty.
    pub value: Slice,
    /// Holds as long as the entry is still this one.
    pub predicate: KvPredicate,
}
