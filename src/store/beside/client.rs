//! The other side: a process that reads a store which somebody else has open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use super::server::SOCKET_FILE;
use super::wire::{
    ANSWER_BYTES_MAX, Answer, Hello, PROTOCOL, Request, Text, WireStats, WireVersion, broken, receive, send, told,
};
use crate::env::SocketFile;
use crate::store::diff::{DiffOptions, Difference};
use crate::store::history::{Origin, Version};
use crate::store::pages::{PageStream, Pages};
use crate::store::prepare::{check_partition, check_readable};
use crate::store::reader::ScanOptions;
use crate::store::scrub::ScrubReport;
use crate::store::stats::Stats;
use crate::types::{
    At, Entry, Error, ErrorKind, Key, KeyRange, LogId, OWN_PARTITION_BYTE, Position, Result, Timestamp,
};

/// Answers taken off the socket at a time.
const PAGE: usize = 256;

/// Reads a store that another process has open, through its socket, at one position. The same reads as those of a
/// [`Reader`](crate::Reader); the other process keeps the position readable as long as this lives and asks something every minute.
/// Answers of a stream are taken within a minute too. After a call that was cancelled the connection answers `closed`: connect anew.
#[derive(Debug)]
pub struct BesideReader {
    dir: PathBuf,
    log_id: LogId,
    position: Position,
    connection: Mutex<Connection>,
}

#[derive(Debug)]
struct Connection {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    /// Between a request and its answer. Who was cancelled there leaves an answer behind that nobody asked for.
    waiting: bool,
}

impl BesideReader {
    /// Connects to the process that has the store in `dir` open; reads at a position, a time or a mark, or at the position of
    /// now. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// `unavailable` when nobody has it open, or does not serve readers; those of [`Store::at`](crate::Store::at).
    pub async fn connect(dir: impl AsRef<Path>, at: Option<&At>) -> Result<BesideReader> {
        let dir = dir.as_ref().to_path_buf();
        let (connection, log_id, position) = Connection::open(&dir, at).await?;
        Ok(BesideReader { dir, log_id, position, connection: Mutex::new(connection) })
    }

    /// The identity of the store's log.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The position read at.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The entry of a key.
    ///
    /// # Errors
    /// As [`Reader::get`](crate::Reader::get), and `unavailable` when the connection breaks.
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        check_readable(partition, key)?;
        let request = Request::Get { partition: partition.into(), key: key.into() };
        match self.ask(&request).await? {
            Answer::Entry(entry) => Ok(entry.map(Entry::from)),
            other => Err(unexpected(&other)),
        }
    }

    /// Entries in key order.
    ///
    /// # Errors
    /// As [`BesideReader::get`].
    pub async fn scan(&self, options: ScanOptions<'_>) -> Result<BesideStream<Entry>> {
        let (from, to) = options.encoded()?;
        let limit = options.limit.map(|limit| limit as u64);
        self.stream(Request::Scan { from: Text(from), to: Text(to), limit }, entry).await
    }

    /// Every entry of every partition; the store's own partitions only with `internal`.
    ///
    /// # Errors
    /// As [`BesideReader::get`].
    pub async fn scan_all(&self, internal: bool) -> Result<BesideStream<Entry>> {
        let from = if internal { Vec::new() } else { vec![OWN_PARTITION_BYTE + 1] };
        self.stream(Request::Scan { from: Text(from), to: Text(Vec::new()), limit: None }, entry).await
    }

    /// Every version of a key, oldest first.
    ///
    /// # Errors
    /// As [`BesideReader::get`].
    pub async fn history(&self, partition: &[u8], key: &[u8]) -> Result<BesideStream<Version>> {
        check_readable(partition, key)?;
        let from = Key::encode(partition, key);
        let to = [&from[..], &[0]].concat();
        self.stream(Request::History { from: Text(from), to: Text(to) }, version).await
    }

    /// Every version of the keys with a prefix, key by key.
    ///
    /// # Errors
    /// As [`BesideReader::get`].
    pub async fn history_of(&self, partition: &[u8], prefix: &[u8]) -> Result<BesideStream<Version>> {
        check_partition(partition)?;
        let range = KeyRange::new(partition, prefix);
        self.stream(Request::History { from: range.prefix().into(), to: Text(range.end()) }, version).await
    }

    /// What differs between two positions, times or marks.
    ///
    /// # Errors
    /// As [`BesideReader::get`] and [`Store::diff`](crate::Store::diff).
    pub async fn diff(&self, a: &At, b: &At, options: DiffOptions<'_>) -> Result<BesideStream<Difference>> {
        let scope = options.scope().map(|(partition, prefix)| (partition.into(), prefix.into()));
        self.stream(Request::Diff { a: a.to_string(), b: b.to_string(), scope }, difference).await
    }

    /// The figures of the store as it is now; what the scrub did is not told.
    ///
    /// # Errors
    /// As [`BesideReader::get`].
    pub async fn stats(&self) -> Result<Stats> {
        match self.ask(&Request::Stats).await? {
            Answer::Stats(stats) => Ok(figures(self.log_id, stats)),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer> {
        let mut connection = self.connection.lock().await;
        if connection.waiting {
            let message = "an earlier read over this connection was cancelled before its answer came; connect anew";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        connection.waiting = true;
        connection.send(request).await?;
        let answer = connection.next().await;
        connection.waiting = false;
        answer
    }

    /// Over a connection of its own, at the same position.
    async fn stream<T: Send + Unpin + 'static>(
        &self,
        request: Request,
        convert: fn(Answer) -> Option<T>,
    ) -> Result<BesideStream<T>> {
        let (mut connection, ..) = Connection::open(&self.dir, Some(&At::Position(self.position))).await?;
        connection.send(&request).await?;
        Ok(BesideStream { pages: PageStream::new(AnswerPages { connection, ended: false, convert }) })
    }
}

impl Connection {
    async fn open(dir: &Path, at: Option<&At>) -> Result<(Connection, LogId, Position)> {
        let stream = SocketFile::connect(dir, SOCKET_FILE).and_then(UnixStream::from_std).map_err(|error| {
            let message = format!("no process that has the store open serves readers, path=`{}`", dir.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        let (read, to) = stream.into_split();
        let mut connection = Connection { from: BufReader::new(read), to, waiting: false };
        connection.send(&Hello { protocol: PROTOCOL, at: at.map(At::to_string) }).await?;
        match connection.next().await? {
            Answer::Hello { log_id, position, .. } => {
                let log_id = parse_id(&log_id).ok_or_else(|| unexpected(&log_id))?;
                Ok((connection, log_id, Position(position)))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn send<T: serde::Serialize>(&mut self, line: &T) -> Result<()> {
        send(&mut self.to, line).await?;
        self.to.flush().await.map_err(broken)
    }

    async fn next(&mut self) -> Result<Answer> {
        match receive(&mut self.from, ANSWER_BYTES_MAX).await? {
            Some(Answer::Error { kind, message }) => Err(told(&kind, message)),
            Some(answer) => Ok(answer),
            None => Err(Error::new(ErrorKind::Closed, "the process that has the store open has ended the connection")),
        }
    }
}

fn parse_id(text: &str) -> Option<LogId> {
    let mut id = LogId::default();
    let digits = text.as_bytes().chunks(2);
    if text.len() != 2 * id.0.len() {
        return None;
    }
    for (byte, digits) in id.0.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(id)
}

fn figures(log_id: LogId, stats: WireStats) -> Stats {
    let partition = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).filter_map(|digits| std::str::from_utf8(digits).ok());
        digits.filter_map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
    };
    let partitions: BTreeMap<Vec<u8>, u64> =
        stats.partitions.iter().map(|(name, count)| (partition(name), *count)).collect();
    Stats {
        log_id,
        head: Position(stats.head),
        synced: Position(stats.synced),
        floor: Position(stats.floor),
        checkpoint: Position(stats.checkpoint),
        partitions,
        memory_bytes: stats.memory_bytes,
        base_bytes: stats.base_bytes,
        scrub: ScrubReport::default(),
    }
}

fn unexpected(answer: &impl std::fmt::Debug) -> Error {
    let text: String = format!("{answer:?}").chars().take(80).collect();
    Error::new(ErrorKind::Unavailable, format!("the process that has the store open answers something else: {text}"))
}

/// Items that the other process gives one after the other. After an error it ends.
#[derive(Debug)]
#[must_use = "a stream does nothing unless polled"]
pub struct BesideStream<T: Send + Unpin + 'static> {
    pages: PageStream<AnswerPages<T>>,
}

impl<T: Send + Unpin + 'static> BesideStream<T> {
    /// The next one; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<T>> {
        self.pages.next().await
    }
}

fn entry(answer: Answer) -> Option<Entry> {
    match answer {
        Answer::Entry(entry) => entry.map(Entry::from),
        _ => None,
    }
}

fn version(answer: Answer) -> Option<Version> {
    let Answer::Version(WireVersion { key, position, value, redacted, origin }) = answer else { return None };
    Some(Version {
        encoded_key: key.0.into(),
        position: Position(position),
        value: value.map(|value| value.0.into()),
        redacted,
        origin: origin.map(|origin| Origin {
            time: Timestamp(origin.time),
            actor: origin.actor,
            reason: origin.reason,
            request_id: origin.request_id,
        }),
    })
}

fn difference(answer: Answer) -> Option<Difference> {
    let Answer::Difference { key, old, new } = answer else { return None };
    let side = |side: Option<(u64, Text)>| {
        side.map(|(version, value)| Entry {
            encoded_key: key.0.clone().into(),
            version: Position(version),
            value: value.0.into(),
        })
    };
    Some(Difference { encoded_key: key.0.clone().into(), old: side(old), new: side(new) })
}

#[derive(Debug)]
struct AnswerPages<T> {
    connection: Connection,
    ended: bool,
    convert: fn(Answer) -> Option<T>,
}

impl<T: Send + Unpin + 'static> Pages for AnswerPages<T> {
    type Item = T;

    async fn page(&mut self) -> Result<Vec<T>> {
        let mut page = Vec::new();
        while !self.ended && page.len() < PAGE {
            match self.connection.next().await? {
                Answer::End => self.ended = true,
                answer => page.push((self.convert)(answer).ok_or_else(|| unexpected(&"an item of another kind"))?),
            }
        }
        Ok(page)
    }
}
