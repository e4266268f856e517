//! The files that lakeFS moves its key/value store in: reading and writing them, byte for byte.
//!
//! Owns the two formats and their errors: the JSON document of `lakefs kv dump` (1.84) and the
//! newline-delimited export of 0.80, both plain, zstd or gzip; and the way of their records into a store and out
//! again. Opens no file: input is a [`std::io::Read`], output a [`std::io::Write`], both blocking.

mod document;
mod dry;
mod error;
mod export;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod import;
mod input;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::{ReadError, Refusal, RefusalReason, WriteError};
pub use export::{ExportEntries, ExportFormat, ExportReport, ExportSource, RefusedEntry, export};
pub use import::{ImportOptions, ImportReport, RefusedRecord, import};
pub use read::{ExportHeader, Header, Record, read};
pub use write::{Writer, rfc3339_seconds};
