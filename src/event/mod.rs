//! Events: what happened, as plain data, and their protobuf encoding.
//!
//! Owns the envelope (who, why, which request), every kind of event and its versions. Generated
//! protobuf types never leave this folder. Knows no file, clock or view: applying events is the
//! business of `projection`.

use bytes::Bytes;

use crate::types::{Digest, Timestamp};

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
    /// Remembered requests reached the end of their retention.
    RequestsExpired {
        /// What is forgotten: the recorded time of each request's transaction, and its id.
        requests: Vec<(Timestamp, String)>,
    },
    /// An event of a kind or version that this reader does not know, kept as it was.
    Unknown(UnknownEvent),
}

/// An event that a newer version wrote. Its bytes are kept, exported and dumped unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEvent {
    /// The number of its kind.
    pub kind: u32,
    /// The version of its encoding.
    pub version: u32,
    /// Whether a reader may go on without understanding it.
    pub ignorable: bool,
    /// The oldest lakelog that understands it, as `major * 1_000_000 + minor * 1_000 + patch`.
    pub minimum_reader: u32,
    /// Its encoding.
    pub body: Bytes,
}
