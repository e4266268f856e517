//! [`Writer`]: records to a file of either format, byte for byte as lakeFS and its tools write it.

use std::io::{self, Write};
use std::str;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::{Header, WriteError};
use crate::types::Timestamp;

/// The two formats and what they can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The newline-delimited export of lakeFS 0.80: any bytes.
    Ndjson,
    /// The JSON document of `lakefs kv dump` 1.84: partitions and keys in UTF-8.
    KvDump,
}

/// A time as both formats write it: RFC 3339 in UTC, whole seconds.
pub fn rfc3339_seconds(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// Writes records to `out` as they come. Bring a buffered `out`: it gets many small writes.
///
/// A file is complete only after [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    format: Format,
    records: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file; the header decides its format.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn new(mut out: W, header: &Header) -> Result<Writer<W>, WriteError> {
        let format = match header {
            Header::Dump { timestamp } => {
                out.write_all(br#"{"version":"1.0","timestamp":"#)?;
                go_string(&mut out, timestamp)?;
                Format::KvDump
            }
            Header::Export(header) => {
                out.write_all(br#"{"LakeFSVersion": "#)?;
                go_string(&mut out, &header.lakefs_version)?;
                out.write_all(br#", "PackageName": "#)?;
                go_string(&mut out, &header.package_name)?;
                write!(out, r#", "DBSchemaVersion": {}, "CreatedAt": "#, header.schema_version)?;
                go_string(&mut out, &header.created_at)?;
                out.write_all(b"}\n")?;
                Format::Ndjson
            }
        };
        Ok(Writer { out, format, records: 0 })
    }

    /// Writes one record.
    ///
    /// # Errors
    /// [`WriteError::NotUtf8`] when the format cannot carry the record: nothing was written, and
    /// the writer takes the next one. [`WriteError::Io`] when writing failed.
    pub fn record(&mut self, partition: &[u8], key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        match self.format {
            Format::Ndjson => self.ndjson(partition, key, value)?,
            Format::KvDump => {
                let partition = str::from_utf8(partition).map_err(|_| WriteError::NotUtf8 { member: "partition" })?;
                let key = str::from_utf8(key).map_err(|_| WriteError::NotUtf8 { member: "key" })?;
                self.kv_dump(partition, key, value)?;
            }
        }
        self.records += 1;
        Ok(())
    }

    fn ndjson(&mut self, partition: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
        let [partition, key, value] = [partition, key, value].map(|bytes| Base64Display::new(bytes, &STANDARD));
        writeln!(self.out, r#"{{"PartitionKey": "{partition}", "Key": "{key}", "Value": "{value}"}}"#)
    }

    fn kv_dump(&mut self, partition: &str, key: &str, value: &[u8]) -> io::Result<()> {
        let before: &[u8] = if self.records == 0 { br#","entries":["# } else { b"," };
        self.out.write_all(before)?;
        self.out.write_all(br#"{"partition":"#)?;
        go_string(&mut self.out, partition)?;
        self.out.write_all(br#","key":"#)?;
        go_string(&mut self.out, key)?;
        write!(self.out, r#","value":"{}"}}"#, Base64Display::new(value, &STANDARD))
    }

    /// Ends the file, flushes it and gives the output back.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn finish(mut self) -> Result<W, WriteError> {
        if self.format == Format::KvDump {
            let end: &[u8] = if self.records == 0 { b"}\n" } else { b"]}\n" };
            self.out.write_all(end)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A JSON string as Go's encoder writes it.
fn go_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    Ok(text.serialize(&mut Serializer::with_formatter(out, GoEscapes))?)
}

/// What Go escapes beyond what JSON demands, so that the text may stand in HTML and JavaScript.
struct GoEscapes;

impl Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        for part in fragment.split_inclusive(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            match part.char_indices().next_back() {
                Some((at, last @ ('<' | '>' | '&' | '\u{2028}' | '\u{2029}'))) => {
                    out.write_all(&part.as_bytes()[..at])?;
                    write!(out, "\\u{:04x}", u32::from(last))?;
                }
                _ => out.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }
}
