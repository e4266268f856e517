//! [`Transaction`] and [`Event`]: what happened, as plain data.
//!
//! Knows nothing of how it is encoded; that is `encode`, `decode` and `upcast`.

use bytes::Bytes;

use crate::types::{Digest, Hash, Position, Timestamp};

/// One transaction as recorded: who changed what, why, and the events in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Who did it. Never empty in what this version writes.
    pub actor: String,
    /// Why, when it was said.
    pub reason: Option<String>,
    /// The request that it answers, when the caller gave an id.
    pub request: Option<Request>,
    /// What happened. Range deletes apply first, in order, then key writes, each key once.
    pub events: Vec<Event>,
}

impl Transaction {
    /// The first event that this version must understand and does not. A store that finds one
    /// applies nothing from there on.
    pub fn unsupported(&self) -> Option<&UnknownEvent> {
        self.events.iter().find_map(|event| match event {
            Event::Unknown(unknown) if !unknown.ignorable => Some(unknown),
            _ => None,
        })
    }
}

/// A request id with what is remembered of its outcome (law 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's id.
    pub id: String,
    /// Digest of the command's canonical arguments, from the caller.
    pub digest: Digest,
    /// The answer to give when the request comes again; at most 4 KiB, no secrets.
    pub answer: Bytes,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A key got a value.
    Set {
        /// The partition.
        partition: Bytes,
        /// The key.
        key: Bytes,
        /// The new value, possibly empty.
        value: Bytes,
    },
    /// A key was deleted, whether or not it existed.
    Delete {
        /// The partition.
        partition: Bytes,
        /// The key.
        key: Bytes,
    },
    /// Every key of a partition that begins with a prefix was deleted.
    DeleteRange {
        /// The partition.
        partition: Bytes,
        /// The prefix; empty is the whole partition.
        prefix: Bytes,
    },
    /// Every key of a partition that begins with a prefix became what it was at an earlier position.
    RestoreRange {
        /// The partition.
        partition: Bytes,
        /// The prefix; empty is the whole partition.
        prefix: Bytes,
        /// The position whose state is restored.
        as_of: Position,
    },
    /// What a redaction left of a [`Event::Set`]: the value was erased since.
    Erased {
        /// The partition.
        partition: Bytes,
        /// The key.
        key: Bytes,
    },
    /// Remembered requests reached the end of their retention.
    RequestsExpired {
        /// What is forgotten: the recorded time of each request's transaction, and its id.
        requests: Vec<(Timestamp, String)>,
    },
    /// A position got a name; a mark of the same name is replaced.
    MarkSet {
        /// The name.
        name: String,
        /// The position named.
        position: Position,
    },
    /// A mark is gone, whether or not it existed.
    MarkDeleted {
        /// The name.
        name: String,
    },
    /// A consumer has seen everything up to a position.
    CursorSet {
        /// The cursor's name.
        name: String,
        /// The last position seen.
        position: Position,
        /// The chain hash at it.
        chain: Hash,
    },
    /// A cursor is gone, whether or not it existed.
    CursorDeleted {
        /// The cursor's name.
        name: String,
    },
    /// Values were erased from earlier transactions.
    Redacted {
        /// The transactions concerned, by ascending position.
        transactions: Vec<RedactedTransaction>,
    },
    /// An event of a kind or version that this reader does not know, kept as it was.
    Unknown(UnknownEvent),
}

impl Event {
    /// The names of all kinds, as [`Event::kind_name`] gives them.
    pub const KIND_NAMES: [&str; 12] = [
        "set",
        "delete",
        "delete_range",
        "restore_range",
        "erased",
        "requests_expired",
        "mark_set",
        "mark_deleted",
        "cursor_set",
        "cursor_deleted",
        "redacted",
        "unknown",
    ];

    /// The name of the kind, as the command line prints it.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Event::Set { .. } => "set",
            Event::Delete { .. } => "delete",
            Event::DeleteRange { .. } => "delete_range",
            Event::RestoreRange { .. } => "restore_range",
            Event::Erased { .. } => "erased",
            Event::RequestsExpired { .. } => "requests_expired",
            Event::MarkSet { .. } => "mark_set",
            Event::MarkDeleted { .. } => "mark_deleted",
            Event::CursorSet { .. } => "cursor_set",
            Event::CursorDeleted { .. } => "cursor_deleted",
            Event::Redacted { .. } => "redacted",
            Event::Unknown(_) => "unknown",
        }
    }

    /// Bytes of what it names and carries: partitions, keys, values, names, ids, hashes. About its size in a payload.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Event::Set { partition, key, value } => partition.len() + key.len() + value.len(),
            Event::Delete { partition, key } | Event::Erased { partition, key } => partition.len() + key.len(),
            Event::DeleteRange { partition, prefix } => partition.len() + prefix.len(),
            Event::RestoreRange { partition, prefix, .. } => partition.len() + prefix.len() + 8,
            Event::RequestsExpired { requests } => requests.iter().map(|(_, id)| id.len() + 8).sum(),
            Event::MarkSet { name, .. } => name.len() + 8,
            Event::CursorSet { name, .. } => name.len() + 40,
            Event::MarkDeleted { name } | Event::CursorDeleted { name } => name.len(),
            Event::Redacted { transactions } => transactions.iter().map(RedactedTransaction::bytes).sum(),
            Event::Unknown(unknown) => unknown.body.len(),
        }
    }
}

/// What a redaction left of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedTransaction {
    /// Its position.
    pub position: Position,
    /// SHA-256 of the payload that is left.
    pub digest: Digest,
    /// Partition and key of each value that was erased.
    pub keys: Vec<(Bytes, Bytes)>,
}

impl RedactedTransaction {
    fn bytes(&self) -> usize {
        40 + self.keys.iter().map(|(partition, key)| partition.len() + key.len()).sum::<usize>()
    }
}

/// An event that a newer version wrote. Its bytes are kept, exported and dumped unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEvent {
    /// The number of its kind.
    pub kind: u32,
    /// The version of its encoding, counted from 0 within the kind.
    pub version: u32,
    /// Whether a reader may go on without understanding it.
    pub ignorable: bool,
    /// The oldest lakelog that understands it, as `major * 1_000_000 + minor * 1_000 + patch`; 0 is
    /// every lakelog.
    pub minimum_reader: u32,
    /// Its encoding.
    pub body: Bytes,
}

impl UnknownEvent {
    /// The oldest lakelog that understands the event, as its version is written: `0.3.1`.
    pub fn minimum_reader_version(&self) -> String {
        let version = self.minimum_reader;
        format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
    }
}
