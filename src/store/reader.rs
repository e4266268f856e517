//! [`Reader`]: reads at one position, and the stream of entries that a scan gives.

use std::pin::Pin as FuturePin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;

use super::engine::Shared;
use super::indexing;
use super::pages::{PageStream, Pages};
use super::prepare::{check_partition, check_readable};
use crate::projection::{Index as _, Pin, Scanner, UsersByEmail};
use crate::types::{Entry, Key, KeyRange, OWN_PARTITION_BYTE, Position, Result, Slice};

/// Reads at one position: that of now ([`Store::reader`](super::Store::reader)) or one of the past
/// ([`Store::at`](super::Store::at)). Cheap to clone and to hold: it pins that position, not memory.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    pin: Pin,
}

/// What to scan: a partition, or the part of it that begins with a prefix.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions<'a> {
    pub(crate) partition: &'a [u8],
    pub(crate) prefix: &'a [u8],
    pub(crate) from: &'a [u8],
    pub(crate) limit: Option<usize>,
    pub(crate) batch: usize,
}

impl<'a> ScanOptions<'a> {
    /// A whole partition.
    pub fn new(partition: &'a [u8]) -> ScanOptions<'a> {
        ScanOptions { partition, prefix: b"", from: b"", limit: None, batch: 0 }
    }

    /// Only keys that begin with this.
    #[must_use]
    pub fn prefix(mut self, prefix: &'a [u8]) -> ScanOptions<'a> {
        self.prefix = prefix;
        self
    }

    /// Only keys not below this one (inclusive; it need not exist).
    #[must_use]
    pub fn from(mut self, from: &'a [u8]) -> ScanOptions<'a> {
        self.from = from;
        self
    }

    /// At most this many entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> ScanOptions<'a> {
        self.limit = Some(limit);
        self
    }

    /// Entries fetched at a time: a hint that never changes the result. 0 is the default.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> ScanOptions<'a> {
        self.batch = batch;
        self
    }

    /// Encoded `from <= key < to`.
    pub(crate) fn encoded(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        check_partition(self.partition)?;
        let from = Key::encode(self.partition, self.from.max(self.prefix));
        Ok((from, KeyRange::new(self.partition, self.prefix).end()))
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        let pin = shared.view.pins().pin();
        Reader { shared, pin }
    }

    /// At a position that the caller has found readable after pinning it.
    pub(super) fn pinned(shared: Arc<Shared>, pin: Pin) -> Reader {
        Reader { shared, pin }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// The position read at.
    pub fn position(&self) -> Position {
        self.pin.position()
    }

    /// The entry of a key.
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        check_readable(partition, key)?;
        let key = Key::new(partition, key);
        let found = self.shared.value_at(&key, self.position()).await?;
        Ok(found.map(|(version, value)| Entry { encoded_key: Slice::from(key), version, value }))
    }

    /// Entries in key order.
    pub fn scan(&self, options: ScanOptions<'_>) -> Result<EntryStream> {
        let (from, to) = options.encoded()?;
        let start = Key::encode(options.partition, b"").len();
        let limit = options.limit.unwrap_or(usize::MAX);
        Ok(self.stream(&from, to, options.batch.min(limit), Some(start), limit))
    }

    /// Every entry of every partition, by partition and key. The store's own partitions only with
    /// `internal`.
    pub fn scan_all(&self, internal: bool) -> EntryStream {
        let from = if internal { Vec::new() } else { vec![OWN_PARTITION_BYTE + 1] };
        self.stream(&from, Vec::new(), 0, None, usize::MAX)
    }

    /// The keys (in partition `auth`) of the users with this e-mail address, in any case.
    pub async fn users_by_email(&self, email: &str) -> Result<Vec<Vec<u8>>> {
        indexing::check_built(&self.shared, UsersByEmail.name(), self.position())?;
        let range = UsersByEmail::lookup(email);
        let start = Key::key_start(range.prefix()).unwrap_or(0);
        let prefix = range.prefix().get(start..).unwrap_or_default();
        let mut entries = self.scan(ScanOptions::new(UsersByEmail::PARTITION).prefix(prefix))?;
        let mut keys = Vec::new();
        while let Some(entry) = entries.next().await {
            keys.push(entry?.value.to_vec());
        }
        Ok(keys)
    }

    /// Entries with encoded `from <= key < to`.
    pub(super) fn scan_encoded(&self, from: &[u8], to: Vec<u8>, limit: usize) -> EntryStream {
        self.stream(from, to, 0, None, limit)
    }

    fn stream(&self, from: &[u8], to: Vec<u8>, batch: usize, key_start: Option<usize>, limit: usize) -> EntryStream {
        let scanner = Scanner::new(self.shared.view.clone(), self.pin.clone(), from, to, batch);
        let partition = key_start.map(|start| from.get(..start).unwrap_or_default().to_vec());
        let entries = Entries { shared: self.shared.clone(), scanner };
        EntryStream { pages: PageStream::new(entries), partition, left: limit }
    }
}

/// Entries in key order, at one position. After an error it ends.
#[derive(Debug)]
#[must_use = "a stream does nothing unless polled"]
pub struct EntryStream {
    pages: PageStream<Entries>,
    /// The encoded partition that a seek stays in; `None` for a scan over all partitions.
    partition: Option<Vec<u8>>,
    left: usize,
}

#[derive(Debug)]
struct Entries {
    shared: Arc<Shared>,
    scanner: Scanner,
}

impl Pages for Entries {
    type Item = Entry;

    async fn page(&mut self) -> Result<Vec<Entry>> {
        self.shared.page(&mut self.scanner).await
    }
}

impl EntryStream {
    /// Goes to the first entry whose key is not below `key`, forwards or backwards, also after the
    /// end. Not for scans over all partitions, where it does nothing.
    pub async fn seek(&mut self, key: &[u8]) {
        let Some(partition) = &self.partition else { return };
        let target = [&partition[..], key].concat();
        self.pages.reset(|entries| entries.scanner.seek(&target)).await;
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Entry>> {
        std::future::poll_fn(|context| FuturePin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for EntryStream {
    type Item = Result<Entry>;

    fn poll_next(mut self: FuturePin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let polled = FuturePin::new(&mut self.pages).poll_next(context);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.left -= 1;
        }
        polled
    }
}
