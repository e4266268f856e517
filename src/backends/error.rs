//! What can go wrong in a backend.

use thiserror::Error;

use crate::types::{Error, ErrorKind, Position};

/// An error of a backend.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Stored bytes are damaged. The base is a cache: it is dropped and rebuilt from the log.
    #[error("the base is damaged, place=`{place}` detail=`{detail}`; it is rebuilt from the log at the next open")]
    Corrupt {
        /// The file, tree or table.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Written in a format that this version does not read.
    #[error("the base has another format, place=`{place}` found=`{found}` supported=`{supported}`")]
    OtherFormat {
        /// The file, tree or table.
        place: String,
        /// Its format.
        found: u32,
        /// The format of this version.
        supported: u32,
    },
    /// The position is not readable: neither the current stamp nor retained.
    #[error("the base cannot be read at that position, position=`{position}` stamp=`{stamp}`")]
    Unreadable {
        /// The position asked for.
        position: Position,
        /// The current stamp's position.
        stamp: Position,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A call breaks the contract.
    #[error("invalid write to the base, {detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
    /// A setting of a base makes no sense.
    #[error("unusable {what}, {detail}")]
    Unusable {
        /// The setting.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Not possible now: no space, no connection, no permission. Nothing was changed.
    #[error("the base is unavailable, place=`{place}` detail=`{detail}`")]
    Unavailable {
        /// The file, tree or table.
        place: String,
        /// Why.
        detail: String,
    },
}

impl BackendError {
    /// The public kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            BackendError::Corrupt { .. } => ErrorKind::Corrupt,
            BackendError::OtherFormat { .. } | BackendError::Unavailable { .. } => ErrorKind::Unavailable,
            // It is being made anew, and is not there yet.
            BackendError::Unreadable { position, stamp } if position > stamp => ErrorKind::Unavailable,
            BackendError::Unusable { .. } => ErrorKind::Invalid,
            BackendError::Closed => ErrorKind::Closed,
            BackendError::Unreadable { .. } | BackendError::Invalid { .. } => ErrorKind::Internal,
        }
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Error {
        Error::new(error.kind(), error.to_string()).with_source(error)
    }
}
