//! [`read`]: a file of either format as a stream of records.
//!
//! Nothing but the current record is held, whatever the length of the file.

use std::io::{self, Read};

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde_json::Deserializer;
use serde_json::error::Category;

use super::document::{EXPORT_ENTRY, Entry, EntrySeed, First};
use super::input::{Input, Progress, RECORD_BYTES_MAX};
use super::{ReadError, Refusal};

/// One record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the file, from 1.
    pub ordinal: u64,
    /// The partition, not empty.
    pub partition: Bytes,
    /// The key, not empty.
    pub key: Bytes,
    /// The value, possibly empty.
    pub value: Bytes,
}

/// What a file says about itself; texts as they stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// A `kv dump` document of version 1.0.
    Dump {
        /// When it was made, RFC 3339; empty when it does not say.
        timestamp: String,
    },
    /// A newline-delimited export.
    Export(ExportHeader),
}

/// The first document of a newline-delimited export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportHeader {
    /// The version of lakeFS that wrote it.
    pub lakefs_version: String,
    /// The part of lakeFS that it belongs to; `all` in complete exports.
    pub package_name: String,
    /// The version of the schema.
    pub schema_version: i64,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// Reads a file of either format, plain, zstd or gzip, all told by its content, and hands each
/// record, good or refused, to `sink` in the order of the file. Blocks on `input`; an error of
/// `sink` ends the reading and is returned.
///
/// A newline-delimited export has neither trailer nor count, so one that is cut between two records
/// reads as a shorter one, unless it is compressed.
///
/// # Errors
/// [`ReadError`], converted. Records handed out before it stand in the file as they were handed out;
/// with [`ReadError::Damaged`], which a checksum behind them may bring up, they may be wrong.
pub fn read<E: From<ReadError>>(
    input: impl Read,
    mut sink: impl FnMut(Result<Record, Refusal>) -> Result<(), E>,
) -> Result<Header, E> {
    let progress = Progress::default();
    let mut input =
        Input::new(input, progress.clone()).map_err(|source| ReadError::Io { record: 0, offset: 0, source })?;
    let mut reading = Reading { sink: &mut sink, progress, record: 0, begun: false, recognised: false, stopped: None };
    let mut json = Deserializer::from_reader(&mut input);
    let header = First(&mut reading).deserialize(&mut json);
    let header = header.map_err(|error| reading.error(error))?;
    match header {
        Header::Dump { .. } => json.end().map_err(|error| reading.error(error))?,
        Header::Export(_) => {
            drop(json);
            if !reading.lines(&mut input)? {
                input.give_back();
                reading.documents(&mut input)?;
            }
        }
    }
    Ok(header)
}

/// The entry that a line holds; `None` for everything else.
fn entry_of(line: &[u8]) -> Option<Entry> {
    let mut json = Deserializer::from_slice(line);
    let entry = EntrySeed(&EXPORT_ENTRY).deserialize(&mut json).ok()?;
    json.end().is_ok().then_some(entry)
}

/// Where records go.
type Sink<'s, E> = dyn FnMut(Result<Record, Refusal>) -> Result<(), E> + 's;

/// What the parts of a parse share: where it stands, and why it was stopped.
pub(super) struct Reading<'s, E> {
    pub(super) sink: &'s mut Sink<'s, E>,
    progress: Progress,
    /// The record being read, 0 before the first.
    pub(super) record: u64,
    /// The first document turned out to be an object.
    pub(super) begun: bool,
    /// A member of one of the formats was seen.
    pub(super) recognised: bool,
    /// The error that ended the parse from inside; what serde then says is not the cause.
    pub(super) stopped: Option<E>,
}

impl<E: From<ReadError>> Reading<'_, E> {
    /// Reads one record a line, which is how exports are written, and several times as fast as reading on byte by byte. `false` at
    /// a line that is anything else, which was not passed.
    fn lines(&mut self, input: &mut Input<'_>) -> Result<bool, E> {
        loop {
            let Some(line) = input.next_line() else { return Ok(false) };
            if line.is_empty() {
                return Ok(true);
            }
            if line.trim_ascii().is_empty() {
                input.pass_line();
                continue;
            }
            let Some(entry) = entry_of(line) else { return Ok(false) };
            input.pass_line();
            self.begin_record();
            (self.sink)(entry.check(&EXPORT_ENTRY, self.record))?;
        }
    }

    /// Reads records however they are spread over lines, and says what is wrong with one.
    fn documents(&mut self, input: &mut Input<'_>) -> Result<(), E> {
        let mut json = Deserializer::from_reader(input);
        loop {
            match json.end() {
                Ok(()) => return Ok(()),
                // Something follows: the next record.
                Err(error) if error.classify() == Category::Syntax => {}
                Err(error) => return Err(self.error(error)),
            }
            self.begin_record();
            let entry = EntrySeed(&EXPORT_ENTRY).deserialize(&mut json).map_err(|error| self.error(error))?;
            (self.sink)(entry.check(&EXPORT_ENTRY, self.record))?;
        }
    }

    pub(super) fn begin_record(&mut self) {
        self.record += 1;
        self.progress.record_ends();
    }

    /// The error of the parse, from what the parser says and how far it came.
    fn error(&mut self, error: serde_json::Error) -> E {
        if let Some(stopped) = self.stopped.take() {
            return stopped;
        }
        let (record, offset) = (self.record, self.progress.offset());
        E::from(match error.classify() {
            Category::Io => self.input_error(error.into()),
            Category::Eof if self.begun => ReadError::Truncated { record, offset },
            Category::Syntax | Category::Data if self.recognised => ReadError::Malformed { record, source: error },
            _ if self.begun => ReadError::NotADump { detail: "no member of either is in its first object" },
            _ => ReadError::NotADump { detail: "it does not begin with a JSON object" },
        })
    }

    fn input_error(&self, source: io::Error) -> ReadError {
        let (record, offset) = (self.record, self.progress.offset());
        match source.kind() {
            _ if self.progress.is_too_long() => ReadError::TooLong { record, offset, limit: RECORD_BYTES_MAX },
            io::ErrorKind::UnexpectedEof => ReadError::Truncated { record, offset },
            // What the decompressors say; a failed read of the operating system has a code.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other
                if source.raw_os_error().is_none() =>
            {
                ReadError::Damaged { record, offset, source }
            }
            _ => ReadError::Io { record, offset, source },
        }
    }
}
