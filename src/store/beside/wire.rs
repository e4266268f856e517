//! What goes over the socket: one JSON value a line, both ways.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::types::{Entry, Error, ErrorKind, Position, Result, Slice};

/// Both sides have to speak the same.
pub(super) const PROTOCOL: u32 = 1;
/// The longest line of a request: a few keys.
pub(super) const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// The longest line of an answer: two values and keys in base64.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The first line of a connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub protocol: u32,
    /// What to read at, as [`At`](crate::types::At) is written; nothing is the present.
    pub at: Option<String>,
}

/// Any other line that is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// One entry.
    Get { partition: Text, key: Text },
    /// The entries of an encoded key range.
    Scan { from: Text, to: Text, limit: Option<u64> },
    /// The versions of the keys of an encoded key range.
    History { from: Text, to: Text },
    /// What differs between two positions.
    Diff { a: String, b: String, scope: Option<(Text, Text)> },
    /// The figures of the store.
    Stats,
}

/// A line of an answer. Streams end with `End`; after `Error` nothing more is to be had from a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Hello { protocol: u32, log_id: String, position: u64 },
    Entry(Option<WireEntry>),
    Version(WireVersion),
    Difference { key: Text, old: Option<(u64, Text)>, new: Option<(u64, Text)> },
    Stats(WireStats),
    End,
    Error { kind: String, message: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireEntry {
    pub key: Text,
    pub version: u64,
    pub value: Text,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireVersion {
    pub key: Text,
    pub position: u64,
    pub value: Option<Text>,
    pub redacted: bool,
    pub origin: Option<WireOrigin>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireOrigin {
    pub time: i64,
    pub actor: String,
    pub reason: Option<String>,
    pub request_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireStats {
    pub head: u64,
    pub synced: u64,
    pub floor: u64,
    pub checkpoint: u64,
    pub partitions: BTreeMap<String, u64>,
    pub memory_bytes: u64,
    pub base_bytes: u64,
}

/// Bytes as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub Vec<u8>);

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Text {
        Text(bytes.to_vec())
    }
}

impl From<&Slice> for Text {
    fn from(bytes: &Slice) -> Text {
        Text(bytes.to_vec())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Text, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Text).map_err(serde::de::Error::custom)
    }
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> WireEntry {
        let (key, value) = (Text::from(&entry.encoded_key), Text::from(&entry.value));
        WireEntry { key, version: entry.version.0, value }
    }
}

impl From<WireEntry> for Entry {
    fn from(WireEntry { key, version, value }: WireEntry) -> Entry {
        Entry { encoded_key: key.0.into(), version: Position(version), value: value.0.into() }
    }
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Answer {
        Answer::Error { kind: error.kind().name().to_owned(), message: error.report() }
    }
}

/// The error that the other side told of.
pub(super) fn told(kind: &str, message: String) -> Error {
    const KINDS: [ErrorKind; 7] = [
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Invalid,
        ErrorKind::Corrupt,
        ErrorKind::Unavailable,
        ErrorKind::Closed,
        ErrorKind::Unknown,
    ];
    let known = KINDS.into_iter().find(|known| known.name() == kind);
    Error::new(known.unwrap_or(ErrorKind::Internal), message)
}

/// The next line, at most so long; `None` at the end.
///
/// Errors: `invalid` for what is too long or no such value, `unavailable` when the connection breaks.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufRead + Unpin),
    bytes_max: u64,
) -> Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(bytes_max).read_until(b'\n', &mut line).await.map_err(broken)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let message = if read as u64 == bytes_max { "a line is too long" } else { "a line is cut off" };
        return Err(Error::new(ErrorKind::Invalid, format!("{message}, bytes=`{read}`")));
    }
    let value = serde_json::from_slice(&line);
    let value = value.map_err(|error| Error::new(ErrorKind::Invalid, "a line is not understood").with_source(error));
    value.map(Some)
}

/// Sends one line; buffered by `to`.
///
/// Errors: `closed` when the other side has ended the connection, `unavailable` when it breaks.
pub(super) async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Internal, "a line cannot be written").with_source(error))?;
    line.push(b'\n');
    to.write_all(&line).await.map_err(broken)
}

pub(super) fn broken(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ErrorKind::Closed,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the connection to the process that has the store open ended").with_source(error)
}
