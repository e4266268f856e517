//! What can be wrong with an encoded transaction.

use thiserror::Error;

use crate::types::{Error, ErrorKind};

/// An encoded transaction is not one. Its frame's checksum held, so either another program wrote it
/// or lakelog has a bug; nothing of it was applied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The envelope is no protobuf message of its kind.
    #[error("the transaction is not well-formed")]
    Envelope(#[from] prost::DecodeError),
    /// The body of an event of a known kind and version is not what it should be.
    #[error("the event is not well-formed, event=`{index}` kind=`{kind}` version=`{version}`")]
    Event {
        /// Its place in the transaction, from 0.
        index: usize,
        /// The number of its kind.
        kind: u32,
        /// The version that it was written in.
        version: u32,
        /// What is wrong.
        #[source]
        source: BodyError,
    },
    /// A digest that is not 32 bytes.
    #[error("the digest of the request has the wrong length, length=`{length}`")]
    Digest {
        /// Its length in bytes.
        length: usize,
    },
    /// More events than a transaction may have.
    #[error("the transaction has too many events, limit=`{limit}`")]
    TooManyEvents {
        /// The most that it may have.
        limit: usize,
    },
}

/// What is wrong with the body of an event.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is no protobuf message of its kind.
    #[error("the body is not well-formed")]
    Malformed(#[from] prost::DecodeError),
    /// A hash that is not 32 bytes.
    #[error("a hash has the wrong length, length=`{length}`")]
    Hash {
        /// Its length in bytes.
        length: usize,
    },
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        Error::new(ErrorKind::Corrupt, error.to_string()).with_source(error)
    }
}
