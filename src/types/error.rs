//! The public error: kind, message, source. Exit codes are a function of the kind alone.

use std::error::Error as StdError;
use std::fmt;

/// The result of every public call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller needs to tell: each kind says what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there. Nothing to retry.
    NotFound,
    /// A predicate failed, or something exists already. Read again, decide again.
    Conflict,
    /// The arguments or the input are wrong. Correct them; nothing was changed.
    Invalid,
    /// Stored bytes are damaged. Run `lakelog verify`, then `lakelog repair`.
    Corrupt,
    /// Not possible now: locked, no space, overloaded, no connection, a newer format. Nothing was
    /// changed; try again when the named reason is gone.
    Unavailable,
    /// The store was closed, or latched after a failed write. Open it again.
    Closed,
    /// A write or sync failed: whether the change is durable is not known. Open the store again
    /// and look, or submit again with the same request id.
    Unknown,
    /// A bug in lakelog. Please report it.
    Internal,
}

impl ErrorKind {
    /// The name that `--json` prints.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Closed => "closed",
            ErrorKind::Unknown => "unknown",
            ErrorKind::Internal => "internal",
        }
    }

    /// The exit code of a command that ends with this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Corrupt => 5,
            ErrorKind::Unavailable | ErrorKind::Closed | ErrorKind::Unknown => 6,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error of the store: a [`ErrorKind`], a message and, where there is one, a source.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a message in lower case, without a full stop, variables last as key=`value`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// Keeps the error that this one was caused by.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the chain of sources.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message and its causes on one line, as the command line prints them.
    pub fn report(&self) -> String {
        let mut report = self.message.clone();
        let mut last = self.message.clone();
        let mut source = self.source();
        while let Some(error) = source {
            let text = error.to_string();
            if text != last {
                report.push_str(": ");
                report.push_str(&text);
            }
            last = text;
            source = error.source();
        }
        report
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source:?}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
