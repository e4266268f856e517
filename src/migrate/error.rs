//! What can be wrong with a file that is read, with one record of it, and with what is written.

use std::io;

use bytes::Bytes;
use thiserror::Error;

use crate::types::{Error, ErrorKind};

/// A file cannot be read on.
///
/// `record` is the record that was being read, from 1; 0 is what stands before the first one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Neither of the two formats.
    #[error("the file is neither a `kv dump` document nor a newline-delimited export: {detail}")]
    NotADump {
        /// What was found instead.
        detail: &'static str,
    },
    /// A newline-delimited export whose header says nothing.
    #[error("the header is missing or empty")]
    HeaderMissing,
    /// A `kv dump` document of another version. Where the version stands behind the entries, they
    /// were handed out.
    #[error("the version of the dump is not supported, found=`{found}` supported=`1.0`")]
    Version {
        /// What it says.
        found: String,
    },
    /// The file ends too early.
    #[error("the file ends inside a record or document, record=`{record}` offset=`{offset}`")]
    Truncated {
        /// The record.
        record: u64,
        /// The length of what there was, in bytes after decompression.
        offset: u64,
    },
    /// Not JSON, or JSON of another shape.
    #[error("the record is not well-formed, record=`{record}`")]
    Malformed {
        /// The record.
        record: u64,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// One record (or header) takes more room than any legal one.
    #[error("the record is too long, record=`{record}` offset=`{offset}` limit=`{limit}`")]
    TooLong {
        /// The record.
        record: u64,
        /// Where it was given up, in bytes after decompression.
        offset: u64,
        /// The most bytes that a record may take.
        limit: u64,
    },
    /// The compressed bytes are damaged.
    #[error("the compressed file is damaged, record=`{record}` offset=`{offset}`")]
    Damaged {
        /// The record.
        record: u64,
        /// How far it could be read, in bytes after decompression.
        offset: u64,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// Reading failed.
    #[error("reading failed, record=`{record}` offset=`{offset}`")]
    Io {
        /// The record.
        record: u64,
        /// How far it could be read, in bytes after decompression.
        offset: u64,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        let kind = match error {
            ReadError::Io { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

/// One record is refused; the rest of the file goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the file, from 1.
    pub record: u64,
    /// Its partition, where it is known.
    pub partition: Option<Bytes>,
    /// Its key, where it is known.
    pub key: Option<Bytes>,
    /// What is wrong with it.
    pub reason: RefusalReason,
}

/// Why a record is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// No partition, or an empty one.
    #[error("the partition is missing or empty")]
    NoPartition,
    /// No key, or an empty one.
    #[error("the key is missing or empty")]
    NoKey,
    /// No value, or null. An empty value is legal.
    #[error("the value is missing or null")]
    NoValue,
    /// A member that is not padded base64 of the standard alphabet.
    #[error("not base64, member=`{member}`")]
    Base64 {
        /// The member, as the file calls it.
        member: &'static str,
        /// What is wrong.
        #[source]
        source: base64::DecodeError,
    },
}

/// A record cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// `kv dump` documents cannot carry it. Nothing was written; the next record may be.
    #[error("{member} is not UTF-8, which a `kv dump` document cannot carry")]
    NotUtf8 {
        /// `partition` or `key`.
        member: &'static str,
    },
    /// Writing failed. What the output holds is not known.
    #[error("writing failed")]
    Io(#[from] io::Error),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Error {
        let kind = match error {
            WriteError::NotUtf8 { .. } => ErrorKind::Invalid,
            WriteError::Io(_) => ErrorKind::Unavailable,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}
