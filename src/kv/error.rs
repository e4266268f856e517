//! [`KvError`]: the error kinds of the key/value contract.

use std::sync::Arc;

use crate::types::{Error, ErrorKind};

/// Why a call of the contract failed. Cloneable, so that an iterator can repeat the error that it
/// stopped at.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The partition is empty.
    #[error("missing partition key")]
    MissingPartition,
    /// The key is empty; or an entry of a secondary index names no primary key.
    #[error("missing key")]
    MissingKey,
    /// There is no value (an empty one is a value).
    #[error("missing value")]
    MissingValue,
    /// There is no entry.
    #[error("not found, partition=`{partition}` key=`{key}`")]
    NotFound {
        /// The partition, escaped.
        partition: String,
        /// The key, escaped.
        key: String,
    },
    /// The predicate does not hold; nothing was changed. Get again, decide again.
    #[error("predicate failed, partition=`{partition}` key=`{key}`")]
    PredicateFailed {
        /// The partition, escaped.
        partition: String,
        /// The key, escaped.
        key: String,
    },
    /// The entries, or the iterator, were closed.
    #[error("the entries are closed")]
    ClosedEntries,
    /// The batch size of a scan is above [`KvScan::BATCH_SIZE_MAX`](crate::KvScan::BATCH_SIZE_MAX).
    #[error("the batch size is too big, batch_size=`{batch_size}` limit=`{limit}`")]
    BatchSizeTooBig {
        /// What was asked.
        batch_size: usize,
        /// The largest that is allowed.
        limit: usize,
    },
    /// Not possible now: overloaded, no space. Nothing was changed; try again later.
    #[error("the store asks to slow down")]
    SlowDown {
        /// What it waits for.
        source: Arc<Error>,
    },
    /// A value is no encoding of the message that was asked for.
    #[error("the value is no such message, key=`{key}`")]
    Decode {
        /// The key, escaped.
        key: String,
        /// What is wrong with the value.
        source: prost::DecodeError,
    },
    /// Every other failure of the store; its kind says what to do next.
    #[error(transparent)]
    Store(Arc<Error>),
}

impl KvError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            KvError::MissingPartition
            | KvError::MissingKey
            | KvError::MissingValue
            | KvError::BatchSizeTooBig { .. }
            | KvError::Decode { .. } => ErrorKind::Invalid,
            KvError::NotFound { .. } => ErrorKind::NotFound,
            KvError::PredicateFailed { .. } => ErrorKind::Conflict,
            KvError::ClosedEntries => ErrorKind::Closed,
            KvError::SlowDown { source } | KvError::Store(source) => source.kind(),
        }
    }

    pub(super) fn not_found(partition: &[u8], key: &[u8]) -> KvError {
        KvError::NotFound { partition: escaped(partition), key: escaped(key) }
    }

    pub(super) fn predicate_failed(partition: &[u8], key: &[u8]) -> KvError {
        KvError::PredicateFailed { partition: escaped(partition), key: escaped(key) }
    }

    pub(super) fn decode(key: &[u8], source: prost::DecodeError) -> KvError {
        KvError::Decode { key: escaped(key), source }
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl From<Error> for KvError {
    fn from(error: Error) -> KvError {
        let source = Arc::new(error);
        match source.kind() {
            ErrorKind::Unavailable => KvError::SlowDown { source },
            _ => KvError::Store(source),
        }
    }
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Error {
        match error {
            KvError::Store(source) => Arc::try_unwrap(source)
                .unwrap_or_else(|shared| Error::new(shared.kind(), shared.message().to_owned()).with_source(shared)),
            other => Error::new(other.kind(), other.to_string()).with_source(other),
        }
    }
}
