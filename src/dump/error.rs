//! What can go wrong with a dump, each with what a message needs to name.

use std::io;

use thiserror::Error;

use crate::log::{Head, LogError};
use crate::types::{Error, ErrorKind, LogId, Position};

/// An error of dump, restore or the verification of a dump.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DumpError {
    /// Something else, from its first bytes on.
    #[error("this is not a dump, file=`{name}`")]
    NotADump {
        /// The file, or `-`.
        name: String,
    },
    /// Written by a newer version.
    #[error("the dump has a newer format, file=`{name}` found=`{found}` supported=`{supported}`; use a newer lakelog")]
    NewerFormat {
        /// The file, or `-`.
        name: String,
        /// Its format, or that of its log.
        found: u32,
        /// The newest one that this version reads.
        supported: u32,
    },
    /// Cut, changed, or put together from parts.
    #[error("the dump is damaged, file=`{name}` offset=`{offset}` position=`{position}` detail=`{detail}`")]
    Corrupt {
        /// The file, or `-`.
        name: String,
        /// Where in it the damaged part begins, in bytes.
        offset: u64,
        /// The last position that was sound.
        position: Position,
        /// What is wrong.
        detail: String,
    },
    /// The dump begins above the end of what it should follow.
    #[error(
        "transactions are missing between them: the dump begins after position {}, and what is there ends at {}, file=`{name}` chain_before=`{}` chain_there=`{}`",
        begins.position, found.position, begins.chain, found.chain
    )]
    Gap {
        /// The file, or `-`.
        name: String,
        /// The state before the dump's first transaction.
        begins: Head,
        /// The state that it should follow.
        found: Head,
    },
    /// The dump is of another history than what is there.
    #[error(
        "the dump is of another history, file=`{name}` position=`{position}` chain=`{}` position_there=`{}` chain_there=`{}`",
        dump.chain, there.position, there.chain, position = dump.position
    )]
    Fork {
        /// The file, or `-`.
        name: String,
        /// A state of the dump.
        dump: Head,
        /// The state of the store, or of the dump before, at the same position.
        there: Head,
    },
    /// The dump is of another log.
    #[error("the dump is of another log, file=`{name}` log=`{dump}` log_there=`{there}`; restore into an empty store")]
    OtherLog {
        /// The file, or `-`.
        name: String,
        /// The dump's log.
        dump: LogId,
        /// That of the store, or of the dump before.
        there: LogId,
    },
    /// A clone cannot have the log id of what it is a clone of.
    #[error("the store has the log id of the dump, so it is no clone of it, log=`{log_id}`")]
    SameLog {
        /// The log id of both.
        log_id: LogId,
    },
    /// What an interrupted restore of another dump had left stood in the way of a stream, which can be read once only.
    #[error(
        "what an interrupted restore had left is not a part of this dump; it was removed, file=`{name}`; give the dump again"
    )]
    LeftBehind {
        /// The stream.
        name: String,
    },
    /// What was asked for makes no sense.
    #[error("{detail}")]
    Invalid {
        /// What, and why.
        detail: String,
    },
    /// The part asked for ends before the redaction that left one of its transactions as it is.
    #[error(
        "a transaction was redacted after the end of what is to be dumped, position=`{position}` end=`{end}`; dump up to the redaction"
    )]
    RedactedLater {
        /// The redacted transaction.
        position: Position,
        /// Where the dump was to end.
        end: Position,
    },
    /// The chain hash of a transaction that was to be dumped does not follow from the one before.
    #[error("the chain hash does not follow, position=`{position}`")]
    BrokenChain {
        /// The transaction.
        position: Position,
    },
    /// A file could not be read or written.
    #[error("{action} failed, file=`{name}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, or `-`.
        name: String,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// Of the log that is read or written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl DumpError {
    /// The public kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DumpError::NotADump { .. } | DumpError::Invalid { .. } | DumpError::RedactedLater { .. } => {
                ErrorKind::Invalid
            }
            DumpError::NewerFormat { .. } | DumpError::LeftBehind { .. } => ErrorKind::Unavailable,
            DumpError::Corrupt { .. } | DumpError::BrokenChain { .. } => ErrorKind::Corrupt,
            DumpError::Gap { .. } | DumpError::Fork { .. } | DumpError::OtherLog { .. } | DumpError::SameLog { .. } => {
                ErrorKind::Conflict
            }
            DumpError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            DumpError::Io { .. } => ErrorKind::Unavailable,
            DumpError::Log(error) => error.kind(),
        }
    }
}

impl From<DumpError> for Error {
    fn from(error: DumpError) -> Error {
        match error {
            DumpError::Log(error) => Error::from(error),
            error => Error::new(error.kind(), error.to_string()).with_source(error),
        }
    }
}

/// Says of a failed access what was tried and on which file.
pub(super) trait IoOn<T> {
    fn on(self, action: &'static str, name: &str) -> Result<T, DumpError>;
}

impl<T> IoOn<T> for io::Result<T> {
    fn on(self, action: &'static str, name: &str) -> Result<T, DumpError> {
        self.map_err(|source| DumpError::Io { action, name: name.to_owned(), source })
    }
}
