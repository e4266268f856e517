//! What can go wrong in the log, each with what a message needs to name.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Frame;
use crate::types::{Error, ErrorKind, Position};

/// An error of the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// No log at the path.
    #[error("no log found, path=`{}`; create one with `lakelog init`", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A log is there already.
    #[error("a log exists already, path=`{}`", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Another process (or another handle in this one) has the log open for writing.
    #[error("the store is locked by another process, path=`{}` holder=`{holder}`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into the lock file, usually `pid N`.
        holder: String,
    },
    /// The file system cannot lock, so two writers could not be kept apart.
    #[error("the file system does not support locks, path=`{}`; put the store on a local file system", path.display())]
    LocksUnsupported {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error("the file has a newer format, path=`{}` found=`{found}` supported=`{supported}`; use a newer lakelog", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// Acknowledged bytes are damaged or missing.
    #[error("the log is damaged, file=`{}` offset=`{offset}` positions=`{first}..={last}` detail=`{detail}`; run `lakelog verify`", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The first position concerned.
        first: Position,
        /// The last position concerned, as far as known.
        last: Position,
        /// What is wrong.
        detail: String,
    },
    /// No room for the next segment. Nothing was appended; appends resume when there is room.
    #[error("no space for the next segment, path=`{}` needed=`{needed}` free=`{free}` kept_free=`{kept_free}`", path.display())]
    NoSpace {
        /// The log's directory.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Bytes that are kept from ordinary writes (`min_free`).
        kept_free: u64,
    },
    /// A write or sync failed: the positions may or may not be durable.
    #[error("durability unknown after a failed write, positions=`{first}..={last}`; open the store again")]
    DurabilityUnknown {
        /// The first position concerned.
        first: Position,
        /// The last position concerned.
        last: Position,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; the log takes no more writes until it is opened again.
    #[error("the log is latched after a failed write, cause=`{cause}`; open the store again")]
    Latched {
        /// The failure, in words.
        cause: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The head is not the expected one.
    #[error("the head has moved, expected=`{expected}` head=`{head}`")]
    HeadMoved {
        /// The head that the caller expected.
        expected: Position,
        /// The head found.
        head: Position,
        /// The transactions in between, when the log is shared and gives them.
        missing: Vec<Frame>,
    },
    /// Below what was kept after a trim.
    #[error("the position was trimmed, position=`{position}` floor=`{floor}`")]
    BelowFloor {
        /// The position asked for.
        position: Position,
        /// The oldest readable state.
        floor: Position,
    },
    /// Above the last transaction.
    #[error("the position is above the head, position=`{position}` head=`{head}`")]
    AboveHead {
        /// The position asked for.
        position: Position,
        /// The last readable position.
        head: Position,
    },
    /// A draft cannot be a frame.
    #[error("the transaction cannot be appended, {detail}")]
    InvalidDraft {
        /// What is wrong with it.
        detail: String,
    },
    /// A snapshot cannot be what the log begins at.
    #[error("the snapshot cannot be used, {detail}")]
    InvalidSnapshot {
        /// What is wrong with it.
        detail: String,
    },
    /// No archive at the path.
    #[error("no archive found, path=`{}`", path.display())]
    NoArchive {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The directory holds an archive that does not go with the log, or something else.
    #[error("the archive does not go with the log, path=`{}`: {detail}", path.display())]
    OtherArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The log was attached for reading only.
    #[error("the log was opened for reading only, path=`{}`", path.display())]
    ReadOnly {
        /// The log.
        path: PathBuf,
    },
    /// A setting cannot be used.
    #[error("the setting cannot be used, {detail}")]
    InvalidSetting {
        /// Which one, and its bounds.
        detail: String,
    },
    /// Any other failed file access.
    #[error("{action} failed, path=`{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl LogError {
    /// The public kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LogError::NotFound { .. } | LogError::NoArchive { .. } | LogError::BelowFloor { .. } => ErrorKind::NotFound,
            LogError::Exists { .. } | LogError::OtherArchive { .. } | LogError::HeadMoved { .. } => ErrorKind::Conflict,
            LogError::AboveHead { .. }
            | LogError::InvalidDraft { .. }
            | LogError::InvalidSnapshot { .. }
            | LogError::InvalidSetting { .. } => ErrorKind::Invalid,
            LogError::Corrupt { .. } => ErrorKind::Corrupt,
            LogError::DurabilityUnknown { .. } => ErrorKind::Unknown,
            LogError::Latched { .. } | LogError::Closed => ErrorKind::Closed,
            LogError::Locked { .. }
            | LogError::LocksUnsupported { .. }
            | LogError::NewerFormat { .. }
            | LogError::ReadOnly { .. }
            | LogError::NoSpace { .. }
            | LogError::Io { .. } => ErrorKind::Unavailable,
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Error {
        Error::new(error.kind(), error.to_string()).with_source(error)
    }
}

/// Says of a failed file access what was tried and where.
pub(super) trait IoAt<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LogError>;
}

impl<T> IoAt<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io { action, path: path.to_path_buf(), source })
    }
}
